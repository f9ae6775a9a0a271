//! One set of labels, and what is counted under it: a shard for each worker, which it alone writes.

use std::sync::Arc;
use std::time::Duration;

use weir_mesh::program::Workload;

use crate::proxy::counters::Counter;
use crate::proxy::error::Flags;

/// Upper bounds of Istio's histograms, of milliseconds and of bytes, doubled: the first is a half.
pub(crate) const DOUBLED_BOUNDS: [u64; 19] = [
    1, 2, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000, 120_000, 600_000, 1_200_000,
    3_600_000, 7_200_000,
];

/// What stands where a label would name somebody, once there are too many.
const OTHER: &str = "other";

/// Which service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Service {
    /// Its FQDN.
    Host(Arc<str>),
    /// An address that no service has.
    Passthrough,
    /// It was not told.
    Unknown,
}

impl Service {
    pub(crate) fn host(&self) -> Option<&str> {
        match self {
            Self::Host(host) => Some(host),
            Self::Passthrough | Self::Unknown => None,
        }
    }
}

/// What tells one series from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Labels {
    /// TCP connections are counted otherwise than requests.
    pub(crate) tcp: bool,
    pub(crate) source: Arc<Workload>,
    pub(crate) destination: Option<Arc<Workload>>,
    pub(crate) service: Service,
    /// The destination's pod takes part on this node: this proxy reports for its side, too.
    pub(crate) both_sides: bool,
    /// `response_code`; 0 = there was none.
    pub(crate) status: u16,
    pub(crate) flags: Flags,
}

impl Labels {
    /// What it is counted under when there are too many: the outcome is told, those who took part are not.
    pub(crate) fn folded(&self) -> Self {
        let other: Arc<str> = OTHER.into();
        Self {
            tcp: self.tcp,
            source: Arc::new(Workload { name: Arc::clone(&other), ..Workload::default() }),
            destination: None,
            service: Service::Host(other),
            both_sides: false,
            // Upstreams choose statuses: of those there may be hundreds.
            status: self.status / 100 * 100,
            flags: Flags::default(),
        }
    }

    pub(crate) fn is_folded(&self) -> bool {
        self.service.host() == Some(OTHER)
    }
}

/// Samples by size.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Not cumulative; the last is what is beyond all bounds.
    buckets: [Counter; DOUBLED_BOUNDS.len() + 1],
    sum: Counter,
}

impl Histogram {
    /// `doubled` is the sample in halves of the unit of the bounds, rounded up; `sum` in any unit.
    fn observe(&self, doubled: u64, sum: u64) {
        let at = DOUBLED_BOUNDS.partition_point(|bound| *bound < doubled);
        self.buckets[at].add(1);
        self.sum.add(sum);
    }
}

/// What one worker has counted.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Shard {
    /// Milliseconds; the sum is of microseconds.
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    opened: Counter,
    closed: Counter,
    /// To the server.
    received: Counter,
    /// To the client.
    sent: Counter,
}

impl Shard {
    /// Counts a request.
    pub(crate) fn request(&self, took: Duration, received: u64, sent: u64) {
        let micros = took.as_micros() as u64;
        self.duration.observe(micros.div_ceil(500), micros);
        self.request_bytes.observe(received.saturating_mul(2), received);
        self.response_bytes.observe(sent.saturating_mul(2), sent);
    }

    pub(crate) fn opened(&self) {
        self.opened.add(1);
    }

    pub(crate) fn closed(&self) {
        self.closed.add(1);
    }

    /// Counts bytes to the server.
    pub(crate) fn received(&self, bytes: u64) {
        self.received.add(bytes);
    }

    /// Counts bytes to the client.
    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.add(bytes);
    }
}

/// The sum of a histogram's shards.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Distribution {
    /// Not cumulative.
    pub(crate) buckets: [u64; DOUBLED_BOUNDS.len() + 1],
    pub(crate) sum: u64,
}

impl Distribution {
    fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.get();
        }
        self.sum += histogram.sum.get();
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// The sum of all shards.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) duration: Distribution,
    pub(crate) request_bytes: Distribution,
    pub(crate) response_bytes: Distribution,
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// A label set with its shards, one for each worker.
#[derive(Debug)]
pub(crate) struct Series {
    labels: Arc<Labels>,
    shards: Box<[Shard]>,
}

impl Series {
    pub(crate) fn new(labels: Arc<Labels>, workers: usize) -> Self {
        Self { labels, shards: (0..workers).map(|_| Shard::default()).collect() }
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
    }

    /// That of a worker.
    pub(crate) fn shard(&self, worker: usize) -> &Shard {
        &self.shards[worker]
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in &self.shards {
            totals.duration.add(&shard.duration);
            totals.request_bytes.add(&shard.request_bytes);
            totals.response_bytes.add(&shard.response_bytes);
            totals.opened += shard.opened.get();
            totals.closed += shard.closed.get();
            totals.received += shard.received.get();
            totals.sent += shard.sent.get();
        }
        totals
    }
}
