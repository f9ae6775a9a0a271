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
        rule("WorkloadEntry", "shop", "vm-2", "{address: 192.0.2.9, labels: {app: vm}, ports: {tcp: 7000}, weight: 2}"),
        rule("WorkloadEntry", "other", "vm-3", "{address: 192.0.2.10, labels: {app: vm}}"),
        entry(
            "shop",
            "vm",
            "{hosts: [vm.internal], addresses: [10.99.0.2], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 80, name: tcp, protocol: TCP}], workloadSelector: {labels: {app: vm}}}",
        ),
    ];
    let compiled = compiled(&text.concat());
    assert_eq!(compiled.groups(0, "10.99.0.2", 80), [":1:10.0.0.7:80,192.0.2.9:7000,192.0.2.9:7000"]);
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
fn what_is_not_for_everybody_is_for_those_who_see_it() {
    let private = STATIC.replacen('{', "{exportTo: [\".\", friends], ", 1);
    let to_db = "http: [{route: [{destination: {host: db.example.com}}]}]";
    let text = [
        entry("shop", "db", &private),
        service("shop", "x", "10.96.0.8", HTTP),
        pod("shop", "x-1", "10.0.8.1", "app: x"),
        vs("shop", "db", &format!("{{hosts: [db.example.com], {to_db}}}")),
        vs("shop", "x", &format!("{{hosts: [x], {to_db}}}")),
    ];
    let compiled = compiled(&text.concat());
    let view = |namespace: &str| compiled.views.of(&namespace.into(), &crate::crd::Labels::new());
    assert_eq!((view("other"), compiled.entry(0, "10.99.0.1", 80)), (0, None));
    for namespace in ["shop", "friends"] {
        let view = view(namespace);
        assert_eq!(compiled.entry(view, "10.99.0.1", 80).map(|entry| entry.verdict), Some(Verdict::Proxy));
        assert_eq!(compiled.ask(view, namespace, "10.99.0.1", "db.example.com", "/"), "default: db/2=1");
        assert_eq!(compiled.ask(view, namespace, "10.96.0.8", "x.shop", "/"), "default: db/2=1");
    }
    assert_eq!(compiled.ask(0, "other", "10.96.0.8", "x.shop", "/"), "default: 503=1");
    let told = compiled.found(code::REFERENCE);
    assert!(told.len() == 1 && told[0].contains("VirtualService shop/x") && told[0].contains("exportTo"), "{told:?}");
    assert_eq!(compiled.codes().get(code::NOT_SUPPORTED), None);
}

#[test]
fn a_service_of_the_same_host_comes_first_and_then_the_oldest() {
    let spec = |host: &str| STATIC.replace("db.example.com", host);
    let text = [
        shop(HTTP),
        entry("edge", "b", &spec("b.shop.svc.cluster.local")),
        entry("one", "x", &spec("x.example.com")),
        entry("two", "x", &spec("x.example.com").replace("10.99.0.1", "10.99.0.9")),
    ];
    let compiled = compiled(&text.concat());
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), [":1:10.0.0.1:8080,10.0.0.2:8080,10.0.0.3:8080"]);
    assert!(compiled.entry(0, "10.99.0.1", 80).is_some() && compiled.entry(0, "10.99.0.9", 80).is_none());
    let told = compiled.found(code::NO_EFFECT);
    for object in ["ServiceEntry edge/b", "ServiceEntry two/x"] {
        assert!(told.iter().any(|f| f.contains(object) && f.contains("comes first")), "{told:?}");
    }
}

