//! The programs' counters by name, for metrics and `weir status`.

use std::collections::BTreeMap;

use aya::maps::{MapData, PerCpuArray};
use weir_ebpf::{Counter, maps};

use super::error::DatapathError;

/// In the order of [`Counter`].
const NAMES: [(Counter, &str); Counter::Count as usize] = [
    (Counter::NotEnrolled, "not_enrolled"),
    (Counter::Agent, "agent"),
    (Counter::OtherCgroup, "other_cgroup"),
    (Counter::PassNoService, "pass_no_service"),
    (Counter::Pass, "pass"),
    (Counter::Balance, "balance"),
    (Counter::Proxy, "proxy"),
    (Counter::Reject, "reject"),
    (Counter::Fallback, "fallback"),
    (Counter::FallbackRefused, "fallback_refused"),
    (Counter::DeviceBound, "device_bound"),
    (Counter::NoBackend, "no_backend"),
    (Counter::NoStorage, "no_storage"),
    (Counter::FlowRecorded, "flow_recorded"),
    (Counter::EjectedAvoided, "ejected_avoided"),
    (Counter::EjectedPanic, "ejected_panic"),
];

/// The sums over all CPUs.
pub(super) fn read(map: &PerCpuArray<MapData, u64>) -> Result<BTreeMap<&'static str, u64>, DatapathError> {
    NAMES
        .iter()
        .map(|(counter, name)| {
            let values = map.get(&(*counter as u32), 0).map_err(DatapathError::map("read", maps::COUNTERS))?;
            Ok((*name, values.iter().sum()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> = NAMES.iter().map(|(_, n)| *n).collect();
        assert_eq!(names.len(), NAMES.len());
        for (at, (counter, name)) in NAMES.iter().enumerate() {
            assert_eq!(*counter as usize, at, "{name}");
        }
    }
}
