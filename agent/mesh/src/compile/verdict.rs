//! What the kernel does with a service port: the shortest way that its rules allow, and why it is no shorter.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Findings;
use super::policy::Policy;
use super::registry::{Registered, RegisteredPort};
use super::routes::{HttpRules, TcpRules, subset_of};
use crate::crd::Mark;
use crate::finding::{Severity, code};
use crate::plan::{OnFailure, PlannedService, Verdict, WeightedGroup};
use crate::program::{Cluster, Endpoint, LoadBalancer, Protocol, WeightedCluster};
use crate::source::ObjectRef;

/// Label or annotation of a Service: what its proxied ports do while no proxy is alive.
const ON_FAILURE: &str = "weir.mesh/on-failure";

/// Everything that bears on one port.
pub(super) struct Facts<'a, 's> {
    pub(super) service: &'a Registered<'s>,
    pub(super) port: &'a RegisteredPort<'s>,
    pub(super) http: Option<&'a HttpRules<'s>>,
    pub(super) tcp: Option<&'a TcpRules<'s>>,
    pub(super) policy: Option<&'a Policy<'s>>,
    pub(super) guard: Option<&'a ObjectRef>,
    /// The namespace asks for telemetry of requests.
    pub(super) telemetry: bool,
    /// Whether the node's name is known.
    pub(super) knows_node: bool,
    pub(super) plain: &'a WeightedCluster,
    pub(super) clusters: &'a [Cluster],
    pub(super) endpoints: &'a [Endpoint],
}

/// A verdict and its reason, the same for both families.
pub(super) struct Decision {
    verdict: Verdict,
    why: String,
    because: Option<ObjectRef>,
    on_failure: OnFailure,
}

impl Facts<'_, '_> {
    /// Where connections go at layer 4: TCP routes, else the HTTP rule that takes everything, else the service.
    fn groups(&self) -> Option<&[WeightedCluster]> {
        match (self.tcp, self.http) {
            (Some(tcp), None) => Some(&tcp.destinations),
            (_, Some(http)) => http.catch_all(),
            (None, None) => Some(std::slice::from_ref(self.plain)),
        }
    }

    /// Decides.
    pub(super) fn decide(&self, findings: &mut Findings) -> Decision {
        let (verdict, why, because) = self.verdict(findings);
        let mut decision = Decision { verdict, why, because, on_failure: self.on_failure(findings) };
        if verdict == Verdict::Proxy && self.groups().is_none() {
            decision.on_failure = OnFailure::Refuse;
            decision.why.push_str("; refused while no proxy is alive, as no rule takes everything");
        }
        decision
    }

    fn verdict(&self, findings: &mut Findings) -> (Verdict, String, Option<ObjectRef>) {
        let object = self.service.object;
        let own = || Some(object.meta.object.clone());
        if let Some(guard) = self.guard {
            let why = format!("{guard} protects its pods and is not enforced by this version");
            return (Verdict::Reject, why, Some(guard.clone()));
        }
        if object.local_only && !self.knows_node {
            let why = "internalTrafficPolicy Local needs the name of this node, which is not known".to_owned();
            self.left_alone(&why, findings);
            return (Verdict::Pass, why, own());
        }
        if let Some(http) = self.per_connection()
            && http.catch_all().is_none()
        {
            let because = http.because.meta.object.clone();
            let why = format!("{because} has no HTTP rule that takes everything, and HTTP/2 is split by connection");
            return (Verdict::Reject, why, Some(because));
        }
        let layer7 = self.layer7();
        if object.client_ip_affinity {
            let why = "sessionAffinity ClientIP is kept by kube-proxy".to_owned();
            if layer7.is_none() && self.tcp.is_none() && self.per_connection().is_none() {
                self.left_alone(&why, findings);
                return (Verdict::Pass, why, own());
            }
            let why = "sessionAffinity ClientIP is not kept, as rules choose the endpoint";
            self.left_alone(why, findings);
        }
        if !self.has_endpoint() {
            return (Verdict::Reject, "no ready endpoint".to_owned(), own());
        }
        if let Some((why, because)) = layer7 {
            return (Verdict::Proxy, why, because);
        }
        match self.tcp {
            Some(tcp) => {
                let object = tcp.because.meta.object.clone();
                (Verdict::Balance, format!("the kernel keeps the TCP weights of {object}"), Some(object))
            }
            None => match self.per_connection() {
                Some(http) => {
                    let object = http.because.meta.object.clone();
                    let why = format!("the kernel splits HTTP/2 connections by the rule of {object} for everything");
                    (Verdict::Balance, why, Some(object))
                }
                None => (Verdict::Balance, "no rule looks into its connections".to_owned(), None),
            },
        }
    }

