//! From a changed file to what is in force: read, compile, publish, write the maps, enrol. One thread, in order.
//!
//! Order within one change: the program is published before the kernel sends anything to it, and the maps are written
//! additions first; a removed service only loses its entries, and connections already steered still find their way.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use weir_mesh::compile::{CompileOptions, compile};
use weir_mesh::finding::{Finding, Severity, code};
use weir_mesh::plan::KernelPlan;
use weir_mesh::program::Program;
use weir_mesh::source::Location;
use weir_mesh::store::Store;

use super::enrol::Pods;
use super::shared::Shared;
use super::status::Status;
use crate::config::Config;
use crate::datapath::Datapath;
use crate::proxy::Proxy;
use crate::watch::directory::{Change, Directory, POLL};

/// How often pods are looked after without a change.
const TICK: Duration = Duration::from_millis(250);
/// A burst (a directory copied in) is one compilation: wait for this long a silence …
const QUIET: Duration = Duration::from_millis(3);
/// … but never longer than this, so that a steady stream of changes is not starved.
const BURST: Duration = Duration::from_millis(25);

/// When the kernel refused to take the plan: try again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// What wakes the thread.
#[derive(Debug)]
pub(super) enum Event {
    /// These paths changed; empty = anything may have.
    Paths(Vec<PathBuf>),
    /// The sandbox of a pod has come, changed or gone.
    Sandbox,
    /// The agent ends.
    Stop,
}

/// What a change is carried out on.
pub(super) struct Parts {
    pub(super) datapath: Arc<Mutex<Datapath>>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) program: Arc<ArcSwap<Program>>,
    pub(super) shared: Arc<Shared>,
}

/// The one owner of the configuration.
pub(super) struct Applier {
    directory: Directory,
    store: Store,
    options: CompileOptions,
    plan: KernelPlan,
    findings: Vec<Finding>,
    /// What the directory said it could not read, when the findings were made.
    unreadable: BTreeMap<PathBuf, String>,
    /// Files on whose text the reader failed.
    failed: BTreeSet<PathBuf>,
    said: BTreeSet<String>,
    kernel_problems: Vec<String>,
    /// When a part of the plan that found no room in the maps may find some.
    retry_at: Option<Instant>,
    pods: Pods,
    /// What `/status` was made from: generation, revision of the pods, problems.
    shown: (u64, u64, Vec<String>),
    parts: Parts,
    polled: Instant,
    applied_in: Duration,
}

impl Applier {
    pub(super) fn new(config: &Config, directory: Directory, pods: Pods, parts: Parts) -> Self {
        let options = CompileOptions {
            node: config.node.as_deref().map(Arc::from),
            accept_istio_labels: config.accept_istio_labels,
            ..CompileOptions::default()
        };
        Self {
            directory,
            store: Store::default(),
            options,
            plan: KernelPlan::default(),
            findings: Vec::new(),
            unreadable: BTreeMap::new(),
            failed: BTreeSet::new(),
            said: BTreeSet::new(),
            kernel_problems: Vec::new(),
            retry_at: None,
            pods,
            shown: (0, 0, Vec::new()),
            parts,
            polled: Instant::now(),
            applied_in: Duration::ZERO,
        }
    }

