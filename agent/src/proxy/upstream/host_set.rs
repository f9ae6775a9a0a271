//! The endpoints of one family of a cluster: the table of their hash, and for each kind of clients the weights that these
//! pick by. Weights are made anew when endpoints, their health or their age change; a pick reads them without a lock and
//! asks for no memory. Used by `hosts`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use smallvec::SmallVec;
use weir_mesh::balance::locality::{Plan, Scratch};
use weir_mesh::balance::{Candidates, Table, warmup};
use weir_mesh::outlier::Health;
use weir_mesh::program::{Clients, Cluster, ClusterPolicy, HashTable, LoadBalancer};

/// How often the weights of endpoints that are getting warm are made anew: a minute's warm-up then has sixty steps.
const WARMUP_STEP: Duration = Duration::from_secs(1);
/// Rolls after which a second pick stops hoping for an endpoint that was not tried and looks for one. Envoy: 5.
pub(super) const REROLLS: usize = 5;
/// Nothing changes by itself.
pub(super) const NEVER: u64 = u64::MAX;

/// Endpoints of one family.
#[derive(Debug)]
pub(super) struct HostSet {
    /// As the cluster has them; one that shall get more than others is there several times.
    addresses: Arc<[SocketAddr]>,
    /// Where it sticks to clients.
    table: Option<(HashTable, Arc<Table>)>,
    /// Since when each is there, ns; 0 = long enough. Empty where that does not matter.
    since: Box<[u64]>,
    /// Of each; empty where it does not matter.
    health: Box<[Arc<Health>]>,
    vantages: Vantages,
}

/// What a pick depends on beside the endpoints.
pub(super) struct Wanted<'w> {
    /// Who asks, as `namespace/name`.
    pub(super) client: &'w str,
    /// Of the client, where the cluster sticks to clients and the request has what is hashed.
    pub(super) hash: Option<u64>,
    /// Counts the picks by turns.
    pub(super) cursor: u64,
    /// Endpoints that are not wanted again.
    pub(super) tried: &'w [SocketAddr],
}

/// The candidates of each group, where there are several and load decides.
fn groups(plan: &Plan, policy: &ClusterPolicy, weights: &[u32]) -> Box<[Candidates]> {
    // Clients that stick are balanced by their hash, and by chance without one.
    if policy.hash().is_some() || !matches!(policy.simple(), LoadBalancer::LeastRequest | LoadBalancer::Passthrough) {
        return Box::default();
    }
    let mut members: Vec<Vec<(u32, u32)>> = vec![Vec::new(); plan.groups()];
    for (position, weight) in (0_u32..).zip(weights).filter(|(_, weight)| **weight > 0) {
        if let Some(group) = plan.group(position as usize) {
            members[group].push((position, *weight));
        }
    }
    if members.iter().filter(|members| !members.is_empty()).count() < 2 {
        return Box::default();
    }
    members.into_iter().map(Candidates::among).collect()
}

/// Lessens the weights of endpoints that are not warm: the others of their group take what these cannot bear yet, and the
/// group keeps its share, as slow start of Envoy stays within a locality.
fn warm_up(plan: &Plan, warm: &[u32], weights: &mut [u32]) {
    if warm.iter().all(|warm| *warm >= warmup::FULL) {
        return;
    }
    // Of each group: its weight when all are warm, and now, in thousandths.
    let mut sums = vec![(0_u64, 0_u64); plan.groups()];
    for (position, (weight, warm)) in weights.iter().zip(warm).enumerate() {
        if let Some(group) = plan.group(position) {
            sums[group].0 += u64::from(*weight);
            sums[group].1 += u64::from(*weight) * u64::from(*warm);
        }
    }
    for (position, (weight, warm)) in weights.iter_mut().zip(warm).enumerate().filter(|(_, (weight, _))| **weight > 0) {
        if let Some(group) = plan.group(position) {
            let (full, now) = sums[group];
            let part = f64::from(*weight) * f64::from(*warm) / now as f64;
            *weight = ((part * full as f64).round() as u32).max(1);
        }
    }
}

/// Which endpoints of a family may be picked.
#[derive(Clone, Copy)]
pub(super) struct Usable {
    /// Those alone that are not ejected.
    pub(super) some_only: bool,
    /// When the next one comes back.
    pub(super) due: u64,
}

