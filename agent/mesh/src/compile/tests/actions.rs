//! What rules do beside choosing a destination.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::program::{Abort, Route, Share};

fn compiled_rule(rule: &str) -> Compiled {
    let text = [shop(HTTP), vs("shop", "b", &format!("{{hosts: [b], http: [{rule}]}}"))].concat();
    let (compiled, findings) = with_store(&[("t", &text)], &CompileOptions::default());
    assert!(findings.iter().all(|f| f.severity < Severity::Error), "{findings:?}");
    compiled
}

fn route(rule: &str) -> Route {
    let compiled = compiled_rule(&format!("{{{rule}, route: [{{destination: {{host: b}}}}]}}"));
    let port = compiled.port(0, "10.96.0.2", 80).expect("known");
    let source = Source { namespace: "shop", view: 0 };
    crate::route::host(&compiled.program, port, &source, "b").expect("known").rules[0].route.clone()
}

fn settings(rule: &str) -> Arc<crate::program::RouteSettings> {
    route(rule).settings.expect("given")
}

#[test]
fn redirects_and_direct_responses_are_decided() {
    let compiled = compiled_rule(
        "{match: [{uri: {prefix: /old}}], redirect: {uri: /new}},
         {match: [{uri: {prefix: /moved}}], redirect: {prefixRewrite: /n, authority: c.example.com, scheme: https, redirectCode: 308}},
         {match: [{uri: {prefix: /teapot}}], directResponse: {status: 418, body: {string: short}}},
         {match: [{uri: {prefix: /bytes}}], directResponse: {status: 200, body: {bytes: aGk=}}},
         {route: [{destination: {host: b}}]}",
    );
    let ask = |path: &str| compiled.ask(0, "shop", "10.96.0.2", "b", path);
    assert_eq!(ask("/old/x"), "default: 301 http://b/new");
    assert_eq!(ask("/moved/x"), "default: 308 https://c.example.com/n/x");
    assert_eq!([ask("/teapot"), ask("/bytes")], ["default: 418 short", "default: 200 hi"]);
    assert_eq!(ask("/"), "default: b/3=1");
}

#[test]
fn without_retries_only_what_was_not_processed_is_sent_again() {
    let plain = route("name: x");
    assert!(plain.settings.is_none());
    assert_eq!(
        plain.retries().on.tokens().collect::<Vec<_>>(),
        ["reset-before-request", "connect-failure", "refused-stream"]
    );
}

#[test]
fn a_retries_block_does_what_istio_does() {
    let retries = |block: &str| route(&format!("retries: {{{block}}}")).retries();
    let istio = retries("attempts: 3");
    assert_eq!((istio.attempts, istio.backoff), (3, Duration::from_millis(25)));
    assert_eq!(
        istio.on.tokens().collect::<Vec<_>>(),
        ["connect-failure", "refused-stream", "cancelled", "unavailable"]
    );
    let own = retries("attempts: 1, retryOn: \"5xx,503,gateway-error\", perTryTimeout: 2s");
    assert_eq!((&*own.statuses, own.per_try_timeout), (&[503_u16][..], Some(Duration::from_secs(2))));
    assert!(own.on.has("5xx") && own.on.has("gateway-error") && !own.on.has("connect-failure"));
    assert_eq!(retries("").attempts, 0, "a block without attempts switches retries off");
}

#[test]
fn a_fault_without_a_percentage_strikes_nobody() {
    let fault = |fault: &str| settings(&format!("fault: {{{fault}}}")).fault.clone().expect("given");
    let none = fault("delay: {fixedDelay: 5s}, abort: {httpStatus: 500}");
    assert_eq!((0..1000).find(|n| none.draw(n * (u64::MAX / 1000)) != (None, None)), None);
    let all =
        fault("delay: {fixedDelay: 5s, percent: 100}, abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}");
    assert_eq!(all.draw(7), (Some(Duration::from_secs(5)), Some(Abort::Grpc(14))));
    let newer = fault("delay: {fixedDelay: 1s, percent: 100, percentage: {value: 0.0001}}");
    assert_eq!(newer.delay.expect("given").1.millionths(), 1, "the deprecated field counts only alone");
}

