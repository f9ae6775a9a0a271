//! Endpoints that may be picked, by weight: in turn, by chance, or the less busy of two. Made anew by the proxy when
//! endpoints, their health or their weights change, and read for every request.

/// The golden ratio's part that a turn advances by: turns then visit a range of weights as evenly as can be.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// Positions of endpoints, each with a weight. One of weight 0 is never picked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    positions: Vec<u32>,
    /// Of the weights, each with those before it; empty when all weigh the same.
    sums: Vec<u64>,
    total: u64,
    /// From one turn to the next; coprime to `total`, so that `total` turns visit every point once.
    stride: u64,
}

impl Candidates {
    /// Candidates with these weights, in the order of the endpoints.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut new = Self::default();
        new.set(weights);
        new
    }

    /// Some of the endpoints alone: positions, rising, each with its weight.
    pub fn among(weighted: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut new = Self::default();
        new.take(weighted.into_iter());
        new.positions.shrink_to_fit();
        new.sums.shrink_to_fit();
        new
    }

    /// Takes other weights, and keeps the memory.
    pub fn set(&mut self, weights: impl IntoIterator<Item = u32>) {
        self.take((0_u32..).zip(weights));
    }

    fn take(&mut self, weighted: impl Iterator<Item = (u32, u32)>) {
        self.positions.clear();
        self.sums.clear();
        self.total = 0;
        let mut even = true;
        let mut first = None;
        // For all of them, so that there is room when those that fail now come back.
        self.positions.reserve(weighted.size_hint().0);
        self.sums.reserve(weighted.size_hint().0);
        for (position, weight) in weighted {
            if weight > 0 {
                even &= *first.get_or_insert(weight) == weight;
                self.total += u64::from(weight);
                self.positions.push(position);
                self.sums.push(self.total);
            }
        }
        if even {
            self.sums.clear();
            self.total = self.positions.len() as u64;
            self.stride = 1;
        } else {
            self.stride = coprime(self.total);
        }
    }

    /// How many may be picked.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether none may be picked.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// ROUND_ROBIN. Consecutive cursors give every endpoint its share, spread as evenly as weights allow.
    pub fn round_robin(&self, cursor: u64) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let point = u128::from(cursor) * u128::from(self.stride) % u128::from(self.total);
        self.at(point as u64)
    }

    /// RANDOM, by a uniformly random roll.
    pub fn random(&self, roll: u64) -> Option<usize> {
        // Multiply-shift: the bias is below `total / 2^64`.
        self.at(((u128::from(roll) * u128::from(self.total)) >> 64) as u64)
    }

    /// LEAST_REQUEST: of two that a uniformly random roll picks, the one with fewer requests under way for its weight.
    pub fn least_request(&self, roll: u64, active: impl Fn(usize) -> u32) -> Option<usize> {
        if self.len() < 2 {
            return self.at(0);
        }
        if self.sums.is_empty() {
            let (first, second) = two_different(roll, self.len() as u64);
            let (a, b) = (self.at(first)?, self.at(second)?);
            return Some(if active(b) < active(a) { b } else { a });
        }
        let a = self.slot(scale(roll & 0xffff_ffff, self.total))?;
        // The second among the others: its point is one of those that are left, moved beyond the first's.
        let (before, own) = (self.sums[a] - self.weight(a), self.weight(a));
        let point = scale(roll >> 32, self.total - own);
        let b = self.slot(if point < before { point } else { point + own })?;
        let load = |slot: usize| active(self.positions[slot] as usize);
        // a / weight(a) > b / weight(b), without dividing.
        let b_is_less_busy =
            u64::from(load(b)).saturating_mul(self.weight(a)) < u64::from(load(a)).saturating_mul(self.weight(b));
        Some(self.positions[if b_is_less_busy { b } else { a }] as usize)
    }

    /// The first that may be picked, in order, and that is wanted: for a second pick that found nothing by chance.
    pub fn find(&self, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        self.positions.iter().map(|position| *position as usize).find(|position| wanted(*position))
    }

    fn at(&self, point: u64) -> Option<usize> {
        self.slot(point).map(|slot| self.positions[slot] as usize)
    }

    /// Which of `positions` a point below `total` belongs to.
    fn slot(&self, point: u64) -> Option<usize> {
        if point >= self.total {
            return None;
        }
        Some(if self.sums.is_empty() { point as usize } else { self.sums.partition_point(|sum| *sum <= point) })
    }

    fn weight(&self, slot: usize) -> u64 {
        self.sums[slot] - if slot == 0 { 0 } else { self.sums[slot - 1] }
    }
}

/// Two different numbers below `len`, which is 2 at least: the second is an offset of `1..len` from the first.
pub(super) fn two_different(roll: u64, len: u64) -> (u64, u64) {
    let first = (roll & 0xffff_ffff) % len;
    (first, (first + 1 + (roll >> 32) % (len - 1)) % len)
}

