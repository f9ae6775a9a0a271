//! Rules for some clients: by their labels, by their namespace, by a workload selector.

use super::*;
use crate::finding::code;

/// An enrolled pod of this test's node.
fn client(namespace: &str, name: &str, labels: &str) -> String {
    let ip = format!("10.0.{}.{}", 10 + namespace.len(), name.bytes().map(u32::from).sum::<u32>() % 250);
    pod(namespace, name, &ip, &format!("weir.mesh/mode: enabled, {labels}"))
        .replace("labels:", &format!("annotations: {{weir.mesh/netns: /run/netns/{name}}}, labels:"))
}

fn view(compiled: &Compiled, pod: &str) -> u32 {
    compiled.plan.pods[pod].view
}

/// What the client gets for a path on service `b`.
fn asks(compiled: &Compiled, pod: &str, path: &str) -> String {
    let namespace = pod.split('/').next().expect("a namespace");
    compiled.ask(view(compiled, pod), namespace, "10.96.0.2", "b.shop", path)
}

fn verdict(compiled: &Compiled, pod: &str) -> Verdict {
    let own = compiled.entry(view(compiled, pod), "10.96.0.2", 80);
    own.or(compiled.entry(0, "10.96.0.2", 80)).expect("planned").verdict
}

const TO_V2: &str = "route: [{destination: {host: b, subset: v2}}]";
const TO_V1: &str = "route: [{destination: {host: b, subset: v1}}]";

fn three_clients() -> String {
    [client("shop", "c", "app: c, tier: gold"), client("shop", "d", "app: d"), client("other", "e", "app: c")].concat()
}

#[test]
fn source_labels_choose_the_clients_of_a_rule() {
    let spec = format!("{{hosts: [b], http: [{{match: [{{sourceLabels: {{app: c}}}}], {TO_V2}}}, {{{TO_V1}}}]}}");
    let compiled = compiled(&[shop(HTTP), three_clients(), vs("shop", "b", &spec)].concat());
    assert_eq!(asks(&compiled, "shop/c", "/"), "default: b-v2/1=1");
    assert_eq!(asks(&compiled, "shop/d", "/"), "default: b-v1/2=1");
    assert_eq!(asks(&compiled, "other/e", "/"), "default: b-v2/1=1", "the rule is for everybody with the label");
    assert_eq!(view(&compiled, "shop/d"), 0);
    assert_eq!(view(&compiled, "shop/c"), view(&compiled, "other/e"), "what no rule names makes no view");
}

#[test]
fn source_namespace_is_the_clients_own() {
    let spec = format!("{{hosts: [b], http: [{{match: [{{sourceNamespace: other}}], {TO_V2}}}, {{{TO_V1}}}]}}");
    let compiled = compiled(&[shop(HTTP), three_clients(), vs("shop", "b", &spec)].concat());
    assert_eq!(asks(&compiled, "other/e", "/"), "default: b-v2/1=1");
    assert_eq!(asks(&compiled, "shop/c", "/"), "default: b-v1/2=1");
}

#[test]
fn an_item_that_names_gateways_does_not_look_at_the_client() {
    let spec = format!(
        "{{hosts: [b], http: [{{match: [{{gateways: [mesh], sourceLabels: {{app: nobody}}, sourceNamespace: none}}], {TO_V2}}}, {{{TO_V1}}}]}}"
    );
    let compiled = compiled(&[shop(HTTP), three_clients(), vs("shop", "b", &spec)].concat());
    assert_eq!(asks(&compiled, "shop/d", "/"), "default: b-v2/1=1");
    assert_eq!(view(&compiled, "shop/d"), 0);
}

#[test]
fn where_no_rule_is_left_for_a_client_the_plain_service_is_and_not_404() {
    let spec =
        format!("{{hosts: [b], http: [{{match: [{{sourceLabels: {{app: c}}, uri: {{prefix: /a}}}}], {TO_V2}}}]}}");
    let compiled = compiled(&[shop(HTTP), three_clients(), vs("shop", "b", &spec)].concat());
    assert_eq!([asks(&compiled, "shop/c", "/a"), asks(&compiled, "shop/c", "/")], ["default: b-v2/1=1", "404"]);
    assert_eq!(asks(&compiled, "shop/d", "/"), "default: b/3=1");
    assert_eq!((verdict(&compiled, "shop/c"), verdict(&compiled, "shop/d")), (Verdict::Proxy, Verdict::Balance));
}

