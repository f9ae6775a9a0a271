//! From rules to [`Rule`]s, weights and clusters, as the clients of one view have them.

use std::net::SocketAddr;
use std::sync::Arc;

use super::hosts::Hosts;
use super::policy::{self, Policies, PolicyId};
use super::registry::{Map, Registered, RegisteredPort, Registry, has_labels};
use super::trace::Selection;
use super::visibility::expand;
use super::{CompileOptions, Findings};
use crate::crd::{
    Action, HttpMatchItem, HttpRoute, Labels, Protection, RouteDestination, ServiceType, Subset, VirtualService,
};
use crate::finding::{Severity, code};
use crate::program::{Cluster, ClusterId, Program, Route, WeightedCluster};
use crate::route::Rule;
use crate::source::ObjectRef;

/// Clusters, each made once: views that see the same share it.
#[derive(Default)]
pub(super) struct Clusters<'f> {
    pub(super) all: Vec<Arc<Cluster>>,
    /// Those in force, by name: what is as it was is kept as it is.
    former: Map<&'f str, &'f Arc<Cluster>>,
    /// How the endpoints of each were chosen.
    pub(super) selections: Vec<Selection>,
    ids: Map<(usize, u16, Arc<str>, Option<PolicyId>), ClusterId>,
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
    pub(super) registry: &'a Registry<'s>,
    pub(super) policies: &'a Policies<'s>,
    /// The policy of each service in this view.
    pub(super) in_force: &'a [Option<PolicyId>],
    /// The policy that each service must refuse for.
    pub(super) guards: &'a [Option<&'s Protection>],
    pub(super) options: &'a CompileOptions,
    pub(super) clusters: &'a mut Clusters<'f>,
    pub(super) findings: &'a mut Findings,
}

/// The HTTP rules of a host on one port.
pub(super) struct HttpRules<'s> {
    /// The one that takes everything, if any, is the last.
    pub(super) rules: Vec<Rule>,
    /// The oldest VirtualService that they are from.
    pub(super) because: &'s VirtualService,
    /// Where each rule is from, by its position in `rules`: the VirtualService and the position in its `http`.
    pub(super) origins: Vec<(&'s VirtualService, usize)>,
}

impl HttpRules<'_> {
    /// Where connections go when nobody looks at their requests.
    pub(super) fn catch_all(&self) -> Option<&[WeightedCluster]> {
        self.rules.last().filter(|rule| rule.is_catch_all()).map(|rule| &*rule.route.destinations)
    }
}

/// The TCP route of a host on one port.
pub(super) struct TcpRules<'s> {
    pub(super) destinations: Box<[WeightedCluster]>,
    pub(super) because: &'s VirtualService,
}

impl<'s> Router<'_, 's, '_> {
    /// The plain service on one of its ports: every endpoint.
    pub(super) fn plain(&mut self, service: usize, position: usize) -> WeightedCluster {
        let id = self.cluster(service, position, None);
        WeightedCluster { cluster: Some(id), weight: 1, name: Arc::clone(&self.clusters.all[id.index()].name) }
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
        let (load_balancer, connect_timeout) =
            in_force.map_or_else(policy::defaults, |id| self.policies.get(id).settings(subset));
        let encryption = in_force.and_then(|id| self.policies.get(id).encryption(&subset_name, number));
        // Whoever a guarded service is asked through, nobody gets to its endpoints.
        let open = self.guards[service].is_none() && encryption.is_none();
        let (endpoints4, endpoints6) = if open {
            members(self.registry, port, subset.map(|s| &s.labels))
        } else {
            (Arc::default(), Arc::default())
        };
        let id = ClusterId(self.clusters.all.len() as u32);
        if let Some((rule, tls)) = encryption {
            let closed = Closed { rule: rule.meta.object.clone(), mode: Arc::clone(&tls.mode) };
            self.clusters.closed.insert(id, closed);
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
            load_balancer,
            connect_timeout,
            endpoints4,
            endpoints6,
        };
        let former = self.clusters.former.get(&*cluster.name).filter(|former| ****former == cluster);
        let cluster = former.map_or_else(|| Arc::new(cluster), |former| Arc::clone(former));
        self.clusters.all.push(cluster);
        self.clusters.ids.insert(key, id);
        id
    }

