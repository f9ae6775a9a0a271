//! The program in force, with what its clusters need at run time. Published by `app`, read by every worker.
//!
//! What takes long (tables of a hash, weights) is made by who publishes, before a request can see the program.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Cache};
use foldhash::fast::RandomState;
use weir_mesh::program::{Clients, Cluster, ClusterId, Origin, Program};

use super::Ejections;
use super::inspect::Inspection;
use super::upstream::breakers::Breakers;
use super::upstream::hosts::{ClusterState, Registry};
use super::upstream::tls::TlsFiles;
use super::worker::monotonic;

/// See the module.
pub struct Programs {
    running: Arc<ArcSwap<Running>>,
    /// Held while one is published: what is known of the clusters goes from one to the next.
    known: Mutex<Known>,
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs").field("generation", &self.running.load().generation).finish_non_exhaustive()
    }
}

/// A program that is in force, or was.
#[derive(Debug, Default)]
pub(crate) struct Running {
    program: Arc<Program>,
    /// By [`ClusterId`]; empty where no cluster needs any.
    states: Box<[Option<Arc<ClusterState>>]>,
    /// Those of `states` that change with time.
    tended: Box<[Arc<ClusterState>]>,
    /// Whether any cluster sticks to clients.
    sticks: bool,
}

#[derive(Default)]
struct Known {
    /// By the cluster's name, which several have where views differ.
    states: HashMap<Arc<str>, Vec<Arc<ClusterState>>, RandomState>,
    registry: Registry,
}

impl Programs {
    /// A program that is in force from the beginning. Its rules may name any file for TLS.
    pub fn new(program: Program) -> Arc<Self> {
        Self::beside(program, TlsFiles::Any, None)
    }

    /// The same, with rules that may name these files; ejections are told to somebody, who may know of some.
    pub fn beside(program: Program, files: TlsFiles, ejections: Option<Arc<dyn Ejections>>) -> Arc<Self> {
        let registry = Registry::new(files, ejections);
        let known = Mutex::new(Known { registry, ..Known::default() });
        let running = Arc::new(ArcSwap::from_pointee(Running::default()));
        let programs = Self { running, known };
        programs.store(Arc::new(program));
        Arc::new(programs)
    }

    /// Puts a program in force: the next request runs on it. What is known of endpoints that stay is kept.
    pub fn store(&self, program: Arc<Program>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = monotonic();
        self.running.store(Arc::new(known.run(program, now)));
        known.registry.forget(now);
    }

    /// Looks at the files that TLS is made with; true when any changed. Reads files: not for workers.
    pub fn refresh_tls(&self) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).registry.refresh()
    }

    /// What is asked for by `tls` and cannot be done, each with where it is asked for.
    pub fn tls_problems(&self) -> Vec<(Arc<Origin>, String)> {
        let running = self.running.load();
        let of_state = |state: &Arc<ClusterState>| {
            let origin = &state.cluster().policy.originates()?.origin;
            Some((Arc::clone(origin), state.originator()?.problem()?))
        };
        let mut problems: Vec<_> = running.states.iter().flatten().filter_map(of_state).collect();
        problems.sort_by(|(a, of_a), (b, of_b)| (&a.object, &a.at, of_a).cmp(&(&b.object, &b.at, of_b)));
        problems.dedup_by(|(a, of_a), (b, of_b)| (&a.object, &a.at, of_a) == (&b.object, &b.at, of_b));
        problems
    }

    /// The program in force.
    pub fn load(&self) -> Arc<Program> {
        Arc::clone(&self.running.load().program)
    }

    /// What is in force at the moment, and how it fares.
    pub fn inspect(&self) -> Inspection {
        Inspection::of(self.running.load_full(), monotonic())
    }

    /// What is running, for one who asks for every request.
    pub(crate) fn cache(&self) -> Cache<Arc<ArcSwap<Running>>, Arc<Running>> {
        Cache::new(Arc::clone(&self.running))
    }
}

impl Known {
    fn run(&mut self, program: Arc<Program>, now: u64) -> Running {
        let mut former = std::mem::take(&mut self.states);
        let clients = &program.clients;
        let states = program.clusters.iter().map(|cluster| self.state(cluster, clients, &mut former, now));
        let states: Vec<_> = states.collect();
        let tended = states.iter().flatten().filter(|state| state.is_tended()).map(Arc::clone).collect();
        let states = if self.states.is_empty() { Box::default() } else { states.into() };
        let sticks = program.clusters.iter().any(|cluster| cluster.policy.hash().is_some());
        Running { program, states, tended, sticks }
    }

    fn state(
        &mut self,
        cluster: &Arc<Cluster>,
        clients: &Arc<Clients>,
        former: &mut HashMap<Arc<str>, Vec<Arc<ClusterState>>, RandomState>,
        now: u64,
    ) -> Option<Arc<ClusterState>> {
        if !ClusterState::is_needed(cluster) {
            return None;
        }
        let of_name = former.get_mut(&cluster.name).filter(|states| !states.is_empty());
        let former = of_name.map(|states| {
            let same = states.iter().position(|state| state.is_of(cluster, clients));
            let alike = || states.iter().position(|state| state.cluster().policy == cluster.policy);
            states.swap_remove(same.or_else(alike).unwrap_or(0))
        });
        let state = match former {
            Some(state) if state.is_of(cluster, clients) => state,
            former => {
                let (cluster, clients) = (Arc::clone(cluster), Arc::clone(clients));
                Arc::new(ClusterState::new(cluster, clients, former.as_deref(), &mut self.registry, now))
            }
        };
        self.states.entry(Arc::clone(&cluster.name)).or_default().push(Arc::clone(&state));
        Some(state)
    }
}

impl Deref for Running {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl Running {
    /// The program itself.
    pub(crate) fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// What a cluster needs at run time; `None` = nothing.
    pub(crate) fn state(&self, id: ClusterId) -> Option<&Arc<ClusterState>> {
        self.states.get(id.index())?.as_ref()
    }

    /// Whether any cluster sticks to clients, so that a request is worth a look.
    pub(crate) fn sticks(&self) -> bool {
        self.sticks
    }

    /// The breakers of clusters where somebody waits for a connection to end.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = &Arc<Breakers>> {
        self.tended.iter().filter_map(|state| state.breakers()).filter(|breakers| breakers.is_awaited())
    }

    /// Does what is due, once for all workers that ask.
    pub(crate) fn tend(&self, now: u64) {
        for state in &self.tended {
            state.tend(now);
        }
    }
}
