//! HTTP/2, which goes as a whole to where the rule for everything sends it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_mesh::program::Protocol;

use super::harness::{Mesh, Service, at_each_level, eventually, named, serve, soon};
use crate::proxy::Flag;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A SETTINGS frame with one setting.
const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";

/// A server that sends its settings before it has heard of the client, in two pieces, then says its name.
async fn h2(name: &'static str) -> SocketAddr {
    serve(move |mut stream, _| async move {
        stream.set_nodelay(true).unwrap();
        stream.write_all(&SETTINGS[..5]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(&SETTINGS[5..]).await.unwrap();
        let mut preface = [0; PREFACE.len()];
        if stream.read_exact(&mut preface).await.is_ok() {
            assert_eq!(preface, PREFACE);
            let _ = stream.write_all(name.as_bytes()).await;
        }
    })
    .await
}

async fn routed(protocol: Protocol) -> Mesh {
    let mut service = Service::new(protocol, vec![h2("plain").await]);
    service.http2 = Some(vec![h2("routed").await]);
    Mesh::new(service)
}

async fn name(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(SETTINGS), "{answer:?}");
    String::from_utf8(answer[SETTINGS.len()..].to_vec()).unwrap()
}

#[tokio::test]
async fn declared_or_detected_it_follows_the_rule_for_everything() {
    for protocol in [Protocol::Http2, Protocol::Detect] {
        let mesh = routed(protocol).await;
        for _ in 0..4 {
            let mut stream = mesh.connect().await;
            stream.write_all(PREFACE).await.unwrap();
            assert_eq!(name(stream).await, "routed", "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn what_a_client_speaks_is_what_a_server_hears_where_a_rule_asks_for_it() {
    at_each_level("connectionPool: {http: {useClientProtocol: true}}", async |rule| {
        for port in ["http2", "unnamed"] {
            let mesh = Mesh::ruled_on(port, &[("b", &[h2("of HTTP/2").await])], &rule);
            let mut stream = mesh.connect().await;
            stream.write_all(PREFACE).await.unwrap();
            assert_eq!(name(stream).await, "of HTTP/2", "{port}");
        }
        for port in ["http", "unnamed"] {
            let mesh = Mesh::ruled_on(port, &[("b", &[named("of HTTP/1.1").await])], &rule);
            assert_eq!(mesh.client().await.get("/").await, (200, "of HTTP/1.1".into()), "{port}");
        }
    })
    .await;
}

#[tokio::test]
async fn settings_of_the_server_tell_before_a_client_that_is_late() {
    let mesh = routed(Protocol::Detect).await;
    let mut stream = mesh.connect().await;
    let mut settings = [0; SETTINGS.len()];
    soon(stream.read_exact(&mut settings)).await.unwrap();
    assert_eq!(settings, SETTINGS, "once, though two servers sent theirs");
    stream.write_all(PREFACE).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "routed");
}

#[tokio::test]
async fn without_a_rule_for_everything_it_is_reset() {
    for protocol in [Protocol::Http2, Protocol::Detect] {
        let mut service = Service::new(protocol, vec![h2("plain").await]);
        service.http2 = None;
        let mesh = Mesh::new(service);
        let read = async {
            let mut stream = TcpStream::connect(mesh.address).await?;
            stream.write_all(PREFACE).await?;
            stream.read(&mut [0]).await
        };
        assert_eq!(soon(read).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{protocol:?}");
        eventually("counted", || mesh.proxy.counters().flag(Flag::NoRoute) == 1).await;
        assert_eq!(mesh.proxy.counters().upstream_connects, 0);
    }
}
