//! Which index of `weir_backends` stands for which endpoint. Pure; used by `state`.
//!
//! An index counts the slots that name it. At zero it rests for [`REUSE_GRACE`], because a running hook may have read
//! it from a slot already; within that time it still means the same endpoint, and comes back to life when asked for.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::time::Instant;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use weir_ebpf::{Address, Backend};

use super::address;
use super::slots::REUSE_GRACE;

/// An endpoint as the kernel has it: half as large as a [`SocketAddr`], and a large cluster has a hundred thousand.
type Endpoint = (Address, u16);

/// The indices of one backend array.
#[derive(Debug)]
pub(super) struct Backends {
    /// Indices by the endpoint of their entry, which is not there twice.
    by_endpoint: HashTable<u32>,
    hasher: RandomState,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Since when, which index, and which of its retirements that was; the oldest first.
    resting: VecDeque<(Instant, u32, u32)>,
    limit: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Means something while `known`.
    endpoint: Endpoint,
    /// False = the index is free, or its entry in the kernel was unreadable.
    known: bool,
    /// The kernel has it.
    written: bool,
    /// Slots that name it.
    references: u32,
    /// How often it was given up since it has meant this endpoint.
    retirements: u32,
}

impl Entry {
    const UNKNOWN: Self =
        Self { endpoint: (weir_ebpf::ANY_ADDRESS, 0), known: false, written: true, references: 0, retirements: 0 };
}

fn packed(endpoint: &SocketAddr) -> Endpoint {
    (address::mapped(endpoint.ip()), endpoint.port())
}

/// What [`Backends::acquire`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acquired {
    /// The index.
    pub(super) index: u32,
    /// The kernel does not know it yet.
    pub(super) fresh: bool,
}

impl Backends {
    /// Room for `limit` endpoints.
    pub(super) fn new(limit: u32) -> Self {
        Self {
            by_endpoint: HashTable::new(),
            hasher: RandomState::default(),
            entries: Vec::new(),
            free: Vec::new(),
            resting: VecDeque::new(),
            limit,
        }
    }

    /// Counts one slot that an adopted service has; `read` asks the kernel at the first sight of an index.
    /// False when the index is out of bounds.
    pub(super) fn adopt(&mut self, index: u32, read: impl FnOnce() -> Option<Backend>) -> bool {
        if index >= self.limit {
            return false;
        }
        while self.entries.len() <= index as usize {
            self.entries.push(Entry::UNKNOWN);
        }
        let entry = &mut self.entries[index as usize];
        if entry.references == 0 {
            if let Some(backend) = read().filter(|backend| backend.in_use != 0) {
                entry.endpoint = (backend.address, backend.port);
                entry.known = true;
            }
            self.remember(index);
        }
        self.entries[index as usize].references += 1;
        true
    }

    /// Ends adoption: what nobody named is free.
    pub(super) fn adopted(&mut self) {
        let unnamed = self.entries.iter().enumerate().filter(|(_, e)| e.references == 0);
        self.free = unnamed.map(|(i, _)| i as u32).rev().collect();
    }

    /// The index of an endpoint that has one.
    pub(super) fn find(&self, endpoint: &SocketAddr) -> Option<u32> {
        let endpoint = packed(endpoint);
        let same = |index: &u32| self.entries[*index as usize].endpoint == endpoint;
        self.by_endpoint.find(self.hasher.hash_one(endpoint), same).copied()
    }

    /// An index for one slot; `None` when all are taken or resting.
    pub(super) fn acquire(&mut self, endpoint: SocketAddr) -> Option<Acquired> {
        if let Some(index) = self.find(&endpoint) {
            let entry = &mut self.entries[index as usize];
            entry.references += 1;
            return Some(Acquired { index, fresh: !entry.written });
        }
        let endpoint = packed(&endpoint);
        let entry = Entry { endpoint, known: true, written: false, references: 1, retirements: 0 };
        let index = if let Some(index) = self.free.pop() {
            self.entries[index as usize] = entry;
            index
        } else if (self.entries.len() as u32) < self.limit {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        } else {
            return None;
        };
        self.remember(index);
        Some(Acquired { index, fresh: true })
    }

    /// Makes an entry the one of its endpoint. Of several in adopted maps the last is.
    fn remember(&mut self, index: u32) {
        let Self { by_endpoint, hasher, entries, .. } = self;
        let endpoint_of = |index: u32| entries[index as usize].endpoint;
        if !entries[index as usize].known {
            return;
        }
        let hash = hasher.hash_one(endpoint_of(index));
        let same = |own: &u32| endpoint_of(*own) == endpoint_of(index);
        match by_endpoint.entry(hash, same, |own| hasher.hash_one(endpoint_of(*own))) {
            hashbrown::hash_table::Entry::Occupied(mut held) => *held.get_mut() = index,
            hashbrown::hash_table::Entry::Vacant(free) => drop(free.insert(index)),
        }
    }

