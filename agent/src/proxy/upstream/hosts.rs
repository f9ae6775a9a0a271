//! A cluster at run time, where its policy asks for more than turns, chance and load: its endpoints (`host_set`), their
//! health, their counts. Made when a program is published, shared by all workers, read
//! without a lock. Used by `target`.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use weir_mesh::outlier::{self, Ejection, Gate, Health, Outcome};
use weir_mesh::program::{ClientTls, Clients, Cluster, ClusterPolicy, LoadBalancer, OutlierDetection};

use super::breakers::Breakers;
use super::host_set::{HostSet, NEVER, Usable, Vantages, Wanted};
use super::tls::{Originator, TlsFiles};
use crate::proxy::Ejections;
use crate::proxy::worker::monotonic;

/// An endpoint as one namespace's rules judge it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Judged {
    /// Whose DestinationRule has the outlier detection.
    by: Arc<str>,
    /// Whether that holds for everybody.
    shared: bool,
    endpoint: SocketAddr,
}

/// The health of endpoints: one for all clusters that the same namespace's rules judge. What another namespace's rules
/// call failing is in use here: nobody takes endpoints from others by rules of one's own.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    health: HashMap<Judged, Used<Health>, RandomState>,
    /// Those that no cluster in force has any more. Workers may still have them for a moment.
    unused: Vec<Judged>,
    ejections: Arc<AtomicU64>,
    /// One for all clusters that ask for the same.
    originators: Vec<Used<Originator>>,
    /// How many of them no cluster in force has any more.
    unused_originators: usize,
    /// The files that rules may name.
    tls_files: TlsFiles,
    /// The latest class of connections.
    class: u32,
    /// Who is told of ejections that hold for everybody.
    told: Option<Arc<dyn Ejections>>,
    /// What was ejected for everybody before this process, and no cluster has had yet: until when, and how often.
    before: HashMap<SocketAddr, (u64, u32), RandomState>,
    /// Of these, what clusters have since the last publication.
    had: Vec<SocketAddr>,
}

/// Something that clusters share.
#[derive(Debug)]
struct Used<T> {
    it: Arc<T>,
    /// How many clusters in force have it.
    by: u32,
}

impl<T> Used<T> {
    /// Nobody has it, not even a worker that is about to let go of a former program.
    fn is_gone(&self) -> bool {
        self.by == 0 && Arc::strong_count(&self.it) == 1
    }
}

impl Registry {
    /// Of rules that may name these files, in a proxy that may not be the only one to know of ejections.
    pub(crate) fn new(tls_files: TlsFiles, told: Option<Arc<dyn Ejections>>) -> Self {
        let before = told.iter().flat_map(|told| told.known());
        let before = before.map(|(endpoint, until, times)| (endpoint, (until, times))).collect();
        Self { tls_files, told, before, ..Self::default() }
    }

    fn class(&mut self) -> u32 {
        // The number of publications that take four billion outlives no connection.
        self.class = self.class.wrapping_add(1).max(1);
        self.class
    }

    /// Takes note that a cluster is in force no more, or in another shape.
    pub(crate) fn leave(&mut self, state: &ClusterState) {
        for endpoint in state.outliers.iter().flat_map(|outliers| outliers.health.keys()) {
            let Some(judged) = judged(&state.cluster, *endpoint) else { continue };
            let Some(used) = self.health.get_mut(&judged) else { continue };
            used.by -= 1;
            if used.by == 0 {
                self.unused.push(judged);
            }
        }
        if let Some(originator) = &state.originator
            && let Some(used) = self.originators.iter_mut().find(|used| Arc::ptr_eq(&used.it, originator))
        {
            used.by -= 1;
            self.unused_originators += usize::from(used.by == 0);
        }
    }

    /// Forgets endpoints that no cluster has any more: what comes back at the same address is another one.
    pub(crate) fn forget(&mut self, now: u64) {
        let mut ejected: Vec<SocketAddr> = Vec::new();
        self.unused.retain(|judged| {
            let Some(used) = self.health.get(judged) else { return false };
            if used.is_gone() {
                ejected.extend((judged.shared && used.it.is_ejected(now)).then_some(judged.endpoint));
                self.health.remove(judged);
                return false;
            }
            used.by == 0
        });
        let had = std::mem::take(&mut self.had);
        self.before.retain(|endpoint, (until, _)| now < *until && !had.contains(endpoint));
        if !ejected.is_empty() {
            let shared = self.health.iter().filter(|(judged, used)| judged.shared && used.it.is_ejected(now));
            let still: HashSet<SocketAddr, RandomState> = shared.map(|(judged, _)| judged.endpoint).collect();
            for endpoint in ejected.into_iter().filter(|endpoint| !still.contains(endpoint)) {
                self.told.iter().for_each(|told| told.restored(endpoint));
            }
        }
        if self.unused_originators > 0 {
            self.originators.retain(|used| !used.is_gone());
            self.unused_originators = self.originators.iter().filter(|used| used.by == 0).count();
        }
    }

