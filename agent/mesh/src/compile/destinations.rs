//! From destinations to weights and clusters, as the clients of one view have them. Used by `routes`, `layer4` and
//! `build`.

use std::net::SocketAddr;
use std::sync::Arc;

use super::delegate::Delegations;
use super::guard::Guards;
use super::policy::{self, Policies, PolicyId};
use super::registry::{Backend, Map, Registered, RegisteredPort, Registry};
use super::trace::Selection;
use super::visibility::{Client, expand};
use super::{CompileOptions, Findings};
use crate::crd::{Labels, RouteDestination, ServiceType, Subset, VirtualService};
use crate::finding::{Severity, code};
use crate::program::{
    Block, ClientTls, Cluster, ClusterId, ClusterPolicy, INVALID_BACKEND, Localities, Origin, Program, Protocol,
    WeightedCluster, Whereabouts,
};
use crate::source::ObjectRef;

/// What becomes of requests to a destination that there is not.
pub(super) const SHARE: &str = "its share of the traffic is refused";
/// And of copies for one.
pub(super) const COPIES: &str = "its copies are not sent, and the requests themselves go on";

/// Places among which the endpoints of a cluster whose weights differ are spread: what one gets is off by less than a
/// hundredth of all.
const MAX_PLACES: usize = 256;

/// Clusters, each made once: views that see the same share it.
#[derive(Default)]
pub(super) struct Clusters<'f> {
    pub(super) all: Vec<Arc<Cluster>>,
    /// Those in force, by name: what is as it was is kept as it is.
    former: Map<&'f str, &'f Arc<Cluster>>,
    /// How the endpoints of each were chosen.
    pub(super) selections: Vec<Selection>,
    ids: Map<(usize, u16, Arc<str>, Option<PolicyId>), ClusterId>,
    /// Effective policies, each made once; the port where its settings make a difference, else 0.
    settings: Map<(PolicyId, Arc<str>, u16), Arc<ClusterPolicy>>,
    /// Those that nobody is sent to, because a rule asks for encryption.
    pub(super) closed: Map<ClusterId, Closed>,
}

impl<'f> Clusters<'f> {
    pub(super) fn new(former: &'f Program) -> Self {
        let former = former.clusters.iter().map(|cluster| (&*cluster.name, cluster)).collect();
        Self { former, ..Self::default() }
    }
}

/// Why a cluster has no endpoints.
pub(super) struct Closed {
    /// The DestinationRule.
    pub(super) rule: ObjectRef,
    /// Its `tls.mode`.
    pub(super) mode: Arc<str>,
}

/// Makes the routes of one view.
pub(super) struct Router<'a, 's, 'f> {
    /// Whose.
    pub(super) client: &'a Client,
    pub(super) delegations: &'a Delegations<'s>,
    /// The gateway that the clients come through, as `namespace/name`; `None` = those in the mesh.
    pub(super) gateway: Option<&'a str>,
    pub(super) registry: &'a Registry<'s>,
    pub(super) policies: &'a Policies<'s>,
    /// The policy of each service in this view.
    pub(super) in_force: &'a [Option<PolicyId>],
    /// The policy that each service must refuse for.
    pub(super) guards: &'a Guards<'s>,
    pub(super) options: &'a CompileOptions,
    pub(super) clusters: &'a mut Clusters<'f>,
    pub(super) findings: &'a mut Findings,
}

impl<'s, 'f> Router<'_, 's, 'f> {
    /// The same for those who come through a gateway, `namespace/name`.
    pub(super) fn through<'r>(&'r mut self, gateway: &'r str) -> Router<'r, 's, 'f> {
        Router {
            client: self.client,
            delegations: self.delegations,
            gateway: Some(gateway),
            registry: self.registry,
            policies: self.policies,
            in_force: self.in_force,
            guards: self.guards,
            options: self.options,
            clusters: &mut *self.clusters,
            findings: &mut *self.findings,
        }
    }
}

