//! The levels of a DestinationRule, and what holds without any.

use std::time::Duration;

use super::*;
use crate::program::{ClusterPolicy, HashKey, HashTable, Level};

const PORTS: &str = "{name: http, port: 80, targetPort: 8080}, {name: http-2, port: 81, targetPort: 8080}";

/// The policy toward subset v1, and toward the plain service, on a port.
fn policies(rule: &str, subset: &str, port: u16) -> [std::sync::Arc<ClusterPolicy>; 2] {
    let rule = format!(
        "{{host: b, trafficPolicy: {rule}, subsets: [{{name: v1, labels: {{version: v1}}, trafficPolicy: {subset}}}]}}"
    );
    let base = shop(PORTS);
    let base = base.split("---\napiVersion: networking").next().expect("the rule is the last").to_owned();
    let spec = "{hosts: [b], http: [{route: [{destination: {host: b, subset: v1, port: {number: PORT}}, weight: 1}, {destination: {host: b, port: {number: PORT}}, weight: 1}]}]}";
    let compiled =
        compiled(&[base, dr("shop", "b", &rule), vs("shop", "b", &spec.replace("PORT", &port.to_string()))].concat());
    ["v1", ""].map(|subset| {
        let clusters = &compiled.program.clusters;
        let found = clusters.iter().find(|c| &*c.subset == subset && c.port == port).expect("there");
        std::sync::Arc::clone(&found.policy)
    })
}

#[test]
fn a_subset_overrides_block_by_block() {
    let [v1, plain] = policies(
        "{loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {connectTimeout: 3s, maxConnections: 7}}}",
        "{connectionPool: {tcp: {maxConnections: 9}}, retryBudget: {}}",
        80,
    );
    assert_eq!(
        (v1.simple(), plain.simple()),
        (crate::program::LoadBalancer::Random, crate::program::LoadBalancer::Random)
    );
    assert_eq!(plain.connect_timeout(), Duration::from_secs(3));
    assert_eq!(v1.connect_timeout(), ClusterPolicy::CONNECT_TIMEOUT, "the whole block is replaced");
    let level = |policy: &ClusterPolicy| policy.connection_pool.as_ref().map(|block| block.origin.level);
    assert_eq!((level(&v1), level(&plain)), (Some(Level::Subset), Some(Level::Rule)));
    let budget = v1.retry_budget.as_ref().expect("given");
    assert_eq!((budget.value.share.millionths(), budget.value.min_retry_concurrency), (200_000, 3));
    assert_eq!(budget.origin.object.to_string(), "DestinationRule shop/b");
    assert!(budget.origin.at.as_ref().is_some_and(|at| at.line > 0));
}

#[test]
fn settings_of_a_port_replace_their_level_and_drop_what_they_do_not_give() {
    let rule = "{loadBalancer: {simple: RANDOM}, outlierDetection: {}, proxyProtocol: {version: V2}, portLevelSettings: [{port: {number: 81}, connectionPool: {tcp: {connectTimeout: 2s}}}]}";
    let [v1, plain] = policies(rule, "{outlierDetection: {consecutive5xxErrors: 1}}", 81);
    assert!(plain.load_balancer.is_none() && plain.outlier_detection.is_none(), "dropped, not inherited");
    assert_eq!(plain.connect_timeout(), Duration::from_secs(2));
    assert_eq!(plain.connection_pool.as_ref().map(|block| block.origin.level), Some(Level::RulePort));
    assert_eq!(plain.proxy_protocol.as_ref().map(|block| *block.value), Some(2), "no port can have it, so it stays");
    assert_eq!(v1.outlier_detection.as_ref().map(|block| block.value.consecutive_5xx_errors), Some(1));
    let [_, other_port] = policies(rule, "{retryBudget: {}}", 80);
    assert!(other_port.load_balancer.is_some() && other_port.connection_pool.is_none());
    let [v1, _] = policies(
        "{loadBalancer: {simple: RANDOM}, outlierDetection: {}}",
        "{portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: ROUND_ROBIN}}]}",
        80,
    );
    assert_eq!(v1.load_balancer.as_ref().map(|block| block.origin.level), Some(Level::SubsetPort));
    assert!(v1.outlier_detection.is_none());
}

#[test]
fn defaults_are_istios_and_one_object_holds_them_for_all() {
    let compiled = compiled(&[shop(PORTS), service("shop", "c", "10.96.0.3", HTTP)].concat());
    let policies: Vec<_> = compiled.program.clusters.iter().map(|cluster| &cluster.policy).collect();
    assert!(policies.len() > 1 && policies.iter().all(|policy| std::sync::Arc::ptr_eq(policy, &ClusterPolicy::none())));
    assert_eq!(policies[0].connect_timeout(), Duration::from_secs(10));
    assert_eq!(policies[0].simple().as_str(), "LEAST_REQUEST");
    let [_, plain] = policies_of("{outlierDetection: {baseEjectionTime: 1m}}");
    let outlier = &plain.outlier_detection.as_ref().expect("given").value;
    assert_eq!(
        (outlier.consecutive_5xx_errors, outlier.max_ejection_percent, outlier.interval),
        (5, 10, Duration::from_secs(10))
    );
}

