//! Bytes that are not HTTP, and finding out that they are not.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_mesh::program::Protocol;

use super::harness::{Mesh, Service, eventually, named, nobody, object, serve, soon};
use crate::proxy::{Flag, Limits};

/// Reads to the end, then answers with everything backwards: works only if half-closing does, in both directions.
async fn backwards(mut stream: TcpStream) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all.reverse();
    stream.write_all(&all).await.unwrap();
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251) as u8).collect()
}

async fn exchange(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let (mut read, mut write) = stream.split();
    let ((), read) = tokio::join!(
        async {
            write.write_all(bytes).await.unwrap();
            write.shutdown().await.unwrap();
        },
        soon(read.read_to_end(&mut answer))
    );
    read.unwrap();
    answer
}

#[tokio::test]
async fn bytes_arrive_exactly_and_half_closes_pass() {
    let address = serve(|stream, _| backwards(stream)).await;
    for protocol in [Protocol::Tcp, Protocol::Tls, Protocol::Http2, Protocol::Detect] {
        let mesh = Mesh::new(Service::new(protocol, vec![address]));
        for len in [0, 1, 8192, 8193, 3_000_000] {
            let sent = pattern(len);
            let mut got = exchange(mesh.connect().await, &sent).await;
            got.reverse();
            assert!(got == sent, "{protocol:?}, {len} bytes");
        }
        // The flag is written last.
        eventually("counted", || mesh.proxy.counters().flag(Flag::None) == 5).await;
        let counters = mesh.proxy.counters();
        assert_eq!(counters.tcp_connections, 5);
        assert_eq!((counters.bytes_received, counters.bytes_sent), (3_016_386, 3_016_386));
        assert_eq!(counters.tcp_spliced, 2, "both directions of the long one");
    }
}

#[tokio::test]
async fn a_server_that_closes_first_still_hears_the_client() {
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let address = serve(move |mut stream, _| {
        let heard = heard.clone();
        async move {
            stream.write_all(b"bye").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            heard.send(all).unwrap();
        }
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Tcp, vec![address]));
    let mut stream = mesh.connect().await;
    let mut got = Vec::new();
    soon(stream.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"bye");
    stream.write_all(b"wait, one more").await.unwrap();
    drop(stream);
    assert_eq!(soon(hears.recv()).await.unwrap(), b"wait, one more");
}

