//! Faults, mirrors and CORS: what a rule does beside forwarding.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::harness::{Mesh, eventually, named, nobody, object, origin, rules, serve, soon};
use crate::proxy::{Flag, Limits};

#[tokio::test]
async fn an_abort_answers_its_share_and_nothing_else() {
    let rules = rules(
        "http: [
          {match: [{uri: {prefix: /half}}], fault: {abort: {httpStatus: 418, percentage: {value: 50}}}, route: [{destination: {host: b}}]},
          {match: [{uri: {prefix: /none}}], fault: {abort: {httpStatus: 418}}, route: [{destination: {host: b}}]},
          {match: [{uri: {prefix: /grpc}}], fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}, route: [{destination: {host: b}}]},
          {fault: {abort: {httpStatus: 503, percentage: {value: 100}}}, retries: {attempts: 3, retryOn: 5xx}, route: [{destination: {host: b}}]}]",
    );
    let mut mesh = Mesh::ruled(&[("b", &[named("b").await])], &rules);
    let mut client = mesh.client().await;
    assert_eq!(client.get("/all").await, (503, "fault filter abort".into()));
    let line = soon(mesh.log.recv()).await.unwrap();
    assert!(line.contains(" 503 FI fault_filter_abort - \"-\" 0 18 "), "{line}");
    let mut aborted = 0;
    for _ in 0..1000 {
        let (status, body) = client.get("/half").await;
        assert!((status, &*body) == (200, "b") || (status, &*body) == (418, "fault filter abort"), "{status} {body}");
        aborted += u32::from(status == 418);
        assert_eq!(client.get("/none").await.0, 200);
    }
    // Five standard deviations of 1,000 fair rolls: one run in a million is beyond.
    assert!((421..=579).contains(&aborted), "{aborted} of 1000");
    let request = Request::post("/grpc").header("host", "b").header("content-type", "application/grpc+proto");
    let answer = client.send(request.body(Full::default()).unwrap()).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &"14".parse().unwrap()));
    assert_eq!(mesh.proxy.counters().retries, 0);
}

#[tokio::test]
async fn a_delay_comes_before_the_timeout_and_is_flagged() {
    let rules = rules(
        "http: [{fault: {delay: {fixedDelay: 1100ms, percentage: {value: 100}}}, timeout: 1s, route: [{destination: {host: b}}]}]",
    );
    let mut mesh = Mesh::ruled(&[("b", &[named("b").await])], &rules);
    let started = Instant::now();
    assert_eq!(mesh.client().await.get("/").await, (200, "b".into()));
    assert!(started.elapsed() >= Duration::from_millis(1100));
    let line = soon(mesh.log.recv()).await.unwrap();
    assert!(line.contains(" 200 DI via_upstream "), "{line}");
    assert_eq!(mesh.proxy.counters().flag(Flag::DelayInjected), 1);
}

/// An origin that remembers what it was asked: method, path and body.
async fn remembering() -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let memory = Arc::clone(&seen);
    let address = origin(move |request: Request<Incoming>| {
        let seen = Arc::clone(&memory);
        async move {
            let asked =
                format!("{} {} {}", request.method(), request.uri(), request.headers()["host"].to_str().unwrap());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            seen.lock().unwrap().push(format!("{asked} {}", String::from_utf8_lossy(&body)));
            Response::new(Full::from("seen"))
        }
    })
    .await;
    (address, seen)
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path).header("host", "b").body(Full::new(body.into())).unwrap()
}

#[tokio::test]
async fn a_mirror_gets_a_copy_of_everything_and_nobody_waits_for_it() {
    let (copied, seen) = remembering().await;
    let hangs = serve(|stream, _| async move {
        tokio::time::sleep(Duration::from_mins(1)).await;
        drop(stream);
    });
    let services: [(&str, &[_]); 4] =
        [("b", &[named("b").await]), ("c", &[copied]), ("dead", &[nobody()]), ("slow", &[hangs.await])];
    let rules = rules(
        "http: [
          {match: [{uri: {prefix: /many}}], mirrors: [{destination: {host: dead}}, {destination: {host: slow}},
           {destination: {host: c}, percentage: {value: 0}}], route: [{destination: {host: b}}]},
          {rewrite: {uri: /x/}, mirror: {host: c}, route: [{destination: {host: b}}]}]",
    );
    let limits = Limits { mirror_timeout: Duration::from_secs(3), max_replay: 1000, ..Limits::default() };
    let mesh = Mesh::ruled_within(limits, &services, &rules);
    let mut client = mesh.client().await;
    assert_eq!(client.get("/a").await, (200, "b".into()));
    assert_eq!(client.send(post("/p", "body")).await.status(), 200);
    eventually("both are copied", || mesh.proxy.counters().mirrored == 2).await;
    let mut asked = seen.lock().unwrap().clone();
    asked.sort();
    assert_eq!(asked, ["GET /x/a b ", "POST /x/p b body"]);
    // One that is too long to be kept has no copy, but is forwarded.
    assert_eq!(client.send(post("/long", vec![b'x'; 1001])).await.status(), 200);
    eventually("it is counted", || mesh.proxy.counters().mirrors_dropped == 1).await;
    let started = Instant::now();
    assert_eq!(client.get("/many").await, (200, "b".into()));
    assert!(started.elapsed() < Duration::from_secs(2), "nobody waits for a mirror");
    eventually("both fail", || mesh.proxy.counters().mirror_failures == 2).await;
    eventually("none is under way", || mesh.proxy.counters().mirrors_active == 0).await;
    assert_eq!(seen.lock().unwrap().len(), 2, "0 % is nothing");
    let counters = mesh.proxy.counters();
    assert_eq!((counters.requests, counters.flag(Flag::None)), (4, 4));
}