#[test]
fn ejections_are_shared_by_rules_of_the_service_and_of_the_root_and_by_no_others() {
    let client = pod("clients", "c", "10.0.2.1", "weir.mesh/mode: enabled")
        .replace("labels:", "annotations: {weir.mesh/netns: /run/netns/c}, labels:");
    let base = [service("shop", "c", "10.96.0.3", HTTP), pod("shop", "c-1", "10.0.0.9", "app: c"), client].concat();
    let entry = "{hosts: [db.example.com], addresses: [10.99.0.1], resolution: STATIC, ports: [{number: 80, name: http, \
                 protocol: HTTP}], endpoints: [{address: 10.0.0.9}]}";
    let base = base + &rule("ServiceEntry", "shop", "db", entry);
    for (namespace, host, shared) in [
        ("shop", "c.shop.svc.cluster.local", true),
        ("istio-system", "c.shop.svc.cluster.local", true),
        ("clients", "c.shop.svc.cluster.local", false),
        // Whose addresses a ServiceEntry names is not its namespace's to say.
        ("shop", "db.example.com", false),
    ] {
        let detection = dr(namespace, "d", &format!("{{host: {host}, trafficPolicy: {{outlierDetection: {{}}}}}}"));
        let compiled = compiled(&[&*base, &*detection].concat());
        let all = compiled.program.clusters.iter();
        let judged: Vec<_> = all.filter(|c| c.policy.outlier_detection.is_some()).map(|c| c.shares_ejections).collect();
        assert!(!judged.is_empty() && judged.iter().all(|found| *found == shared), "{namespace} {host}: {judged:?}");
        assert!(compiled.program.clusters.iter().all(|c| c.policy.outlier_detection.is_some() || !c.shares_ejections));
    }
}

fn policies_of(rule: &str) -> [std::sync::Arc<ClusterPolicy>; 2] {
    policies(rule, "{retryBudget: {}}", 80)
}

#[test]
fn a_hash_has_a_key_and_a_table_and_a_cookie_is_made_only_with_a_ttl() {
    let hash = |hash: &str| {
        let [_, plain] = policies_of(&format!("{{loadBalancer: {{consistentHash: {{{hash}}}}}}}"));
        plain.hash().cloned().expect("given")
    };
    assert_eq!(hash("httpHeaderName: X-User").key, HashKey::Header("x-user".parse().expect("a name")));
    assert_eq!(hash("useSourceIp: true").table, HashTable::Ring(1024));
    assert_eq!(hash("useSourceIp: true, maglev: {tableSize: 65537}").table, HashTable::Maglev(65537));
    assert_eq!(hash("httpQueryParameterName: k, ringHash: {minimumRingSize: 7}").table, HashTable::Ring(7));
    let ttl = |cookie: &str| match hash(&format!("httpCookie: {{name: c{cookie}}}")).key {
        HashKey::Cookie(cookie) => cookie.ttl,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (ttl(""), ttl(", ttl: 0s"), ttl(", ttl: 1h")),
        (None, Some(Duration::ZERO), Some(Duration::from_hours(1)))
    );
}

#[test]
fn a_destination_is_drawn_for_each_request_whatever_the_hash_asks_for() {
    let base = shop(HTTP);
    let base = base.split("---\napiVersion: networking").next().expect("the rule is the last").to_owned();
    let rule = "{host: b, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}},
        subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}";
    let spec = "{hosts: [b], http: [{route: [{destination: {host: b, subset: v1}, weight: 50}, {destination: {host: b, subset: v2}, weight: 50}]}]}";
    let compiled = compiled(&[base, dr("shop", "b", rule), vs("shop", "b", spec)].concat());
    assert!(compiled.program.clusters.iter().filter(|c| !c.subset.is_empty()).all(|c| c.policy.hash().is_some()));
    let port = compiled.port(0, "10.96.0.2", 80).expect("a service");
    // Without its key, and with the same key each time.
    for key in [None, Some("ann")] {
        let headers: HeaderMap =
            key.iter().map(|key| ("x-user".parse().expect("a name"), key.parse().expect("a value"))).collect();
        let request = RequestView {
            method: &Method::GET,
            scheme: "http",
            authority: "b",
            path: "/",
            query: None,
            headers: &headers,
        };
        let to_v2 = (1..=1_000_u64).filter(|n| {
            let roll = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            match decide(&compiled.program, port, &Source { namespace: "shop", view: 0 }, &request, roll) {
                RouteDecision::Forward { destination: Some(to), .. } => to.name.contains("|v2|"),
                other => panic!("{other:?}"),
            }
        });
        let to_v2 = to_v2.count();
        assert!((450..=550).contains(&to_v2), "{to_v2} of 1,000 requests with {key:?}, not half of them");
    }
}

#[test]
fn zero_is_as_if_a_limit_were_not_given() {
    let [_, plain] = policies_of("{connectionPool: {tcp: {maxConnections: 0}, http: {maxRequestsPerConnection: 1}}}");
    let pool = &plain.connection_pool.as_ref().expect("given").value;
    assert_eq!(pool.max_connections, None);
    assert_eq!(pool.http.as_ref().and_then(|http| http.max_requests_per_connection), Some(1));
}
