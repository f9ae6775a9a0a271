//! DestinationRules that ask for TLS, which would be plain text: what they are for refuses.

use super::*;

const TCP: &str = "{name: tcp, port: 80, targetPort: 8080}";

/// Compiles, which says that TLS is not supported.
fn with_tls(texts: &[&str]) -> Compiled {
    let compiled = compiled(&texts.concat());
    let mut errors = compiled.findings.iter().filter(|f| f.severity == Severity::Error);
    assert!(errors.any(|f| f.message.contains("tls`")), "{:?}", compiled.findings);
    compiled
}

fn tls(mode: &str) -> String {
    dr("shop", "a-tls", &format!("{{host: b, trafficPolicy: {{tls: {{{mode}}}}}}}"))
}

fn client() -> String {
    pod("clients", "c", "10.0.2.1", "weir.mesh/mode: enabled")
        .replace("labels:", "annotations: {weir.mesh/netns: /run/netns/c}, labels:")
}

#[test]
fn every_mode_but_disable_closes_every_kind_of_port() {
    for port in [HTTP, TCP, "{name: web, port: 80}", "{name: grpc, port: 80}", "{name: https, port: 80}"] {
        for mode in ["mode: SIMPLE", "mode: MUTUAL, credentialName: c", "mode: ISTIO_MUTUAL", "sni: b"] {
            let compiled = with_tls(&[&shop(port), &tls(mode)]);
            let entry = compiled.entry(0, "10.96.0.2", 80).expect("planned");
            assert_eq!(entry.verdict, Verdict::Reject, "{port} {mode}");
            assert!(entry.why.starts_with("DestinationRule shop/a-tls asks for TLS"), "{}", entry.why);
            assert_eq!(entry.because.as_ref().map(ToString::to_string).as_deref(), Some("DestinationRule shop/a-tls"));
            assert!(compiled.program.clusters.iter().all(|c| c.endpoints4.is_empty()), "nor through another service");
        }
        let (plain, _) = with_store(&[("t", &[shop(port), tls("mode: DISABLE")].concat())], &CompileOptions::default());
        assert_eq!(plain.verdict("10.96.0.2").0, Verdict::Balance, "{port}");
    }
}

#[test]
fn a_subset_closes_what_leads_to_it_and_nothing_else() {
    let rule = dr(
        "shop",
        "b",
        "{host: b, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}, trafficPolicy: {tls: {mode: SIMPLE}}}]}",
    );
    let base = shop(HTTP);
    let base = base.split("---\napiVersion: networking").next().expect("the rule is the last").to_owned();
    let only = vs("shop", "b", "{hosts: [b], http: [{route: [{destination: {host: b, subset: v2}}]}]}");
    let split = vs(
        "shop",
        "b",
        "{hosts: [b], http: [{route: [{destination: {host: b, subset: v1}, weight: 9}, {destination: {host: b, subset: v2}, weight: 1}]}]}",
    );
    assert_eq!(with_tls(&[&base, &rule]).verdict("10.96.0.2").0, Verdict::Balance, "nobody asks for the subset");
    assert_eq!(
        with_tls(&[&base, &rule, &only]).verdict("10.96.0.2"),
        (Verdict::Reject, "DestinationRule shop/b asks for TLS (SIMPLE), and this version would send plain text")
    );
    let compiled = with_tls(&[&base, &rule, &split]);
    let (verdict, why) = compiled.verdict("10.96.0.2");
    assert_eq!(verdict, Verdict::Proxy);
    assert!(
        why.contains("outbound|80|v2|b.shop.svc.cluster.local is refused, as DestinationRule shop/b asks for TLS"),
        "{why}"
    );
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/"), "default: b-v1/2=9 b-v2/0=1");
    assert_eq!(
        compiled.groups(0, "10.96.0.2", 80),
        ["v1:9:10.0.0.1:8080,10.0.0.2:8080", "v2:1:"],
        "its share is refused"
    );
}