#[tokio::test]
async fn a_copy_is_asked_for_by_the_host_of_the_request() {
    let (copied, seen) = remembering().await;
    let rules = rules(
        "http: [
          {match: [{uri: {prefix: /told}}], rewrite: {authority: told.example}, mirror: {host: c}, route: [{destination: {host: b}}]},
          {mirror: {host: c}, route: [{destination: {host: b}}]}]",
    );
    let mesh = Mesh::ruled(&[("b", &[named("b").await]), ("c", &[copied])], &rules);
    let mut client = mesh.client().await;
    assert_eq!(client.get("/a").await, (200, "b".into()));
    assert_eq!(client.get("/told").await, (200, "b".into()));
    eventually("both are copied", || mesh.proxy.counters().mirrored == 2).await;
    let mut asked = seen.lock().unwrap().clone();
    asked.sort();
    assert_eq!(asked, ["GET /a b ", "GET /told told.example "], "no suffix tells the copy apart");
}

#[tokio::test]
async fn a_copy_has_the_trailers_of_its_request() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let memory = Arc::clone(&seen);
    let copied = origin(move |request: Request<Incoming>| {
        let seen = Arc::clone(&memory);
        async move {
            let body = request.into_body().collect().await.unwrap();
            let sum = body.trailers().map(|trailers| trailers["x-sum"].to_str().unwrap().to_owned());
            seen.lock().unwrap().push((String::from_utf8_lossy(&body.to_bytes()).into_owned(), sum));
            Response::new(Full::from("seen"))
        }
    })
    .await;
    let rules = rules("http: [{mirror: {host: c}, route: [{destination: {host: b}}]}]");
    let mesh = Mesh::ruled(&[("b", &[named("b").await]), ("c", &[copied])], &rules);
    for (n, chunks) in ["2\r\nab\r\n1\r\nc\r\n", "", "1\r\nz\r\n"].into_iter().enumerate() {
        let trailers = if n < 2 { "x-sum: 7\r\nauthorization: no\r\n" } else { "" };
        let head = "POST / HTTP/1.1\r\nhost: b\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = mesh.raw(format!("{head}{chunks}0\r\n{trailers}\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        eventually("it is copied", || mesh.proxy.counters().mirrored == n as u64 + 1).await;
    }
    let seven = Some("7".to_owned());
    assert_eq!(*seen.lock().unwrap(), [("abc".into(), seven.clone()), (String::new(), seven), ("z".into(), None)]);
}

#[tokio::test]
async fn a_copy_counts_in_its_own_clusters_limits_alone() {
    let pool = |host: &str, http: &str| {
        object("DestinationRule", &format!("host: {host}, trafficPolicy: {{connectionPool: {{{http}}}}}"))
            .replace("name: b,", &format!("name: pool-{host},"))
    };
    // Copies that hang: as many as may be under way, or wait for a connection. The rest is left, and told.
    for (limits, under_way) in
        [("http: {http2MaxRequests: 2}", 2), ("tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 2}", 3)]
    {
        let hangs = serve(|stream, _| async move {
            tokio::time::sleep(Duration::from_mins(1)).await;
            drop(stream);
        });
        let rules = rules("http: [{mirror: {host: c}, route: [{destination: {host: b}}]}]")
            + &pool("b", "tcp: {maxConnections: 1}, http: {http2MaxRequests: 1, http1MaxPendingRequests: 1}")
            + &pool("c", limits);
        let mesh = Mesh::ruled(&[("b", &[named("b").await]), ("c", &[hangs.await])], &rules);
        let mut client = mesh.client().await;
        for _ in 0..10 {
            assert_eq!(client.get("/").await, (200, "b".into()), "the request has its own cluster's place");
        }
        eventually("the rest is dropped", || mesh.proxy.counters().mirrors_dropped == 10 - under_way).await;
        eventually("the others stay", || mesh.proxy.counters().mirrors_active == under_way).await;
        let counters = mesh.proxy.counters();
        assert_eq!((counters.mirror_failures, counters.mirrored), (0, 0));
    }
}

