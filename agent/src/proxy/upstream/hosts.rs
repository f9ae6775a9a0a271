//! The endpoints of a cluster at run time, for clusters whose policy asks for more than turns, chance and load: the table of
//! their hash, their weights, their health, their counts. Made when a program is published, shared by all workers, read
//! without a lock. Used by `target`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use weir_mesh::balance::{Candidates, Table, warmup};
use weir_mesh::outlier::{self, Ejection, Gate, Health, Outcome};
use weir_mesh::program::{Cluster, ClusterPolicy, HashTable, LoadBalancer, OutlierDetection};

use super::breakers::Breakers;
use crate::proxy::Ejections;
use crate::proxy::worker::monotonic;

/// How often the weights of endpoints that are getting warm are made anew: a minute's warm-up then has sixty steps.
const WARMUP_STEP: Duration = Duration::from_secs(1);
/// Rolls after which a second pick stops hoping for an endpoint that was not tried and looks for one. Envoy: 5.
pub(super) const REROLLS: usize = 5;
/// Nothing changes by itself.
const NEVER: u64 = u64::MAX;

/// The health of endpoints, whatever cluster they are in: what fails, fails for all that look at it.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    health: HashMap<SocketAddr, Arc<Health>, RandomState>,
    ejections: Arc<AtomicU64>,
    /// The latest class of connections.
    class: u32,
    /// Who is told of ejections.
    told: Option<Arc<dyn Ejections>>,
    /// What was ejected before: until when, and how often.
    before: HashMap<SocketAddr, (u64, u32), RandomState>,
}

impl Registry {
    /// Of a proxy that is not the only one to know.
    pub(crate) fn telling(ejections: Arc<dyn Ejections>) -> Self {
        let before = ejections.known().into_iter().map(|(endpoint, until, times)| (endpoint, (until, times)));
        Self { before: before.collect(), told: Some(ejections), ..Self::default() }
    }

    fn class(&mut self) -> u32 {
        // The number of publications that take four billion outlives no connection.
        self.class = self.class.wrapping_add(1).max(1);
        self.class
    }

    /// Forgets endpoints that no cluster has any more.
    pub(crate) fn forget(&mut self) {
        self.health.retain(|_, health| Arc::strong_count(health) > 1);
    }

    fn of(&mut self, endpoint: SocketAddr) -> Arc<Health> {
        let before = &self.before;
        let health = self.health.entry(endpoint).or_insert_with(|| {
            let (until, times) = before.get(&endpoint).copied().unwrap_or_default();
            Arc::new(Health::ejected_before(until, times))
        });
        Arc::clone(health)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ClusterState {
    cluster: Arc<Cluster>,
    /// Those with an IPv4 address, those with an IPv6 address.
    families: [HostSet; 2],
    /// When something changes by itself; CLOCK_MONOTONIC, ns.
    due: AtomicU64,
    /// Held while weights are made, which requests do not wait for.
    making: Mutex<()>,
    /// Where outlier detection is on.
    outliers: Option<Outliers>,
    /// Where a limit is given.
    breakers: Option<Arc<Breakers>>,
    /// Connections of different classes are never taken for one another; 0 = those of clusters that ask for nothing.
    class: u32,
}

/// The endpoints of a cluster by how they fail.
#[derive(Debug)]
struct Outliers {
    policy: Arc<OutlierDetection>,
    /// Each once.
    health: HashMap<SocketAddr, Arc<Health>, RandomState>,
    gate: Gate,
    next_sweep: AtomicU64,
    /// Counts the ejections in all clusters, and how many there were when this one's weights were made.
    ejections: Arc<AtomicU64>,
    told: Option<Arc<dyn Ejections>>,
    seen: AtomicU64,
}

/// Endpoints of one family.
#[derive(Debug)]
struct HostSet {
    /// As the cluster has them; one that shall get more than others is there several times.
    addresses: Arc<[SocketAddr]>,
    /// Where it sticks to clients.
    table: Option<(HashTable, Arc<Table>)>,
    /// Since when each is there, ns; 0 = long enough. Empty where that does not matter.
    since: Box<[u64]>,
    /// Of each; empty where it does not matter.
    health: Box<[Arc<Health>]>,
    view: ArcSwap<View>,
}

/// Whom to pick from, at the moment.
#[derive(Debug, Default)]
struct View {
    candidates: Candidates,
    /// Whether each may be picked; empty = all of them.
    usable: Box<[bool]>,
}

impl View {
    fn has(&self, position: usize) -> bool {
        self.usable.get(position).copied().unwrap_or(true)
    }
}

/// What a pick depends on beside the endpoints.
pub(super) struct Wanted<'w> {
    /// Of the client, where the cluster sticks to clients and the request has what is hashed.
    pub(super) hash: Option<u64>,
    /// Counts the picks by turns.
    pub(super) cursor: u64,
    /// Endpoints that are not wanted again.
    pub(super) tried: &'w [SocketAddr],
}

impl ClusterState {
    /// Whether a cluster of this policy has anything to keep.
    pub(crate) fn is_needed(policy: &ClusterPolicy) -> bool {
        let connects = policy.connection_pool.as_ref().is_some_and(|pool| pool.value.has_terms());
        let balances = policy.hash().is_some() || policy.warmup().is_some();
        balances || connects || policy.outlier_detection.is_some() || Breakers::are_needed(policy)
    }

