//! Addresses as keys: what the tables that are asked several times for each request are keyed by. Used by `pool` and
//! `target`.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

/// An address that hashes as one number, or as two: as it stands, `SocketAddr` gives a hasher six pieces, which takes
/// longer than to look the entry up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) SocketAddr);

impl Hash for Address {
    // What is left out, of a scope, at most puts two keys into one place.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let port = u64::from(self.0.port());
        match self.0 {
            SocketAddr::V4(v4) => state.write_u64(u64::from(v4.ip().to_bits()) << 16 | port),
            SocketAddr::V6(v6) => {
                state.write_u128(v6.ip().to_bits());
                state.write_u64(port);
            }
        }
    }
}
