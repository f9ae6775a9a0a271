//! Istio's metrics of requests and connections: who asked whom, how it ended, how long it took and how much it was. Counted
//! by `handler` and `tcp`, read by [`super::Proxy::istio_metrics`].
//!
//! - `series`: one set of labels and what is counted under it, a shard for each worker
//! - `edge`: a worker's way from a request to its series, without making a label
//! - `render`: Prometheus' text
//!
//! A series is made once, under a lock that only new label sets take. From then on a worker finds it by small numbers, and
//! counts in memory that it alone writes.

mod edge;
mod render;
mod series;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weir_mesh::crd::Pod;
use weir_mesh::program::{Program, Workload};

pub(crate) use self::edge::{Edge, Edges, Place};
pub use self::render::Pieces;
pub(crate) use self::series::Shard;
use self::series::{Labels, Series};
use super::SourcePod;

/// A label set of HTTP comes to 66 lines of some 700 bytes for each reporter, so this bounds a scrape to some 100 MB, of
/// which only a piece is in memory at a time. Thirty pods that each call ten workloads, with three outcomes, are 900.
pub const DEFAULT_MAX_SERIES: usize = 2000;
/// What nobody can ask for or answer any more is still told for this long, so that its last counts are scraped: five times
/// Prometheus' usual interval, and its look-back.
pub(crate) const GONE_FOR: Duration = Duration::from_mins(5);

/// All series of the node.
#[derive(Debug)]
pub(crate) struct Registry {
    workers: usize,
    max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    series: HashMap<Arc<Labels>, Known, foldhash::fast::RandomState>,
    /// Pods of this node that take part, by the cookies of their namespaces.
    pods: HashMap<u64, Arc<SourcePod>>,
}

#[derive(Debug)]
struct Known {
    series: Arc<Series>,
    /// Since when its source or its destination is not there any more.
    gone: Option<Instant>,
}

impl Registry {
    /// For so many workers and so many label sets; those that come when there are as many are counted under one that names
    /// nobody.
    pub(crate) fn new(workers: usize, max: usize) -> Self {
        Self { workers, max, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_pod(&self, pod: &Arc<SourcePod>) {
        self.inner().pods.insert(pod.netns.cookie(), Arc::clone(pod));
    }

    pub(crate) fn remove_pod(&self, cookie: u64) {
        self.inner().pods.remove(&cookie);
    }

    /// Whether a pod of this node that takes part has this address: then this proxy stands for the destination's side, too.
    fn is_served(&self, address: IpAddr) -> bool {
        self.inner().pods.values().any(|pod| pod.identity().addresses.contains(&address))
    }

    /// The series of a label set, and whether that is its own.
    fn series(&self, labels: Labels) -> (Arc<Series>, bool) {
        let mut inner = self.inner();
        if let Some(known) = inner.series.get(&labels) {
            return (Arc::clone(&known.series), true);
        }
        let fits = inner.series.len() < self.max;
        let labels = if fits { labels } else { labels.folded() };
        let known = inner.series.entry(Arc::new(labels)).or_insert_with_key(|labels| Known {
            series: Arc::new(Series::new(Arc::clone(labels), self.workers)),
            gone: None,
        });
        (Arc::clone(&known.series), fits)
    }

    /// Every series in the order of its labels. Drops those that are gone for long.
    pub(crate) fn sorted(&self, program: &Program, now: Instant) -> Vec<Arc<Series>> {
        let mut inner = self.inner();
        let Inner { series, pods } = &mut *inner;
        let sources: HashSet<_> = pods.values().map(|pod| Arc::clone(&pod.identity().workload)).collect();
        let idle = series.iter().filter(|(_, known)| Arc::strong_count(&known.series) == 1);
        let idle: Vec<_> = idle.map(|(labels, _)| Arc::clone(labels)).collect();
        let (hosts, workloads) = living(program, idle.iter().map(|labels| &**labels));
        series.retain(|labels, known| {
            // What a worker still holds may be counted in any moment.
            let alive = Arc::strong_count(&known.series) > 1
                || labels.is_folded()
                || (sources.contains(&labels.source)
                    && labels.destination.as_ref().is_none_or(|one| workloads.contains(&**one))
                    && labels.service.host().is_none_or(|host| hosts.contains(host)));
            if alive {
                known.gone = None;
                return true;
            }
            now.saturating_duration_since(*known.gone.get_or_insert(now)) < GONE_FOR
        });
        let mut all: Vec<_> = series.values().map(|known| Arc::clone(&known.series)).collect();
        drop(inner);
        all.sort_by(|a, b| a.labels().cmp(b.labels()));
        all
    }
}

/// The hosts and the workloads of these labels that are in the program. A mesh has a hundred thousand pods: only for those
/// of a name that is asked for are labels looked up.
fn living<'p, 'l>(
    program: &'p Program,
    asked: impl Iterator<Item = &'l Labels> + Clone,
) -> (HashSet<&'p str>, HashSet<Workload>) {
    let wanted: HashSet<&str> = asked.clone().filter_map(|labels| labels.service.host()).collect();
    let hosts = program.clusters.iter().map(|cluster| &*cluster.host);
    let hosts =
        hosts.chain(program.ports.iter().map(|port| &*port.host)).filter(|host| wanted.contains(host)).collect();
    let wanted: HashSet<(&str, &str)> =
        asked.filter_map(|labels| labels.destination.as_ref()).map(|one| (&*one.namespace, &*one.name)).collect();
    let named = |pod: &&'p Arc<Pod>| wanted.contains(&(&**pod.meta.namespace(), &**Workload::name_of(pod)));
    let workloads = if wanted.is_empty() {
        HashSet::new()
    } else {
        program.pods.iter().filter(named).map(|pod| Workload::of(pod)).collect()
    };
    (hosts, workloads)
}

#[cfg(test)]
mod tests;
