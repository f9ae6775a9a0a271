//! From a change to what is in force: take it in, compile, publish, write the maps, enrol. One thread, in order.
//!
//! Order within one change: the program is published before the kernel sends anything to it, and the maps are written
//! additions first; a removed service only loses its entries, and connections already steered still find their way.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weir_mesh::compile::{CompileOptions, Compiler};
use weir_mesh::finding::{Finding, Severity, code};
use weir_mesh::plan::KernelPlan;

mod change;
mod tls;

pub(super) use super::explain::Asked;

use super::enrol::Pods;
use super::shared::Shared;
use super::source::{News, Source};
use super::status::{InForce as Shown, PodStatus};
use super::succession::Said;
use crate::config::Config;
use crate::datapath::{ApplyReport, Datapath, DatapathError, Reign, Standing, monotonic_ns};
use crate::heap;
use crate::proxy::{Programs, Proxy};

/// How often pods are looked after without a change.
const TICK: Duration = Duration::from_millis(250);
/// A burst (a directory copied in) is one compilation: wait for this long a silence …
const QUIET: Duration = Duration::from_millis(3);
/// … but never longer than this, so that a steady stream of changes is not starved.
const BURST: Duration = Duration::from_millis(25);

/// When the kernel refused to take the plan: try again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// After a compilation the workers let go of the former program within this time, as each looks some times a second.
/// Then what was in it goes back to the kernel, too.
const LET_GO: Duration = Duration::from_secs(1);

/// What wakes the thread.
#[derive(Debug)]
pub(super) enum Event {
    /// The source has something new.
    News(News),
    /// The sandbox of a pod has come, changed or gone.
    Sandbox,
    /// The agent that is to be in charge is silent.
    Orphaned,
    /// Somebody asks why a request goes where it goes.
    Asked(Box<Asked>),
    /// The agent ends.
    Stop,
}

/// What a change is carried out on.
pub(super) struct Parts {
    pub(super) datapath: Arc<Mutex<Datapath>>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) program: Arc<Programs>,
    pub(super) shared: Arc<Shared>,
    /// An [`Event::Sandbox`] waits in the queue.
    pub(super) moved: Arc<AtomicBool>,
    /// An [`Event::Orphaned`] does.
    pub(super) orphaned: Arc<AtomicBool>,
}

/// The one owner of the configuration.
pub(super) struct Applier {
    pub(super) source: Source,
    /// The first configuration is in force. Before it, pods and maps are as a former agent left them.
    pub(super) begun: bool,
    /// What there is could not be compiled: what is in force stays until the next change.
    uncompiled: bool,
    compiler: Compiler,
    pub(super) options: CompileOptions,
    pub(super) plan: KernelPlan,
    /// The source's, then the compiler's.
    pub(super) findings: Arc<Vec<Finding>>,
    /// Where the compiler's begin.
    compiled_from: usize,
    /// Those among them that are about files for TLS.
    refused: Vec<Finding>,
    kernel_problems: Vec<String>,
    /// A part of the plan is not in the maps, or the maps are another agent's.
    unplaced: bool,
    /// When a part of the plan that found no room in the maps may find some.
    retry_at: Option<Instant>,
    /// When the heap is to be trimmed.
    trim_at: Option<Instant>,
    /// When files for TLS were last looked at.
    looked: Instant,
    /// When rules first changed in the short way while files could not be used. That way keeps what rules lead away from: only
    /// the whole says that nobody needs a file any more, and it waits for the next look, whatever changes until then.
    unsure_of_files: Option<Instant>,
    pub(super) pods: Pods,
    /// What was last said of taking over.
    said: Said,
    /// When to try again to let predecessors end.
    prove_at: Option<Instant>,
    /// What was last said of that.
    said_of_proof: Said,
    /// What was last told of pods that are refused; `None` = nothing yet.
    refusals: Option<Vec<Finding>>,
    reign: Reign,
    /// What `/status` was made from: generation, revision of the pods, problems.
    shown: (u64, u64, Vec<String>),
    pub(super) parts: Parts,
    applied_in: Duration,
}

