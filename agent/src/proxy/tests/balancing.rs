//! Load balancers: clients that stick to endpoints and to subsets, new endpoints, the address that was dialled.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use weir_mesh::program::PortId;

use super::harness::{Mesh, at_each_level, compiled, named, object, rules, serve, soon};
use crate::proxy::Limits;

const NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];

async fn pods() -> Vec<SocketAddr> {
    let mut pods = Vec::new();
    for name in NAMES {
        pods.push(named(name).await);
    }
    pods
}

/// A rule for `b` whose load balancer is this, for every service.
fn balancer(spec: &str) -> String {
    object(
        "DestinationRule",
        &format!("host: '*.default.svc.cluster.local', trafficPolicy: {{loadBalancer: {{{spec}}}}}"),
    )
}

/// Who answers a request with these headers, and with what headers, on a connection of its own.
async fn ask(mesh: &Mesh, path: &str, headers: &[(&str, &str)]) -> (String, HeaderMap) {
    let mut request = Request::get(path).header("host", "b");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = mesh.client().await.send(request.body(Full::default()).unwrap()).await;
    assert_eq!(answer.status(), 200);
    let headers = answer.headers().clone();
    let body = soon(answer.into_body().collect()).await.unwrap().to_bytes();
    (String::from_utf8_lossy(&body).into_owned(), headers)
}

async fn by_user(mesh: &Mesh, users: usize) -> Vec<String> {
    let mut found = Vec::new();
    for user in 0..users {
        found.push(ask(mesh, "/", &[("x-user", &format!("user-{user}"))]).await.0);
    }
    found
}

#[tokio::test]
async fn a_user_stays_on_a_pod_and_only_those_of_a_pod_that_leaves_move() {
    let pods = pods().await;
    let rule = balancer("consistentHash: {httpHeaderName: x-user}");
    let mesh = Mesh::ruled(&[("b", &pods)], &rule);
    let first = by_user(&mesh, 100).await;
    assert_eq!(by_user(&mesh, 100).await, first, "whatever worker and connection");
    for name in NAMES {
        assert!(first.iter().any(|pod| pod == name), "{name} has users: {first:?}");
    }
    // Another node, which lists them in another order.
    let mut turned = pods.clone();
    turned.reverse();
    assert_eq!(by_user(&Mesh::ruled(&[("b", &turned)], &rule), 100).await, first, "the same on every node");
    mesh.programs.store(Arc::new(compiled(&[("b", &pods[1..])], "http", &rule)));
    for (was, is) in first.iter().zip(by_user(&mesh, 100).await) {
        assert!(if was == "one" { is != "one" } else { is == *was }, "{was} → {is}");
    }
    // Nobody without the header: such requests go anywhere.
    let mut anywhere = HashMap::new();
    for _ in 0..60 {
        *anywhere.entry(ask(&mesh, "/", &[]).await.0).or_insert(0) += 1;
    }
    assert_eq!(anywhere.len(), 4, "{anywhere:?}");
}

#[tokio::test]
async fn a_user_stays_in_the_canary_and_on_its_pod() {
    let pods = pods().await;
    let rule = balancer("consistentHash: {httpHeaderName: x-user, maglev: {tableSize: 1009}}");
    let split = |canary: u32| {
        let stable = 100 - canary;
        let route = format!(
            "http: [{{route: [{{destination: {{host: b}}, weight: {stable}}}, {{destination: {{host: c}}, weight: {canary}}}]}}]"
        );
        format!("{}{rule}", rules(&route))
    };
    let services: [(&str, &[SocketAddr]); 2] = [("b", &pods[..3]), ("c", &pods[3..])];
    let mesh = Mesh::ruled(&services, &split(20));
    let is_canary = |pod: &String| pod == "four" || pod == "five";
    let first = by_user(&mesh, 100).await;
    let canaries = first.iter().filter(|pod| is_canary(pod)).count();
    assert!((5..=35).contains(&canaries), "{canaries} of 100 at 20 %");
    assert_eq!(by_user(&mesh, 100).await, first);
    mesh.programs.store(Arc::new(compiled(&services, "http", &split(60))));
    let later = by_user(&mesh, 100).await;
    for (was, is) in first.iter().zip(&later) {
        assert!(was == is || (!is_canary(was) && is_canary(is)), "{was} → {is}");
    }
    assert!(later.iter().filter(|pod| is_canary(pod)).count() > canaries);
}

#[tokio::test]
async fn a_client_without_the_cookie_gets_one_and_comes_back_with_it() {
    let pods = pods().await;
    let cookie = "loadBalancer: {consistentHash: {httpCookie: {name: user, path: /shop, ttl: 1h, \
                  attributes: [{name: SameSite, value: Strict}]}}}";
    at_each_level(cookie, async |rule| {
        let mesh = Mesh::ruled(&[("b", &pods)], &rule);
        let mut seen = HashMap::new();
        for _ in 0..20 {
            let (pod, headers) = ask(&mesh, "/", &[]).await;
            let set = headers["set-cookie"].to_str().unwrap();
            assert!(set.ends_with("\"; Max-Age=3600; Path=/shop; SameSite=Strict; HttpOnly"), "{set}");
            let sent = set.split(';').next().unwrap();
            let (again, headers) = ask(&mesh, "/", &[("cookie", &format!("a=b; {sent}"))]).await;
            assert_eq!(again, pod);
            assert!(!headers.contains_key("set-cookie"));
            seen.insert(sent.to_owned(), pod);
        }
        assert_eq!(seen.len(), 20, "each its own");
        assert!(seen.values().any(|pod| *pod != seen.values().next().unwrap().as_str()), "{seen:?}");
    })
    .await;
    // Without a ttl none is made.
    at_each_level("loadBalancer: {consistentHash: {httpCookie: {name: user}}}", async |rule| {
        let mesh = Mesh::ruled(&[("b", &pods)], &rule);
        assert!(!ask(&mesh, "/", &[]).await.1.contains_key("set-cookie"));
        let first = ask(&mesh, "/", &[("cookie", "user=ann")]).await.0;
        for _ in 0..10 {
            assert_eq!(ask(&mesh, "/", &[("cookie", "user=ann")]).await.0, first);
        }
    })
    .await;
}

