//! Which endpoint of a cluster. What is slow (tables of a hash, weights) is made when endpoints or their health change;
//! a pick allocates nothing. Called by the proxy's `upstream`, and by `datapath` for the kernel's slots.
//!
//! - [`candidates`]: by turns, by chance or by load, over weights
//! - [`affinity`]: what of a request is hashed, the cookie of a client without one, and the subset that a client stays in
//! - [`table`]: from a hash to an endpoint: a ring, or Maglev's table
//! - [`locality`]: priorities and shares of localities, by health, as weights
//! - [`warmup`]: the weight of a new endpoint
//! - [`slots`]: weights for the kernel

use std::net::SocketAddr;

use crate::program::{Cluster, LoadBalancer};

pub mod affinity;
pub mod candidates;
pub mod locality;
pub mod slots;
pub mod table;
pub mod warmup;

pub use affinity::{Affinity, MadeCookie, affinity};
pub use candidates::Candidates;
pub use slots::{expand, flatten};
pub use table::Table;

/// An endpoint of `cluster` for a client that dialled this family; `None` = there is none (503 UH).
/// `cursor` counts the picks of this worker for this cluster, `roll` is uniformly random, `active` tells the requests
/// under way to an endpoint. Every endpoint weighs the same, and none is left out: [`Candidates`] is for the rest.
pub fn pick(
    cluster: &Cluster,
    ipv6: bool,
    cursor: u64,
    roll: u64,
    active: impl Fn(SocketAddr) -> u32,
) -> Option<SocketAddr> {
    let endpoints = cluster.endpoints_for(ipv6);
    let at = |n: u64| endpoints.get((n % endpoints.len() as u64) as usize).copied();
    if endpoints.len() < 2 {
        return endpoints.first().copied();
    }
    match cluster.policy.simple() {
        LoadBalancer::RoundRobin => at(cursor),
        LoadBalancer::Random => at(roll),
        LoadBalancer::LeastRequest | LoadBalancer::Passthrough => {
            let (first, second) = candidates::two_different(roll, endpoints.len() as u64);
            let (a, b) = (at(first)?, at(second)?);
            Some(if active(b) < active(a) { b } else { a })
        }
    }
}

/// splitmix64: bits for another use of a number, independent of the number itself and of those of other uses.
pub(crate) fn mix(number: u64, salt: u64) -> u64 {
    let mut bits = number.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
