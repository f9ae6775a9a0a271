//! What differs is told, what is the same is not, and the order is always the same.

use super::*;
use crate::compile::compile;
use crate::explain::assume;
use crate::store::Store;

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.mesh/mode: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v1, namespace: shop}
spec: {replicas: 2, template: {metadata: {labels: {app: web, version: v1}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /a}}]
    route: [{destination: {host: web, subset: v1}}]
  - match: [{uri: {prefix: /b}}]
    route: [{destination: {host: web, subset: v1}}]
  - route: [{destination: {host: web, subset: v1}, weight: 90}, {destination: {host: web, subset: v2}, weight: 10}]
";

fn compared(old: &str, new: &str) -> Diff {
    let name = "mesh.yaml";
    let read = |text: &str, before: Snapshot| {
        let mut store = Store::on_top_of(before);
        store.set_file(name, text);
        let (mut snapshot, findings) = store.assemble();
        assume::cluster(&mut snapshot);
        let compiled = compile(&snapshot, &CompileOptions::default());
        (snapshot, compiled, findings)
    };
    let options = CompileOptions::default();
    let mut before = Store::new();
    before.set_file(name, old);
    let (old, new) = (read(old, Snapshot::default()), read(new, before.snapshot()));
    diff(&Side::new(&old.0, &options, &old.1, &old.2), &Side::new(&new.0, &options, &new.1, &new.2))
}

fn lines(diff: &Diff) -> Vec<String> {
    let line = |change: &Change| {
        let fields: Vec<String> = change
            .fields
            .iter()
            .map(|one| {
                format!("{}: {} → {}", one.field, one.old.as_deref().unwrap_or("-"), one.new.as_deref().unwrap_or("-"))
            })
            .collect();
        format!("{:?} {} {}: {}", change.how, change.area.as_str(), change.subject, fields.join("; "))
    };
    diff.changes.iter().map(line).collect()
}

#[test]
fn the_same_is_the_same_wherever_it_stands() {
    assert_eq!(compared(SHOP, SHOP), Diff::default());
    let moved = format!("# a comment\n{}", SHOP.replace("kind: Service", "# another\nkind: Service"));
    assert_eq!(compared(SHOP, &moved), Diff::default());
    // Another service before it moves every address that is taken for granted.
    let other = "---\napiVersion: v1\nkind: Service\nmetadata: {name: aaa, namespace: shop}\nspec: {selector: {app: aaa}, ports: [{name: http, port: 81}]}\n";
    let with_other = format!("{SHOP}{other}");
    let told = compared(SHOP, &with_other);
    assert!(told.changes.iter().all(|change| change.how == How::Added && change.subject.contains("aaa")), "{told:#?}");
    assert!(!told.is_empty());
}

#[test]
fn weights_and_settings_are_told_by_rule() {
    let new = SHOP.replace("weight: 90", "weight: 50").replace("weight: 10", "weight: 50");
    let told = compared(SHOP, &new);
    let to = |one: u32, other: u32| {
        let name = "web.shop.svc.cluster.local:80";
        format!("{one}% v1 of {name}, {other}% v2 of {name}")
    };
    let shares = format!("{} → {}", to(90, 10), to(50, 50));
    let route = format!("Changed route web.shop.svc.cluster.local:80, rule for everything: destinations: {shares}");
    assert_eq!(lines(&told), [route]);
    let told = compared(SHOP, &SHOP.replace("  - route: [", "  - timeout: 3s\n    route: ["));
    assert!(lines(&told)[0].ends_with("rule for everything: timeout: none → 3s"), "{:?}", lines(&told));
    let told = compared(
        SHOP,
        &SHOP.replace("{host: web, subsets", "{host: web, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets"),
    );
    let balanced: Vec<String> = lines(&told).into_iter().filter(|line| line.contains("destination v1")).collect();
    assert_eq!(
        balanced,
        ["Changed destination v1 of web.shop.svc.cluster.local:80: loadBalancer: LEAST_REQUEST → RANDOM"]
    );
}

#[test]
fn rules_come_go_and_change_places() {
    let without =
        SHOP.replace("  - match: [{uri: {prefix: /b}}]\n    route: [{destination: {host: web, subset: v1}}]\n", "");
    let told = compared(SHOP, &without);
    assert_eq!(told.changes.len(), 1, "{told:#?}");
    assert_eq!((told.changes[0].how, told.changes[0].area), (How::Removed, Area::Route));
    assert!(told.changes[0].subject.ends_with("rule for path prefix /b"), "{told:#?}");
    let back = compared(&without, SHOP);
    assert_eq!((back.changes.len(), back.changes[0].how), (1, How::Added));
    let swapped = SHOP
        .replace("prefix: /a", "prefix: /x")
        .replace("prefix: /b", "prefix: /a")
        .replace("prefix: /x", "prefix: /b");
    let told = compared(SHOP, &swapped);
    assert_eq!(
        lines(&told),
        [
            "Changed route web.shop.svc.cluster.local:80: order of rules: path prefix /a | path prefix /b | everything → path prefix /b | path prefix /a | everything"
        ]
    );
}

