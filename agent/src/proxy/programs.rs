//! The program in force, with what its clusters need at run time. Published by `app`, read by every worker.
//!
//! What takes long (tables of a hash, weights) is made by who publishes, before a request can see the program.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Cache};
use foldhash::fast::RandomState;
use weir_mesh::program::{Cluster, ClusterId, Origin, PART, Program};

use super::Ejections;
use super::inspect::Inspection;
use super::upstream::breakers::Breakers;
use super::upstream::hosts::{ClusterState, Registry};
use super::upstream::tls::TlsFiles;
use super::worker::monotonic;

/// See the module.
pub struct Programs {
    running: Arc<ArcSwap<Running>>,
    /// Held while one is published.
    registry: Mutex<Registry>,
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
    /// Of each part of the program's clusters; `None` = no cluster of it needs any.
    states: Box<[Option<Arc<States>>]>,
    /// Whether any cluster sticks to clients.
    sticks: bool,
}

/// What the clusters of a part need at run time. A program that has the part, too, has this.
#[derive(Debug)]
struct States {
    /// In the order of the clusters.
    all: Box<[Option<Arc<ClusterState>>]>,
    /// Those that change with time.
    tended: Box<[Arc<ClusterState>]>,
    /// Whether any sticks to clients.
    sticks: bool,
    /// Whether any is where its clients are.
    placed: bool,
    /// Whether any encrypts.
    originates: bool,
}

/// What putting a program in force took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Clusters whose tables were made: those that are new or other than before, and need any.
    pub made: usize,
    /// Whether any that encrypts has come, gone or changed. Else [`Programs::tls_problems`] are what they were.
    pub originates: bool,
}

impl Programs {
    /// A program that is in force from the beginning. Its rules may name any file for TLS.
    pub fn new(program: Program) -> Arc<Self> {
        Self::beside(program, TlsFiles::Any, None)
    }

    /// The same, with rules that may name these files; ejections are told to somebody, who may know of some.
    pub fn beside(program: Program, files: TlsFiles, ejections: Option<Arc<dyn Ejections>>) -> Arc<Self> {
        let registry = Mutex::new(Registry::new(files, ejections));
        let running = Arc::new(ArcSwap::from_pointee(Running::default()));
        let programs = Self { running, registry };
        programs.store(Arc::new(program));
        Arc::new(programs)
    }

    /// Puts a program in force: the next request runs on it. What is known of endpoints that stay is kept. Clusters of
    /// parts that it shares with the one before are not looked at.
    pub fn store(&self, program: Arc<Program>) -> Published {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let now = monotonic();
        let former = self.running.load_full();
        let (states, published) = Next::new(&former, &program, &mut registry, now).run();
        let sticks = states.iter().flatten().any(|part| part.sticks);
        self.running.store(Arc::new(Running { program, states, sticks }));
        // Else it would be one more that still knows what is gone.
        drop(former);
        registry.forget(now);
        published
    }

    /// Looks at the files that TLS is made with; true when any changed. Reads files: not for workers.
    pub fn refresh_tls(&self) -> bool {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).refresh()
    }

    /// What is asked for by `tls` and cannot be done, each with where it is asked for.
    pub fn tls_problems(&self) -> Vec<(Arc<Origin>, String)> {
        let running = self.running.load();
        let of_state = |state: &Arc<ClusterState>| {
            let origin = &state.cluster().policy.originates()?.origin;
            Some((Arc::clone(origin), state.originator()?.problem()?))
        };
        let mut problems: Vec<_> = running
            .parts()
            .filter(|part| part.originates)
            .flat_map(|part| part.all.iter().flatten())
            .filter_map(of_state)
            .collect();
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

/// A program that is about to take the place of another.
struct Next<'p> {
    former: &'p Running,
    program: &'p Arc<Program>,
    registry: &'p mut Registry,
    /// CLOCK_MONOTONIC, ns.
    now: u64,
    /// What is not where it was, by the cluster's name, which several have where views differ: of a cluster that is at
    /// another place, that has changed, or that is gone.
    moved: HashMap<Arc<str>, Vec<Arc<ClusterState>>, RandomState>,
    published: Published,
}

impl<'p> Next<'p> {
    fn new(former: &'p Running, program: &'p Arc<Program>, registry: &'p mut Registry, now: u64) -> Self {
        Self { former, program, registry, now, moved: HashMap::default(), published: Published::default() }
    }

