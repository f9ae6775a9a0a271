//! Requests: routing, errors, bodies, header hygiene, upgrades.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use weir_mesh::program::Protocol;

use super::harness::{Mesh, Service, VIP, eventually, named, nobody, origin, serve, soon};
use crate::proxy::{Flag, Limits};

#[tokio::test]
async fn ninety_ten_is_ninety_ten() {
    let (v1, v2) = (named("v1").await, named("v2").await);
    let mut service = Service::new(Protocol::Http, vec![v1]);
    service.rules = vec![("/", vec![(90, Some(vec![v1])), (10, Some(vec![v2]))])];
    let mesh = Mesh::new(service);
    let mut client = mesh.client().await;
    let mut second = 0;
    for _ in 0..2000 {
        let (status, body) = client.get("/").await;
        assert_eq!(status, 200);
        second += u32::from(body == "v2");
    }
    // Five standard deviations: 2,000 fair rolls leave this range once in 1.7 million runs.
    assert!((132..=268).contains(&second), "{second} of 2000");
    let counters = mesh.proxy.counters();
    assert_eq!((counters.requests, counters.classes[2], counters.flag(Flag::None)), (2000, 2000, 2000));
    assert!(counters.upstream_connects <= 4, "{counters:?}");
    assert!(counters.upstream_reuses >= 1996, "{counters:?}");
}

#[tokio::test]
async fn what_leads_nowhere_says_so_with_istios_words() {
    let dead = nobody();
    let mut service = Service::new(Protocol::Http, vec![named("plain").await]);
    service.rules = vec![
        ("/empty", vec![(1, Some(vec![]))]),
        ("/missing", vec![(1, None)]),
        ("/dead", vec![(1, Some(vec![dead]))]),
        ("/half", vec![(1, Some(vec![dead, named("alive").await]))]),
    ];
    let mut mesh = Mesh::new(service);
    let mut client = mesh.client().await;
    let refused = "upstream connect error or disconnect/reset before headers. reset reason: connection failure";
    for (path, status, body, flag) in [
        ("/none", 404, "", "NR"),
        ("/empty", 503, "no healthy upstream", "UH"),
        ("/missing", 503, "", "NC"),
        ("/dead", 503, refused, "UF,URX"),
    ] {
        assert_eq!(client.get(path).await, (status, body.into()), "{path}");
        let line = soon(mesh.log.recv()).await.unwrap();
        assert!(line.contains(&format!("\"GET {path} HTTP/1.1\" {status} {flag} ")), "{line}");
    }
    for _ in 0..10 {
        assert_eq!(client.get("/half").await, (200, "alive".into()));
    }
    let counters = mesh.proxy.counters();
    assert!(counters.retries >= 4, "{counters:?}");
    assert_eq!(counters.flag(Flag::UpstreamFailure), 1);
}

#[tokio::test]
async fn an_unknown_host_goes_to_the_plain_service_and_the_log_names_it() {
    let plain = named("plain").await;
    let mut service = Service::new(Protocol::Http, vec![plain]);
    service.rules = vec![("/", vec![(1, None)])];
    let mut mesh = Mesh::new(service);
    let answer = mesh.raw(b"GET /x HTTP/1.1\r\nhost: other\r\nuser-agent: t\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("plain"), "{answer}");
    let line = soon(mesh.log.recv()).await.unwrap();
    let rest = line.split_once("\"GET").unwrap().1;
    assert!(rest.starts_with(" /x HTTP/1.1\" 200 - via_upstream - \"-\" 0 5 "), "{line}");
    let cluster = "\"-\" \"t\" \"-\" \"other\" ";
    assert!(
        rest.contains(&format!("{cluster}\"{plain}\" outbound|80||b.default.svc.cluster.local - {VIP} ")),
        "{line}"
    );
    // HTTP/1.0 needs no Host.
    let answer = mesh.raw(b"GET /x HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("plain"), "{answer}");
}

#[tokio::test]
async fn idle_connections_that_the_origin_closes_at_any_moment_fail_no_request() {
    // Closes after 1 to 4 answers without saying so: just after the answer, a moment later, or when the next request
    // has come.
    let address = serve(|stream, n| async move {
        let mut stream = BufReader::new(stream);
        for left in (0..=n % 4).rev() {
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
                    return;
                }
            }
            if left == 0 && n % 3 == 0 && n % 4 > 0 {
                return;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
        if n % 3 == 1 {
            tokio::time::sleep(std::time::Duration::from_micros(n as u64 * 7 % 300)).await;
        }
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![address]));
    let mut client = mesh.client().await;
    for n in 0..2000 {
        assert_eq!(client.get("/").await, (200, "ok".into()), "request {n}");
    }
    let counters = mesh.proxy.counters();
    assert_eq!(counters.flag(Flag::None), 2000);
    assert!(counters.retries > 20, "the race must have been run: {counters:?}");
}

#[tokio::test]
async fn a_request_with_a_body_is_not_sent_twice() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let address = serve(move |mut stream, _| {
        let seen = Arc::clone(&counter);
        async move {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            if stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![address]));
    let mut client = mesh.client().await;
    assert_eq!(client.get("/").await.0, 200);
    let post = Request::post("/").header("host", "b").body(Full::from("pay")).unwrap();
    assert_eq!(client.send(post).await.status(), 503);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    assert_eq!(mesh.proxy.counters().flag(Flag::UpstreamClosed), 1);
}

/// A small generator with a fixed seed: the same bodies in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes()).flatten().take(len).collect()
    }
}

