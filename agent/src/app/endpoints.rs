//! Opens the admin and the metrics endpoint, hands their ports over to the agent that succeeds this one, and takes them
//! back when that one dies. Called by `mod`.
//!
//! During an upgrade two agents run on a node, in its one network namespace. The younger one has to be reachable before
//! it counts as ready, and only then is the older one stopped. So the older one closes its listeners as soon as the
//! younger one is designated, and the younger one waits for that. They never listen side by side: a probe of the
//! younger one must not be answered by the older one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use super::succession::Superseded;
use crate::admin::{self, Answers, Surface};
use crate::config::Config;

/// How long a port may stay taken. A predecessor lets go within [`super::succession::LOOK`]; one that does not within
/// this time hangs, or the port is somebody else's.
const TAKEOVER: Duration = Duration::from_secs(5);
/// Connections that wait to be accepted: more than are served at the same time.
const BACKLOG: i32 = 128;
/// Between two attempts to listen.
const RETRY: Duration = Duration::from_millis(20);
/// Between two attempts to have a port back that a successor has died with, or hangs with.
const REGAIN: Duration = Duration::from_millis(200);

/// Opens what is configured, and serves it whenever this agent is not superseded. To be called once it is designated.
///
/// # Errors
/// When a port stays taken, or cannot be had.
pub(super) async fn open(config: &Config, superseded: &Superseded, answers: &Arc<dyn Answers>) -> Result<()> {
    let endpoints = [(Surface::Admin, Some(config.admin)), (Surface::Metrics, config.metrics)];
    for (surface, address) in endpoints {
        let Some(address) = address else { continue };
        let listener = listen(address).await.with_context(|| format!("{surface:?} endpoint on {address}"))?;
        let address = listener.local_addr()?;
        tracing::info!(%address, ?surface, "endpoint");
        tokio::spawn(serve(listener, address, surface, superseded.clone(), Arc::clone(answers)));
    }
    Ok(())
}

/// Serves until this agent ends, but for the times when another one is designated.
async fn serve(
    mut listener: TcpListener,
    address: SocketAddr,
    surface: Surface,
    mut superseded: Superseded,
    answers: Arc<dyn Answers>,
) {
    loop {
        let mut end = superseded.clone();
        admin::serve(listener, surface, Arc::clone(&answers), async {
            let _told = end.wait_for(|over| *over).await;
        })
        .await;
        listener = loop {
            // Only at the very end is there nobody who could tell.
            if superseded.wait_for(|over| !*over).await.is_err() {
                return;
            }
            match bind(address) {
                Ok(listener) => break listener,
                Err(error) => {
                    tracing::debug!(%error, %address, ?surface, "the endpoint cannot be had back yet");
                    tokio::time::sleep(REGAIN).await;
                }
            }
        };
        tracing::info!(%address, ?surface, "endpoint again");
    }
}

async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let until = Instant::now() + TAKEOVER;
    loop {
        match bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                tokio::time::sleep(RETRY).await;
            }
            done => return done,
        }
    }
}

/// `[::]` is every address of either family, whatever the node's `bindv6only` says, and those of IPv4 on a node without
/// IPv6: one manifest fits all clusters.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let every = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match bound(address, every) {
        Err(error) if every && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
            bound(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()), false)
        }
        done => done,
    }
}

fn bound(address: SocketAddr, both_families: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    if both_families {
        socket.set_only_v6(false)?;
    }
    // Connections of the predecessor that are about to end do not hold the port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_every_address_of_either_family() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = bind("[::]:0".parse().expect("an address")).expect("bound");
            let port = listener.local_addr().expect("bound").port();
            let v4 = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            v4.expect("those of IPv4 are always among them");
            if TcpListener::bind("[::1]:0").await.is_ok() {
                tokio::net::TcpStream::connect(("::1", port)).await.expect("there is IPv6 here");
            }
        });
    }

    #[test]
    fn a_port_is_waited_for_while_its_owner_lets_go() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let former = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
            let address = former.local_addr().expect("bound");
            let (mine, ()) = tokio::join!(listen(address), async {
                tokio::time::sleep(Duration::from_millis(150)).await;
                drop(former);
            });
            assert_eq!(mine.expect("the port is free now").local_addr().expect("bound"), address);
            let kept = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
            let started = Instant::now();
            let refused = listen(kept.local_addr().expect("bound")).await.expect_err("it stays taken");
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
            assert!(started.elapsed() >= TAKEOVER);
        });
    }
}
