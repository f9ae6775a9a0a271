//! Wires the parts together: start-up order, readiness, and the way out. Called by `weir run`.
//!
//! Threads: this one runs the control runtime (admin endpoint, signals, kernel log); `weir-apply` turns changes into
//! what is in force; `weir-heart` tells the kernel that the proxy lives, `weir-eject` which endpoints it ejects; the proxy's workers serve. A scrape or a large
//! configuration cannot slow traffic.

mod apply;
mod dump;
mod ejections;
mod endpoints;
mod enrol;
mod explain;
mod finder;
mod heart;
mod installation;
mod listeners;
mod metrics;
mod shared;
mod source;
mod status;
mod succession;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use weir_mesh::program::Program;

use self::apply::{Applier, Event, Parts};
use self::ejections::KernelHealth;
use self::enrol::Pods;
use self::finder::Finder;
use self::heart::Heart;
use self::installation::Installation;
use self::shared::Shared;
use self::source::{News, Source};
use self::succession::Succession;
use crate::admin::Answers;
use crate::cgroup::{Hierarchy, OwnCgroup, is_kubepods};
use crate::config::{self, Config};
use crate::datapath::{Datapath, DatapathConfig, DatapathError, Flows};
use crate::netns::NetNs;
use crate::proxy::{self, Ejections, OriginalDestinations, Programs, Proxy, ProxyConfig, TlsFiles, Tracing};
use crate::sandbox::{Sandboxes, Trees};
use crate::telemetry::{self, AccessLog};
use crate::watch::directory::Directory;
use crate::watch::kubernetes::{Kubernetes, Outbox};

pub use self::status::{Counters, EjectedStatus, PodStatus, ServiceStatus, Status};

/// Between "this agent takes no new connections" and the closing of its listeners: a connect that the kernel sent here
/// just before is accepted within this time.
const LISTENERS_LINGER: Duration = Duration::from_millis(200);

/// Runs the agent until SIGTERM or SIGINT, or until its instance is removed.
///
/// # Errors
/// When something that it cannot work without is missing: kernel programs, cgroup v2, rights, the admin address. When
/// the instance was removed under it ([`DatapathError::Removed`]).
pub fn run(config: &Config) -> Result<()> {
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // First of all: whoever tells the agent to end while it starts has it drain, and ask whether its pins should go.
    let signals = control.block_on(async { Signals::register() })?;
    // Everything that can fail comes before the applier takes over from the agent that serves, which it does when it
    // knows the mesh. Whatever ends this one earlier has changed nothing.
    let ground = prepare(config)?;
    let (events, inbox) = mpsc::channel();
    let moved = Arc::new(AtomicBool::new(false));
    let sandboxes = follow_sandboxes(ground.trees, &events, &moved)?;
    let mut datapath = Datapath::load(&DatapathConfig {
        instance: config.instance.clone(),
        bpffs: config::BPFFS.into(),
        cgroup: ground.attach.clone(),
        kernel_log: config.kernel_log,
    })?;
    let health: Arc<dyn Ejections> = Arc::new(KernelHealth::start(datapath.health())?);
    let program = Programs::beside(Program::default(), tls_files(config), Some(health));
    let (proxy_config, access_log) = proxy_config(config, &control)?;
    let destinations = Arc::new(FlowTable(datapath.flows()));
    let proxy =
        Proxy::start(proxy_config, Arc::clone(&program), destinations).context("cannot start the proxy's workers")?;
    let proxy = Arc::new(proxy);
    let heart = Heart::start(datapath.heartbeat_handle(), Arc::clone(&proxy))?;
    datapath.designate()?;
    tracing::info!(
        instance = %config.instance,
        workers = config.workers,
        cgroup = %ground.attach.display(),
        own_cgroup = %ground.own.path.display(),
        "kernel programs are loaded"
    );
    let kernel_log = datapath.kernel_log();
    let reign = datapath.reign();
    let datapath = Arc::new(Mutex::new(datapath));
    let shared = Arc::new(Shared::new(Arc::clone(&datapath), Arc::clone(&proxy)));

    let orphaned = Arc::new(AtomicBool::new(false));
    let succession = control.block_on(async {
        let succession = Succession::follow(reign.clone(), events.clone(), Arc::clone(&orphaned));
        let answers = Arc::clone(&shared) as Arc<dyn Answers>;
        endpoints::open(config, &succession.superseded(), &answers).await?;
        anyhow::Ok(succession)
    })?;
    shared.set_asks(events.clone());
    let (source, watch) = start_source(config, &events, &shared)?;
    // Manifests in a directory are the operator's own words; nobody else's may name a path on the node.
    let trusted = matches!(config.source, config::Source::Manifests(_));
    let finder = Finder::new(ground.own, ground.hierarchy, sandboxes, trusted);
    let pods = Pods::new(ground.home, finder, config.workers);
    let parts = Parts {
        datapath: Arc::clone(&datapath),
        proxy: Arc::clone(&proxy),
        program,
        shared: Arc::clone(&shared),
        moved,
        orphaned,
    };
    let mut applier = Applier::new(config, source, pods, parts);
    let readiness = Arc::clone(&shared);
    let (applies, applied) = oneshot::channel::<()>();
    let apply = std::thread::Builder::new().name("weir-apply".into()).spawn(move || {
        // Whatever ends this thread, nobody shall take the agent for one that follows changes, and it ends too.
        let _at_end = (NotReady(readiness), applies);
        applier.run(&inbox)
    })?;

    let (end, remove) = control.block_on(async {
        let installation = join(config, &shared).await;
        if let Some(records) = kernel_log {
            tokio::spawn(records);
        }
        let end = told_to_end(signals, applied, &succession).await;
        match end {
            // There is nothing to hand over.
            End::Removed => shared.fail(DatapathError::Removed.to_string()),
            End::Told => succession::until_proven(&reign).await,
        }
        succession.stop();
        // New connections to proxied ports take their fallback slots from here on.
        shared.set_ready(false);
        heart.stop();
        tokio::time::sleep(LISTENERS_LINGER).await;
        drop(watch);
        drop(events.send(Event::Stop));
        let asked = async {
            match installation {
                Some(installation) => installation.leave(succession::is_anothers(&reign)).await,
                None => false,
            }
        };
        let (cut, remove) = tokio::join!(proxy.drain(config.drain), asked);
        if cut > 0 {
            tracing::warn!(connections = cut, "cut at the drain deadline");
        }
        anyhow::Ok((end, remove))
    })?;
    access_log.into_iter().for_each(AccessLog::finish);
    match apply.join() {
        Ok(done) => done.context("cannot take over")?,
        Err(_) => anyhow::bail!("weir-apply panicked"),
    }
    if end == End::Removed {
        return Err(DatapathError::Removed.into());
    }
    let removed = remove && control.block_on(succession::remove(&reign, &datapath)).context("removing the pins")?;
    let pins = if removed { "programs, links and maps are removed" } else { "pins stay for the next agent" };
    tracing::info!("drained; {pins}");
    Ok(())
}

