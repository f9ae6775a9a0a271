//! The proxy's own life: heartbeat, slow and idle clients, pods that go, draining, panics.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_mesh::program::{Parts, Protocol};
use weir_tests::require::skip;

use super::harness::{Mesh, Service, VIP, eventually, named, origin, serve, soon};
use crate::netns::NetNs;
use crate::proxy::worker::monotonic;
use crate::proxy::{Limits, OriginalDestinations, Programs, Proxy, ProxyConfig, SourcePod};

#[tokio::test]
async fn the_heartbeat_goes_on() {
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![]));
    let start = monotonic();
    eventually("a tick after the start", || mesh.proxy.oldest_tick() > start).await;
    let again = mesh.proxy.oldest_tick();
    eventually("and another", || mesh.proxy.oldest_tick() > again).await;
    assert!(mesh.proxy.oldest_tick() <= monotonic());
}

#[tokio::test]
async fn a_slow_head_is_answered_408_and_an_idle_connection_is_not_slow() {
    let limits = Limits { header_timeout: Duration::from_millis(100), ..Limits::default() };
    let mesh = Mesh::with(Service::new(Protocol::Http, vec![named("b").await]), limits, Some(VIP));
    for first in ["", "GET / HTTP/1.1\r\nhost: b\r\n\r\n"] {
        let mut stream = mesh.connect().await;
        stream.write_all(first.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        if !first.is_empty() {
            while !answer.ends_with(b"\r\n\r\nb") {
                assert!(soon(stream.read_buf(&mut answer)).await.unwrap() > 0);
            }
            answer.clear();
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        let start = Instant::now();
        stream.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
        assert!(start.elapsed() > Duration::from_millis(50));
    }
    assert_eq!(mesh.proxy.counters().header_timeouts, 2);
}

#[tokio::test]
async fn idle_clients_and_idle_upstreams_are_closed_in_time() {
    let limits = Limits {
        idle_downstream: Duration::from_millis(400),
        idle_upstream: Duration::from_secs(2),
        sweep: Duration::from_millis(10),
        ..Limits::default()
    };
    let mesh = Mesh::with(Service::new(Protocol::Http, vec![named("b").await]), limits, Some(VIP));
    let mut client = mesh.client().await;
    assert_eq!(client.get("/").await.0, 200);
    eventually("the upstream was kept", || mesh.proxy.counters().upstream_idle == 1).await;
    eventually("and is closed", || mesh.proxy.counters().upstream_idle == 0).await;
    client.closed().await;
    eventually("nothing is left", || mesh.proxy.counters().connections_active == 0).await;
}

#[tokio::test]
async fn an_idle_connection_is_parked_and_serves_on() {
    let limits = Limits {
        park_after: Duration::from_millis(30),
        header_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let b = named("b").await;
    let mesh = Mesh::with(Service::new(Protocol::Http, vec![b]), limits.clone(), Some(VIP));
    let mut client = mesh.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await, (200, "b".into()));
        eventually("it is parked", || mesh.proxy.counters().connections_parked == 1).await;
    }
    // Parked, it is still slow when it is slow with a head, and idle when it is idle for too long.
    let mut slow = mesh.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n").await.unwrap();
    eventually("both are", || mesh.proxy.counters().connections_parked == 2).await;
    slow.write_all(b"GET / HT").await.unwrap();
    let mut answer = Vec::new();
    soon(slow.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.escape_ascii().to_string().contains("HTTP/1.1 408 "), "{}", answer.escape_ascii());
    eventually("one is", || mesh.proxy.counters().connections_parked == 1).await;
    let limits = Limits { idle_downstream: Duration::from_millis(600), ..limits };
    let mesh = Mesh::with(Service::new(Protocol::Http, vec![b]), limits, Some(VIP));
    let mut client = mesh.client().await;
    assert_eq!(client.get("/").await, (200, "b".into()));
    client.closed().await;
    eventually("none is", || mesh.proxy.counters().connections_parked == 0).await;
}

#[tokio::test]
async fn what_waits_for_its_client_is_not_parked() {
    const SIZE: usize = 16 << 20;
    let address = origin(|_| async { Response::new(Full::from(vec![b'x'; SIZE])) }).await;
    let limits = Limits { park_after: Duration::from_millis(5), ..Limits::default() };
    let mesh = Mesh::with(Service::new(Protocol::Http, vec![address]), limits, Some(VIP));
    let mut stream = mesh.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n").await.unwrap();
    let (mut read, mut buffer) = (0, vec![0; 512 << 10]);
    // The last of it is with the proxy at some time, complete and not taken.
    while read < SIZE {
        tokio::time::sleep(Duration::from_millis(15)).await;
        let n = soon(stream.read(&mut buffer)).await.unwrap();
        assert!(n > 0, "it ends after {read} bytes");
        read += n;
    }
    stream.write_all(b"HEAD / HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(String::from_utf8_lossy(&rest).contains("HTTP/1.1 200 OK"), "the connection goes on");
}

#[tokio::test]
async fn connections_above_the_limit_wait_their_turn() {
    let limits = Limits { max_connections_per_pod: 1, ..Limits::default() };
    let mesh = Mesh::with(Service::new(Protocol::Http, vec![named("b").await]), limits, Some(VIP));
    // Two workers with one place each.
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(mesh.client().await);
    }
    for mut client in clients {
        assert!(mesh.proxy.counters().connections_active <= 2);
        assert_eq!(client.get("/").await, (200, "b".into()));
    }
}

#[tokio::test]
async fn a_removed_pod_gets_no_new_connections_and_keeps_its_old_ones() {
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![named("b").await]));
    let mut client = mesh.client().await;
    assert_eq!(client.get("/").await.0, 200);
    eventually("one is idle", || mesh.proxy.counters().upstream_idle == 1).await;
    mesh.proxy.remove_pod(mesh.cookie);
    eventually("it is closed", || mesh.proxy.counters().upstream_idle == 0).await;
    assert_eq!(client.get("/").await.0, 200);
    let start = Instant::now();
    while tokio::net::TcpStream::connect(mesh.address).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "the listener is closed");
    }
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(mesh.proxy.counters().upstream_idle, 0, "nothing is kept for a pod that is gone");
}