impl Default for Usable {
    fn default() -> Self {
        Self { some_only: false, due: NEVER }
    }
}

/// What clients of each kind see.
#[derive(Debug)]
pub(super) struct Vantages {
    /// Each once, however many kinds of clients see the same.
    all: Box<[Vantage]>,
    /// By the kind of the client; empty = all see the first.
    of_kind: Box<[u32]>,
}

/// What some clients see.
#[derive(Debug, Default)]
struct Vantage {
    /// By locality, where that makes a difference.
    plan: Option<Plan>,
    view: ArcSwap<View>,
}

impl Vantages {
    /// Those of a family of a cluster.
    pub(super) fn new(cluster: &Cluster, clients: &Clients, ipv6: bool) -> Self {
        let Some(localities) = &cluster.localities else {
            return Self { all: [Vantage::default()].into(), of_kind: Box::default() };
        };
        let mut known = HashMap::<_, u32, RandomState>::default();
        let mut all = Vec::new();
        let mut of_kind = |client| {
            *known.entry(localities.compared(client)).or_insert_with(|| {
                let plan = Some(Plan::of(localities, client, ipv6));
                all.push(Vantage { plan, view: ArcSwap::default() });
                all.len() as u32 - 1
            })
        };
        let of_kind = clients.kinds.iter().map(&mut of_kind).collect();
        Self { all: all.into(), of_kind }
    }

    fn of(&self, kind: usize) -> &Vantage {
        &self.all[self.of_kind.get(kind).map_or(0, |vantage| *vantage as usize)]
    }
}

/// Whom to pick from, at the moment.
#[derive(Debug, Default)]
struct View {
    candidates: Candidates,
    /// Whether each may be picked; empty = all of them.
    usable: Box<[bool]>,
    /// What each locality weighs, where clients that stick are to be spread over several of them.
    localities: Box<[u64]>,
    /// By [`Plan::group`], where several are in use and what each gets is not to depend on who is busy.
    groups: Box<[Candidates]>,
}

impl View {
    fn has(&self, position: usize) -> bool {
        self.usable.get(position).copied().unwrap_or(true)
    }
}