    /// What its clusters need, part by part.
    fn run(mut self) -> (Box<[Option<Arc<States>>]>, Published) {
        let (former, program) = (self.former, self.program);
        for (part, states) in former.states.iter().enumerate() {
            let Some(states) = states.as_ref().filter(|_| !self.stays(part)) else { continue };
            for (place, state) in (part * PART..).zip(&states.all) {
                let Some(state) = state else { continue };
                if !program.clusters.get(place).is_some_and(|now| state.is_of(now, &program.clients)) {
                    self.moved.entry(Arc::clone(&state.cluster().name)).or_default().push(Arc::clone(state));
                }
            }
        }
        let states = (0..program.clusters.parts().len()).map(|part| self.part(part)).collect();
        for state in self.moved.values().flatten() {
            self.registry.leave(state);
            self.published.originates |= state.originator().is_some();
        }
        (states, self.published)
    }

    /// Whether a part is the one that it was, and everything about it.
    fn stays(&self, part: usize) -> bool {
        let parts = [&self.former.program, self.program].map(|program| program.clusters.parts().get(part));
        let [Some(before), Some(now)] = parts else { return false };
        let same_clients = || Arc::ptr_eq(&self.former.program.clients, &self.program.clients);
        let placed = self.former.states[part].as_ref().is_some_and(|states| states.placed);
        Arc::ptr_eq(before, now) && (!placed || same_clients())
    }

    fn part(&mut self, part: usize) -> Option<Arc<States>> {
        let (former, program) = (self.former, self.program);
        let before = former.states.get(part).and_then(Option::as_ref);
        if self.stays(part) {
            return before.map(Arc::clone);
        }
        let mut state = |(place, cluster): (usize, &Arc<Cluster>)| {
            let before = before.and_then(|states| states.all.get(place)?.as_ref());
            match before.filter(|state| state.is_of(cluster, &program.clients)) {
                Some(stays) => Some(Arc::clone(stays)),
                None => self.state(cluster),
            }
        };
        let all: Box<[_]> = (0..).zip(&*program.clusters.parts()[part]).map(&mut state).collect();
        let any = |is: fn(&ClusterState) -> bool| all.iter().flatten().any(|state| is(state));
        let (sticks, placed) = (any(|state| state.cluster().policy.hash().is_some()), any(ClusterState::is_placed));
        let originates = any(|state| state.originator().is_some());
        let tended = all.iter().flatten().filter(|state| state.is_tended()).map(Arc::clone).collect();
        all.iter().any(Option::is_some).then(|| Arc::new(States { all, tended, sticks, placed, originates }))
    }

    /// Of a cluster that is not where it was, if it needs any.
    fn state(&mut self, cluster: &Arc<Cluster>) -> Option<Arc<ClusterState>> {
        if !ClusterState::is_needed(cluster) {
            return None;
        }
        let clients = &self.program.clients;
        let of_name = self.moved.get_mut(&cluster.name).filter(|states| !states.is_empty());
        let former = of_name.map(|states| {
            let same = states.iter().position(|state| state.is_of(cluster, clients));
            let alike = || states.iter().position(|state| state.cluster().policy == cluster.policy);
            states.swap_remove(same.or_else(alike).unwrap_or(0))
        });
        let former = match former {
            Some(same) if same.is_of(cluster, clients) => return Some(same),
            former => former,
        };
        let (cluster, clients) = (Arc::clone(cluster), Arc::clone(clients));
        let state = ClusterState::new(cluster, clients, former.as_deref(), self.registry, self.now);
        self.published.made += 1;
        self.published.originates |= state.originator().is_some();
        if let Some(former) = former {
            self.published.originates |= former.originator().is_some();
            self.registry.leave(&former);
        }
        Some(Arc::new(state))
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
        let place = id.index();
        self.states.get(place / PART)?.as_ref()?.all.get(place % PART)?.as_ref()
    }

    /// Whether any cluster sticks to clients, so that a request is worth a look.
    pub(crate) fn sticks(&self) -> bool {
        self.sticks
    }

    fn parts(&self) -> impl Iterator<Item = &States> {
        self.states.iter().filter_map(Option::as_deref)
    }

    /// How many parts have other tables than in another program, or none.
    #[cfg(test)]
    pub(super) fn parts_beside(&self, other: &Self) -> usize {
        let table = |running: &Self, part| running.states.get(part).and_then(Option::as_ref).map(Arc::as_ptr);
        (0..self.states.len().max(other.states.len())).filter(|part| table(self, *part) != table(other, *part)).count()
    }

    fn tended(&self) -> impl Iterator<Item = &Arc<ClusterState>> {
        self.parts().flat_map(|part| &part.tended)
    }

    /// The breakers of clusters where somebody waits for a connection to end.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = &Arc<Breakers>> {
        self.tended().filter_map(|state| state.breakers()).filter(|breakers| breakers.is_awaited())
    }

    /// Does what is due, once for all workers that ask.
    pub(crate) fn tend(&self, now: u64) {
        for state in self.tended() {
            state.tend(now);
        }
    }
}
