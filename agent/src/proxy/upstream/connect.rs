//! Upstream connections, made inside the source pod's network namespace, so that its policies, routes and address are
//! what they would be without a proxy. Called by `upstream` and `tcp`.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::netns::NetNs;
use crate::proxy::SourcePod;
use crate::proxy::error::{Kind, ProxyError};
use crate::proxy::worker::Worker;

/// Connects to `address` for `pod`. The kernel picks the source address, which is the pod's.
pub(crate) async fn connect(
    worker: &Worker,
    pod: &SourcePod,
    address: SocketAddr,
    patience: Duration,
) -> Result<TcpStream, ProxyError> {
    let attempt = async {
        let socket = socket(&pod.netns, &worker.home, address)?;
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

/// Only `socket()` happens inside: a socket belongs for good to the namespace in which it was made.
fn socket(pod: &NetNs, home: &NetNs, address: SocketAddr) -> io::Result<TcpSocket> {
    let make = || Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP));
    // A pod in the agent's own namespace needs no change of it, nor the right to make one.
    let socket = if pod.cookie() == home.cookie() { make() } else { pod.enter(home, make)? }?;
    Ok(TcpSocket::from_std_stream(StdStream::from(socket)))
}
