//! Which endpoint a connection goes to that the kernel balances: a random slot's, unless that is ejected and another one
//! of its group is not. Called by `connect`.
//!
//! Slots of a group lie side by side, its endpoints taking turns, so that others of it are found around the first one. How
//! many are looked at is bounded, for the verifier and for the caller of connect(). If all of these are ejected, the first
//! is taken: an endpoint that may work is better than none, and another version is not the answer.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use weir_ebpf::maps::SLOTS_MAX;
use weir_ebpf::{Counter, EMPTY_SLOT, SlotRange, is_one_group, slot_backend};

use super::{Words, count, maps, to_words};

/// Slots around the first one that are tried by chance, so that neighbours of an ejected endpoint do not get all of its
/// share. One random number has bits for six.
const BY_CHANCE: u32 = 6;
/// How far they may be: 5 bits.
const SPREAD: u32 = 32;
/// Slots on either side that are tried in order after that, for groups that are small, or ejected for the most part.
const IN_ORDER: u32 = 16;

/// Address and port of a backend. `None` when the range is empty or makes no sense, when the slot says "no endpoint", or
/// when its backend is not in use.
#[inline(always)]
pub(super) fn pick(range: SlotRange) -> Option<(Words, u16)> {
    const SLOTS: u32 = SLOTS_MAX as u32;
    if range.length == 0 || range.length > SLOTS || range.offset > SLOTS - range.length {
        return None;
    }
    // SAFETY: a call without memory.
    let at = unsafe { bpf_get_prandom_u32() } % range.length;
    let first = slot(range.offset + at)?;
    if first == EMPTY_SLOT {
        return None;
    }
    let mut index = slot_backend(first);
    // Almost always zero, and then the clock is not read.
    if ejected_until(index) != 0 {
        // SAFETY: a call without memory.
        let now = unsafe { bpf_ktime_get_ns() };
        if now < ejected_until(index) {
            if let Some(other) = another(range, at, first, now) {
                count(Counter::EjectedAvoided);
                index = other;
            } else {
                count(Counter::EjectedPanic);
            }
        }
    }
    let backend = maps::BACKENDS.get(index)?;
    if backend.in_use != 1 {
        return None;
    }
    Some((to_words(&backend.address), backend.port))
}

/// A backend of the same group that is in use.
#[inline(always)]
fn another(range: SlotRange, at: u32, first: u32, now: u64) -> Option<u32> {
    // SAFETY: a call without memory.
    let mut random = unsafe { bpf_get_prandom_u32() };
    for _ in 0..BY_CHANCE {
        let to = at.wrapping_add(random % SPREAD).wrapping_sub(SPREAD / 2);
        random /= SPREAD;
        if let Some(index) = usable(range, to, first, now) {
            return Some(index);
        }
    }
    for distance in 1..=IN_ORDER {
        if let Some(index) = usable(range, at.wrapping_add(distance), first, now) {
            return Some(index);
        }
        if let Some(index) = usable(range, at.wrapping_sub(distance), first, now) {
            return Some(index);
        }
    }
    None
}

/// The backend of the slot `to` of the range, if it is of the group of `first` and in use.
#[inline(always)]
fn usable(range: SlotRange, to: u32, first: u32, now: u64) -> Option<u32> {
    if to >= range.length {
        return None;
    }
    let slot = slot(range.offset + to)?;
    let index = slot_backend(slot);
    (is_one_group(slot, first) && ejected_until(index) <= now).then_some(index)
}

#[inline(always)]
fn slot(at: u32) -> Option<u32> {
    let slot = maps::SLOTS.get_ptr(at)?;
    // SAFETY: a value of an array; volatile, because the agent writes it through its own mapping.
    Some(unsafe { read_volatile(slot) })
}

#[inline(always)]
fn ejected_until(index: u32) -> u64 {
    // SAFETY: as in `slot`.
    maps::HEALTH.get_ptr(index).map_or(0, |health| unsafe { read_volatile(addr_of!((*health).ejected_until)) })
}
