//! Follows who is in charge of the instance: tells the endpoints when another agent is designated, has `apply` take over
//! again when that one dies, and keeps this agent from ending before its successor serves. Called by `mod`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::watch;

use super::apply::Event;
use crate::datapath::{Reign, Standing, monotonic_ns};

/// How often an agent asks where it stands: a hundredth of a CPU's thousandth, and well below what a probe waits.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// How long an agent that was told to end waits for a successor that does not serve yet. With the drain (20 s) this
/// stays below the DaemonSet's terminationGracePeriodSeconds of 45.
const PROVEN_WITHIN: Duration = Duration::from_secs(15);

/// True while another agent is designated.
pub(super) type Superseded = watch::Receiver<bool>;

/// The following of it.
pub(super) struct Succession {
    tell: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Succession {
    /// Starts to follow. `orphaned` is set while an [`Event::Orphaned`] waits in the queue.
    pub(super) fn follow(reign: Reign, events: Sender<Event>, orphaned: Arc<AtomicBool>) -> Self {
        let tell = watch::Sender::new(false);
        let task = tokio::spawn(follow(reign, tell.clone(), events, orphaned));
        Self { tell, task }
    }

    /// Whether another agent is designated, now and as it changes.
    pub(super) fn superseded(&self) -> Superseded {
        self.tell.subscribe()
    }

    /// This agent is about to end: from here on it succeeds nobody.
    pub(super) fn stop(&self) {
        self.task.abort();
    }
}

async fn follow(reign: Reign, tell: watch::Sender<bool>, events: Sender<Event>, orphaned: Arc<AtomicBool>) {
    loop {
        match reign.standing(monotonic_ns()) {
            Standing::Yields { .. } => {
                if !tell.send_replace(true) {
                    tracing::info!("another agent has taken over: its endpoints are asked from here on");
                }
            }
            Standing::Orphaned => {
                if !orphaned.swap(true, Ordering::AcqRel) {
                    // The receiver is gone only when the agent ends.
                    drop(events.send(Event::Orphaned));
                }
            }
            Standing::Designated | Standing::Removed => {
                if tell.send_replace(false) {
                    tracing::warn!("the agent that had taken over is gone: this one is in charge again");
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// To be waited for before an agent ends: returns at once when it is in charge or its successor serves, else when one
/// does. A successor that dies meanwhile is succeeded, so that the next one finds an agent.
pub(super) async fn until_proven(reign: &Reign) {
    let missed = || matches!(reign.standing(monotonic_ns()), Standing::Yields { proven: false } | Standing::Orphaned);
    if !missed() {
        return;
    }
    tracing::info!(within_s = PROVEN_WITHIN.as_secs(), "waiting for the successor to serve");
    let proven = async {
        while reign.standing(monotonic_ns()) != (Standing::Yields { proven: true }) {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(PROVEN_WITHIN, proven).await.is_err() {
        tracing::warn!("no successor serves: proxied connections take their fallback slots");
    }
}
