//! The endpoints of a cluster at run time, for clusters whose policy asks for more than turns, chance and load: the table of
//! their hash, their weights, their health. Made when a program is published, shared by all workers, read without a lock.
//! Used by `target`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use weir_mesh::balance::{Candidates, Table, warmup};
use weir_mesh::program::{Cluster, ClusterPolicy, HashTable, LoadBalancer};

/// How often the weights of endpoints that are getting warm are made anew: a minute's warm-up then has sixty steps.
const WARMUP_STEP: Duration = Duration::from_secs(1);
/// Rolls after which a second pick stops hoping for an endpoint that was not tried and looks for one. Envoy: 5.
pub(super) const REROLLS: usize = 5;
/// Nothing changes by itself.
const NEVER: u64 = u64::MAX;

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
    view: ArcSwap<View>,
}

/// Whom to pick from, at the moment.
#[derive(Debug, Default)]
struct View {
    candidates: Candidates,
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
        policy.hash().is_some() || policy.warmup().is_some()
    }

    /// `former` is what was known of the cluster until now.
    pub(crate) fn new(cluster: Arc<Cluster>, former: Option<&Self>, now: u64) -> Self {
        let family = |position: usize, addresses: &Arc<[SocketAddr]>| {
            let former = former.map(|former| &former.families[position]);
            HostSet::new(Arc::clone(addresses), &cluster.policy, former, now)
        };
        let families = [family(0, &cluster.endpoints4), family(1, &cluster.endpoints6)];
        let state = Self { cluster, families, due: AtomicU64::new(NEVER), making: Mutex::new(()) };
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
        self.cluster.policy.warmup().is_some()
    }

    /// Does what is due, unless somebody else is doing it.
    pub(crate) fn tend(&self, now: u64) {
        if now < self.due.load(Acquire) {
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

    /// Makes the weights anew, and says when that is due again.
    fn look(&self, now: u64) {
        let held = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        self.make(&held, now);
    }

    fn make(&self, _held: &MutexGuard<'_, ()>, now: u64) {
        let due = self.families.iter().map(|family| family.look(&self.cluster.policy, now)).min();
        self.due.store(due.unwrap_or(NEVER), Release);
    }
}

impl HostSet {
    fn new(addresses: Arc<[SocketAddr]>, policy: &ClusterPolicy, former: Option<&Self>, now: u64) -> Self {
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
        Self { addresses, table, since, view: ArcSwap::default() }
    }

    /// Since when each is there.
    fn ages(&self) -> impl Iterator<Item = (SocketAddr, u64)> {
        let since = self.since.iter().copied().chain(std::iter::repeat(0));
        self.addresses.iter().copied().zip(since)
    }

    fn look(&self, policy: &ClusterPolicy, now: u64) -> u64 {
        let mut due = NEVER;
        let candidates = Candidates::new(self.ages().map(|(_, since)| {
            let Some(warmup) = policy.warmup().filter(|_| since > 0) else {
                return warmup::FULL;
            };
            let age = Duration::from_nanos(now.saturating_sub(since));
            if age < warmup.duration {
                due = now.saturating_add(WARMUP_STEP.as_nanos() as u64);
            }
            warmup::weight(warmup, age)
        }));
        self.view.store(Arc::new(View { candidates }));
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
            return table.pick(hash, is_wanted).map(|position| self.addresses[position]);
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
