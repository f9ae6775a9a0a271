//! What Istio's tool does not look for, and what is told once where two would tell it.

use super::rules::{SERVICE, virtual_service};
use super::{codes, found, of, one};
use crate::finding::Severity;

fn destination_rule(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{host: web, {spec}}}\n"
    )
}

fn policy(action: &str, rule: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{action: {action}, rules: [{rule}]}}\n"
    )
}

#[test]
fn a_match_that_takes_everything_empties_the_rule_below() {
    let pair = |uri: &str| {
        virtual_service(&format!(
            "  - match: [{uri}]\n    route: [{{destination: {{host: web}}}}]\n  - route: [{{destination: {{host: web}}}}]\n"
        ))
    };
    for all in
        ["{uri: {regex: \".*\"}}", "{uri: {regex: \"/.*\"}}", "{uri: {prefix: /}}", "{name: a, uri: {prefix: /}}"]
    {
        let finding = one("IST0130", &pair(all));
        assert!(finding.message.starts_with("http[1] is never used: http[0].match[0] comes first"), "{all}: {finding}");
    }
    for some in
        ["{uri: {regex: \"/a.*\"}}", "{uri: {prefix: /}, method: {exact: GET}}", "{uri: {prefix: /}, gateways: [g]}"]
    {
        assert!(of("IST0130", &pair(some)).is_empty(), "{some}");
    }
}

#[test]
fn what_a_regex_begins_with_is_seen() {
    let shadowed = |first: &str, second: &str| {
        let rules = virtual_service(&format!(
            "  - match: [{{uri: {{{first}}}}}]\n    route: [{{destination: {{host: web}}}}]\n  - match: [{{uri: {{{second}}}}}]\n    route: [{{destination: {{host: web}}}}]\n"
        ));
        codes(&rules).contains("WEIR0017")
    };
    assert!(shadowed("prefix: /x", "regex: '/x/.*'"));
    assert!(shadowed("prefix: /x", r"regex: '^/x\.html'"));
    assert!(!shadowed("prefix: /x", "regex: '/x(a|b)?'"), "alternatives are not looked into");
    assert!(shadowed("regex: '/x.*'", "prefix: /x/y") && shadowed("regex: '/x.*'", "regex: '/xy?z'"));
    for (first, second) in [
        ("prefix: /x/", "regex: '/x/?.*'"),
        ("prefix: /x", "regex: '/x*y'"),
        ("prefix: /x", "regex: '/x|/y'"),
        ("prefix: /d", r"regex: '/\d'"),
        ("prefix: /x", "regex: '(?i)/x'"),
        ("prefix: /x", "regex: '/x{0,1}'"),
        ("regex: '/x.+'", "prefix: /x"),
    ] {
        assert!(!shadowed(first, second), "{first}, {second}");
    }
}

#[test]
fn settings_of_a_port_that_there_is_not_are_told() {
    let rule = |port: u16| {
        destination_rule(
            "web",
            &format!(
                "trafficPolicy: {{loadBalancer: {{simple: RANDOM}}, portLevelSettings: [{{port: {{number: {port}}}, tls: {{mode: DISABLE}}}}]}}"
            ),
        )
    };
    let finding = one("IST0101", &format!("{SERVICE}{}", rule(99)));
    assert!(finding.message.starts_with("port not found: 99;") && finding.severity == Severity::Warning, "{finding}");
    assert!(
        !codes(&format!("{SERVICE}{}", rule(99))).contains("WEIR0019"),
        "nothing holds at a port that is not there"
    );
    let there = codes(&format!("{SERVICE}{}", rule(80)));
    assert!(!there.contains("IST0101") && there.contains("WEIR0019"));
    assert!(!of("IST0101", &rule(99)).iter().any(|f| f.message.contains("port")), "the host is unknown");
}

#[test]
fn a_rule_for_some_clients_hides_the_subsets_of_the_others() {
    let subsets = "subsets: [{name: v1, labels: {version: v1}}]";
    let chosen =
        |more: &str| destination_rule("chosen", &format!("workloadSelector: {{matchLabels: {{app: a}}}}{more}"));
    let to = virtual_service("  - route: [{destination: {host: web, subset: v1}}]\n");
    let text = |more: &str| format!("{SERVICE}---\n{to}{}{}", destination_rule("all", subsets), chosen(more));
    let finding = one("WEIR0030", &text(""));
    assert!(finding.message.contains("and not DestinationRule shop/all: subset v1, to which VirtualService shop/web"));
    assert!(of("WEIR0030", &text(&format!(", {subsets}"))).is_empty());
    assert!(of("WEIR0030", &text("").replace("subset: v1", "subset: v2")).is_empty(), "nobody has that");
}

