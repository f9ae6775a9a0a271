//! Services without an address: clients dial their pods.

use super::*;
use crate::finding::code;
use crate::plan::OnFailure;

const SET: &str = "{name: http, port: 80, targetPort: 8080}";
const TO_V1: &str = "{hosts: [h], http: [{route: [{destination: {host: h, subset: v1}, weight: 1}, {destination: {host: b}, weight: 0}]}]}";

/// `h` in `shop` without an address, with a pod v1 and a pod v2, beside the service `b`.
fn headless(ports: &str) -> String {
    [
        shop(HTTP),
        service("shop", "h", "None", ports),
        pod("shop", "h-1", "10.0.3.1", "app: h, version: v1"),
        pod("shop", "h-2", "10.0.3.2", "app: h, version: v2"),
        dr("shop", "h", "{host: h, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}"),
    ]
    .concat()
}

fn protection(spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

fn verdict(compiled: &Compiled, address: &str) -> (Verdict, String) {
    let entry = compiled.entry(0, address, 8080).expect("its pods have entries at the port where they listen");
    (entry.verdict, entry.why.clone())
}

#[test]
fn without_rules_its_pods_are_left_to_those_who_dial_them() {
    let compiled = compiled(&headless(SET));
    assert_eq!(compiled.plan.services.len(), 3);
    let passes = "clients dial its pods themselves, and no rule looks into its connections";
    assert_eq!(verdict(&compiled, "10.0.3.1"), (Verdict::Pass, passes.to_owned()));
    assert_eq!(
        compiled.ask(0, "shop", "10.96.0.2", "h", "/"),
        "default: h/2=1",
        "by name it can be asked for through others"
    );
}

#[test]
fn a_policy_that_is_not_enforced_refuses_its_pods_ready_or_not() {
    let not_ready = pod("shop", "h-3", "10.0.3.3", "app: h").replace("Running", "Pending");
    let text = [&*headless(SET), &not_ready, &protection("{selector: {matchLabels: {app: h}}}")].concat();
    let closed = compiled(&text);
    for address in ["10.0.3.1", "10.0.3.2", "10.0.3.3"] {
        assert_eq!(verdict(&closed, address).0, Verdict::Reject, "{address}");
    }
    assert_eq!(closed.verdict("10.96.0.2").0, Verdict::Balance, "b is not protected");
    let open = compiled(&[&*headless(SET), &not_ready].concat());
    assert_eq!(open.ask(0, "shop", "10.96.0.2", "h", "/"), "default: h/2=1", "what is not ready is not picked");
}

#[test]
fn rules_route_by_host_and_its_own_share_goes_to_the_pod_that_was_dialled() {
    let compiled = compiled(&[headless(SET), vs("shop", "h", TO_V1)].concat());
    let entry = compiled.entry(0, "10.0.3.2", 8080).expect("planned");
    assert_eq!((entry.verdict, entry.on_failure), (Verdict::Proxy, OnFailure::Balance));
    assert_eq!(
        compiled.groups(0, "10.0.3.2", 8080),
        ["v1:1:10.0.3.2:8080", ":0:10.0.0.1:8080,10.0.0.2:8080,10.0.0.3:8080"]
    );
    let port = compiled.port(0, "10.0.3.2", 8080).expect("known");
    let cluster = |address: &str, host: &str| {
        let port = compiled.port(0, address, if address == "10.96.0.2" { 80 } else { 8080 }).expect("known");
        let clusters = (0..compiled.program.clusters.len() as u32).map(crate::program::ClusterId);
        let mut own = clusters.filter(|id| compiled.program.cluster(*id).host.starts_with(host));
        own.all(|id| compiled.program.is_dialled(port, id))
    };
    assert!(cluster("10.0.3.2", "h."), "by whatever subset");
    assert!(!cluster("10.0.3.2", "b."), "b's share is balanced");
    assert!(!cluster("10.96.0.2", "h."), "who came through b dialled no pod");
    let table = &compiled.program.host_tables[compiled.program.port(port).hosts.index()];
    for host in [
        "h",
        "h.shop",
        "h.shop.svc.cluster.local",
        "h-2.h",
        "h-2.h.shop",
        "h-2.h.shop.svc.cluster.local.",
        "h-2.h.shop.svc:8080",
    ] {
        assert_eq!(table.find("shop", host).map(|found| &*found.host), Some("h.shop.svc.cluster.local"), "{host}");
    }
    for host in ["h-2.h", "x.h-2.h.shop", "10.0.3.2:8080", "b-1.b.shop"] {
        assert!(table.find("other", host).is_none(), "{host}");
    }
    let found = compiled.found(code::NO_EFFECT);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0]
            .contains("subset v1 does not choose: clients of the headless service h.shop.svc.cluster.local dial a pod"),
        "{found:?}"
    );
}

