//! Two pods on one worker: what the one asks for does not keep the other waiting. The greedy one is in this network
//! namespace and has an origin there; the other one asks for what a rule answers.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ::http::Response;
use arc_swap::ArcSwap;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore};
use weir_tests::require::skip;

use super::harness::{VIP, compiled, eventually, nobody, origin, rules, soon};
use crate::netns::NetNs;
use crate::proxy::{Flag, Limits, OriginalDestinations, Programs, Proxy, ProxyConfig, SourcePod};

/// Connections of the greedy pod.
const GREED: usize = 256;
/// Requests that each of them writes at once: enough that the proxy is busier than who asks.
const SATURATING: usize = 4;
/// And many of them.
const PIPELINED: usize = 64;
/// Comparisons until one shows it.
const ATTEMPTS: usize = 5;
/// Two comparisons at once, each with its worker on the first CPU, would be each other's other work.
static ALONE: Mutex<()> = Mutex::const_new(());
/// The polite pod asks this often, so many times.
const PAUSE: Duration = Duration::from_millis(10);
const REQUESTS: usize = 100;

const GET: &[u8] = b"GET /own HTTP/1.1\r\nhost: b\r\n\r\n";

struct To;

impl OriginalDestinations for To {
    fn take(&self, _: u64, _: SocketAddr, _: u16) -> Option<SocketAddr> {
        Some(VIP)
    }
}

/// One worker, and two pods.
struct Node {
    proxy: Proxy,
    greedy: SocketAddr,
    polite: SocketAddr,
}

impl Node {
    /// `None`: not enough rights for a second namespace, which is told.
    fn new(test: &str, limits: Limits, endpoint: SocketAddr) -> Option<Self> {
        let other = std::thread::spawn(|| {
            // SAFETY: unshare takes no pointers and changes only this thread, which ends here.
            let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
            unshared.then(|| NetNs::open("/proc/thread-self/ns/net").unwrap())
        });
        let Some(other) = other.join().unwrap() else {
            skip(test, "no right to make a network namespace");
            return None;
        };
        let own = rules(
            "http: [{match: [{uri: {prefix: /own}}], directResponse: {status: 200, body: {string: '~'}}}, \
             {route: [{destination: {host: b}}]}]",
        );
        let program = compiled(&[("b", &[endpoint])], "http", &own);
        let config = ProxyConfig { workers: 1, limits, ..ProxyConfig::default() };
        let proxy = Proxy::start(config, Programs::new(program), Arc::new(To)).unwrap();
        let add = |name: &str, netns: NetNs| {
            let listener = StdListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let identity = ArcSwap::default();
            let pod = SourcePod { name: name.into(), namespace: "default".into(), view: 0.into(), netns, identity };
            proxy.add_pod(&Arc::new(pod), vec![vec![listener]]);
            address
        };
        let greedy = add("default/greedy", NetNs::own().unwrap());
        let polite = add("default/polite", other);
        Some(Self { proxy, greedy, polite })
    }

    /// How long the polite pod's requests take, sorted, while connections of the greedy one write `times`
    /// requests each time that they got as many answers.
    async fn measure(&self, times: usize) -> Vec<Duration> {
        let end = Arc::new(AtomicBool::new(false));
        let mut greedy = Vec::new();
        for _ in 0..GREED {
            let (end, address) = (Arc::clone(&end), self.greedy);
            greedy.push(tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let bytes = GET.repeat(times);
                let mut answers = 0;
                while !end.load(Relaxed) {
                    stream.write_all(&bytes).await.unwrap();
                    for _ in 0..times {
                        answer(&mut stream, &mut answers).await;
                    }
                }
            }));
        }
        let before = self.proxy.counters().requests;
        eventually("the greedy pod is at work", || self.proxy.counters().requests > before + 4 * GREED as u64).await;
        // A thread of its own: what is measured is the proxy, not who waits for a runtime of the test.
        let address = self.polite;
        let took = tokio::task::spawn_blocking(move || polite(address)).await.unwrap();
        end.store(true, Relaxed);
        for task in greedy {
            soon(task).await.unwrap();
        }
        took
    }
}

