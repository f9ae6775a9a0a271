//! Which endpoints are taken out of use because they fail: outlier detection as a state machine over atomics, with the
//! clock as an argument. The workers of a node share it without locks. Called by the proxy with every outcome, and by
//! whoever sweeps.
//!
//! Time is nanoseconds of the monotonic clock that `bpf_ktime_get_ns` reads, so that kernel and agent mean the same.
//!
//! - An endpoint is in use again the moment that its time is over, whether anybody sweeps or not: a table that outlives its
//!   agent heals by itself.
//! - Errors begin at zero after an ejection, and what comes in while it lasts does not count: it was sent before.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

use crate::program::OutlierDetection;

/// No ejection is longer, but for a base time that is. Envoy's default.
pub const MAX_EJECTION_TIME: Duration = Duration::from_mins(5);

/// What is known of an endpoint. Zeroes are one that never failed. Whoever is to know of its ejections, as the kernel's
/// table is, is told of them ([`Ejection`]).
#[derive(Debug, Default)]
pub struct Health {
    /// Not to be used before; 0 = in use.
    ejected_until: AtomicU64,
    /// When `ejections` last went down, or may begin to.
    decayed_at: AtomicU64,
    /// Errors in a row: 5xx, or the codes in their place, and what counts as such.
    errors: AtomicU32,
    /// 502, 503 and 504 in a row.
    gateway_errors: AtomicU32,
    /// Connects that failed and timeouts in a row, where these are counted apart.
    local_origin_failures: AtomicU32,
    /// What the next ejection's time grows by: one more with each ejection, one less with each quiet interval.
    ejections: AtomicU32,
}

/// One for each endpoint of a mesh.
const _: () = assert!(size_of::<Health>() == 32);

impl Health {
    /// Whether it is not to be used now.
    pub fn is_ejected(&self, now: u64) -> bool {
        // Almost always zero, and then nobody writes here: cores share the line.
        now < self.ejected_until.load(Acquire)
    }

    /// When it comes back; `None` = it is in use.
    pub fn ejected_until(&self, now: u64) -> Option<u64> {
        Some(self.ejected_until.load(Acquire)).filter(|until| now < *until)
    }

    /// By how many times the base time its last ejection lasted, less what has decayed.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Relaxed)
    }

    /// An endpoint that was ejected before anybody here knew it: until when, and by how many times its base time.
    pub fn ejected_before(until: u64, times: u32) -> Self {
        let health = Self::default();
        health.ejected_until.store(until, Relaxed);
        health.decayed_at.store(until, Relaxed);
        health.ejections.store(times, Relaxed);
        health
    }

    /// Forgets everything: another endpoint has taken the place of this one.
    pub fn reset(&self) {
        self.forgive();
        self.ejections.store(0, Relaxed);
        self.decayed_at.store(0, Relaxed);
        self.ejected_until.store(0, Release);
    }

    fn forgive(&self) {
        for errors in [&self.errors, &self.gateway_errors, &self.local_origin_failures] {
            clear(errors);
        }
    }
}

/// A write only where it changes something: a line that nobody writes is shared by all cores for nothing.
fn clear(counter: &AtomicU32) {
    if counter.load(Relaxed) != 0 {
        counter.store(0, Relaxed);
    }
}

/// One more in a row; true when it is at least `limit`. A `limit` of 0 counts nothing.
fn count(counter: &AtomicU32, limit: u32) -> bool {
    limit > 0 && counter.fetch_add(1, Relaxed).saturating_add(1) >= limit
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered with this status.
    Status(u16),
    /// A connection that carries no HTTP was made.
    Connected,
    /// The connection could not be made, or was lost before an answer.
    ConnectFailed,
    /// No connection, or no answer, in time.
    TimedOut,
    /// The client gave up: that tells nothing of the endpoint.
    Abandoned,
}

/// What made an endpoint be ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `consecutive5xxErrors`
    Errors,
    /// `consecutiveGatewayErrors`
    GatewayErrors,
    /// `consecutiveLocalOriginFailures`
    LocalOriginFailures,
}

impl Reason {
    /// As Envoy's event log has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Errors => "CONSECUTIVE_5XX",
            Self::GatewayErrors => "CONSECUTIVE_GATEWAY_FAILURE",
            Self::LocalOriginFailures => "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
        }
    }
}

/// An endpoint was taken out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Why.
    pub reason: Reason,
    /// When it comes back.
    pub until: u64,
    /// Its time is so many times the base time.
    pub times: u32,
}

/// Lets one worker at a time eject an endpoint of a cluster, so that together they do not go beyond what may be ejected.
/// Whoever finds it taken does not wait: the next error tries again.
#[derive(Debug, Default)]
pub struct Gate(AtomicBool);

