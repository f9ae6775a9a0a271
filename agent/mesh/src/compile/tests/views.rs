//! Who sees which rules.

use super::*;

fn subset_of_client(compiled: &Compiled, view: u32) -> String {
    compiled.ask(view, "clients", "10.96.0.2", "b.shop", "/")
}

fn client() -> String {
    pod("clients", "c", "10.0.2.1", "weir.mesh/mode: enabled")
        .replace("labels:", "annotations: {weir.mesh/netns: /run/netns/c}, labels:")
}

fn view_of_client(compiled: &Compiled) -> u32 {
    compiled.plan.pods["clients/c"].view
}

const TO_V1: &str = "http: [{route: [{destination: {host: b.shop.svc.cluster.local, subset: v1}}]}]";
const TO_V2: &str = "http: [{route: [{destination: {host: b.shop.svc.cluster.local, subset: v2}}]}]";

#[test]
fn a_private_rule_of_the_clients_namespace_overrides_the_owners() {
    let text = [
        shop(HTTP),
        client(),
        vs("shop", "b", &format!("{{hosts: [b], {TO_V1}}}")),
        vs("clients", "b", &format!("{{hosts: [b.shop.svc.cluster.local], exportTo: [\".\"], {TO_V2}}}")),
    ]
    .concat();
    let compiled = compiled(&text);
    let view = view_of_client(&compiled);
    assert_ne!(view, 0);
    assert_eq!(subset_of_client(&compiled, view), "default: b-v2/1=1");
    assert_eq!(subset_of_client(&compiled, 0), "default: b-v1/2=1");
    assert_eq!(compiled.groups(view, "10.96.0.2", 80), ["v2:1:10.0.0.3:8080"]);
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), ["v1:1:10.0.0.1:8080,10.0.0.2:8080"]);
    assert_eq!(compiled.codes().get("IST0109"), None, "they are no conflict");
}

#[test]
fn a_public_rule_of_any_namespace_is_for_everybody() {
    let text =
        [shop(HTTP), client(), vs("clients", "b", &format!("{{hosts: [b.shop.svc.cluster.local], {TO_V2}}}"))].concat();
    let compiled = compiled(&text);
    assert_eq!((view_of_client(&compiled), subset_of_client(&compiled, 0)), (0, "default: b-v2/1=1".to_owned()));
}

#[test]
fn a_rule_exported_to_a_namespace_is_for_its_clients() {
    let text =
        [shop(HTTP), client(), vs("shop", "b", &format!("{{hosts: [b], exportTo: [clients], {TO_V2}}}"))].concat();
    let compiled = compiled(&text);
    assert_eq!(subset_of_client(&compiled, view_of_client(&compiled)), "default: b-v2/1=1");
    assert_eq!(subset_of_client(&compiled, 0), "default: b/3=1");
    assert_eq!(compiled.entry(0, "10.96.0.2", 80).map(|entry| entry.verdict), Some(Verdict::Balance));
    assert_eq!(
        compiled.entry(view_of_client(&compiled), "10.96.0.2", 80).map(|entry| entry.verdict),
        Some(Verdict::Proxy)
    );
}

#[test]
fn the_clients_destination_rule_comes_first_even_by_a_wildcard_and_hides_the_owners_subsets() {
    let text = [
        shop(HTTP),
        service("shop", "x", "10.96.0.8", HTTP),
        pod("shop", "x-1", "10.0.8.1", "app: x"),
        client(),
        vs("shop", "b", &format!("{{hosts: [b], {TO_V1}}}")),
        dr("clients", "all", "{host: \"*.cluster.local\", trafficPolicy: {loadBalancer: {simple: RANDOM}}}"),
    ]
    .concat();
    let compiled = compiled(&text);
    assert_eq!(subset_of_client(&compiled, view_of_client(&compiled)), "default: 503=1");
    assert_eq!(subset_of_client(&compiled, 0), "default: b-v1/2=1");
    assert_eq!(
        compiled.entry(view_of_client(&compiled), "10.96.0.8", 80).map(|entry| entry.verdict),
        Some(Verdict::Proxy)
    );
    assert_eq!(compiled.entry(0, "10.96.0.8", 80).map(|entry| entry.verdict), Some(Verdict::Balance));
}

