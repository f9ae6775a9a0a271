//! Which part of `weir_slots` belongs to whom: a buddy allocator of power-of-two ranges. Pure; used by `state`.
//!
//! A hook that is running while a service moves to another range may still read the old one, so a retired range rests
//! for [`REUSE_GRACE`] before somebody else's slots are written into it.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use weir_ebpf::{MAX_SLOT_RANGE, MIN_SLOT_RANGE};

/// How long a retired range or backend index rests. A hook runs for microseconds; two seconds leave room for a
/// preempted CPU and a stalled virtual machine.
pub const REUSE_GRACE: Duration = Duration::from_secs(2);

const MIN_ORDER: u32 = MIN_SLOT_RANGE.ilog2();
const MAX_ORDER: u32 = MAX_SLOT_RANGE.ilog2();
const ORDERS: usize = (MAX_ORDER - MIN_ORDER + 1) as usize;

/// The ranges of one slot array.
#[derive(Debug)]
pub(super) struct Slots {
    /// Offsets of free blocks, by order above [`MIN_ORDER`].
    free: [BTreeSet<u32>; ORDERS],
    /// Retired blocks, oldest first.
    resting: VecDeque<(Instant, u32, u32)>,
}

impl Slots {
    /// `total` slots, all free; a multiple of [`MAX_SLOT_RANGE`].
    pub(super) fn new(total: u32) -> Self {
        let mut free: [BTreeSet<u32>; ORDERS] = Default::default();
        free[ORDERS - 1] = (0..total / MAX_SLOT_RANGE).map(|i| i * MAX_SLOT_RANGE).collect();
        Self { free, resting: VecDeque::new() }
    }

    /// The offset of a range with room for `length` slots; `None` when there is none, or `length` is out of bounds.
    pub(super) fn allocate(&mut self, length: u32) -> Option<u32> {
        let order = order_of(length)?;
        let found = (order..=MAX_ORDER).find(|o| !self.list(*o).is_empty())?;
        let offset = self.list(found).pop_first()?;
        self.split(offset, found, order, offset);
        Some(offset)
    }

    /// Takes the range of an adopted service; false when it is not a whole free block, so somebody else has it.
    pub(super) fn reserve(&mut self, offset: u32, length: u32) -> bool {
        let Some(order) = order_of(length) else { return false };
        if !offset.is_multiple_of(1 << order) {
            return false;
        }
        let found = (order..=MAX_ORDER).find_map(|o| {
            let block = offset & !((1 << o) - 1);
            self.list(o).remove(&block).then_some((block, o))
        });
        let Some((block, from)) = found else { return false };
        self.split(block, from, order, offset);
        true
    }

    /// Gives a range up; it is free again after [`REUSE_GRACE`].
    pub(super) fn retire(&mut self, offset: u32, length: u32, now: Instant) {
        if let Some(order) = order_of(length) {
            self.resting.push_back((now, offset, order));
        }
    }

    /// Frees the ranges that have rested.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(since, offset, order)) = self.resting.front() {
            if now.saturating_duration_since(since) < REUSE_GRACE {
                break;
            }
            self.resting.pop_front();
            self.free_block(offset, order);
        }
    }

    /// How long until the next resting range is free; `None` when none rests.
    pub(super) fn next_release(&self, now: Instant) -> Option<Duration> {
        let (since, ..) = self.resting.front()?;
        Some((*since + REUSE_GRACE).saturating_duration_since(now))
    }

    fn list(&mut self, order: u32) -> &mut BTreeSet<u32> {
        &mut self.free[(order - MIN_ORDER) as usize]
    }

    /// Halves `block` from order `from` down to `order`, keeping the half with `wanted` each time.
    fn split(&mut self, mut block: u32, from: u32, order: u32, wanted: u32) {
        for half in (order..from).rev() {
            let upper = block + (1 << half);
            if wanted >= upper {
                self.list(half).insert(block);
                block = upper;
            } else {
                self.list(half).insert(upper);
            }
        }
    }

    fn free_block(&mut self, mut offset: u32, mut order: u32) {
        while order < MAX_ORDER && self.list(order).remove(&(offset ^ (1 << order))) {
            offset &= !(1 << order);
            order += 1;
        }
        self.list(order).insert(offset);
    }
}

fn order_of(length: u32) -> Option<u32> {
    (1..=MAX_SLOT_RANGE).contains(&length).then(|| length.next_power_of_two().max(MIN_SLOT_RANGE).ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_range_is_not_reused_within_the_grace() {
        let mut slots = Slots::new(MAX_SLOT_RANGE);
        let start = Instant::now();
        assert_eq!(slots.allocate(MAX_SLOT_RANGE), Some(0));
        slots.retire(0, MAX_SLOT_RANGE, start);
        slots.expire(start + (REUSE_GRACE / 2));
        assert_eq!(slots.allocate(1), None);
        assert_eq!(slots.next_release(start), Some(REUSE_GRACE));
        slots.expire(start + REUSE_GRACE);
        assert_eq!(slots.allocate(1), Some(0));
        assert_eq!(slots.next_release(start), None);
    }

    #[test]
    fn ranges_never_overlap_and_coalesce_when_all_are_back() {
        let mut slots = Slots::new(2 * MAX_SLOT_RANGE);
        let now = Instant::now();
        let mut owner = vec![false; 2 * MAX_SLOT_RANGE as usize];
        let mut held = Vec::new();
        for length in [16, 20, 300, 1, 33, 4096, 1000, 17].into_iter().cycle() {
            let Some(offset) = slots.allocate(length) else { break };
            for at in offset..offset + length {
                assert!(!std::mem::replace(&mut owner[at as usize], true), "slot {at} has two owners");
            }
            held.push((offset, length));
        }
        assert!(held.len() > 8);
        for (offset, length) in held {
            slots.retire(offset, length, now);
        }
        slots.expire(now + REUSE_GRACE);
        assert!(slots.allocate(MAX_SLOT_RANGE).is_some() && slots.allocate(MAX_SLOT_RANGE).is_some());
        assert_eq!(slots.allocate(1), None);
    }

    #[test]
    fn a_reserved_range_is_given_to_nobody_else() {
        let mut slots = Slots::new(MAX_SLOT_RANGE);
        assert!(slots.reserve(64, 20));
        assert!(!slots.reserve(64, 20), "twice");
        assert!(!slots.reserve(80, 16), "the second half of the block of 32");
        assert!(!slots.reserve(8, 16), "not aligned");
        assert!(!slots.reserve(0, 4096), "the whole");
        assert!(!slots.reserve(1 << 30, 16), "outside");
        let mut left = 0;
        while let Some(offset) = slots.allocate(16) {
            assert!(!(64..96).contains(&offset));
            left += 16;
        }
        assert_eq!(left, MAX_SLOT_RANGE - 32);
        assert_eq!(slots.allocate(0), None);
        assert_eq!(slots.allocate(MAX_SLOT_RANGE + 1), None);
    }
}
