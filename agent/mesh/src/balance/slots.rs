//! Weights as a range of slots, which the kernel picks from by chance. Called by the agent's `datapath`.

use std::net::SocketAddr;

use crate::plan::WeightedGroup;

/// A range of slots: each holds the position of an endpoint in the groups laid end to end, or `None` for the share of
/// a group that has no endpoint. At most `max` slots; the smallest range that splits exactly, else `max` of them by
/// largest remainder (error below `1 / max`). Empty when there is nothing to give.
pub fn expand(groups: &[WeightedGroup], min: usize, max: usize) -> Vec<Option<u32>> {
    let groups: Vec<Share> = shares(groups);
    let total: u64 = groups.iter().map(|g| g.weight).sum();
    if total == 0 || max == 0 || groups.iter().all(|g| g.endpoints == 0) {
        return Vec::new();
    }
    let len = exact_length(&groups, total, max as u64).map_or(max as u64, |exact| exact * (min as u64).div_ceil(exact));
    let len = if len > max as u64 { exact_length(&groups, total, max as u64).unwrap_or(max as u64) } else { len };
    let mut slots = Vec::with_capacity(len as usize);
    for (group, count) in groups.iter().zip(apportion(&groups, total, len)) {
        for n in 0..count {
            slots.push((group.endpoints > 0).then(|| group.first + (n % group.endpoints) as u32));
        }
    }
    slots
}

struct Share {
    weight: u64,
    /// Position of its first endpoint in the groups laid end to end.
    first: u32,
    endpoints: u64,
}

fn shares(groups: &[WeightedGroup]) -> Vec<Share> {
    let single = groups.len() == 1;
    let mut first = 0;
    groups
        .iter()
        .map(|g| {
            let share = Share {
                weight: if single { 1 } else { u64::from(g.weight) },
                first,
                endpoints: g.endpoints.len() as u64,
            };
            first += g.endpoints.len() as u32;
            share
        })
        .collect()
}

/// The smallest number of slots in which every endpoint gets exactly its share; `None` above `max`.
fn exact_length(groups: &[Share], total: u64, max: u64) -> Option<u64> {
    groups.iter().filter(|g| g.weight > 0).try_fold(1, |len, g| {
        // Each of n endpoints wants weight / (total * n): the reduced denominator must divide the length.
        let denominator = total.checked_mul(g.endpoints.max(1))?;
        let denominator = denominator / gcd(g.weight, denominator);
        let len = (len / gcd(len, denominator)).checked_mul(denominator)?;
        (len <= max).then_some(len)
    })
}

/// Largest remainder: whole parts first, what is left to the largest fractions (earlier groups first).
fn apportion(groups: &[Share], total: u64, len: u64) -> Vec<u64> {
    let mut counts: Vec<u64> = groups.iter().map(|g| g.weight * len / total).collect();
    let mut left = len - counts.iter().sum::<u64>();
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(groups[i].weight * len % total));
    for i in order {
        if left == 0 {
            break;
        }
        counts[i] += 1;
        left -= 1;
    }
    counts
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// The endpoints of the groups laid end to end: what the positions of [`expand`] mean.
pub fn flatten(groups: &[WeightedGroup]) -> impl Iterator<Item = SocketAddr> + '_ {
    groups.iter().flat_map(|g| g.endpoints.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn group(weight: u32, endpoints: usize) -> WeightedGroup {
        let endpoints = (0..endpoints).map(|i| SocketAddr::from(([10, 0, weight as u8, i as u8], 80))).collect();
        WeightedGroup { subset: weight.to_string().into(), weight, endpoints }
    }

    fn counts(slots: &[Option<u32>]) -> BTreeMap<Option<u32>, usize> {
        slots.iter().fold(BTreeMap::new(), |mut counts, slot| {
            *counts.entry(*slot).or_default() += 1;
            counts
        })
    }

    #[test]
    fn ninety_ten_over_two_and_one_is_exact() {
        let slots = expand(&[group(90, 2), group(10, 1)], 16, 4096);
        assert_eq!(slots.len(), 20);
        assert_eq!(counts(&slots), BTreeMap::from([(Some(0), 9), (Some(1), 9), (Some(2), 2)]));
    }

    #[test]
    fn a_group_without_endpoints_keeps_its_share_and_gives_it_to_nobody() {
        let slots = expand(&[group(90, 0), group(10, 1)], 16, 4096);
        assert_eq!(counts(&slots), BTreeMap::from([(None, 18), (Some(0), 2)]));
        assert!(expand(&[group(90, 0), group(10, 0)], 16, 4096).is_empty());
    }

    #[test]
    fn weight_zero_gets_no_slot_and_a_single_group_gets_all() {
        assert_eq!(counts(&expand(&[group(0, 2), group(5, 1)], 16, 4096)), BTreeMap::from([(Some(2), 16)]));
        assert_eq!(counts(&expand(&[group(0, 3)], 16, 4096)).len(), 3);
        assert!(expand(&[group(0, 1), group(0, 1)], 16, 4096).is_empty());
    }

    #[test]
    fn splits_that_are_not_exact_stay_within_the_promised_error() {
        for (a, b, n, m) in [(1, 2, 7, 11), (33, 67, 13, 17), (1, 999, 3, 1), (50, 50, 4095, 1)] {
            let groups = [group(a, n), group(b, m)];
            let slots = expand(&groups, 16, 4096);
            assert!(slots.len() <= 4096);
            let mine = slots.iter().filter(|s| s.is_some_and(|s| (s as usize) < n)).count();
            let error = mine as f64 / slots.len() as f64 - f64::from(a) / f64::from(a + b);
            assert!(error.abs() <= 0.0005, "{a}/{b}: {error}");
        }
    }
}
