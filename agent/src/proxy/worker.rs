//! One data-plane thread: its runtime, its upstream pool, its counters, its share of the connections. What it shares is
//! the program with the state of its clusters, read only or atomics, so nothing is locked while a request is served.
//! Started by [`super::Proxy::start`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use futures_util::FutureExt;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::access_log::Lines;
use super::counters::Shard;
use super::fairness::{self, Share, Turns};
use super::limits::Limits;
use super::lot::{self, Lot};
use super::metrics::{Edges, Registry};
use super::programs::{Programs, Running};
use super::rate_limit::{Buckets, Known};
use super::steering::Steering;
use super::trace::Tracing;
use super::upstream::pool::Pool;
use super::upstream::target::{Balancing, Held};
use super::upstream::tls::Names;
use super::upstream::wire::Buffers;
use super::{OriginalDestinations, SourcePod, listener};
use crate::config::LogFormat;
use crate::netns::NetNs;

/// What the control side asks of a worker.
pub(crate) enum Command {
    AddPod(Arc<SourcePod>, Vec<StdListener>),
    RemovePod(u64),
    /// Pods are told of by other names than before.
    Renamed,
    /// Answers with the number of connections that were cut off.
    Drain(Duration, oneshot::Sender<u64>),
}

/// What all workers are started with.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) home: NetNs,
    pub(crate) destinations: Arc<dyn OriginalDestinations>,
    pub(crate) programs: Arc<Programs>,
    pub(crate) access_log: Option<mpsc::Sender<String>>,
    pub(crate) log_format: LogFormat,
    pub(crate) tracing: Option<Tracing>,
    pub(crate) metrics: Arc<Registry>,
    pub(crate) buckets: Arc<Buckets>,
}

/// Something that happens once, and that many wait for.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: Cell<bool>,
    waiting: Notify,
}

impl Signal {
    pub(crate) fn raise(&self) {
        self.raised.set(true);
        self.waiting.notify_waiters();
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.get()
    }

    /// Returns once it is raised. On one thread nothing can happen between the look and the wait.
    pub(crate) async fn wait(&self) {
        if !self.is_raised() {
            self.waiting.notified().await;
        }
    }
}

/// A client pod, as this worker sees it.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) source: Arc<SourcePod>,
    pub(crate) removed: Signal,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) share: Rc<Share>,
}

/// The latest program, and the one that requests hold: the same, until the next request looks.
type Latest = (Cache<Arc<ArcSwap<Running>>, Arc<Running>>, Held);

/// The state of one worker.
pub(crate) struct Worker {
    pub(crate) limits: Limits,
    pub(crate) home: NetNs,
    pub(crate) counters: Arc<Shard>,
    pub(crate) destinations: Arc<dyn OriginalDestinations>,
    pub(crate) lines: Lines,
    pub(crate) tracing: Option<Tracing>,
    pub(crate) pool: Pool,
    pub(crate) names: Names,
    pub(crate) buffers: Buffers,
    pub(crate) balancing: Balancing,
    pub(crate) edges: Edges,
    pub(crate) buckets: Known,
    /// Bytes of requests' bodies that are kept to be sent again.
    pub(crate) kept: Cell<usize>,
    pub(crate) steering: Steering,
    pub(crate) lot: Lot,
    /// The time of the latest tick: for what need not be more exact.
    pub(crate) clock: Cell<Instant>,
    pub(crate) draining: Signal,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) turns: Rc<Turns>,
    programs: RefCell<Latest>,
    random: Cell<u64>,
    /// Notified when the last connection ends.
    empty: Notify,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Worker {
    fn new(index: usize, shared: Shared, counters: Arc<Shard>, cpu: Option<usize>, lot: Lot) -> Self {
        let mut cache = shared.programs.cache();
        let held = Rc::new(Arc::clone(cache.load()));
        let edges = Edges::new(shared.metrics, index);
        edges.turn_to(held.program());
        Self {
            slots: Arc::new(Semaphore::new(shared.limits.max_connections)),
            turns: Rc::new(Turns::new(&shared.limits)),
            steering: Steering::new(cpu, &shared.limits),
            lot,
            limits: shared.limits,
            home: shared.home,
            lines: Lines::new(shared.access_log, shared.log_format, Arc::clone(&counters)),
            counters,
            destinations: shared.destinations,
            tracing: shared.tracing,
            pool: Pool::default(),
            names: Names::default(),
            buffers: Buffers::default(),
            balancing: Balancing::default(),
            edges,
            buckets: Known::new(shared.buckets),
            kept: Cell::new(0),
            clock: Cell::new(Instant::now()),
            draining: Signal::default(),
            programs: RefCell::new((cache, held)),
            // The standard library's hasher is keyed by the operating system.
            random: Cell::new(RandomState::new().build_hasher().finish()),
            empty: Notify::new(),
        }
    }

    /// The program in force: a pointer compare, and a count that no other core touches.
    pub(crate) fn program(&self) -> Held {
        let mut guard = self.programs.borrow_mut();
        let (cache, held) = &mut *guard;
        let latest = cache.load();
        if !Arc::ptr_eq(latest, held) {
            // While the former one is held, so that its address is no other's.
            self.edges.turn_to(latest.program());
            self.buckets.forget();
            *held = Rc::new(Arc::clone(latest));
        }
        Rc::clone(held)
    }

    /// Uniformly random 64 bits (SplitMix64). For spreading load, not for secrets.
    pub(crate) fn roll(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Runs a task on this worker. A panic ends the task alone, and is counted.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let counters = Arc::clone(&self.counters);
        tokio::task::spawn_local(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                counters.panics.add(1);
            }
        });
    }

    /// The same on behalf of a pod, in its turns.
    pub(crate) fn spawn_for(&self, pod: &Pod, task: impl Future<Output = ()> + 'static) {
        self.spawn(fairness::in_turn(Rc::clone(&self.turns), Rc::clone(&pod.share), task));
    }
}

