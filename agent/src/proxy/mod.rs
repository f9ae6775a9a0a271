//! The shared HTTP and TCP proxy of a node. It knows client pods by the listeners inside their namespaces, and runs on
//! a compiled program; it knows neither a cluster nor eBPF. Started and fed by `app`.
//!
//! # Layout, in the order of a connection's life
//! - `programs`: what it runs on, and what clusters need at run time
//! - `limits`: every number; `counters`, `metrics`, `access_log`, `trace`: what is told about it all
//! - `worker`: one pinned thread each, with a runtime, a pool and counters of its own
//! - `fairness`: pods take turns on a worker
//! - `listener`: accept, original destination, protocol; `detect`: the protocol by the first bytes
//! - `tcp`: bytes in both directions; `bulk`: where they are many; `relay`: where the server's side is encrypted
//! - `http1`: serving a connection; `lot`: where it waits when nothing is asked; `handler`: the life of one request; `plan`:
//!   what was decided of it
//! - `rate_limit`, `fault`, `cors`, `respond`, `rewrite`, `headers` (with `format`), `mirror`: what a rule asks for, one file each; `forward`: header hygiene
//! - `retry` (with `replay` and `budget`): how often, how long and where; `upstream`: endpoint, pool, connect
//! - `inspect`: what is in force at the moment, for those who look
//! - `body`, `io`, `error`: the one type of each

mod access_log;
mod body;
mod budget;
mod bulk;
mod cors;
mod counters;
mod detect;
mod error;
mod fairness;
mod fault;
mod format;
mod forward;
mod handler;
mod headers;
mod http1;
mod inspect;
mod io;
pub mod limits;
mod linger;
mod listener;
mod lot;
mod metrics;
mod mirror;
mod plan;
mod programs;
mod rate_limit;
mod relay;
mod replay;
mod respond;
mod retry;
mod rewrite;
mod steering;
mod tcp;
#[cfg(test)]
mod tests;
mod trace;
mod upstream;
mod worker;

use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use weir_mesh::program::Workload;

pub use self::counters::ProxyCounters;
use self::counters::Shard;
pub use self::error::Flag;
pub use self::inspect::{ClusterNow, InUse, Inspection, Out};
pub use self::limits::Limits;
use self::lot::Lot;
use self::metrics::Registry;
pub use self::metrics::{DEFAULT_MAX_SERIES, Pieces};
pub use self::programs::{Programs, Published};
pub use self::trace::{Collector, Span, Tracing, export};
pub use self::upstream::tls::TlsFiles;
use self::worker::{Command, Shared};
use crate::config::LogFormat;
use crate::netns::NetNs;

/// A client pod: who is behind a listener.
#[derive(Debug)]
pub struct SourcePod {
    /// `namespace/name`
    pub name: Arc<str>,
    /// Its namespace: short host names are expanded in it.
    pub namespace: Arc<str>,
    /// The class of clients that it belongs to; 0 = everybody. A change of rules can move a pod to another class while
    /// it is served; the next decision follows.
    pub view: AtomicU32,
    /// Where its upstream sockets are made. The cookie is the pod's name within the proxy.
    pub netns: NetNs,
    /// What is told of it. The proxy is to be told when it is replaced: [`Proxy::renamed`].
    pub identity: ArcSwap<Identity>,
}

/// What is told of a pod, and where others reach it. Nothing is decided by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// What metrics call it.
    pub workload: Arc<Workload>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl SourcePod {
    /// The class of clients that it belongs to now.
    pub fn view(&self) -> u32 {
        self.view.load(Ordering::Relaxed)
    }

    /// What is told of it now.
    pub(crate) fn identity(&self) -> Arc<Identity> {
        self.identity.load_full()
    }
}

/// Where redirected connections were going.
pub trait OriginalDestinations: Send + Sync {
    /// Takes (and forgets) where the connection accepted from `peer` on `listener_port` in that namespace was going;
    /// `None` = unknown, and the connection is closed. Called on workers: it must not block.
    fn take(&self, netns_cookie: u64, peer: SocketAddr, listener_port: u16) -> Option<SocketAddr>;
}

/// Who else is to pass over ejected endpoints.
pub trait Ejections: fmt::Debug + Send + Sync {
    /// An endpoint is not to be used before `until_ns` (CLOCK_MONOTONIC); `times` its base time. Called on workers, once
    /// for each ejection: it must not wait.
    fn ejected(&self, endpoint: SocketAddr, until_ns: u64, times: u32);

    /// No rule that holds for everybody judges an ejected endpoint any more: it is used again. Called by who publishes, in
    /// order with the ejections that were told before.
    fn restored(&self, endpoint: SocketAddr);

    /// What is ejected already, as it was told before this process: asked for once.
    fn known(&self) -> Vec<(SocketAddr, u64, u32)>;
}

/// How the proxy runs.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Threads; each is pinned to a CPU.
    pub workers: usize,
    /// Every other number.
    pub limits: Limits,
    /// Where access log lines go, if anywhere: whole ones, some at a time, each worker's in their order. When it is full, lines
    /// are dropped and counted.
    pub access_log: Option<mpsc::Sender<String>>,
    /// How they are written.
    pub log_format: LogFormat,
    /// Which requests are recorded as spans; `None` = tracing is off.
    pub tracing: Option<Tracing>,
    /// Label sets of Istio's metrics; see [`DEFAULT_MAX_SERIES`].
    pub max_series: usize,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            workers: limits::DEFAULT_WORKERS,
            limits: Limits::default(),
            access_log: None,
            log_format: LogFormat::default(),
            tracing: None,
            max_series: DEFAULT_MAX_SERIES,
        }
    }
}

