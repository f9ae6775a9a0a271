//! Where clients and endpoints are, which policy makes use of it, and what the kernel leaves to the proxy for it.

use super::*;
use crate::balance::locality::{Plan, Scratch};
use crate::program::{Cluster, Localities};

const TCP: &str = "{name: tcp-x, port: 80, targetPort: 8080}";
const OUTLIERS: &str = "outlierDetection: {consecutive5xxErrors: 1}";

/// A Node with these labels: `region`, `zone`, `subzone`.
fn node(name: &str, place: [&str; 3]) -> String {
    let keys = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];
    let given = keys.iter().zip(place).filter(|(_, value)| !value.is_empty());
    let labels: Vec<String> = given.map(|(key, value)| format!("{key}: {value}")).collect();
    format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{}}}}}\n", labels.join(", "))
}

fn pod_on(node: &str, name: &str, ip: &str, labels: &str) -> String {
    pod("shop", name, ip, labels).replace("nodeName: n1", &format!("nodeName: {node}"))
}

/// Service `b` with a pod on each of the nodes eu, eu-2 and us, of the regions of their names; the client is in eu/a.
fn world(ports: &str, service_spec: &str, rule: &str) -> Compiled {
    let service = service("shop", "b", "10.96.0.2", ports).replace("ports: [", &format!("{service_spec}ports: ["));
    let rule = if rule.is_empty() { String::new() } else { dr("shop", "b", &format!("{{host: b, {rule}}}")) };
    let client = pod_on("eu", "c", "10.0.9.1", "app: c, tier: gold, weir.mesh/mode: enabled")
        .replace("labels:", "annotations: {weir.mesh/netns: /proc/1/ns/net}, labels:");
    compiled(
        &[
            node("eu", ["eu", "a", "one"]),
            node("eu-2", ["eu", "b", ""]),
            node("us", ["us", "x", ""]),
            service,
            rule,
            client,
            pod_on("eu", "b-1", "10.0.0.1", "app: b, tier: iron"),
            pod_on("eu-2", "b-2", "10.0.0.2", "app: b, tier: gold"),
            pod_on("us", "b-3", "10.0.0.3", "app: b, tier: gold"),
        ]
        .concat(),
    )
}

impl Compiled {
    fn of_b(&self) -> &Cluster {
        self.program
            .clusters
            .iter()
            .find(|cluster| &*cluster.name == "outbound|80||b.shop.svc.cluster.local")
            .expect("b")
    }

    fn localities(&self) -> Option<&Localities> {
        self.of_b().localities.as_deref()
    }

    /// Percentages of the endpoints of b for the client, when some of them fail.
    fn percent(&self, failing: &[usize]) -> Vec<u32> {
        let plan = Plan::of(self.localities().expect("in force"), self.program.clients.of("shop/c"), false);
        let mut weights = Vec::new();
        plan.weights(0, |endpoint| !failing.contains(&endpoint), &mut Scratch::default(), &mut weights);
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        weights.iter().map(|weight| (f64::from(*weight) * 100.0 / total).round() as u32).collect()
    }
}

#[test]
fn failing_endpoints_are_replaced_by_the_next_nearest() {
    let world = world(HTTP, "", &format!("trafficPolicy: {{{OUTLIERS}}}"));
    assert_eq!([&[][..], &[0], &[0, 1]].map(|failing| world.percent(failing)), [[100, 0, 0], [0, 100, 0], [0, 0, 100]]);
    assert_eq!(&*world.program.clients.of("shop/c").place, "eu/a/one");
}

#[test]
fn nothing_is_preferred_where_no_failure_is_noticed_or_it_is_switched_off() {
    let setting = "localityLbSetting: {enabled: true}";
    for policy in [
        "trafficPolicy: {loadBalancer: {simple: RANDOM}}".to_owned(),
        format!("trafficPolicy: {{loadBalancer: {{{setting}}}}}"),
        format!("trafficPolicy: {{loadBalancer: {{localityLbSetting: {{enabled: false}}}}, {OUTLIERS}}}"),
        "trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: false, distribute: [{from: eu/*, to: {us/*: 100}}]}}}"
            .to_owned(),
        format!("trafficPolicy: {{loadBalancer: {{simple: PASSTHROUGH}}, {OUTLIERS}}}"),
        format!("trafficPolicy: {{loadBalancer: {{zoneAwareLbSetting: {{enabled: true}}}}, {OUTLIERS}}}"),
    ] {
        assert_eq!(world(HTTP, "", &policy).localities(), None, "{policy}");
    }
    assert!(
        world(HTTP, "", &format!("trafficPolicy: {{loadBalancer: {{{setting}}}, {OUTLIERS}}}")).localities().is_some()
    );
}