    /// The HTTP rules of `rules` on the dialled port. `None`: none of them is for this port, so the plain service is.
    pub(super) fn http(&mut self, rules: &[&'s VirtualService], port: u16) -> Option<HttpRules<'s>> {
        let mut because = None;
        let mut compiled = Vec::new();
        for vs in rules {
            for (position, route) in vs.http.iter().enumerate() {
                let Some(items) = surviving(route, port) else {
                    continue;
                };
                because.get_or_insert(*vs);
                let mut of_route = Vec::new();
                self.rule(vs, route, &items, port, &mut of_route);
                compiled.extend(of_route.into_iter().map(|rule| (rule, (*vs, position))));
            }
        }
        let because = because?;
        if rules.len() > 1 {
            // One object's "everything else" must not hide the rules of the next.
            compiled.sort_by_key(|(rule, _)| rule.is_catch_all());
        }
        if let Some(last) = compiled.iter().position(|(rule, _)| rule.is_catch_all()) {
            compiled.truncate(last + 1);
        }
        let (rules, origins) = compiled.into_iter().unzip();
        Some(HttpRules { rules, because, origins })
    }

    fn rule(
        &mut self,
        vs: &VirtualService,
        route: &HttpRoute,
        items: &[&HttpMatchItem],
        port: u16,
        compiled: &mut Vec<Rule>,
    ) {
        let destinations: Box<[WeightedCluster]> = match &route.action {
            Action::Forward(destinations) => self.destinations(vs, destinations, port),
            Action::Unsupported(field) => {
                [WeightedCluster { cluster: None, weight: 1, name: format!("{field} is not supported").into() }].into()
            }
        };
        let make = |name: Arc<str>| Route {
            name,
            object: Some(vs.meta.object.clone()),
            at: vs.meta.place(route.mark),
            destinations: destinations.clone(),
        };
        if route.items.is_empty() {
            compiled.push(Rule { matches: [].into(), route: make(route_name(&route.name, "")) });
            return;
        }
        let usable = items.iter().filter(|item| !item.never);
        if items.iter().any(|item| !item.name.is_empty()) {
            // The name of the item that matched is part of the route's.
            compiled.extend(usable.map(|item| Rule {
                matches: [item.conditions.clone()].into(),
                route: make(route_name(&route.name, &item.name)),
            }));
            return;
        }
        let matches: Box<[_]> = usable.map(|item| item.conditions.clone()).collect();
        // Without any alternative left a rule takes nothing, and not everything.
        if !matches.is_empty() {
            compiled.push(Rule { matches, route: make(route_name(&route.name, "")) });
        }
    }

    /// The TCP route of `rules` on the dialled port: the first that is for it.
    pub(super) fn tcp(&mut self, rules: &[&'s VirtualService], port: u16) -> Option<TcpRules<'s>> {
        for vs in rules {
            let route = vs.tcp.iter().find(|route| {
                route.items.is_empty()
                    || route.items.iter().any(|item| {
                        !item.never && is_for_mesh(&item.gateways) && item.port.is_none_or(|wanted| wanted == port)
                    })
            });
            if let Some(route) = route {
                let destinations = self.destinations(vs, &route.destinations, port);
                return Some(TcpRules { destinations, because: vs });
            }
        }
        None
    }

    fn destinations(&mut self, vs: &VirtualService, given: &[RouteDestination], port: u16) -> Box<[WeightedCluster]> {
        given
            .iter()
            .map(|destination| {
                let weight = match destination.weight {
                    // A single destination gets everything, whatever its weight says.
                    _ if given.len() == 1 => 1,
                    weight => weight.unwrap_or(0),
                };
                let (cluster, name) = self.destination(vs, destination, port);
                WeightedCluster { cluster, weight, name }
            })
            .collect()
    }

    fn destination(
        &mut self,
        vs: &VirtualService,
        destination: &RouteDestination,
        dialled: u16,
    ) -> (Option<ClusterId>, Arc<str>) {
        let host = expand(&destination.host, vs.meta.namespace(), &self.options.cluster_domain);
        let nowhere = |port| (None, cluster_name(port, &destination.subset, &host));
        let registry = self.registry;
        let Some(service) = registry.find(&host) else {
            let help = host_help(registry, &destination.host, &self.options.cluster_domain);
            self.missing(vs, destination, "host", &host, help);
            return nowhere(destination.port.unwrap_or(dialled));
        };
        let registered = &registry.services[service];
        if registered.object.kind == ServiceType::ExternalName {
            self.missing(vs, destination, "host (a service of type ExternalName is not supported yet)", &host, None);
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
                self.missing(vs, destination, "host:port", &format!("{host}:{number}"), None);
            }
            return nowhere(number);
        };
        let name = &destination.subset;
        let policy = self.in_force[service].map(|id| self.policies.get(id));
        let subset = policy.and_then(|policy| policy.subset(name));
        if !name.is_empty() && subset.is_none() {
            let help = subset_help(policy, registered);
            let value = format!("{}+{name}", destination.host);
            self.missing(vs, destination, "host+subset in destinationrule", &value, Some(help));
            return nowhere(number);
        }
        let id = self.cluster(service, position, subset);
        (Some(id), Arc::clone(&self.clusters.all[id.index()].name))
    }

    fn missing(
        &mut self,
        vs: &VirtualService,
        destination: &RouteDestination,
        what: &str,
        value: &str,
        help: Option<String>,
    ) {
        let message = format!("{what} not found: \"{value}\"; its share of the traffic is refused");
        self.findings.with_help(Severity::Error, code::REFERENCE, &vs.meta, destination.mark, message, help);
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

/// The endpoints of a service port whose pods carry these labels, if any are asked for; those with an IPv4 address, and
/// the others.
pub(super) fn members(
    registry: &Registry<'_>,
    port: &RegisteredPort<'_>,
    labels: Option<&Labels>,
) -> (Arc<[SocketAddr]>, Arc<[SocketAddr]>) {
    let carries = |pod: u32, labels: &Labels| has_labels(&registry.pods.get(pod).meta.labels, labels);
    let chosen = port.endpoints.iter().filter(|backend| {
        let wanted = labels.filter(|labels| !labels.is_empty());
        backend.ready && wanted.is_none_or(|labels| backend.pod.is_some_and(|pod| carries(pod, labels)))
    });
    let (endpoints4, endpoints6): (Vec<_>, Vec<_>) = chosen.map(|b| b.address).partition(SocketAddr::is_ipv4);
    (endpoints4.into(), endpoints6.into())
}

/// Envoy's name of a cluster.
fn cluster_name(port: u16, subset: &str, host: &str) -> Arc<str> {
    format!("outbound|{port}|{subset}|{host}").into()
}

/// The subset of an Envoy name of a cluster.
pub(super) fn subset_of(name: &str) -> &str {
    name.split('|').nth(2).unwrap_or_default()
}

fn route_name(route: &str, item: &str) -> Arc<str> {
    match (route, item) {
        ("", "") => "default".into(),
        (name, "") | ("", name) => name.into(),
        (route, item) => format!("{route}.{item}").into(),
    }
}

/// The items of a route that are for this port and for the mesh; `None` when it has items and none is.
fn surviving(route: &HttpRoute, port: u16) -> Option<Vec<&HttpMatchItem>> {
    let items: Vec<&HttpMatchItem> = route
        .items
        .iter()
        .filter(|item| is_for_mesh(&item.gateways) && item.port.is_none_or(|wanted| wanted == port))
        .collect();
    (route.items.is_empty() || !items.is_empty()).then_some(items)
}

fn is_for_mesh(gateways: &[Arc<str>]) -> bool {
    gateways.is_empty() || gateways.iter().any(|gateway| &**gateway == "mesh")
}

/// A name such as `reviews.prod` is not completed, though people expect it.
pub(super) fn host_help(registry: &Registry<'_>, host: &str, cluster_domain: &str) -> Option<String> {
    [format!("{host}.svc.{cluster_domain}"), format!("{host}.{cluster_domain}")]
        .into_iter()
        .find(|full| host.contains('.') && registry.find(full).is_some())
        .map(|full| format!("a host with a dot is taken as it is: write {full}"))
}

fn subset_help(policy: Option<&policy::Policy<'_>>, service: &Registered<'_>) -> String {
    let Some(policy) = policy.filter(|policy| !policy.subsets.is_empty()) else {
        return format!("a DestinationRule for {} must define it under `subsets`", service.fqdn);
    };
    let rules: Vec<String> = policy.rules.iter().map(|rule| rule.meta.object.to_string()).collect();
    let names: Vec<&str> = policy.subsets.iter().map(|(subset, _)| &*subset.name).collect();
    format!("{} defines {}", rules.join(" and "), names.join(", "))
}

/// The services that the rules of a list may send to.
pub(super) fn targets<'r>(
    rules: &'r [&VirtualService],
    registry: &'r Registry<'_>,
    cluster_domain: &'r str,
) -> impl Iterator<Item = usize> + 'r {
    rules.iter().flat_map(move |vs| {
        let http = vs.http.iter().flat_map(|route| match &route.action {
            Action::Forward(destinations) => &destinations[..],
            Action::Unsupported(_) => &[],
        });
        let tcp = vs.tcp.iter().flat_map(|route| &route.destinations);
        http.chain(tcp).filter_map(move |d| registry.find(&expand(&d.host, vs.meta.namespace(), cluster_domain)))
    })
}

/// The rules of every service in one view.
pub(super) fn rules_of<'s>(
    hosts: &Hosts<'s>,
    registry: &Registry<'s>,
    client: Option<&Arc<str>>,
    findings: &mut Findings,
) -> Vec<Vec<&'s VirtualService>> {
    registry.services.iter().map(|service| hosts.resolve(client, &service.fqdn, findings)).collect()
}
