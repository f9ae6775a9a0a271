//! The upstream's side of HTTP/1.1: answers as servers really give them, and connections that end when it suits nobody.

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_mesh::program::Protocol;

use super::authority::{Authority, Wanted};
use super::harness::{Mesh, Service, eventually, object, serve, soon};
use crate::proxy::error::Flag;

/// Reads until there is `end` in what came.
async fn until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.windows(end.len()).any(|window| window == end) {
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            break;
        }
    }
    read
}

/// An origin that answers each request of a connection with the same bytes, in pieces of `step`, until it is closed.
async fn saying(text: &'static [u8], step: usize) -> std::net::SocketAddr {
    serve(move |mut stream, _| async move {
        while !until(&mut stream, b"\r\n\r\n").await.is_empty() {
            for piece in text.chunks(step) {
                if stream.write_all(piece).await.is_err() {
                    return;
                }
                if step < text.len() {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn answers_come_through_in_whatever_pieces() {
    for text in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
          HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ] {
        for step in [1, 7, text.len()] {
            let mesh = Mesh::new(Service::new(Protocol::Http, vec![saying(text, step).await]));
            let mut client = mesh.client().await;
            for _ in 0..3 {
                assert_eq!(client.get("/").await, (200, "hello".into()), "{} by {step}", text.escape_ascii());
            }
            let counters = mesh.proxy.counters();
            assert_eq!((counters.upstream_connects, counters.upstream_reuses), (1, 2), "{}", text.escape_ascii());
        }
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_whole_and_the_connection_is_not_used_again() {
    for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\nserver: old\r\n\r\n"] {
        let address = serve(move |mut stream, _| async move {
            until(&mut stream, b"\r\n\r\n").await;
            stream.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..4 {
                stream.write_all(&[b'x'; 5000]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        let mesh = Mesh::new(Service::new(Protocol::Http, vec![address]));
        let mut client = mesh.client().await;
        for _ in 0..2 {
            let (status, body) = client.get("/").await;
            assert_eq!((status, body.len()), (200, 20_000));
        }
        assert_eq!(mesh.proxy.counters().upstream_connects, 2);
    }
}

#[tokio::test]
async fn trailers_of_an_answer_reach_a_client_that_takes_them() {
    let text =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n";
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![saying(text, text.len()).await]));
    let mut client = mesh.client().await;
    let request = Request::get("/").header("host", "b").header("te", "trailers").body(Full::default()).unwrap();
    let body = client.send(request).await.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().map(|trailers| trailers["x-sum"].clone()).unwrap(), "7");
    assert_eq!(body.to_bytes(), "a");
}

#[tokio::test]
async fn what_is_framed_in_two_ways_is_502_and_what_follows_an_answer_is_nobodys() {
    for text in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let mesh = Mesh::new(Service::new(Protocol::Http, vec![saying(text, text.len()).await]));
        assert_eq!(mesh.client().await.get("/").await.0, 502, "{}", text.escape_ascii());
        assert_eq!(mesh.proxy.counters().flag(Flag::UpstreamProtocol), 1);
    }
    // A second answer that nobody asked for must not become that of the next request.
    let text = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![saying(text, text.len()).await]));
    let mut client = mesh.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await, (200, "a".into()));
    }
    assert_eq!(mesh.proxy.counters().upstream_connects, 3);
}

#[tokio::test]
async fn what_an_idle_connection_says_unasked_is_no_answer() {
    let (said, mut says) = tokio::sync::mpsc::unbounded_channel();
    let address = serve(move |mut stream, n| {
        let said = said.clone();
        async move {
            until(&mut stream, b"\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            if n == 0 {
                tokio::time::sleep(Duration::from_millis(30)).await;
                // As servers do that give up waiting.
                let _ = stream
                    .write_all(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .await;
                said.send(()).unwrap();
            }
        }
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![address]));
    let mut client = mesh.client().await;
    assert_eq!(client.get("/").await, (200, "ok".into()));
    soon(says.recv()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.get("/").await, (200, "ok".into()));
}

#[tokio::test]
async fn a_connection_that_was_reset_while_idle_costs_a_request_with_a_body_nothing() {
    let address = serve(|mut stream, n| async move {
        let head = until(&mut stream, b"\r\n\r\n").await;
        if n > 0 {
            // The head may have brought the body along.
            let rest = head.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            let mut body = head[rest..].to_vec();
            while body.len() < 7 && stream.read_buf(&mut body).await.unwrap() > 0 {}
            assert_eq!(body, b"payload");
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        if n == 0 {
            stream.set_zero_linger().unwrap();
        }
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![address]));
    let mut client = mesh.client().await;
    assert_eq!(client.get("/").await, (200, "ok".into()));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let post = Request::post("/").header("host", "b").body(Full::from("payload")).unwrap();
    assert_eq!(client.send(post).await.status(), 200);
}

#[tokio::test]
async fn both_directions_stream_at_the_same_time() {
    // Gives back each piece before the next one comes.
    let address = serve(|mut stream, _| async move {
        until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        for n in 0..3 {
            let piece = until(&mut stream, format!("piece{n}").as_bytes()).await;
            assert!(!piece.is_empty());
            stream.write_all(format!("4\r\ngot{n}\r\n").as_bytes()).await.unwrap();
        }
        until(&mut stream, b"0\r\n\r\n").await;
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        until(&mut stream, b"never").await;
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![address]));
    let mut stream = mesh.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: b\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    until(&mut stream, b"\r\n\r\n").await;
    for n in 0..3 {
        stream.write_all(format!("6\r\npiece{n}\r\n").as_bytes()).await.unwrap();
        until(&mut stream, format!("got{n}").as_bytes()).await;
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    until(&mut stream, b"0\r\n\r\n").await;
    eventually("the connection is kept", || mesh.proxy.counters().upstream_idle == 1).await;
    let sent: u64 = mesh.proxy.counters().bytes_sent;
    assert_eq!(sent, 12);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_is_heard_through_tls() {
    let authority = Authority::new();
    let (address, _) = authority
        .server(
            &authority.issue(Wanted { names: &["b"], expired: false, revoked: false }),
            false,
            |mut stream| async move {
                let _ = stream.read(&mut [0; 1024]).await;
                // By then nothing more is taken, and the proxy waits to write.
                tokio::time::sleep(Duration::from_millis(100)).await;
                let answer = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
                let _ = stream.write_all(answer).await;
                let _ = stream.flush().await;
                // What was not read makes it a reset.
            },
        )
        .await;
    let spec = format!("host: b, trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: {}}}}}", authority.ca());
    let mut mesh = Mesh::ruled(&[("b", &[address])], &object("DestinationRule", &spec));
    let body = Full::from(vec![b'x'; 16 << 20]);
    let request = Request::post("/").header("host", "b").body(body).unwrap();
    let response = mesh.client().await.send(request).await;
    assert_eq!(response.status(), 413, "{}", soon(mesh.log.recv()).await.unwrap());
}