#[tokio::test]
async fn random_bodies_come_back_byte_for_byte() {
    let address = origin(|request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Full::from(body))
    })
    .await;
    // Answers in chunks what came in chunks, as hyper does for a body without a known length.
    let chunked = serve(|mut stream, _| async move {
        let (mut read, mut write) = stream.split();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut buffer = Vec::new();
        let start = loop {
            if read.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
            if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
        };
        assert!(String::from_utf8_lossy(&buffer[..start]).contains("transfer-encoding: chunked"));
        while !buffer.ends_with(b"\r\n0\r\n\r\n") && &buffer[start..] != b"0\r\n\r\n" {
            if read.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let _ = write.write_all(head.as_bytes()).await;
        let _ = write.write_all(&buffer[start..]).await;
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![address]));
    let by_chunks = Mesh::new(Service::new(Protocol::Http, vec![chunked]));
    let mut client = mesh.client().await;
    let mut random = Random(0x5eed);
    for n in 0..200 {
        let len = if n % 20 == 0 { n / 20 } else { (random.next() % (1 << (random.next() % 21))) as usize };
        let body = random.bytes(len);
        let got = if n % 10 == 5 {
            chunked_exchange(&by_chunks, &body).await
        } else {
            let request = Request::post("/").header("host", "b").body(Full::from(body.clone())).unwrap();
            soon(client.send(request).await.into_body().collect()).await.unwrap().to_bytes()
        };
        assert!(got == body, "request {n} of {len} bytes");
    }
    let sum = mesh.proxy.counters();
    assert_eq!(sum.bytes_received, sum.bytes_sent);
}

/// Sends a body as one chunk of a GET, which needs its framing said, and reads the chunks of the answer.
async fn chunked_exchange(mesh: &Mesh, body: &[u8]) -> Bytes {
    let stream = mesh.connect().await;
    let (read, mut write) = stream.into_split();
    let body = body.to_vec();
    let sending = tokio::spawn(async move {
        let head = b"GET / HTTP/1.1\r\nhost: b\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
        write.write_all(head).await.unwrap();
        for part in body.chunks(100_000) {
            write.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await.unwrap();
            write.write_all(part).await.unwrap();
            write.write_all(b"\r\n").await.unwrap();
        }
        write.write_all(b"0\r\n\r\n").await.unwrap();
        write
    });
    let mut read = BufReader::new(read);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        soon(read.read_line(&mut line)).await.unwrap();
    }
    let mut got = Vec::new();
    loop {
        line.clear();
        soon(read.read_line(&mut line)).await.unwrap();
        let len = usize::from_str_radix(line.trim(), 16).expect("a chunk's size");
        if len == 0 {
            break;
        }
        let at = got.len();
        got.resize(at + len + 2, 0);
        soon(read.read_exact(&mut got[at..])).await.unwrap();
        got.truncate(at + len);
    }
    drop(sending.await.unwrap());
    got.into()
}

#[tokio::test]
async fn head_and_bodiless_answers_keep_their_headers_and_the_connection() {
    let address = origin(|request| async move {
        let mut response = Response::new(Full::from("12345"));
        if request.uri().path() == "/304" {
            *response.status_mut() = http::StatusCode::NOT_MODIFIED;
            *response.body_mut() = Full::default();
        }
        response
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![address]));
    let mut client = mesh.client().await;
    for _ in 0..3 {
        let head = client.send(Request::head("/").header("host", "b").body(Full::default()).unwrap()).await;
        assert_eq!(head.headers()["content-length"], "5");
        assert_eq!(client.get("/304").await, (304, String::new()));
        assert_eq!(client.get("/").await, (200, "12345".into()));
    }
    assert_eq!(mesh.proxy.counters().upstream_connects, 1);
}

#[tokio::test]
async fn bad_requests_are_refused_and_end_the_connection() {
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![named("b").await]));
    let many = "x: 1\r\n".repeat(100);
    let large = "x".repeat(62_000);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n".into(), "400"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".into(), "400"),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n".into(), "400"),
        ("POST / HTTP/1.1\r\nhost: b\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx".into(), "400"),
        ("POST / HTTP/1.1\r\nhost: b\r\ntransfer-encoding: gzip\r\n\r\n".into(), "400"),
        (format!("GET / HTTP/1.1\r\nhost: b\r\n{many}\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nhost: b\r\nx: {large}\r\n\r\n"), "431"),
    ] {
        let answer = mesh.raw(request.as_bytes()).await;
        let head: String = request.chars().take(60).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?} got {answer:?}");
    }
    let counters = mesh.proxy.counters();
    assert_eq!((counters.upstream_connects, counters.panics), (0, 0));
}

