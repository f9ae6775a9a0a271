//! What the kernel does with a service port: the shortest way that its rules allow, and why it is no shorter.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Findings;
use super::destinations::{Closed, Clusters, subset_of};
use super::layer4::{TcpRules, TlsRules};
use super::registry::{Registered, RegisteredPort};
use super::routes::HttpRules;
use crate::crd::{Mark, Protection};
use crate::finding::{Severity, code};
use crate::plan::{OnFailure, PlannedService, Verdict, WeightedGroup};
use crate::program::{ClusterId, ClusterPolicy, LoadBalancer, Origin, Protocol, WeightedCluster};
use crate::source::ObjectRef;

/// Label or annotation of a Service: what its proxied ports do while no proxy is alive.
const ON_FAILURE: &str = "weir.mesh/on-failure";

/// Everything that bears on one port.
pub(super) struct Facts<'a, 's> {
    pub(super) service: &'a Registered<'s>,
    pub(super) port: &'a RegisteredPort<'s>,
    pub(super) http: Option<&'a HttpRules<'s>>,
    pub(super) tcp: Option<&'a TcpRules<'s>>,
    pub(super) tls: Option<&'a TlsRules<'s>>,
    pub(super) guard: Option<&'s Protection>,
    /// The namespace asks for telemetry of requests.
    pub(super) telemetry: bool,
    /// Whether the node's name is known.
    pub(super) knows_node: bool,
    pub(super) plain: &'a WeightedCluster,
    pub(super) clusters: &'a Clusters<'a>,
}

/// A verdict and its reason, the same for both families.
pub(super) struct Decision {
    pub(super) verdict: Verdict,
    why: String,
    because: Option<ObjectRef>,
    on_failure: OnFailure,
}

impl Facts<'_, '_> {
    /// Where connections go at layer 4: TCP routes, else the HTTP rule that takes everything, else the service.
    fn groups(&self, dialled: IpAddr) -> Option<&[WeightedCluster]> {
        let plain = std::slice::from_ref(self.plain);
        match (self.tcp, self.http) {
            (Some(tcp), None) => Some(tcp.toward(dialled).unwrap_or(plain)),
            (_, Some(http)) => http.catch_all(),
            (None, None) => Some(plain),
        }
    }

    /// Decides.
    pub(super) fn decide(&self, findings: &mut Findings) -> Decision {
        let (verdict, why, because) = self.verdict(findings);
        if verdict == Verdict::Balance || (verdict == Verdict::Pass && self.service.is_headless()) {
            self.unkept(findings);
        }
        let mut decision = Decision { verdict, why, because, on_failure: self.on_failure(findings) };
        if verdict != Verdict::Reject {
            for (name, closed) in self.closed() {
                let Closed { rule, mode } = closed;
                let _ = write!(decision.why, "; {name} is refused, as {rule} asks for TLS ({mode})");
            }
        }
        if verdict == Verdict::Proxy && self.http.is_some_and(|http| http.catch_all().is_none()) {
            decision.on_failure = OnFailure::Refuse;
            decision.why.push_str("; refused while no proxy is alive, as no rule takes everything");
        } else if verdict == Verdict::Proxy && self.tls.is_some() && !self.tcp.is_some_and(TcpRules::takes_everything) {
            decision.on_failure = OnFailure::Refuse;
            decision.why.push_str("; refused while no proxy is alive, as the kernel does not read names");
        } else if verdict == Verdict::Proxy {
            self.refuse_plain_text(&mut decision);
        }
        decision
    }

    /// What is to be encrypted has no fallback: the kernel would send plain text.
    fn refuse_plain_text(&self, decision: &mut Decision) {
        let encrypted = |one: &&WeightedCluster| one.cluster.is_some_and(|id| self.is_encrypted(id));
        let names: BTreeSet<&str> = self.destinations().filter(encrypted).map(|one| &*one.name).collect();
        if names.is_empty() {
            return;
        }
        if self.destinations().all(|one| encrypted(&one)) {
            decision.on_failure = OnFailure::Refuse;
            decision.why.push_str("; refused while no proxy is alive, as the kernel does not encrypt");
            return;
        }
        for name in names {
            let _ = write!(decision.why, "; {name} is refused while no proxy is alive, as the kernel does not encrypt");
        }
    }