#[test]
fn shares_of_regions_that_no_node_tells_are_told_of() {
    let shares =
        "{host: b, trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: eu/*, to: {us/*: 100}}]}}}}";
    let told = |node: &str| {
        compiled(&[node, &shop(HTTP), &dr("shop", "z", shares)].concat()).found(crate::finding::code::NO_EFFECT)
    };
    let silent = told(&node("n1", ["", "", ""]));
    let message =
        "no Node has the label topology.kubernetes.io/region: the places of `localityLbSetting` are those of no pod";
    assert!(
        silent
            .iter()
            .any(|finding| finding.starts_with("Warning DestinationRule shop/z ") && finding.contains(message)),
        "{silent:?}"
    );
    let placed = told(&node("n1", ["eu", "", ""]));
    assert!(!placed.iter().any(|finding| finding.contains(message)), "{placed:?}");
    // Files that hold no Node say nothing of where pods will be.
    assert!(!told("").iter().any(|finding| finding.contains(message)));
}

#[test]
fn regions_labels_and_shares_are_as_the_rule_says() {
    let with = |setting: &str| {
        let policy = format!("trafficPolicy: {{loadBalancer: {{localityLbSetting: {{{setting}}}}}, {OUTLIERS}}}");
        let world = world(HTTP, "", &policy);
        [&[][..], &[0], &[0, 1]].map(|failing| world.percent(failing))
    };
    assert_eq!(
        with("failoverPriority: [tier]"),
        [[0, 50, 50]; 2].into_iter().chain([[0, 0, 100]]).collect::<Vec<_>>()[..]
    );
    assert_eq!(with("failoverPriority: [tier=iron]")[0], [100, 0, 0]);
    assert_eq!(
        with("failoverPriority: [tier, topology.kubernetes.io/region]"),
        [[0, 100, 0], [0, 100, 0], [0, 0, 100]]
    );
    assert_eq!(with("distribute: [{from: eu/a/*, to: {eu/*: 20, us/*: 80}}]")[0], [10, 10, 80]);
    assert_eq!(with("distribute: [{from: us/*, to: {us/*: 100}}]")[0], [33, 33, 33], "no rule for this client");
}

#[test]
fn the_kernel_leaves_to_the_proxy_what_goes_by_locality() {
    let shares = "trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: eu/*, to: {us/*: 100}}]}}}";
    let told = world(TCP, "", shares);
    let why = "DestinationRule shop/b asks for localityLbSetting, which the kernel does not keep";
    assert_eq!(told.verdict("10.96.0.2"), (Verdict::Proxy, why));
    assert_eq!(told.percent(&[]), [0, 0, 100], "without any outlier detection");
    let near = world(TCP, "trafficDistribution: PreferClose, ", "");
    let why = "Service shop/b asks for trafficDistribution, which the kernel does not keep";
    assert_eq!(near.verdict("10.96.0.2"), (Verdict::Proxy, why));
    let off = "trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: false}}}";
    assert_eq!(world(TCP, "trafficDistribution: PreferClose, ", off).verdict("10.96.0.2").0, Verdict::Balance);
    let alone = [service("shop", "b", "10.96.0.2", TCP), pod("shop", "b-1", "10.0.0.1", "app: b")].concat();
    let alone = compiled(&alone.replace("ports: [", "trafficDistribution: PreferClose, ports: ["));
    assert_eq!(alone.verdict("10.96.0.2").0, Verdict::Balance, "there is nothing to choose between");
}

#[test]
fn a_service_that_asks_for_near_endpoints_needs_no_outlier_detection() {
    for (wanted, percent) in [("PreferClose", [100, 0, 0]), ("PreferSameZone", [100, 0, 0])] {
        let near = world(HTTP, &format!("trafficDistribution: {wanted}, "), "");
        assert_eq!(near.percent(&[]), percent, "{wanted}");
    }
    assert_eq!(world(HTTP, "trafficDistribution: PreferFar, ", "").localities(), None);
    // A rule comes first.
    let rule =
        format!("trafficPolicy: {{loadBalancer: {{localityLbSetting: {{failoverPriority: [tier]}}}}, {OUTLIERS}}}");
    assert_eq!(world(HTTP, "trafficDistribution: PreferClose, ", &rule).percent(&[]), [0, 50, 50]);
    // On one's own node before all others of the place.
    let host =
        service("shop", "b", "10.96.0.2", HTTP).replace("ports: [", "trafficDistribution: PreferSameNode, ports: [");
    let client = pod_on("n2", "c", "10.0.9.1", "weir.mesh/mode: enabled")
        .replace("labels:", "annotations: {weir.mesh/netns: /proc/1/ns/net}, labels:");
    let pods = [pod_on("n1", "b-1", "10.0.0.1", "app: b"), pod_on("n2", "b-2", "10.0.0.2", "app: b")].concat();
    let nodes = [node("n1", ["eu", "a", ""]), node("n2", ["eu", "a", ""])].concat();
    assert_eq!(compiled(&[host, client, pods, nodes].concat()).percent(&[]), [0, 100]);
}

