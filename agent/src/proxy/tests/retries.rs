//! Timeouts and retries: how long a request may take, how often it is tried, and where.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::{Mesh, named, nobody, object, origin, routed_at_each_level, rules, serve, soon};
use crate::proxy::{Flag, Limits};

/// An origin whose first `failures` answers have this status; then it says how often it was asked, which try it was told
/// that this is, and the request's body.
async fn failing(failures: usize, status: u16) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let address = origin(move |request: Request<Incoming>| {
        let number = counter.fetch_add(1, SeqCst) + 1;
        async move {
            let tried = request.headers().get("x-envoy-attempt-count").cloned();
            let tried = tried.map_or("-".to_owned(), |value| value.to_str().unwrap().to_owned());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            let mut response = Response::new(Full::from(format!("{number} {tried} {body}")));
            if number <= failures {
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
            }
            response
        }
    })
    .await;
    (address, asked)
}

/// An origin that takes requests and never answers.
async fn silent() -> std::net::SocketAddr {
    serve(|mut stream, _| async move {
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    })
    .await
}

fn post(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post("/").header("host", "b").body(Full::new(body.into())).unwrap()
}

async fn text(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_failed_request_is_sent_again_as_the_rule_says_with_its_body() {
    let (address, asked) = failing(2, 503).await;
    let rules =
        rules("http: [{retries: {attempts: 2, retryOn: '503', backoff: 1ms}, route: [{destination: {host: b}}]}]");
    let mut mesh = Mesh::ruled(&[("b", &[address])], &rules);
    let answer = mesh.client().await.send(post("pay")).await;
    assert_eq!(text(answer).await, (200, "3 3 pay".into()));
    assert_eq!(asked.load(SeqCst), 3);
    assert_eq!(mesh.proxy.counters().retries, 2);
    let line = soon(mesh.log.recv()).await.unwrap();
    assert!(line.contains("\"POST / HTTP/1.1\" 200 - via_upstream - \"-\" 3 7 "), "{line}");
}

#[tokio::test]
async fn when_the_retries_are_used_up_the_last_answer_is_passed_on_and_flagged() {
    let (address, asked) = failing(9, 502).await;
    let rules = rules(
        "http: [{retries: {attempts: 2, retryOn: 'gateway-error', backoff: 1ms}, route: [{destination: {host: b}}]}]",
    );
    let mut mesh = Mesh::ruled(&[("b", &[address])], &rules);
    assert_eq!(mesh.client().await.get("/").await, (502, "3 3 ".into()));
    assert_eq!(asked.load(SeqCst), 3);
    let line = soon(mesh.log.recv()).await.unwrap();
    assert!(line.contains(" 502 URX via_upstream "), "{line}");
    assert_eq!(mesh.proxy.counters().flag(Flag::RetriesExhausted), 1);
}

#[tokio::test]
async fn without_retries_an_answer_is_an_answer_and_nothing_that_was_seen_is_repeated() {
    let (address, asked) = failing(9, 503).await;
    let mesh = Mesh::ruled(&[("b", &[address])], &rules("http: [{route: [{destination: {host: b}}]}]"));
    assert_eq!(mesh.client().await.get("/").await.0, 503);
    assert_eq!(text(mesh.client().await.send(post("pay")).await).await.0, 503);
    assert_eq!(asked.load(SeqCst), 2);
    assert_eq!(mesh.proxy.counters().retries, 0);
}

#[tokio::test]
async fn a_connect_that_fails_is_tried_elsewhere_by_default_and_not_at_all_with_no_attempts() {
    let (dead, alive) = (nobody(), named("alive").await);
    let by_default = Mesh::ruled(&[("b", &[dead, alive])], &rules("http: [{route: [{destination: {host: b}}]}]"));
    for _ in 0..20 {
        assert_eq!(text(by_default.client().await.send(post("x")).await).await, (200, "alive".into()));
    }
    assert!(by_default.proxy.counters().upstream_connect_failures > 0);
    let none = "http: [{retries: {attempts: 0}, route: [{destination: {host: b}}]}]";
    let mut never = Mesh::ruled(&[("b", &[dead])], &rules(none));
    assert_eq!(never.client().await.get("/").await.0, 503);
    assert_eq!(never.proxy.counters().upstream_connect_failures, 1);
    let line = soon(never.log.recv()).await.unwrap();
    assert!(line.contains(" 503 UF upstream_reset_before_response_started{connection_failure} "), "{line}");
}

#[tokio::test]
async fn a_host_that_failed_is_avoided() {
    let (bad, asked) = failing(usize::MAX, 500).await;
    let good = named("good").await;
    let rules =
        rules("http: [{retries: {attempts: 1, retryOn: 5xx, backoff: 1ms}, route: [{destination: {host: b}}]}]");
    let mesh = Mesh::ruled(&[("b", &[bad, good])], &rules);
    let mut client = mesh.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await, (200, "good".into()));
    }
    assert!(asked.load(SeqCst) > 0, "the bad one must have been asked");
}

