//! The annotation `weir.mesh/rate-limit` on a VirtualService.

use super::*;
use crate::program::RateLimit;

/// A VirtualService for `b` with this annotation, whose rules are called as given.
fn limited(annotation: &str, rules: &[&str]) -> Compiled {
    let rules: Vec<String> = rules
        .iter()
        .map(|name| {
            format!("{{name: {name}, match: [{{uri: {{prefix: /{name}}}}}], route: [{{destination: {{host: b}}}}]}}")
        })
        .collect();
    let vs = vs("shop", "b", &format!("{{hosts: [b], http: [{}]}}", rules.join(", ")));
    let vs = vs.replace(
        "namespace: shop}",
        &format!("namespace: shop, annotations: {{weir.mesh/rate-limit: '{annotation}'}}}}"),
    );
    compiled(&[shop(HTTP), vs].concat())
}

fn limits(compiled: &Compiled) -> Vec<Option<RateLimit>> {
    let port = compiled.port(0, "10.96.0.2", 80).expect("known");
    let source = Source { namespace: "shop", view: 0 };
    let host = crate::route::host(&compiled.program, port, &source, "b").expect("known");
    let limit = |settings: &crate::program::RouteSettings| settings.rate_limit.as_deref().cloned();
    host.rules.iter().map(|rule| rule.route.settings.as_deref().and_then(limit)).collect()
}

#[test]
fn each_rule_has_its_own_limit_under_a_name_that_stays() {
    let of = limits(&limited("buy: 10/s burst 20 per source; 100/m", &["buy", "look", ""]));
    let ids: Vec<_> =
        of.iter().flatten().map(|limit| (&*limit.id, limit.requests, limit.burst, limit.per_source)).collect();
    assert_eq!(ids, [("shop/b/buy", 10, 20, true), ("shop/b/look", 100, 100, false), ("shop/b/2", 100, 100, false)]);
    let one = limits(&limited("buy: 1/s", &["look", "buy"]));
    assert_eq!(one.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn what_cannot_be_read_or_is_for_nobody_is_told_and_limits_nothing() {
    for (annotation, why) in
        [("often", "a rate is written 100/s"), ("sell: 1/s", "no rule of this object is called `sell`")]
    {
        let compiled = limited(annotation, &["buy"]);
        let told: Vec<_> = compiled.findings.iter().filter(|f| f.code == crate::finding::code::BAD_SETTING).collect();
        assert!(matches!(&*told, [one] if one.message.contains(why)), "{annotation}: {told:?}");
        assert_eq!(limits(&compiled), [None]);
    }
}

#[test]
fn a_limit_takes_the_proxy() {
    let plain = "{hosts: [b], http: [{route: [{destination: {host: b}}]}]}";
    let annotation = "namespace: shop, annotations: {weir.mesh/rate-limit: 5/s}}";
    let compiled = compiled(&[shop(HTTP), vs("shop", "b", plain).replace("namespace: shop}", annotation)].concat());
    assert_eq!(limits(&compiled).iter().flatten().count(), 1);
    assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Proxy);
}
