//! Connections of which nothing is asked for a while: parked, woken up, closed in their time, and with the worker.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_mesh::program::Protocol;

use super::harness::{Mesh, Service, VIP, eventually, named, soon};
use crate::proxy::Limits;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: b\r\n\r\n";

fn quickly() -> Limits {
    Limits { park_after: Duration::from_millis(20), ..Limits::default() }
}

/// Asks, and reads the answer, whose body is `b`.
async fn asked(stream: &mut TcpStream) {
    stream.write_all(REQUEST).await.unwrap();
    answered(stream).await;
}

async fn answered(stream: &mut TcpStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nb") {
        assert!(soon(stream.read_buf(&mut answer)).await.unwrap() > 0, "{}", answer.escape_ascii());
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
}

/// Connections that have had an answer, and are parked.
async fn parked(mesh: &Mesh, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = mesh.connect().await;
        asked(&mut stream).await;
        streams.push(stream);
    }
    eventually("all are parked", || mesh.proxy.counters().connections_parked == count as u64).await;
    streams
}

#[tokio::test]
async fn many_wake_up_at_once() {
    // More than are woken up before anything else has its turn, on each of two workers.
    const MANY: usize = 300;
    let mesh = Mesh::with(Service::new(Protocol::Http, vec![named("b").await]), quickly(), Some(VIP));
    let mut streams = parked(&mesh, MANY).await;
    for round in 2..=3 {
        for stream in &mut streams {
            stream.write_all(REQUEST).await.unwrap();
        }
        for stream in &mut streams {
            answered(stream).await;
        }
        // The total is written after the gauge.
        eventually("all are parked again, each after each request", || {
            let counters = mesh.proxy.counters();
            counters.connections_parked == MANY as u64 && counters.connections_parked_total >= (round * MANY) as u64
        })
        .await;
        let counters = mesh.proxy.counters();
        assert_eq!(counters.connections_active, MANY as u64, "a parked connection keeps its place");
        assert_eq!(counters.connections_accepted, MANY as u64);
        assert_eq!(counters.requests, (round * MANY) as u64);
    }
    drop(streams);
    eventually("all are gone", || mesh.proxy.counters().connections_active == 0).await;
    eventually("none is parked", || mesh.proxy.counters().connections_parked == 0).await;
    assert_eq!(mesh.proxy.counters().panics, 0);
}

#[tokio::test]
async fn each_is_closed_in_its_own_time() {
    const IDLE: Duration = Duration::from_millis(500);
    let limits = Limits { idle_downstream: IDLE, ..quickly() };
    let mesh = Mesh::with(Service::new(Protocol::Http, vec![named("b").await]), limits, Some(VIP));
    let mut streams = Vec::new();
    for _ in 0..3 {
        let (mut stream, before) = (mesh.connect().await, Instant::now());
        asked(&mut stream).await;
        streams.push((stream, before));
        tokio::time::sleep(IDLE / 3).await;
    }
    for (stream, before) in &mut streams {
        assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
        assert!(before.elapsed() >= IDLE, "closed after {:?}", before.elapsed());
    }
    eventually("nothing is left", || mesh.proxy.counters().connections_active == 0).await;
}

#[tokio::test]
async fn draining_answers_what_has_been_asked_and_closes_the_others() {
    const MANY: usize = 40;
    let mesh = Mesh::with(Service::new(Protocol::Http, vec![named("b").await]), quickly(), Some(VIP));
    let mut streams = parked(&mesh, MANY).await;
    for stream in &mut streams[..MANY / 2] {
        assert_eq!(stream.try_write(REQUEST).unwrap(), REQUEST.len());
    }
    assert_eq!(soon(mesh.proxy.drain(Duration::from_secs(5))).await, 0, "nothing is cut");
    for (number, stream) in streams.iter_mut().enumerate() {
        if number < MANY / 2 {
            answered(stream).await;
        }
        assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
    }
    assert_eq!(mesh.proxy.counters().requests, (MANY + MANY / 2) as u64);
    assert_eq!(mesh.proxy.counters().connections_parked, 0);
}

#[tokio::test]
async fn a_worker_that_ends_takes_them_along() {
    let mesh = Mesh::with(Service::new(Protocol::Http, vec![named("b").await]), quickly(), Some(VIP));
    let streams = parked(&mesh, 4).await;
    drop(mesh);
    for mut stream in streams {
        assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0, "closed with the worker");
    }
}