    /// `former` is what was known of the cluster until now.
    pub(crate) fn new(cluster: Arc<Cluster>, former: Option<&Self>, registry: &mut Registry, now: u64) -> Self {
        let outliers = cluster.policy.outlier_detection.as_ref().map(|block| {
            let endpoints = cluster.endpoints4.iter().chain(&*cluster.endpoints6);
            let before = former.and_then(|former| former.outliers.as_ref());
            Outliers {
                policy: Arc::clone(&block.value),
                health: endpoints.map(|endpoint| (*endpoint, registry.of(*endpoint))).collect(),
                gate: Gate::default(),
                next_sweep: AtomicU64::new(before.map_or(now, |before| before.next_sweep.load(Relaxed))),
                ejections: Arc::clone(&registry.ejections),
                told: registry.told.clone(),
                seen: AtomicU64::new(0),
            }
        });
        let policy = &cluster.policy;
        let breakers = Breakers::are_needed(policy).then(|| {
            let before = former.and_then(|former| former.breakers.as_ref());
            before.map_or_else(Arc::default, Arc::clone)
        });
        let has_terms = policy.connection_pool.as_ref().is_some_and(|pool| pool.value.has_terms());
        let same_terms = |former: &&Self| former.cluster.policy.connection_pool == policy.connection_pool;
        let class = match former.filter(same_terms) {
            _ if !has_terms => 0,
            Some(former) => former.class,
            None => registry.class(),
        };
        let family = |position: usize, addresses: &Arc<[SocketAddr]>| {
            let former = former.map(|former| &former.families[position]);
            HostSet::new(Arc::clone(addresses), &cluster.policy, former, outliers.as_ref(), now)
        };
        let families = [family(0, &cluster.endpoints4), family(1, &cluster.endpoints6)];
        let state =
            Self { cluster, families, due: AtomicU64::new(NEVER), making: Mutex::new(()), outliers, breakers, class };
        state.look(now);
        state
    }

