//! What the parts of the agent show of themselves on the admin endpoint. Kept current by `apply`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};
use weir_mesh::explain::Words;
use weir_mesh::finding::Finding;

use super::apply::{Asked, Event};
use super::dump::{self, Wanted};
use super::metrics::{self, State};
use super::status::{Counters, InForce, Status};
use crate::admin::{Answers, Explained, Scrape, Unexplained};
use crate::cluster::report::Findings;
use crate::datapath::{Datapath, monotonic_ns};
use crate::proxy::Proxy;
use crate::watch::kubernetes::SourceStatus;

/// For an explanation: it waits for changes that are being carried out, and compiling 10,000 services takes 2 s.
const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(8);

/// Tells how the source fares.
type Reporter = Box<dyn Fn() -> SourceStatus + Send + Sync>;

/// What the admin endpoint shows, and `app` keeps current.
pub(super) struct Shared {
    ready: AtomicBool,
    /// Why this agent ends, when it was not told to. It is not ready any more then, whatever comes.
    failed: OnceLock<String>,
    in_force: Mutex<InForce>,
    /// Not set for a directory, which is there or not.
    source: OnceLock<Reporter>,
    /// Who has everything that an explanation needs. Not set before it runs.
    asks: OnceLock<Sender<Event>>,
    findings: watch::Sender<Findings>,
    refusals: watch::Sender<Findings>,
    datapath: Arc<Mutex<Datapath>>,
    proxy: Arc<Proxy>,
}

impl Shared {
    /// Not ready, nothing in force.
    pub(super) fn new(datapath: Arc<Mutex<Datapath>>, proxy: Arc<Proxy>) -> Self {
        Self {
            ready: AtomicBool::new(false),
            failed: OnceLock::new(),
            in_force: Mutex::default(),
            source: OnceLock::new(),
            asks: OnceLock::new(),
            findings: watch::Sender::default(),
            refusals: watch::Sender::default(),
            datapath,
            proxy,
        }
    }

    /// Ready = a configuration is in force.
    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// From here on the agent is not ready, and shows the reason. Only the first is kept.
    pub(super) fn fail(&self, problem: String) {
        drop(self.failed.set(problem));
    }

    /// Whom to ask how the source fares. Only the first is kept.
    pub(super) fn set_source(&self, reporter: Reporter) {
        drop(self.source.set(reporter));
    }

    /// Whom to ask for explanations. Only the first is kept.
    pub(super) fn set_asks(&self, events: Sender<Event>) {
        drop(self.asks.set(events));
    }

    /// Replaces what those who follow the findings see.
    pub(super) fn find(&self, findings: Arc<Vec<Finding>>) {
        self.findings.send_replace(Some(findings));
    }

    /// Replaces what those who follow the refusals of this node's pods see.
    pub(super) fn refuse(&self, refusals: Vec<Finding>) {
        self.refusals.send_replace(Some(Arc::new(refusals)));
    }

    /// The findings, now and as they change.
    pub(super) fn findings(&self) -> watch::Receiver<Findings> {
        self.findings.subscribe()
    }

    /// What no other agent knows: why pods of this node do not take part, now and as it changes.
    pub(super) fn refusals(&self) -> watch::Receiver<Findings> {
        self.refusals.subscribe()
    }

    /// What `/status` is made from, to be changed.
    pub(super) fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the API server has not answered; 0 = it does. `None` for a directory.
    fn away_seconds(&self) -> Option<u64> {
        let status = self.source.get().map(|reporter| reporter())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // At least one, so that it is never taken for an answer.
        Some(status.away_since.map_or(0, |since| now.saturating_sub(since).max(1)))
    }

