//! The ABI between weir's kernel programs and the agent: map names, keys, values, sizes and flags.
//!
//! Used by the programs beside it (`src/main.rs`), by the agent's `datapath` module, and by `xtask` to check the built
//! object. No logic of its own but the constructors that both sides must agree on.
//!
//! Conventions, checked by the tests at the end:
//! - Addresses are 16 bytes in network order; IPv4 is v4-mapped (`::ffff:a.b.c.d`), so one key serves both families
//!   and an IPv6 socket that dials a mapped address meets the same entry. All zero means "any address".
//! - Ports are host byte order, so that `bpftool map dump` shows what a person would type.
//! - No implicit padding: a hash map compares keys as bytes.
#![no_std]
#![expect(clippy::inline_always, reason = "a call between kernel programs is a subprogram, with limits of its own")]

pub mod maps;
pub mod types;

pub use types::*;

/// Changes whenever a key, a value or the meaning of either changes; pins live under `vABI_VERSION`.
pub const ABI_VERSION: u32 = 2;

/// How long a heartbeat vouches for an agent, in nanoseconds: five times the beat of 100 ms, so that one late beat on
/// a busy machine is not a death, and a hung agent is left within half a second.
pub const HEARTBEAT_TIMEOUT_NS: u64 = 500_000_000;

/// The largest range of weighted slots: 1 / 4096 is a split error of 0.024 points.
pub const MAX_SLOT_RANGE: u32 = 4096;

/// The smallest range: below it, a range saves no memory worth having.
pub const MIN_SLOT_RANGE: u32 = 16;

/// A slot without an endpoint: it belongs to a group of endpoints that is empty.
pub const EMPTY_SLOT: u32 = u32::MAX;

/// Bits of a slot that are its backend's index. Those above number its group within the range, so that what an ejected
/// endpoint does not get stays with its own version: 4,096 slots have no more groups than that.
pub const SLOT_BACKEND_BITS: u32 = 17;

/// A slot: the number of its group, and its backend.
#[inline(always)]
pub const fn slot(group: u32, backend: u32) -> u32 {
    (group % MAX_SLOT_RANGE) << SLOT_BACKEND_BITS | slot_backend(backend)
}

/// The index of a slot's backend; of [`EMPTY_SLOT`] it means nothing.
#[inline(always)]
pub const fn slot_backend(slot: u32) -> u32 {
    slot & ((1 << SLOT_BACKEND_BITS) - 1)
}

/// Whether two slots are of one group.
#[inline(always)]
pub const fn is_one_group(slot: u32, other: u32) -> bool {
    slot >> SLOT_BACKEND_BITS == other >> SLOT_BACKEND_BITS
}

const _: () = {
    assert!(maps::BACKENDS_MAX <= 1 << SLOT_BACKEND_BITS);
    // The highest group's last backend is not the empty slot.
    assert!(slot(MAX_SLOT_RANGE - 1, u32::MAX) != EMPTY_SLOT);
};

/// Agents that can be alive at once on one set of maps: old and new during an upgrade, and two to spare.
pub const MAX_AGENTS: u32 = 4;