impl Router<'_, '_, '_> {
    /// The plain service on one of its ports: every endpoint.
    pub(super) fn plain(&mut self, service: usize, position: usize) -> WeightedCluster {
        let id = self.cluster(service, position, None);
        WeightedCluster::new(Some(id), 1, Arc::clone(&self.clusters.all[id.index()].name))
    }

    fn cluster(&mut self, service: usize, position: usize, subset: Option<&Subset>) -> ClusterId {
        let registered = &self.registry.services[service];
        let port = &registered.ports[position];
        let number = port.port.number;
        let in_force = self.in_force[service];
        let subset_name = subset.map(|s| Arc::clone(&s.name)).unwrap_or_default();
        let key = (service, number, Arc::clone(&subset_name), in_force);
        if let Some(id) = self.clusters.ids.get(&key) {
            return *id;
        }
        let policy = in_force.map_or_else(ClusterPolicy::none, |id| self.settings(id, subset, number));
        let policy = registered.entry.and_then(|entry| named(&policy, &entry.subject_alt_names)).unwrap_or(policy);
        let closing = in_force.and_then(|id| self.policies.get(id).closing(&policy));
        // Whoever a guarded service is asked through, nobody gets to its endpoints.
        let open = self.guards[service][position].is_none() && closing.is_none();
        let members = if open { members(self.registry, port, subset.map(|s| &s.labels)) } else { Members::default() };
        let localities = localities(self.registry, registered, &policy, &members);
        let shares_ejections = shares_ejections(registered, &policy, &self.options.root_namespace);
        let (endpoints4, endpoints6) = members.addresses();
        let id = ClusterId(self.clusters.all.len() as u32);
        if let Some((rule, mode)) = closing {
            self.clusters.closed.insert(id, Closed { rule, mode });
        } else if let Some(tls) = policy.originates().filter(|_| port.protocol == Protocol::Tls) {
            self.twice(&tls.origin, &registered.fqdn, number);
        }
        let rule = subset.zip(in_force).and_then(|(subset, id)| self.policies.get(id).definition(subset));
        self.clusters.selections.push(Selection {
            service: service as u32,
            position: position as u32,
            rule: rule.map(|rule| (Arc::clone(rule.meta.namespace()), Arc::clone(rule.meta.name()))),
            closed: !open,
        });
        let cluster = Cluster {
            name: cluster_name(number, &subset_name, &registered.fqdn),
            host: Arc::clone(&registered.fqdn),
            subset: subset_name,
            port: number,
            policy,
            shares_ejections,
            endpoints4,
            endpoints6,
            localities,
        };
        let former = self.clusters.former.get(&*cluster.name).filter(|former| ****former == cluster);
        let cluster = former.map_or_else(|| Arc::new(cluster), |former| Arc::clone(former));
        self.clusters.all.push(cluster);
        self.clusters.ids.insert(key, id);
        id
    }

    /// Connections of clients that encrypt themselves are encrypted once more, as the rule says.
    fn twice(&mut self, origin: &Origin, host: &str, port: u16) {
        let message = format!(
            "port {port} of {host} carries TLS already: its clients' connections are encrypted twice, which hardly any \
             server expects; leave out `tls`, or let clients ask for a port of plain HTTP whose targetPort is this one"
        );
        self.findings.at_origin(Severity::Warning, code::TLS_TWICE, origin, message);
    }

    fn settings(&mut self, id: PolicyId, subset: Option<&Subset>, port: u16) -> Arc<ClusterPolicy> {
        let policy = self.policies.get(id);
        let own_port = if policy.has_port(subset, port) { port } else { 0 };
        let name = subset.map(|subset| Arc::clone(&subset.name)).unwrap_or_default();
        let settings = self.clusters.settings.entry((id, name, own_port)).or_insert_with(|| {
            let settings = policy.settings(subset, port);
            if settings == ClusterPolicy::default() { ClusterPolicy::none() } else { Arc::new(settings) }
        });
        Arc::clone(settings)
    }

    pub(super) fn destinations(
        &mut self,
        vs: &VirtualService,
        given: &[RouteDestination],
        port: u16,
    ) -> Box<[WeightedCluster]> {
        given
            .iter()
            .map(|destination| {
                let weight = match destination.weight {
                    // A single destination gets everything, whatever its weight says.
                    _ if given.len() == 1 => 1,
                    weight => weight.unwrap_or(0),
                };
                let headers = destination.headers.as_deref().cloned();
                WeightedCluster { weight, headers, ..self.destination(vs, destination, port, SHARE) }
            })
            .collect()
    }

    /// A destination by itself; `lost` is what is said to become of what cannot go there.
    pub(super) fn destination(
        &mut self,
        vs: &VirtualService,
        destination: &RouteDestination,
        dialled: u16,
        lost: &str,
    ) -> WeightedCluster {
        // Why was told already.
        if destination.host.is_empty() {
            return WeightedCluster::new(None, 1, INVALID_BACKEND.into());
        }
        let host = expand(&destination.host, vs.meta.namespace(), &self.options.cluster_domain);
        let nowhere = |port| WeightedCluster::new(None, 1, cluster_name(port, &destination.subset, &host));
        let registry = self.registry;
        let Some(service) = registry.find(&host) else {
            let help = host_help(registry, &destination.host, &self.options.cluster_domain);
            self.missing(vs, destination, "host", (&host, lost), help);
            return nowhere(destination.port.unwrap_or(dialled));
        };
        let registered = &registry.services[service];
        if !registered.is_seen_by(self.client.namespace.as_ref()) {
            self.unseen(vs, destination, registered, lost);
            return nowhere(destination.port.unwrap_or(dialled));
        }
        if registered.object.kind == ServiceType::ExternalName {
            self.missing(
                vs,
                destination,
                "host (a service of type ExternalName is not supported yet)",
                (&host, lost),
                None,
            );
            return nowhere(destination.port.unwrap_or(dialled));
        }
        let number = match (destination.port, &*registered.ports) {
            (Some(number), _) => number,
            (None, [only]) => only.port.number,
            (None, _) => {
                self.port_missing(vs, destination, registered);
                dialled
            }
        };
        let Some(position) = registered.position(number) else {
            if destination.port.is_some() {
                self.missing(vs, destination, "host:port", (&format!("{host}:{number}"), lost), None);
            }
            return nowhere(number);
        };
        let name = &destination.subset;
        let policy = self.in_force[service].map(|id| self.policies.get(id));
        let subset = policy.and_then(|policy| policy.subset(name));
        if !name.is_empty() && subset.is_none() {
            let help = subset_help(policy, registered);
            let value = format!("{}+{name}", destination.host);
            self.missing(vs, destination, "host+subset in destinationrule", (&value, lost), Some(help));
            return nowhere(number);
        }
        let id = self.cluster(service, position, subset);
        WeightedCluster::new(Some(id), 1, Arc::clone(&self.clusters.all[id.index()].name))
    }

    fn missing(
        &mut self,
        vs: &VirtualService,
        destination: &RouteDestination,
        what: &str,
        value: (&str, &str),
        help: Option<String>,
    ) {
        let (value, lost) = value;
        let message = format!("{what} not found: \"{value}\"; {lost}");
        self.findings.with_help(Severity::Error, code::REFERENCE, &vs.meta, destination.mark, message, help);
    }

    /// Of rules for the host itself nobody is told: who does not see it does not ask for it.
    fn unseen(&mut self, vs: &VirtualService, destination: &RouteDestination, service: &Registered<'_>, lost: &str) {
        let domain = &self.options.cluster_domain;
        let is_own = |host: &str| *expand(host, vs.meta.namespace(), domain) == *service.fqdn;
        if vs.hosts.iter().any(|(host, _)| is_own(host)) {
            return;
        }
        let (host, name) = (&destination.host, &service.object.meta.object);
        let lost = if lost == COPIES {
            "of those who do not see it no copy is sent"
        } else {
            "those who do not see it are refused its share"
        };
        let message = format!("{host} is not for all clients of this rule (exportTo of {name}): {lost}");
        self.findings.push(Severity::Warning, code::REFERENCE, &vs.meta, destination.mark, message);
    }

    fn port_missing(&mut self, vs: &VirtualService, destination: &RouteDestination, service: &Registered<'_>) {
        let numbers: Vec<String> = service.ports.iter().map(|p| p.port.number.to_string()).collect();
        let host = &destination.host;
        self.findings.with_help(
            Severity::Error,
            code::PORT_MISSING,
            &vs.meta,
            destination.mark,
            format!("{host} has several ports and none is named: the port that the client dialled is used, where {host} has it"),
            Some(format!("give `port.number`, one of {}", numbers.join(", "))),
        );
    }
}

