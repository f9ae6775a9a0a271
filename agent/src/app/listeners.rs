//! The outbound listeners inside a pod's network namespace: one per worker and family, each family a SO_REUSEPORT group.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::OUTBOUND_PORT;
use crate::netns::NetNs;

/// Accept queue of each listener. The kernel caps it at net.core.somaxconn; a client above it waits a SYN retry (1 s).
const BACKLOG: i32 = 4096;

/// What was opened.
#[derive(Debug)]
pub(super) struct Listeners {
    /// By worker.
    pub(super) by_worker: Vec<Vec<TcpListener>>,
    /// Port on 127.0.0.1; 0 = none.
    pub(super) port4: u16,
    /// Port on ::1; 0 = none (IPv6 is off in the namespace).
    pub(super) port6: u16,
}

/// Opens them inside `netns`.
///
/// # Errors
/// When the namespace cannot be entered, or neither family has a loopback address to listen on.
pub(super) fn open(netns: &NetNs, workers: usize) -> io::Result<Listeners> {
    netns.run(|| {
        let group4 = group(SocketAddr::from((Ipv4Addr::LOCALHOST, OUTBOUND_PORT)), workers);
        let group6 = group(SocketAddr::from((Ipv6Addr::LOCALHOST, OUTBOUND_PORT)), workers);
        let mut by_worker: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::with_capacity(2)).collect();
        let mut spread = |group: io::Result<(u16, Vec<TcpListener>)>| match group {
            Ok((port, listeners)) => {
                for (worker, listener) in by_worker.iter_mut().zip(listeners) {
                    worker.push(listener);
                }
                Ok(port)
            }
            Err(error) => Err(error),
        };
        let (port4, port6) = match (spread(group4), spread(group6)) {
            (Err(error), Err(_)) => return Err(error),
            (port4, port6) => (port4.unwrap_or(0), port6.unwrap_or(0)),
        };
        Ok(Listeners { by_worker, port4, port6 })
    })?
}

/// `count` listeners on one port: the wanted one, else any that is free.
fn group(wanted: SocketAddr, count: usize) -> io::Result<(u16, Vec<TcpListener>)> {
    let first = match listen(wanted) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => listen(SocketAddr::new(wanted.ip(), 0))?,
        other => other?,
    };
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(listen(address)?);
    }
    Ok((address.port(), listeners))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of a dead agent may still be in TIME_WAIT on this port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_stepped_aside_from() {
        // A listener without SO_REUSEPORT, as an application's.
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let address = taken.local_addr().expect("bound");
        let (port, listeners) = group(address, 3).expect("another port is free");
        assert_ne!(port, address.port());
        assert_eq!(listeners.len(), 3);
        for listener in &listeners {
            assert_eq!(listener.local_addr().expect("bound").port(), port);
        }
    }
}