#[test]
fn rules_for_other_clients_do_not_hide_those_that_come_after_them() {
    let own = vs("shop", "own", &format!("{{hosts: [b], http: [{{name: own, {TO_V1}}}]}}"));
    let mine = |host: &str, condition: &str| {
        let spec = format!(
            "{{hosts: [{host}], exportTo: [\".\"], http: [{{name: mine, match: [{{{condition}}}], route: [{{destination: {{host: b.shop.svc.cluster.local, subset: v2}}}}]}}]}}"
        );
        vs("other", "mine", &spec)
    };
    let host = "b.shop.svc.cluster.local";
    let ask =
        |own: &str, mine: &str| asks(&compiled(&[&shop(HTTP), &three_clients(), own, mine].concat()), "other/e", "/");
    assert_eq!(ask(&own, &mine(host, "sourceLabels: {app: c}")), "mine: b-v2/1=1");
    assert_eq!(ask(&own, &mine(host, "uri: {prefix: /a}")), "404", "a rule is left, though not for this request");
    for nobodys in ["sourceLabels: {app: tester}", "port: 81", "gateways: [shop/gw]", "sourceNamespace: shop"] {
        assert_eq!(ask(&own, &mine(host, nobodys)), "own: b-v1/2=1", "{nobodys}");
        assert_eq!(ask("", &mine(host, nobodys)), "default: b/3=1", "{nobodys}");
    }
    let wild = own.replace("[b]", "[\"*.svc.cluster.local\"]");
    for narrower in [host, "\"*.shop.svc.cluster.local\""] {
        assert_eq!(ask(&wild, &mine(narrower, "sourceLabels: {app: c}")), "mine: b-v2/1=1");
        assert_eq!(ask(&wild, &mine(narrower, "sourceLabels: {app: tester}")), "own: b-v1/2=1", "{narrower}");
    }
    // By name alone, too.
    let wide = vs("shop", "wide", &format!("{{hosts: [\"*.com\"], http: [{{name: wide, {TO_V1}}}]}}"));
    for narrower in ["a.b.com", "\"*.b.com\""] {
        let text = [shop(HTTP), three_clients(), wide.clone(), mine(narrower, "sourceLabels: {app: tester}")].concat();
        let compiled = compiled(&text);
        let of = |pod: &str| compiled.ask(view(&compiled, pod), "other", "10.96.0.2", "a.b.com", "/");
        assert_eq!([of("other/e"), of("shop/c")], ["wide: b-v1/2=1"; 2], "{narrower}");
    }
}

#[test]
fn why_a_client_does_not_have_a_rule_is_told_by_what_comes_before_it() {
    let public = vs("shop", "public", &format!("{{hosts: [b], http: [{{{TO_V1}}}]}}"));
    let wild = vs("shop", "wild", &format!("{{hosts: [\"*.shop.svc.cluster.local\"], http: [{{{TO_V1}}}]}}"));
    let mine = |app: &str| {
        let spec = format!(
            "{{hosts: [b.shop.svc.cluster.local], exportTo: [\".\"], http: [{{match: [{{sourceLabels: {{app: {app}}}}}], route: [{{destination: {{host: b.shop.svc.cluster.local}}}}]}}]}}"
        );
        vs("other", "mine", &spec)
    };
    let told = |mine: String| {
        let mut store = Store::new();
        store.set_file("test.yaml", &[shop(HTTP), three_clients(), public.clone(), wild.clone(), mine].concat());
        let (snapshot, _) = store.assemble();
        let options = CompileOptions::default();
        let compiled = compile(&snapshot, &options);
        let describer = describe::Describer::new(&snapshot, &options, &compiled.views);
        let absent = describer.absent(view(&compiled, "other/e"), "b.shop.svc.cluster.local", 80);
        absent.into_iter().map(|one| format!("{}: {}", one.rule.name, one.why)).collect::<Vec<_>>()
    };
    let specific = "wild: rules for a more specific host come before it";
    assert_eq!(told(mine("c")), ["public: what other keeps to itself (`exportTo`) comes before it", specific]);
    assert_eq!(told(mine("tester")), ["mine: `sourceLabels`: it is for clients with app=tester", specific]);
}

#[test]
fn tcp_rules_for_other_clients_do_not_hide_those_that_come_after_them() {
    let own = vs("shop", "own", "{hosts: [b], tcp: [{route: [{destination: {host: b, subset: v1}}]}]}");
    let mine = |matching: &str| {
        let spec = format!(
            "{{hosts: [b.shop.svc.cluster.local], exportTo: [\".\"], tcp: [{{match: [{{{matching}}}], route: [{{destination: {{host: b.shop.svc.cluster.local, subset: v2}}}}]}}]}}"
        );
        let text =
            [shop("{name: tcp, port: 80, targetPort: 8080}"), three_clients(), own.clone(), vs("other", "mine", &spec)];
        let compiled = compiled(&text.concat());
        let own = view(&compiled, "other/e");
        compiled.groups(own, "10.96.0.2", 80)
    };
    assert_eq!(mine("port: 80"), ["v2:1:10.0.0.3:8080"]);
    assert_eq!(mine("port: 81"), ["v1:1:10.0.0.1:8080,10.0.0.2:8080"]);
}