#[test]
fn a_mirror_without_a_percentage_gets_everything() {
    let share = |mirror: &str| settings(mirror).mirrors.iter().map(|mirror| mirror.share).collect::<Vec<_>>();
    assert_eq!(share("mirror: {host: b}"), [Share::ALL]);
    assert_eq!(share("mirror: {host: b}, mirrorPercentage: {value: 0}"), [Share::NONE]);
    assert_eq!(share("mirror: {host: b}, mirrorPercent: 50"), [Share::of_percent(50.0)]);
    assert_eq!(
        share("mirrors: [{destination: {host: b}, percentage: {value: 10}}, {destination: {host: b, subset: v1}}]"),
        [Share::of_percent(10.0), Share::ALL]
    );
}

#[test]
fn headers_and_cors_are_ready_to_be_sent() {
    let settings = settings(
        "headers: {request: {set: {X-A: \"1\", \":authority\": c}, add: {x-b: \"2\"}, remove: [x-c]}},
         corsPolicy: {allowOrigins: [{exact: \"https://a\"}, {regex: \"https://[a-z]\"}], allowMethods: [GET, PUT], maxAge: 1h, unmatchedPreflights: IGNORE}",
    );
    let request = &settings.headers.as_ref().expect("given").request;
    assert_eq!(request.set[0], ("x-a".parse().expect("a name"), "1".parse().expect("a value")));
    assert_eq!((request.set.len(), request.add.len(), request.remove.len()), (1, 1, 1));
    assert_eq!(request.authority.as_ref().map(http::HeaderValue::as_bytes), Some(&b"c"[..]));
    let cors = settings.cors.as_ref().expect("given");
    assert_eq!(cors.allow_methods.as_ref().map(http::HeaderValue::as_bytes), Some(&b"GET,PUT"[..]));
    assert!(cors.allows("https://a") && cors.allows("https://z") && !cors.allows("https://zz"));
    assert_eq!((cors.max_age, cors.ignore_unmatched_preflights), (Some(3600), true));
}

#[test]
fn rarer_conditions_are_looked_at() {
    let headers = |sent: &[(&'static str, &'static str)]| -> HeaderMap {
        sent.iter()
            .map(|(k, v)| (k.parse::<http::HeaderName>().expect("a name"), v.parse().expect("a value")))
            .collect()
    };
    for (item, authority, query, sent, taken) in [
        ("authority: {prefix: b.shop}", "b.shop:80", None, &[][..], true),
        ("authority: {exact: b}", "b:80", None, &[], false),
        ("scheme: {exact: http}", "b", None, &[], true),
        ("scheme: {exact: https}", "b", None, &[], false),
        ("queryParams: {k: {exact: a}}", "b", Some("x=1&k=a"), &[], true),
        ("queryParams: {k: {exact: \"\"}}", "b", Some("k"), &[], true),
        ("queryParams: {k: {}}", "b", Some("k=anything"), &[], true),
        ("queryParams: {k: {}}", "b", None, &[], false),
        ("withoutHeaders: {x: {exact: a}}", "b", None, &[], true),
        ("withoutHeaders: {x: {exact: a}}", "b", None, &[("x", "a")], false),
        ("withoutHeaders: {x: {}}", "b", None, &[("x", "")], false),
    ] {
        let compiled = compiled_rule(&format!("{{match: [{{{item}}}], route: [{{destination: {{host: b}}}}]}}"));
        let headers = headers(sent);
        let request =
            RequestView { method: &Method::GET, scheme: "http", authority, path: "/", query, headers: &headers };
        let port = compiled.port(0, "10.96.0.2", 80).expect("known");
        let decided = decide(&compiled.program, port, &Source { namespace: "shop", view: 0 }, &request, 0);
        assert_eq!(
            matches!(decided, RouteDecision::Forward { route: Some(_), .. }),
            taken,
            "{item} {authority} {query:?}"
        );
    }
}