    /// Looks at files again; true when any changed.
    pub(crate) fn refresh(&self) -> bool {
        // Each of them, whatever the others say.
        self.originators.iter().filter(|used| used.it.refresh()).count() > 0
    }

    fn originator(&mut self, policy: &ClusterPolicy) -> Option<Arc<Originator>> {
        let tls = policy.originates()?;
        let namespace = &tls.origin.object.namespace;
        if let Some(known) = self.originators.iter_mut().find(|known| known.it.is_for(&tls.value, namespace)) {
            self.unused_originators -= usize::from(known.by == 0);
            known.by += 1;
            return Some(Arc::clone(&known.it));
        }
        let new = Originator::new(ClientTls::clone(&tls.value), Arc::clone(namespace), self.tls_files.clone());
        let new = Arc::new(new);
        self.originators.push(Used { it: Arc::clone(&new), by: 1 });
        Some(new)
    }

    fn of(&mut self, judged: Judged) -> Arc<Health> {
        let before = self.before.get(&judged.endpoint).filter(|_| judged.shared).copied();
        self.had.extend(before.map(|_| judged.endpoint));
        let used = self.health.entry(judged).or_insert_with(|| {
            let (until, times) = before.unwrap_or_default();
            Used { it: Arc::new(Health::ejected_before(until, times)), by: 0 }
        });
        used.by += 1;
        Arc::clone(&used.it)
    }
}

