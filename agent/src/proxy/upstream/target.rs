//! Where a request or connection is to go, and the state of one worker from which an endpoint of it is picked: turns
//! and load. Used by `handler`, `tcp` and `upstream`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use weir_mesh::balance;
use weir_mesh::outlier::Outcome;
use weir_mesh::program::{Cluster, ClusterId, ConnectionPool, LoadBalancer, PortId, Program};

use super::address::Address;
use super::breakers::Breakers;
use super::host_set::{REROLLS, Wanted};
use super::hosts::ClusterState;
use super::tls::Originator;
use crate::proxy::SourcePod;
use crate::proxy::programs::Running;
use crate::proxy::worker::Worker;

/// Envoy's name for destinations that no service describes.
const PASSTHROUGH: &str = "PassthroughCluster";

/// The program that a request was decided on. Counted within the worker, so that cores do not share the count.
pub(crate) type Held = Rc<Arc<Running>>;

/// Where to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// One of a cluster's endpoints; the client's hash, where it sticks to one of them.
    Cluster(Held, ClusterId, Option<u64>),
    /// What the client dialled, with the policy of a cluster.
    Dialled(Held, ClusterId, SocketAddr),
    /// Where the client itself wanted to go.
    Passthrough(SocketAddr),
}

impl Target {
    /// A cluster, as a client that dialled `destination` on `port` reaches it. `hash` is what it is known by, if anything.
    pub(crate) fn new(
        program: Held,
        port: PortId,
        cluster: ClusterId,
        destination: SocketAddr,
        hash: Option<u64>,
    ) -> Self {
        if program.is_dialled(port, cluster) {
            let pod = SocketAddr::new(destination.ip().to_canonical(), destination.port());
            Self::Dialled(program, cluster, pod)
        } else {
            Self::Cluster(program, cluster, hash)
        }
    }

    /// `None` = no cluster describes it.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Cluster(program, id, _) | Self::Dialled(program, id, _) => Some(program.cluster(*id)),
            Self::Passthrough(_) => None,
        }
    }

    /// For the access log.
    pub(crate) fn name(&self) -> Arc<str> {
        self.cluster().map_or_else(|| PASSTHROUGH.into(), |cluster| Arc::clone(&cluster.name))
    }

    /// How long a connect may take.
    pub(crate) fn connect_timeout(&self, worker: &Worker) -> Duration {
        self.cluster().map_or(worker.limits.connect_timeout, |cluster| cluster.policy.connect_timeout())
    }

    fn state(&self) -> Option<&Arc<ClusterState>> {
        match self {
            Self::Cluster(program, id, _) | Self::Dialled(program, id, _) => program.state(*id),
            Self::Passthrough(_) => None,
        }
    }

    /// Where a limit is given.
    pub(crate) fn breakers(&self) -> Option<&Arc<Breakers>> {
        self.state().and_then(|state| state.breakers())
    }

    /// Connections that may be taken for one another have the same.
    pub(crate) fn class(&self) -> u32 {
        self.state().map_or(0, |state| state.class())
    }

    /// How connections are encrypted, where they are.
    pub(crate) fn originator(&self) -> Option<&Arc<Originator>> {
        self.state().and_then(|state| state.originator())
    }

    /// `connectionPool`, where it is given.
    pub(crate) fn connection_pool(&self) -> Option<&ConnectionPool> {
        self.cluster()?.policy.connection_pool.as_ref().map(|block| &*block.value)
    }

    /// Counts how a try at an endpoint ended, where outlier detection is on.
    pub(crate) fn record(&self, worker: &Worker, endpoint: SocketAddr, outcome: impl FnOnce() -> Outcome) {
        if let Some(state) = self.state()
            && state.record(endpoint, outcome())
        {
            worker.counters.ejections.add(1);
        }
    }

    /// An endpoint that is not among `tried`; `None` = there is none.
    pub(crate) fn pick(
        &self,
        worker: &Worker,
        pod: &SourcePod,
        ipv6: bool,
        tried: &[SocketAddr],
    ) -> Option<SocketAddr> {
        let (program, id, hash) = match self {
            Self::Cluster(program, id, hash) => (program, *id, *hash),
            Self::Dialled(_, _, address) | Self::Passthrough(address) => {
                return Some(*address).filter(|address| !tried.contains(address));
            }
        };
        let cluster = program.cluster(id);
        if let Some(state) = program.state(id) {
            let cursor = worker.balancing.turn(cluster, program, || worker.roll());
            let client = &*pod.name;
            let wanted = Wanted { client, hash, cursor, tried };
            return state.pick(ipv6, &wanted, || worker.roll(), |endpoint| worker.balancing.active(endpoint));
        }
        let rolls = if tried.is_empty() { 1 } else { REROLLS };
        for _ in 0..rolls {
            let cursor = worker.balancing.turn(cluster, program, || worker.roll());
            let active = |endpoint| worker.balancing.active(endpoint);
            let picked = balance::pick(cluster, ipv6, cursor, worker.roll(), active)?;
            if !tried.contains(&picked) {
                return Some(picked);
            }
        }
        cluster.endpoints_for(ipv6).iter().copied().find(|address| !tried.contains(address))
    }

    /// An endpoint of another locality than those of `tried`, the nearest first; `None` = there is none.
    pub(crate) fn pick_elsewhere(
        &self,
        worker: &Worker,
        pod: &SourcePod,
        ipv6: bool,
        tried: &[SocketAddr],
    ) -> Option<SocketAddr> {
        let Self::Cluster(program, id, _) = self else { return None };
        program.state(*id)?.pick_elsewhere(ipv6, &pod.name, tried, || worker.roll())
    }
}

