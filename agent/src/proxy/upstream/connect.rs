//! Upstream connections, made inside the source pod's network namespace, so that its policies, routes and address are
//! what they would be without a proxy. Called by `upstream` and `tcp`.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::link::Link;
use super::target::Target;
use super::tls::{self, Sealing};
use crate::netns::NetNs;
use crate::proxy::SourcePod;
use crate::proxy::error::{Kind, ProxyError};
use crate::proxy::worker::Worker;

/// Connects to `address` for `pod`, and encrypts where that is asked for. The kernel picks the source address, which is
/// the pod's.
pub(crate) async fn connect(
    worker: &Worker,
    pod: &SourcePod,
    address: SocketAddr,
    target: &Target,
    sealing: Option<Sealing>,
) -> Result<Link, ProxyError> {
    let Some(Sealing { originator, name, speaks }) = sealing else {
        return open(worker, pod, address, target).await.map(Link::Plain);
    };
    let config = match originator.config(speaks) {
        Ok(config) => config,
        Err(problem) => {
            worker.counters.upstream_connect_failures.add(1);
            return Err(ProxyError::new(Kind::NotEncrypted).caused_by(format!("TLS_error: {problem}")));
        }
    };
    let started = Instant::now();
    let stream = open(worker, pod, address, target).await?;
    // The handshake is a part of the connect, and has what is left of its time.
    let patience = target.connect_timeout(worker).saturating_sub(started.elapsed());
    let failure = match timeout(patience, TlsConnector::from(config).connect(name, stream)).await {
        Ok(Ok(stream)) => return Ok(Link::Tls(Box::new(stream))),
        Ok(Err(error)) => ProxyError::new(Kind::ConnectFailed).caused_by(format!("TLS_error: {}", tls::told(&error))),
        Err(_) => ProxyError::new(Kind::ConnectTimeout).caused_by("TLS_error: no end of the handshake in time"),
    };
    worker.counters.upstream_connect_failures.add(1);
    Err(failure)
}

async fn open(worker: &Worker, pod: &SourcePod, address: SocketAddr, target: &Target) -> Result<TcpStream, ProxyError> {
    let patience = target.connect_timeout(worker);
    let attempt = async {
        let socket = socket(&pod.netns, &worker.home, address)?;
        if let Some(keepalive) = target.connection_pool().and_then(|pool| pool.keepalive) {
            SockRef::from(&socket).set_tcp_keepalive(&probing(keepalive))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(stream)
    };
    let failure = match timeout(patience, attempt).await {
        Ok(Ok(stream)) => {
            worker.counters.upstream_connects.add(1);
            return Ok(stream);
        }
        Ok(Err(error)) => ProxyError::new(Kind::ConnectFailed).caused_by(error),
        Err(_) => ProxyError::new(Kind::ConnectTimeout),
    };
    worker.counters.upstream_connect_failures.add(1);
    Err(failure)
}

/// Probes, time and interval; what is not given is as the system has it.
fn probing((probes, time, interval): (Option<u32>, Option<Duration>, Option<Duration>)) -> TcpKeepalive {
    let mut keepalive = TcpKeepalive::new();
    // The kernel takes whole seconds from 1 to 32,767, and 127 probes at most.
    let seconds = |given: Duration| given.clamp(Duration::from_secs(1), Duration::from_secs(32_767));
    if let Some(probes) = probes.filter(|probes| *probes > 0) {
        keepalive = keepalive.with_retries(probes.min(127));
    }
    if let Some(time) = time {
        keepalive = keepalive.with_time(seconds(time));
    }
    if let Some(interval) = interval {
        keepalive = keepalive.with_interval(seconds(interval));
    }
    keepalive
}

/// Only `socket()` happens inside: a socket belongs for good to the namespace in which it was made.
fn socket(pod: &NetNs, home: &NetNs, address: SocketAddr) -> io::Result<TcpSocket> {
    let make = || Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP));
    // A pod in the agent's own namespace needs no change of it, nor the right to make one.
    let socket = if pod.cookie() == home.cookie() { make() } else { pod.enter(home, make)? }?;
    Ok(TcpSocket::from_std_stream(StdStream::from(socket)))
}