    /// Whether it was made of this very cluster.
    pub(crate) fn is_of(&self, cluster: &Arc<Cluster>) -> bool {
        Arc::ptr_eq(&self.cluster, cluster)
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Whether time changes anything of it.
    pub(crate) fn is_tended(&self) -> bool {
        self.cluster.policy.warmup().is_some() || self.outliers.is_some() || self.breakers.is_some()
    }

    pub(crate) fn breakers(&self) -> Option<&Arc<Breakers>> {
        self.breakers.as_ref()
    }

    pub(crate) fn class(&self) -> u32 {
        self.class
    }

    /// Does what is due, unless somebody else is doing it.
    pub(crate) fn tend(&self, now: u64) {
        self.outliers.iter().for_each(|outliers| outliers.sweep(&self.cluster.name, now));
        if now < self.due.load(Acquire) && !self.outliers.as_ref().is_some_and(Outliers::is_late) {
            return;
        }
        if let Ok(held) = self.making.try_lock() {
            self.make(&held, now);
        }
    }

    /// An endpoint; `None` = there is none that is wanted. `active` tells the requests under way to one.
    pub(super) fn pick(
        &self,
        ipv6: bool,
        wanted: &Wanted<'_>,
        mut roll: impl FnMut() -> u64,
        active: impl Fn(SocketAddr) -> u32,
    ) -> Option<SocketAddr> {
        let [four, six] = &self.families;
        let (own, other) = if ipv6 { (six, four) } else { (four, six) };
        let family = if own.addresses.is_empty() { other } else { own };
        let simple = match self.cluster.policy.hash() {
            Some(_) if wanted.hash.is_none() => LoadBalancer::Random,
            _ => self.cluster.policy.simple(),
        };
        family.pick(simple, wanted, &mut roll, active)
    }

    /// Counts how a try at an endpoint ended; true when that ejected it.
    pub(super) fn record(&self, endpoint: SocketAddr, outcome: Outcome) -> bool {
        let Some(outliers) = &self.outliers else { return false };
        let Some(health) = outliers.health.get(&endpoint) else { return false };
        let now = monotonic();
        let pool = || outliers.pool(endpoint.is_ipv4());
        let Some(ejection) = outlier::record(&outliers.policy, health, outcome, now, &outliers.gate, pool) else {
            return false;
        };
        outliers.ejections.fetch_add(1, Release);
        self.look(now);
        let Ejection { reason, until, times } = ejection;
        if let Some(told) = &outliers.told {
            told.ejected(endpoint, until, times);
        }
        let seconds = Duration::from_nanos(until - now).as_secs_f32();
        let (cluster, reason) = (&self.cluster.name, reason.as_str());
        tracing::info!(%cluster, %endpoint, reason, seconds, times, "endpoint ejected");
        true
    }

    /// Makes the weights anew, and says when that is due again.
    fn look(&self, now: u64) {
        let held = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        self.make(&held, now);
    }

    fn make(&self, _held: &MutexGuard<'_, ()>, now: u64) {
        if let Some(outliers) = &self.outliers {
            outliers.seen.store(outliers.ejections.load(Acquire), Relaxed);
        }
        let due = [true, false].into_iter().zip(&self.families).map(|(ipv4, family)| {
            let outliers = self.outliers.as_ref().map(|outliers| outliers.usable(ipv4, now));
            family.look(&self.cluster.policy, outliers.unwrap_or_default(), now)
        });
        let due = due.min();
        self.due.store(due.unwrap_or(NEVER), Release);
    }
}

impl Outliers {
    fn pool(&self, ipv4: bool) -> impl Iterator<Item = &Health> {
        self.health.iter().filter(move |(endpoint, _)| endpoint.is_ipv4() == ipv4).map(|(_, health)| &**health)
    }

    /// Whether an endpoint was ejected, be it in another cluster, since weights were made.
    fn is_late(&self) -> bool {
        self.seen.load(Relaxed) != self.ejections.load(Acquire)
    }

    fn usable(&self, ipv4: bool, now: u64) -> Usable {
        let mut usable = Usable { some_only: false, due: NEVER };
        let (mut all, mut in_use) = (0, 0);
        for health in self.pool(ipv4) {
            all += 1;
            match health.ejected_until(now) {
                None => in_use += 1,
                Some(until) => usable.due = usable.due.min(until),
            }
        }
        usable.some_only = in_use < all && !outlier::panics(&self.policy, in_use, all);
        usable
    }

