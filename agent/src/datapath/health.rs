//! `weir_health`: which backends the connect hook passes over, because the proxy has ejected their endpoints. Whoever
//! ejects tells it here, on any thread and without waiting for a plan that is being carried out; `kernel` asks for it when
//! a backend index gets its endpoint. `app` joins it with the proxy.
//!
//! What is written stays when the agent ends, and ends by itself: the hook compares with the clock. The next agent reads
//! it, so that an endpoint stays ejected over a restart, in the kernel and in the proxy.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_ebpf::{Backend, maps};

use super::address;
use super::agents::monotonic_ns;
use super::memory::{BackendMemory, HealthMemory};
use super::reign::Reign;

/// An endpoint that is out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejected {
    /// Which.
    pub endpoint: SocketAddr,
    /// CLOCK_MONOTONIC, in ns.
    pub until_ns: u64,
    /// By how many times its base time it was ejected.
    pub times: u32,
}

/// See the module. Clones are the same table.
#[derive(Clone, Debug)]
pub struct HealthTable(Arc<Table>);

#[derive(Debug)]
struct Table {
    health: HealthMemory,
    backends: BackendMemory,
    reign: Reign,
    /// One more than the highest index that has ever been used.
    used: AtomicU32,
    /// What this agent knows to be ejected, with an index or without: until when, and how often.
    known: Mutex<Known>,
}

type Known = HashMap<SocketAddr, (u64, u32), foldhash::fast::RandomState>;

impl HealthTable {
    pub(super) fn new(health: HealthMemory, backends: BackendMemory, reign: Reign) -> Self {
        let used = (0..maps::BACKENDS_MAX as u32).rev().find(|index| backends.get(*index).in_use != 0);
        let used = AtomicU32::new(used.map_or(0, |index| index + 1));
        let table = Self(Arc::new(Table { health, backends, reign, used, known: Mutex::default() }));
        let found = table.ejected().into_iter().map(|one| (one.endpoint, (one.until_ns, one.times)));
        table.known().extend(found);
        table
    }

    /// Says that an endpoint is not to be picked before `until_ns` (CLOCK_MONOTONIC). Looks through the backends, which
    /// takes 2 µs for each thousand; while another agent is in charge it is kept until this one is.
    pub fn eject(&self, Ejected { endpoint, until_ns, times }: Ejected) {
        let endpoint = SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
        let now = monotonic_ns();
        {
            let mut known = self.known();
            known.retain(|_, (until, _)| now < *until);
            known.insert(endpoint, (until_ns, times));
        }
        // One that cannot tell writes nothing: the indices may mean other endpoints now.
        if self.0.reign.is_in_charge().unwrap_or(false) {
            let wanted = address::backend(endpoint);
            for index in self.indices().filter(|index| self.0.backends.get(*index) == wanted) {
                self.0.health.set(index, until_ns, times);
            }
        }
    }

    /// The backends that are ejected at the moment.
    pub fn ejected(&self) -> Vec<Ejected> {
        let now = monotonic_ns();
        let ejected = self.indices().filter_map(|index| {
            let (until_ns, times) = self.0.health.get(index);
            let backend = self.0.backends.get(index);
            let endpoint = address::endpoint(&backend.address, backend.port);
            (now < until_ns && backend.in_use == 1).then_some(Ejected { endpoint, until_ns, times })
        });
        ejected.collect()
    }

    /// An index has got its endpoint, or none: what was known of the former one goes.
    pub(super) fn named(&self, index: u32, backend: &Backend) {
        self.0.used.fetch_max(index.saturating_add(1), Ordering::Relaxed);
        let endpoint = address::endpoint(&backend.address, backend.port);
        let known = self.known();
        let (until_ns, times) = known.get(&endpoint).copied().filter(|_| backend.in_use == 1).unwrap_or_default();
        self.0.health.set(index, until_ns, times);
    }

    /// This agent is in charge: what it has learnt before is in force.
    pub(super) fn publish(&self) {
        let known = self.known();
        if known.is_empty() {
            return;
        }
        for index in self.indices() {
            let backend = self.0.backends.get(index);
            let endpoint = address::endpoint(&backend.address, backend.port);
            if let Some((until_ns, times)) = known.get(&endpoint).filter(|_| backend.in_use == 1) {
                self.0.health.set(index, *until_ns, *times);
            }
        }
    }

    fn indices(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.0.used.load(Ordering::Relaxed)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
