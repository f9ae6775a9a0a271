//! Hosts of ServiceEntries: in the registry like Services, as far as their endpoints are known.

use super::*;
use crate::finding::code;

fn entry(namespace: &str, name: &str, spec: &str) -> String {
    rule("ServiceEntry", namespace, name, spec)
}

const STATIC: &str = "{hosts: [db.example.com], addresses: [10.99.0.1], location: MESH_EXTERNAL, resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], endpoints: [{address: 192.0.2.1, labels: {version: v1}}, {address: 192.0.2.2, labels: {version: v2}, ports: {http: 9090}}]}";

#[test]
fn static_endpoints_are_balanced_as_those_of_a_service() {
    let compiled = compiled(&entry("shop", "db", STATIC));
    assert_eq!(compiled.verdict("10.99.0.1").0, Verdict::Balance);
    assert_eq!(compiled.groups(0, "10.99.0.1", 80), [":1:192.0.2.1:8080,192.0.2.2:9090"]);
    let entry = compiled.entry(0, "10.99.0.1", 80).expect("it is there");
    assert_eq!(&*entry.name, "shop/db.example.com:80");
}

#[test]
fn rules_and_subsets_hold_for_its_hosts() {
    let text = [
        entry("shop", "db", STATIC),
        dr("shop", "db", "{host: db.example.com, subsets: [{name: v2, labels: {version: v2}}]}"),
        vs(
            "shop",
            "db",
            "{hosts: [db.example.com], http: [{match: [{uri: {prefix: /v2}}], route: [{destination: {host: db.example.com, subset: v2}}]}, {route: [{destination: {host: db.example.com}}]}]}",
        ),
    ];
    let compiled = compiled(&text.concat());
    assert_eq!(compiled.verdict("10.99.0.1").0, Verdict::Proxy);
    assert_eq!(compiled.ask(0, "any", "10.99.0.1", "db.example.com", "/v2"), "default: db-v2/1=1");
    assert_eq!(compiled.ask(0, "any", "10.99.0.1", "db.example.com:80", "/"), "default: db/2=1");
    assert_eq!(compiled.codes().get(code::UNKNOWN_HOST), None);
}

#[test]
fn selected_pods_and_workload_entries_are_endpoints() {
    let text = [
        pod("shop", "vm-1", "10.0.0.7", "app: vm"),
        rule("WorkloadEntry", "shop", "vm-2", "{address: 192.0.2.9, labels: {app: vm}, ports: {tcp: 7000}}"),
        rule("WorkloadEntry", "other", "vm-3", "{address: 192.0.2.10, labels: {app: vm}}"),
        entry(
            "shop",
            "vm",
            "{hosts: [vm.internal], addresses: [10.99.0.2], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 80, name: tcp, protocol: TCP}], workloadSelector: {labels: {app: vm}}}",
        ),
    ];
    let compiled = compiled(&text.concat());
    assert_eq!(compiled.groups(0, "10.99.0.2", 80), [":1:10.0.0.7:80,192.0.2.9:7000"]);
}

#[test]
fn what_cannot_be_resolved_passes_and_is_told_of() {
    let dns = "{hosts: [api.example.com], addresses: [10.99.0.3], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}";
    let (compiled, findings) = with_store(&[("test.yaml", &entry("shop", "api", dns))], &CompileOptions::default());
    assert_eq!(compiled.entry(0, "10.99.0.3", 80), None);
    let told: Vec<_> = findings.iter().map(|finding| &*finding.message).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("resolution: DNS") && told[0].contains("pass as without weir"), "{told:?}");
}

#[test]
fn what_is_not_for_everybody_steers_nobody() {
    let private = STATIC.replacen('{', "{exportTo: [\".\"], ", 1);
    let compiled_private = compiled(&entry("shop", "db", &private));
    assert_eq!(compiled_private.entry(0, "10.99.0.1", 80), None);
    assert!(compiled_private.found(code::NOT_SUPPORTED)[0].contains("exportTo"));
}

#[test]
fn a_service_of_the_same_host_comes_first_and_then_the_oldest() {
    let spec = |host: &str| STATIC.replace("db.example.com", host);
    let text = [
        shop(HTTP),
        entry("shop", "b", &spec("b.shop.svc.cluster.local")),
        entry("shop", "one", &spec("x.example.com")),
        entry("shop", "two", &spec("x.example.com").replace("10.99.0.1", "10.99.0.9")),
    ];
    let compiled = compiled(&text.concat());
    assert_eq!(compiled.groups(0, "10.96.0.2", 80).len(), 1);
    assert!(compiled.entry(0, "10.99.0.1", 80).is_some() && compiled.entry(0, "10.99.0.9", 80).is_none());
    let told = compiled.found(code::NO_EFFECT);
    for object in ["ServiceEntry shop/b", "ServiceEntry shop/two"] {
        assert!(told.iter().any(|f| f.contains(object) && f.contains("comes first")), "{told:?}");
    }
}

#[test]
fn rules_for_an_alias_take_requests_that_name_it() {
    let text = [
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: alias, namespace: shop}\nspec: {type: ExternalName, externalName: b.shop.svc.cluster.local}\n".to_owned(),
        shop(HTTP),
        vs("shop", "alias", "{hosts: [alias], http: [{name: aliased, route: [{destination: {host: b}}]}]}"),
    ];
    let compiled = compiled(&text.concat());
    let alias = "alias.shop.svc.cluster.local";
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", alias, "/"), "aliased: b/3=1");
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "alias.shop", "/"), "unknown host");
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/"), "default: b/3=1");
}
