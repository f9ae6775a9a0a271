//! Outlier detection: who is left out, for how long, and what does not count.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::http::Response;
use bytes::Bytes;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_mesh::outlier::Outcome;
use weir_mesh::program::{Cluster, ClusterPolicy, Origin, Program};

use super::harness::{Mesh, at_each_level, compiled, eventually, named, nobody, object, origin, rules, serve, soon};
use crate::proxy::upstream::hosts::{ClusterState, Registry};
use crate::proxy::worker::monotonic;
use crate::proxy::{Ejections, Flag, TlsFiles};

/// An origin that always answers with this status, and how often it was asked.
async fn failing(status: u16) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let address = origin(move |_| {
        counter.fetch_add(1, SeqCst);
        async move { Response::builder().status(status).body(Full::<Bytes>::default()).unwrap() }
    })
    .await;
    (address, asked)
}

/// A policy that goes by turns, with this outlier detection.
fn by_turns(spec: &str) -> String {
    format!("loadBalancer: {{simple: ROUND_ROBIN}}, outlierDetection: {{{spec}}}")
}

/// The same as a rule for `b`.
fn detection(spec: &str) -> String {
    object("DestinationRule", &format!("host: b, trafficPolicy: {{{}}}", by_turns(spec)))
}

#[tokio::test]
async fn a_failing_pod_is_ejected_after_seven_errors_and_comes_back_after_its_time_which_grows() {
    let (bad, asked) = failing(500).await;
    let good = named("good").await;
    let rule = detection("consecutive5xxErrors: 7, interval: 5m, baseEjectionTime: 1s");
    let mesh = Mesh::ruled(&[("b", &[bad, good])], &rule);
    // Two connections, so that both workers are likely to count.
    let mut clients = [mesh.client().await, mesh.client().await];
    for round in 1..=2_u32 {
        let (mut requests, mut before) = (0, Instant::now());
        while asked.load(SeqCst) < 7 * round as usize {
            requests += 1;
            assert!(requests < 100, "round {round}: it is back, and gets its turns");
            before = Instant::now();
            clients[requests % 2].get("/").await;
        }
        let after = Instant::now();
        eventually("it is ejected", || mesh.proxy.counters().ejections == u64::from(round)).await;
        // A second for the first round, two for the next.
        let out_for = Duration::from_secs(round.into());
        while before.elapsed() < out_for.checked_sub(Duration::from_millis(200)).unwrap() {
            for client in &mut clients {
                let is_good = client.get("/").await == (200, "good".into());
                // What was asked in time may be answered later.
                assert!(is_good || before.elapsed() >= out_for, "round {round}: after {:?}", before.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(asked.load(SeqCst) == 7 * round as usize || before.elapsed() >= out_for, "round {round}");
        tokio::time::sleep_until((after + out_for).into()).await;
        mesh.ticks().await;
    }
}

#[tokio::test]
async fn when_all_are_ejected_nobody_answers_and_with_too_few_left_all_do() {
    for (min_health, answered) in [(0, false), (60, true)] {
        let policy = by_turns(&format!(
            "consecutive5xxErrors: 1, baseEjectionTime: 1h, maxEjectionPercent: 100, minHealthPercent: {min_health}"
        ));
        at_each_level(&policy, async |rule| {
            let ((one, first), (two, second)) = (failing(503).await, failing(503).await);
            let mut mesh = Mesh::ruled(&[("b", &[one, two])], &rule);
            let mut client = mesh.client().await;
            for _ in 0..2 {
                assert_eq!(client.get("/").await, (503, String::new()));
                soon(mesh.log.recv()).await.unwrap();
            }
            assert_eq!((first.load(SeqCst), second.load(SeqCst)), (1, 1), "each by its turn");
            eventually("both are ejected", || mesh.proxy.counters().ejections == 2).await;
            let text = client.get("/").await.1;
            let line = soon(mesh.log.recv()).await.unwrap();
            assert_eq!(text.is_empty(), answered, "{text}");
            assert_eq!(line.contains(" 503 UH no_healthy_upstream "), !answered, "{line}");
        })
        .await;
    }
}

#[tokio::test]
async fn one_is_always_ejected_and_no_more_than_the_percentage() {
    let (good, mut pods, mut counts) = (named("good").await, Vec::new(), Vec::new());
    for _ in 0..3 {
        let (bad, asked) = failing(502).await;
        pods.push(bad);
        counts.push(asked);
    }
    pods.push(good);
    let mesh = Mesh::ruled(&[("b", &pods)], &detection("consecutive5xxErrors: 2, baseEjectionTime: 1h"));
    let mut client = mesh.client().await;
    for _ in 0..40 {
        client.get("/").await;
    }
    assert_eq!(mesh.proxy.counters().ejections, 1, "10 % of four would be none");
    let asked: Vec<usize> = counts.iter().map(|asked| asked.load(SeqCst)).collect();
    assert_eq!(asked.iter().filter(|asked| **asked == 2).count(), 1, "{asked:?}");
}

/// An origin that takes requests and never answers, and how many it took.
async fn silent() -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let address = serve(move |mut stream, _| {
        let counter = Arc::clone(&counter);
        async move {
            let _ = stream.read(&mut [0; 1024]).await;
            counter.fetch_add(1, SeqCst);
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    (address, asked)
}

#[tokio::test]
async fn clients_that_give_up_do_not_count_and_timeouts_do() {
    let ((one, first), (two, second)) = (silent().await, silent().await);
    let detection = detection("consecutive5xxErrors: 3, baseEjectionTime: 1h");
    let patient = rules("http: [{route: [{destination: {host: b}}]}]");
    let mesh = Mesh::ruled(&[("b", &[one, two])], &format!("{detection}{patient}"));
    for n in 1..=10 {
        let mut stream = mesh.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n").await.unwrap();
        eventually("it is under way", || first.load(SeqCst) + second.load(SeqCst) == n).await;
        drop(stream);
        eventually("it was given up", || mesh.proxy.counters().flag(Flag::DownstreamClosed) == n as u64).await;
    }
    // One that breaks off in the middle of its body.
    for n in 11..=20 {
        let mut stream = mesh.connect().await;
        stream.write_all(b"POST / HTTP/1.1\r\nhost: b\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
        eventually("it is under way", || first.load(SeqCst) + second.load(SeqCst) == n).await;
        drop(stream);
    }
    eventually("all are over", || mesh.proxy.counters().connections_active == 0).await;
    assert_eq!(mesh.proxy.counters().ejections, 0);
    for limit in ["timeout: 50ms", "retries: {attempts: 1, perTryTimeout: 50ms, retryOn: connect-failure}"] {
        let hasty = rules(&format!("http: [{{{limit}, route: [{{destination: {{host: b}}}}]}}]"));
        let mesh = Mesh::ruled(&[("b", &[one, two])], &format!("{detection}{hasty}"));
        let mut client = mesh.client().await;
        for _ in 0..8 {
            assert_eq!(client.get("/").await.0, 504);
        }
        assert_eq!(mesh.proxy.counters().ejections, 1, "{limit}: one of two");
    }
}

#[tokio::test]
async fn connects_that_fail_are_counted_apart_where_that_is_asked_for() {
    let alive = serve(|mut stream, _| async move {
        let _ = stream.write_all(b"alive").await;
    })
    .await;
    let split = "splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2, consecutive5xxErrors: 1";
    for (detection, failures) in [(split, 2), ("consecutive5xxErrors: 3", 3)] {
        at_each_level(&by_turns(detection), async |rule| {
            let mesh = Mesh::ruled_on("tcp", &[("b", &[nobody(), alive])], &rule);
            for _ in 0..20 {
                let mut said = String::new();
                soon(mesh.connect().await.read_to_string(&mut said)).await.unwrap();
                assert_eq!(said, "alive");
            }
            let counters = mesh.proxy.counters();
            assert_eq!((counters.upstream_connect_failures, counters.ejections), (failures, 1), "{detection}");
        })
        .await;
    }
}

/// A table that outlives a proxy.
#[derive(Debug, Default)]
struct Table(Mutex<Vec<(SocketAddr, u64, u32)>>);

impl Ejections for Table {
    fn ejected(&self, endpoint: SocketAddr, until_ns: u64, times: u32) {
        self.0.lock().unwrap().push((endpoint, until_ns, times));
    }

    fn restored(&self, endpoint: SocketAddr) {
        self.0.lock().unwrap().retain(|(other, ..)| *other != endpoint);
    }

    fn known(&self) -> Vec<(SocketAddr, u64, u32)> {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn an_ejection_is_told_once_and_holds_for_the_next_proxy() {
    let (bad, asked) = failing(500).await;
    let good = named("good").await;
    let rule = detection("consecutive5xxErrors: 1, interval: 5m, baseEjectionTime: 1m");
    let table = Arc::new(Table::default());
    for _ in 0..2 {
        let mesh = Mesh::among(Arc::clone(&table) as Arc<dyn Ejections>, &[("b", &[bad, good])], &rule);
        let mut client = mesh.client().await;
        for _ in 0..10 {
            client.get("/").await;
        }
        assert_eq!(asked.load(SeqCst), 1, "once, by the first proxy");
        let (looked, plain) = (mesh.proxy.inspect(), mesh.programs.load().ports[0].plain);
        let out: Vec<_> = looked.cluster(plain).ejected.into_iter().collect();
        let &[(endpoint, out)] = &*out else { panic!("{out:?}") };
        assert!(endpoint == bad && out.times == 1 && (30..=60).contains(&out.left.as_secs()), "{out:?}");
    }
    let told = table.known();
    let &[(endpoint, until, times)] = &*told else { panic!("{told:?}") };
    let left = Duration::from_nanos(until - monotonic());
    assert!(endpoint == bad && times == 1 && (30..=60).contains(&left.as_secs()), "{told:?} {left:?}");
}

const ENDPOINTS: [SocketAddr; 2] = [
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2)), 80),
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3)), 80),
];
const ERROR: Outcome = Outcome::Status(500);

/// The cluster of `b` as rules of this namespace judge it, for everybody or for themselves.
fn judged(program: &Program, registry: &mut Registry, by: &str, shared: bool) -> ClusterState {
    let found = program.clusters.iter().find(|cluster| cluster.policy.outlier_detection.is_some()).unwrap();
    assert!(found.shares_ejections, "the rule is in the service's namespace");
    let mut policy = ClusterPolicy::clone(&found.policy);
    let block = policy.outlier_detection.as_mut().unwrap();
    let mut origin = Origin::clone(&block.origin);
    origin.object.namespace = by.into();
    block.origin = Arc::new(origin);
    let cluster = Cluster { policy: Arc::new(policy), shares_ejections: shared, ..Cluster::clone(found) };
    ClusterState::new(Arc::new(cluster), Arc::clone(&program.clients), None, registry, monotonic())
}

fn once_is_enough() -> Program {
    let rule = detection("consecutive5xxErrors: 1, baseEjectionTime: 1h, maxEjectionPercent: 100");
    compiled(&[("b", &ENDPOINTS)], "http", &rule)
}

#[test]
fn what_a_tenants_rules_eject_is_ejected_for_those_rules_alone() {
    let (program, table) = (once_is_enough(), Arc::new(Table::default()));
    let mut registry = Registry::new(TlsFiles::Any, Some(Arc::clone(&table) as Arc<dyn Ejections>));
    let own = judged(&program, &mut registry, "default", true);
    let [tenant, same] = [(); 2].map(|()| judged(&program, &mut registry, "mallory", false));
    let other = judged(&program, &mut registry, "other", false);
    assert!(ENDPOINTS.iter().all(|endpoint| tenant.record(*endpoint, ERROR)));
    assert!(!same.record(ENDPOINTS[0], ERROR), "ejected already, by a rule of the same namespace");
    assert_eq!(table.known(), [], "it holds for nobody else");
    assert!(other.record(ENDPOINTS[0], ERROR) && own.record(ENDPOINTS[0], ERROR), "in use until now");
    let told: Vec<SocketAddr> = table.known().iter().map(|(endpoint, ..)| *endpoint).collect();
    assert_eq!(told, ENDPOINTS[..1]);
}

#[test]
fn what_comes_back_at_the_same_address_is_another_one() {
    let (program, table) = (once_is_enough(), Arc::new(Table::default()));
    let until = monotonic() + Duration::from_mins(5).as_nanos() as u64;
    table.ejected(ENDPOINTS[0], until, 5);
    let mut registry = Registry::new(TlsFiles::Any, Some(Arc::clone(&table) as Arc<dyn Ejections>));
    // A publication without it is the start.
    registry.forget(monotonic());
    let tenant = judged(&program, &mut registry, "mallory", false);
    assert!(tenant.record(ENDPOINTS[0], ERROR), "what held for everybody is none of its");
    let own = judged(&program, &mut registry, "default", true);
    assert!(!own.record(ENDPOINTS[0], ERROR), "ejected before this process");
    registry.forget(monotonic());
    assert_eq!(table.known(), [(ENDPOINTS[0], until, 5)], "still there");
    registry.leave(&own);
    drop(own);
    registry.forget(monotonic());
    assert_eq!(table.known(), [], "all others are told");
    let own = judged(&program, &mut registry, "default", true);
    assert!(own.record(ENDPOINTS[0], ERROR), "a new one");
    assert_eq!(table.known().iter().map(|(.., times)| *times).collect::<Vec<_>>(), [1]);
}