#[test]
fn places_are_told_by_pods_nodes_slices_and_entries() {
    let slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: b-1, namespace: shop, labels: {kubernetes.io/service-name: b}}\naddressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: b-1}, nodeName: eu, zone: z}, {addresses: [10.0.0.2], targetRef: {kind: Pod, name: b-2}}, {addresses: [10.0.0.3], nodeName: eu}, {addresses: [10.0.0.4], nodeName: bare, zone: z}, {addresses: [10.0.0.5]}]\n";
    let text = [
        node("eu", ["eu", "a", ""]),
        node("bare", ["", "", ""]),
        service("shop", "b", "10.96.0.2", HTTP),
        pod_on("eu", "b-1", "10.0.0.1", "app: b"),
        pod_on("eu", "b-2", "10.0.0.2", "app: b, istio-locality: asia.t.9"),
        slice.to_owned(),
        dr("shop", "b", &format!("{{host: '*.local', trafficPolicy: {{{OUTLIERS}}}}}")),
    ];
    let compiled_one = compiled(&text.concat());
    let places = |localities: &Localities| -> Vec<String> {
        localities.endpoints(false).map(|one| one.place.to_string()).collect()
    };
    let found = places(compiled_one.localities().expect("in force"));
    assert_eq!(found, ["eu/a", "asia/t/9", "eu/a", "/z", ""]);
    let entry = "{hosts: [db.local], addresses: [10.97.0.1], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 192.0.2.1, locality: eu/a/1}, {address: 192.0.2.2, locality: us, weight: 2}, {address: 192.0.2.3}]}";
    let entry = [rule("ServiceEntry", "shop", "db", entry), text[6].clone()].concat();
    let compiled = compiled(&entry);
    let db = compiled.program.clusters.iter().find(|cluster| &*cluster.host == "db.local").expect("db");
    let found = places(db.localities.as_deref().expect("in force"));
    assert_eq!(found, ["eu/a/1", "us", "", "us"], "as often as they weigh");
    assert_eq!(db.endpoints4.len(), found.len());
}

#[test]
fn labels_that_nobody_asks_for_make_no_kind_of_client() {
    let plain = world(HTTP, "", &format!("trafficPolicy: {{{OUTLIERS}}}"));
    assert_eq!((plain.program.clients.kinds.len(), plain.program.clients.keys.len()), (2, 0));
    assert!(plain.program.clients.of("shop/c").labels.is_empty());
    let setting = "loadBalancer: {localityLbSetting: {failoverPriority: [tier, topology.kubernetes.io/zone]}}";
    let asked = world(HTTP, "", &format!("trafficPolicy: {{{setting}, {OUTLIERS}}}"));
    assert_eq!(asked.program.clients.of("shop/c").label("tier"), Some("gold"));
    assert_eq!(asked.program.clients.keys.len(), 1);
    assert_eq!(asked.localities().expect("in force").found.len(), 3);
}

#[test]
fn a_cluster_that_locality_does_not_concern_holds_nothing_for_it() {
    assert_eq!(size_of::<Option<std::sync::Arc<Localities>>>(), 8, "a pointer for a cluster, nothing for an endpoint");
    let compiled = world(HTTP, "", "");
    assert!(compiled.program.clusters.iter().all(|cluster| cluster.localities.is_none()));
    // Where it is in force, an endpoint takes a number, however many there are of a place.
    let pods: Vec<String> =
        (0..200).map(|n| pod_on(["eu", "us"][n % 2], &format!("b-{n}"), &format!("10.0.1.{n}"), "app: b")).collect();
    let nodes = [node("eu", ["eu", "a", ""]), node("us", ["us", "a", ""])].concat();
    let rule = dr("shop", "b", &format!("{{host: b, trafficPolicy: {{{OUTLIERS}}}}}"));
    let many = super::compiled(&[nodes, service("shop", "b", "10.96.0.2", HTTP), pods.concat(), rule].concat());
    let localities = many.localities().expect("in force");
    assert_eq!((localities.found.len(), localities.of4.len(), size_of_val(&*localities.of4)), (2, 200, 800));
}