/// Whether what a cluster ejects is ejected for everybody. Not by rules that clients give themselves, nor of hosts of a
/// ServiceEntry, which may name addresses that are somebody else's.
fn shares_ejections(service: &Registered<'_>, policy: &ClusterPolicy, root: &str) -> bool {
    let by = policy.outlier_detection.as_ref().map(|block| &block.origin.object.namespace);
    service.entry.is_none() && by.is_some_and(|by| by == service.namespace() || **by == *root)
}

/// The endpoints of a cluster: those with an IPv4 address, and the others. One of weight 3 is there three times.
#[derive(Default)]
pub(super) struct Members<'r>([Vec<&'r Backend>; 2]);

impl Members<'_> {
    /// Their addresses, by family.
    pub(super) fn addresses(&self) -> (Arc<[SocketAddr]>, Arc<[SocketAddr]>) {
        let [four, six] = self.0.each_ref().map(|family| family.iter().map(|backend| backend.address).collect());
        (four, six)
    }
}

/// Where the members of a cluster with this policy are, if that makes a difference.
pub(super) fn localities(
    registry: &Registry<'_>,
    service: &Registered<'_>,
    policy: &ClusterPolicy,
    members: &Members<'_>,
) -> Option<Arc<Localities>> {
    // Nobody chooses for the clients of a headless service.
    if service.is_headless() {
        return None;
    }
    let object = service.object;
    let (setting, because, field, fails_over) = policy.locality(&object.meta.object, object.distribution)?;
    let keys: Vec<Arc<str>> = setting.label_keys().map(Arc::from).collect();
    let mut known: Map<Whereabouts, u32> = Map::default();
    let mut found = Vec::new();
    let mut index = |backend: &&Backend| {
        let whereabouts = registry.whereabouts(backend, &keys);
        *known.entry(whereabouts).or_insert_with_key(|whereabouts| {
            found.push(whereabouts.clone());
            found.len() as u32 - 1
        })
    };
    let [of4, of6] = members.0.each_ref().map(|family| family.iter().map(&mut index).collect());
    // Shares leave out whoever they do not name.
    let differ = found.len() > 1 || (!found.is_empty() && !setting.distribute.is_empty());
    differ.then(|| Arc::new(Localities { setting, fails_over, because, field, found: found.into(), of4, of6 }))
}