impl HostSet {
    /// `health` is that of the endpoints where failing ones are noticed, else empty.
    pub(super) fn new(
        addresses: Arc<[SocketAddr]>,
        vantages: Vantages,
        policy: &ClusterPolicy,
        former: Option<&Self>,
        health: Box<[Arc<Health>]>,
        now: u64,
    ) -> Self {
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
        Self { addresses, table, since, health, vantages }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Since when each is there.
    fn ages(&self) -> impl Iterator<Item = (SocketAddr, u64)> {
        let since = self.since.iter().copied().chain(std::iter::repeat(0));
        self.addresses.iter().copied().zip(since)
    }

    /// Makes the weights, and says when they change by themselves.
    pub(super) fn look(&self, policy: &ClusterPolicy, usable: Usable, now: u64) -> u64 {
        let mut due = usable.due;
        let ages = self.ages().map(|(_, since)| {
            let Some(warmup) = policy.warmup().filter(|_| since > 0) else {
                return warmup::FULL;
            };
            let age = Duration::from_nanos(now.saturating_sub(since));
            if age < warmup.duration {
                due = due.min(now.saturating_add(WARMUP_STEP.as_nanos() as u64));
            }
            warmup::weight(warmup, age)
        });
        let warm: Vec<u32> = ages.collect();
        let mut scratch = Scratch::default();
        for vantage in &self.vantages.all {
            let view = match &vantage.plan {
                Some(plan) => self.by_locality(plan, policy, &warm, &mut scratch, now),
                None => self.alike(&warm, usable.some_only, now),
            };
            vantage.view.store(Arc::new(view));
        }
        due
    }

    /// Endpoints are used by their health alone.
    fn alike(&self, warm: &[u32], some_only: bool, now: u64) -> View {
        let usable: Box<[bool]> =
            if some_only { self.health.iter().map(|one| !one.is_ejected(now)).collect() } else { Box::default() };
        let weights = warm.iter().enumerate().map(
            |(position, weight)| {
                if usable.get(position) == Some(&false) { 0 } else { *weight }
            },
        );
        View { candidates: Candidates::new(weights), usable, ..View::default() }
    }

    /// By the places of endpoints and the health of each place.
    fn by_locality(&self, plan: &Plan, policy: &ClusterPolicy, warm: &[u32], scratch: &mut Scratch, now: u64) -> View {
        let minimum = policy.outlier_detection.as_ref().map_or(0, |block| block.value.min_health_percent);
        let healthy = |position: usize| self.health.get(position).is_none_or(|one| !one.is_ejected(now));
        let mut weights = Vec::new();
        plan.weights(minimum, healthy, scratch, &mut weights);
        warm_up(plan, warm, &mut weights);
        View {
            usable: weights.iter().map(|weight| *weight > 0).collect(),
            localities: if self.table.is_some() { plan.sums(&weights) } else { Box::default() },
            groups: groups(plan, policy, &weights),
            candidates: Candidates::new(weights),
        }
    }

    /// An endpoint for a client of this kind; `None` = there is none that is wanted. `active` tells the requests under way
    /// to one.
    pub(super) fn pick(
        &self,
        kind: usize,
        simple: LoadBalancer,
        wanted: &Wanted<'_>,
        roll: &mut impl FnMut() -> u64,
        active: impl Fn(SocketAddr) -> u32,
    ) -> Option<SocketAddr> {
        let vantage = self.vantages.of(kind);
        let view = vantage.view.load();
        let is_wanted = |position: usize| !wanted.tried.contains(&self.addresses[position]);
        if let (Some((_, table)), Some(hash)) = (&self.table, wanted.hash) {
            let may = |position: usize| view.has(position) && is_wanted(position);
            // One table for all: whatever happens to localities, a client that need not move stays.
            let of_locality = vantage.plan.as_ref().and_then(|plan| {
                let own = plan.stay(&view.localities, hash)?;
                table.pick(hash, |position| plan.locality(position) == Some(own) && may(position))
            });
            return of_locality.or_else(|| table.pick(hash, may)).map(|position| self.addresses[position]);
        }
        let by_load = matches!(simple, LoadBalancer::LeastRequest | LoadBalancer::Passthrough);
        let group = (by_load && !view.groups.is_empty()).then(|| {
            let group = vantage.plan.as_ref()?.group(view.candidates.random(roll())?)?;
            view.groups.get(group)
        });
        let candidates = group.flatten().unwrap_or(&view.candidates);
        // What is not wanted is busier than anything else, so that of two the other one is picked.
        let busy = |position: usize| if is_wanted(position) { active(self.addresses[position]) } else { u32::MAX };
        let rolls = if wanted.tried.is_empty() { 1 } else { REROLLS };
        let picked = (0..rolls).find_map(|again| {
            let picked = match simple {
                LoadBalancer::RoundRobin => candidates.round_robin(wanted.cursor.wrapping_add(again as u64)),
                LoadBalancer::Random => candidates.random(roll()),
                LoadBalancer::LeastRequest | LoadBalancer::Passthrough => candidates.least_request(roll(), busy),
            };
            picked.filter(|position| is_wanted(*position))
        });
        let picked = picked.or_else(|| candidates.find(is_wanted)).or_else(|| view.candidates.find(is_wanted));
        picked.map(|position| self.addresses[position])
    }

    /// An endpoint of another locality than those that were tried, of the nearest that has one in use; `None` = there is
    /// none, or localities make no difference.
    pub(super) fn pick_elsewhere(
        &self,
        kind: usize,
        tried: &[SocketAddr],
        roll: impl FnOnce() -> u64,
        now: u64,
    ) -> Option<SocketAddr> {
        let plan = self.vantages.of(kind).plan.as_ref()?;
        let failed = |position: &usize| tried.contains(&self.addresses[*position]);
        let failed: SmallVec<[usize; 4]> =
            (0..self.addresses.len()).filter(failed).filter_map(|position| plan.locality(position)).collect();
        let others = (0..self.addresses.len()).filter_map(|position| {
            let is_other = !failed.contains(&plan.locality(position)?);
            let is_healthy = self.health.get(position).is_none_or(|one| !one.is_ejected(now));
            (is_other && is_healthy).then_some((plan.priority(position)?, position))
        });
        let nearest = others.clone().map(|(priority, _)| priority).min()?;
        let of_nearest = others.filter(|(priority, _)| *priority == nearest);
        // Both passes see the same unless health changes between them.
        let count = of_nearest.clone().count().max(1);
        of_nearest.clone().nth((roll() % count as u64) as usize).map(|(_, position)| self.addresses[position])
    }
}