#[test]
fn entries_of_a_namespace_for_one_host_are_put_together() {
    let two = STATIC
        .replace("10.99.0.1", "10.99.0.9")
        .replace("192.0.2.1", "192.0.2.7")
        .replace("}], endpoints", "}, {number: 81, name: tcp, protocol: TCP}], endpoints");
    let other = "{hosts: [db.example.com], addresses: [10.99.0.1], resolution: STATIC, ports: [{number: 80, name: tcp, protocol: TCP}], endpoints: [{address: 192.0.2.66}]}";
    let text = [
        entry("shop", "one", STATIC),
        entry("shop", "two", &two),
        entry("shop", "zzz", other),
        vs(
            "shop",
            "db",
            "{hosts: [db.example.com], http: [{name: all, route: [{destination: {host: db.example.com, port: {number: 80}}}]}]}",
        ),
    ];
    let compiled = compiled(&text.concat());
    let all = [":1:192.0.2.1:8080,192.0.2.2:9090,192.0.2.7:8080"];
    assert_eq!(compiled.groups(0, "10.99.0.1", 80), all);
    assert_eq!(compiled.groups(0, "10.99.0.9", 80), all);
    assert_eq!(compiled.groups(0, "10.99.0.1", 81), [":1:192.0.2.2:81,192.0.2.7:81"]);
    assert_eq!(compiled.ask(0, "any", "10.99.0.1", "10.99.0.9", "/"), "all: db/3=1");
    let told = compiled.found(code::NO_EFFECT);
    assert!(told.iter().any(|f| f.contains("ServiceEntry shop/zzz") && f.contains("for another protocol")), "{told:?}");
}

#[test]
fn an_entry_adds_endpoints_to_the_service_of_its_host() {
    let more = "{hosts: [b.shop.svc.cluster.local], addresses: [10.99.0.1], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 9000}, {number: 82, name: x, protocol: TCP}], endpoints: [{address: 192.0.2.1, labels: {version: v2}}]}";
    let canary = "{hosts: [b], http: [{route: [{destination: {host: b, subset: v2}}]}]}";
    let compiled = compiled(&[shop(HTTP), entry("shop", "b", more), vs("shop", "b", canary)].concat());
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), ["v2:1:10.0.0.3:8080,192.0.2.1:9000"]);
    assert_eq!(compiled.entry(0, "10.99.0.1", 80), None);
    let told = compiled.found(code::NO_EFFECT);
    for what in ["port 82", "addresses of"] {
        assert!(told.iter().any(|f| f.contains(what) && f.contains("Service shop/b")), "{told:?}");
    }
}

#[test]
fn endpoints_get_by_their_weights() {
    let weighted = |one: u32, two: u32| {
        let spec = STATIC
            .replace("192.0.2.1,", &format!("192.0.2.1, weight: {one},"))
            .replace("192.0.2.2,", &format!("192.0.2.2, weight: {two},"));
        let compiled = compiled(&entry("shop", "db", &spec));
        let entry = compiled.entry(0, "10.99.0.1", 80).expect("it is there");
        let endpoints = entry.slots[0].endpoints.to_vec();
        let of = |address: &str| endpoints.iter().filter(|one| one.ip() == ip(address)).count();
        (of("192.0.2.1"), of("192.0.2.2"))
    };
    assert_eq!(weighted(3, 1), (3, 1));
    assert_eq!(weighted(30, 10), (3, 1), "in lowest terms");
    assert_eq!(weighted(7, 7), (1, 1));
    assert_eq!(weighted(5, 0), (5, 1), "0 is 1");
    let (one, two) = weighted(3_000_001, 1_000_000);
    assert!((191..=192).contains(&one) && (63..=64).contains(&two), "{one} {two}");
    assert_eq!(weighted(u32::MAX, 1), (255, 1), "nobody is left out");
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

#[test]
fn a_network_makes_no_difference_and_that_is_told() {
    let endpoint = STATIC.replace("192.0.2.1,", "192.0.2.1, network: far,");
    let workload = rule("WorkloadEntry", "shop", "w", "{address: 192.0.2.9, network: far}");
    let nowhere = rule("WorkloadEntry", "shop", "x", "{address: 192.0.2.8, network: ''}");
    let text = [entry("shop", "db", &endpoint), workload, nowhere].concat();
    let (compiled, told) = with_store(&[("test.yaml", &text)], &CompileOptions::default());
    assert!(compiled.groups(0, "10.99.0.1", 80)[0].contains("192.0.2.1:"));
    let told: Vec<String> = told.iter().map(ToString::to_string).collect();
    let is_of = |told: &str, object: &str, path: &str| {
        told.contains(object)
            && told.contains(&format!("`{path}` is not supported yet: its address is dialled wherever it is"))
    };
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(is_of(&told[0], "(ServiceEntry shop/db)", "spec.endpoints[0].network"), "{told:?}");
    assert!(is_of(&told[1], "(WorkloadEntry shop/w)", "spec.network"), "{told:?}");
}
