//! Carries out a [`KernelPlan`]: the difference between what it asks for and what the maps hold, in an order in which
//! no connect ever meets a half-written service. Called by [`super::Datapath::apply`].
//!
//! Backends, then slots in fresh ranges, then one update per service that flips verdict and range together, then the
//! services that are gone, and at last the old ranges and backends are put to rest (see `slots`).

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_ebpf::{
    EMPTY_SLOT, MAX_SLOT_RANGE, MIN_SLOT_RANGE, SERVICE_REFUSE_ON_FAILURE, Service, ServiceKey, SlotRange,
};
use weir_mesh::balance;
use weir_mesh::plan::{KernelPlan, OnFailure, PlanKey, PlannedService, Verdict, WeightedGroup};

use super::address;
use super::state::{Held, Maps, State, groups, means};

/// What one [`super::Datapath::apply`] did.
#[derive(Debug, Default)]
pub struct ApplyReport {
    /// Entries of `weir_services` written.
    pub written: usize,
    /// Entries deleted.
    pub removed: usize,
    /// Entries that were right already.
    pub unchanged: usize,
    /// Services that kept their old entry, or none, or got one that needs no slots.
    pub errors: Vec<ServiceError>,
    /// Service ports that have no counters of their own, because `weir_conns` is full.
    pub uncounted: usize,
    /// When room that rests now will be free: worth another apply then, if `errors` speaks of room.
    pub retry_after: Option<Duration>,
}

/// Why a service's entry is not what the plan says.
#[derive(Debug)]
pub struct ServiceError {
    /// `namespace/name:port`
    pub name: Arc<str>,
    /// Its key in the plan.
    pub key: PlanKey,
    /// What went wrong.
    pub reason: ServiceFault,
}

