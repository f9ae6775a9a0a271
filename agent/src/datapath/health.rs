//! `weir_health`: which backends the connect hook passes over, because the proxy has ejected their endpoints. `app` tells
//! it here, on a thread that serves nobody and without waiting for a plan that is being carried out; `kernel` asks for it
//! when a backend index gets its endpoint.
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
    /// One more than the highest index that has ever been used, by this agent or by those before it.
    used: AtomicU32,
    /// What this agent knows to be ejected, with an index or without: until when, and how often.
    known: Mutex<Known>,
}

type Known = HashMap<SocketAddr, (u64, u32), foldhash::fast::RandomState>;

impl HealthTable {
    pub(super) fn new(health: HealthMemory, backends: BackendMemory, reign: Reign) -> Self {
        let used = AtomicU32::default();
        let table = Self(Arc::new(Table { health, backends, reign, used, known: Mutex::default() }));
        table.count();
        let found = table.ejected().into_iter().map(|one| (one.endpoint, (one.until_ns, one.times)));
        table.known().extend(found);
        table
    }

    /// Says that endpoints are not to be picked before `until_ns` (CLOCK_MONOTONIC); 0 = one is in use again. The last word
    /// on an endpoint counts. Looks through the backends once, which takes 2 µs for each thousand; while another agent is
    /// in charge it is kept until this one is. Not for threads that serve: it waits for others, and asks the kernel who is
    /// in charge.
    pub fn tell(&self, told: &[Ejected]) {
        let now = monotonic_ns();
        let mut known = self.known();
        known.retain(|_, (until, _)| now < *until);
        let mut wanted = Known::default();
        for Ejected { endpoint, until_ns, times } in told {
            let endpoint = SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
            match until_ns {
                0 => known.remove(&endpoint),
                _ => known.insert(endpoint, (*until_ns, *times)),
            };
            wanted.insert(endpoint, (*until_ns, *times));
        }
        self.write(&known, &wanted);
    }

    /// Writes what is to be said of these endpoints where they have an index. With the guard no index gets another
    /// endpoint in between unseen: [`Self::named`] comes after the backend was written, waits for it, and has the last word.
    fn write(&self, _known: &MutexGuard<'_, Known>, wanted: &Known) {
        // One that cannot tell writes nothing: the indices may mean other endpoints now. One that is in charge from here on
        // publishes what is known by then.
        if !self.0.reign.is_in_charge().unwrap_or(false) {
            return;
        }
        for index in self.indices() {
            let backend = self.0.backends.get(index);
            let endpoint = address::endpoint(&backend.address, backend.port);
            if let Some((until_ns, times)) = wanted.get(&endpoint).filter(|_| backend.in_use == 1) {
                self.0.health.set(index, *until_ns, *times);
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

    /// An index has got its endpoint, or none: what it said of the former one goes.
    pub(super) fn named(&self, index: u32, backend: &Backend) {
        self.0.used.fetch_max(index.saturating_add(1), Ordering::Relaxed);
        let endpoint = address::endpoint(&backend.address, backend.port);
        let known = self.known();
        let (until_ns, times) = known.get(&endpoint).copied().filter(|_| backend.in_use == 1).unwrap_or_default();
        self.0.health.set(index, until_ns, times);
    }

    /// This agent is in charge, and its mirror is that of the maps: what it has learnt before is in force, at the indices
    /// that others have given out meanwhile, too.
    pub(super) fn publish(&self) {
        self.count();
        let known = self.known();
        if !known.is_empty() {
            self.write(&known, &known);
        }
    }

    fn count(&self) {
        let used = (0..maps::BACKENDS_MAX as u32).rev().find(|index| self.0.backends.get(*index).in_use != 0);
        self.0.used.fetch_max(used.map_or(0, |index| index + 1), Ordering::Relaxed);
    }

    fn indices(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.0.used.load(Ordering::Relaxed)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