#[test]
fn the_most_specific_level_decides() {
    let ports = "{name: http, port: 80}, {name: tcp-s, port: 443}";
    let rule = |policy: &str| dr("shop", "a-tls", &format!("{{host: b, trafficPolicy: {policy}}}"));
    for (policy, plain, secured) in [
        ("{portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE}}]}", Verdict::Balance, Verdict::Reject),
        (
            "{tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}",
            Verdict::Balance,
            Verdict::Reject,
        ),
        (
            "{tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 1}}}]}",
            Verdict::Reject,
            Verdict::Reject,
        ),
    ] {
        let compiled = with_tls(&[&shop(ports), &rule(policy)]);
        let verdict = |port| compiled.entry(0, "10.96.0.2", port).expect("planned").verdict;
        assert_eq!((verdict(80), verdict(443)), (plain, secured), "{policy}");
    }
}

#[test]
fn headless_services_and_routes_of_others_are_closed_too() {
    let text = [
        shop(HTTP),
        service("shop", "h", "None", HTTP),
        pod("shop", "h-1", "10.0.3.1", "app: h"),
        dr("shop", "h-tls", "{host: h, trafficPolicy: {tls: {mode: MUTUAL, credentialName: c}}}"),
        vs("shop", "b", "{hosts: [b], http: [{match: [{uri: {prefix: /h}}], route: [{destination: {host: h}}]}, {route: [{destination: {host: b}}]}]}"),
    ]
    .concat();
    let compiled = with_tls(&[&text]);
    assert_eq!(compiled.entry(0, "10.0.3.1", 8080).map(|entry| entry.verdict), Some(Verdict::Reject));
    assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Proxy);
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/h"), "default: h/0=1");
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/"), "default: b/3=1");
}

#[test]
fn a_rule_for_some_clients_closes_its_host_for_them() {
    let spec = "{host: b.shop.svc.cluster.local, workloadSelector: {matchLabels: {app: c}}, trafficPolicy: {tls: {mode: SIMPLE}}}";
    let other = client().replace("name: c,", "name: d,").replace("10.0.2.1", "10.0.2.2");
    let meant = client().replace("weir.mesh/mode: enabled", "weir.mesh/mode: enabled, app: c");
    let compiled = with_tls(&[&shop(HTTP), &meant, &other, &dr("clients", "some", spec)]);
    let verdict_of = |pod: &str| {
        let view = compiled.plan.pods[pod].view;
        compiled.entry(view, "10.96.0.2", 80).or(compiled.entry(0, "10.96.0.2", 80)).map(|entry| entry.verdict)
    };
    assert_eq!(verdict_of("clients/c"), Some(Verdict::Reject));
    assert_eq!(verdict_of("clients/d"), Some(Verdict::Balance));
    assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Balance, "others see nothing of it");
}

#[test]
fn a_rule_that_is_not_valid_closes_what_it_wanted_encrypted_and_does_nothing_else() {
    for (policy, plain, secured) in [
        ("{tls: {mode: MUTUAL}}", Verdict::Reject, Verdict::Reject),
        ("{tls: {mode: LATER}}", Verdict::Reject, Verdict::Reject),
        ("{tls: {mode: 5}, loadBalancer: {simple: RANDOM}}", Verdict::Reject, Verdict::Reject),
        ("{portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPEL}}]}", Verdict::Balance, Verdict::Reject),
        ("{tls: {mode: DISABLE}, loadBalancer: {simple: RANDOMLY}}", Verdict::Balance, Verdict::Balance),
    ] {
        let rule = dr("shop", "a-tls", &format!("{{host: b, trafficPolicy: {policy}}}"));
        let text = [shop("{name: http, port: 80}, {name: tcp-s, port: 443}"), rule].concat();
        let (compiled, findings) = with_store(&[("t", &text)], &CompileOptions::default());
        assert!(
            findings.iter().any(|f| f.severity == Severity::Error && f.code == crate::finding::code::INVALID),
            "{findings:?}"
        );
        let verdict = |port| compiled.entry(0, "10.96.0.2", port).expect("planned").verdict;
        assert_eq!((verdict(80), verdict(443)), (plain, secured), "{policy}");
    }
}
