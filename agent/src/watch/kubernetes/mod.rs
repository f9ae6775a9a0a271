//! A Kubernetes API server as a source: every kind that weir reads is listed and watched, and what changes is put into
//! an [`Outbox`], from which `app` takes it. Runs on a thread and a runtime of its own, so that a large list cannot
//! slow traffic.
//!
//! - [`client`]: the connection, with a limit of time on everything
//! - [`discovery`], [`definitions`]: which kinds are served, now and later
//! - [`reflect`], [`wire`], [`known`]: one kind, listed and watched
//! - [`outbox`]: what was heard and is not yet taken
//! - [`health`], [`backoff`]: when the API server does not answer
//!
//! # What it costs the API server, per agent
//! One HTTP/2 connection with a watch for each kind that is served (4 of Kubernetes', up to 19 custom ones) and one for
//! the definitions. A watch is begun anew every 4 to 5 minutes, without a list. Before the first look it asks once whether
//! the API server is ready. Discovery is one request of some KB, and
//! one for each version of weir's groups, every 4 to 6 minutes and after a definition has changed: at 1,000 agents about
//! 20 requests a second with all of Istio's and the Gateway API's groups installed. Where definitions may not be watched
//! it is every 24 to 36 s, and about 200 a second.

mod backoff;
mod client;
mod definitions;
mod discovery;
mod health;
mod known;
mod outbox;
mod reflect;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::sync::{Notify, oneshot};
use weir_mesh::crd::Role;
use weir_mesh::store::{Reader, ResourceId};

use self::backoff::{Backoff, spread};
use self::client::Api;
use self::health::Health;
use self::known::Known;
use self::reflect::{Common, Reflector};

use crate::cluster::Access;

pub use self::health::{KindStatus, SourceStatus};
pub use self::outbox::Outbox;

/// Between two looks at what is served, while definitions are followed …
const LOOK: Duration = Duration::from_mins(4);
const LOOK_SPREAD: Duration = Duration::from_mins(2);
/// … and while they cannot be.
const POLL: Duration = Duration::from_secs(24);
const POLL_SPREAD: Duration = Duration::from_secs(12);
/// A kind that an API server does not name while it starts must not be taken for one that is not there, so it is waited
/// for to be ready. One that serves and never says so must not keep the agent from it: kube-apiserver starts in less.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// After a hint that something changed: a new kind is served some moments after its definition was accepted, so there
/// are several looks. Each wait is this long and up to as long again, so that agents do not ask all at once.
const AFTER_HINT: [Duration; 4] =
    [Duration::from_millis(300), Duration::from_millis(700), Duration::from_secs(2), Duration::from_secs(6)];

/// The running source.
pub struct Kubernetes {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    common: Arc<Common>,
}

impl Kubernetes {
    /// Starts to watch. `node` is the name of this node: of other nodes' pods less is kept. An API server that cannot be
    /// reached is asked again for ever.
    ///
    /// # Errors
    /// When there is no usable configuration.
    pub fn start(access: Access, node: Option<&str>, outbox: Arc<Outbox>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let node = node.map(Arc::from);
        let (stop, stopped) = oneshot::channel();
        let (opened, opening) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("weir-watch".into()).spawn(move || {
            runtime.block_on(async {
                let common = match Api::open(access).await {
                    Ok((api, server)) => Arc::new(Common {
                        api,
                        outbox,
                        health: Arc::new(Health::new(server)),
                        reader: Mutex::new(Reader::new(node)),
                        rediscover: Notify::new(),
                        back: Notify::new(),
                    }),
                    // The receiver waits for this one message.
                    Err(error) => return drop(opened.send(Err(anyhow!("{error}")))),
                };
                drop(opened.send(Ok(Arc::clone(&common))));
                tokio::select! {
                    () = supervise(common) => {}
                    _ = stopped => {}
                }
            });
        })?;
        let common = opening.recv().context("weir-watch ended")??;
        tracing::info!(server = %common.health.status().server, "watching the API server");
        Ok(Self { stop: Some(stop), thread: Some(thread), common })
    }

    /// How it fares at this moment, from any thread.
    pub fn reporter(&self) -> impl Fn() -> SourceStatus + Send + Sync + use<> {
        let common = Arc::clone(&self.common);
        move || {
            let mut status = common.health.status();
            status.complete = common.outbox.is_complete();
            status.received_bytes = common.api.received();
            if let (false, Some(awaited)) = (status.complete, common.outbox.awaited()) {
                let plurals: Vec<&str> = awaited.iter().map(|id| id.resource().plural).collect();
                status.problems.push(format!("not read yet: {}", plurals.join(", ")));
            }
            status
        }
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("weir-watch panicked");
        }
    }
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes").finish_non_exhaustive()
    }
}