/// A number below `total` by 32 random bits: the bias is below `total / 2^32` of a share.
fn scale(bits: u64, total: u64) -> u64 {
    ((u128::from(bits) * u128::from(total)) >> 32) as u64
}

/// The number next to the golden part of `total` that shares no factor with it.
fn coprime(total: u64) -> u64 {
    let start = (total as f64 * GOLDEN) as u64;
    // Gaps between numbers that are coprime to a 64-bit number are far shorter than the way to `total`, where 1 would do.
    (start.max(1)..total).find(|n| gcd(*n, total) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::mix;

    fn counts(len: usize, picks: u64, pick: impl Fn(u64) -> Option<usize>) -> Vec<u64> {
        let mut counts = vec![0; len];
        for n in 0..picks {
            counts[pick(n).expect("there are candidates")] += 1;
        }
        counts
    }

    #[test]
    fn nothing_is_picked_of_nothing() {
        for none in [Candidates::default(), Candidates::new([0, 0])] {
            assert!(none.is_empty());
            assert_eq!(none.round_robin(3), None);
            assert_eq!(none.random(u64::MAX), None);
            assert_eq!(none.least_request(7, |_| 0), None);
        }
        let one = Candidates::new([0, 5, 0]);
        assert_eq!(
            (one.round_robin(9), one.random(u64::MAX), one.least_request(8, |_| 9)),
            (Some(1), Some(1), Some(1))
        );
    }

    #[test]
    fn some_of_them_are_picked_as_if_the_others_weighed_nothing() {
        let some = Candidates::among([(1, 30), (4, 10)]);
        assert_eq!(some, Candidates::new([0, 30, 0, 0, 10]));
        assert_eq!(counts(5, 40, |n| some.round_robin(n)), [0, 30, 0, 0, 10]);
    }

    #[test]
    fn turns_give_each_its_share_exactly_and_evenly() {
        let even = Candidates::new([7, 7, 0, 7]);
        assert_eq!(counts(4, 300, |n| even.round_robin(n)), [100, 100, 0, 100]);
        assert_ne!(even.round_robin(1), even.round_robin(2), "in turn");
        let weighted = Candidates::new([1, 2, 0, 5]);
        assert_eq!(counts(4, 8, |n| weighted.round_robin(n)), [1, 2, 0, 5]);
        // The rare one comes once in a hundred turns, wherever they begin.
        let rare = Candidates::new([99, 1]);
        for start in [0, 17, 1 << 40] {
            assert_eq!(counts(2, 100, |n| rare.round_robin(start + n)), [99, 1]);
        }
        let half = Candidates::new([50, 50, 100]);
        for start in 0..200 {
            let heavy = (0..10).filter(|n| half.round_robin(start + n) == Some(2)).count();
            assert!((4..=6).contains(&heavy), "{heavy} of ten turns from {start}");
        }
    }

    #[test]
    fn one_percent_by_chance_is_one_percent() {
        let canary = Candidates::new([990, 10]);
        let hits = counts(2, 100_000, |n| canary.random(mix(n, 1)))[1];
        assert!((900..=1100).contains(&hits), "{hits} of 100,000");
    }

    #[test]
    fn the_less_busy_of_two_wins_for_its_weight() {
        let even = Candidates::new([1, 1, 1]);
        let hits = counts(3, 30_000, |n| even.least_request(mix(n, 2), |p| u32::from(p == 1)));
        assert_eq!(hits[1], 0, "the second of two is always less busy: {hits:?}");
        let weighted = Candidates::new([30, 10, 60]);
        let idle = counts(3, 100_000, |n| weighted.least_request(mix(n, 3), |_| 0));
        for (hits, share) in idle.iter().zip([30_000, 10_000, 60_000_u64]) {
            assert!(hits.abs_diff(share) < 1_000, "without load by weight alone: {idle:?}");
        }
        // As busy as their weights say: as if there were no load.
        let fair = counts(3, 100_000, |n| weighted.least_request(mix(n, 3), |p| [3, 1, 6][p]));
        assert_eq!(fair, idle);
        let busy = counts(3, 100_000, |n| weighted.least_request(mix(n, 3), |p| [0, 0, 6][p]));
        assert_eq!(busy[2], 0, "{busy:?}");
    }

    #[test]
    fn load_evens_out() {
        let candidates = Candidates::new(vec![1; 10]);
        let mut active = [0_u32; 10];
        for n in 0..10_000 {
            let picked = candidates.least_request(mix(n, 4), |p| active[p]).expect("ten");
            active[picked] += 1;
        }
        let (least, most) = (active.iter().min().expect("ten"), active.iter().max().expect("ten"));
        assert!(most - least <= 10, "two choices keep 10,000 on ten within a few: {active:?}");
    }
}