#[test]
fn a_view_holds_only_what_differs_and_still_answers_for_every_host_of_the_port() {
    let text = [
        shop(HTTP),
        service("shop", "x", "10.96.0.8", HTTP),
        pod("shop", "x-1", "10.0.8.1", "app: x"),
        client(),
        vs("clients", "b", &format!("{{hosts: [b.shop.svc.cluster.local], exportTo: [\".\"], {TO_V2}}}")),
    ]
    .concat();
    let compiled = compiled(&text);
    assert!(compiled.entry(view_of_client(&compiled), "10.96.0.8", 80).is_none(), "x is as for everybody");
    assert_eq!(
        compiled.ask(view_of_client(&compiled), "clients", "10.96.0.8", "b.shop", "/"),
        "default: b-v2/1=1",
        "asked for through x"
    );
    assert_eq!(compiled.ask(view_of_client(&compiled), "clients", "10.96.0.2", "x.shop", "/"), "default: x/1=1");
}

#[test]
fn the_root_namespaces_rules_come_last() {
    let root =
        dr("istio-system", "all", "{host: \"*.cluster.local\", trafficPolicy: {loadBalancer: {simple: RANDOM}}}");
    let without_owner =
        [service("shop", "x", "10.96.0.8", HTTP), pod("shop", "x-1", "10.0.8.1", "app: x"), root.clone()].concat();
    assert_eq!(compiled(&without_owner).verdict("10.96.0.8").0, Verdict::Proxy);
    assert_eq!(compiled(&[shop(HTTP), root].concat()).verdict("10.96.0.2").0, Verdict::Balance, "never merged across");
}

#[test]
fn rules_for_one_host_are_merged_within_a_namespace_and_the_loser_is_told() {
    let text = [
        shop(HTTP),
        dr("shop", "b-2", "{host: b, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v3, labels: {version: v1}}, {name: v1, labels: {version: v2}}]}"),
        dr("shop", "b-3", "{host: b.shop.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}"),
        vs("shop", "b", "{hosts: [b], http: [{route: [{destination: {host: b, subset: v1}, weight: 1}, {destination: {host: b, subset: v3}, weight: 1}]}]}"),
    ]
    .concat();
    let compiled = compiled(&text);
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/"), "default: b-v1/2=1 b-v3/2=1");
    assert!(compiled.program.clusters.iter().all(|c| c.policy.simple() == crate::program::LoadBalancer::Random));
    let losers = compiled.found(crate::finding::code::NO_EFFECT);
    assert_eq!(losers.len(), 2, "{losers:?}");
    assert!(losers[0].contains("subset v1 has no effect: DestinationRule shop/b defines it first"), "{losers:?}");
    assert!(
        losers[1].contains("DestinationRule shop/b-3") && losers[1].contains("DestinationRule shop/b-2 comes first"),
        "{losers:?}"
    );
}

#[test]
fn in_the_root_namespace_only_private_rules_are_its_own_clients_first() {
    let random = "loadBalancer: {simple: RANDOM}";
    let public = dr("istio-system", "yy", &format!("{{host: \"*.cluster.local\", trafficPolicy: {{{random}}}}}"));
    let client = client().replace("namespace: clients", "namespace: istio-system");
    let text = [shop(HTTP), client.clone(), public.clone()].concat();
    assert_eq!(compiled(&text).plan.pods["istio-system/c"].view, 0, "a public rule makes no view");

    let private = dr("istio-system", "z", "{host: other.example.com, exportTo: [\".\"]}");
    let text = [shop(HTTP), client, public, private].concat();
    let compiled = compiled(&text);
    let view = compiled.plan.pods["istio-system/c"].view;
    assert_ne!(view, 0);
    assert!(
        compiled.entry(view, "10.96.0.2", 80).is_none(),
        "the owner's rule still comes before the root's public one"
    );
}