/// The running proxy. Dropped without [`Proxy::drain`], it cuts its connections.
#[derive(Debug)]
pub struct Proxy {
    workers: Vec<Thread>,
    metrics: Arc<Registry>,
    programs: Arc<Programs>,
}

#[derive(Debug)]
struct Thread {
    /// `None` once the proxy is being dropped.
    commands: Option<mpsc::UnboundedSender<Command>>,
    shard: Arc<Shard>,
    handle: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts the workers. The program may be replaced at any time; the next request runs on the new one.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made, or /proc is not there.
    pub fn start(
        config: ProxyConfig,
        programs: Arc<Programs>,
        destinations: Arc<dyn OriginalDestinations>,
    ) -> std::io::Result<Self> {
        let home = NetNs::own()?;
        let count = config.workers.max(1);
        let metrics = Arc::new(Registry::new(count, config.max_series));
        let shared = Shared {
            limits: config.limits,
            home,
            destinations,
            programs: Arc::clone(&programs),
            access_log: config.access_log,
            log_format: config.log_format,
            tracing: config.tracing,
            metrics: Arc::clone(&metrics),
            buckets: Arc::default(),
        };
        let workers = (0..count).map(|index| Thread::start(index, shared.clone()));
        Ok(Self { workers: workers.collect::<std::io::Result<_>>()?, metrics, programs })
    }

    /// The number of workers: how many groups of listeners [`Proxy::add_pod`] takes.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Serves a pod: the n-th worker accepts on the n-th group of listeners (one per address family, all of them in
    /// one SO_REUSEPORT group per family). A worker without a group gets no connections of this pod.
    pub fn add_pod(&self, pod: &Arc<SourcePod>, listeners: Vec<Vec<TcpListener>>) {
        self.metrics.add_pod(pod);
        for (worker, listeners) in self.workers.iter().zip(listeners) {
            worker.command(Command::AddPod(Arc::clone(pod), listeners));
        }
    }

    /// The identity of a pod has been replaced.
    pub fn renamed(&self) {
        for worker in &self.workers {
            worker.command(Command::Renamed);
        }
    }

    /// Stops accepting from a pod and closes its idle upstream connections. Connections that exist live on.
    pub fn remove_pod(&self, netns_cookie: u64) {
        self.metrics.remove_pod(netns_cookie);
        for worker in &self.workers {
            worker.command(Command::RemovePod(netns_cookie));
        }
    }

    /// Stops accepting, closes idle keep-alive connections at once and others after their request, waits for all to
    /// end, and ends the workers. Returns how many connections were cut at the deadline.
    pub async fn drain(&self, deadline: Duration) -> u64 {
        let asked: Vec<_> = self
            .workers
            .iter()
            .map(|worker| {
                let (done, answer) = oneshot::channel();
                worker.command(Command::Drain(deadline, done));
                answer
            })
            .collect();
        let mut cut = 0;
        for answer in asked {
            // A worker that has been drained before has nothing left to cut.
            cut += answer.await.unwrap_or(0);
        }
        cut
    }

    /// The counters of all workers.
    pub fn counters(&self) -> ProxyCounters {
        let mut sum = ProxyCounters::default();
        for worker in &self.workers {
            sum.add(&worker.shard);
        }
        sum
    }

    /// Istio's metrics as Prometheus' text, piece by piece.
    pub fn istio_metrics(&self) -> Pieces {
        Pieces::new(self.metrics.sorted(&self.programs.load(), Instant::now()))
    }

    /// What is in force at the moment.
    pub fn inspect(&self) -> Inspection {
        self.programs.inspect()
    }

    /// When the worker that has been silent for longest was last alive: CLOCK_MONOTONIC, ns.
    pub fn oldest_tick(&self) -> u64 {
        self.workers.iter().map(|worker| worker.shard.tick.get()).min().unwrap_or(0)
    }
}

impl Thread {
    fn start(index: usize, shared: Shared) -> std::io::Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let shard = Arc::new(Shard::default());
        shard.tick.set(worker::monotonic());
        let runtime_shard = Arc::clone(&shard);
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("proxy-{index}")).spawn(move || {
            let cpu = steering::pin(index).unwrap_or_else(|error| {
                tracing::warn!(%error, worker = index, "not pinned to a CPU");
                None
            });
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let made = runtime.and_then(|runtime| {
                let lot = runtime.block_on(async { Lot::new() })?;
                Ok((runtime, lot))
            });
            // The other side waits for exactly this one message.
            match made {
                Ok((runtime, lot)) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(worker::run(index, shared, runtime_shard, cpu, lot, receiver));
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        started.recv().map_err(std::io::Error::other)??;
        Ok(Self { commands: Some(commands), shard, handle: Some(thread) })
    }

    /// A worker that has been drained takes no commands any more, and needs none.
    fn command(&self, command: Command) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.commands = None;
        }
        for worker in &mut self.workers {
            if worker.handle.take().is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("a worker panicked");
            }
        }
    }
}
