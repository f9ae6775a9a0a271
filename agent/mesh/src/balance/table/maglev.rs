//! Maglev's table: every endpoint fills slots in an order of its own, in turn, until the table is full. A lookup is one
//! read; an endpoint that leaves moves few of the others' hashes.

use super::Member;
use crate::balance::mix;

/// Envoy's largest table: 20 MB.
const MAX_SLOTS: u64 = 5_000_011;
/// Other slots that are tried for the hash of an endpoint that is not usable, before the table is walked. With half of
/// the endpoints usable, one hash in a million gets there.
const PROBES: u64 = 20;

/// A slot that is not filled yet.
const FREE: u32 = u32::MAX;
/// Seeds of the two numbers that make an endpoint's order.
const OFFSET: u64 = 0;
const SKIP: u64 = 1;

/// See the module.
#[derive(Clone, Debug)]
pub struct Maglev {
    /// Positions of endpoints; empty without any.
    slots: Box<[u32]>,
}

struct Filler {
    /// The slot that it would take next.
    next: u64,
    skip: u64,
    /// Of the heaviest's weight; a slot is taken when it reaches `due`.
    weight: u64,
    earned: u128,
    due: u128,
    position: u32,
}

impl Maglev {
    /// `size` is a prime; any other number becomes the next one.
    pub(super) fn new(members: &[Member], size: u64) -> Self {
        if members.is_empty() {
            return Self { slots: Box::default() };
        }
        let size = prime(size);
        let heaviest = members.iter().map(|member| member.weight).max().unwrap_or(1);
        let filler = |member: &Member| Filler {
            next: member.hash(OFFSET) % size,
            skip: member.hash(SKIP) % (size - 1) + 1,
            weight: member.weight,
            earned: 0,
            due: 0,
            position: member.position,
        };
        let mut fillers: Vec<Filler> = members.iter().map(filler).collect();
        let mut slots = vec![FREE; size as usize];
        let mut left = size;
        while left > 0 {
            for filler in &mut fillers {
                // The heaviest takes a slot in every round, one of half its weight in every second, the first included.
                if filler.earned < filler.due {
                    filler.earned += u128::from(filler.weight);
                    continue;
                }
                filler.earned += u128::from(filler.weight);
                filler.due += u128::from(heaviest);
                // `size` is prime: steps of `skip` come to every slot, and one is free.
                while slots[filler.next as usize] != FREE {
                    filler.next = (filler.next + filler.skip) % size;
                }
                slots[filler.next as usize] = filler.position;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        Self { slots: slots.into() }
    }

    /// How many slots it has.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn pick(&self, hash: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let slot = |hash: u64| (hash % self.slots.len() as u64) as usize;
        let probed = (0..PROBES).map(|n| if n == 0 { slot(hash) } else { slot(mix(hash, n)) });
        let found = probed.map(|slot| self.slots[slot] as usize).find(|position| usable(*position));
        found.or_else(|| {
            let (before, after) = self.slots.split_at(slot(hash));
            after.iter().chain(before).map(|position| *position as usize).find(|position| usable(*position))
        })
    }
}

/// The number, or the next prime; 3 at least, and the largest table at most.
fn prime(size: u64) -> u64 {
    let is_prime = |n: &u64| (2..=n.isqrt()).all(|factor| !n.is_multiple_of(factor));
    (size.clamp(3, MAX_SLOTS)..=MAX_SLOTS).find(is_prime).unwrap_or(MAX_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_primes() {
        let sizes = [0, 4, 100, 65_536, 65_537, 5_000_011, u64::MAX];
        assert_eq!(sizes.map(prime), [3, 5, 101, 65_537, 65_537, 5_000_011, 5_000_011]);
    }
}