/// A client's connection. Everything that serves it holds it; when the last is done it no longer counts.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) pod: Rc<Pod>,
    pub(crate) peer: SocketAddr,
    /// Where the client wanted to go.
    pub(crate) destination: SocketAddr,
    /// Requests begun, and whether one is under way.
    pub(crate) requests: Cell<u64>,
    pub(crate) busy: Cell<bool>,
    /// Body bytes of the latest request.
    pub(crate) received: Cell<u64>,
    /// The latest request has a body whose end has not been read.
    pub(crate) unread: Cell<bool>,
    _open: Open,
}

impl Connection {
    pub(crate) fn new(open: Open, pod: Rc<Pod>, peer: SocketAddr, destination: SocketAddr) -> Rc<Self> {
        let worker = Rc::clone(&open.worker);
        Rc::new(Self {
            worker,
            pod,
            peer,
            destination,
            requests: Cell::new(0),
            busy: Cell::new(false),
            received: Cell::new(0),
            unread: Cell::new(false),
            _open: open,
        })
    }

    /// Counts body bytes from the client.
    pub(crate) fn received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
        self.worker.counters.bytes_received.add(bytes);
    }
}

/// An open connection's place among the worker's.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) worker: Rc<Worker>,
    _slots: [OwnedSemaphorePermit; 2],
}

impl Open {
    /// Waits for a place in the pod's share, then in the worker's.
    pub(crate) async fn wait(worker: &Rc<Worker>, pod: &Pod) -> Self {
        let never = "these semaphores are never closed";
        let of_pod = Arc::clone(&pod.slots).acquire_owned().await.expect(never);
        let of_worker = Arc::clone(&worker.slots).acquire_owned().await.expect(never);
        worker.counters.connections_active.add(1);
        Self { worker: Rc::clone(worker), _slots: [of_pod, of_worker] }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.counters.connections_active.subtract(1);
        if self.worker.counters.connections_active.get() == 0 {
            self.worker.empty.notify_one();
        }
    }
}

