//! What the kernel shall hold: a verdict for every service port, and the pods of this node that take part.
//! Made by [`crate::compile`], carried out by the agent's `datapath`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::program::{Protocol, Workload};
use crate::source::ObjectRef;

/// What the connect hook does; the same four as the kernel ABI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// As without weir.
    Pass,
    /// The kernel picks a backend.
    Balance,
    /// The node's proxy takes it.
    Proxy,
    /// ECONNREFUSED.
    Reject,
}

impl Verdict {
    /// As shown to users.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Balance => "balance",
            Self::Proxy => "proxy",
            Self::Reject => "reject",
        }
    }
}

/// What new connections to a proxied port do while no proxy is alive (`weir.mesh/on-failure`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum OnFailure {
    /// The kernel balances by the port's catch-all route.
    #[default]
    Balance,
    /// They are refused.
    Refuse,
}

/// Everything that the maps shall hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelPlan {
    /// By view, address, port and protocol.
    pub services: BTreeMap<PlanKey, Arc<PlannedService>>,
    /// Enrolled pods, by `namespace/name`. Those of other nodes are left out when the node is known.
    pub pods: BTreeMap<Arc<str>, EnrolledPod>,
}

/// Key of [`KernelPlan::services`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlanKey {
    /// A class of clients; 0 = everybody.
    pub view: u32,
    /// `None` = any address.
    pub address: Option<IpAddr>,
    /// The dialled port.
    pub port: u16,
    /// True = UDP, false = TCP.
    pub udp: bool,
}

/// Value of [`KernelPlan::services`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedService {
    /// `namespace/name:port`
    pub name: Arc<str>,
    /// What the kernel does.
    pub verdict: Verdict,
    /// Why it is not a shorter way, in words for `weir status`.
    pub why: String,
    /// The object behind the reason.
    pub because: Option<ObjectRef>,
    /// How the port's bytes are read.
    pub protocol: Protocol,
    /// While the proxy is away.
    pub on_failure: OnFailure,
    /// For verdict `balance`.
    pub slots: Vec<WeightedGroup>,
    /// The catch-all route at layer 4, for verdict `proxy`.
    pub fallback: Vec<WeightedGroup>,
}

/// Endpoints that share a weight. A group without endpoints keeps its share: those connections are refused, and
/// never given to another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedGroup {
    /// The subset's name, or empty.
    pub subset: Arc<str>,
    /// Share = `weight / Σ weights`.
    pub weight: u32,
    /// The endpoints among which the share is spread evenly; one that shall get more is there several times.
    pub endpoints: Arc<[SocketAddr]>,
}

/// A pod that takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolledPod {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its UID as its node knows it: the name of its cgroup, by which its sandbox is found. Empty in most files.
    pub uid: Arc<str>,
    /// Its addresses (`status.podIPs`); none before the kubelet has reported them, which is after the sandbox has them.
    pub addresses: Vec<IpAddr>,
    /// The class of clients that it belongs to.
    pub view: u32,
    /// Annotation `weir.mesh/netns`: path of its network namespace (directory source only).
    pub netns: Option<Arc<str>>,
    /// Annotation `weir.mesh/cgroup`: path of its v2 cgroup (directory source only).
    pub cgroup: Option<Arc<str>>,
    /// What metrics call it.
    pub workload: Arc<Workload>,
}