#[tokio::test]
async fn requests_stick_by_a_query_parameter() {
    let pods = pods().await;
    at_each_level("loadBalancer: {consistentHash: {httpQueryParameterName: user}}", async |rule| {
        let mesh = Mesh::ruled(&[("b", &pods)], &rule);
        let mut found = HashMap::new();
        for user in 0..30 {
            let pod = ask(&mesh, &format!("/?a=1&user={user}"), &[]).await.0;
            assert_eq!(ask(&mesh, &format!("/x?user={user}&b=2"), &[]).await.0, pod);
            *found.entry(pod).or_insert(0) += 1;
        }
        assert!(found.len() > 2, "{found:?}");
    })
    .await;
}

/// An origin that says its name to whoever connects.
async fn saying(name: &'static str) -> SocketAddr {
    serve(move |mut stream, _| async move {
        let _ = stream.write_all(name.as_bytes()).await;
    })
    .await
}

#[tokio::test]
async fn connections_stick_by_the_address_that_they_come_from() {
    let mut pods = Vec::new();
    for name in NAMES {
        pods.push(saying(name).await);
    }
    let mesh = Mesh::ruled_on("tcp", &[("b", &pods)], &balancer("consistentHash: {useSourceIp: true}"));
    let from = async |last: u8| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 1, last], 0))).unwrap();
        let mut stream = socket.connect(mesh.address).await.unwrap();
        let mut said = String::new();
        soon(stream.read_to_string(&mut said)).await.unwrap();
        said
    };
    let mut found = HashMap::new();
    for last in 1..=30 {
        let pod = from(last).await;
        assert!(NAMES.contains(&&*pod), "{pod}");
        assert_eq!(from(last).await, pod);
        *found.entry(pod).or_insert(0) += 1;
    }
    assert!(found.len() > 2, "{found:?}");
}

/// Requests in which the share of a pod is counted: so many that what is cold is five standard deviations from
/// what is warm, and more.
const COUNTED: usize = 1200;

/// How many of them the second pod gets.
async fn of_the_second(mesh: &Mesh) -> usize {
    let mut client = mesh.client().await;
    let mut hits = 0;
    for _ in 0..COUNTED {
        hits += usize::from(client.get("/").await == (200, "two".to_owned()));
    }
    hits
}

#[tokio::test]
async fn a_pod_that_is_new_gets_its_share_little_by_little() {
    let pods = pods().await;
    // Each is five standard deviations wide, at least.
    let (half, warm) = (510..=690, Duration::from_millis(2_300));
    for balancer in ["ROUND_ROBIN", "LEAST_REQUEST"] {
        for (warmup, wait, expected) in [
            // A tenth of the other's is 109, six tenths are 450.
            ("duration: 1h, minimumPercent: 10", Duration::ZERO, 59..=159),
            ("duration: 1h, minimumPercent: 60", Duration::ZERO, 366..=534),
            // The tenth root of a thousandth and less: 0.44 to 0.54 of the other's in the first eight seconds.
            ("duration: 1h, minimumPercent: 10, aggression: 10", Duration::ZERO, 286..=505),
            // A weight that is never made anew would leave it a third.
            ("duration: 2s, minimumPercent: 10", warm, half.clone()),
        ] {
            at_each_level(&format!("loadBalancer: {{simple: {balancer}, warmup: {{{warmup}}}}}"), async |rule| {
                // Those that are there from the beginning are warm.
                let mesh = Mesh::ruled(&[("b", &pods[..2])], &rule);
                let whole = of_the_second(&mesh).await;
                assert!(half.contains(&whole), "{balancer}, {warmup}: {whole} of {COUNTED} when it is not new");
                let mesh = Mesh::ruled(&[("b", &pods[..1])], &rule);
                mesh.programs.store(Arc::new(compiled(&[("b", &pods[..2])], "http", &rule)));
                tokio::time::sleep(wait).await;
                let hits = of_the_second(&mesh).await;
                assert!(expected.contains(&hits), "{balancer}, {warmup}: {hits} of {COUNTED}");
            })
            .await;
        }
    }
}

#[tokio::test]
async fn what_is_passed_through_goes_where_it_was_dialled() {
    let (dialled, endpoint) = (named("dialled").await, named("endpoint").await);
    let through = |endpoints: &[SocketAddr]| {
        let mut program = compiled(&[("b", endpoints)], "http", &balancer("simple: PASSTHROUGH"));
        Arc::make_mut(&mut program.destinations).insert((0, dialled.ip(), dialled.port()), PortId(0));
        program
    };
    let mut mesh = Mesh::running(through(&[endpoint]), Limits::default(), Some(dialled), None);
    assert_eq!(mesh.client().await.get("/").await, (200, "dialled".into()));
    let line = soon(mesh.log.recv()).await.unwrap();
    assert!(line.contains(&format!("\"{dialled}\" outbound|80||b.default.svc.cluster.local ")), "{line}");
    // Where a policy leaves no endpoints, nobody gets through to them either.
    mesh.programs.store(Arc::new(through(&[])));
    assert_eq!(mesh.client().await.get("/").await, (503, "no healthy upstream".into()));
}
