//! A ring of points: a hash belongs to the endpoint of the next point.

use super::Member;

/// The number of points up to which every endpoint has as many as the smallest ring asks for, whatever the number of the
/// others is: then one that leaves moves nobody but its own. 3 MiB; 256 endpoints with the default of 1024 points.
const FREELY: u64 = 256 * 1024;
/// No ring has more points, however many are asked for, but for one an endpoint. Envoy's default limit; 96 MiB.
const MAX_POINTS: u64 = 8 * 1024 * 1024;
/// Points on each side of where one is looked for first: two hundred points or so are what chance moves it by in a ring
/// of [`FREELY`].
const NEAR: usize = 256;

/// See the module.
#[derive(Clone, Debug)]
pub struct Ring {
    /// In order.
    hashes: Box<[u64]>,
    /// Position of the endpoint of each point.
    owners: Box<[u32]>,
}

impl Ring {
    pub(super) fn new(members: &[Member], minimum: u64) -> Self {
        let minimum = minimum.clamp(1, MAX_POINTS);
        let weights: u64 = members.iter().map(|member| member.weight).sum();
        let limit = u128::from(FREELY.max(minimum));
        let points = |member: &Member| {
            let freely = u128::from(minimum) * u128::from(member.weight);
            // Rounded up, so that the ring is never smaller than was asked for.
            let share = (limit * u128::from(member.weight)).div_ceil(u128::from(weights.max(1)));
            freely.min(share).max(1) as u64
        };
        let mut ring: Vec<(u64, u32, u32)> = Vec::new();
        for (order, member) in (0_u32..).zip(members) {
            ring.extend((0..points(member)).map(|seed| (member.hash(seed), order, member.position)));
        }
        // Where two points fall together, the order of addresses decides.
        ring.sort_unstable();
        let hashes = ring.iter().map(|(hash, ..)| *hash).collect();
        Self { hashes, owners: ring.iter().map(|(.., position)| *position).collect() }
    }

    /// How many points it has.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    pub(super) fn pick(&self, hash: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let (before, after) = self.owners.split_at(self.first(hash));
        after.iter().chain(before).map(|owner| *owner as usize).find(|owner| usable(*owner))
    }

    /// The first point that is not before the hash. Points are spread evenly, so it is near where an even spread would have
    /// it: a search there reads a few lines of a large ring, where one of the whole ring would miss the cache at each step.
    fn first(&self, hash: u64) -> usize {
        let len = self.hashes.len();
        let likely = ((u128::from(hash) * len as u128) >> 64) as usize;
        let mut reach = NEAR;
        loop {
            let (low, high) = (likely.saturating_sub(reach), likely.saturating_add(reach).min(len));
            let after_low = low == 0 || self.hashes[low - 1] < hash;
            let up_to_high = high == len || self.hashes[high] >= hash;
            if after_low && up_to_high {
                return low + self.hashes[low..high].partition_point(|point| *point < hash);
            }
            reach *= 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_point_is_found_wherever_points_are() {
        let even: Vec<u64> = (0..10_000).map(|n| crate::balance::mix(n, 5)).collect();
        let low: Vec<u64> = (0..10_000).collect();
        let high: Vec<u64> = (0..10_000).map(|n| u64::MAX - n / 3).collect();
        for mut hashes in [even, low, high, vec![], vec![7], vec![u64::MAX]] {
            hashes.sort_unstable();
            let probes =
                hashes.clone().into_iter().flat_map(|hash| [hash.saturating_sub(1), hash, hash.saturating_add(1)]);
            let probes: Vec<u64> = probes.chain([0, u64::MAX / 2, u64::MAX]).collect();
            let owners = vec![0; hashes.len()].into();
            let ring = Ring { hashes: hashes.into(), owners };
            for hash in probes {
                assert_eq!(ring.first(hash), ring.hashes.partition_point(|point| *point < hash));
            }
        }
    }
}
