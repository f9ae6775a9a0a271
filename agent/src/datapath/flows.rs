//! Where an accepted connection was going: `weir_flows`. `app` hands it to the proxy, which calls it once per
//! connection from its workers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use weir_ebpf::{FlowKey, OriginalDestination};

use super::{address, sys};

/// The original destinations of connections to our listeners. Cheap to clone; for any thread.
#[derive(Clone, Debug)]
pub struct Flows {
    map: Arc<OwnedFd>,
}

impl Flows {
    pub(super) fn new(map: OwnedFd) -> Self {
        Self { map: Arc::new(map) }
    }

    /// Takes the original destination of the connection from `peer`, in the namespace with that cookie, to our
    /// listener on that port. `None` when there is none, or it was taken: then the connection is not one that the
    /// hooks steered, and must be closed.
    pub fn take(&self, cookie: u64, peer: SocketAddr, listener_port: u16) -> Option<SocketAddr> {
        let key = FlowKey {
            netns_cookie: cookie,
            source_address: address::mapped(peer.ip()),
            source_port: peer.port(),
            listener_port,
            pad: 0,
        };
        match self.lookup(&key) {
            Ok(found) => found.map(|flow| address::endpoint(&flow.address, flow.port)),
            Err(error) => {
                tracing::warn!(%peer, listener_port, %error, "cannot read the original destination");
                None
            }
        }
    }

    fn lookup(&self, key: &FlowKey) -> io::Result<Option<OriginalDestination>> {
        sys::take(self.map.as_fd(), key)
    }
}