#[tokio::test]
async fn a_mirror_gets_its_share_and_no_more_copies_than_there_is_room_for() {
    let (copied, seen) = remembering().await;
    let rules = rules("http: [{mirror: {host: c}, mirrorPercentage: {value: 30}, route: [{destination: {host: b}}]}]");
    let mesh = Mesh::ruled(&[("b", &[named("b").await]), ("c", &[copied])], &rules);
    let mut client = mesh.client().await;
    for _ in 0..1000 {
        assert_eq!(client.get("/").await.0, 200);
    }
    eventually("all copies are done", || mesh.proxy.counters().mirrors_active == 0).await;
    let counters = mesh.proxy.counters();
    // Five standard deviations.
    assert!((226..=374).contains(&(counters.mirrored + counters.mirrors_dropped)), "{counters:?}");
    assert_eq!(seen.lock().unwrap().len() as u64, counters.mirrored);

    let hangs = serve(|stream, _| async move {
        tokio::time::sleep(Duration::from_mins(1)).await;
        drop(stream);
    });
    let limits = Limits { max_mirrors: 3, ..Limits::default() };
    let rules = super::harness::rules("http: [{mirror: {host: c}, route: [{destination: {host: b}}]}]");
    let full = Mesh::ruled_within(limits, &[("b", &[named("b").await]), ("c", &[hangs.await])], &rules);
    let mut client = full.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.0, 200);
    }
    let counters = full.proxy.counters();
    assert_eq!((counters.mirrors_active, counters.mirrors_dropped), (3, 7));
}

#[tokio::test]
async fn cors_answers_preflights_and_names_the_origin() {
    let policy = "allowOrigins: [{exact: 'https://a.example'}, {regex: 'https://[a-z]+\\.b\\.example'}], allowMethods: [GET, PUT],
                  allowHeaders: [x-a, x-b], exposeHeaders: [x-c], maxAge: 24h, allowCredentials: true";
    let rules = rules(&format!(
        "http: [{{match: [{{uri: {{prefix: /ignored}}}}], corsPolicy: {{{policy}, unmatchedPreflights: IGNORE}}, route: [{{destination: {{host: b}}}}]}},
                {{corsPolicy: {{{policy}}}, route: [{{destination: {{host: b}}}}]}}]"
    ));
    let app = origin(|_| async move {
        Response::builder().header("access-control-allow-origin", "*").body(Full::from("app")).unwrap()
    });
    let mut mesh = Mesh::ruled(&[("b", &[app.await])], &rules);
    let mut client = mesh.client().await;
    let asked = |method: &str, path: &str, origin: &str, wants: Option<&str>| {
        let mut request = Request::builder().method(method).uri(path).header("host", "b").header("origin", origin);
        if let Some(wants) = wants {
            request = request.header("access-control-request-method", wants);
        }
        request.body(Full::default()).unwrap()
    };
    let said = |response: &Response<Incoming>| -> Vec<String> {
        let of = |name: &str| {
            response.headers().get(format!("access-control-{name}")).map(|v| v.to_str().unwrap().to_owned())
        };
        ["allow-origin", "allow-credentials", "allow-methods", "allow-headers", "max-age", "expose-headers"]
            .map(|name| of(name).unwrap_or_default())
            .into()
    };
    let preflight = client.send(asked("OPTIONS", "/", "https://a.example", Some("PUT"))).await;
    assert_eq!(preflight.status(), 200);
    assert_eq!(said(&preflight), ["https://a.example", "true", "GET,PUT", "x-a,x-b", "86400", "x-c"]);
    assert_eq!(soon(preflight.into_body().collect()).await.unwrap().to_bytes(), "");
    let line = soon(mesh.log.recv()).await.unwrap();
    assert!(line.contains("\"OPTIONS / HTTP/1.1\" 200 - cors_response "), "{line}");
    let actual = client.send(asked("GET", "/", "https://x.b.example", None)).await;
    assert_eq!(said(&actual), ["https://x.b.example", "true", "", "", "", "x-c"]);
    assert_eq!(soon(actual.into_body().collect()).await.unwrap().to_bytes(), "app");
    // OPTIONS alone is no preflight, and what is not allowed is the application's affair.
    for request in
        [asked("OPTIONS", "/", "https://a.example", None), asked("OPTIONS", "/", "https://c.example", Some("GET"))]
    {
        let answer = client.send(request).await;
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "app");
    }
    let other = client.send(asked("GET", "/", "https://a.example.c", None)).await;
    assert_eq!(said(&other), ["*", "", "", "", "", ""]);
    drop(soon(other.into_body().collect()).await.unwrap());
    let ignored = client.send(asked("OPTIONS", "/ignored", "https://c.example", Some("GET"))).await;
    assert_eq!((ignored.status().as_u16(), said(&ignored).concat()), (200, String::new()));
    assert_eq!(soon(ignored.into_body().collect()).await.unwrap().to_bytes(), "");
}
