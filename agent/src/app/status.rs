//! What the agent tells of itself: the verdict of every service port and why, the pods that take part, the findings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_mesh::finding::Finding;
use weir_mesh::plan::{PlanKey, PlannedService};

use super::enrol::Enrolled;
use crate::datapath::Ejected;
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
    /// Endpoints that are out of use on this node, as the kernel has it, in order.
    #[serde(default)]
    pub ejected: Vec<EjectedStatus>,
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

/// An endpoint that is out of use.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EjectedStatus {
    /// Its address and port.
    pub endpoint: String,
    /// Service ports whose connections the kernel would give to it, `namespace/name:port`, in order.
    pub services: Vec<String>,
    /// How long it stays so, in milliseconds.
    pub left_ms: u64,
    /// By how many times the base time it was ejected.
    pub times: u32,
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

impl InForce {
    /// Endpoints that are out of use at `now` (CLOCK_MONOTONIC, ns), with whose they are.
    pub(super) fn ejected(&self, ejected: &[Ejected], now: u64) -> Vec<EjectedStatus> {
        if ejected.is_empty() {
            return Vec::new();
        }
        let out = |one: &Ejected| {
            let left_ms = one.until_ns.saturating_sub(now).div_ceil(1_000_000);
            (one.endpoint, (left_ms, one.times, BTreeSet::new()))
        };
        // Several backends may be one endpoint.
        let mut out: BTreeMap<SocketAddr, (u64, u32, BTreeSet<&str>)> = ejected.iter().map(out).collect();
        for service in self.services.values() {
            for endpoint in service.slots.iter().chain(&service.fallback).flat_map(|group| &*group.endpoints) {
                if let Some((.., services)) = out.get_mut(endpoint) {
                    services.insert(&service.name);
                }
            }
        }
        let shown = |(endpoint, (left_ms, times, services)): (SocketAddr, (u64, u32, BTreeSet<&str>))| EjectedStatus {
            endpoint: endpoint.to_string(),
            services: services.into_iter().map(str::to_owned).collect(),
            left_ms,
            times,
        };
        out.into_iter().map(shown).collect()
    }
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
                Some(address) => SocketAddr::new(address, key.port).to_string(),
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
            ejected: Vec::new(),
            findings: in_force.findings.iter().map(ToString::to_string).collect(),
            problems: in_force.problems,
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_mesh::plan::{OnFailure, Verdict, WeightedGroup};
    use weir_mesh::program::Protocol;

    use super::*;

    fn planned(name: &str, endpoints: &[&str]) -> Arc<PlannedService> {
        let endpoints = endpoints.iter().map(|endpoint| endpoint.parse().expect("an address")).collect();
        let group = WeightedGroup { subset: "".into(), weight: 1, endpoints };
        Arc::new(PlannedService {
            name: name.into(),
            verdict: Verdict::Balance,
            why: String::new(),
            because: None,
            protocol: Protocol::Tcp,
            on_failure: OnFailure::Balance,
            slots: vec![group],
            fallback: Vec::new(),
        })
    }

    #[test]
    fn an_ejected_endpoint_is_told_once_with_whose_it_is_and_its_time() {
        let services = [("shop/b:80", ["10.0.0.1:80", "10.0.0.2:80"]), ("shop/a:80", ["10.0.0.2:80", "10.0.0.2:80"])];
        let key = |port| PlanKey { view: 0, address: None, port, udp: false };
        let services = services.iter().zip(1..).map(|((name, to), port)| (key(port), planned(name, to))).collect();
        let in_force = InForce { services, ..InForce::default() };
        let out = |endpoint: &str| Ejected {
            endpoint: endpoint.parse().expect("an address"),
            until_ns: 31_000_000_001,
            times: 2,
        };
        let told = in_force.ejected(&[out("10.0.0.2:80"), out("10.0.0.2:80"), out("10.0.0.9:80")], 1_000_000_000);
        let shown = |endpoint: &str, services: &[&str]| EjectedStatus {
            endpoint: endpoint.into(),
            services: services.iter().map(|&name| name.to_owned()).collect(),
            left_ms: 30_001,
            times: 2,
        };
        assert_eq!(told, [shown("10.0.0.2:80", &["shop/a:80", "shop/b:80"]), shown("10.0.0.9:80", &[])]);
        assert_eq!(in_force.ejected(&[], 0), []);
    }
}