/// See [`ServiceError`].
#[derive(Debug, thiserror::Error)]
pub enum ServiceFault {
    /// No range of that many slots is free.
    #[error("no range of {0} slots is free in weir_slots")]
    NoSlots(usize),
    /// No backend index is free.
    #[error("weir_backends is full")]
    NoBackends,
    /// Another key of the plan stands for the same entry (an IPv4 address written as v4-mapped IPv6).
    #[error("another entry of the plan has the same address, port and view")]
    Duplicate,
    /// The kernel refused a write.
    #[error("cannot write {map}: {error}")]
    Write {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl ServiceFault {
    fn write(map: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Write { map, error }
    }
}

/// A service whose slots are written and whose entry is to be flipped.
struct Change<'a> {
    plan_key: &'a PlanKey,
    planned: &'a Arc<PlannedService>,
    key: ServiceKey,
    value: Service,
    range: SlotRange,
    /// The range is the one that the entry had.
    kept: bool,
    /// The entry is all that the plan says, not the most of it that there is room for.
    whole: bool,
}

/// Brings the maps to what `plan` says.
pub(super) fn apply(state: &mut State, maps: &mut impl Maps, plan: &KernelPlan, now: Instant) -> ApplyReport {
    let mut report = ApplyReport::default();
    expire(state, maps, now);

    for (plan_key, planned) in &plan.services {
        if let Some(held) = state.services.get(&address::service_key(plan_key)) {
            state.indexes.claim(&planned.name, held.value.index);
        }
    }
    let mut seen = HashSet::with_capacity_and_hasher(plan.services.len(), foldhash::fast::RandomState::default());
    let mut changes = Vec::new();
    for (plan_key, planned) in &plan.services {
        let key = address::service_key(plan_key);
        let change = if seen.insert(key) {
            prepare(state, maps, key, plan_key, planned, now, &mut report)
        } else {
            Err(ServiceFault::Duplicate)
        };
        match change {
            Ok(Some(change)) => changes.push(change),
            Ok(None) => report.unchanged += 1,
            Err(reason) => {
                changes.extend(reduced(state, key, plan_key, planned, &reason));
                report.errors.push(error(plan_key, planned, reason));
            }
        }
    }

    let mut retired = flip_all(state, maps, changes, &mut report);
    let gone: Vec<ServiceKey> = state.services.keys().filter(|k| !seen.contains(*k)).copied().collect();
    for key in gone {
        match maps.remove_service(&key) {
            Ok(()) => {
                report.removed += 1;
                retired.extend(state.services.remove(&key).map(|held| held.range));
            }
            // Its slots stay as they are, and the next apply tries again.
            Err(error) => tracing::warn!(?key, %error, "cannot delete a service from the kernel"),
        }
    }
    for range in retired {
        state.retire(range, now, |at| maps.slot(at));
    }

    let names: HashSet<&str, foldhash::fast::RandomState> = plan.services.values().map(|p| &*p.name).collect();
    for index in state.indexes.retain(|name| names.contains(name)) {
        if let Err(error) = maps.remove_counters(index) {
            tracing::warn!(index, %error, "cannot delete the counters of a service");
        }
    }
    report.retry_after = state.slots.next_release(now);
    report
}

/// Brings the entries of these keys, which the plan in force has too, to what they are now. All others stay.
pub(super) fn change(
    state: &mut State,
    maps: &mut impl Maps,
    services: &[(PlanKey, Arc<PlannedService>)],
    now: Instant,
) -> ApplyReport {
    let mut report = ApplyReport::default();
    expire(state, maps, now);
    let mut changes = Vec::new();
    for (plan_key, planned) in services {
        let key = address::service_key(plan_key);
        match prepare(state, maps, key, plan_key, planned, now, &mut report) {
            Ok(Some(change)) => changes.push(change),
            Ok(None) => report.unchanged += 1,
            Err(reason) => {
                changes.extend(reduced(state, key, plan_key, planned, &reason));
                report.errors.push(error(plan_key, planned, reason));
            }
        }
    }
    for range in flip_all(state, maps, changes, &mut report) {
        state.retire(range, now, |at| maps.slot(at));
    }
    report.retry_after = state.slots.next_release(now);
    report
}

/// Puts changes in force; returns the ranges that nobody uses any more.
fn flip_all(
    state: &mut State,
    maps: &mut impl Maps,
    changes: Vec<Change<'_>>,
    report: &mut ApplyReport,
) -> Vec<SlotRange> {
    let mut retired = Vec::new();
    for change in changes {
        match flip(state, maps, &change) {
            Ok(old) => {
                report.written += 1;
                retired.push(old);
            }
            Err((fresh, error)) => {
                retired.push(fresh);
                report.errors.push(error);
            }
        }
    }
    retired
}

fn expire(state: &mut State, maps: &mut impl Maps, now: Instant) {
    state.slots.expire(now);
    for index in state.backends.expire(now) {
        let unused = weir_ebpf::Backend { address: weir_ebpf::ANY_ADDRESS, port: 0, in_use: 0 };
        if let Err(error) = maps.set_backend(index, &unused) {
            // No slot names it, and its next use writes it anew.
            tracing::debug!(index, %error, "cannot mark a backend unused");
        }
    }
}

fn error(key: &PlanKey, planned: &PlannedService, reason: ServiceFault) -> ServiceError {
    ServiceError { name: Arc::clone(&planned.name), key: *key, reason }
}

/// Writes everything but the flip; `None` when the entry is right already.
fn prepare<'a>(
    state: &mut State,
    maps: &mut impl Maps,
    key: ServiceKey,
    plan_key: &'a PlanKey,
    planned: &'a Arc<PlannedService>,
    now: Instant,
    report: &mut ApplyReport,
) -> Result<Option<Change<'a>>, ServiceFault> {
    let index = state.indexes.get(&planned.name);
    if state.indexes.wants_counters(index) {
        match maps.add_counters(index) {
            Ok(()) => state.indexes.has_counters(index),
            Err(error) => {
                tracing::debug!(name = %planned.name, %error, "no room for the counters of a service");
                report.uncounted += 1;
            }
        }
    }
    let held = state.services.get(&key);
    if held.is_some_and(|h| h.value.index == index && h.planned.as_ref().is_some_and(|p| means(p, planned))) {
        if let Some(held) = state.services.get_mut(&key) {
            // Else what was in force before would stay in memory beside what is.
            held.planned = Some(Arc::clone(planned));
        }
        return Ok(None);
    }
    let groups = groups(planned);
    let positions = balance::expand(groups, MIN_SLOT_RANGE as usize, MAX_SLOT_RANGE as usize);
    let endpoints: Vec<Member> = members(groups).collect();
    let old = held.map(|h| h.range).unwrap_or_default();
    let same = held.is_some()
        && old.length as usize == positions.len()
        && positions
            .iter()
            .zip(old.offset..)
            .all(|(position, at)| slot_of(state, &endpoints, *position) == Some(maps.slot(at)));
    let range = if same { old } else { write_slots(state, maps, &positions, &endpoints, now)? };
    let value = entry(index, planned, range);
    if same
        && let Some(held) = state.services.get_mut(&key)
        && held.value == value
    {
        held.planned = Some(Arc::clone(planned));
        return Ok(None);
    }
    Ok(Some(Change { plan_key, planned, key, value, range, kept: same, whole: true }))
}

/// What stands in for an entry whose slots cannot be had, where the old one, or none, would send connections past the proxy, or to
/// what is to be refused: an endpoint that is to be asked by TLS gets no plain text for want of room. It needs no slots.
/// `None` = the old one stays, or none.
fn reduced<'a>(
    state: &mut State,
    key: ServiceKey,
    plan_key: &'a PlanKey,
    planned: &'a Arc<PlannedService>,
    reason: &ServiceFault,
) -> Option<Change<'a>> {
    let refuses = || groups(planned).iter().any(|group| group.weight > 0 && group.endpoints.is_empty());
    let (verdict, flags) = match planned.verdict {
        // The other one of the same entry has its own.
        _ if matches!(reason, ServiceFault::Duplicate) => return None,
        // The proxy needs none; without it there is nowhere to fall back to.
        Verdict::Proxy => (weir_ebpf::Verdict::Proxy, SERVICE_REFUSE_ON_FAILURE),
        Verdict::Balance if refuses() => (weir_ebpf::Verdict::Reject, 0),
        Verdict::Balance | Verdict::Pass | Verdict::Reject => return None,
    };
    let none = SlotRange::default();
    let index = state.indexes.get(&planned.name);
    let value = Service { index, verdict: verdict as u32, flags, pad: 0, slots: none, fallback: none };
    let differs = state.services.get(&key).is_none_or(|held| held.value != value);
    differs.then_some(Change { plan_key, planned, key, value, range: none, kept: false, whole: false })
}

