//! From a hash to an endpoint, the same on every node: points come from the endpoints' addresses alone, in whatever order
//! they are listed. Made off the request path when endpoints change; a pick allocates nothing.

mod maglev;
mod ring;

use std::net::{IpAddr, SocketAddr};

use twox_hash::XxHash64;

use crate::program::HashTable;
pub use maglev::Maglev;
pub use ring::Ring;

/// The table of a consistent hash over the endpoints of a cluster.
#[derive(Clone, Debug)]
pub enum Table {
    /// The next point of a ring.
    Ring(Ring),
    /// A slot of a table.
    Maglev(Maglev),
}

impl Table {
    /// A table of endpoints with their weights. An endpoint that is there several times has the sum of its weights, and is
    /// picked by its first position; one of weight 0 is never picked.
    pub fn new(kind: HashTable, endpoints: impl IntoIterator<Item = (SocketAddr, u32)>) -> Self {
        let members = Member::all(endpoints);
        match kind {
            HashTable::Ring(minimum) => Self::Ring(Ring::new(&members, minimum)),
            HashTable::Maglev(size) => Self::Maglev(Maglev::new(&members, size)),
        }
    }

    /// The position of the endpoint that a hash belongs to, among those that are usable. Where one is not, its hashes
    /// alone go elsewhere, and come back with it.
    pub fn pick(&self, hash: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        match self {
            Self::Ring(ring) => ring.pick(hash, usable),
            Self::Maglev(maglev) => maglev.pick(hash, usable),
        }
    }
}

/// An endpoint, in the order of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    key: [u8; 18],
    position: u32,
    /// Without the common factor of all weights.
    weight: u64,
}

impl Member {
    fn all(endpoints: impl IntoIterator<Item = (SocketAddr, u32)>) -> Vec<Self> {
        let weighed = (0_u32..).zip(endpoints).filter(|(_, (_, weight))| *weight > 0);
        let mut members: Vec<Self> = weighed
            .map(|(position, (address, weight))| Self { key: key(address), position, weight: u64::from(weight) })
            .collect();
        members.sort_by_key(|member| (member.key, member.position));
        members.dedup_by(|later, first| {
            let same = later.key == first.key;
            first.weight += if same { later.weight } else { 0 };
            same
        });
        let common = members.iter().fold(0, |common, member| gcd(common, member.weight)).max(1);
        for member in &mut members {
            member.weight /= common;
        }
        members
    }

    fn hash(&self, seed: u64) -> u64 {
        XxHash64::oneshot(seed, &self.key)
    }
}

/// An address and port as bytes; an IPv4 address is the same as its v4-mapped one.
fn key(address: SocketAddr) -> [u8; 18] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut key = [0; 18];
    key[..16].copy_from_slice(&ip.octets());
    key[16..].copy_from_slice(&address.port().to_be_bytes());
    key
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