#[test]
fn weights_come_before_the_hash_of_any_of_their_subsets() {
    let rule = |balancer: &str| {
        destination_rule(
            "web",
            &format!(
                "trafficPolicy: {{loadBalancer: {{consistentHash: {{useSourceIp: true}}}}}}, subsets: [{{name: v1, labels: {{v: '1'}}{balancer}}}, {{name: v2, labels: {{v: '2'}}{balancer}}}]"
            ),
        )
    };
    let to = |weights: [u8; 2]| {
        virtual_service(&format!(
            "  - route:\n    - {{destination: {{host: web, subset: v1}}, weight: {}}}\n    - {{destination: {{host: web, subset: v2}}, weight: {}}}\n",
            weights[0], weights[1]
        ))
    };
    let finding = one("WEIR0026", &(to([90, 10]) + &rule("")));
    assert!(finding.message.contains("the consistentHash of DestinationRule shop/web gives it"), "{finding}");
    assert!(of("WEIR0026", &(to([100, 0]) + &rule(""))).is_empty(), "one gets everything");
    let own = rule(", trafficPolicy: {loadBalancer: {simple: RANDOM}}");
    assert!(of("WEIR0026", &(to([90, 10]) + &own)).is_empty(), "the subsets have balancers of their own");
}

#[test]
fn who_has_no_identity_meets_negative_conditions() {
    let told =
        |action: &str, source: &str| of("WEIR0031", &policy(action, &format!("{{from: [{{source: {{{source}}}}}]}}")));
    assert_eq!(told("ALLOW", "notPrincipals: [a/b]")[0].severity, Severity::Warning);
    assert_eq!(told("DENY", "notNamespaces: [shop]")[0].severity, Severity::Info);
    assert!(told("ALLOW", "notPrincipals: [a/b], principals: ['*']").is_empty());
    assert!(told("ALLOW", "notIpBlocks: [10.0.0.1]").is_empty());
}

#[test]
fn policies_name_the_ports_of_pods() {
    let service = SERVICE.replace("port: 80}", "port: 80, targetPort: web}");
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop, labels: {app: web}}\nspec: {containers: [{name: web, ports: [{name: web, containerPort: 8080}]}]}\n";
    let told = |port: u16| {
        of(
            "WEIR0033",
            &format!("{service}{pod}{}", policy("DENY", &format!("{{to: [{{operation: {{ports: ['{port}']}}}}]}}"))),
        )
    };
    assert!(told(80)[0].message.starts_with("80 is a port of Service web, whose pods listen on 8080"));
    assert!(told(8080).is_empty() && told(9000).is_empty());
}

#[test]
fn one_fault_is_told_once() {
    let told = |text: &str| {
        found(&[text]).into_iter().filter(|f| f.severity > Severity::Info).map(|f| f.code).collect::<Vec<_>>()
    };
    let rules = destination_rule("a", "trafficPolicy: {loadBalancer: {simple: RANDOM}}")
        + &destination_rule("b", "trafficPolicy: {loadBalancer: {simple: RANDOM}}");
    assert_eq!(told(&format!("{SERVICE}{rules}")), ["WEIR0018"]);
    let percent =
        virtual_service("  - fault: {delay: {percent: 50, fixedDelay: 1s}}\n    route: [{destination: {host: web}}]\n");
    assert_eq!(told(&format!("{SERVICE}---\n{percent}")), ["IST0002"]);
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s, namespace: shop}\nspec: {hosts: [x.example.com], ports: [{number: 9000, name: tcp, protocol: TCP}], resolution: STATIC, endpoints: [{address: 10.9.9.9}]}\n";
    let codes = told(entry);
    assert!(codes.contains(&"IST0134") && !codes.contains(&"IST0133"), "{codes:?}");
    let star = virtual_service("  - route: [{destination: {host: web}}]\n").replace("[web]", "['*']");
    assert_eq!(told(&format!("{SERVICE}---\n{star}")), ["IST0106"]);
}
