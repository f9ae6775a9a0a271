//! What goes wrong on purpose. Tests say what, how often and for which requests; the server asks before it answers and
//! for each object that it gives out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How an object is spoiled on its way to a client. The stored object stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Garbage {
    /// `spec`, `status`, `endpoints` and labels have types that they must not have.
    WrongTypes,
    /// The JSON text ends in the middle of the object.
    Truncated,
    /// The object says that it is of a kind that nobody knows.
    UnknownKind,
    /// The object has no name.
    Nameless,
    /// The object carries an annotation of 1 MiB.
    Huge,
}

/// What bookmarks are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bookmarks {
    /// Now and then, with the version that was reached.
    #[default]
    Normal,
    /// Each one twice.
    Twice,
    /// With the version of the bookmark before, though newer events have been sent already.
    Late,
    /// Not at all, which the protocol allows. The one that ends the initial events still comes.
    Never,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum What {
    Answer { code: u16, retry_after: Option<u64> },
    Latency(Duration),
    Drop,
    Garbage(Garbage),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Dose {
    Always,
    Next(u64),
    /// Out of 1; `owed` adds up what was not yet delivered, so that the share holds without chance.
    Share {
        share: f64,
        owed: f64,
    },
}

/// One fault: what, how often, for which requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    what: What,
    dose: Dose,
    verb: Option<String>,
    resource: Option<String>,
}

impl Fault {
    const fn of(what: What) -> Self {
        Self { what, dose: Dose::Always, verb: None, resource: None }
    }

    /// Requests are answered with this HTTP code and a `Status`: 410, 429, 500, 503, …
    pub const fn answer(code: u16) -> Self {
        Self::of(What::Answer { code, retry_after: None })
    }

    /// Requests wait before they are looked at, and so does every batch of events of a watch.
    pub const fn latency(delay: Duration) -> Self {
        Self::of(What::Latency(delay))
    }

    /// The connection is closed instead of an answer.
    pub const fn drop_connection() -> Self {
        Self::of(What::Drop)
    }

    /// Objects in lists and watches are spoiled. The dose counts objects.
    pub const fn garbage(garbage: Garbage) -> Self {
        Self::of(What::Garbage(garbage))
    }

    /// With the header `Retry-After`, in seconds. Only for answers.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        if let What::Answer { retry_after, .. } = &mut self.what {
            *retry_after = Some(seconds);
        }
        self
    }

    /// Only the next `n` times.
    #[must_use]
    pub const fn times(mut self, n: u64) -> Self {
        self.dose = Dose::Next(n);
        self
    }

    /// Only a share of the times, between 0 and 1, evenly spread.
    #[must_use]
    pub const fn share(mut self, share: f64) -> Self {
        self.dose = Dose::Share { share, owed: 0.0 };
        self
    }

    /// Only for requests with this verb: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
    /// `deletecollection`.
    #[must_use]
    pub fn verb(mut self, verb: &str) -> Self {
        self.verb = Some(verb.to_owned());
        self
    }

    /// Only for this resource: `pods`, `virtualservices.networking.istio.io`; or for a path that is not about objects,
    /// such as `/readyz`.
    #[must_use]
    pub fn resource(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    fn concerns(&self, verb: &str, resource: &str) -> bool {
        self.verb.as_ref().is_none_or(|v| v == verb) && self.resource.as_ref().is_none_or(|r| r == resource)
    }

    fn fires(&mut self) -> bool {
        match &mut self.dose {
            Dose::Always => true,
            Dose::Next(n) => {
                let fires = *n > 0;
                *n = n.saturating_sub(1);
                fires
            }
            Dose::Share { share, owed } => {
                *owed += *share;
                let fires = *owed >= 1.0;
                if fires {
                    *owed -= 1.0;
                }
                fires
            }
        }
    }

    fn spent(&self) -> bool {
        matches!(self.dose, Dose::Next(0))
    }
}

/// What shall happen to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) delay: Duration,
    /// Code and `Retry-After`.
    pub(super) answer: Option<(u16, Option<u64>)>,
    pub(super) dropped: bool,
}

