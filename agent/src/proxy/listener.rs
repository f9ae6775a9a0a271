//! From a listener inside a pod to a connection that is served: accept, a place, the original destination, the
//! protocol. Started by `worker`, one loop per listener.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use weir_mesh::program::Protocol;

use super::detect::{self, Spoken};
use super::tcp::Carries;
use super::worker::{Connection, Open, Pod, Worker};
use super::{http1, tcp};

/// Accepts until the pod is removed or the worker drains. Above the limits on connections it holds one more and lets
/// the rest wait in the kernel's queue.
pub(crate) async fn accept(worker: Rc<Worker>, pod: Rc<Pod>, listener: Rc<TcpListener>) {
    let Ok(local) = listener.local_addr() else {
        return;
    };
    let mut pause = worker.limits.accept_backoff;
    loop {
        let accepted = tokio::select! {
            biased;
            () = pod.removed.wait() => return,
            () = worker.draining.wait() => return accept_rest(&worker, &pod, &listener, local).await,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = worker.limits.accept_backoff;
                take(&worker, &pod, stream, peer, local).await;
            }
            // That client is gone already; the next is not worse for it.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                // Out of descriptors or memory: the connection stays in the queue and the listener readable, so
                // without a pause this would spin.
                worker.counters.accept_errors.add(1);
                tracing::warn!(pod = %pod.source.name, %error, "accept failed");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(worker.limits.accept_backoff_max);
            }
        }
    }
}

/// Clients in the queue believe that they are connected; closing the listener would reset them. Served, they learn
/// with their first answer that there will be no second.
async fn accept_rest(worker: &Rc<Worker>, pod: &Rc<Pod>, listener: &TcpListener, local: SocketAddr) {
    while let Ok((socket, peer)) = SockRef::from(listener).accept() {
        let (Ok(()), Some(peer)) = (socket.set_nonblocking(true), peer.as_socket()) else {
            continue;
        };
        if let Ok(stream) = TcpStream::from_std(socket.into()) {
            take(worker, pod, stream, peer, local).await;
        }
    }
}

async fn take(worker: &Rc<Worker>, pod: &Rc<Pod>, stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
    worker.counters.connections_accepted.add(1);
    let cookie = pod.source.netns.cookie();
    let Some(destination) = worker.destinations.take(cookie, peer, local.port()) else {
        worker.counters.unknown_destinations.add(1);
        tracing::debug!(pod = %pod.source.name, %peer, "nobody knows where this connection was going");
        return;
    };
    let port = destination.port();
    if port == local.port() && (destination.ip().is_loopback() || destination.ip() == local.ip()) {
        worker.counters.loops.add(1);
        return;
    }
    let open = Open::wait(worker, pod).await;
    worker.spawn_for(pod, serve(Connection::new(open, Rc::clone(pod), peer, destination), stream));
}

async fn serve(connection: Rc<Connection>, stream: TcpStream) {
    let program = connection.worker.program();
    let port = program.port_of(connection.pod.source.view(), connection.destination);
    let (protocol, by_name) = port.map_or((Protocol::Tcp, false), |port| {
        let port = program.port(port);
        (port.protocol, !port.tls.is_empty())
    });
    drop(program);
    match protocol {
        Protocol::Http => http1::serve(connection, stream, Bytes::new()).await,
        // Boxed, so that a connection of HTTP does not hold the room that these would take.
        Protocol::Detect => Box::pin(detected(connection, stream, by_name)).await,
        Protocol::Http2 => Box::pin(tcp::serve(connection, stream, Bytes::new(), Carries::Http2, None)).await,
        Protocol::Tls if by_name => Box::pin(named(connection, stream, Vec::new())).await,
        Protocol::Tcp | Protocol::Tls => {
            Box::pin(tcp::serve(connection, stream, Bytes::new(), Carries::Bytes, None)).await;
        }
    }
}

/// Serves TLS by the name that the client asks for. `prefix` was read from it already.
async fn named(connection: Rc<Connection>, mut stream: TcpStream, mut prefix: Vec<u8>) {
    let patience = connection.worker.limits.header_timeout;
    if let Ok(name) = detect::server_name(&mut stream, &mut prefix, patience).await {
        tcp::serve(connection, stream, prefix.into(), Carries::Tls(&name), None).await;
    }
}

/// Serves what the client turns out to speak. One that is silent may wait for the server's greeting, or may have
/// connected early and have a request later: the server's connection is opened, and whoever speaks first decides.
async fn detected(connection: Rc<Connection>, mut stream: TcpStream, by_name: bool) {
    let limits = &connection.worker.limits;
    let mut prefix = Vec::new();
    let mut waiting: Option<tcp::Upstream> = None;
    let spoken = loop {
        let listened = detect::listen(&mut stream, &mut prefix, limits.detect_silence, limits.detect_stall).await;
        match listened {
            // It has asked for nothing, and will not be able to.
            Ok(Spoken::Silence) if connection.worker.draining.is_raised() => return,
            Ok(Spoken::Silence) => {}
            Ok(spoken) => break spoken,
            Err(_) => return,
        }
        if waiting.is_none() {
            match tcp::connect(&connection, Carries::Bytes).await {
                Ok(upstream) => waiting = Some(upstream),
                Err(refused) => return refused.reset(stream),
            }
        }
        let Some(upstream) = &mut waiting else { return };
        tokio::select! {
            readable = stream.readable() => if readable.is_err() { return },
            greeting = upstream.greeting(limits.detect_stall) => break greeting,
            () = connection.worker.draining.wait() => return,
            () = tokio::time::sleep(limits.tcp_idle) => return,
        }
    };
    if spoken == Spoken::Tls && by_name {
        drop(waiting);
        return named(connection, stream, prefix).await;
    }
    let prefix = Bytes::from(prefix);
    if spoken == Spoken::Http1 {
        // The server's connection, if one was opened, closes unused.
        drop(waiting);
        return http1::serve(connection, stream, prefix).await;
    }
    if spoken == Spoken::Http2 {
        // One that was opened for other bytes may have been chosen by other weights.
        drop(waiting);
        return tcp::serve(connection, stream, prefix, Carries::Http2, None).await;
    }
    tcp::serve(connection, stream, prefix, Carries::Bytes, waiting).await;
}