    fn is_encrypted(&self, id: ClusterId) -> bool {
        self.clusters.all[id.index()].policy.originates().is_some()
    }

    fn verdict(&self, findings: &mut Findings) -> (Verdict, String, Option<ObjectRef>) {
        let object = self.service.object;
        let own = || Some(object.meta.object.clone());
        if let Some(guard) = self.guard {
            return (Verdict::Reject, guard.why_refused("its pods"), Some(guard.meta.object.clone()));
        }
        if let Some(closed) = self.all_closed() {
            let Closed { rule, mode } = closed;
            let why = format!("{rule} asks for TLS ({mode}), and this version would send plain text");
            return (Verdict::Reject, why, Some(rule.clone()));
        }
        if let Some(http) = self.per_connection()
            && http.catch_all().is_none()
        {
            let because = http.because.meta.object.clone();
            let why = format!("{because} has no HTTP rule that takes everything, and HTTP/2 is split by connection");
            return (Verdict::Reject, why, Some(because));
        }
        if self.service.is_headless() {
            return self.headless();
        }
        if let Some(tls) = self.plain_policy().originates().filter(|_| object.local_only && !self.knows_node) {
            let rule = tls.origin.object.clone();
            let why = format!("internalTrafficPolicy Local needs the name of this node, and {rule} asks for TLS");
            return (Verdict::Reject, why, Some(rule));
        }
        if object.local_only && !self.knows_node {
            let why = "internalTrafficPolicy Local needs the name of this node, which is not known".to_owned();
            self.left_alone(&why, findings);
            return (Verdict::Pass, why, own());
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
        match (self.tcp, self.per_connection()) {
            (_, Some(http)) => Self::split_by_connection(http),
            (Some(tcp), None) => Self::kept_by_kernel(tcp),
            (None, None) => (Verdict::Balance, "no rule looks into its connections".to_owned(), None),
        }
    }

    fn kept_by_kernel(tcp: &TcpRules<'_>) -> (Verdict, String, Option<ObjectRef>) {
        let object = tcp.because.meta.object.clone();
        (Verdict::Balance, format!("the kernel keeps the TCP weights of {object}"), Some(object))
    }

    fn split_by_connection(http: &HttpRules<'_>) -> (Verdict, String, Option<ObjectRef>) {
        let object = http.because.meta.object.clone();
        let why = format!("the kernel splits HTTP/2 connections by the rule of {object} for everything");
        (Verdict::Balance, why, Some(object))
    }

    /// Everywhere that connections can be sent by the rules; to the plain service where none looks at them.
    fn destinations(&self) -> impl Iterator<Item = &WeightedCluster> {
        let (http, tcp) = match self.port.protocol {
            Protocol::Http | Protocol::Http2 => (true, false),
            Protocol::Tls | Protocol::Tcp => (false, true),
            Protocol::Detect => (true, true),
        };
        let plain = (http && self.http.is_none()) || (tcp && self.tcp.is_none());
        let some_dial_others = tcp && self.tcp.is_some_and(|tcp| !tcp.takes_everything());
        let by_http = self.http.iter().flat_map(|http| &http.rules).map(|rule| &*rule.route.destinations);
        by_http
            .chain(self.tcp.iter().flat_map(|tcp| tcp.destinations()))
            .chain(self.tls.iter().flat_map(|tls| tls.destinations()))
            .chain((plain || some_dial_others).then(|| std::slice::from_ref(self.plain)))
            .flat_map(|group| group.iter().filter(|one| one.weight > 0 || group.len() == 1))
    }

    /// Destinations that would be sent plain text where encryption is asked for, each once.
    fn closed(&self) -> BTreeMap<&str, &Closed> {
        let closed = |one: &'_ WeightedCluster| one.cluster.and_then(|id| self.clusters.closed.get(&id));
        self.destinations().filter_map(|one| Some((&*one.name, closed(one)?))).collect()
    }

    /// The reason, when nothing is left but what is closed.
    fn all_closed(&self) -> Option<&Closed> {
        let open = |one: &WeightedCluster| one.cluster.is_some_and(|id| !self.clusters.closed.contains_key(&id));
        self.closed().into_values().next().filter(|_| !self.destinations().any(open))
    }

    /// Clients dial a pod: no balancing, so without rules there is nothing to do.
    fn headless(&self) -> (Verdict, String, Option<ObjectRef>) {
        if let Some((why, because)) = self.layer7() {
            return (Verdict::Proxy, why, because);
        }
        if let Some(http) = self.per_connection() {
            return Self::split_by_connection(http);
        }
        if let Some(tcp) = self.tcp {
            return Self::kept_by_kernel(tcp);
        }
        (Verdict::Pass, "clients dial its pods themselves, and no rule looks into its connections".to_owned(), None)
    }

    /// HTTP rules of which only the one that takes everything can be followed, connection by connection.
    fn per_connection(&self) -> Option<&HttpRules<'_>> {
        self.http.filter(|_| self.port.protocol == Protocol::Http2)
    }