/// Counts the outcome of a try at `health`. `pool` tells of the endpoints of the cluster, `health` among them, each once;
/// it is asked for only when an endpoint is to be ejected.
pub fn record<'h, I: Iterator<Item = &'h Health>>(
    policy: &OutlierDetection,
    health: &Health,
    outcome: Outcome,
    now: u64,
    gate: &Gate,
    pool: impl FnOnce() -> I,
) -> Option<Ejection> {
    let reason = reached(policy, health, outcome, now)?;
    if gate.0.compare_exchange(false, true, Acquire, Relaxed).is_err() {
        return None;
    }
    let ejection = if may_eject(policy, pool(), now) {
        eject(policy, health, reason, now)
    } else {
        // Asked again after as many errors more, not for each of them: the pool may be large.
        health.forgive();
        None
    };
    gate.0.store(false, Release);
    ejection
}

/// Counts, and tells which limit is reached.
fn reached(policy: &OutlierDetection, health: &Health, outcome: Outcome, now: u64) -> Option<Reason> {
    if outcome == Outcome::Abandoned || health.is_ejected(now) {
        return None;
    }
    let split = policy.split_local_origin_errors;
    let status = match outcome {
        Outcome::ConnectFailed | Outcome::TimedOut if split => {
            let reached = count(&health.local_origin_failures, policy.consecutive_local_origin_failures);
            return reached.then_some(Reason::LocalOriginFailures);
        }
        // What the client is told. It counts as an error whatever codes are named.
        Outcome::ConnectFailed => 503,
        Outcome::TimedOut => 504,
        Outcome::Status(status) => status,
        Outcome::Connected | Outcome::Abandoned => 200,
    };
    if split {
        // Whoever answers can be reached.
        clear(&health.local_origin_failures);
        if outcome == Outcome::Connected {
            return None;
        }
    }
    let named = match outcome {
        Outcome::Status(status) if !policy.http_error_codes.is_empty() => {
            Some(policy.http_error_codes.contains(&status))
        }
        _ => None,
    };
    let is_gateway_error = named.is_none() && matches!(status, 502..=504);
    let is_error = named.unwrap_or(status >= 500);
    let gateway = if is_gateway_error {
        count(&health.gateway_errors, policy.consecutive_gateway_errors)
    } else {
        clear(&health.gateway_errors);
        false
    };
    let errors = if is_error {
        count(&health.errors, policy.consecutive_5xx_errors)
    } else {
        clear(&health.errors);
        false
    };
    if gateway { Some(Reason::GatewayErrors) } else { errors.then_some(Reason::Errors) }
}

/// One may always be ejected where two are healthy; beyond that, no more than the percentage.
fn may_eject<'h>(policy: &OutlierDetection, pool: impl Iterator<Item = &'h Health>, now: u64) -> bool {
    let (mut all, mut ejected) = (0_u64, 0_u64);
    for health in pool {
        all += 1;
        ejected += u64::from(health.is_ejected(now));
    }
    ejected == 0 && all >= 2 || (ejected + 1) * 100 <= u64::from(policy.max_ejection_percent) * all
}

fn eject(policy: &OutlierDetection, health: &Health, reason: Reason, now: u64) -> Option<Ejection> {
    let (base, limit) = (policy.base_ejection_time, MAX_EJECTION_TIME.max(policy.base_ejection_time));
    let before = health.ejections.load(Relaxed);
    // Beyond the longest time there is nothing to count, but to decay for longer.
    let times = if base.saturating_mul(before) < limit { before + 1 } else { before };
    // Never zero, which would be no ejection at all.
    let until = now.saturating_add(nanos(base.saturating_mul(times).min(limit)).max(1));
    let seen = health.ejected_until.load(Acquire);
    // Another worker, of another cluster with this endpoint, may have been first.
    if now < seen || health.ejected_until.compare_exchange(seen, until, AcqRel, Relaxed).is_err() {
        return None;
    }
    health.ejections.store(times, Relaxed);
    health.decayed_at.store(until, Relaxed);
    health.forgive();
    Some(Ejection { reason, until, times })
}

/// Looks at an endpoint, once an interval: true when it came back since the last look. For every interval that it is in
/// use, its next ejection is shorter by the base time.
pub fn sweep(policy: &OutlierDetection, health: &Health, now: u64) -> bool {
    let until = health.ejected_until.load(Acquire);
    if now < until {
        return false;
    }
    let ejections = health.ejections.load(Relaxed);
    let decayed_at = health.decayed_at.load(Relaxed);
    let quiet = now.saturating_sub(decayed_at) >= nanos(policy.interval);
    // Several clusters may have this endpoint, and sweep it: one of them shortens it in an interval.
    if ejections > 0 && quiet && health.decayed_at.compare_exchange(decayed_at, now, AcqRel, Relaxed).is_ok() {
        // An ejection in between has counted on from what it saw, and wins.
        let _ = health.ejections.compare_exchange(ejections, ejections - 1, Relaxed, Relaxed);
    }
    until != 0 && health.ejected_until.compare_exchange(until, 0, AcqRel, Relaxed).is_ok()
}

/// Whether so few are in use that all are to be used: below `minHealthPercent` of them.
pub fn panics(policy: &OutlierDetection, in_use: usize, all: usize) -> bool {
    (in_use as u64) * 100 < u64::from(policy.min_health_percent) * all as u64
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