#[tokio::test]
async fn a_smuggled_length_does_not_reach_the_upstream() {
    let address = origin(|request| async move {
        let framing = ["content-length", "transfer-encoding"].map(|name| request.headers().contains_key(name));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Full::from(format!("{framing:?} {}", String::from_utf8_lossy(&body))))
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![address]));
    let request = b"POST / HTTP/1.1\r\nhost: b\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: b\r\n\r\n";
    let answer = mesh.raw(request).await;
    assert!(answer.ends_with("[false, true] abc"), "{answer}");
    assert_eq!(mesh.proxy.counters().requests, 1);
}

#[tokio::test]
async fn a_client_may_expect_100_continue() {
    let address = origin(|request| async move {
        assert!(!request.headers().contains_key("expect"));
        Response::new(Full::from(request.into_body().collect().await.unwrap().to_bytes()))
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![address]));
    let mut stream = mesh.connect().await;
    let head = b"POST / HTTP/1.1\r\nhost: b\r\nexpect: 100-continue\r\ncontent-length: 3\r\nconnection: close\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut interim = [0; 25];
    soon(stream.read_exact(&mut interim)).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("abc"), "{answer}");
}

#[tokio::test]
async fn upgrades_are_spliced_once_the_upstream_agrees() {
    let address = serve(|mut stream, n| async move {
        let mut buffer = Vec::new();
        while !buffer.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut buffer).await.unwrap();
        }
        let head = String::from_utf8(buffer).unwrap();
        let asked = head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n");
        assert_eq!(asked, n == 0, "{head}");
        let response = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello ";
        stream.write_all(response.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![address]));
    let mut stream = mesh.connect().await;
    let head = "GET / HTTP/1.1\r\nhost: b\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello ") {
        assert!(soon(stream.read_buf(&mut answer)).await.unwrap() > 0);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
    let sent = Random(7).bytes(300_000);
    let (mut read, mut write) = stream.split();
    let mut echoed = Vec::new();
    let ((), read) = tokio::join!(
        async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        },
        soon(read.read_to_end(&mut echoed))
    );
    read.unwrap();
    assert!(echoed == sent);
    eventually("the upgraded request is counted", || mesh.proxy.counters().classes[1] == 1).await;
    // An upgrade that the client did not ask for properly is none, and a 101 to it is an error.
    let answer = mesh.raw(b"GET / HTTP/1.1\r\nhost: b\r\nconnection: close\r\nupgrade: websocket\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn a_response_that_breaks_off_breaks_off_for_the_client_too() {
    let address = serve(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![address]));
    let answer = mesh.raw(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n").await;
    assert!(answer.ends_with("half") && answer.contains("content-length: 10"), "{answer}");
    eventually("counted", || mesh.proxy.counters().flag(Flag::UpstreamClosed) == 1).await;
    assert_eq!(mesh.proxy.counters().upstream_idle, 0);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_is_passed_on() {
    let address = serve(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await.unwrap();
        // Reads on for a while, as servers do so that the answer is not lost.
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(std::time::Duration::from_millis(200), stream.read_to_end(&mut rest)).await;
    })
    .await;
    let mesh = Mesh::with(Service::new(Protocol::Http, vec![address]), Limits::default(), Some(VIP));
    let mut stream = mesh.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: b\r\ncontent-length: 1000000\r\n\r\nstart").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"no") {
        assert!(soon(stream.read_buf(&mut answer)).await.unwrap() > 0);
    }
    assert!(answer.starts_with(b"HTTP/1.1 413 "));
    drop(stream);
    eventually("all is closed", || mesh.proxy.counters().connections_active == 0).await;
}

#[tokio::test]
async fn who_dials_a_pod_of_a_headless_service_gets_that_pod() {
    let pods = [named("a").await, named("b").await];
    for dialled in 0..2 {
        for protocol in [Protocol::Http, Protocol::Tcp] {
            let mut service = Service::new(protocol, pods.to_vec());
            service.headless = Some(pods[dialled]);
            service.rules = vec![("/other", vec![(1, Some(vec![named("routed").await]))])];
            let mesh = Mesh::with(service, Limits::default(), Some(pods[dialled]));
            for _ in 0..4 {
                // A host that nobody knows: the plain service.
                let request = Request::get("/").header("host", "10.0.3.1:8080").body(Full::default()).unwrap();
                let body = mesh.client().await.send(request).await.into_body();
                let body = soon(body.collect()).await.unwrap().to_bytes();
                assert_eq!(body, ["a", "b"][dialled], "{protocol:?}");
                // A subset of the service itself.
                assert_eq!(mesh.client().await.get("/other").await.1, ["a", "b"][dialled], "{protocol:?}");
            }
        }
    }
}