/// Takes its part in the installation, where there is one.
async fn join(config: &Config, shared: &Shared) -> Option<Installation> {
    let access = config.cluster.as_ref()?;
    let (findings, refusals) = (shared.findings(), shared.refusals());
    let (own, node) = (config.own.as_ref(), config.node.as_deref());
    Installation::join(access, own, node, config.create_crds, findings, refusals).await
}

/// The signals that tell it to end, caught from when this is made.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn register() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

/// Why the agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By a signal, or because changes are not carried out any more, for which the thread that does has its error.
    Told,
    /// The instance was removed under it. Only an agent that starts can make it anew.
    Removed,
}

/// Waits for a signal, for the end of the thread that carries out changes, with which `applied` is dropped, or for the
/// removal of the instance.
async fn told_to_end(mut signals: Signals, applied: oneshot::Receiver<()>, succession: &Succession) -> End {
    tokio::select! {
        biased;
        _ = signals.terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = signals.interrupt.recv() => tracing::info!("SIGINT: draining"),
        _ = applied => tracing::error!("changes are not carried out any more: draining"),
        () = succession.removed() => {
            tracing::error!("the instance was removed under this agent: nothing is meshed any more; draining");
            return End::Removed;
        }
    }
    End::Told
}

/// Where the agent stands on its node.
struct Ground {
    hierarchy: Hierarchy,
    own: OwnCgroup,
    /// Where the connect hooks are.
    attach: PathBuf,
    trees: Trees,
    /// The agent's own network namespace.
    home: NetNs,
}

/// Finds its place.
fn prepare(config: &Config) -> Result<Ground> {
    crate::heap::prepare();
    raise_file_limit();
    // Before any thread: a process moves as a whole, and the kernel must know the agent by its own cgroup.
    let hierarchy = Hierarchy::find_below(config.cgroup_root.as_deref())?;
    let own =
        hierarchy.ensure_own(&config.instance, std::process::id()).context("the agent needs a cgroup of its own")?;
    if own.shared {
        tracing::warn!(cgroup = %own.path.display(), "shared with other processes, which count as the agent");
    }
    let attach = attach_point(config, &hierarchy);
    let trees = Trees::find(config.cgroup_root.as_deref(), std::process::id())?;
    let home = NetNs::own().context("cannot open the agent's own network namespace")?;
    Ok(Ground { hierarchy, own, attach, trees, home })
}