/// A kind that is being watched.
struct Running {
    version: &'static str,
    known: Arc<Mutex<Known>>,
    task: tokio::task::JoinHandle<()>,
}

/// Watches what is served, whatever that is at the time. Its tasks end with the runtime.
async fn supervise(common: Arc<Common>) {
    let mut running: BTreeMap<ResourceId, Running> = BTreeMap::new();
    let mut backoff = Backoff::default();
    let following = Arc::new(AtomicBool::new(false));
    let mut follower = None;
    let mut looks = AFTER_HINT.len();
    let mut acquaintance = Acquaintance { made: false, until: Instant::now() + READY_WITHIN };
    loop {
        match look(&common, &mut acquaintance).await {
            Ok(served) => {
                backoff.reset();
                if common.health.reached(None) {
                    common.back.notify_waiters();
                }
                reconcile(&common, &mut running, &served).await;
                follower.get_or_insert_with(|| {
                    tokio::spawn(definitions::follow(Arc::clone(&common), Arc::clone(&following)))
                });
            }
            Err(error) => {
                common.health.failed(None, &error);
                common.api.reopen().await;
                tokio::select! {
                    () = tokio::time::sleep(backoff.next(error.retry_after())) => {}
                    () = common.back.notified() => {}
                }
                continue;
            }
        }
        let wait = match AFTER_HINT.get(looks) {
            Some(wait) => *wait + spread(*wait),
            None if following.load(Ordering::Relaxed) => LOOK + spread(LOOK_SPREAD),
            None => POLL + spread(POLL_SPREAD),
        };
        looks += 1;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = common.rediscover.notified() => {
                tokio::time::sleep(AFTER_HINT[0] + spread(AFTER_HINT[0])).await;
                looks = 1;
            }
        }
        looks = looks.min(AFTER_HINT.len());
    }
}

/// What is known of the API server since the agent started.
struct Acquaintance {
    /// Its version is known, and that it was ready once.
    made: bool,
    /// Until when it is waited for to be ready.
    until: Instant,
}

async fn look(
    common: &Common,
    acquaintance: &mut Acquaintance,
) -> Result<BTreeMap<ResourceId, &'static str>, client::Error> {
    if !acquaintance.made {
        match discovery::ready(&common.api).await {
            Err(error) if error.code() >= 500 && Instant::now() >= acquaintance.until => {
                tracing::warn!(%error, "the API server does not become ready: what it says of its kinds is believed");
            }
            ready => ready?,
        }
        common.api.set_streams(discovery::streams_lists(&common.api).await?);
        acquaintance.made = true;
    }
    discovery::served(&common.api).await
}

async fn reconcile(
    common: &Arc<Common>,
    running: &mut BTreeMap<ResourceId, Running>,
    served: &BTreeMap<ResourceId, &'static str>,
) {
    let awaited = served.keys().copied().filter(|id| id.resource().role != Role::Named);
    common.outbox.set_awaited(awaited);
    let missing = running.iter().filter(|(id, _)| !served.contains_key(id)).map(|(id, kind)| (*id, kind.version));
    for id in discovery::gone(&common.api, missing.collect()).await {
        if let Some(kind) = running.remove(&id) {
            kind.task.abort();
            let gone = kind.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
            tracing::info!(kind = id.resource().kind, objects = gone.len(), "not served any more");
            common.outbox.push(gone);
            common.outbox.listed(id);
            common.health.unwatched(id);
        }
    }
    for (id, version) in served {
        let known = match running.get(id) {
            Some(kind) if kind.version == *version && !kind.task.is_finished() => continue,
            Some(kind) => {
                if kind.task.is_finished() {
                    tracing::error!(kind = id.resource().kind, "the watch panicked, and is begun anew");
                }
                kind.task.abort();
                Arc::clone(&kind.known)
            }
            None => Arc::new(Mutex::new(Known::new(*id))),
        };
        tracing::debug!(kind = id.resource().kind, version, "watching");
        common.health.watched(*id, version);
        let reflector = Reflector { common: Arc::clone(common), resource: *id, version, known: Arc::clone(&known) };
        let task = tokio::spawn(reflector.run());
        running.insert(*id, Running { version, known, task });
    }
}
