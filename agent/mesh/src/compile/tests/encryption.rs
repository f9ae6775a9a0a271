//! DestinationRules that ask for TLS: SIMPLE and MUTUAL are the proxy's, which never lets the kernel send plain text in its
//! place; what is for any other mode refuses.

use super::*;

const TCP: &str = "{name: tcp, port: 80, targetPort: 8080}";

/// Compiles, which says that such TLS is not supported.
fn with_tls(texts: &[&str]) -> Compiled {
    let compiled = compiled(&texts.concat());
    let mut errors = compiled.findings.iter().filter(|f| f.severity == Severity::Error);
    assert!(
        errors.any(|f| f.message.contains("tls`") || f.message.contains("tls.credentialName`")),
        "{:?}",
        compiled.findings
    );
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
fn every_mode_that_is_not_done_closes_every_kind_of_port() {
    for port in [HTTP, TCP, "{name: web, port: 80}", "{name: grpc, port: 80}", "{name: https, port: 80}"] {
        for mode in
            ["mode: SIMPLE, credentialName: c", "mode: MUTUAL, credentialName: c", "mode: ISTIO_MUTUAL", "sni: b"]
        {
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
        "{host: b, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}]}",
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
        (Verdict::Reject, "DestinationRule shop/b asks for TLS (ISTIO_MUTUAL), and this version would send plain text")
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
        ("{portLevelSettings: [{port: {number: 443}, tls: {mode: ISTIO_MUTUAL}}]}", Verdict::Balance, Verdict::Reject),
        (
            "{tls: {mode: ISTIO_MUTUAL}, portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}",
            Verdict::Balance,
            Verdict::Reject,
        ),
        // What settings of a port leave out is as if nobody had said it.
        (
            "{tls: {mode: ISTIO_MUTUAL}, portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}",
            Verdict::Proxy,
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
    let spec = "{host: b.shop.svc.cluster.local, workloadSelector: {matchLabels: {app: c}}, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}";
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

#[test]
fn simple_and_mutual_are_the_proxys_on_every_kind_of_port_and_have_no_fallback() {
    let mutual = "mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /a";
    for port in [HTTP, TCP, "{name: web, port: 80}", "{name: grpc, port: 80}", "{name: mysql, port: 80}"] {
        for mode in ["mode: SIMPLE", mutual] {
            let compiled = compiled(&[shop(port), tls(mode)].concat());
            assert!(compiled.findings.iter().all(|f| f.severity != Severity::Error), "{:?}", compiled.findings);
            let entry = compiled.entry(0, "10.96.0.2", 80).expect("planned");
            assert_eq!((entry.verdict, entry.on_failure), (Verdict::Proxy, OnFailure::Refuse), "{port} {mode}");
            assert!(
                entry.why.starts_with("DestinationRule shop/a-tls asks for TLS toward its endpoints"),
                "{}",
                entry.why
            );
            assert!(entry.fallback.iter().all(|group| group.endpoints.is_empty()), "the kernel knows of nobody");
            assert!(
                compiled.program.clusters.iter().any(|c| c.endpoints4.len() == 3 && c.policy.originates().is_some())
            );
        }
    }
}

#[test]
fn beside_a_subset_in_plain_text_one_that_is_encrypted_loses_its_share_while_no_proxy_is_alive() {
    let rule = dr(
        "shop",
        "b",
        "{host: b, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}, trafficPolicy: {tls: {mode: SIMPLE}}}]}",
    );
    let base = shop(HTTP);
    let base = base.split("---\napiVersion: networking").next().expect("the rule is the last").to_owned();
    let split = vs(
        "shop",
        "b",
        "{hosts: [b], http: [{route: [{destination: {host: b, subset: v1}, weight: 9}, {destination: {host: b, subset: v2}, weight: 1}]}]}",
    );
    let compiled = compiled(&[base, rule, split].concat());
    let entry = compiled.entry(0, "10.96.0.2", 80).expect("planned");
    assert_eq!((entry.verdict, entry.on_failure), (Verdict::Proxy, OnFailure::Balance));
    assert!(entry.why.contains("|v2|b.shop.svc.cluster.local is refused while no proxy is alive"), "{}", entry.why);
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), ["v1:9:10.0.0.1:8080,10.0.0.2:8080", "v2:1:"]);
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/"), "default: b-v1/2=9 b-v2/1=1");
}

#[test]
fn who_dials_a_pod_of_a_headless_service_has_no_fallback_either() {
    let text = [
        service("shop", "h", "None", TCP),
        pod("shop", "h-1", "10.0.3.1", "app: h"),
        dr("shop", "h-tls", "{host: h, trafficPolicy: {tls: {mode: SIMPLE}}}"),
    ]
    .concat();
    let compiled = compiled(&text);
    let entry = compiled.entry(0, "10.0.3.1", 8080).expect("planned");
    assert_eq!((entry.verdict, entry.on_failure), (Verdict::Proxy, OnFailure::Refuse));
    assert!(entry.fallback.iter().all(|group| group.endpoints.is_empty()));
}

#[test]
fn settings_of_a_port_without_tls_are_plain_text_and_told() {
    let ports = "{name: http, port: 80}, {name: tcp-s, port: 443}";
    let policy =
        "{tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {connectTimeout: 1s}}}]}";
    let rule = dr("shop", "a-tls", &format!("{{host: b, trafficPolicy: {policy}}}"));
    let compiled = compiled(&[shop(ports), rule].concat());
    let verdict = |port| compiled.entry(0, "10.96.0.2", port).expect("planned").verdict;
    assert_eq!((verdict(80), verdict(443)), (Verdict::Balance, Verdict::Proxy));
    let told = compiled.found(crate::finding::code::PORT_DROPS);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("connections to port 80 are plain text"), "{told:?}");
}

#[test]
fn tls_around_tls_and_tls_for_a_host_that_is_out_of_reach_are_told() {
    let told = compiled(&[shop("{name: https, port: 80}"), tls("mode: SIMPLE")].concat());
    let twice = told.found(crate::finding::code::TLS_TWICE);
    assert_eq!(twice.len(), 1, "{twice:?}");
    assert_eq!(told.verdict("10.96.0.2").0, Verdict::Proxy);
    let text = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: api, namespace: shop}\n\
                spec: {hosts: [api.example.com], resolution: DNS, ports: [{number: 443, name: http, protocol: HTTP}]}\n";
    let rule = dr("shop", "api", "{host: api.example.com, trafficPolicy: {tls: {mode: SIMPLE}}}");
    let (compiled, _) = with_store(&[("t", &[text.to_owned(), rule].concat())], &CompileOptions::default());
    let told = compiled.found(crate::finding::code::NOT_SUPPORTED);
    assert!(told.iter().any(|one| one.contains("nothing is encrypted for them")), "{told:?}");
}

#[test]
fn a_local_service_on_a_node_without_a_name_is_never_plain_text() {
    let local = shop(HTTP).replacen("spec: {clusterIP", "spec: {internalTrafficPolicy: Local, clusterIP", 1);
    let compiled = compiled(&[local, tls("mode: SIMPLE")].concat());
    assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Reject);
}

