//! `weir-client sockets SERVICE OTHER`: what an application can see of its own socket. SERVICE is a service address,
//! OTHER a plain address that no service has. One line of JSON with what was seen; the suite judges it.

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};

use serde_json::{Value, json};
use weir_tests::socket::Socket;
use weir_tests::wire::{self, Otherwise};

/// Runs every case.
pub(crate) fn run(arguments: &[String]) -> io::Result<()> {
    let [service, other] = arguments else {
        return Err(io::Error::other("usage: weir-client sockets SERVICE OTHER"));
    };
    let address = |text: &String| text.parse::<SocketAddr>().map_err(io::Error::other);
    let (service, other) = (address(service)?, address(other)?);
    let seen = json!({
        "plain": case(|| plain(service)),
        "device": case(|| device(service)),
        "mapped": case(|| mapped(service)),
        "dissolved": case(|| dissolved(service, other)),
        "refused_then_service": case(|| refused_then(service)),
    });
    writeln!(io::stdout(), "{seen}")
}

fn case(seen: impl FnOnce() -> io::Result<Value>) -> Value {
    seen().unwrap_or_else(|e| json!({ "error": e.to_string() }))
}

/// Both names of a connected socket, and who answers on it.
fn look(socket: &Socket) -> io::Result<Value> {
    let stream = socket.stream()?;
    let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
    let mut answer = BufReader::new(stream);
    write!(answer.get_mut(), "GET / HTTP/1.1\r\nHost: {peer}\r\n\r\n")?;
    let head = wire::read_head(&mut answer)?.ok_or(io::ErrorKind::ConnectionAborted)?;
    wire::read_body(&mut answer, &head, Otherwise::Close)?;
    Ok(json!({
        "local": local.ip().to_string(),
        "peer": peer.to_string(),
        "status": head.status()?,
        "pod": head.get("x-pod"),
        "seen_by_origin": head.get("x-peer"),
    }))
}

fn plain(service: SocketAddr) -> io::Result<Value> {
    let socket = Socket::tcp(service)?;
    socket.connect(service)?;
    look(&socket)
}

/// A socket that must leave by eth0 cannot reach a listener on the loopback.
fn device(service: SocketAddr) -> io::Result<Value> {
    let socket = Socket::tcp(service)?;
    socket.bind_to_device("eth0")?;
    socket.connect(service)?;
    look(&socket)
}

/// An IPv6 socket that dials the mapped form of an IPv4 service.
fn mapped(service: SocketAddr) -> io::Result<Value> {
    let SocketAddr::V4(v4) = service else {
        return Ok(Value::Null);
    };
    let target: SocketAddr = SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into();
    let socket = Socket::tcp(target)?;
    socket.connect(target)?;
    look(&socket)
}

/// To a service, dissolved, then to a plain address: the second peer is the truth, not the first.
fn dissolved(service: SocketAddr, other: SocketAddr) -> io::Result<Value> {
    let socket = Socket::tcp(service)?;
    socket.connect(service)?;
    let first = socket.stream()?.peer_addr()?;
    socket.dissolve()?;
    socket.connect(other)?;
    let mut seen = look(&socket)?;
    seen["first_peer"] = first.to_string().into();
    Ok(seen)
}

/// Refused by a closed port of our own, then to a service with the same socket.
fn refused_then(service: SocketAddr) -> io::Result<Value> {
    let closed: SocketAddr = match service {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 1).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::LOCALHOST, 1).into(),
    };
    let socket = Socket::tcp(service)?;
    let refused = socket.connect(closed).err().map(|e| e.to_string());
    // A socket that was bound to the loopback by its first attempt must be dissolved to be free of it.
    socket.dissolve()?;
    socket.connect(service)?;
    let mut seen = look(&socket)?;
    seen["first_error"] = refused.into();
    Ok(seen)
}