/// The faults in force.
#[derive(Debug, Default)]
pub(super) struct Faults {
    state: Mutex<State>,
    /// Faults that spoil objects, so that a list of 100,000 asks once when there are none.
    spoilers: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    faults: BTreeMap<u64, Fault>,
    next: u64,
    bookmarks: Bookmarks,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recount(&self, state: &mut State) {
        state.faults.retain(|_, f| !f.spent());
        let spoilers = state.faults.values().filter(|f| matches!(f.what, What::Garbage(_))).count();
        self.spoilers.store(spoilers as u64, Ordering::Relaxed);
    }

    pub(super) fn inject(&self, fault: Fault) {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.faults.insert(number, fault);
        self.recount(&mut state);
    }

    /// Nothing goes wrong any more.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.bookmarks = Bookmarks::Normal;
        self.recount(&mut state);
    }

    pub(super) fn set_bookmarks(&self, bookmarks: Bookmarks) {
        self.state().bookmarks = bookmarks;
    }

    pub(super) fn bookmarks(&self) -> Bookmarks {
        self.state().bookmarks
    }

    /// What shall happen to a request: every delay, and the first answer, that fires.
    pub(super) fn fate(&self, verb: &str, resource: &str) -> Fate {
        let mut state = self.state();
        let mut fate = Fate::default();
        for fault in state.faults.values_mut().filter(|f| f.concerns(verb, resource)) {
            let answered = fate.dropped || fate.answer.is_some();
            let applies = match fault.what {
                What::Garbage(_) => false,
                What::Latency(_) => true,
                // The dose of a second answer is for a later request.
                What::Answer { .. } | What::Drop => !answered,
            };
            if !applies || !fault.fires() {
                continue;
            }
            match fault.what {
                What::Garbage(_) => {}
                What::Latency(delay) => fate.delay += delay,
                What::Answer { code, retry_after } => fate.answer = Some((code, retry_after)),
                What::Drop => fate.dropped = true,
            }
        }
        self.recount(&mut state);
        fate
    }

    /// How long a batch of events is held back. Does not use up doses.
    pub(super) fn watch_delay(&self, resource: &str) -> Duration {
        let state = self.state();
        let delays = state.faults.values().filter(|f| f.concerns("watch", resource) && matches!(f.dose, Dose::Always));
        delays.filter_map(|f| if let What::Latency(delay) = f.what { Some(delay) } else { None }).sum()
    }

    /// How the next object is spoiled, if it is.
    pub(super) fn garbage(&self, verb: &str, resource: &str) -> Option<Garbage> {
        if self.spoilers.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut state = self.state();
        let mut found = None;
        for fault in state.faults.values_mut().filter(|f| f.concerns(verb, resource)) {
            if let What::Garbage(garbage) = fault.what
                && fault.fires()
            {
                found = Some(garbage);
                break;
            }
        }
        self.recount(&mut state);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_fires_for_its_requests_and_as_often_as_it_was_told() {
        let faults = Faults::default();
        faults.inject(Fault::answer(429).retry_after(2).times(2).verb("list").resource("pods"));
        assert_eq!(faults.fate("list", "services"), Fate::default());
        assert_eq!(faults.fate("watch", "pods"), Fate::default());
        for _ in 0..2 {
            assert_eq!(faults.fate("list", "pods").answer, Some((429, Some(2))));
        }
        assert_eq!(faults.fate("list", "pods"), Fate::default());
        assert!(faults.state().faults.is_empty(), "a spent fault is forgotten");
    }

    #[test]
    fn a_share_is_kept_exactly() {
        let faults = Faults::default();
        faults.inject(Fault::answer(500).share(0.25));
        let failed = (0..100).filter(|_| faults.fate("get", "nodes").answer.is_some()).count();
        assert_eq!(failed, 25);
        faults.inject(Fault::garbage(Garbage::Nameless).share(0.5));
        let spoiled = (0..100).filter(|_| faults.garbage("list", "pods").is_some()).count();
        assert_eq!(spoiled, 50);
        faults.clear();
        assert_eq!(faults.garbage("list", "pods"), None);
    }
}