fn unresolved(addresses: &str) -> String {
    let spec = format!(
        "{{hosts: [api.example.com], addresses: [{addresses}], resolution: DNS, ports: [{{number: 80, targetPort: 443, name: http, protocol: HTTP}}, {{number: 81, name: tcp, protocol: TCP}}]}}"
    );
    rule("ServiceEntry", "shop", "api", &spec)
}

#[test]
fn a_host_out_of_reach_is_refused_at_its_addresses() {
    let of = |policy: &str| dr("shop", "api", &format!("{{host: api.example.com, {policy}}}"));
    let only_80 = "trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}]}";
    let closed = Some(Verdict::Reject);
    for (policy, expected, told) in [
        ("trafficPolicy: {tls: {mode: SIMPLE}}", [closed, closed], true),
        ("trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}", [closed, closed], true),
        (only_80, [closed, None], true),
        ("trafficPolicy: {tls: {mode: DISABLE}}", [None, None], false),
        // Whatever comes first, each is looked at.
        (
            "trafficPolicy: {tls: {mode: DISABLE}}, subsets: [{name: v1, labels: {v: a}, trafficPolicy: {tls: {mode: SIMPLE}}}]",
            [None, None],
            true,
        ),
    ] {
        let (compiled, _) =
            with_store(&[("t", &[unresolved("240.0.0.1"), of(policy)].concat())], &CompileOptions::default());
        let entries = [80, 81].map(|port| compiled.entry(0, "240.0.0.1", port));
        assert_eq!(entries.map(|entry| entry.map(|entry| entry.verdict)), expected, "{policy}");
        let findings = compiled.found(crate::finding::code::NOT_SUPPORTED);
        let is_told = findings.iter().any(|one| one.contains("connections to its `addresses` are refused"));
        assert_eq!(is_told, told, "{policy}: {findings:?}");
    }
    let (nowhere, _) = with_store(
        &[("t", &[unresolved(""), of("trafficPolicy: {tls: {mode: SIMPLE}}")].concat())],
        &CompileOptions::default(),
    );
    assert!(nowhere.plan.services.is_empty());
}

#[test]
fn a_rule_for_some_refuses_a_host_out_of_reach_for_them_and_one_without_leaves_it_to_them() {
    let of = |namespace: &str, mode: &str| {
        dr(namespace, "api", &format!("{{host: api.example.com, trafficPolicy: {{tls: {{mode: {mode}}}}}}}"))
    };
    let entry_of = |text: &[String], pod: &str| {
        let (compiled, _) = with_store(&[("t", &text.concat())], &CompileOptions::default());
        let view = if pod.is_empty() { 0 } else { compiled.plan.pods[pod].view };
        compiled.entry(view, "240.0.0.1", 80).map(|entry| entry.verdict)
    };
    let some = [unresolved("240.0.0.1"), client(), of("clients", "SIMPLE")];
    assert_eq!((entry_of(&some, "clients/c"), entry_of(&some, "")), (Some(Verdict::Reject), None));
    let others = [unresolved("240.0.0.1"), client(), of("shop", "SIMPLE"), of("clients", "DISABLE")];
    assert_eq!((entry_of(&others, "clients/c"), entry_of(&others, "")), (Some(Verdict::Pass), Some(Verdict::Reject)));
    let steered = "{hosts: [db.example.com], addresses: [240.0.0.1], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: 192.0.2.1}]}";
    let shared = [unresolved("240.0.0.1"), of("shop", "SIMPLE"), rule("ServiceEntry", "shop", "db", steered)];
    assert_eq!(entry_of(&shared, ""), Some(Verdict::Balance), "the address is of one that is steered");
}