#[test]
fn a_service_whose_routes_lead_to_one_that_differs_differs_too() {
    let text = [
        shop(HTTP),
        service("shop", "x", "10.96.0.8", HTTP),
        pod("shop", "x-1", "10.0.8.1", "app: x"),
        client(),
        vs("shop", "x", "{hosts: [x], http: [{route: [{destination: {host: b, subset: v1}}]}]}"),
        dr("clients", "b", "{host: b.shop.svc.cluster.local, subsets: [{name: v1, labels: {version: v2}}]}"),
    ]
    .concat();
    let compiled = compiled(&text);
    assert_eq!(compiled.groups(0, "10.96.0.8", 80), ["v1:1:10.0.0.1:8080,10.0.0.2:8080"]);
    assert_eq!(compiled.groups(view_of_client(&compiled), "10.96.0.8", 80), ["v1:1:10.0.0.3:8080"]);
}

/// Private rules of these namespaces, each with a client, that send to v2.
fn private(namespaces: &[&str]) -> String {
    let own = namespaces.iter().map(|namespace| {
        let rule = vs(namespace, "b", &format!("{{hosts: [b.shop.svc.cluster.local], exportTo: [\".\"], {TO_V2}}}"));
        [client().replace("clients", namespace), rule].concat()
    });
    [shop(HTTP), own.collect()].concat()
}

/// The views of the clients of these namespaces, and the table for the next compilation.
fn views(text: &str, namespaces: &[&str], before: &ViewTable) -> (Vec<u32>, ViewTable) {
    let options = CompileOptions { views: before.clone(), ..CompileOptions::default() };
    let (compiled, _) = with_store(&[("t", text)], &options);
    let view = |namespace: &&str| compiled.plan.pods[&*format!("{namespace}/c")].view;
    for view in namespaces.iter().map(view).filter(|view| *view > 0) {
        assert_eq!(compiled.groups(view, "10.96.0.2", 80), ["v2:1:10.0.0.3:8080"]);
    }
    (namespaces.iter().map(view).collect(), compiled.views)
}

#[test]
fn a_view_keeps_its_number_whatever_comes_and_goes() {
    let (first, table) = views(&private(&["m"]), &["m"], &ViewTable::default());
    let (more, table) = views(&private(&["a", "m", "z"]), &["a", "m", "z"], &table);
    assert_eq!(more[1], first[0]);
    let (fewer, table) = views(&private(&["m", "z"]), &["m", "z"], &table);
    assert_eq!(fewer, more[1..]);
    assert_eq!(views(&private(&["a", "m", "z"]), &["a", "m", "z"], &ViewTable::default()).0, more, "after a restart");
    assert_eq!(views(&shop(HTTP), &[], &table).1, ViewTable::default(), "nothing is kept of what is gone");
}

#[test]
fn a_number_goes_to_another_namespace_only_after_a_compilation_without_it() {
    // Two names with one number: among 2^17 names some are expected to have one.
    let mut names = std::collections::HashMap::new();
    let number = |name: &str| views_of(&[name], &ViewTable::default())[0];
    let (a, b) = (0..1 << 20)
        .map(|n| format!("ns-{n}"))
        .find_map(|name| names.insert(number(&name), name.clone()).map(|other| (other, name)))
        .expect("names of one number");
    let (a, b) = (&*a, &*b);
    let alone = number(a);
    assert_eq!(number(b), alone);

    let table = table_of(&[a], &ViewTable::default());
    let both = views_of(&[a, b], &table);
    assert!(both.contains(&alone) && both[0] != both[1], "{both:?}");
    assert_eq!(table_of(&[a, b], &table).ids[&class(a)], alone, "who came first keeps it");
    let replaced = table_of(&[b], &table);
    assert_ne!(replaced.ids[&class(b)], alone, "pods of the other may still have it");
    assert_eq!(table_of(&[b], &table_of(&[], &table)).ids[&class(b)], alone);
    assert_eq!(table_of(&[b], &replaced), replaced, "and it stays as it is");
}

fn class(namespace: &str) -> Client {
    Client { namespace: Some(namespace.into()), ..Client::default() }
}

fn table_of(namespaces: &[&str], before: &ViewTable) -> ViewTable {
    before.next(namespaces.iter().map(|name| class(name)).collect())
}

fn views_of(namespaces: &[&str], before: &ViewTable) -> Vec<u32> {
    table_of(namespaces, before).ids.values().copied().collect()
}