    /// HTTP rules of which only the one that takes everything can be followed, connection by connection.
    fn per_connection(&self) -> Option<&HttpRules<'_>> {
        self.http.filter(|_| self.port.protocol == Protocol::Http2)
    }

    /// What asks for the proxy.
    fn layer7(&self) -> Option<(String, Option<ObjectRef>)> {
        let carries = match self.port.protocol {
            Protocol::Http | Protocol::Http2 => "carries HTTP",
            Protocol::Detect => "may carry HTTP",
            Protocol::Tls | Protocol::Tcp => return None,
        };
        if let Some(http) = self.http.filter(|_| self.port.protocol != Protocol::Http2) {
            let object = http.because.meta.object.clone();
            return Some((format!("{object} has HTTP rules for the host"), Some(object)));
        }
        if let Some((rule, balancer)) = self.policy.and_then(Policy::load_balancer) {
            let object = rule.meta.object.clone();
            let name = match balancer {
                LoadBalancer::LeastRequest => "LEAST_REQUEST",
                LoadBalancer::RoundRobin => "ROUND_ROBIN",
                LoadBalancer::Random => "RANDOM",
            };
            return Some((format!("{object} asks for {name} on a port that {carries}"), Some(object)));
        }
        if let Some(tcp) = self.tcp.filter(|_| self.port.protocol == Protocol::Detect) {
            let object = tcp.because.meta.object.clone();
            return Some((format!("{object} has TCP routes, and the port {carries}"), Some(object)));
        }
        self.telemetry.then(|| {
            let namespace = self.service.namespace();
            (format!("namespace {namespace} asks for HTTP telemetry on a port that {carries}"), None)
        })
    }

    /// False when nothing that could be asked for here has an endpoint.
    fn has_endpoint(&self) -> bool {
        let serves = |destination: &WeightedCluster| {
            destination.cluster.is_some_and(|id| {
                let cluster = &self.clusters[id.index()];
                !cluster.endpoints4.is_empty() || !cluster.endpoints6.is_empty()
            })
        };
        let http = self.http.iter().flat_map(|http| &http.rules).flat_map(|rule| &*rule.route.destinations);
        let tcp = self.tcp.iter().flat_map(|tcp| &*tcp.destinations);
        serves(self.plain) || http.chain(tcp).any(serves)
    }

    fn left_alone(&self, why: &str, findings: &mut Findings) {
        let meta = &self.service.object.meta;
        findings.push(Severity::Warning, code::LEFT_ALONE, meta, Mark::default(), why.to_owned());
    }

    fn on_failure(&self, findings: &mut Findings) -> OnFailure {
        let meta = &self.service.object.meta;
        match meta.annotation(ON_FAILURE).or(meta.label(ON_FAILURE)) {
            None | Some("balance") => OnFailure::Balance,
            Some("refuse") => OnFailure::Refuse,
            Some(other) => {
                let message = format!("{ON_FAILURE} must be balance or refuse, is `{other}`: refuse is in force");
                findings.push(Severity::Error, code::BAD_SETTING, meta, Mark::default(), message);
                OnFailure::Refuse
            }
        }
    }

    /// The entry for an address of this family.
    pub(super) fn planned(&self, decision: &Decision, ipv6: bool) -> PlannedService {
        let groups = || self.groups().map(|groups| self.family(groups, ipv6)).unwrap_or_default();
        PlannedService {
            name: entry_name(self.service, self.port.port.number),
            verdict: decision.verdict,
            why: decision.why.clone(),
            because: decision.because.clone(),
            protocol: self.port.protocol,
            on_failure: decision.on_failure,
            slots: if decision.verdict == Verdict::Balance { groups() } else { Vec::new() },
            fallback: if decision.verdict == Verdict::Proxy { groups() } else { Vec::new() },
        }
    }

    fn family(&self, destinations: &[WeightedCluster], ipv6: bool) -> Vec<WeightedGroup> {
        destinations
            .iter()
            .map(|destination| WeightedGroup {
                subset: subset_of(&destination.name).into(),
                weight: destination.weight,
                endpoints: destination.cluster.map_or_else(Vec::new, |id| {
                    let cluster = &self.clusters[id.index()];
                    let ids = if ipv6 { &cluster.endpoints6 } else { &cluster.endpoints4 };
                    ids.iter().map(|id| self.endpoints[id.index()].address).collect::<Vec<SocketAddr>>()
                }),
            })
            .collect()
    }
}

/// The entry of a UDP port: kube-proxy's.
pub(super) fn udp(service: &Registered<'_>, port: u16) -> PlannedService {
    PlannedService {
        name: entry_name(service, port),
        verdict: Verdict::Pass,
        why: "UDP is left to kube-proxy".to_owned(),
        because: None,
        protocol: Protocol::Tcp,
        on_failure: OnFailure::Balance,
        slots: Vec::new(),
        fallback: Vec::new(),
    }
}

fn entry_name(service: &Registered<'_>, port: u16) -> Arc<str> {
    format!("{}/{}:{port}", service.namespace(), service.name()).into()
}
