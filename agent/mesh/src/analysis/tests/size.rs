//! What is found of many objects that are in each other's way grows with their number, not with its square.

use super::{found, of};

const GATEWAY: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gN, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [HOST], tls: {mode: SIMPLE, credentialName: CERT}}]
---
";
const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web, image: web}]}
---
";

/// The objects 0 to `n`.
fn many(n: usize, one: &str) -> String {
    (0..n).map(|i| one.replace("name: gN", &format!("name: g{i}")).replace("hN", &format!("h{i}"))).collect()
}

/// Findings of a code, and bytes of text of all of them, for one and for four times as many objects.
fn grows(code: &str, one: &str) {
    let size = |n: usize| {
        let found = of(code, &format!("{POD}{}", many(n, one)));
        (found.len(), found.iter().map(|finding| finding.to_string().len()).sum::<usize>())
    };
    let ((few, small), (many, large)) = (size(50), size(200));
    assert_eq!((few, many), (50, 200), "{code}: one finding each");
    assert!(large < small * 5, "{code}: {small} bytes for 50, {large} for 200");
}

#[test]
fn the_findings_of_rivals_grow_with_their_number() {
    grows("IST0138", &GATEWAY.replace("HOST", "hN.example.com").replace("CERT", "one"));
    grows("IST0145", &GATEWAY.replace("HOST", "www.example.com").replace("CERT", "hN"));
    let sidecar = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: gN, namespace: shop}\nspec: {SELECTORegress: [{hosts: [./*]}]}\n---\n";
    grows("IST0110", &sidecar.replace("SELECTOR", "workloadSelector: {labels: {app: web}}, "));
    grows("IST0111", &sidecar.replace("SELECTOR", ""));
    let telemetry = "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: gN, namespace: shop}\nspec: {SELECTORmetrics: []}\n---\n";
    grows("IST0159", &telemetry.replace("SELECTOR", "selector: {matchLabels: {app: web}}, "));
    grows("IST0160", &telemetry.replace("SELECTOR", ""));
}

#[test]
fn entries_that_call_a_port_differently_are_told_of_once_each() {
    let entry = |protocol: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: gN, namespace: {}}}\nspec: {{hosts: [x.example.com], addresses: [240.0.0.1], resolution: NONE, ports: [{{number: 80, name: a, protocol: {protocol}}}]}}\n---\n",
            protocol.to_lowercase()
        )
    };
    let size = |n: usize| {
        let found = of("IST0177", &format!("{}{}", many(n, &entry("HTTP")), many(n, &entry("TCP"))));
        assert_eq!(found.len(), 2 * n);
        assert!(found[0].message.contains("HTTP and TCP") && found[0].message.contains(&format!("{} more", 2 * n - 5)));
        found.iter().map(|finding| finding.to_string().len()).sum::<usize>()
    };
    let (small, large) = (size(25), size(100));
    assert!(large < small * 5, "{small} bytes for 50, {large} for 200");
}

#[test]
fn few_gateways_with_one_certificate_are_told_of_in_pairs() {
    let pairs = |n: usize| {
        let found = of("IST0138", &many(n, &GATEWAY.replace("HOST", "hN.example.com").replace("CERT", "one")));
        found.into_iter().map(|finding| finding.message).collect::<Vec<_>>()
    };
    assert_eq!((pairs(3).len(), pairs(6).len(), pairs(7).len()), (6, 30, 7));
    let last = &pairs(8)[7];
    assert!(last.contains("Gateway shop/g0, ") && last.contains(", Gateway shop/g4, 2 more, too"), "{last}");
}

#[test]
fn a_gateway_meets_only_those_of_its_pods() {
    let gateway = |name: &str, app: &str| {
        GATEWAY
            .replace("gN", name)
            .replace("istio: ingressgateway", app)
            .replace("HOST", "www.example.com")
            .replace("CERT", name)
    };
    let text = [gateway("a", "app: web"), gateway("b", "app: web"), gateway("c", "app: api")].concat();
    let found: Vec<_> = found(&[&format!("{POD}{text}")]).into_iter().filter(|f| f.code == "IST0145").collect();
    let named: Vec<_> = found.iter().map(|f| f.object.as_ref().unwrap().to_string()).collect();
    assert_eq!(named, ["Gateway shop/a", "Gateway shop/b"]);
    assert!(found.iter().all(|finding| finding.message.contains("the oldest, Gateway shop/a, gets it")));
}

#[test]
fn an_object_that_shares_many_pods_names_a_few() {
    let pods: String = (0..20).map(|i| POD.replace("name: web,", &format!("name: web-{i},"))).collect();
    let sidecar = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: gN, namespace: shop}\nspec: {workloadSelector: {labels: {app: web}}, egress: [{hosts: [./*]}]}\n---\n";
    let found = of("IST0110", &format!("{pods}{}", many(2, sidecar)));
    assert_eq!(found.len(), 10);
    assert_eq!(found.iter().filter(|finding| finding.message.ends_with("it shares 15 more, too")).count(), 2);
}
