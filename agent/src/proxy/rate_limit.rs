//! `weir.mesh/rate-limit`: requests beyond a rule's limit are answered with 429. Each limit has one bucket for the node, or
//! one for each pod that asks, which all workers draw from; a worker finds it without a lock. Called by `handler`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use foldhash::fast::RandomState;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use weir_mesh::program::{Drawn, RateLimit};

use super::body::Body;
use super::error::{Flag, Flags};
use super::plan::Plan;
use super::worker::{Connection, monotonic};

/// What a client is told, and the log.
const TEXT: &str = "local_rate_limited";
pub(crate) const DETAILS: &str = "local_rate_limited";
/// Below so many buckets none is thrown away: they are 100 bytes each.
const SMALL: usize = 4096;
/// The pod that all share who have no bucket of their own. No namespace has this cookie.
const EVERYBODY: u64 = 0;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// By which retries know it: `envoy-ratelimited`.
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

/// When a bucket is full: CLOCK_MONOTONIC, ns.
type Bucket = Arc<AtomicU64>;
/// By limit, then by pod.
type Table = HashMap<Arc<str>, HashMap<u64, Bucket, RandomState>, RandomState>;

/// The buckets of the node.
#[derive(Debug, Default)]
pub(crate) struct Buckets(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    table: Table,
    count: usize,
    /// At this size, what is full and in nobody's hands is dropped: a new bucket is full, too.
    sweep_at: usize,
}

impl Buckets {
    fn get(&self, limit: &Arc<str>, pod: u64) -> Bucket {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = inner.table.get(limit).and_then(|pods| pods.get(&pod)) {
            return Arc::clone(bucket);
        }
        if inner.count >= inner.sweep_at.max(SMALL) {
            let now = monotonic();
            inner.table.retain(|_, pods| {
                pods.retain(|_, bucket| Arc::strong_count(bucket) > 1 || bucket.load(Ordering::Relaxed) > now);
                !pods.is_empty()
            });
            inner.count = inner.table.values().map(HashMap::len).sum();
            inner.sweep_at = 2 * inner.count;
        }
        inner.count += 1;
        Arc::clone(inner.table.entry(Arc::clone(limit)).or_default().entry(pod).or_default())
    }
}

/// Those that a worker has drawn from, since the program or its pods last changed.
#[derive(Debug)]
pub(crate) struct Known {
    shared: Arc<Buckets>,
    table: RefCell<Table>,
}

impl Known {
    pub(crate) fn new(shared: Arc<Buckets>) -> Self {
        Self { shared, table: RefCell::default() }
    }

    /// Lets go of all of them, so that those of limits and pods that are gone can be dropped.
    pub(crate) fn forget(&self) {
        self.table.borrow_mut().clear();
    }

    fn draw(&self, limit: &RateLimit, pod: u64) -> Drawn {
        let mut table = self.table.borrow_mut();
        let known = table.get(&limit.id).and_then(|pods| pods.get(&pod));
        if let Some(bucket) = known {
            return draw_from(bucket, limit);
        }
        let bucket = self.shared.get(&limit.id, pod);
        let drawn = draw_from(&bucket, limit);
        table.entry(Arc::clone(&limit.id)).or_default().insert(pod, bucket);
        drawn
    }
}

fn draw_from(bucket: &AtomicU64, limit: &RateLimit) -> Drawn {
    let now = monotonic();
    let mut full_at = bucket.load(Ordering::Relaxed);
    loop {
        let drawn = limit.draw(full_at, now);
        let Some(next) = drawn.full_at else { return drawn };
        match bucket.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return drawn,
            Err(other) => full_at = other,
        }
    }
}

/// A request to a rule that has a limit.
#[derive(Debug)]
pub(crate) struct Limited<'p> {
    limit: &'p RateLimit,
    drawn: Drawn,
}

/// Takes the request's token, where its rule has a limit.
pub(crate) fn draw<'p>(plan: &Plan<'p>, connection: &Connection) -> Option<Limited<'p>> {
    let limit = plan.settings()?.rate_limit.as_deref()?;
    let pod = if limit.per_source { connection.pod.source.netns.cookie() } else { EVERYBODY };
    Some(Limited { limit, drawn: connection.worker.buckets.draw(limit, pod) })
}

impl Limited<'_> {
    /// The answer to a request for which there was no token.
    pub(crate) fn refuse(&self, flags: &mut Flags) -> Option<Response<Body>> {
        if self.drawn.full_at.is_some() {
            return None;
        }
        flags.insert(Flag::RateLimited);
        let mut response = Response::new(Body::text(TEXT));
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        response.headers_mut().insert(RATE_LIMITED, HeaderValue::from_static("true"));
        Some(response)
    }

    /// Tells the client how much it may still ask.
    pub(crate) fn describe(&self, response: &mut Response<Body>) {
        // Whole seconds, after which there is certainly room.
        let reset = self.drawn.reset.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX);
        let [limit, remaining, reset] = values([self.limit.burst.into(), self.drawn.remaining.into(), reset]);
        let headers = response.headers_mut();
        headers.insert(LIMIT, limit);
        headers.insert(REMAINING, remaining);
        headers.insert(RESET, reset);
    }
}

/// Numbers as values of headers, in one buffer for all of them.
fn values<const N: usize>(numbers: [u64; N]) -> [HeaderValue; N] {
    let mut text = BytesMut::with_capacity(N * "18446744073709551615".len());
    numbers.map(|number| {
        text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        HeaderValue::from_maybe_shared(text.split().freeze()).expect("digits")
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limit(id: &str, requests: u32, per: Duration) -> RateLimit {
        RateLimit { id: id.into(), requests, per, burst: requests, per_source: true }
    }

    #[test]
    fn workers_draw_from_one_bucket() {
        let shared = Arc::<Buckets>::default();
        let limit = limit("a", 1000, Duration::from_hours(1));
        let draw = |shared: Arc<Buckets>| {
            let known = Known::new(shared);
            (0..600).filter(|_| known.draw(&limit, 7).full_at.is_some()).count()
        };
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| draw(Arc::clone(&shared)))).collect();
            workers.into_iter().map(|worker| worker.join().expect("it ends")).sum()
        });
        assert_eq!(taken, 1000);
        assert!(Known::new(shared).draw(&limit, 8).full_at.is_some(), "another pod has a bucket of its own");
    }

    #[test]
    fn buckets_that_tell_nothing_do_not_pile_up() {
        let shared = Arc::<Buckets>::default();
        let (slow, quick) = (limit("slow", 1, Duration::from_hours(1)), limit("quick", 1000, Duration::from_millis(1)));
        let known = Known::new(Arc::clone(&shared));
        assert!(known.draw(&slow, 1).full_at.is_some());
        for pod in 0..10 * SMALL as u64 {
            known.draw(&quick, pod);
            known.forget();
        }
        assert!(shared.0.lock().expect("whole").count <= 2 * SMALL);
        assert!(known.draw(&slow, 1).full_at.is_none(), "the empty one is remembered");
    }
}