    /// Reads everything, then carries out changes until told to stop.
    pub(super) fn run(&mut self, inbox: &Receiver<Event>) {
        let started = Instant::now();
        let changes = self.directory.rescan(None);
        self.take(changes);
        self.recompile(started);
        self.parts.shared.set_ready(true);
        tracing::info!(
            services = self.plan.services.len(),
            pods = self.plan.pods.len(),
            in_ms = started.elapsed().as_millis() as u64,
            "first configuration in force"
        );
        let mut ticked = Instant::now();
        loop {
            // Steady changes must not keep the pods from being looked after.
            if ticked.elapsed() >= TICK {
                self.tick();
                ticked = Instant::now();
            }
            match inbox.recv_timeout(TICK.saturating_sub(ticked.elapsed())) {
                Ok(Event::Paths(paths)) => {
                    let started = Instant::now();
                    let (changes, stop) = self.burst(paths, inbox);
                    if self.take(changes) {
                        self.recompile(started);
                    }
                    if stop {
                        return;
                    }
                }
                Ok(Event::Sandbox) => self.enrol(),
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Collects what follows at once.
    fn burst(&mut self, mut paths: Vec<PathBuf>, inbox: &Receiver<Event>) -> (Vec<Change>, bool) {
        let until = Instant::now() + BURST;
        let mut everything = paths.is_empty();
        let mut stop = false;
        while Instant::now() < until {
            match inbox.recv_timeout(QUIET) {
                Ok(Event::Paths(more)) => {
                    everything |= more.is_empty();
                    paths.extend(more);
                }
                // Its containers are about to start: it does not wait for the end of the burst.
                Ok(Event::Sandbox) => self.enrol(),
                Ok(Event::Stop) => {
                    stop = true;
                    break;
                }
                Err(_) => break,
            }
        }
        let changes =
            if everything { self.directory.rescan(Some(SystemTime::now())) } else { self.directory.read(&paths) };
        (changes, stop)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.polled) >= POLL {
            self.polled = now;
            let changes = self.directory.rescan(Some(SystemTime::now()));
            if self.take(changes) {
                self.recompile(now);
                return;
            }
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.write_maps();
        }
        self.enrol();
    }

    /// True when something changed.
    fn take(&mut self, changes: Vec<Change>) -> bool {
        let mut any = !changes.is_empty();
        for change in changes {
            match change {
                Change::Text(path, text) => {
                    let read = catch_unwind(AssertUnwindSafe(|| self.store.set_file(&name(&path), &text)));
                    match read {
                        Ok(()) => self.failed.remove(&path),
                        Err(_) => self.failed.insert(path),
                    };
                }
                Change::Removed(path) => {
                    self.failed.remove(&path);
                    self.store.remove_file(&name(&path));
                }
            }
        }
        if self.unreadable != *self.directory.problems() {
            self.unreadable = self.directory.problems().clone();
            any = true;
        }
        any
    }

    /// What is wrong with files as a whole.
    fn file_findings(&self) -> impl Iterator<Item = Finding> {
        let unreadable = self.unreadable.iter().map(|(path, why)| {
            let message = format!("cannot be read: {why}; what it said before stays in force");
            about(path, code::UNREADABLE, message)
        });
        let failed = self.failed.iter().map(|path| {
            let message = "weir failed on this text, see its log; what the file said before stays in force".to_owned();
            about(path, code::INTERNAL, message)
        });
        unreadable.chain(failed)
    }

    fn recompile(&mut self, started: Instant) {
        self.options.generation += 1;
        // A fault of the compiler costs a change, never the mesh.
        let compiled = catch_unwind(AssertUnwindSafe(|| {
            let (snapshot, findings) = self.store.assemble();
            (compile(&snapshot, &self.options), findings)
        }));
        let mut findings: Vec<Finding> = self.file_findings().collect();
        match compiled {
            Ok((compiled, of_files)) => {
                findings.extend(of_files);
                findings.extend(compiled.findings);
                self.plan = compiled.plan;
                self.options.views = compiled.views;
                self.parts.program.store(Arc::new(compiled.program));
                self.write_maps();
            }
            Err(_) => findings.push(Finding {
                severity: Severity::Error,
                code: code::INTERNAL,
                object: None,
                at: None,
                message: "weir failed to compile the last change, see its log; what was in force before stays".into(),
                help: None,
            }),
        }
        self.findings = findings;
        self.applied_in = started.elapsed();
        self.enrol();
        self.say();
        tracing::debug!(generation = self.options.generation, us = self.applied_in.as_micros() as u64, "in force");
    }

    fn write_maps(&mut self) {
        let now = Instant::now();
        let mut datapath = self.parts.datapath.lock().unwrap_or_else(PoisonError::into_inner);
        self.retry_at = None;
        self.kernel_problems = match datapath.apply(&self.plan, now) {
            Ok(report) => {
                self.retry_at = report.retry_after.map(|after| now + after);
                report.errors.iter().map(|e| format!("{} is not in force: {}", e.name, e.reason)).collect()
            }
            Err(error) => {
                self.retry_at = Some(now + RETRY);
                vec![format!("the kernel's maps: {:#}", anyhow::Error::from(error))]
            }
        };
    }

    fn enrol(&mut self) {
        let problems = {
            let mut datapath = self.parts.datapath.lock().unwrap_or_else(PoisonError::into_inner);
            self.pods.reconcile(&self.plan.pods, &mut datapath, &self.parts.proxy, Instant::now())
        };
        let problems: Vec<String> = self.kernel_problems.iter().cloned().chain(problems).collect();
        for problem in &problems {
            if self.said.insert(problem.clone()) {
                tracing::error!("{problem}");
            }
        }
        let shown = (self.options.generation, self.pods.revision(), problems);
        if self.shown != shown {
            self.publish(&shown.2);
            self.shown = shown;
        }
    }

    fn publish(&self, problems: &[String]) {
        let generation = self.options.generation;
        let mut status = Status::new(generation, &self.plan, self.pods.iter(), &self.findings, problems.to_vec());
        status.applied_in_us = self.applied_in.as_micros() as u64;
        self.parts.shared.publish(status);
    }

    /// Logs what was not said before; forgets what is mended, so that it is said again when it comes back.
    fn say(&mut self) {
        let current: BTreeSet<String> = self.findings.iter().map(ToString::to_string).collect();
        for finding in &self.findings {
            let text = finding.to_string();
            if self.said.contains(&text) {
                continue;
            }
            match finding.severity {
                Severity::Error => tracing::error!("{text}"),
                Severity::Warning => tracing::warn!("{text}"),
                Severity::Info => tracing::info!("{text}"),
            }
        }
        self.said = current;
    }
}

fn name(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn about(path: &Path, code: &'static str, message: String) -> Finding {
    let at = Some(Location { file: name(path).into(), line: 0, column: 0 });
    Finding { severity: Severity::Error, code, object: None, at, message, help: None }
}