/// Starts to follow pods. One event at most waits: a pod that changes its addresses without end must not fill the
/// queue.
fn follow_sandboxes(trees: Trees, events: &mpsc::Sender<Event>, moved: &Arc<AtomicBool>) -> Result<Sandboxes> {
    let (wake, waits) = (events.clone(), Arc::clone(moved));
    let tell = move |_: &str| {
        if !waits.swap(true, Ordering::AcqRel) {
            // The receiver is gone only when the agent ends.
            drop(wake.send(Event::Sandbox));
        }
    };
    Sandboxes::start(trees, tell).context("cannot follow the cgroups of pods")
}

/// What tells of changes, for as long as it lives.
#[expect(dead_code, reason = "held for its Drop")]
enum Watch {
    Directory(notify::RecommendedWatcher),
    Kubernetes(Kubernetes),
}

fn start_source(config: &Config, events: &mpsc::Sender<Event>, shared: &Shared) -> Result<(Source, Watch)> {
    let wake = events.clone();
    // The receiver is gone only when the agent ends.
    let wake = move |news| drop(wake.send(Event::News(news)));
    Ok(match &config.source {
        config::Source::Manifests(path) => {
            let directory = Directory::new(path.clone());
            let watch = directory.watch(move |paths| wake(News::Paths(paths)))?;
            (Source::files(directory), Watch::Directory(watch))
        }
        config::Source::Kubernetes(access) => {
            let outbox = Arc::new(Outbox::new(move || wake(News::Objects)));
            let watch = Kubernetes::start(access.clone(), config.node.as_deref(), Arc::clone(&outbox))?;
            shared.set_source(Box::new(watch.reporter()));
            (Source::objects(outbox), Watch::Kubernetes(watch))
        }
    })
}

/// Ends readiness when it goes.
struct NotReady(Arc<Shared>);

impl Drop for NotReady {
    fn drop(&mut self) {
        self.0.set_ready(false);
    }
}

/// Opens as many files as the administrator allows: a connection takes two, and the usual soft limit is 1,024.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one rlimit to the valid place that it is given.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 || limit.rlim_cur >= limit.rlim_max {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: setrlimit reads one valid rlimit.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        tracing::warn!(error = %std::io::Error::last_os_error(), "the limit of open files stays low");
    }
}

/// Where the connect hooks go: where the user says, else above all pods, so that they run before those at the root.
fn attach_point(config: &Config, hierarchy: &Hierarchy) -> PathBuf {
    if let Some(told) = &config.cgroup {
        return told.clone();
    }
    let found = hierarchy.attach_point();
    if !is_kubepods(&found) {
        tracing::warn!(
            cgroup = %found.display(),
            "no kubepods cgroup of this node is there: the connect hooks are at the root of what is mounted, where \
             those of others may run first"
        );
    }
    found
}

/// The kernel's table of flows, as the proxy asks for it.
struct FlowTable(Flows);

impl OriginalDestinations for FlowTable {
    fn take(&self, netns_cookie: u64, peer: SocketAddr, listener_port: u16) -> Option<SocketAddr> {
        self.0.take(netns_cookie, peer, listener_port)
    }
}

/// Manifests in a directory are the operator's own words; rules in a cluster are its tenants'.
fn tls_files(config: &Config) -> TlsFiles {
    match config.source {
        config::Source::Manifests(_) => TlsFiles::Any,
        config::Source::Kubernetes(_) => TlsFiles::Below(config.tls_files.clone()),
    }
}

/// What the proxy is started with, and who writes its access log. The exporter of spans runs on the control runtime.
fn proxy_config(config: &Config, control: &tokio::runtime::Runtime) -> Result<(ProxyConfig, Option<AccessLog>)> {
    let tracing = match &config.tracing {
        Some((collector, sampling)) => {
            let collector = proxy::Collector::parse(collector).context("--trace-collector")?;
            let (tracing, spans) = Tracing::new(*sampling);
            control.spawn(proxy::export(collector, spans));
            Some(tracing)
        }
        None => None,
    };
    let (lines, writer) = config.access_log.as_deref().map(telemetry::access_log).transpose()?.unzip();
    let proxy = ProxyConfig {
        workers: config.workers,
        access_log: lines,
        log_format: config.log_format,
        tracing,
        ..ProxyConfig::default()
    };
    Ok((proxy, writer))
}