    /// Once an interval, by whoever comes first.
    fn sweep(&self, cluster: &str, now: u64) {
        let due = self.next_sweep.load(Relaxed);
        let interval = u64::try_from(self.policy.interval.as_nanos()).unwrap_or(u64::MAX);
        let next = now.saturating_add(interval);
        if now < due || self.next_sweep.compare_exchange(due, next, Relaxed, Relaxed).is_err() {
            return;
        }
        for (endpoint, health) in &self.health {
            if outlier::sweep(&self.policy, health, now) {
                tracing::info!(%cluster, %endpoint, "endpoint is back");
            }
        }
    }
}

/// Which endpoints of a family may be picked.
#[derive(Clone, Copy)]
struct Usable {
    /// Those alone that are not ejected.
    some_only: bool,
    /// When the next one comes back.
    due: u64,
}

impl Default for Usable {
    fn default() -> Self {
        Self { some_only: false, due: NEVER }
    }
}

impl HostSet {
    fn new(
        addresses: Arc<[SocketAddr]>,
        policy: &ClusterPolicy,
        former: Option<&Self>,
        outliers: Option<&Outliers>,
        now: u64,
    ) -> Self {
        let health =
            |outliers: &Outliers| addresses.iter().map(|address| Arc::clone(&outliers.health[address])).collect();
        let health = outliers.map(health).unwrap_or_default();
        let table = policy.hash().map(|hash| {
            let kept = former.filter(|former| former.addresses == addresses).and_then(|former| former.table.as_ref());
            let kept = kept.filter(|(kind, _)| *kind == hash.table).map(|(_, table)| Arc::clone(table));
            let members = || addresses.iter().map(|address| (*address, 1));
            (hash.table, kept.unwrap_or_else(|| Arc::new(Table::new(hash.table, members()))))
        });
        let since = match (policy.warmup(), former) {
            (None, _) => Box::default(),
            // Nobody knows for how long those have been there that a cluster begins with.
            (Some(_), None) => addresses.iter().map(|_| 0).collect(),
            (Some(_), Some(former)) => {
                let known: HashMap<SocketAddr, u64, RandomState> = former.ages().collect();
                addresses.iter().map(|address| known.get(address).copied().unwrap_or(now)).collect()
            }
        };
        Self { addresses, table, since, health, view: ArcSwap::default() }
    }

    /// Since when each is there.
    fn ages(&self) -> impl Iterator<Item = (SocketAddr, u64)> {
        let since = self.since.iter().copied().chain(std::iter::repeat(0));
        self.addresses.iter().copied().zip(since)
    }

    /// Makes the weights, and says when they change by themselves.
    fn look(&self, policy: &ClusterPolicy, Usable { some_only, mut due }: Usable, now: u64) -> u64 {
        let usable: Box<[bool]> =
            if some_only { self.health.iter().map(|one| !one.is_ejected(now)).collect() } else { Box::default() };
        let weights = self.ages().enumerate().map(|(position, (_, since))| {
            if usable.get(position) == Some(&false) {
                return 0;
            }
            let Some(warmup) = policy.warmup().filter(|_| since > 0) else {
                return warmup::FULL;
            };
            let age = Duration::from_nanos(now.saturating_sub(since));
            if age < warmup.duration {
                due = due.min(now.saturating_add(WARMUP_STEP.as_nanos() as u64));
            }
            warmup::weight(warmup, age)
        });
        let candidates = Candidates::new(weights);
        self.view.store(Arc::new(View { candidates, usable }));
        due
    }

    fn pick(
        &self,
        simple: LoadBalancer,
        wanted: &Wanted<'_>,
        roll: &mut impl FnMut() -> u64,
        active: impl Fn(SocketAddr) -> u32,
    ) -> Option<SocketAddr> {
        let view = self.view.load();
        let is_wanted = |position: usize| !wanted.tried.contains(&self.addresses[position]);
        if let (Some((_, table)), Some(hash)) = (&self.table, wanted.hash) {
            return table
                .pick(hash, |position| view.has(position) && is_wanted(position))
                .map(|position| self.addresses[position]);
        }
        let candidates = &view.candidates;
        let rolls = if wanted.tried.is_empty() { 1 } else { REROLLS };
        let picked = (0..rolls).find_map(|again| {
            let picked = match simple {
                LoadBalancer::RoundRobin => candidates.round_robin(wanted.cursor.wrapping_add(again as u64)),
                LoadBalancer::Random => candidates.random(roll()),
                LoadBalancer::LeastRequest | LoadBalancer::Passthrough => {
                    candidates.least_request(roll(), |position| active(self.addresses[position]))
                }
            };
            picked.filter(|position| is_wanted(*position))
        });
        picked.or_else(|| candidates.find(is_wanted)).map(|position| self.addresses[position])
    }
}
