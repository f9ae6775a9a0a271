//! Answers to clients that are still sending: none is lost to a reset, and nobody sends for ever.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{Mesh, named, rules, serve, soon};
use crate::proxy::Limits;

const MIB: usize = 1 << 20;

/// The rules of these tests: `/own` is answered by the proxy.
fn ruled() -> String {
    rules(
        "http: [{match: [{uri: {prefix: /own}}], directResponse: {status: 403, body: {string: 'no'}}}, \
          {route: [{destination: {host: b}}]}]",
    )
}

/// An origin that answers 413 as soon as it has seen the head, and reads nothing more.
async fn refusing() -> SocketAddr {
    serve(|mut stream, _| async move {
        let mut read = Vec::new();
        while !read.windows(4).any(|window| window == b"\r\n\r\n") {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
        // It stays open until the proxy closes it.
        while stream.readable().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if stream.peek(&mut [0]).await.unwrap_or(0) == 0 {
                return;
            }
        }
    })
    .await
}

/// Writes all of a request before it reads: what it is answered, if nothing of either failed.
async fn post(mesh: &Mesh, path: &str, framing: &str, body: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(mesh.address).await?;
    stream.write_all(format!("POST {path} HTTP/1.1\r\nhost: b\r\n{framing}\r\n\r\n").as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await?;
    Ok(answer)
}

#[tokio::test]
async fn who_writes_all_before_it_reads_gets_every_answer() {
    let mesh = Mesh::ruled(&[("b", &[refusing().await])], &ruled());
    // Toward the upstream more than sockets hold: what fits into them, the proxy has read.
    for (path, status, rounds, mib) in
        [("/own", "403 Forbidden", 200, 1), ("/upstream", "413 Payload Too Large", 20, 12)]
    {
        let plain = (format!("content-length: {}", mib * MIB), vec![b'x'; mib * MIB]);
        let chunks = format!("{:x}\r\n{}\r\n", 64 * 1024, "x".repeat(64 * 1024)).repeat(16 * mib) + "0\r\n\r\n";
        let chunked = ("transfer-encoding: chunked".to_owned(), chunks.into_bytes());
        for round in 0..rounds {
            let (framing, body) = if round % 4 == 3 { &chunked } else { &plain };
            let answer =
                post(&mesh, path, framing, body).await.unwrap_or_else(|error| panic!("{path} {round}: {error}"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{path} {round}: {answer}");
            assert!(answer.contains("connection: close\r\n"), "{path} {round}: {answer}");
        }
    }
    // A head that is too long is answered by the same rule.
    let long = format!("x-long: {}", "x".repeat(MIB));
    for round in 0..20 {
        let answer = post(&mesh, "/own", &long, b"").await.unwrap_or_else(|error| panic!("long {round}: {error}"));
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

/// Sends until it is not taken: bytes and time.
async fn flood(mesh: &Mesh, pause: Duration) -> (usize, Duration) {
    let started = Instant::now();
    let mut stream = mesh.connect().await;
    stream.write_all(b"POST /own HTTP/1.1\r\nhost: b\r\ncontent-length: 1000000000000\r\n\r\n").await.unwrap();
    let (piece, mut sent) = (vec![0; 16 * 1024], 0);
    soon(async {
        while stream.write_all(&piece).await.is_ok() {
            sent += piece.len();
            tokio::time::sleep(pause).await;
        }
    })
    .await;
    (sent, started.elapsed())
}

#[tokio::test]
async fn nobody_is_listened_to_for_ever() {
    let ms = Duration::from_millis;
    let own = [("b", &[named("b").await][..])];
    // By bytes: what the socket's buffers hold comes on top.
    let mesh = Mesh::ruled_within(Limits { linger_bytes: 4 * MIB, ..Limits::default() }, &own, &ruled());
    let (sent, _) = flood(&mesh, ms(0)).await;
    assert!((4 * MIB..24 * MIB).contains(&sent), "{sent}");
    // By time.
    let mesh = Mesh::ruled_within(Limits { linger: ms(400), ..Limits::default() }, &own, &ruled());
    let (_, took) = flood(&mesh, ms(20)).await;
    assert!((ms(350)..ms(3000)).contains(&took), "{took:?}");
    // By silence: with the answer read, the connection is given up although the client keeps it.
    let mesh = Mesh::ruled_within(Limits { linger_silence: ms(1500), ..Limits::default() }, &own, &ruled());
    let mut stream = mesh.connect().await;
    stream.write_all(b"POST /own HTTP/1.1\r\nhost: b\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
    soon(stream.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(mesh.proxy.counters().connections_active, 1, "it may still be sending");
    let started = Instant::now();
    super::harness::eventually("it is closed", || mesh.proxy.counters().connections_active == 0).await;
    assert!(started.elapsed() < ms(4000));
    drop(stream);
}

#[tokio::test]
async fn a_body_that_was_read_costs_no_connection() {
    // Kept for retries, and sent to nobody: the answer is the proxy's own, and the request is at its end.
    let retried = "http: [{retries: {attempts: 1}, timeout: 5s, route: [{destination: {host: b}}]}]";
    let closing = serve(|mut stream, _| async move {
        // All of the request, and no answer.
        let mut read = Vec::new();
        while !read.ends_with(b"four") {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
    })
    .await;
    let mesh = Mesh::ruled(&[("b", &[closing])], &rules(retried));
    let mut client = mesh.client().await;
    for _ in 0..3 {
        let request = ::http::Request::post("/").header("host", "b").body("four".into()).unwrap();
        let answer = client.send(request).await;
        assert_eq!((answer.status().as_u16(), answer.headers().get("connection")), (503, None));
        soon(http_body_util::BodyExt::collect(answer.into_body())).await.unwrap();
    }
    assert_eq!(mesh.proxy.counters().connections_accepted, 1);
}