/// An endpoint as the rules of a cluster judge it; `None` = they do not.
fn judged(cluster: &Cluster, endpoint: SocketAddr) -> Option<Judged> {
    let by = Arc::clone(&cluster.policy.outlier_detection.as_ref()?.origin.object.namespace);
    Some(Judged { by, shared: cluster.shares_ejections, endpoint })
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ClusterState {
    cluster: Arc<Cluster>,
    /// Where clients are, if that makes a difference.
    clients: Option<Arc<Clients>>,
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
    /// How connections are encrypted, where they are.
    originator: Option<Arc<Originator>>,
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
    /// Where they hold for everybody.
    told: Option<Arc<dyn Ejections>>,
    seen: AtomicU64,
}

impl ClusterState {
    /// Whether a cluster of this policy has anything to keep.
    pub(crate) fn is_needed(cluster: &Cluster) -> bool {
        let policy = &cluster.policy;
        let connects = policy.connection_pool.as_ref().is_some_and(|pool| pool.value.has_terms());
        let balances = policy.hash().is_some() || policy.warmup().is_some() || cluster.localities.is_some();
        balances
            || connects
            || policy.originates().is_some()
            || policy.outlier_detection.is_some()
            || Breakers::are_needed(policy)
    }

    /// `former` is what was known of the cluster until now.
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        clients: Arc<Clients>,
        former: Option<&Self>,
        registry: &mut Registry,
        now: u64,
    ) -> Self {
        let outliers = cluster.policy.outlier_detection.as_ref().map(|block| {
            let endpoints = cluster.endpoints4.iter().chain(&*cluster.endpoints6);
            // One that shall get more than others is there several times.
            let endpoints: HashSet<SocketAddr, RandomState> = endpoints.copied().collect();
            let judged = endpoints.into_iter().filter_map(|endpoint| Some((endpoint, judged(&cluster, endpoint)?)));
            let before = former.and_then(|former| former.outliers.as_ref());
            Outliers {
                policy: Arc::clone(&block.value),
                health: judged.map(|(endpoint, judged)| (endpoint, registry.of(judged))).collect(),
                gate: Gate::default(),
                next_sweep: AtomicU64::new(before.map_or(now, |before| before.next_sweep.load(Relaxed))),
                ejections: Arc::clone(&registry.ejections),
                told: registry.told.clone().filter(|_| cluster.shares_ejections),
                seen: AtomicU64::new(0),
            }
        });
        let policy = &cluster.policy;
        let breakers = Breakers::are_needed(policy).then(|| {
            let before = former.and_then(|former| former.breakers.as_ref());
            before.map_or_else(Arc::default, Arc::clone)
        });
        let has_terms = policy.connection_pool.as_ref().is_some_and(|pool| pool.value.has_terms());
        let originator = registry.originator(policy);
        let same_terms = |former: &&Self| {
            let before = &former.cluster.policy;
            let same = former.originator.as_ref().map(Arc::as_ptr) == originator.as_ref().map(Arc::as_ptr);
            before.connection_pool == policy.connection_pool && same
        };
        let class = match former.filter(same_terms) {
            _ if !has_terms && originator.is_none() => 0,
            Some(former) => former.class,
            None => registry.class(),
        };
        let family = |position: usize, addresses: &Arc<[SocketAddr]>| {
            let former = former.map(|former| &former.families[position]);
            let vantages = Vantages::new(&cluster, &clients, position == 1);
            let health = outliers.as_ref().map(|outliers| outliers.of(addresses)).unwrap_or_default();
            HostSet::new(Arc::clone(addresses), vantages, &cluster.policy, former, health, now)
        };
        let families = [family(0, &cluster.endpoints4), family(1, &cluster.endpoints6)];
        let clients = cluster.localities.is_some().then_some(clients);
        let (due, making) = (AtomicU64::new(NEVER), Mutex::new(()));
        let state = Self { cluster, clients, families, due, making, outliers, breakers, originator, class };
        state.look(now);
        state
    }

    /// Whether it was made of this very cluster, for these clients.
    pub(crate) fn is_of(&self, cluster: &Arc<Cluster>, clients: &Arc<Clients>) -> bool {
        let for_them = self.clients.as_ref().is_none_or(|held| Arc::ptr_eq(held, clients));
        for_them && Arc::ptr_eq(&self.cluster, cluster)
    }

    /// Whether it depends on where clients are.
    pub(crate) fn is_placed(&self) -> bool {
        self.clients.is_some()
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

    pub(crate) fn originator(&self) -> Option<&Arc<Originator>> {
        self.originator.as_ref()
    }

    pub(crate) fn class(&self) -> u32 {
        self.class
    }

    /// The endpoints that are out of use: until when (CLOCK_MONOTONIC, ns), and by how many times the base time.
    pub(crate) fn ejected(&self, now: u64) -> impl Iterator<Item = (SocketAddr, u64, u32)> {
        let health = self.outliers.iter().flat_map(|outliers| &outliers.health);
        health.filter_map(move |(endpoint, health)| Some((*endpoint, health.ejected_until(now)?, health.ejections())))
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
        let simple = match self.cluster.policy.hash() {
            Some(_) if wanted.hash.is_none() => LoadBalancer::Random,
            _ => self.cluster.policy.simple(),
        };
        self.family(ipv6).pick(self.kind_of(wanted.client), simple, wanted, &mut roll, active)
    }

    /// See [`HostSet::pick_elsewhere`].
    pub(super) fn pick_elsewhere(
        &self,
        ipv6: bool,
        client: &str,
        tried: &[SocketAddr],
        roll: impl FnOnce() -> u64,
    ) -> Option<SocketAddr> {
        self.family(ipv6).pick_elsewhere(self.kind_of(client), tried, roll, monotonic())
    }

    /// Of the client's own, if there is any endpoint.
    fn family(&self, ipv6: bool) -> &HostSet {
        let [four, six] = &self.families;
        let (own, other) = if ipv6 { (six, four) } else { (four, six) };
        if own.is_empty() { other } else { own }
    }

    fn kind_of(&self, client: &str) -> usize {
        self.clients.as_ref().map_or(0, |clients| clients.kind_of(client))
    }

    /// Counts how a try at an endpoint ended; true when that ejected it.
    pub(crate) fn record(&self, endpoint: SocketAddr, outcome: Outcome) -> bool {
        let Some(outliers) = &self.outliers else { return false };
        let Some(health) = outliers.health.get(&endpoint) else { return false };
        let now = monotonic();
        let pool = || outliers.pool(endpoint.is_ipv4());
        let Some(ejection) = outlier::record(&outliers.policy, health, outcome, now, &outliers.gate, pool) else {
            return false;
        };
        outliers.ejections.fetch_add(1, Release);
        // Whoever makes weights at the moment may have looked before: then they are late, and made by the next to tend.
        if let Ok(held) = self.making.try_lock() {
            self.make(&held, now);
        }
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
    /// The health of these endpoints, in their order.
    fn of(&self, endpoints: &[SocketAddr]) -> Box<[Arc<Health>]> {
        endpoints.iter().map(|endpoint| Arc::clone(&self.health[endpoint])).collect()
    }

    fn pool(&self, ipv4: bool) -> impl Iterator<Item = &Health> {
        self.health.iter().filter(move |(endpoint, _)| endpoint.is_ipv4() == ipv4).map(|(_, health)| &**health)
    }

    /// Whether an endpoint was ejected, be it in another cluster, since weights were made.
    fn is_late(&self) -> bool {
        self.seen.load(Relaxed) != self.ejections.load(Acquire)
    }

    fn usable(&self, ipv4: bool, now: u64) -> Usable {
        let mut usable = Usable::default();
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
