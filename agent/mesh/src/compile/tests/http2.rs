//! Rules for a port that carries HTTP/2, which is split by connection.

use super::*;
use crate::finding::code;
use crate::route::decide_http2;

const GRPC: &str = "{name: grpc, port: 80, targetPort: 8080}";
const UNDECLARED: &str = "{name: web, port: 80, targetPort: 8080}";
const CANARY: &str = "{hosts: [b], http: [
  {match: [{uri: {prefix: /v2}}], route: [{destination: {host: b, subset: v2}}]},
  {route: [{destination: {host: b, subset: v1}, weight: 100}, {destination: {host: b, subset: v2}, weight: 0}]}]}";
const NO_CATCH_ALL: &str =
    "{hosts: [b], http: [{match: [{uri: {prefix: /v2}}], route: [{destination: {host: b, subset: v2}}]}]}";

/// Where HTTP/2 connections go in the proxy, for rolls over the whole range.
fn http2(compiled: &Compiled) -> Vec<String> {
    let port = compiled.port(0, "10.96.0.2", 80).expect("known");
    let mut found: Vec<String> = (0..=16_u64)
        .map(|n| decide_http2(&compiled.program, port, n.saturating_mul(u64::MAX / 16)))
        .map(|chosen| chosen.map_or("nowhere".to_owned(), |chosen| chosen.name.to_string()))
        .collect();
    found.dedup();
    found
}

#[test]
fn a_version_with_weight_0_gets_nothing() {
    for port in [
        GRPC,
        "{name: http2, port: 80, targetPort: 8080}",
        "{name: x, appProtocol: kubernetes.io/h2c, port: 80, targetPort: 8080}",
    ] {
        let compiled = compiled(&[shop(port), vs("shop", "b", CANARY)].concat());
        assert_eq!(
            compiled.verdict("10.96.0.2"),
            (
                Verdict::Balance,
                "the kernel splits HTTP/2 connections by the rule of VirtualService shop/b for everything"
            )
        );
        let groups = compiled.groups(0, "10.96.0.2", 80);
        assert_eq!(groups, ["v1:100:10.0.0.1:8080,10.0.0.2:8080", "v2:0:10.0.0.3:8080"]);
        assert_eq!(http2(&compiled), ["outbound|80|v1|b.shop.svc.cluster.local"]);
        let found = compiled.found(code::NOT_SUPPORTED);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("Warning VirtualService shop/b 34: port 80 of b.shop.svc.cluster.local carries HTTP/2, which is split by connection and not by request: http[1] decides, as it takes everything, and http[0] is not looked at"),
            "{found:?}"
        );
    }
}

#[test]
fn detected_http2_follows_the_same_rule_and_everything_else_its_own() {
    let compiled = compiled(&[shop(UNDECLARED), vs("shop", "b", CANARY)].concat());
    assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Proxy);
    assert_eq!(http2(&compiled), ["outbound|80|v1|b.shop.svc.cluster.local"]);
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/v2"), "default: b-v2/1=1");
    let port = compiled.program.port(compiled.port(0, "10.96.0.2", 80).expect("known"));
    assert_eq!(&*port.tcp[0].destinations[0].name, "outbound|80||b.shop.svc.cluster.local");
    assert!(compiled.found(code::NOT_SUPPORTED)[0].starts_with("Info "));
}

#[test]
fn without_a_rule_for_everything_connections_are_refused() {
    let declared = compiled(&[shop(GRPC), vs("shop", "b", NO_CATCH_ALL)].concat());
    let entry = declared.entry(0, "10.96.0.2", 80).expect("planned");
    assert_eq!(entry.verdict, Verdict::Reject);
    assert_eq!(entry.because.as_ref().map(ToString::to_string).as_deref(), Some("VirtualService shop/b"));
    assert_eq!(http2(&declared), ["nowhere"]);
    let found = declared.found(code::NOT_SUPPORTED);
    assert!(
        found[0].ends_with("such connections are refused, as no rule takes everything, and http[0] is not looked at"),
        "{found:?}"
    );

    let detected = compiled(&[shop(UNDECLARED), vs("shop", "b", NO_CATCH_ALL)].concat());
    assert_eq!((detected.verdict("10.96.0.2").0, http2(&detected)), (Verdict::Proxy, vec!["nowhere".to_owned()]));
}

#[test]
fn without_rules_it_goes_to_the_plain_service_whatever_tcp_routes_say() {
    let tcp = vs("shop", "b", "{hosts: [b], tcp: [{route: [{destination: {host: b, subset: v1}}]}]}");
    for port in [GRPC, UNDECLARED] {
        let compiled = compiled(&[shop(port), tcp.clone()].concat());
        assert_eq!(http2(&compiled), ["outbound|80||b.shop.svc.cluster.local"], "{port}");
        assert_eq!(compiled.found(code::NOT_SUPPORTED), [""; 0]);
    }
    assert_eq!(compiled(&shop(GRPC)).verdict("10.96.0.2").0, Verdict::Balance);
}

#[test]
fn a_single_destination_for_everything_loses_nothing() {
    let all = vs("shop", "b", "{hosts: [b], http: [{route: [{destination: {host: b, subset: v2}}]}]}");
    let sticky = shop(GRPC).replacen("clusterIP:", "sessionAffinity: ClientIP, clusterIP:", 1);
    for text in [shop(GRPC), sticky] {
        let compiled = compiled(&[text, all.clone()].concat());
        assert_eq!(compiled.groups(0, "10.96.0.2", 80), ["v2:1:10.0.0.3:8080"]);
        assert_eq!(compiled.found(code::NOT_SUPPORTED), [""; 0]);
    }
}

#[test]
fn a_load_balancer_asks_for_the_proxy_and_the_same_rule_decides_there() {
    let lb = dr("shop", "b", "{host: b, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}");
    let lb = lb.replace("name: b,", "name: lb,");
    let compiled = compiled(&[shop(GRPC), vs("shop", "b", CANARY), lb].concat());
    assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Proxy);
    assert_eq!(http2(&compiled), ["outbound|80|v1|b.shop.svc.cluster.local"]);
    assert_eq!(compiled.groups(0, "10.96.0.2", 80).len(), 2, "the fallback is the same split");
}

#[test]
fn each_virtual_service_of_the_host_is_told() {
    let one = vs("shop", "a-first", NO_CATCH_ALL);
    let compiled = compiled(&[shop(GRPC), one, vs("shop", "b", CANARY)].concat());
    let found = compiled.found(code::NOT_SUPPORTED);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0]
            .contains("http[1] of VirtualService shop/b decides, as it takes everything, and http[0] is not looked at"),
        "{found:?}"
    );
}