#[test]
fn a_host_that_no_service_has_is_hidden_from_clients_of_whom_no_rule_is_left() {
    let own = format!("{{hosts: [api.example.com], http: [{{match: [{{sourceLabels: {{app: c}}}}], {TO_V2}}}]}}");
    let wide = format!("{{hosts: [\"*.example.com\"], exportTo: [shop], http: [{{name: wide, {TO_V1}}}]}}");
    let compiled =
        compiled(&[shop(HTTP), three_clients(), vs("shop", "api", &own), vs("shop", "wide", &wide)].concat());
    let ask = |pod: &str, host: &str| {
        let namespace = pod.split('/').next().expect("a namespace");
        compiled.ask(view(&compiled, pod), namespace, "10.96.0.2", host, "/")
    };
    assert_eq!(ask("shop/c", "api.example.com"), "default: b-v2/1=1");
    assert_eq!(ask("shop/d", "api.example.com"), "wide: b-v1/2=1", "the next less specific host");
    assert_eq!(ask("other/e", "api.example.com"), "default: b-v2/1=1");
    assert_eq!(ask("other/e", "x.example.com"), "unknown host");
}

#[test]
fn tcp_and_tls_rules_choose_their_clients_and_addresses_too() {
    let spec = "{hosts: [b, \"*.x\"], tcp: [
      {match: [{destinationSubnets: [10.96.0.0/16], sourceLabels: {app: c}}], route: [{destination: {host: b, subset: v2}}]},
      {match: [{destinationSubnets: [10.97.0.0/16]}], route: [{destination: {host: b, subset: v1}}]}],
      tls: [{match: [{sniHosts: [\"*.x\"], port: 80}], route: [{destination: {host: b, subset: v1}}]},
            {match: [{sniHosts: [a.x], port: 81}], route: [{destination: {host: b, subset: v2}}]}]}";
    let compiled =
        compiled(&[shop("{name: tls, port: 80, targetPort: 8080}"), three_clients(), vs("shop", "b", spec)].concat());
    let goes = |pod: &str, dialled: &str| {
        let port = compiled.port(view(&compiled, pod), "10.96.0.2", 80).expect("known");
        crate::route::decide_tcp(&compiled.program, port, ip(dialled), 0).expect("somewhere").name.to_string()
    };
    let cluster = |subset: &str| format!("outbound|80|{subset}|b.shop.svc.cluster.local");
    assert_eq!(goes("shop/c", "10.96.0.2"), cluster("v2"));
    assert_eq!(goes("shop/d", "10.96.0.2"), cluster(""), "what no rule takes goes to the plain service");
    assert_eq!(goes("shop/d", "10.97.0.9"), cluster("v1"));
    assert_eq!(compiled.groups(view(&compiled, "shop/c"), "10.96.0.2", 80), ["v2:1:10.0.0.3:8080"]);
    assert_eq!(compiled.groups(0, "10.96.0.2", 80)[0].split(':').next(), Some(""));
    let tls = |sni: &str| {
        let port = compiled.port(0, "10.96.0.2", 80).expect("known");
        crate::route::decide_tls(&compiled.program, port, sni, ip("10.96.0.2"), 0).expect("somewhere").name.to_string()
    };
    assert_eq!([tls("A.X"), tls("x"), tls("a.y")], [cluster("v1"), cluster(""), cluster("")]);
}

#[test]
fn a_rule_with_a_workload_selector_comes_before_one_without_and_is_for_its_namespace_alone() {
    let own =
        "{host: b, workloadSelector: {matchLabels: {tier: gold}}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}";
    let all = "{host: b, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}";
    let gold = client("other", "f", "tier: gold");
    let text = [shop(HTTP), three_clients(), gold, dr("shop", "0-own", own), dr("shop", "a-all", all)].concat();
    let compiled = compiled(&text);
    let balancer = |pod: &str| {
        let port = compiled.program.port(compiled.port(view(&compiled, pod), "10.96.0.2", 80).expect("known"));
        compiled.program.cluster(port.plain).policy.simple().as_str()
    };
    assert_eq!(balancer("shop/c"), "RANDOM");
    assert_eq!([balancer("shop/d"), balancer("other/f")], ["ROUND_ROBIN"; 2]);
    assert_eq!(compiled.found(code::NO_EFFECT), [""; 0], "they do not compete");
}

#[test]
fn too_many_classes_are_told_and_take_no_rule_with_labels() {
    let spec = (0..300).map(|n| format!("{{match: [{{sourceLabels: {{n: \"{n}\"}}}}], {TO_V2}}}")).collect::<Vec<_>>();
    let pods: String = (0..300)
        .map(|n| {
            pod(
                "many",
                &format!("p{n:03}"),
                &format!("10.1.{}.{}", n / 200, n % 200 + 1),
                &format!("weir.mesh/mode: enabled, n: \"{n}\""),
            )
            .replace("labels:", "annotations: {weir.mesh/netns: /run/netns/x}, labels:")
        })
        .collect();
    let spec = format!("{{hosts: [b], http: [{}, {{{TO_V1}}}]}}", spec.join(", "));
    let compiled = compiled(&[shop(HTTP), pods, vs("shop", "b", &spec)].concat());
    let views: std::collections::BTreeSet<u32> = compiled.plan.pods.values().map(|pod| pod.view).collect();
    assert_eq!(views.len(), super::super::visibility::MAX_CLASSES + 1);
    assert_eq!(asks(&compiled, "many/p000", "/"), "default: b-v2/1=1");
    assert_eq!(asks(&compiled, "many/p299", "/"), "default: b-v1/2=1");
    let found = compiled.found(code::NOT_SUPPORTED);
    assert!(found.len() == 1 && found[0].contains("more than 256 classes"), "{found:?}");
}

#[test]
fn rules_send_nobody_to_a_service_that_is_not_exported_to_them() {
    let ask = |export: &str, pod: &str| {
        let hidden = service("shop", "b", "10.96.0.2", HTTP).replacen(
            "namespace: shop}",
            &format!("namespace: shop, annotations: {{networking.istio.io/exportTo: \"{export}\"}}}}"),
            1,
        );
        let text = [
            hidden,
            pod_of_b(),
            service("shop", "a", "10.96.0.3", HTTP),
            three_clients(),
            vs("shop", "a", "{hosts: [a], http: [{route: [{destination: {host: b}}]}]}"),
        ];
        let compiled = compiled(&text.concat());
        assert!(compiled.entry(0, "10.96.0.2", 80).is_some(), "its own port stays in front of it");
        compiled.ask(view(&compiled, pod), "shop", "10.96.0.3", "a.shop", "/")
    };
    for (export, own, others) in
        [(".", true, false), ("*", true, true), ("", true, true), ("x, other", false, true), ("~", false, false)]
    {
        let reached = |pod| ask(export, pod) == "default: b/1=1";
        assert_eq!((reached("shop/c"), reached("other/e")), (own, others), "{export}");
    }
}

fn pod_of_b() -> String {
    pod("shop", "b-1", "10.0.0.1", "app: b")
}

#[test]
fn destination_rules_for_other_clients_are_not_merged() {
    let of = |name: &str, more: &str| {
        dr("shop", name, &format!("{{host: b, {more}subsets: [{{name: {name}, labels: {{version: {name}}}}}]}}"))
    };
    let reaches = |first: &str, second: &str| {
        let services = [
            service("shop", "b", "10.96.0.2", HTTP),
            pod("shop", "b-1", "10.0.0.1", "app: b, version: v1"),
            pod("shop", "b-2", "10.0.0.2", "app: b, version: v2"),
        ];
        let to = |subset: &str| {
            format!(
                "{{match: [{{uri: {{prefix: /{subset}}}}}], route: [{{destination: {{host: b, subset: {subset}}}}}]}}"
            )
        };
        let rules = vs("shop", "b", &format!("{{hosts: [b], http: [{}, {}]}}", to("v1"), to("v2")));
        let text = [services.concat(), three_clients(), of("v1", first), of("v2", second), rules].concat();
        let compiled = compiled(&text);
        ["/v1", "/v2"].map(|path| asks(&compiled, "shop/c", path).ends_with("/1=1"))
    };
    assert_eq!(reaches("", ""), [true, true]);
    assert_eq!(reaches("exportTo: [\".\"], ", "exportTo: [shop], "), [true, true], "two ways to write the same");
    assert_eq!(reaches("exportTo: [\".\"], ", ""), [true, false]);
    assert_eq!(reaches("", "exportTo: [\".\"], "), [true, false]);
}