#[tokio::test]
async fn a_reset_arrives_as_a_reset_at_either_side() {
    let (seen, mut sees) = tokio::sync::mpsc::unbounded_channel();
    let address = serve(move |mut stream, n| {
        let seen = seen.clone();
        async move {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            if n == 0 {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            } else {
                seen.send(stream.read(&mut byte).await.unwrap_err().kind()).unwrap();
            }
        }
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Tcp, vec![address]));
    let mut by_server = mesh.connect().await;
    by_server.write_all(b"x").await.unwrap();
    let error = soon(by_server.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let mut by_client = mesh.connect().await;
    by_client.write_all(b"x").await.unwrap();
    eventually("both are through", || mesh.proxy.counters().bytes_received == 2).await;
    SockRef::from(&by_client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(by_client);
    assert_eq!(soon(sees.recv()).await.unwrap(), std::io::ErrorKind::ConnectionReset);
    eventually("counted", || mesh.proxy.counters().flag(Flag::DownstreamClosed) == 1).await;
    eventually("the first too", || mesh.proxy.counters().flag(Flag::UpstreamClosed) == 1).await;
}

#[tokio::test]
async fn nowhere_to_go_is_a_reset() {
    for (endpoints, flag) in [(vec![], Flag::NoHealthyUpstream), (vec![nobody()], Flag::UpstreamFailure)] {
        let mesh = Mesh::new(Service::new(Protocol::Tcp, endpoints));
        // The reset may come before the client has seen that it is connected.
        let read = async { TcpStream::connect(mesh.address).await?.read(&mut [0]).await };
        assert_eq!(soon(read).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        eventually("counted", || mesh.proxy.counters().flag(flag) == 1).await;
    }
}

#[tokio::test]
async fn a_destination_that_nobody_describes_is_passed_through_and_an_unknown_one_closed() {
    let address = serve(|stream, _| backwards(stream)).await;
    let mesh = Mesh::with(Service::new(Protocol::Http, vec![]), Limits::default(), Some(address));
    assert_eq!(exchange(mesh.connect().await, b"abc").await, b"cba");

    let mesh = Mesh::with(Service::new(Protocol::Http, vec![address]), Limits::default(), None);
    let mut stream = mesh.connect().await;
    assert!(matches!(soon(stream.read(&mut [0])).await, Ok(0) | Err(_)));
    assert_eq!(mesh.proxy.counters().unknown_destinations, 1);
    assert_eq!(mesh.proxy.counters().upstream_connects, 0);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let address = serve(|mut stream, _| async move {
        stream.write_all(b"220 hello\r\n").await.unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).await.unwrap();
        stream.write_all(&line).await.unwrap();
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Detect, vec![address]));
    let mut stream = mesh.connect().await;
    let mut greeting = [0; 11];
    soon(stream.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"220 hello\r\n");
    stream.write_all(b"QUIT\r\n").await.unwrap();
    let mut echo = Vec::new();
    soon(stream.read_to_end(&mut echo)).await.unwrap();
    assert_eq!(echo, b"QUIT\r\n");
}

#[tokio::test]
async fn http_is_detected_in_pieces_and_after_a_silence() {
    let mut service = Service::new(Protocol::Detect, vec![named("plain").await]);
    service.rules = vec![("/", vec![(1, Some(vec![named("routed").await]))])];
    let mesh = Mesh::new(service);
    for (first, between) in [(0, 0), (0, 1), (250, 0)] {
        let mut stream = mesh.connect().await;
        stream.set_nodelay(true).unwrap();
        tokio::time::sleep(Duration::from_millis(first)).await;
        for byte in b"GET /x HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n" {
            stream.write_all(&[*byte]).await.unwrap();
            if between > 0 {
                tokio::time::sleep(Duration::from_millis(between)).await;
            }
        }
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.ends_with("routed"), "{answer}");
    }
    assert_eq!(mesh.proxy.counters().requests, 3);
}

#[tokio::test]
async fn half_a_method_and_then_nothing_is_not_http() {
    let address = serve(|stream, _| backwards(stream)).await;
    let limits = Limits { detect_stall: Duration::from_millis(50), ..Limits::default() };
    let mesh = Mesh::with(Service::new(Protocol::Detect, vec![address]), limits, Some(super::harness::VIP));
    let mut stream = mesh.connect().await;
    stream.write_all(b"GE").await.unwrap();
    eventually("the bytes go on", || mesh.proxy.counters().bytes_received == 2).await;
    assert_eq!(exchange(stream, b"T").await, b"TEG");
}

/// A ClientHello for this name, in records of at most this many bytes.
fn client_hello(name: &str, record: usize) -> Vec<u8> {
    let roots = rustls::RootCertStore::empty();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.enable_sni = !name.is_empty();
    config.max_fragment_size = Some(record);
    let host = if name.is_empty() { "nobody.example" } else { name };
    let mut client = rustls::ClientConnection::new(config.into(), host.to_owned().try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut hello).unwrap();
    }
    hello
}

#[tokio::test]
async fn tls_goes_where_the_rule_for_its_name_says() {
    async fn says(name: &'static str) -> std::net::SocketAddr {
        serve(move |mut stream, _| async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            stream.write_all(format!("{name} {}", all.len()).as_bytes()).await.unwrap();
        })
        .await
    }
    let services: [(&str, &[_]); 3] = [("b", &[says("b").await]), ("c", &[says("c").await]), ("d", &[says("d").await])];
    let rules = object(
        "VirtualService",
        "hosts: [b, c.example.com, '*.d.example.com'], tls: [
          {match: [{sniHosts: [c.example.com]}], route: [{destination: {host: c}}]},
          {match: [{sniHosts: ['*.d.example.com'], port: 80}], route: [{destination: {host: d}}]}]",
    );
    for port in ["tls", "unnamed"] {
        let mut mesh = Mesh::ruled_on(port, &services, &rules);
        for (name, to, record) in [
            ("c.example.com", "c", 16_384),
            ("C.example.com", "c", 64),
            ("x.d.example.com", "d", 64),
            ("d.example.com", "b", 64),
            ("other.example.com", "b", 16_384),
            ("", "b", 64),
        ] {
            let hello = client_hello(name, record);
            let mut stream = mesh.connect().await;
            for piece in hello.chunks(100) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            soon(stream.read_to_string(&mut answer)).await.unwrap();
            assert_eq!(answer, format!("{to} {}", hello.len()), "{port}: {name:?}");
            let line = soon(mesh.log.recv()).await.unwrap();
            let shown = if name.is_empty() { "-" } else { name };
            assert!(line.to_lowercase().contains(&format!(" {} -\n", shown.to_lowercase())), "{line}");
            assert!(line.contains(&format!("outbound|80||{to}.default")), "{line}");
        }
    }
}