/// Reads one answer more than were read before: the body of each is `~`, which is nowhere else in it.
async fn answer(stream: &mut TcpStream, ahead: &mut usize) {
    let mut buffer = vec![0; 16 << 10];
    while *ahead == 0 {
        let n = soon(stream.read(&mut buffer)).await.unwrap();
        assert!(n > 0, "the connection lasts");
        *ahead += buffer[..n].split(|byte| *byte == b'~').count() - 1;
    }
    *ahead -= 1;
}

fn polite(address: SocketAddr) -> Vec<Duration> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut took: Vec<_> = (0..REQUESTS)
        .map(|_| {
            std::thread::sleep(PAUSE);
            let start = Instant::now();
            stream.write_all(GET).unwrap();
            let mut buffer = [0; 4096];
            assert!(stream.read(&mut buffer).unwrap() > 0);
            assert!(buffer.starts_with(b"HTTP/1.1 200"));
            start.elapsed()
        })
        .collect();
    took.sort_unstable();
    took
}

/// p50 and p99 without turns, with them, and without once more, in one run.
#[expect(clippy::print_stdout, reason = "the figures are worth reading where the comparison passes")]
async fn compare(test: &str, times: usize) -> Option<[[Duration; 2]; 3]> {
    let mut told = [[Duration::ZERO; 2]; 3];
    for (told, quantum) in told.iter_mut().zip([Duration::ZERO, Limits::default().pod_quantum, Duration::ZERO]) {
        let limits = Limits { pod_quantum: quantum, ..Limits::default() };
        let took = Node::new(test, limits, nobody())?.measure(times).await;
        *told = [took[REQUESTS / 2], took[REQUESTS * 99 / 100 - 1]];
    }
    println!(
        "{GREED} connections, {times} requests at once: without turns {:?}, with them {:?}, without {:?}",
        told[0], told[1], told[2]
    );
    Some(told)
}

/// Turns are worth a factor of 4 and more. Other work on the machine hides it at times; to make it, it would have to come
/// before and after, and not meanwhile.
async fn is_kept_waiting_less(test: &str, times: usize) {
    let _alone = ALONE.lock().await;
    let mut compared = Vec::new();
    for _ in 0..ATTEMPTS {
        let Some([without, with, again]) = compare(test, times).await else { return };
        if with[0] * 2 < without[0].min(again[0]) {
            return;
        }
        compared.push([without, with, again]);
    }
    panic!("p50 and p99 without turns, with them, and without: {compared:?}");
}

#[tokio::test]
async fn a_pod_with_many_busy_connections_keeps_no_other_waiting() {
    is_kept_waiting_less("many busy connections", SATURATING).await;
}

#[tokio::test]
async fn a_pod_that_pipelines_keeps_no_other_waiting() {
    is_kept_waiting_less("pipelining", PIPELINED).await;
}

#[tokio::test]
async fn a_pod_that_has_its_share_of_requests_is_refused_at_once_and_another_is_not() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let endpoint = origin(move |_| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            Response::new(Full::from("~"))
        }
    })
    .await;
    let limits = Limits { max_requests: 30, ..Limits::default() };
    let Some(node) = Node::new("shares of requests", limits, endpoint) else { return };
    let mut waiting = Vec::new();
    for n in 1..=10 {
        let mut stream = TcpStream::connect(node.greedy).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n").await.unwrap();
        waiting.push(stream);
        eventually("it is under way", || node.proxy.counters().requests == n).await;
    }
    let start = Instant::now();
    let mut refused = TcpStream::connect(node.greedy).await.unwrap();
    refused.write_all(b"POST / HTTP/1.1\r\nhost: b\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    let mut text = String::new();
    soon(refused.read_to_string(&mut text)).await.unwrap();
    let took = start.elapsed();
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("x-envoy-overloaded: true\r\n"), "{text}");
    assert!(text.contains("connection: close\r\n"), "nobody reads its body: {text}");
    // Those before it wait for as long as the test wants.
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!((node.proxy.counters().requests_overloaded, node.proxy.counters().flag(Flag::UpstreamOverflow)), (1, 1));
    let address = node.polite;
    let polite = tokio::task::spawn_blocking(move || polite(address)).await.unwrap();
    assert_eq!(polite.len(), REQUESTS, "there is room for others");
    gate.add_permits(waiting.len() + 1);
    for mut stream in waiting {
        answer(&mut stream, &mut 0).await;
    }
    // What has ended has made room.
    let mut again = TcpStream::connect(node.greedy).await.unwrap();
    again.write_all(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    soon(again.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
}
