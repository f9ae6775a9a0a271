//! What the server counts: requests, answers and bytes by verb and resource, and open watches. Read by tests that must
//! show that a client does not ask too much.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Requests whose lines are kept.
const RECENT: usize = 1000;

/// Counts of one verb on one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// `get`, `list`, `watch`, …; `other` for discovery, health and version.
    pub verb: String,
    /// `pods`, `virtualservices.networking.istio.io`; empty for `other`.
    pub resource: String,
    /// Requests that came in.
    pub requests: u64,
    /// Answers by HTTP status.
    pub by_status: BTreeMap<u16, u64>,
    /// Bytes of bodies sent, before TLS and chunking.
    pub bytes: u64,
}

/// A look at all counts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Every verb and resource that was asked for.
    pub counts: Vec<Count>,
    /// Watches that are open, by resource.
    pub open_watches: BTreeMap<String, u64>,
    /// Connections that were accepted.
    pub connections: u64,
    /// The last 1,000 requests: `list pods 200 /api/v1/pods?limit=500`.
    pub recent: Vec<String>,
}

impl Counters {
    /// Requests with a verb (empty for all) for a resource (empty for all).
    pub fn requests(&self, verb: &str, resource: &str) -> u64 {
        self.selected(verb, resource).map(|c| c.requests).sum()
    }

    /// Bytes sent, selected likewise.
    pub fn bytes(&self, verb: &str, resource: &str) -> u64 {
        self.selected(verb, resource).map(|c| c.bytes).sum()
    }

    /// Answers with a status, selected likewise.
    pub fn answered(&self, verb: &str, resource: &str, status: u16) -> u64 {
        self.selected(verb, resource).filter_map(|c| c.by_status.get(&status)).sum()
    }

    /// Open watches of a resource (empty for all).
    pub fn watches(&self, resource: &str) -> u64 {
        self.open_watches.iter().filter(|(r, _)| resource.is_empty() || *r == resource).map(|(_, n)| n).sum()
    }

    fn selected<'c>(&'c self, verb: &'c str, resource: &'c str) -> impl Iterator<Item = &'c Count> {
        let fits =
            move |c: &&Count| (verb.is_empty() || c.verb == verb) && (resource.is_empty() || c.resource == resource);
        self.counts.iter().filter(fits)
    }
}

/// The counts of one verb and resource, shared with the bodies that are being sent.
#[derive(Debug, Default)]
pub(super) struct Cell {
    requests: AtomicU64,
    bytes: AtomicU64,
    by_status: Mutex<BTreeMap<u16, u64>>,
}

impl Cell {
    pub(super) fn sent(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Counts while the server runs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    cells: Mutex<BTreeMap<(String, String), Arc<Cell>>>,
    watches: Mutex<BTreeMap<String, u64>>,
    recent: Mutex<VecDeque<String>>,
    connections: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    /// Counts a request that came in.
    pub(super) fn request(&self, verb: &str, resource: &str) -> Arc<Cell> {
        let mut cells = lock(&self.cells);
        let cell = cells.entry((verb.to_owned(), resource.to_owned())).or_default();
        cell.requests.fetch_add(1, Ordering::Relaxed);
        Arc::clone(cell)
    }

    /// Counts its answer.
    pub(super) fn answer(&self, cell: &Cell, code: u16, line: String) {
        *lock(&cell.by_status).entry(code).or_default() += 1;
        let mut recent = lock(&self.recent);
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(line);
    }

    pub(super) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a watch for as long as the guard lives.
    pub(super) fn watch(self: &Arc<Self>, resource: &str) -> OpenWatch {
        *lock(&self.watches).entry(resource.to_owned()).or_default() += 1;
        OpenWatch { tally: Arc::clone(self), resource: resource.to_owned() }
    }

    pub(super) fn look(&self) -> Counters {
        let count = |((verb, resource), cell): (&(String, String), &Arc<Cell>)| Count {
            verb: verb.clone(),
            resource: resource.clone(),
            requests: cell.requests.load(Ordering::Relaxed),
            by_status: lock(&cell.by_status).clone(),
            bytes: cell.bytes.load(Ordering::Relaxed),
        };
        Counters {
            counts: lock(&self.cells).iter().map(count).collect(),
            open_watches: lock(&self.watches).clone(),
            connections: self.connections.load(Ordering::Relaxed),
            recent: lock(&self.recent).iter().cloned().collect(),
        }
    }

    /// Starts again at zero; open watches stay counted.
    pub(super) fn reset(&self) {
        lock(&self.cells).clear();
        lock(&self.recent).clear();
        self.connections.store(0, Ordering::Relaxed);
    }
}

/// A watch that is open.
#[derive(Debug)]
pub(super) struct OpenWatch {
    tally: Arc<Tally>,
    resource: String,
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        let mut watches = lock(&self.tally.watches);
        if let Some(open) = watches.get_mut(&self.resource) {
            *open -= 1;
        }
        watches.retain(|_, open| *open > 0);
    }
}