/// The life of a worker: until it is drained, or its commands' other end is dropped.
/// `cpu` is where its thread is pinned to; `lot` is of its runtime.
pub(crate) async fn run(
    index: usize,
    shared: Shared,
    counters: Arc<Shard>,
    cpu: Option<usize>,
    lot: Lot,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let worker = Rc::new(Worker::new(index, shared, counters, cpu, lot));
    worker.spawn(tick(Rc::clone(&worker)));
    worker.spawn(lot::attend(Rc::clone(&worker)));
    let turns = Rc::clone(&worker.turns);
    worker.spawn(async move { turns.rounds().await });
    let mut pods: HashMap<u64, Rc<Pod>> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::AddPod(source, listeners) => {
                // Others may have sent to it already, when it was none of ours.
                worker.edges.forget();
                let cookie = source.netns.cookie();
                let pod = pods.entry(cookie).or_insert_with(|| {
                    let slots = Arc::new(Semaphore::new(worker.limits.max_connections_per_pod));
                    Rc::new(Pod { source, removed: Signal::default(), slots, share: Rc::default() })
                });
                for listener in listeners {
                    match adopt(listener) {
                        Ok(listener) => {
                            let listener = Rc::new(listener);
                            worker.steering.add(&listener);
                            worker.spawn(listener::accept(Rc::clone(&worker), Rc::clone(pod), listener));
                        }
                        Err(error) => {
                            worker.counters.accept_errors.add(1);
                            tracing::error!(pod = %pod.source.name, %error, "a listener cannot be used");
                        }
                    }
                }
            }
            Command::Renamed => worker.edges.forget(),
            Command::RemovePod(cookie) => {
                worker.edges.forget();
                worker.buckets.forget();
                if let Some(pod) = pods.remove(&cookie) {
                    pod.removed.raise();
                    worker.pool.forget_pod(cookie);
                    worker.names.forget_pod(cookie);
                }
            }
            Command::Drain(deadline, done) => {
                let cut = drain(&worker, deadline).await;
                // Nobody waits for it any more: then nobody wants the number.
                let _ = done.send(cut);
                return;
            }
        }
    }
}

fn adopt(listener: StdListener) -> io::Result<TcpListener> {
    // Linux gives it to every connection that is accepted: once for all of them.
    SockRef::from(&listener).set_tcp_nodelay(true)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Stops accepting, lets requests under way and TCP connections finish, and returns how many did not in time. They
/// are cut when the runtime is dropped.
async fn drain(worker: &Rc<Worker>, deadline: Duration) -> u64 {
    worker.draining.raise();
    worker.pool.clear();
    worker.lot.close(worker);
    // The accept loops take what waits in their queues first; they run when this task yields for the first time.
    tokio::task::yield_now().await;
    let emptied = async {
        while worker.counters.connections_active.get() > 0 {
            worker.empty.notified().await;
        }
    };
    // Running out of time is not an error here: the count says it.
    let _ = timeout(deadline, emptied).await;
    worker.counters.connections_active.get()
}

/// Says that the worker is alive, hands over lines of the access log, and from time to time closes idle upstream connections.
async fn tick(worker: Rc<Worker>) {
    let mut interval = tokio::time::interval(worker.limits.tick);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut swept = Instant::now();
    let mut trimmed = (swept, 0);
    loop {
        interval.tick().await;
        worker.counters.tick.set(monotonic());
        // A worker without requests must not keep a program in memory that is no longer in force.
        let program = worker.program();
        program.tend(monotonic());
        program.awaited().for_each(|breakers| worker.pool.close_idle_of(breakers));
        drop(program);
        let now = Instant::now();
        worker.clock.set(now);
        worker.turns.tick();
        worker.lines.hand_over();
        worker.lot.close_idle(&worker, now);
        if worker.steering.look(&worker.limits) {
            worker.counters.steering_escapes.add(1);
        }
        if now.duration_since(swept) >= worker.limits.sweep {
            swept = now;
            worker.pool.sweep(now, &worker.limits);
            trim(&worker, now, &mut trimmed);
        }
        worker.counters.upstream_idle.set(worker.pool.len() as u64);
    }
}

/// Lets the allocator give back what parked connections held before. `trimmed`: when it last did, and how many had been
/// parked.
fn trim(worker: &Worker, now: Instant, trimmed: &mut (Instant, u64)) {
    let parked = worker.counters.connections_parked_total.get();
    let limits = &worker.limits;
    if parked - trimmed.1 >= limits.trim_after_parked && now.duration_since(trimmed.0) >= limits.trim_pause {
        *trimmed = (now, parked);
        // Not on this thread: it has requests to serve.
        tokio::task::spawn_blocking(crate::heap::give_back);
    }
}

/// CLOCK_MONOTONIC in ns: what the kernel's programs compare heartbeats with.
pub(crate) fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for writes; CLOCK_MONOTONIC exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_have_what_their_listener_was_given() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = adopt(listener).unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
        assert!(!client.nodelay().unwrap());
    }
}
