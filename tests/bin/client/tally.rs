//! What the client counted so far, shared by its threads and printed as JSON.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use weir_tests::monotonic_ns;

/// Different errors that are told apart; what comes beyond is counted together.
const MAX_ERRORS: usize = 32;
/// Attempts that a trace holds: minutes of a paced load, in a line of some 4 MB.
const MAX_TRACE: usize = 100_000;

/// Counts of all threads.
#[derive(Default)]
pub(crate) struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    answered: u64,
    failed: u64,
    resent: u64,
    by_version: BTreeMap<String, u64>,
    by_pod: BTreeMap<String, u64>,
    by_status: BTreeMap<u16, u64>,
    errors: BTreeMap<String, u64>,
    failed_at: Vec<u64>,
    first_answer: BTreeMap<String, u64>,
    last_start: BTreeMap<String, u64>,
    /// The pod that answered each user first, and the answers that came from another one than that.
    by_user: BTreeMap<u64, String>,
    moved: u64,
    /// Start and end of each attempt, and whether it failed.
    trace: Option<Vec<(u64, u64, bool)>>,
}

impl Counts {
    fn trace(&mut self, began: u64, ended: u64, failed: bool) {
        if let Some(trace) = self.trace.as_mut().filter(|t| t.len() < MAX_TRACE) {
            trace.push((began, ended, failed));
        }
    }
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on every attempt is kept.
    pub(crate) fn trace(&self) {
        self.counts().trace = Some(Vec::new());
    }

    /// A complete answer; `began` is when its request was started (CLOCK_MONOTONIC, ns).
    pub(crate) fn answered(&self, status: Option<u16>, version: Option<&str>, pod: Option<&str>, began: u64) {
        let now = monotonic_ns();
        let mut counts = self.counts();
        counts.answered += 1;
        counts.trace(began, now, false);
        if let Some(status) = status {
            *counts.by_status.entry(status).or_default() += 1;
        }
        if let Some(version) = version {
            add(&mut counts.by_version, version);
            if !counts.first_answer.contains_key(version) {
                counts.first_answer.insert(version.into(), now);
            }
            match counts.last_start.get_mut(version) {
                Some(last) => *last = began.max(*last),
                None => drop(counts.last_start.insert(version.into(), began)),
            }
        }
        if let Some(pod) = pod {
            add(&mut counts.by_pod, pod);
        }
    }

    /// Which pod answered a user.
    pub(crate) fn of_user(&self, user: u64, pod: &str) {
        let mut counts = self.counts();
        match counts.by_user.get(&user) {
            Some(first) if first == pod => {}
            Some(_) => counts.moved += 1,
            None => drop(counts.by_user.insert(user, pod.into())),
        }
    }

    /// A request or connection that failed; `began` as above.
    pub(crate) fn failed(&self, error: &io::Error, began: u64) {
        let now = monotonic_ns();
        let mut counts = self.counts();
        counts.failed += 1;
        counts.trace(began, now, true);
        if counts.failed_at.len() < MAX_ERRORS {
            counts.failed_at.push(now);
        }
        let name = error.to_string();
        let known = counts.errors.len() < MAX_ERRORS || counts.errors.contains_key(&name);
        add(&mut counts.errors, if known { &name } else { "others" });
    }

    /// A request that is sent again.
    pub(crate) fn resent(&self) {
        self.counts().resent += 1;
    }

    /// One line.
    pub(crate) fn json(&self, elapsed: Duration) -> String {
        self.value(elapsed).to_string()
    }

    /// The last line, which has the trace and the users.
    pub(crate) fn last_json(&self, elapsed: Duration) -> String {
        let mut value = self.value(elapsed);
        if let Some(trace) = &self.counts().trace {
            value["trace"] = json!(trace);
        }
        value["by_user"] = json!(self.counts().by_user);
        value.to_string()
    }

    fn value(&self, elapsed: Duration) -> Value {
        let c = self.counts();
        let by_status: BTreeMap<String, u64> = c.by_status.iter().map(|(k, v)| (k.to_string(), *v)).collect();
        json!({
            "answered": c.answered, "failed": c.failed, "resent": c.resent, "moved": c.moved,
            "by_version": c.by_version, "by_pod": c.by_pod, "by_status": by_status, "errors": c.errors,
            "failed_at": c.failed_at,
            "first_answer": c.first_answer, "last_start": c.last_start, "seconds": elapsed.as_secs_f64(),
        })
    }
}

fn add(table: &mut BTreeMap<String, u64>, key: &str) {
    match table.get_mut(key) {
        Some(count) => *count += 1,
        None => drop(table.insert(key.into(), 1)),
    }
}