    /// What asks for the proxy.
    fn layer7(&self) -> Option<(String, Option<ObjectRef>)> {
        let by_name = || {
            let object = self.tls?.because.meta.object.clone();
            Some((format!("{object} has TLS rules for the host"), Some(object)))
        };
        let carries = match self.port.protocol {
            Protocol::Http | Protocol::Http2 => "carries HTTP",
            Protocol::Detect => "may carry HTTP",
            Protocol::Tls | Protocol::Tcp => return by_name().or_else(|| self.beyond_kernel()),
        };
        if let Some(http) = self.http.filter(|_| self.port.protocol != Protocol::Http2) {
            let object = http.because.meta.object.clone();
            return Some((format!("{object} has HTTP rules for the host"), Some(object)));
        }
        if let Some(by_name) = by_name() {
            return Some(by_name);
        }
        let headless = self.service.is_headless();
        if let Some((origin, name)) = self.plain_policy().beyond_connections(headless) {
            let object = origin.object.clone();
            return Some((format!("{object} asks for {name} on a port that {carries}"), Some(object)));
        }
        if let Some(beyond) = self.beyond_kernel() {
            return Some(beyond);
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

    /// What some destination's policy asks for that the kernel does not do for connections.
    fn beyond_kernel(&self) -> Option<(String, Option<ObjectRef>)> {
        let headless = self.service.is_headless();
        let clusters = || self.destinations().filter_map(|one| Some(&self.clusters.all[one.cluster?.index()]));
        let by_policy = clusters().find_map(|cluster| cluster.policy.beyond_kernel(headless));
        let by_policy = by_policy.map(|(origin, name)| (&origin.object, name));
        let by_locality =
            || clusters().find_map(|cluster| cluster.localities.as_deref()).map(|l| (&l.because, l.field));
        let (object, name) = by_policy.or_else(by_locality)?;
        Some((format!("{object} asks for {name}, which the kernel does not keep"), Some(object.clone())))
    }

    fn plain_policy(&self) -> &ClusterPolicy {
        let id = self.plain.cluster.expect("the plain service always has a cluster");
        &self.clusters.all[id.index()].policy
    }

    /// False when nothing that could be asked for here has an endpoint.
    fn has_endpoint(&self) -> bool {
        let serves = |destination: &WeightedCluster| {
            destination.cluster.is_some_and(|id| {
                let cluster = &self.clusters.all[id.index()];
                !cluster.endpoints4.is_empty() || !cluster.endpoints6.is_empty()
            })
        };
        let http = self.http.iter().flat_map(|http| &http.rules).flat_map(|rule| &*rule.route.destinations);
        let tcp = self.tcp.iter().flat_map(|tcp| tcp.destinations()).flatten();
        let tls = self.tls.iter().flat_map(|tls| tls.destinations()).flatten();
        serves(self.plain) || http.chain(tcp).chain(tls).any(serves)
    }

    /// Says which settings the kernel's way does without.
    fn unkept(&self, findings: &mut Findings) {
        let (host, number) = (&self.service.fqdn, self.port.port.number);
        let own = self.destinations().filter_map(|one| Some(&self.clusters.all[one.cluster?.index()]));
        let plain = self.plain_policy();
        let of_subsets = own.filter(|cluster| cluster.host == *host).map(|cluster| &*cluster.policy);
        for policy in std::iter::once(plain).chain(of_subsets) {
            for (origin, lost) in unkept(policy, self.service.is_headless()) {
                let message = format!("port {number} of {host}: {lost}");
                findings.at_origin(Severity::Info, code::NO_EFFECT, origin, message);
            }
        }
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

    /// The entry for an address of a service.
    pub(super) fn planned(&self, decision: &Decision, address: IpAddr) -> PlannedService {
        let family = |groups| self.family(groups, address.is_ipv6());
        self.entry(decision, || self.groups(address).map(family).unwrap_or_default())
    }

    /// The entry for a pod of a headless service: what would go to some pod of it goes to this one.
    pub(super) fn dialled(&self, decision: &Decision, pod: SocketAddr) -> PlannedService {
        let port = self.port.port.number;
        let is_own = |destination: &WeightedCluster| {
            let cluster = destination.cluster.map(|id| &self.clusters.all[id.index()]);
            cluster.is_some_and(|cluster| cluster.host == self.service.fqdn && cluster.port == port)
        };
        self.entry(decision, || {
            let given = self.groups(pod.ip()).unwrap_or_default();
            let mut groups = self.family(given, pod.is_ipv6());
            for (group, _) in groups.iter_mut().zip(given).filter(|(_, given)| is_own(given)) {
                // What is closed stays so.
                if !group.endpoints.is_empty() {
                    group.endpoints = [pod].into();
                }
            }
            groups
        })
    }

    fn entry(&self, decision: &Decision, groups: impl Fn() -> Vec<WeightedGroup>) -> PlannedService {
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
                // Nobody is sent past the proxy that encrypts.
                endpoints: destination.cluster.filter(|id| !self.is_encrypted(*id)).map_or_else(Arc::default, |id| {
                    let cluster = &self.clusters.all[id.index()];
                    let own = if ipv6 { &cluster.endpoints6 } else { &cluster.endpoints4 };
                    Arc::clone(own)
                }),
            })
            .collect()
    }
}

/// What of a policy is not in force where the kernel connects a client to an endpoint, and what is instead.
pub(crate) fn unkept(policy: &ClusterPolicy, headless: bool) -> impl Iterator<Item = (&Origin, String)> {
    let balancer = policy.load_balancer.as_ref().and_then(|block| {
        let lost = if headless {
            "loadBalancer has no effect, as clients dial a pod of the headless service".to_owned()
        } else if block.value.simple == LoadBalancer::Random && block.value.hash.is_none() {
            return None;
        } else {
            let name = block.value.as_str();
            format!("{name} is not kept: the kernel gives each connection to an endpoint at random, by weight")
        };
        Some((&*block.origin, lost))
    });
    let pool = policy.connection_pool.as_ref().filter(|block| block.value.connect_timeout.is_some());
    let timeout = pool.map(|block| {
        let lost = "connectTimeout is not in force: clients connect to the endpoint themselves, with their own timeout";
        (&*block.origin, lost.to_owned())
    });
    balancer.into_iter().chain(timeout)
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

/// The entry of a host whose endpoints are not known here, and the rule that asks for encryption toward it, with its mode.
pub(super) fn out_of_reach(
    service: &Registered<'_>,
    port: u16,
    asking: Option<&(ObjectRef, Arc<str>)>,
) -> PlannedService {
    let (verdict, why) = match asking {
        Some((rule, mode)) => {
            let why = format!("{rule} asks for TLS ({mode}), and the endpoints of {} are not known here", service.fqdn);
            (Verdict::Reject, why)
        }
        None => (Verdict::Pass, "its endpoints are not known here".to_owned()),
    };
    let because = asking.map(|(rule, _)| rule.clone());
    PlannedService { verdict, why, because, ..udp(service, port) }
}

fn entry_name(service: &Registered<'_>, port: u16) -> Arc<str> {
    match service.entry {
        Some(_) => format!("{}/{}:{port}", service.namespace(), service.fqdn).into(),
        None => format!("{}/{}:{port}", service.namespace(), service.name()).into(),
    }
}
