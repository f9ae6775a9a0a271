//! `connectionPool`: how many connections and requests a cluster may have on the node, and how long they last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ::http::{Request, Response};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use weir_mesh::program::ClusterId;

use super::harness::{
    Mesh, at_each_level, eventually, named, object, origin, routed_at_each_level, rules, serve, soon,
};
use crate::proxy::{Flag, Limits};

/// A rule for `b` with this connection pool.
fn pool(spec: &str) -> String {
    object("DestinationRule", &format!("host: b, trafficPolicy: {{connectionPool: {{{spec}}}}}"))
}

/// An origin that answers when it is let: requests under way, the most that were at a time, and the gate.
struct Gated {
    address: SocketAddr,
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

async fn gated() -> Gated {
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Arc::new(Semaphore::new(0));
    let shared = (Arc::clone(&under_way), Arc::clone(&most), Arc::clone(&gate));
    let address = origin(move |_| {
        let (under_way, most, gate) = shared.clone();
        async move {
            most.fetch_max(under_way.fetch_add(1, SeqCst) + 1, SeqCst);
            gate.acquire().await.unwrap().forget();
            under_way.fetch_sub(1, SeqCst);
            Response::new(Full::<Bytes>::default())
        }
    })
    .await;
    Gated { address, under_way, most, gate }
}

/// Status, and whether it says that too much is under way.
async fn get(mesh: &Mesh) -> (u16, bool) {
    let request = Request::get("/").header("host", "b").body(Full::default()).unwrap();
    let answer = mesh.client().await.send(request).await;
    (answer.status().as_u16(), answer.headers().get("x-envoy-overloaded").is_some_and(|value| value == "true"))
}

const OK: (u16, bool) = (200, false);
const OVERFLOW: (u16, bool) = (503, true);

#[tokio::test]
async fn requests_beyond_what_may_wait_for_a_connection_are_refused_at_once() {
    let pool = "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}";
    at_each_level(pool, of_seven_one_is_served_and_one_waits).await;
}

/// How many requests wait for a connection, whatever their cluster.
fn pending(mesh: &Mesh) -> u32 {
    let inspection = mesh.proxy.inspect();
    let clusters = (0..inspection.program().clusters.len() as u32).map(ClusterId);
    let counts = clusters.flat_map(|id| inspection.cluster(id).in_use);
    counts.filter(|(of, _)| *of == "http1MaxPendingRequests").map(|(_, count)| count.active).sum()
}

async fn of_seven_one_is_served_and_one_waits(rule: String) {
    let origin = gated().await;
    let mut mesh = Mesh::ruled(&[("b", &[origin.address])], &rule);
    let waiting = async {
        let first = get(&mesh);
        let second = async {
            eventually("the first has the connection", || origin.under_way.load(SeqCst) == 1).await;
            get(&mesh).await
        };
        let others = async {
            eventually("the second waits", || origin.under_way.load(SeqCst) == 1 && pending(&mesh) == 1).await;
            let started = Instant::now();
            let refused = join_all((0..5).map(|_| get(&mesh))).await;
            assert!(started.elapsed() < Duration::from_secs(2), "at once: {:?}", started.elapsed());
            origin.gate.add_permits(2);
            refused
        };
        tokio::join!(first, second, others)
    };
    let (first, second, others) = waiting.await;
    assert_eq!((first, second, others), (OK, OK, vec![OVERFLOW; 5]), "one of them waited");
    assert_eq!(origin.most.load(SeqCst), 1);
    let mut lines = Vec::new();
    while lines.len() < 7 {
        lines.push(soon(mesh.log.recv()).await.unwrap());
    }
    let refused = " 503 UO upstream_reset_before_response_started{overflow} ";
    assert_eq!(lines.iter().filter(|line| line.contains(refused)).count(), 5, "{lines:?}");
    assert_eq!(mesh.proxy.counters().flag(Flag::UpstreamOverflow), 5);
}

/// The tutorials' circuit breaker: four connections, twenty requests.
#[tokio::test]
async fn of_twenty_requests_on_four_connections_some_are_answered_and_the_rest_overflow() {
    let rule = pool("http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}");
    let mesh = Mesh::ruled(&[("b", &[named("b").await])], &rule);
    let mut overflown = 0;
    for round in 0.. {
        assert!(round < 200, "connects of several requests never fell together");
        let mut connections = Vec::new();
        for _ in 0..4 {
            connections.push(mesh.client().await);
        }
        let answers = join_all(connections.iter_mut().map(async |client| {
            let mut statuses = Vec::new();
            for _ in 0..5 {
                statuses.push(client.get("/").await.0);
            }
            statuses
        }));
        let statuses = answers.await.concat();
        let (answered, refused) = (count(&statuses, 200), count(&statuses, 503));
        assert!(answered > 0 && answered + refused == 20, "{statuses:?}");
        overflown += refused;
        if overflown > 0 {
            break;
        }
    }
    let counters = mesh.proxy.counters();
    assert_eq!(counters.flag(Flag::UpstreamOverflow), overflown as u64);
    assert_eq!(counters.upstream_reuses, 0, "a connection for each request");
}

fn count(statuses: &[u16], wanted: u16) -> usize {
    statuses.iter().filter(|status| **status == wanted).count()
}

#[tokio::test]
async fn more_requests_than_may_be_under_way_are_refused_and_not_repeated() {
    let retries = "http: [{retries: {attempts: 3, retryOn: '5xx,reset'}, \
                   route: [{destination: {host: b, subset: all}}]}]";
    routed_at_each_level("connectionPool: {http: {http2MaxRequests: 2}}", &rules(retries), async |rule| {
        let origin = gated().await;
        let mesh = Mesh::ruled(&[("b", &[origin.address])], &rule);
        let refused = async {
            eventually("both are under way", || origin.under_way.load(SeqCst) == 2).await;
            let refused = get(&mesh).await;
            origin.gate.add_permits(3);
            refused
        };
        let (one, two, refused) = tokio::join!(get(&mesh), get(&mesh), refused);
        assert_eq!((one, two, refused), (OK, OK, OVERFLOW));
        assert_eq!(mesh.proxy.counters().retries, 0);
        // Both places are free again.
        eventually("both are over", || mesh.proxy.counters().connections_active == 0).await;
        assert_eq!(get(&mesh).await, OK);
    })
    .await;
}

#[tokio::test]
async fn connections_are_shared_by_all_workers_and_idle_ones_make_room() {
    let origin = gated().await;
    origin.gate.add_permits(1_000);
    let mesh = Mesh::ruled(&[("b", &[origin.address])], &pool("tcp: {maxConnections: 1}"));
    // Whichever worker has the one connection, idle: every other gets there.
    for _ in 0..20 {
        assert_eq!(get(&mesh).await, OK);
    }
    let many = join_all((0..30).map(|_| get(&mesh))).await;
    assert!(many.iter().all(|answer| *answer == OK), "they wait for each other: {many:?}");
    assert_eq!(origin.most.load(SeqCst), 1);
}

/// An origin that answers on its connections for ever, and how many it has had.
async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let address = serve(move |mut stream, _| {
        counter.fetch_add(1, SeqCst);
        async move {
            while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    (address, connections)
}

#[tokio::test]
async fn a_connection_serves_so_many_requests_and_lasts_so_long() {
    at_each_level("connectionPool: {http: {maxRequestsPerConnection: 2}}", async |rule| {
        let (address, connections) = counting().await;
        let mesh = Mesh::ruled(&[("b", &[address])], &rule);
        let mut client = mesh.client().await;
        for n in 0..6 {
            assert_eq!(client.get("/").await.0, 200);
            assert_eq!(connections.load(SeqCst), n / 2 + 1);
        }
    })
    .await;
    at_each_level("connectionPool: {tcp: {maxConnectionDuration: 200ms}}", async |rule| {
        let (address, connections) = counting().await;
        let mesh = Mesh::ruled(&[("b", &[address])], &rule);
        let (mut client, started) = (mesh.client().await, Instant::now());
        for n in 0..20 {
            assert_eq!(client.get("/").await.0, 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(connections.load(SeqCst) <= n + 1);
        }
        // One more than as often as it takes, however long these requests took.
        let (had, lasted) = (connections.load(SeqCst), started.elapsed());
        assert!((2..=1 + lasted.as_millis() as usize / 200).contains(&had), "{had} in {lasted:?}");
    })
    .await;
    // What idles for too long goes, and what is within its time stays.
    for (idle, left) in [("100ms", 0), ("1h", 1)] {
        at_each_level(&format!("connectionPool: {{http: {{idleTimeout: {idle}}}}}"), async |rule| {
            let (address, connections) = counting().await;
            let sweep = Duration::from_millis(50);
            let limits = Limits { sweep, idle_upstream: Duration::from_millis(100), ..Limits::default() };
            let mesh = Mesh::ruled_within(limits, &[("b", &[address])], &rule);
            assert_eq!(mesh.client().await.get("/").await.0, 200);
            tokio::time::sleep(Duration::from_millis(400)).await;
            eventually("the gauge is written", || mesh.proxy.counters().upstream_idle == left).await;
            assert_eq!(connections.load(SeqCst), 1);
        })
        .await;
    }
}

/// An origin that sends back what it gets.
async fn echo() -> SocketAddr {
    serve(|mut stream, _| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

async fn echoes(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    stream.write_all(b"ping").await.is_ok() && soon(stream.read_exact(&mut answer)).await.is_ok() && answer == *b"ping"
}

#[tokio::test]
async fn a_connection_too_many_is_refused_at_once() {
    let mut mesh = Mesh::ruled_on("tcp", &[("b", &[echo().await])], &pool("tcp: {maxConnections: 2}"));
    let mut two = (mesh.connect().await, mesh.connect().await);
    assert!(echoes(&mut two.0).await && echoes(&mut two.1).await);
    for _ in 0..5 {
        let started = Instant::now();
        // The reset may come before the client knows that it is connected.
        if let Ok(mut stream) = TcpStream::connect(mesh.address).await {
            assert!(!echoes(&mut stream).await);
        }
        assert!(started.elapsed() < Duration::from_secs(1));
        let line = soon(mesh.log.recv()).await.unwrap();
        assert!(line.contains(" UO ") && line.contains("outbound|80||b.default.svc.cluster.local"), "{line}");
    }
    assert!(echoes(&mut two.0).await && echoes(&mut two.1).await, "the others are not disturbed");
    drop(two.0);
    soon(mesh.log.recv()).await.unwrap();
    let mut third = mesh.connect().await;
    assert!(echoes(&mut third).await, "there is room again");
}

#[tokio::test]
async fn a_tcp_connection_ends_when_it_idles_or_has_lasted_long_enough() {
    at_each_level("connectionPool: {tcp: {idleTimeout: 1s}}", async |rule| {
        let mut mesh = Mesh::ruled_on("tcp", &[("b", &[echo().await])], &rule);
        let (mut stream, started) = (mesh.connect().await, Instant::now());
        while started.elapsed() < Duration::from_millis(1_500) {
            assert!(echoes(&mut stream).await, "as long as something moves");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(soon(stream.read(&mut [0])).await.unwrap_or(0), 0);
        assert!(soon(mesh.log.recv()).await.unwrap().contains(" 0 - "), "an idle one ends well");
    })
    .await;
    at_each_level("connectionPool: {tcp: {maxConnectionDuration: 300ms}}", async |rule| {
        let mut mesh = Mesh::ruled_on("tcp", &[("b", &[echo().await])], &rule);
        let (started, mut stream) = (Instant::now(), mesh.connect().await);
        while echoes(&mut stream).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let lasted = started.elapsed();
        assert!((Duration::from_millis(250)..Duration::from_secs(5)).contains(&lasted), "{lasted:?}");
        assert!(soon(mesh.log.recv()).await.unwrap().contains(" DT "));
    })
    .await;
}

/// The keepalive timer of the sockets that lead to a port, in seconds, as the kernel tells it.
fn keepalive_timers(port: u16) -> Vec<f64> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let mut timers = Vec::new();
    for row in rows {
        let Some((kind, left)) = row[5].split_once(':') else { continue };
        if row[2].ends_with(&format!(":{port:04X}")) && row[3] == "01" && kind == "02" {
            // In hundredths of a second.
            timers.push(f64::from(u32::from_str_radix(left, 16).unwrap()) / 100.0);
        }
    }
    timers
}

#[tokio::test]
async fn connections_are_probed_as_the_rule_says() {
    for (tcp, most) in
        [("{connectTimeout: 1s}", None), ("{tcpKeepalive: {time: 100s, interval: 5s, probes: 3}}", Some(100.0))]
    {
        at_each_level(&format!("connectionPool: {{tcp: {tcp}}}"), async |rule| {
            let address = echo().await;
            let mesh = Mesh::ruled_on("tcp", &[("b", &[address])], &rule);
            let mut stream = mesh.connect().await;
            assert!(echoes(&mut stream).await);
            let timers = keepalive_timers(address.port());
            match most {
                None => assert_eq!(timers, [0.0; 0]),
                Some(most) => {
                    assert!(timers.iter().all(|left| (most - 30.0..=most).contains(left)) && timers.len() == 1);
                }
            }
            drop(stream);
            eventually("it is closed", || mesh.proxy.counters().connections_active == 0).await;
        })
        .await;
    }
}

#[tokio::test]
async fn who_looks_sees_what_is_under_way_and_its_limits() {
    let Gated { address, under_way, gate, .. } = gated().await;
    let rule = pool("tcp: {maxConnections: 5}, http: {http2MaxRequests: 3}");
    let mesh = Mesh::ruled(&[("b", &[address])], &rule);
    let plain = mesh.programs.load().ports[0].plain;
    let looked = || mesh.proxy.inspect().cluster(plain).in_use;
    let counts = |name: &str| {
        let found = looked().into_iter().find(|(of, _)| *of == name);
        found.map(|(_, count)| (count.active, count.limit))
    };
    let asked = join_all((0..2).map(|_| get(&mesh)));
    let seen = async {
        eventually("both are under way", || under_way.load(SeqCst) == 2).await;
        let seen = ["maxConnections", "http2MaxRequests", "maxRetries"].map(counts);
        gate.add_permits(2);
        seen
    };
    let (answers, seen) = tokio::join!(asked, seen);
    assert_eq!(answers, [OK, OK]);
    assert_eq!(seen, [Some((2, Some(5))), Some((2, Some(3))), Some((0, None))]);
    eventually("they are over", || counts("http2MaxRequests") == Some((0, Some(3)))).await;
}