#[tokio::test]
async fn draining_finishes_what_is_under_way_and_closes_what_is_idle() {
    let address = origin(|request| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Response::new(Full::<Bytes>::from("done"))
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Http, vec![address]));
    let (mut idle, mut busy) = (mesh.client().await, mesh.client().await);
    assert_eq!(idle.get("/").await.0, 200);
    assert_eq!(busy.get("/").await.0, 200);
    let slow = tokio::spawn(async move {
        let answer = busy.get("/slow").await;
        busy.closed().await;
        answer
    });
    eventually("the slow one is under way", || mesh.proxy.counters().requests == 3).await;
    let start = Instant::now();
    let (cut, idle_closed) = tokio::join!(soon(mesh.proxy.drain(Duration::from_secs(10))), async {
        idle.closed().await;
        start.elapsed() < Duration::from_millis(1500)
    });
    assert!(idle_closed, "at once");
    assert_eq!(cut, 0);
    assert_eq!(slow.await.unwrap(), (200, "done".into()));
    assert!(start.elapsed() < Duration::from_secs(6));
    assert!(tokio::net::TcpStream::connect(mesh.address).await.is_err());
}

#[tokio::test]
async fn draining_cuts_at_the_deadline() {
    let address = serve(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Tcp, vec![address]));
    let mut stream = mesh.connect().await;
    stream.write_all(b"x").await.unwrap();
    eventually("it is through", || mesh.proxy.counters().bytes_received == 1).await;
    assert_eq!(soon(mesh.proxy.drain(Duration::from_millis(50))).await, 1);
    assert!(matches!(soon(stream.read(&mut [0])).await, Ok(0) | Err(_)));
}

struct Panics;

impl OriginalDestinations for Panics {
    fn take(&self, _: u64, peer: std::net::SocketAddr, _: u16) -> Option<std::net::SocketAddr> {
        Some(peer)
    }
}

#[tokio::test]
async fn a_program_that_is_wrong_kills_one_connection_and_not_the_worker() {
    // A port whose plain cluster does not exist: indexing it panics.
    let mut program = Service::new(Protocol::Http, vec![]).program();
    program.clusters = Parts::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = std::net::TcpStream::connect(address).unwrap();
    let peer = client.local_addr().unwrap();
    Arc::make_mut(&mut program.destinations).insert((0, peer.ip(), peer.port()), weir_mesh::program::PortId(0));
    let config = ProxyConfig { workers: 1, ..ProxyConfig::default() };
    let proxy = Proxy::start(config, Programs::new(program), Arc::new(Panics)).unwrap();
    let netns = NetNs::own().unwrap();
    let pod = SourcePod {
        name: "default/a".into(),
        namespace: "default".into(),
        view: 0.into(),
        netns,
        identity: ArcSwap::default(),
    };
    proxy.add_pod(&Arc::new(pod), vec![vec![listener]]);
    client.set_nonblocking(true).unwrap();
    let mut client = tokio::net::TcpStream::from_std(client).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n").await.unwrap();
    assert!(matches!(soon(client.read(&mut [0])).await, Ok(0) | Err(_)));
    eventually("counted", || proxy.counters().panics == 1).await;
    eventually("and closed", || proxy.counters().connections_active == 0).await;
    let ticked = proxy.oldest_tick();
    eventually("the worker lives", || proxy.oldest_tick() > ticked).await;
}