/// Turns and load, per worker. Keyed by name and address: ids change meaning with each program, these do not, so the
/// state outlives a change of configuration.
#[derive(Debug, Default)]
pub(crate) struct Balancing {
    turns: RefCell<HashMap<Arc<str>, u64, RandomState>>,
    active: Rc<RefCell<HashMap<Address, u32, RandomState>>>,
}

impl Balancing {
    /// This worker's next turn for a cluster that goes by turns. The first is random, or all workers of all nodes
    /// would begin with the same endpoint.
    fn turn(&self, cluster: &Cluster, program: &Program, first: impl FnOnce() -> u64) -> u64 {
        if cluster.policy.simple() != LoadBalancer::RoundRobin {
            return 0;
        }
        let mut turns = self.turns.borrow_mut();
        if let Some(turn) = turns.get_mut(&*cluster.name) {
            *turn = turn.wrapping_add(1);
            return *turn;
        }
        // Clusters that are long gone: beyond twice of what exists, beginning anew is cheaper than to look.
        if turns.len() > 2 * program.clusters.len() {
            turns.clear();
        }
        // Half the range, so that no turn counter of this process can wrap, which would repeat an endpoint.
        let first = first() >> 1;
        turns.insert(Arc::clone(&cluster.name), first);
        first
    }

    fn active(&self, endpoint: SocketAddr) -> u32 {
        self.active.borrow().get(&Address(endpoint)).copied().unwrap_or(0)
    }

    /// Counts a request or connection to `endpoint` until the guard is dropped.
    pub(crate) fn begin(&self, endpoint: SocketAddr) -> Active {
        *self.active.borrow_mut().entry(Address(endpoint)).or_default() += 1;
        Active { table: Rc::clone(&self.active), endpoint: Address(endpoint) }
    }
}

/// A request or connection under way.
#[derive(Debug)]
pub(crate) struct Active {
    table: Rc<RefCell<HashMap<Address, u32, RandomState>>>,
    endpoint: Address,
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut table = self.table.borrow_mut();
        if let Some(count) = table.get_mut(&self.endpoint) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.endpoint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_mesh::program::ClusterPolicy;

    use super::*;

    fn endpoints() -> [SocketAddr; 2] {
        [1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 80)))
    }

    fn cluster(load_balancer: LoadBalancer) -> Cluster {
        Cluster {
            name: "c".into(),
            host: "h".into(),
            subset: "".into(),
            port: 80,
            policy: ClusterPolicy::new(load_balancer, Duration::from_secs(1)),
            shares_ejections: false,
            endpoints4: endpoints().into(),
            endpoints6: Arc::default(),
            localities: None,
        }
    }

    #[test]
    fn turns_go_on_across_programs_and_begin_at_random() {
        let balancing = Balancing::default();
        let in_turn = cluster(LoadBalancer::RoundRobin);
        let program = Program::default();
        let first = balancing.turn(&in_turn, &program, || u64::MAX);
        assert_eq!(first, u64::MAX >> 1);
        let later = Program { generation: 7, ..Program::default() };
        assert_eq!(balancing.turn(&in_turn, &later, || 0), first + 1);
        assert_eq!(balancing.turn(&cluster(LoadBalancer::Random), &program, || 5), 0);
    }

    #[test]
    fn load_counts_while_it_lasts() {
        let balancing = Balancing::default();
        let endpoints = endpoints();
        let active = |endpoint| balancing.active(endpoint);
        let busy = (balancing.begin(endpoints[0]), balancing.begin(endpoints[0]));
        assert_eq!((active(endpoints[0]), active(endpoints[1])), (2, 0));
        for roll in 0..100 {
            let picked = balance::pick(&cluster(LoadBalancer::LeastRequest), false, 0, roll, active);
            assert_eq!(picked, Some(endpoints[1]));
        }
        drop(busy);
        assert_eq!(active(endpoints[0]), 0);
        assert!(balancing.active.borrow().is_empty(), "endpoints that are gone leave nothing behind");
    }
}