/// The endpoints of a service port whose pods carry these labels, if any are asked for.
pub(super) fn members<'r>(
    registry: &Registry<'_>,
    port: &'r RegisteredPort<'_>,
    labels: Option<&Labels>,
) -> Members<'r> {
    let chosen = port.endpoints.iter().filter(|backend| {
        let wanted = labels.filter(|labels| !labels.is_empty());
        backend.ready && wanted.is_none_or(|labels| backend.carries(labels, &registry.pods))
    });
    let (four, six): (Vec<_>, Vec<_>) = chosen.partition(|backend| backend.address.is_ipv4());
    Members([by_weight(&four), by_weight(&six)])
}

/// The policy with the names that a ServiceEntry gives, where its rule gives none. `None` = as it is.
fn named(policy: &ClusterPolicy, names: &[Arc<str>]) -> Option<Arc<ClusterPolicy>> {
    let tls = policy.originates().filter(|tls| !names.is_empty() && tls.value.takes_names())?;
    let mut value = ClientTls::clone(&tls.value);
    value.more.get_or_insert_default().subject_alt_names = names.iter().map(|name| (**name).into()).collect();
    let tls = Block { value: Arc::new(value), origin: Arc::clone(&tls.origin) };
    Some(Arc::new(ClusterPolicy { tls: Some(tls), ..policy.clone() }))
}

/// Each endpoint as often as its weight says, by turns, so that going round serves them by weight.
fn by_weight<'r>(endpoints: &[&'r Backend]) -> Vec<&'r Backend> {
    let common = endpoints.iter().fold(0, |common, backend| greatest_common_divisor(common, backend.weight));
    let total: u64 = endpoints.iter().map(|backend| u64::from(backend.weight / common.max(1))).sum();
    let most = MAX_PLACES.max(endpoints.len()) as u64;
    let places = |weight: u32| {
        let weight = u64::from(weight / common.max(1));
        if total <= most { weight } else { (weight * most / total).max(1) }
    };
    let turns = endpoints.iter().map(|backend| places(backend.weight)).max().unwrap_or(0);
    let turn = |turn| endpoints.iter().copied().filter(move |backend| places(backend.weight) > turn);
    (0..turns).flat_map(turn).collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Envoy's name of a cluster.
fn cluster_name(port: u16, subset: &str, host: &str) -> Arc<str> {
    format!("outbound|{port}|{subset}|{host}").into()
}

/// The subset of an Envoy name of a cluster.
pub(super) fn subset_of(name: &str) -> &str {
    name.split('|').nth(2).unwrap_or_default()
}

/// A name such as `reviews.prod` is not completed, though people expect it.
pub(super) fn host_help(registry: &Registry<'_>, host: &str, cluster_domain: &str) -> Option<String> {
    [format!("{host}.svc.{cluster_domain}"), format!("{host}.{cluster_domain}")]
        .into_iter()
        .find(|full| host.contains('.') && registry.find(full).is_some())
        .map(|full| format!("a host with a dot is taken as it is: write {full}"))
}

fn subset_help(policy: Option<&policy::Policy<'_>>, service: &Registered<'_>) -> String {
    let Some(policy) = policy.filter(|policy| !policy.rules.is_empty()) else {
        return format!("a DestinationRule for {} must define it under `subsets`", service.fqdn);
    };
    let rules: Vec<String> = policy.rules.iter().map(|rule| rule.meta.object.to_string()).collect();
    if policy.subsets.is_empty() {
        // Of another namespace one may define it, and is not asked.
        return format!("{} holds for these clients, and must define it under `subsets`", rules.join(" and "));
    }
    let names: Vec<&str> = policy.subsets.iter().map(|(subset, _)| &*subset.name).collect();
    format!("{} defines {}", rules.join(" and "), names.join(", "))
}