#[test]
fn verdicts_policies_pods_and_findings_are_told() {
    let mut with = SHOP.replace("weir.mesh/mode: enabled", "weir.mesh/mode: disabled");
    with.push_str("---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: closed, namespace: shop}\nspec: {}\n");
    let told = compared(SHOP, &with);
    let of = |area: Area| {
        lines(&told).into_iter().zip(&told.changes).filter(|(_, c)| c.area == area).map(|(l, _)| l).collect::<Vec<_>>()
    };
    assert!(of(Area::ServicePort)[0].contains("verdict: proxy → reject"), "{told:#?}");
    assert_eq!(
        of(Area::Policy),
        ["Added policy for web.shop.svc.cluster.local: refuses for: - → AuthorizationPolicy shop/closed"]
    );
    assert_eq!(of(Area::Pod).len(), 2);
    assert!(of(Area::Pod)[0].contains("takes part: yes → no"), "{told:#?}");
    assert!(told.new_findings.iter().any(|finding| finding.contains("is not enforced")), "{told:#?}");
    let back = compared(&with, SHOP);
    assert_eq!((&back.gone_findings, &back.new_findings), (&told.new_findings, &told.gone_findings));
}

#[test]
fn what_some_clients_have_is_told_of_them() {
    let some = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: own, namespace: other}\nspec: {hosts: [web.shop.svc.cluster.local], exportTo: ['.'], http: [{route: [{destination: {host: web.shop.svc.cluster.local}}]}]}\n";
    let told = compared(SHOP, &format!("{SHOP}{some}"));
    assert!(told.changes.iter().all(|change| change.clients == "clients in other"), "{told:#?}");
    assert!(told.changes.iter().any(|change| change.area == Area::Route), "{told:#?}");
}

#[test]
fn of_what_is_refused_the_older_version_stays() {
    let rules = SHOP.rsplit("---").next().unwrap();
    for (from, to, finding) in [
        ("hosts: [web]", "hosts: 7", "its last good version stays in force"),
        ("kind: VirtualService\nmetadata", "kind: VirtualService\n  metadata", "no YAML"),
        ("  hosts: [web]", "  hosts: [web", "the last good version of VirtualService shop/web stays"),
    ] {
        let told = compared(SHOP, &SHOP.replace(rules, &rules.replace(from, to)));
        assert_eq!(lines(&told), [""; 0], "{to}");
        assert!(told.new_findings.iter().any(|one| one.contains(finding)), "{:?}", told.new_findings);
    }
    let gone = compared(SHOP, &SHOP.replace(rules, "\n"));
    assert!(gone.changes.iter().any(|change| change.how == How::Removed), "{gone:?}");
}

#[test]
fn another_port_of_the_pods_is_a_change() {
    let told = compared(SHOP, &SHOP.replace("port: 80}", "port: 80, targetPort: 9090}"));
    assert!(lines(&told).iter().any(|line| line.contains("their ports") && line.contains("9090")), "{told:?}");
}

#[test]
fn a_rule_that_moves_takes_its_findings_with_it() {
    let text =
        SHOP.replace("  - match: [{uri: {prefix: /b}}]\n", "  - timeuot: 3s\n    match: [{uri: {prefix: /b}}]\n");
    let first = "  http:\n  - match: [{uri: {prefix: /a}}]\n    route: [{destination: {host: web, subset: v1}}]\n";
    let told = compared(&text, &text.replace(first, "  http:\n"));
    assert_eq!((&*told.new_findings, &*told.gone_findings), (&[][..], &[][..]));
    let twice = text.replace("  - route: [{d", "  - timeuot: 3s\n    route: [{d");
    assert_eq!(compared(&text, &twice).new_findings.len(), 1);
    assert_eq!(compared(&twice, &text).gone_findings.len(), 1);
}

#[test]
fn only_a_proxied_port_tells_what_holds_without_a_proxy() {
    let closed = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\nspec: {}\n";
    let rules = SHOP.rsplit("---").next().unwrap();
    let plain = SHOP.replace(rules, "\n");
    let told = compared(&plain, &format!("{plain}{closed}"));
    let port = told.changes.iter().find(|change| change.area == Area::ServicePort).expect("it refuses");
    assert!(port.fields.iter().all(|field| field.field != "while no proxy is alive"), "{port:?}");
}
