//! What the agent tells of itself: the verdict of every service port and why, the pods that take part, the findings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_mesh::finding::Finding;
use weir_mesh::plan::{PlanKey, PlannedService};

use super::enrol::Enrolled;
use crate::watch::kubernetes::SourceStatus;

/// The answer of `/status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Counts the compilations.
    pub generation: u64,
    /// How long the last change took from its reading until it was in force, in microseconds.
    pub applied_in_us: u64,
    /// How the API server fares; absent for a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// Service ports, in order.
    pub services: Vec<ServiceStatus>,
    /// Enrolled pods of this node, in order.
    pub pods: Vec<PodStatus>,
    /// What is wrong, as text.
    pub findings: Vec<String>,
    /// What could not be carried out on this node, as text.
    pub problems: Vec<String>,
}

/// One service port at one address.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// `namespace/name:port`
    pub service: String,
    /// The address and port that clients dial.
    pub address: String,
    /// 0 = everybody.
    pub view: u32,
    /// `pass`, `balance`, `proxy` or `reject`.
    pub verdict: String,
    /// Why it is not a shorter way.
    pub why: String,
    /// The object behind it, or empty.
    pub because: String,
    /// `balance` or `refuse`: what new connections do while no proxy is alive.
    pub on_failure: String,
    /// Connections since the service port has been known.
    #[serde(default)]
    pub counters: Counters,
}

/// Connections of a service port, all addresses together.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// By the kernel.
    pub balanced: u64,
    /// To the proxy.
    pub proxied: u64,
    /// By the fallback slots.
    pub fallback: u64,
    /// Refused.
    pub rejected: u64,
}

/// One enrolled pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PodStatus {
    /// `namespace/name`
    pub pod: String,
    /// Its network namespace's cookie.
    pub netns_cookie: u64,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Ports of its listeners on 127.0.0.1 and ::1; 0 = none.
    pub listeners: [u16; 2],
}

/// What a status is made of when somebody asks: most changes come and go unseen.
#[derive(Clone, Debug, Default)]
pub(super) struct InForce {
    pub(super) generation: u64,
    pub(super) applied_in: Duration,
    pub(super) services: BTreeMap<PlanKey, Arc<PlannedService>>,
    pub(super) pods: Vec<PodStatus>,
    pub(super) findings: Arc<Vec<Finding>>,
    pub(super) problems: Vec<String>,
}

impl PodStatus {
    pub(super) fn new(name: &str, pod: &Enrolled) -> Self {
        Self {
            pod: name.to_owned(),
            netns_cookie: pod.cookie,
            addresses: pod.addresses.iter().map(ToString::to_string).collect(),
            listeners: [pod.port4, pod.port6],
        }
    }
}

impl From<InForce> for Status {
    fn from(in_force: InForce) -> Self {
        let services = in_force.services.iter().map(|(key, service)| ServiceStatus {
            service: service.name.to_string(),
            address: match key.address {
                Some(address) => std::net::SocketAddr::new(address, key.port).to_string(),
                None => format!("*:{}", key.port),
            },
            view: key.view,
            verdict: service.verdict.as_str().into(),
            why: service.why.clone(),
            because: service.because.as_ref().map(ToString::to_string).unwrap_or_default(),
            on_failure: match service.on_failure {
                weir_mesh::plan::OnFailure::Balance => "balance".into(),
                weir_mesh::plan::OnFailure::Refuse => "refuse".into(),
            },
            counters: Counters::default(),
        });
        Self {
            generation: in_force.generation,
            applied_in_us: in_force.applied_in.as_micros() as u64,
            source: None,
            services: services.collect(),
            pods: in_force.pods,
            findings: in_force.findings.iter().map(ToString::to_string).collect(),
            problems: in_force.problems,
        }
    }
}