    /// The kernel knows a fresh index now.
    pub(super) fn written(&mut self, index: u32) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.written = true;
        }
    }

    /// Forgets one slot.
    pub(super) fn release(&mut self, index: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(index as usize).filter(|e| e.references > 0) else { return };
        entry.references -= 1;
        if entry.references == 0 {
            entry.retirements = entry.retirements.wrapping_add(1);
            self.resting.push_back((now, index, entry.retirements));
        }
    }

    /// Frees the indices that have rested, and tells them, for the kernel to mark them unused.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<u32> {
        let mut freed = Vec::new();
        while let Some(&(since, index, retirement)) = self.resting.front() {
            if now.saturating_duration_since(since) < REUSE_GRACE {
                break;
            }
            self.resting.pop_front();
            let entry = &mut self.entries[index as usize];
            // Used again in between, and perhaps retired again: that retirement has a later entry of its own.
            if entry.references > 0 || entry.retirements != retirement {
                continue;
            }
            if std::mem::take(&mut entry.known) {
                let hash = self.hasher.hash_one(entry.endpoint);
                if let Ok(found) = self.by_endpoint.find_entry(hash, |own| *own == index) {
                    found.remove();
                }
            }
            self.free.push(index);
            freed.push(index);
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn endpoint(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 80))
    }

    #[test]
    fn an_index_rests_before_it_means_another_endpoint() {
        let mut backends = Backends::new(1);
        let start = Instant::now();
        assert_eq!(backends.acquire(endpoint(1)), Some(Acquired { index: 0, fresh: true }));
        backends.written(0);
        assert_eq!(backends.acquire(endpoint(1)), Some(Acquired { index: 0, fresh: false }));
        backends.release(0, start);
        assert_eq!(backends.expire(start + 2 * REUSE_GRACE), Vec::<u32>::new(), "one slot still names it");
        backends.release(0, start);
        assert_eq!(backends.acquire(endpoint(2)), None);
        assert_eq!(backends.expire(start + REUSE_GRACE), vec![0]);
        assert_eq!(backends.acquire(endpoint(2)), Some(Acquired { index: 0, fresh: true }));
        assert_eq!(backends.find(&endpoint(1)), None);
    }

    #[test]
    fn a_resting_index_comes_back_to_life_and_rests_anew() {
        let mut backends = Backends::new(8);
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        backends.acquire(endpoint(1)).unwrap();
        backends.release(0, start);
        assert_eq!(backends.acquire(endpoint(1)), Some(Acquired { index: 0, fresh: true }), "its write had failed");
        backends.release(0, later);
        assert!(backends.expire(start + REUSE_GRACE).is_empty(), "the first retirement was taken back");
        assert_eq!(backends.expire(later + REUSE_GRACE), vec![0]);
    }

    #[test]
    fn adoption_keeps_what_slots_name_and_frees_the_rest() {
        let mut backends = Backends::new(4);
        let kernel = |n: u8| Some(Backend { address: weir_ebpf::v4_mapped([10, 0, 0, n]), port: 80, in_use: 1 });
        assert!(backends.adopt(2, || kernel(2)));
        assert!(backends.adopt(2, || unreachable!("read once")));
        assert!(!backends.adopt(4, || kernel(4)));
        backends.adopted();
        assert_eq!(backends.find(&endpoint(2)), Some(2));
        let mut indices: Vec<u32> = (10..13).map(|n| backends.acquire(endpoint(n)).unwrap().index).collect();
        indices.sort_unstable();
        assert_eq!(indices, [0, 1, 3]);
        assert_eq!(backends.acquire(endpoint(13)), None);
    }

    #[test]
    fn of_two_adopted_indices_of_one_endpoint_the_one_that_goes_leaves_the_other() {
        let mut backends = Backends::new(4);
        let start = Instant::now();
        let kernel = || Some(Backend { address: weir_ebpf::v4_mapped([10, 0, 0, 1]), port: 80, in_use: 1 });
        assert!(backends.adopt(0, kernel));
        assert!(backends.adopt(1, kernel));
        assert!(backends.adopt(2, || None), "an unreadable entry is nobody's");
        backends.adopted();
        assert_eq!(backends.find(&endpoint(1)), Some(1));
        backends.release(0, start);
        assert_eq!(backends.expire(start + REUSE_GRACE), vec![0]);
        assert_eq!(backends.find(&endpoint(1)), Some(1));
        backends.release(1, start);
        assert_eq!(backends.expire(start + REUSE_GRACE), vec![1]);
        assert_eq!(backends.find(&endpoint(1)), None);
    }
}