impl Applier {
    pub(super) fn new(config: &Config, source: Source, pods: Pods, parts: Parts) -> Self {
        let reign = parts.datapath.lock().unwrap_or_else(PoisonError::into_inner).reign();
        let options = CompileOptions {
            node: config.node.as_deref().map(Arc::from),
            accept_istio_labels: config.accept_istio_labels,
            ..CompileOptions::default()
        };
        Self {
            source,
            begun: false,
            compiler: Compiler::default(),
            options,
            plan: KernelPlan::default(),
            findings: Arc::default(),
            compiled_from: 0,
            refused: Vec::new(),
            kernel_problems: Vec::new(),
            unplaced: false,
            uncompiled: false,
            retry_at: None,
            trim_at: None,
            looked: Instant::now(),
            unsure_of_files: None,
            pods,
            said: Said::default(),
            prove_at: None,
            said_of_proof: Said::default(),
            refusals: None,
            reign,
            shown: (0, 0, Vec::new()),
            parts,
            applied_in: Duration::ZERO,
        }
    }

    /// Reads everything, takes over, then carries out changes until told to stop.
    ///
    /// # Errors
    /// When it cannot take over.
    pub(super) fn run(&mut self, inbox: &Receiver<Event>) -> Result<(), DatapathError> {
        let started = Instant::now();
        self.source.begin();
        self.begin(started)?;
        let mut ticked = Instant::now();
        loop {
            // Steady changes must not keep the pods from being looked after.
            if ticked.elapsed() >= TICK {
                if self.begun {
                    self.tick();
                } else {
                    self.begin(started)?;
                }
                ticked = Instant::now();
            }
            match inbox.recv_timeout(TICK.saturating_sub(ticked.elapsed())) {
                Ok(Event::News(news)) => {
                    let heard = Instant::now();
                    let stop = self.burst(news, inbox);
                    let changed = self.source.take();
                    if !self.begun {
                        self.uncompiled = false;
                        self.begin(started)?;
                    } else if !changed.is_empty() {
                        self.carry_out(changed, heard);
                    }
                    if stop {
                        return Ok(());
                    }
                }
                Ok(Event::Sandbox) => self.moved(),
                Ok(Event::Orphaned) => self.succeed(),
                Ok(Event::Asked(asked)) => self.answer(*asked),
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// A sandbox has come, changed or gone.
    fn moved(&mut self) {
        // Before looking: what changes from here on is told anew.
        self.parts.moved.store(false, Ordering::Release);
        if self.begun {
            self.enrol();
        }
    }

    /// Brings the first configuration into force, and takes over for it from the agent that serves. Not while the source
    /// has been read in part only: to compile that would take away what is in force.
    fn begin(&mut self, started: Instant) -> Result<(), DatapathError> {
        // A still younger agent may be there: should it die, it is this one's turn.
        if self.uncompiled || !self.source.is_complete() || !self.is_designated() {
            return Ok(());
        }
        // What was heard just before it became complete.
        self.source.take();
        let findings = self.compile();
        if self.uncompiled {
            self.find(findings);
            return Ok(());
        }
        match self.take_over() {
            Err(DatapathError::Superseded) => return Ok(()),
            done => done?,
        }
        self.begun = true;
        self.enforce(findings, started);
        self.parts.shared.set_ready(true);
        self.prove();
        tracing::info!(
            services = self.plan.services.len(),
            pods = self.plan.pods.len(),
            in_ms = started.elapsed().as_millis() as u64,
            "first configuration in force"
        );
        Ok(())
    }

    /// The designated agent is silent: this one is, from here on.
    fn succeed(&mut self) {
        // Before looking: what happens from here on is told anew.
        self.parts.orphaned.store(false, Ordering::Release);
        let succeeded = self.datapath().succeed();
        match succeeded {
            Ok(true) if self.begun => self.regain(),
            Ok(_) => {}
            Err(error) => {
                if let Some(error) = self.said.news(Some(&error)) {
                    tracing::error!("the agent in charge is silent, and cannot be succeeded: {error}");
                }
            }
        }
    }

    /// Takes over again when this agent is designated and another one's programs are in force.
    fn regain(&mut self) {
        // Who cannot tell may be in charge: `write_maps` says so.
        if self.reign.is_in_charge().unwrap_or(true) || !self.is_designated() {
            return;
        }
        let done = self.take_over();
        if let Some(error) = self.said.news(done.as_ref().err()) {
            tracing::error!("cannot take over again: {error}");
        }
        if done.is_ok() {
            self.recompile(Instant::now());
            self.prove();
        }
    }

    fn take_over(&mut self) -> Result<(), DatapathError> {
        {
            let mut datapath = self.datapath();
            datapath.take_over()?;
            datapath.register_agent()?;
        }
        // From here on, however long the source took to be known.
        self.pods.reassert(Instant::now());
        Ok(())
    }

    /// Lets a predecessor end, and removes what one of another version leaves in the kernel; until both are done, again and
    /// again, as long as this agent is in charge.
    fn prove(&mut self) {
        let proven = self.datapath().prove();
        let (what, done) = match proven {
            Ok(()) => ("hooks of an agent of another version may still steer", self.datapath().remove_former()),
            failed => ("a predecessor cannot be told that this agent serves", failed),
        };
        let again = !matches!(done, Ok(()) | Err(DatapathError::Superseded));
        self.prove_at = again.then(|| Instant::now() + RETRY);
        if let Some(error) = self.said_of_proof.news(done.as_ref().err()) {
            tracing::warn!("{what}: {error}");
        }
    }

    fn datapath(&self) -> MutexGuard<'_, Datapath> {
        self.parts.datapath.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_designated(&self) -> bool {
        matches!(self.reign.standing(monotonic_ns()), Ok(Standing::Designated))
    }

    /// Collects what follows at once; true when the agent ends.
    fn burst(&mut self, news: News, inbox: &Receiver<Event>) -> bool {
        let until = Instant::now() + BURST;
        self.source.hear(news);
        while Instant::now() < until {
            match inbox.recv_timeout(QUIET) {
                Ok(Event::News(more)) => self.source.hear(more),
                // Its containers are about to start: it does not wait for the end of the burst.
                Ok(Event::Sandbox) => self.moved(),
                Ok(Event::Orphaned) => self.succeed(),
                // What is heard in this burst is not in force yet.
                Ok(Event::Asked(asked)) => self.answer(*asked),
                Ok(Event::Stop) => return true,
                Err(_) => break,
            }
        }
        false
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.regain();
        if self.trim_at.take_if(|at| *at <= now).is_some() {
            heap::give_back();
        }
        if self.source.poll(now) {
            self.recompile(now);
            return;
        }
        self.look_at_files(now);
        if self.prove_at.is_some_and(|at| at <= now) {
            self.prove();
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.write_maps();
        }
        self.enrol();
    }

    /// Shows the findings, and logs those that are new; one that comes back is new again.
    fn find(&mut self, findings: Vec<Finding>) {
        let before = std::mem::replace(&mut self.findings, Arc::new(findings));
        let before: BTreeSet<&Finding> = before.iter().collect();
        for finding in self.findings.iter().filter(|finding| !before.contains(finding)) {
            match finding.severity {
                Severity::Error => tracing::error!("{finding}"),
                Severity::Warning => tracing::warn!("{finding}"),
                Severity::Info => tracing::info!("{finding}"),
            }
        }
        self.parts.shared.find(Arc::clone(&self.findings));
        self.parts.shared.in_force().findings = Arc::clone(&self.findings);
    }

    fn recompile(&mut self, started: Instant) {
        let findings = self.compile();
        self.enforce(findings, started);
    }

    /// Publishes the program to the proxy and makes the plan, which is not in force yet.
    fn compile(&mut self) -> Vec<Finding> {
        self.options.generation += 1;
        // A fault of the compiler costs a change, never the mesh.
        let compiled = catch_unwind(AssertUnwindSafe(|| {
            let (snapshot, findings) = self.source.assemble();
            let program = self.parts.program.load();
            (self.compiler.compile(&snapshot, &self.options, &program, &self.plan), findings)
        }));
        let mut findings = self.source.file_findings();
        if let Ok((compiled, of_files)) = compiled {
            findings.extend(of_files);
            self.plan = compiled.plan;
            self.options.views = compiled.views;
            self.parts.program.store(Arc::new(compiled.program));
            self.look_at_refused();
            findings.extend_from_slice(&self.refused);
            self.compiled_from = findings.len();
            findings.extend(compiled.findings);
            self.uncompiled = false;
        } else {
            self.uncompiled = true;
            self.compiled_from = findings.len();
            findings.push(Finding {
                severity: Severity::Error,
                code: code::INTERNAL,
                object: None,
                at: None,
                message: "weir failed to compile the last change, see its log; what was in force before stays".into(),
                help: None,
            });
        }
        findings
    }

    /// Brings the plan into force.
    fn enforce(&mut self, findings: Vec<Finding>, started: Instant) {
        self.write_maps();
        self.applied_in = started.elapsed();
        self.find(findings);
        self.parts.shared.in_force().services.clone_from(&self.plan.services);
        self.enrol();
        heap::give_back();
        self.trim_at.get_or_insert_with(|| Instant::now() + LET_GO);
        tracing::debug!(generation = self.options.generation, us = self.applied_in.as_micros() as u64, "in force");
    }

    fn write_maps(&mut self) {
        let now = Instant::now();
        self.retry_at = None;
        let done = match self.reign.is_in_charge() {
            // Another agent's are left alone without a word: it reads the same source.
            Ok(false) => {
                self.unplaced = true;
                return;
            }
            Ok(true) => self.datapath().apply(&self.plan, now),
            Err(error) => Err(error),
        };
        self.note(done, now);
    }

    /// Remembers what could not be written.
    fn note(&mut self, done: Result<ApplyReport, DatapathError>, now: Instant) {
        self.retry_at = None;
        self.kernel_problems = match done {
            Ok(report) => {
                self.unplaced = !report.errors.is_empty();
                // Room that becomes free is of use only to what found none.
                self.retry_at = report.retry_after.filter(|_| self.unplaced).map(|after| now + after);
                let mut problems: Vec<String> =
                    report.errors.iter().map(|e| format!("{} is not in force: {}", e.name, e.reason)).collect();
                if report.uncounted > 0 {
                    problems.push(format!("{} service ports find no room for their counters", report.uncounted));
                }
                problems
            }
            Err(error) => {
                self.unplaced = true;
                self.retry_at = Some(now + RETRY);
                vec![format!("the kernel's maps: {:#}", anyhow::Error::from(error))]
            }
        };
    }

    fn enrol(&mut self) {
        let now = Instant::now();
        let problems = match self.reign.is_in_charge() {
            Ok(true) => {
                let mut datapath = self.parts.datapath.lock().unwrap_or_else(PoisonError::into_inner);
                self.pods.reconcile(&self.plan.pods, &mut datapath, &self.parts.proxy, now)
            }
            Ok(false) => Vec::new(),
            Err(error) => vec![format!("pods stay as they are: {error:#}")],
        };
        let refusals = self.pods.refusals(&self.plan.pods, now);
        if self.refusals.as_ref() != Some(&refusals) {
            self.parts.shared.refuse(refusals.clone());
            self.refusals = Some(refusals);
        }
        let problems: Vec<String> = self.kernel_problems.iter().cloned().chain(problems).collect();
        for problem in problems.iter().filter(|problem| !self.shown.2.contains(problem)) {
            tracing::error!("{problem}");
        }
        let shown = (self.options.generation, self.pods.revision(), problems);
        if self.shown != shown {
            self.publish(&shown.2);
            self.shown = shown;
        }
    }

    fn publish(&self, problems: &[String]) {
        let mut shown: MutexGuard<'_, Shown> = self.parts.shared.in_force();
        shown.generation = self.options.generation;
        shown.applied_in = self.applied_in;
        shown.pods = self.pods.iter().map(|(name, pod)| PodStatus::new(name, pod)).collect();
        shown.problems = problems.to_vec();
    }
}
