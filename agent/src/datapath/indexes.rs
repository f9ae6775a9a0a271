//! Which service index counts for which service port. Pure; used by `apply`.
//!
//! Names are not in the kernel, so after a restart an index is first only *adopted*; the first plan claims it for the
//! name at whose entry it is found, and what nobody claims is free again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// The service indices of one set of maps.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    by_name: HashMap<Arc<str>, u32, foldhash::fast::RandomState>,
    by_index: BTreeMap<u32, Arc<str>>,
    adopted: BTreeSet<u32>,
    /// Those that have counters in the kernel.
    counted: HashSet<u32, foldhash::fast::RandomState>,
    free: BTreeSet<u32>,
    next: u32,
}

impl Indexes {
    /// An index that a service in the kernel has.
    pub(super) fn adopt(&mut self, index: u32) {
        self.adopted.insert(index);
    }

    /// An index that has counters in the kernel.
    pub(super) fn adopt_counters(&mut self, index: u32) {
        self.adopted.insert(index);
        self.counted.insert(index);
    }

    /// Gives an adopted index to the name at whose entry it was found, unless one of the two has a mate already.
    pub(super) fn claim(&mut self, name: &Arc<str>, index: u32) {
        if !self.by_name.contains_key(name) && self.adopted.remove(&index) {
            self.name(name, index);
        }
    }

    /// The index of a name; the lowest free one when it has none.
    pub(super) fn get(&mut self, name: &Arc<str>) -> u32 {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = self.free.pop_first().unwrap_or_else(|| {
            while self.adopted.contains(&self.next) || self.by_index.contains_key(&self.next) {
                self.next += 1;
            }
            self.next += 1;
            self.next - 1
        });
        self.name(name, index);
        index
    }

    /// True once per index, until [`Self::retain`] drops it: its counters are to be made.
    pub(super) fn wants_counters(&self, index: u32) -> bool {
        !self.counted.contains(&index)
    }

    /// Its counters are there.
    pub(super) fn has_counters(&mut self, index: u32) {
        self.counted.insert(index);
    }

    /// Frees the indices of names that `keep` does not know and of adopted ones that nobody claimed; returns those
    /// that have counters to be deleted.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) -> Vec<u32> {
        let gone: Vec<u32> = self.by_index.iter().filter(|(_, n)| !keep(n)).map(|(i, _)| *i).collect();
        for index in &gone {
            if let Some(name) = self.by_index.remove(index) {
                self.by_name.remove(&name);
            }
        }
        let unclaimed = std::mem::take(&mut self.adopted);
        let mut counted = Vec::new();
        for index in gone.into_iter().chain(unclaimed) {
            if index < self.next {
                self.free.insert(index);
            }
            if self.counted.remove(&index) {
                counted.push(index);
            }
        }
        counted
    }

    /// Names by index.
    pub(super) fn names(&self) -> impl Iterator<Item = (u32, &Arc<str>)> {
        self.by_index.iter().map(|(i, n)| (*i, n))
    }

    fn name(&mut self, name: &Arc<str>, index: u32) {
        self.by_name.insert(Arc::clone(name), index);
        self.by_index.insert(index, Arc::clone(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_dense_and_stable() {
        let mut indexes = Indexes::default();
        let (a, b, c): (Arc<str>, Arc<str>, Arc<str>) = ("a".into(), "b".into(), "c".into());
        assert_eq!((indexes.get(&a), indexes.get(&b), indexes.get(&a)), (0, 1, 0));
        indexes.has_counters(0);
        assert_eq!(indexes.retain(|n| n == "b"), [0]);
        assert_eq!((indexes.get(&c), indexes.get(&b)), (0, 1));
        assert!(indexes.wants_counters(0));
    }

    #[test]
    fn adopted_indices_stay_with_their_entry() {
        let mut indexes = Indexes::default();
        let (a, b, c): (Arc<str>, Arc<str>, Arc<str>) = ("a".into(), "b".into(), "c".into());
        indexes.adopt_counters(7);
        indexes.adopt_counters(0);
        indexes.adopt(1);
        indexes.claim(&a, 7);
        indexes.claim(&b, 7);
        assert_eq!((indexes.get(&a), indexes.get(&b)), (7, 2), "0 and 1 may be claimed yet");
        assert!(!indexes.wants_counters(7));
        assert_eq!(indexes.retain(|_| true), [0], "1 has no counters");
        assert_eq!(indexes.get(&c), 0);
        let rest: Vec<u32> = ["d", "e", "f", "g", "h", "i"].iter().map(|n| indexes.get(&(*n).into())).collect();
        assert_eq!(rest, [1, 3, 4, 5, 6, 8]);
    }
}