#[test]
fn names_of_pods_give_way_to_a_host_that_is_written_as_exactly() {
    let wild =
        vs("shop", "w", "{hosts: [\"*.h.shop.svc.cluster.local\"], http: [{route: [{destination: {host: b}}]}]}");
    let wider = wild.replace("*.h.shop", "*.shop").replace("name: w", "name: z");
    for (text, wanted) in [(wild, "*.h.shop.svc.cluster.local"), (wider, "h.shop.svc.cluster.local")] {
        let compiled = compiled(&[headless(SET), text].concat());
        let port = compiled.program.port(compiled.port(0, "10.0.3.1", 8080).expect("known"));
        let table = &compiled.program.host_tables[port.hosts.index()];
        let found = table.find("shop", "h-1.h.shop.svc.cluster.local").map(|found| &*found.host);
        assert_eq!(found, Some(wanted));
    }
}

#[test]
fn tcp_routes_and_http2_lead_to_the_pod_in_the_kernel() {
    let tcp = vs(
        "shop",
        "h",
        "{hosts: [h], tcp: [{route: [{destination: {host: h, subset: v2}, weight: 3}, {destination: {host: b}, weight: 1}]}]}",
    );
    let text = [headless("{name: tcp, port: 80, targetPort: 8080}"), tcp].concat();
    let text = text.replacen(HTTP, "{name: tcp, port: 80, targetPort: 8080}", 1);
    let routed = compiled(&text);
    assert_eq!(verdict(&routed, "10.0.3.1").0, Verdict::Balance);
    assert_eq!(
        routed.groups(0, "10.0.3.1", 8080),
        ["v2:3:10.0.3.1:8080", ":1:10.0.0.1:8080,10.0.0.2:8080,10.0.0.3:8080"]
    );
    let grpc = compiled(&[headless("{name: grpc, port: 80, targetPort: 8080}"), vs("shop", "h", TO_V1)].concat());
    assert_eq!(verdict(&grpc, "10.0.3.1").0, Verdict::Balance);
    assert_eq!(grpc.groups(0, "10.0.3.1", 8080)[0], "v1:1:10.0.3.1:8080");
}

#[test]
fn a_load_balancer_asks_for_nothing_and_says_so() {
    let lb = dr("shop", "a-lb", "{host: h, trafficPolicy: {loadBalancer: {simple: RANDOM}}}");
    let compiled = compiled(&[headless(SET), lb].concat());
    assert_eq!(verdict(&compiled, "10.0.3.1").0, Verdict::Pass);
    let found = compiled.found(code::NO_EFFECT);
    assert!(found.len() == 1 && found[0].contains("loadBalancer has no effect, as clients dial a pod"), "{found:?}");
}

#[test]
fn of_two_services_with_one_pod_the_stricter_holds_in_every_view() {
    let client = pod("clients", "c", "10.0.2.1", "weir.mesh/mode: enabled")
        .replace("labels:", "annotations: {weir.mesh/netns: /run/netns/c}, labels:");
    let second = service("shop", "z", "None", SET).replace("{app: z}", "{app: h}");
    let guard = protection("{targetRefs: [{kind: Service, name: z}]}");
    let private = vs(
        "clients",
        "h",
        "{hosts: [h.shop.svc.cluster.local], exportTo: [\".\"], http: [{route: [{destination: {host: b.shop.svc.cluster.local}}]}]}",
    );
    let text = [headless(SET), second, client, private].concat();
    let open = compiled(&text);
    let view = open.plan.pods["clients/c"].view;
    assert_eq!(verdict(&open, "10.0.3.1").0, Verdict::Pass);
    assert_eq!(open.entry(view, "10.0.3.1", 8080).map(|entry| entry.verdict), Some(Verdict::Proxy));
    let closed = compiled(&[text, guard].concat());
    for view in [0, view] {
        assert_eq!(closed.entry(view, "10.0.3.1", 8080).map(|entry| entry.verdict), Some(Verdict::Reject), "{view}");
    }
}

#[test]
fn nobody_claims_the_pods_or_addresses_of_others() {
    let slice = "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: e, namespace: evil, labels: {kubernetes.io/service-name: e}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.96.0.2]}, {addresses: [192.0.2.1]}]
";
    let steal = vs("evil", "e", "{hosts: [e], http: [{route: [{destination: {host: e}}]}]}");
    let text = [&*shop(HTTP), &service("evil", "e", "None", SET), slice, &steal].concat();
    let compiled = compiled(&text);
    assert!(
        compiled.entry(0, "10.0.0.1", 8080).is_none() && compiled.port(0, "10.0.0.1", 8080).is_none(),
        "shop's pod"
    );
    assert!(compiled.entry(0, "10.96.0.2", 8080).is_none(), "shop's service");
    assert_eq!(compiled.entry(0, "192.0.2.1", 8080).map(|entry| entry.verdict), Some(Verdict::Proxy));
}

#[test]
fn nodes_are_no_reason_to_leave_a_pod_out() {
    let local = headless(SET).replace("clusterIP: \"None\"", "internalTrafficPolicy: Local, clusterIP: \"None\"");
    let node = CompileOptions { node: Some("n2".into()), ..CompileOptions::default() };
    let (compiled, _) = with_store(&[("t", &[local, protection("{}")].concat())], &node);
    assert_eq!(verdict(&compiled, "10.0.3.1").0, Verdict::Reject);
}
