//! What the maps hold, as far as the agent must know it: a mirror of `weir_services` with the owners of slots, backends
//! and service indices. Rebuilt from the maps after a restart. Used by `apply`; talks to the kernel through [`Maps`].

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use weir_ebpf::{Backend, EMPTY_SLOT, Service, ServiceKey, SlotRange, maps, slot_backend};
use weir_mesh::plan::{PlannedService, Verdict, WeightedGroup};

use super::backends::Backends;
use super::indexes::Indexes;
use super::slots::Slots;

/// The kernel's maps as `apply` writes them.
pub(super) trait Maps {
    /// Writes an entry of `weir_backends`.
    fn set_backend(&mut self, index: u32, value: &Backend) -> io::Result<()>;
    /// Writes slots; they must be visible to hooks before the next call returns.
    fn write_slots(&mut self, offset: u32, slots: &[u32]);
    /// Reads one slot.
    fn slot(&self, at: u32) -> u32;
    /// Writes an entry of `weir_services`: the flip.
    fn set_service(&mut self, key: &ServiceKey, value: &Service) -> io::Result<()>;
    /// Deletes it; one that is not there is no error.
    fn remove_service(&mut self, key: &ServiceKey) -> io::Result<()>;
    /// Makes the counters of a service index, at zero, unless they are there.
    fn add_counters(&mut self, index: u32) -> io::Result<()>;
    /// Deletes them; none is no error.
    fn remove_counters(&mut self, index: u32) -> io::Result<()>;
}

/// What the maps of a former agent held.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    /// `weir_services`.
    pub(super) services: Vec<(ServiceKey, Service)>,
    /// Keys of `weir_conns`.
    pub(super) counters: Vec<u32>,
}

/// The mirror.
#[derive(Debug)]
pub(super) struct State {
    pub(super) services: HashMap<ServiceKey, Held, foldhash::fast::RandomState>,
    pub(super) slots: Slots,
    pub(super) backends: Backends,
    pub(super) indexes: Indexes,
}

/// An entry of `weir_services`.
#[derive(Debug)]
pub(super) struct Held {
    /// As the kernel has it.
    pub(super) value: Service,
    /// The part of the plan that it came from; `None` after adoption, until a plan is seen to mean the same.
    pub(super) planned: Option<Arc<PlannedService>>,
    /// The range that is ours to retire: one of the two in `value`, or nothing.
    pub(super) range: SlotRange,
}

/// Whether two parts of plans come to the same entry.
pub(super) fn means(one: &Arc<PlannedService>, other: &Arc<PlannedService>) -> bool {
    Arc::ptr_eq(one, other)
        || (one.verdict == other.verdict && one.on_failure == other.on_failure && groups(one) == groups(other))
}

/// The groups that a verdict uses: a port owns one range, its slots or its fallback.
pub(super) fn groups(service: &PlannedService) -> &[WeightedGroup] {
    match service.verdict {
        Verdict::Balance => &service.slots,
        Verdict::Proxy => &service.fallback,
        Verdict::Pass | Verdict::Reject => &[],
    }
}

impl State {
    /// Nothing in the maps yet.
    pub(super) fn new() -> Self {
        Self {
            services: HashMap::default(),
            slots: Slots::new(maps::SLOTS_MAX as u32),
            backends: Backends::new(maps::BACKENDS_MAX as u32),
            indexes: Indexes::default(),
        }
    }

    /// Takes over what a former agent left. Its resting ranges and indices count as free at once: no hook that began
    /// under it still runs when a new process has loaded the programs anew.
    pub(super) fn adopt(adopted: Adopted, slot: impl Fn(u32) -> u32, backend: impl Fn(u32) -> Option<Backend>) -> Self {
        let mut state = Self::new();
        for (key, value) in adopted.services {
            state.indexes.adopt(value.index);
            let range = if value.slots.length > 0 { value.slots } else { value.fallback };
            let range = if state.slots.reserve(range.offset, range.length) { range } else { SlotRange::default() };
            for at in range.offset..range.offset + range.length {
                let slot = slot(at);
                if slot != EMPTY_SLOT {
                    let index = slot_backend(slot);
                    // An index out of bounds cannot match any plan, so the first one rewrites the service.
                    state.backends.adopt(index, || backend(index));
                }
            }
            state.services.insert(key, Held { value, planned: None, range });
        }
        for index in adopted.counters {
            state.indexes.adopt_counters(index);
        }
        state.backends.adopted();
        state
    }

    /// Gives up what one slot names.
    pub(super) fn release(&mut self, slot: u32, now: Instant) {
        if slot != EMPTY_SLOT {
            self.backends.release(slot_backend(slot), now);
        }
    }

    /// Gives up a range and what its slots name.
    pub(super) fn retire(&mut self, range: SlotRange, now: Instant, slot: impl Fn(u32) -> u32) {
        for at in range.offset..range.offset + range.length {
            self.release(slot(at), now);
        }
        self.slots.retire(range.offset, range.length, now);
    }
}
