//! Follows who is in charge of the instance: tells the endpoints when another agent is designated, has `apply` take over
//! again when that one dies, has this agent end when the instance was removed under it, and keeps it from ending before its
//! successor serves. Called by `mod`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::apply::Event;
use crate::datapath::{Datapath, DatapathError, Reign, Standing, monotonic_ns};

/// How often an agent asks where it stands: a hundredth of a CPU's thousandth, and well below what a probe waits.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// How long an agent that was told to end waits for a successor that does not serve yet. With the drain (20 s) this
/// stays below the DaemonSet's terminationGracePeriodSeconds of 45.
const PROVEN_WITHIN: Duration = Duration::from_secs(15);
/// An agent that is alive beside the designated one, and is to be its successor, has designated itself within this: ten
/// times what lies between its first beat and that. Who has not by then stands by, and takes over when this one is gone.
const DESIGNATED_WITHIN: Duration = Duration::from_secs(1);
/// Who removes the instance waits so long for others to end: for one that was killed, until it counts as dead (2 s).
const ALONE_WITHIN: Duration = Duration::from_millis(2500);

/// True while another agent is designated.
pub(super) type Superseded = watch::Receiver<bool>;

/// The following of it.
pub(super) struct Succession {
    tell: watch::Sender<bool>,
    removed: watch::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Succession {
    /// Starts to follow. `orphaned` is set while an [`Event::Orphaned`] waits in the queue.
    pub(super) fn follow(reign: Reign, events: Sender<Event>, orphaned: Arc<AtomicBool>) -> Self {
        let tell = watch::Sender::new(false);
        let (tell_removed, removed) = watch::channel(false);
        let task = tokio::spawn(follow(reign, tell.clone(), tell_removed, events, orphaned));
        Self { tell, removed, task }
    }

    /// Whether another agent is designated, now and as it changes.
    pub(super) fn superseded(&self) -> Superseded {
        self.tell.subscribe()
    }

    /// Waits until the instance was removed under this agent, which can do nothing more then.
    pub(super) async fn removed(&self) {
        if self.removed.clone().wait_for(|removed| *removed).await.is_err() {
            // Nobody follows any more.
            std::future::pending::<()>().await;
        }
    }

    /// This agent is about to end: from here on it succeeds nobody.
    pub(super) fn stop(&self) {
        self.task.abort();
    }
}

async fn follow(
    reign: Reign,
    tell: watch::Sender<bool>,
    removed: watch::Sender<bool>,
    events: Sender<Event>,
    orphaned: Arc<AtomicBool>,
) {
    let mut said = Said::default();
    loop {
        let standing = reign.standing(monotonic_ns());
        if let Some(error) = said.news(standing.as_ref().err()) {
            tracing::warn!("cannot tell which agent is in charge: {error}");
        }
        match standing {
            Ok(Standing::Yields { .. }) => {
                if !tell.send_replace(true) {
                    tracing::info!("another agent has taken over: its endpoints are asked from here on");
                }
            }
            Ok(Standing::Orphaned) => {
                if !orphaned.swap(true, Ordering::AcqRel) {
                    // The receiver is gone only when the agent ends.
                    drop(events.send(Event::Orphaned));
                }
            }
            Ok(Standing::Designated) => {
                if tell.send_replace(false) {
                    tracing::warn!("the agent that had taken over is gone: this one is in charge again");
                }
            }
            Ok(Standing::Removed) => {
                tell.send_replace(false);
                removed.send_replace(true);
            }
            // Who has made it anew needs the endpoints.
            Ok(Standing::Replaced) => {
                tell.send_replace(true);
                removed.send_replace(true);
            }
            // As it was, as far as anybody knows.
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// An error that is met again and again, to be said when it changes.
#[derive(Debug, Default)]
pub(super) struct Said(Option<String>);

impl Said {
    /// The words for what has just happened, unless they are those of the last time. `None` = it went well.
    pub(super) fn news(&mut self, error: Option<&DatapathError>) -> Option<&str> {
        let error = error.map(ToString::to_string);
        if self.0 == error {
            return None;
        }
        self.0 = error;
        self.0.as_deref()
    }
}

/// To be waited for before an agent ends: returns at once when nobody else is alive, when the successor serves, or when
/// there is nothing left to hand over; else when it is so. A successor that dies meanwhile is succeeded.
pub(super) async fn until_proven(reign: &Reign) {
    let mut designated_since: Option<Instant> = None;
    let proven = async {
        let mut waits = false;
        loop {
            let standing = reign.standing(monotonic_ns());
            match standing {
                Ok(Standing::Yields { proven: true } | Standing::Removed | Standing::Replaced) => return,
                Ok(Standing::Designated) => {
                    let since = *designated_since.get_or_insert_with(Instant::now);
                    if reign.is_alone(monotonic_ns()) || since.elapsed() >= DESIGNATED_WITHIN {
                        return;
                    }
                }
                Ok(Standing::Yields { proven: false } | Standing::Orphaned) | Err(_) => designated_since = None,
            }
            if !std::mem::replace(&mut waits, true) {
                tracing::info!(within_s = PROVEN_WITHIN.as_secs(), "waiting for the successor to serve");
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(PROVEN_WITHIN, proven).await.is_err() {
        tracing::warn!("no successor serves: proxied connections take their fallback slots");
    }
}

/// Whether the instance is another agent's, so that this one has nothing to say about its end.
pub(super) fn is_anothers(reign: &Reign) -> bool {
    !matches!(reign.standing(monotonic_ns()), Ok(Standing::Designated | Standing::Orphaned))
}

/// Removes all that the instance has in the kernel, unless it is another agent's by now. False = it stays.
///
/// # Errors
/// When it cannot be told whose it is, or a pin cannot be removed.
pub(super) async fn remove(reign: &Reign, datapath: &Mutex<Datapath>) -> Result<bool, DatapathError> {
    let until = Instant::now() + ALONE_WITHIN;
    loop {
        if datapath.lock().unwrap_or_else(PoisonError::into_inner).remove()? {
            return Ok(true);
        }
        // Those that end with this one have said so in a moment, and the dead are silent.
        if is_anothers(reign) || Instant::now() >= until {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_said_when_it_is_new_and_when_it_comes_back() {
        let (one, other) = (DatapathError::Superseded, DatapathError::Locked("a".into()));
        let mut said = Said::default();
        let mut told = |error: Option<&DatapathError>| said.news(error).is_some();
        assert_eq!([told(Some(&one)), told(Some(&one)), told(Some(&other))], [true, false, true]);
        assert_eq!([told(None), told(None), told(Some(&other))], [false, false, true]);
    }
}
