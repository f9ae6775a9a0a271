//! Circuit breakers: how many connections, requests, waiting requests and repetitions to a cluster may be under way. One
//! count for all workers of the node, only where a policy gives a limit. Used by `upstream`, `tcp` and `budget`.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use weir_mesh::program::{ClusterPolicy, HttpPool};

use super::target::Target;
use crate::proxy::error::{Kind, ProxyError};
use crate::proxy::worker::Worker;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Connections,
    Requests,
    /// Requests that wait for a connection, be it one that is being opened.
    Pending,
    Retries,
}

/// The counts of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Breakers {
    counts: [AtomicU32; 4],
    /// Of those pending, how many wait for another connection to end.
    waiting: AtomicU32,
    freed: Notify,
}

/// A place among what is counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    breakers: Arc<Breakers>,
    of: Of,
}

impl Breakers {
    /// Whether a policy limits anything that is counted here.
    pub(crate) fn are_needed(policy: &ClusterPolicy) -> bool {
        let of_http = |http: &HttpPool| http.max_pending_requests.or(http.max_requests).or(http.max_retries).is_some();
        let pool = policy.connection_pool.as_ref().map(|block| &block.value);
        policy.retry_budget.is_some()
            || pool.is_some_and(|pool| pool.max_connections.is_some() || pool.http.as_ref().is_some_and(of_http))
    }

    /// How many there are.
    pub(crate) fn count(&self, of: Of) -> u32 {
        self.counts[of as usize].load(Relaxed)
    }

    /// Whether somebody waits for a connection to end.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Acquire) > 0
    }

    /// A place, if there is one; `None` as a limit is none.
    pub(crate) fn take(self: &Arc<Self>, of: Of, limit: Option<u32>) -> Option<Permit> {
        let limit = limit.unwrap_or(u32::MAX);
        let more = |count: u32| (count < limit).then(|| count.saturating_add(1));
        let taken = self.counts[of as usize].fetch_update(AcqRel, Acquire, more).is_ok();
        taken.then(|| Permit { breakers: Arc::clone(self), of })
    }
}

impl Permit {
    pub(crate) fn is_of(&self, breakers: &Arc<Breakers>) -> bool {
        Arc::ptr_eq(&self.breakers, breakers)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breakers.counts[self.of as usize].fetch_sub(1, AcqRel);
        if self.of == Of::Connections {
            self.breakers.freed.notify_one();
        }
    }
}

/// Counts who waits.
struct Waiting<'b>(&'b Breakers);

impl<'b> Waiting<'b> {
    fn begin(breakers: &'b Breakers) -> Self {
        breakers.waiting.fetch_add(1, AcqRel);
        Self(breakers)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, AcqRel);
    }
}

/// What holds for one connection of a cluster with a `connectionPool`.
#[derive(Debug)]
pub(crate) struct Terms {
    place: Option<Permit>,
    /// Requests that it may still serve.
    left: u32,
    /// When it has lasted long enough.
    until: Option<Instant>,
    idle: Option<Duration>,
}

impl Terms {
    /// A request was served: false when the connection is to be closed.
    pub(crate) fn served(&mut self) -> bool {
        self.left -= 1;
        let is_awaited = self.place.as_ref().is_some_and(|place| place.breakers.is_awaited());
        self.left > 0 && !is_awaited && !self.are_over()
    }

    pub(crate) fn are_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// How long the connection may be idle, where that is given.
    pub(crate) fn idle(&self) -> Option<Duration> {
        self.idle
    }

    /// Whether it has a place that somebody waits for.
    pub(crate) fn holds(&self, breakers: &Arc<Breakers>) -> bool {
        self.place.as_ref().is_some_and(|place| place.is_of(breakers))
    }
}

/// A connection that may be opened.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    pub(crate) terms: Option<Box<Terms>>,
    /// Held until it is open.
    pub(crate) pending: Option<Permit>,
}

/// Waits for a connection's place among those to a cluster. Where too many wait already, that is an overflow.
pub(crate) async fn admit(worker: &Worker, target: &Target) -> Result<Admitted, ProxyError> {
    let Some(pool) = target.connection_pool() else {
        return Ok(Admitted::default());
    };
    let http = pool.http.as_ref();
    let mut admitted = Admitted::default();
    let mut place = None;
    if let Some(breakers) = target.breakers() {
        let pending = breakers.take(Of::Pending, http.and_then(|http| http.max_pending_requests));
        admitted.pending = Some(pending.ok_or(Kind::Overflow)?);
        if pool.max_connections.is_some() {
            place = Some(wait(worker, breakers, pool.max_connections).await);
        }
    }
    let left = http.and_then(|http| http.max_requests_per_connection);
    let until = pool.max_connection_duration.and_then(|longest| Instant::now().checked_add(longest));
    let idle = http.and_then(|http| http.idle_timeout);
    if place.is_some() || left.is_some() || until.is_some() || idle.is_some() {
        admitted.terms = Some(Box::new(Terms { place, left: left.unwrap_or(u32::MAX), until, idle }));
    }
    Ok(admitted)
}

/// Until there is a place. Idle connections make room: those of this worker at once, those of others when they look.
async fn wait(worker: &Worker, breakers: &Arc<Breakers>, limit: Option<u32>) -> Permit {
    let mut waiting = None;
    loop {
        let mut freed = pin!(breakers.freed.notified());
        // From here on nothing that is freed is missed.
        freed.as_mut().enable();
        if let Some(place) = breakers.take(Of::Connections, limit) {
            return place;
        }
        if !worker.pool.evict(breakers) {
            waiting.get_or_insert_with(|| Waiting::begin(breakers));
            freed.await;
        }
    }
}

/// A place for a connection that carries no HTTP; nobody waits for one.
pub(crate) fn admit_bytes(target: &Target) -> Result<Option<Permit>, ProxyError> {
    match (target.breakers(), target.connection_pool().and_then(|pool| pool.max_connections)) {
        (Some(breakers), Some(limit)) => Ok(Some(breakers.take(Of::Connections, Some(limit)).ok_or(Kind::Overflow)?)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_up_to_the_limit_and_given_back() {
        let breakers = Arc::new(Breakers::default());
        let take = || breakers.take(Of::Connections, Some(2));
        let both = (take(), take());
        assert!(both.0.is_some() && both.1.is_some() && take().is_none());
        assert!(breakers.take(Of::Pending, Some(1)).is_some(), "each kind by itself");
        drop(both.0);
        assert_eq!((breakers.count(Of::Connections), take().is_some()), (1, true));
        let many: Vec<_> = (0..100).map(|_| breakers.take(Of::Requests, None)).collect();
        assert!(many.iter().all(Option::is_some), "no limit is none");
    }

    #[test]
    fn workers_together_take_no_more_than_the_limit() {
        let breakers = Arc::new(Breakers::default());
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(_place) = breakers.take(Of::Requests, Some(3)) {
                            most.fetch_max(breakers.count(Of::Requests), Relaxed);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(Relaxed)));
        assert_eq!(breakers.count(Of::Requests), 0);
    }
}