    fn current(&self) -> Status {
        let in_force = self.in_force().clone();
        let health = self.datapath.lock().unwrap_or_else(PoisonError::into_inner).health();
        let ejected = in_force.ejected(&health.ejected(), monotonic_ns());
        let mut status = Status::from(in_force);
        status.ejected = ejected;
        status.problems.extend(self.failed.get().cloned());
        status.source = self.source.get().map(|reporter| reporter());
        let counters = self.datapath.lock().unwrap_or_else(PoisonError::into_inner).service_counters();
        let counters = match counters {
            Ok(counters) => counters,
            Err(error) => {
                status.problems.push(format!("counters cannot be read: {error:#}"));
                return status;
            }
        };
        for service in &mut status.services {
            if let Some(found) = counters.get(service.service.as_str()) {
                service.counters = Counters {
                    balanced: found.balanced,
                    proxied: found.proxied,
                    fallback: found.fallback,
                    rejected: found.rejected,
                };
            }
        }
        status
    }
}

impl Answers for Shared {
    fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && self.failed.get().is_none()
    }

    fn away(&self) -> Option<String> {
        let seconds = self.away_seconds().filter(|seconds| *seconds > 0)?;
        Some(format!("the API server has not answered for {seconds} s; what it said last is in force"))
    }

    fn status(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&self.current())
    }

    fn config(&self, query: &str) -> Explained {
        let wanted = Wanted::of_query(query).map_err(Unexplained::BadQuestion)?;
        if !self.ready() {
            return Err(Unexplained::Unavailable("no configuration in force".to_owned()));
        }
        let now = self.proxy.inspect();
        // Pointers alone are taken while the thread that carries out changes would have to wait.
        let (generation, (entries, next)) = {
            let in_force = self.in_force();
            (in_force.generation, dump::entries(&in_force.services, &wanted, now.program()))
        };
        let json = match &wanted {
            Wanted::Page(..) => serde_json::to_vec(&dump::page(generation, &entries, next, &now)),
            Wanted::Service(name) | Wanted::Host(name) => {
                let found = dump::detail(generation, entries, &wanted, &now);
                serde_json::to_vec(&found.ok_or_else(|| Unexplained::Unknown(format!("nothing in force is `{name}`")))?)
            }
        };
        json.map_err(|error| Unexplained::Unavailable(error.to_string()))
    }

    fn explain(&self, query: &str) -> BoxFuture<'static, Explained> {
        let question = Words::of_query(query).and_then(|words| words.question());
        let sent = question.map_err(Unexplained::BadQuestion).and_then(|question| {
            let (answer, answered) = oneshot::channel();
            let asked = Event::Asked(Box::new(Asked { question, answer }));
            let sent = self.asks.get().map(|asks| asks.send(asked));
            match sent {
                Some(Ok(())) => Ok(answered),
                Some(Err(_)) | None => Err(Unexplained::Unavailable("the agent does not follow changes".to_owned())),
            }
        });
        Box::pin(async move {
            let told = match tokio::time::timeout(EXPLAIN_TIMEOUT, sent?).await {
                Ok(Ok(told)) => told?,
                Ok(Err(_)) => return Err(Unexplained::Unavailable("the agent ends, or failed on this".to_owned())),
                Err(_) => {
                    let why =
                        format!("no answer within {} s: a change is being carried out", EXPLAIN_TIMEOUT.as_secs());
                    return Err(Unexplained::Unavailable(why));
                }
            };
            serde_json::to_vec(&told).map_err(|error| Unexplained::Unavailable(error.to_string()))
        })
    }

    fn metrics(&self) -> Result<Scrape, String> {
        let kernel = self.datapath.lock().unwrap_or_else(PoisonError::into_inner).counters();
        let kernel = kernel.map_err(|error| format!("the kernel's counters cannot be read: {error:#}"))?;
        let state = {
            let in_force = self.in_force();
            State {
                generation: in_force.generation,
                findings: Arc::clone(&in_force.findings),
                problems: in_force.problems.len(),
                pods: in_force.pods.len(),
                away: self.away_seconds(),
            }
        };
        let head = metrics::render(&state, &kernel, &self.proxy.counters());
        Ok(Scrape { head, pieces: Box::new(self.proxy.istio_metrics()) })
    }
}
