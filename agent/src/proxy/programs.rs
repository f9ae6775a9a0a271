//! The program in force, with what its clusters need at run time. Published by `app`, read by every worker.
//!
//! What takes long (tables of a hash, weights) is made by who publishes, before a request can see the program.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Cache};
use foldhash::fast::RandomState;
use weir_mesh::program::{Cluster, ClusterId, Program};

use super::Ejections;
use super::upstream::breakers::Breakers;
use super::upstream::hosts::{ClusterState, Registry};
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
    /// A program that is in force from the beginning.
    pub fn new(program: Program) -> Arc<Self> {
        Self::telling(program, Registry::default())
    }

    /// The same; ejections are told to somebody, who may know of some.
    pub fn shared(program: Program, ejections: Arc<dyn Ejections>) -> Arc<Self> {
        Self::telling(program, Registry::telling(ejections))
    }

    fn telling(program: Program, registry: Registry) -> Arc<Self> {
        let known = Mutex::new(Known { registry, ..Known::default() });
        let running = Arc::new(ArcSwap::from_pointee(Running::default()));
        let programs = Self { running, known };
        programs.store(Arc::new(program));
        Arc::new(programs)
    }

    /// Puts a program in force: the next request runs on it. What is known of endpoints that stay is kept.
    pub fn store(&self, program: Arc<Program>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.running.store(Arc::new(known.run(program, monotonic())));
        known.registry.forget();
    }

    /// The program in force.
    pub fn load(&self) -> Arc<Program> {
        Arc::clone(&self.running.load().program)
    }

    /// The same, for one who asks for every request.
    pub(crate) fn cache(&self) -> Cache<Arc<ArcSwap<Running>>, Arc<Running>> {
        Cache::new(Arc::clone(&self.running))
    }
}

impl Known {
    fn run(&mut self, program: Arc<Program>, now: u64) -> Running {
        let mut former = std::mem::take(&mut self.states);
        let states: Vec<_> = program.clusters.iter().map(|cluster| self.state(cluster, &mut former, now)).collect();
        let tended = states.iter().flatten().filter(|state| state.is_tended()).map(Arc::clone).collect();
        let states = if self.states.is_empty() { Box::default() } else { states.into() };
        let sticks = program.clusters.iter().any(|cluster| cluster.policy.hash().is_some());
        Running { program, states, tended, sticks }
    }

    fn state(
        &mut self,
        cluster: &Arc<Cluster>,
        former: &mut HashMap<Arc<str>, Vec<Arc<ClusterState>>, RandomState>,
        now: u64,
    ) -> Option<Arc<ClusterState>> {
        if !ClusterState::is_needed(&cluster.policy) {
            return None;
        }
        let of_name = former.get_mut(&cluster.name).filter(|states| !states.is_empty());
        let former = of_name.map(|states| {
            let same = states.iter().position(|state| state.is_of(cluster));
            let alike = || states.iter().position(|state| state.cluster().policy == cluster.policy);
            states.swap_remove(same.or_else(alike).unwrap_or(0))
        });
        let state = match former {
            Some(state) if state.is_of(cluster) => state,
            former => Arc::new(ClusterState::new(Arc::clone(cluster), former.as_deref(), &mut self.registry, now)),
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