#[tokio::test]
async fn a_body_that_is_too_long_to_be_kept_is_sent_once() {
    let (address, asked) = failing(9, 503).await;
    let rules =
        rules("http: [{retries: {attempts: 3, retryOn: 5xx, backoff: 1ms}, route: [{destination: {host: b}}]}]");
    let limits = Limits { max_replay: 10_000, ..Limits::default() };
    let mesh = Mesh::ruled_within(limits, &[("b", &[address])], &rules);
    let mut client = mesh.client().await;
    assert_eq!(text(client.send(post(vec![b'x'; 10_001])).await).await.0, 503);
    assert_eq!(asked.load(SeqCst), 1);
    let long = "x".repeat(10_000);
    assert_eq!(text(client.send(post(long.clone())).await).await, (503, format!("5 4 {long}")));
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_given_up_for_another() {
    let (slow, quick) = (silent().await, named("quick").await);
    let routes = rules(
        "http: [{retries: {attempts: 1, retryOn: 5xx, perTryTimeout: 500ms, backoff: 1ms}, route: [{destination: {host: b}}]}]",
    );
    let rules = object("DestinationRule", "host: b, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}") + &routes;
    let mesh = Mesh::ruled(&[("b", &[slow, quick])], &rules);
    // Each worker has turns of its own: one of the two gets two of three, so that the slow one has its turn.
    for _ in 0..3 {
        assert_eq!(text(mesh.client().await.send(post("x")).await).await, (200, "quick".into()));
    }
    assert!(mesh.proxy.counters().retries > 0);
    let mut alone = Mesh::ruled(&[("b", &[slow])], &rules);
    assert_eq!(alone.client().await.get("/").await, (504, "upstream request timeout".into()));
    let line = soon(alone.log.recv()).await.unwrap();
    assert!(line.contains(" 504 UT,URX upstream_per_try_timeout "), "{line}");
}

#[tokio::test]
async fn the_timeout_is_of_the_request_with_all_its_tries() {
    let (slow, asked) = (silent().await, Instant::now());
    let rules = rules(
        "http: [{timeout: 200ms, retries: {attempts: 50, retryOn: 5xx, perTryTimeout: 60ms}, route: [{destination: {host: b}}]}]",
    );
    let mut mesh = Mesh::ruled(&[("b", &[slow])], &rules);
    assert_eq!(mesh.client().await.get("/").await, (504, "upstream request timeout".into()));
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(5), "{took:?}");
    let line = soon(mesh.log.recv()).await.unwrap();
    assert!(line.contains(" 504 UT response_timeout "), "{line}");
    // The client's own comes before the rule's, and is not passed on.
    let request = Request::get("/").header("host", "b").header("x-envoy-upstream-rq-timeout-ms", "20");
    let started = Instant::now();
    let answer = mesh.client().await.send(request.body(Full::default()).unwrap()).await;
    assert_eq!(answer.status(), 504);
    assert!(started.elapsed() >= Duration::from_millis(20));
}

#[tokio::test]
async fn a_timeout_begins_when_the_client_has_sent_all_and_ends_an_answer_that_stalls() {
    let rules = rules("http: [{timeout: 500ms, route: [{destination: {host: b}}]}]");
    let echo =
        origin(
            |request| async move { Response::new(Full::from(request.into_body().collect().await.unwrap().to_bytes())) },
        );
    let mesh = Mesh::ruled(&[("b", &[echo.await])], &rules);
    let mut stream = mesh.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: b\r\ncontent-length: 2\r\nconnection: close\r\n\r\na").await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    stream.write_all(b"b").await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ab"), "{answer}");

    let stalling = serve(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let mut mesh = Mesh::ruled(&[("b", &[stalling.await])], &rules);
    let answer = mesh.raw(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n").await;
    assert!(answer.ends_with("half"), "{answer}");
    let line = soon(mesh.log.recv()).await.unwrap();
    assert!(line.contains(" 200 UT response_timeout - \"-\" 0 4 "), "{line}");
}

#[tokio::test]
async fn a_retry_budget_bounds_what_is_repeated_at_a_time() {
    let routes = rules(
        "http: [{retries: {attempts: 3, retryOn: 5xx, backoff: 50ms}, route: [{destination: {host: b, subset: all}}]}]",
    );
    routed_at_each_level("connectionPool: {http: {maxRetries: 1}}", &routes, one_at_a_time_is_repeated).await;
    // Settings of a port have none of these.
    let budget = "trafficPolicy: {retryBudget: {percent: 1, minRetryConcurrency: 1}}";
    for levels in [format!("{budget}, subsets: [{{name: all}}]"), format!("subsets: [{{name: all, {budget}}}]")] {
        let rule = object("DestinationRule", &format!("host: b, {levels}"));
        one_at_a_time_is_repeated(format!("{rule}{routes}")).await;
    }
}

async fn one_at_a_time_is_repeated(rules: String) {
    let (bad, asked) = failing(usize::MAX, 503).await;
    let mesh = Mesh::ruled(&[("b", &[bad])], &rules);
    let clients = futures_util::future::join_all((0..20).map(|_| async { mesh.client().await.get("/").await.0 }));
    assert_eq!(clients.await, [503; 20]);
    let counters = mesh.proxy.counters();
    let (overflown, exhausted) = (counters.flag(Flag::UpstreamOverflow), counters.flag(Flag::RetriesExhausted));
    assert_eq!(overflown + exhausted, 20);
    // One repetition at a time on the whole node: at most a few of the twenty were repeated at all.
    assert!(overflown >= 10, "{overflown}");
    assert!(asked.load(SeqCst) < 60, "{asked:?}");
}
