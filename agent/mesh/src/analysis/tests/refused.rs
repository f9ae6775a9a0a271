//! What is refused is in nobody's way.

use super::{codes, of};

#[test]
fn refused_virtual_services_share_no_host() {
    let rule = |name: &str, fields: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{hosts: [web], {fields}route: [{{destination: {{host: web}}}}]}}]}}\n---\n"
        )
    };
    let (good, bad) = (rule("good", "http: [{"), rule("bad", "http: [{timeout: 0s, "));
    assert!(codes(&bad).contains("IST0106"));
    assert!(of("IST0109", &(good.clone() + &bad)).is_empty());
    assert!(of("IST0109", &(good.clone() + &rule("nobody", "exportTo: [\"~\"], http: [{"))).is_empty());
    let found = of("IST0109", &(good + &bad + &rule("other", "http: [{")));
    assert_eq!(found.len(), 2);
    assert!(
        found.iter().all(|f| f.message.starts_with("2 VirtualServices") && !f.message.contains("bad")),
        "{found:?}"
    );
}

#[test]
fn refused_destination_rules_and_gateways_take_nothing_from_others() {
    let rule = |name: &str, balancer: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{host: web, trafficPolicy: {{loadBalancer: {{simple: {balancer}}}}}}}\n---\n"
        )
    };
    assert_eq!(of("WEIR0018", &(rule("a", "RANDOM") + &rule("b", "RANDOM"))).len(), 2);
    assert!(of("WEIR0018", &(rule("a", "RANDOMLY") + &rule("b", "RANDOM"))).is_empty());
    let gateway = |name: &str, protocol: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{selector: {{istio: ingressgateway}}, servers: [{{port: {{number: 80, name: http, protocol: {protocol}}}, hosts: [a.example.com]}}]}}\n---\n"
        )
    };
    assert_eq!(of("IST0145", &(gateway("a", "HTTP") + &gateway("b", "HTTP"))).len(), 2);
    assert!(of("IST0145", &(gateway("a", "HTPP") + &gateway("b", "HTTP"))).is_empty());
}
