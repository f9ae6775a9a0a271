//! The maps by name, type and size: what the programs declare, what the agent adopts, what `bpftool` lists.
//!
//! Names are at most 15 characters, the kernel's limit; longer ones would be cut silently.

use crate::types::{Backend, FlowKey, Health, Meta, OriginalDestination, Pod, Service, ServiceCounters, ServiceKey};

/// Network namespace cookie (u64) → [`Pod`].
pub const PODS: &str = "weir_pods";
/// [`ServiceKey`] → [`Service`].
pub const SERVICES: &str = "weir_services";
/// Slot (u32) → group and backend index ([`crate::slot`]).
pub const SLOTS: &str = "weir_slots";
/// Backend index (u32) → [`Backend`].
pub const BACKENDS: &str = "weir_backends";
/// Backend index (u32) → [`Health`].
pub const HEALTH: &str = "weir_health";
/// Socket storage → [`OriginalDestination`].
pub const ORIGDST: &str = "weir_origdst";
/// [`FlowKey`] → [`OriginalDestination`].
pub const FLOWS: &str = "weir_flows";
/// Cgroup id (u64) → agent (u32).
pub const AGENTS: &str = "weir_agents";
/// [`crate::Counter`] → u64 per CPU.
pub const COUNTERS: &str = "weir_counters";
/// Service index → [`ServiceCounters`] per CPU; the agent makes the entry, the programs only add to it.
pub const CONNS: &str = "weir_conns";
/// 0 → [`Meta`].
pub const META: &str = "weir_meta";

/// Pods of one node: the kubelet's own limit is far below.
pub const PODS_MAX: usize = 4096;
/// Service ports times addresses times views. 10,000 services of two ports in two families, and as much again.
pub const SERVICES_MAX: usize = 81_920;
/// 8 MiB of slots (arrays have a stride of 8 bytes); a service that finds no room is a problem line of `weir status`.
pub const SLOTS_MAX: usize = 1 << 20;
/// Endpoint addresses times ports.
pub const BACKENDS_MAX: usize = 131_072;
/// Connections between connect() and accept(): far above any accept queue.
pub const FLOWS_MAX: usize = 65_536;
/// Cgroups of agents, old ones included until they are swept.
pub const AGENTS_MAX: usize = 64;
/// Service ports that have counters of their own.
pub const CONNS_MAX: usize = 32_768;

/// `BPF_MAP_TYPE_*` of the types that we use.
pub mod kind {
    /// BPF_MAP_TYPE_HASH
    pub const HASH: u32 = 1;
    /// BPF_MAP_TYPE_ARRAY
    pub const ARRAY: u32 = 2;
    /// BPF_MAP_TYPE_PERCPU_HASH
    pub const PERCPU_HASH: u32 = 5;
    /// BPF_MAP_TYPE_PERCPU_ARRAY
    pub const PERCPU_ARRAY: u32 = 6;
    /// BPF_MAP_TYPE_LRU_HASH
    pub const LRU_HASH: u32 = 9;
    /// BPF_MAP_TYPE_SK_STORAGE
    pub const SK_STORAGE: u32 = 24;
}

/// `BPF_F_*` map flags that we use.
pub mod flag {
    /// BPF_F_NO_PREALLOC: memory as entries come. Socket storage requires it.
    pub const NO_PREALLOC: u32 = 1;
    /// BPF_F_MMAPABLE: the agent reads and writes without a system call.
    pub const MMAPABLE: u32 = 0x400;
}

/// The shape of one map, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its name, and the name of its pin.
    pub name: &'static str,
    /// `kind::*`
    pub kind: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries at most; 0 for socket storage.
    pub max_entries: u32,
    /// `flag::*`
    pub flags: u32,
}

const fn shape(
    name: &'static str,
    kind: u32,
    key_size: usize,
    value_size: usize,
    max_entries: usize,
    flags: u32,
) -> Shape {
    Shape {
        name,
        kind,
        key_size: key_size as u32,
        value_size: value_size as u32,
        max_entries: max_entries as u32,
        flags,
    }
}

/// Every map of the object. A pin that differs from it is not adopted.
pub const ALL: &[Shape] = &[
    shape(PODS, kind::HASH, 8, size_of::<Pod>(), PODS_MAX, flag::NO_PREALLOC),
    shape(SERVICES, kind::HASH, size_of::<ServiceKey>(), size_of::<Service>(), SERVICES_MAX, flag::NO_PREALLOC),
    shape(SLOTS, kind::ARRAY, 4, 4, SLOTS_MAX, flag::MMAPABLE),
    shape(BACKENDS, kind::ARRAY, 4, size_of::<Backend>(), BACKENDS_MAX, flag::MMAPABLE),
    shape(HEALTH, kind::ARRAY, 4, size_of::<Health>(), BACKENDS_MAX, flag::MMAPABLE),
    shape(ORIGDST, kind::SK_STORAGE, 4, size_of::<OriginalDestination>(), 0, flag::NO_PREALLOC),
    shape(FLOWS, kind::LRU_HASH, size_of::<FlowKey>(), size_of::<OriginalDestination>(), FLOWS_MAX, 0),
    shape(AGENTS, kind::HASH, 8, 4, AGENTS_MAX, 0),
    shape(COUNTERS, kind::PERCPU_ARRAY, 4, 8, crate::Counter::Count as usize, 0),
    shape(CONNS, kind::PERCPU_HASH, 4, size_of::<ServiceCounters>(), CONNS_MAX, flag::NO_PREALLOC),
    shape(META, kind::ARRAY, 4, size_of::<Meta>(), 1, flag::MMAPABLE),
];

/// Every program of the object.
pub const PROGRAMS: &[&str] = &["weir_connect4", "weir_connect6", "weir_peername4", "weir_peername6", "weir_sockops"];

/// FNV-1a over the shapes and the version: two builds that disagree about a map have different hashes.
pub const fn abi_hash() -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    hash = mix(hash, crate::ABI_VERSION);
    let mut i = 0;
    while i < ALL.len() {
        let s = ALL[i];
        let name = s.name.as_bytes();
        let mut n = 0;
        while n < name.len() {
            hash = mix(hash, name[n] as u32);
            n += 1;
        }
        hash = mix(hash, s.kind);
        hash = mix(hash, s.key_size);
        hash = mix(hash, s.value_size);
        hash = mix(hash, s.max_entries);
        hash = mix(hash, s.flags);
        i += 1;
    }
    hash
}

const fn mix(hash: u32, value: u32) -> u32 {
    (hash ^ value).wrapping_mul(0x0100_0193)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_kernels_limit() {
        for s in ALL {
            assert!(s.name.len() <= 15, "{} would be cut", s.name);
        }
    }
}