/// A network namespace with a loopback, and an origin in it that says `inside`; or what is missing to make one.
fn namespace_with_origin() -> Result<(NetNs, std::net::SocketAddr), String> {
    std::thread::spawn(|| {
        // SAFETY: unshare takes no pointers and changes only this thread, which ends here.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(format!("no network namespace: {}", std::io::Error::last_os_error()));
        }
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        if !up.is_ok_and(|status| status.success()) {
            return Err("ip (Debian package iproute2) cannot be run".to_owned());
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\ninside");
            }
        });
        Ok((NetNs::open("/proc/thread-self/ns/net").unwrap(), address))
    })
    .join()
    .unwrap()
}

#[tokio::test]
async fn upstream_connections_are_made_inside_the_pods_namespace() {
    let (netns, inside) = match namespace_with_origin() {
        Ok(made) => made,
        Err(why) => return skip("upstream_connections_are_made_inside_the_pods_namespace", &why),
    };
    assert!(tokio::net::TcpStream::connect(inside).await.is_err(), "not reachable from here");
    let home = named("home").await;
    for (netns, endpoint, want) in [(Some(netns), inside, "inside"), (None, home, "home")] {
        let mesh = Mesh::of_pod(Service::new(Protocol::Http, vec![endpoint]), Limits::default(), Some(VIP), netns);
        for _ in 0..10 {
            assert_eq!(mesh.client().await.get("/").await, (200, want.into()));
        }
    }
}

#[tokio::test]
async fn connections_come_to_the_worker_on_the_clients_cpu_unless_it_is_too_busy() {
    // The kernel looks at SO_INCOMING_CPU among the listeners of a group since 6.2.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<u32> = release.split(['.', '-']).map_while(|part| part.trim().parse().ok()).take(2).collect();
    if std::thread::available_parallelism().unwrap().get() < 2 || version < vec![6, 2] {
        return skip("connections_come_to_the_worker", "two CPUs and Linux 6.2 are needed");
    }
    // From which share of a CPU on a worker is too busy; and what share of 400 connections from CPU 0 comes to its worker.
    for (steer_until, at_least, at_most) in [(100, 0.95, 1.0), (0, 0.35, 0.65)] {
        let limits = Limits { steer_until, ..Limits::default() };
        let mesh = Mesh::with(Service::new(Protocol::Http, vec![named("b").await]), limits, Some(VIP));
        let group = group();
        let address = group[0][0].local_addr().unwrap();
        let netns = NetNs::own().unwrap();
        let pod = SourcePod {
            name: "default/a".into(),
            namespace: "default".into(),
            view: 0.into(),
            netns,
            identity: ArcSwap::default(),
        };
        mesh.proxy.add_pod(&Arc::new(pod), group);
        mesh.ticks().await;
        let accepted = || -> Vec<u64> {
            mesh.proxy.workers.iter().map(|worker| worker.shard.connections_accepted.get()).collect()
        };
        let before = accepted();
        let clients = std::thread::spawn(move || {
            crate::proxy::steering::pin(0).unwrap();
            (0..400).map(|_| std::net::TcpStream::connect(address).unwrap()).collect::<Vec<_>>()
        });
        let clients = tokio::task::spawn_blocking(|| clients.join().unwrap()).await.unwrap();
        eventually("all are accepted", || accepted().iter().sum::<u64>() - before.iter().sum::<u64>() == 400).await;
        let share = (accepted()[0] - before[0]) as f64 / 400.0;
        assert!((at_least..=at_most).contains(&share), "{share} come to the worker of CPU 0 with {steer_until} %");
        drop(clients);
    }
}

/// One listener for each of two workers, as pods have them.
fn group() -> Vec<Vec<TcpListener>> {
    let listen = |address: SocketAddr| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(1024).unwrap();
        TcpListener::from(socket)
    };
    let first = listen(SocketAddr::from(([127, 0, 0, 1], 0)));
    let second = listen(first.local_addr().unwrap());
    vec![vec![first], vec![second]]
}