/// An endpoint, and the number of its group.
type Member = (u32, SocketAddr);

/// What the positions of [`balance::expand`] mean.
fn members(groups: &[WeightedGroup]) -> impl Iterator<Item = Member> {
    (0..).zip(groups).flat_map(|(group, members)| members.endpoints.iter().map(move |endpoint| (group, *endpoint)))
}

/// The slot that stands for a position; `None` when its endpoint has no index.
fn slot_of(state: &State, endpoints: &[Member], position: Option<u32>) -> Option<u32> {
    position.map_or(Some(EMPTY_SLOT), |p| {
        let (group, endpoint) = endpoints.get(p as usize)?;
        Some(weir_ebpf::slot(*group, state.backends.find(endpoint)?))
    })
}

fn entry(index: u32, planned: &PlannedService, range: SlotRange) -> Service {
    let none = SlotRange::default();
    let (verdict, slots, fallback) = match planned.verdict {
        Verdict::Pass => (weir_ebpf::Verdict::Pass, none, none),
        // The weights give nothing to anybody: refused at once, and counted as such.
        Verdict::Balance if range.length == 0 => (weir_ebpf::Verdict::Reject, none, none),
        Verdict::Balance => (weir_ebpf::Verdict::Balance, range, none),
        Verdict::Proxy => (weir_ebpf::Verdict::Proxy, none, range),
        Verdict::Reject => (weir_ebpf::Verdict::Reject, none, none),
    };
    let flags = match planned.on_failure {
        OnFailure::Refuse => SERVICE_REFUSE_ON_FAILURE,
        OnFailure::Balance => 0,
    };
    Service { index, verdict: verdict as u32, flags, pad: 0, slots, fallback }
}

/// Takes backends and a fresh range, and writes both. On an error nothing stays taken.
fn write_slots(
    state: &mut State,
    maps: &mut impl Maps,
    positions: &[Option<u32>],
    endpoints: &[Member],
    now: Instant,
) -> Result<SlotRange, ServiceFault> {
    if positions.is_empty() {
        return Ok(SlotRange::default());
    }
    let mut slots = Vec::with_capacity(positions.len());
    let taken = take_backends(state, maps, positions, endpoints, &mut slots)
        .and_then(|()| state.slots.allocate(slots.len() as u32).ok_or(ServiceFault::NoSlots(slots.len())));
    match taken {
        Ok(offset) => {
            maps.write_slots(offset, &slots);
            Ok(SlotRange { offset, length: slots.len() as u32 })
        }
        Err(fault) => {
            for slot in slots {
                state.release(slot, now);
            }
            Err(fault)
        }
    }
}

fn take_backends(
    state: &mut State,
    maps: &mut impl Maps,
    positions: &[Option<u32>],
    endpoints: &[Member],
    slots: &mut Vec<u32>,
) -> Result<(), ServiceFault> {
    for position in positions {
        let Some((group, endpoint)) = position.and_then(|p| endpoints.get(p as usize)) else {
            slots.push(EMPTY_SLOT);
            continue;
        };
        let acquired = state.backends.acquire(*endpoint).ok_or(ServiceFault::NoBackends)?;
        slots.push(weir_ebpf::slot(*group, acquired.index));
        if acquired.fresh {
            maps.set_backend(acquired.index, &address::backend(*endpoint))
                .map_err(ServiceFault::write(weir_ebpf::maps::BACKENDS))?;
            state.backends.written(acquired.index);
        }
    }
    Ok(())
}

/// Puts a change in force. Returns the range that nobody uses any more: the old one, or the fresh one on an error.
fn flip(state: &mut State, maps: &mut impl Maps, change: &Change<'_>) -> Result<SlotRange, (SlotRange, ServiceError)> {
    let Change { plan_key, planned, key, value, range, kept, whole } = *change;
    if let Err(cause) = maps.set_service(&key, &value) {
        let fresh = if kept { SlotRange::default() } else { range };
        let fault = ServiceFault::write(weir_ebpf::maps::SERVICES)(cause);
        return Err((fresh, error(plan_key, planned, fault)));
    }
    let held = Held { value, planned: whole.then(|| Arc::clone(planned)), range };
    let old = state.services.insert(key, held).map(|h| h.range).unwrap_or_default();
    Ok(if kept { SlotRange::default() } else { old })
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
