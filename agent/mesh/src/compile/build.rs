//! Drives the compilation: view 0 whole, then of every other view what differs from it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::hosts::Hosts;
use super::policy::{Policies, PolicyId};
use super::registry::{Map, Registered, Registry};
use super::routes::{self, Clusters, HttpRules, Router, TcpRules};
use super::trace::Trace;
use super::verdict::{self, Facts};
use super::visibility::{Views, expand};
use super::{CompileOptions, Findings, guard, http2, lint};
use crate::crd::{Protection, ServiceType, VirtualService};
use crate::plan::{KernelPlan, PlanKey, PlannedService, Verdict};
use crate::program::{HostTableId, PortId, Program, Protocol, Route, ServicePort, WeightedCluster};
use crate::route::{HostTable, Rule, VirtualHost};
use crate::snapshot::Snapshot;

/// The table of ports that carry no HTTP.
const NO_HOSTS: HostTableId = HostTableId(0);
/// Where Istio answers for hosts that no service has.
const PORT_OF_OTHER_HOSTS: u16 = 80;
/// Label of a namespace: `http` asks for telemetry of requests.
const TELEMETRY: &str = "weir.mesh/telemetry";

/// Everything but the pods.
pub(super) fn build(
    snapshot: &Snapshot,
    options: &CompileOptions,
    former: &Former<'_>,
    findings: &mut Findings,
) -> (Program, KernelPlan, Views, Trace) {
    let registry = Registry::new(snapshot, options);
    let hosts = Hosts::new(snapshot, options);
    let mut policies = Policies::new(snapshot, options);
    let views = Views::new(snapshot, &registry, options);
    let guards = guard::guards(snapshot, &registry, options, findings);
    let telemetry = snapshot
        .namespaces
        .values()
        .filter(|namespace| namespace.meta.label(TELEMETRY) == Some("http"))
        .map(|namespace| Arc::clone(namespace.meta.name()))
        .collect();

    let mut resolved: Vec<ViewRules<'_>> = Vec::new();
    for (view, client) in views.iter() {
        let mut rules = ViewRules {
            view,
            client: client.cloned(),
            policies: registry.services.iter().map(|service| policies.resolve(client, service, findings)).collect(),
            rules: routes::rules_of(&hosts, &registry, client, findings),
            changed: BTreeSet::new(),
        };
        if let Some(everybody) = resolved.first() {
            rules.changed = rules.differences(everybody, &registry, options);
            // A pod's address has one entry for all its headless services, so they differ together.
            if registry.entangled.iter().any(|service| rules.changed.contains(service)) {
                rules.changed.extend(&registry.entangled);
            }
        }
        resolved.push(rules);
    }
    lint::lint(snapshot, &registry, options, findings);

    let mut build = Build {
        registry: &registry,
        hosts: &hosts,
        policies: &policies,
        guards: &guards,
        options,
        telemetry,
        former: former.plan,
        clusters: Clusters::new(former.program),
        ports: Vec::new(),
        tables: vec![Table::default()],
        destinations: Map::default(),
        dialled: Map::default(),
        plan: KernelPlan::default(),
        trace: Trace::default(),
        findings,
    };
    for view in &resolved {
        build.view(view);
    }
    build.unused(snapshot, &views, &resolved);
    let program = Program {
        generation: options.generation,
        destinations: Arc::new(build.destinations),
        ports: build.ports.into(),
        host_tables: build.tables.into_iter().map(Table::finish).collect(),
        clusters: build.clusters.all.into(),
    };
    let mut trace = build.trace;
    trace.clusters = build.clusters.selections;
    trace.clusters.shrink_to_fit();
    trace.services = registry.services.iter().map(Registered::key).collect();
    (program, build.plan, views, trace)
}

/// What is in force, so that what is as it was need not be there twice.
pub(super) struct Former<'f> {
    pub(super) program: &'f Program,
    pub(super) plan: &'f KernelPlan,
}

/// An entry of the plan; the one in force where it is the same.
fn shared(former: &KernelPlan, key: &PlanKey, entry: PlannedService) -> Arc<PlannedService> {
    let same = former.services.get(key).filter(|held| ***held == entry);
    same.map_or_else(|| Arc::new(entry), Arc::clone)
}

/// What is in force in one view, by service.
struct ViewRules<'s> {
    view: u32,
    client: Option<Arc<str>>,
    policies: Vec<Option<PolicyId>>,
    rules: Vec<Vec<&'s VirtualService>>,
    /// Services that are not as in view 0.
    changed: BTreeSet<usize>,
}

impl ViewRules<'_> {
    fn differences(&self, everybody: &Self, registry: &Registry<'_>, options: &CompileOptions) -> BTreeSet<usize> {
        let policy_differs = |service: usize| self.policies[service] != everybody.policies[service];
        (0..registry.services.len())
            .filter(|&service| {
                let (own, common) = (&self.rules[service], &everybody.rules[service]);
                policy_differs(service)
                    || own.len() != common.len()
                    || own.iter().zip(common).any(|(a, b)| !std::ptr::eq(*a, *b))
                    || routes::targets(own, registry, &options.cluster_domain).any(policy_differs)
            })
            .collect()
    }
}

struct Build<'a, 's, 'f> {
    registry: &'a Registry<'s>,
    hosts: &'a Hosts<'s>,
    policies: &'a Policies<'s>,
    guards: &'a [Option<&'s Protection>],
    options: &'a CompileOptions,
    telemetry: BTreeSet<Arc<str>>,
    /// The plan in force.
    former: &'f KernelPlan,
    clusters: Clusters<'f>,
    ports: Vec<ServicePort>,
    tables: Vec<Table>,
    destinations: Map<(u32, IpAddr, u16), PortId>,
    /// The verdict for each pod of a headless service that has one: of several, the strictest holds.
    dialled: Map<(u32, IpAddr, u16), Verdict>,
    plan: KernelPlan,
    trace: Trace,
    findings: &'a mut Findings,
}

/// The rules of one service port.
struct PortRules<'s> {
    plain: WeightedCluster,
    http: Option<HttpRules<'s>>,
    tcp: Option<TcpRules<'s>>,
}

impl<'s, 'f> Build<'_, 's, 'f> {
    fn view(&mut self, view: &ViewRules<'s>) {
        // A host table is whole, so every service of a port number that differs anywhere needs one of this view.
        let numbers: Option<BTreeSet<u16>> = (view.view > 0).then(|| {
            let changed = view.changed.iter().flat_map(|service| &self.registry.services[*service].ports);
            changed.filter(|port| carries_http(port.protocol)).map(|port| port.port.number).collect()
        });
        let mut tables: BTreeMap<u16, HostTableId> = BTreeMap::new();
        for service in 0..self.registry.services.len() {
            let changed = view.view == 0 || view.changed.contains(&service);
            if changed && view.view == 0 {
                self.udp(service);
            }
            for position in 0..self.registry.services[service].ports.len() {
                let port = &self.registry.services[service].ports[position];
                let http = carries_http(port.protocol);
                let in_table = http && numbers.as_ref().is_none_or(|numbers| numbers.contains(&port.port.number));
                if changed || in_table {
                    let table = if in_table {
                        *tables.entry(port.port.number).or_insert_with(|| {
                            self.tables.push(Table::default());
                            HostTableId(self.tables.len() as u32 - 1)
                        })
                    } else {
                        NO_HOSTS
                    };
                    self.port(view, service, position, table, changed);
                }
            }
        }
        if let Some(table) = tables.get(&PORT_OF_OTHER_HOSTS) {
            self.other_hosts(view, *table);
        }
    }

    fn udp(&mut self, service: usize) {
        let registered = &self.registry.services[service];
        if registered.object.kind != ServiceType::ClusterIp {
            return;
        }
        for port in registered.object.ports.iter().filter(|port| port.udp) {
            for address in &registered.object.addresses {
                let key = PlanKey { view: 0, address: Some(*address), port: port.number, udp: true };
                self.plan.services.entry(key).or_insert_with(|| {
                    let entry = verdict::udp(registered, port.number);
                    shared(self.former, &key, entry)
                });
            }
        }
    }

    fn rules(&mut self, view: &ViewRules<'s>, service: usize, position: usize) -> PortRules<'s> {
        let port = &self.registry.services[service].ports[position];
        let (number, protocol) = (port.port.number, port.protocol);
        let mut router = self.router(view);
        let rules = &view.rules[service];
        PortRules {
            plain: router.plain(service, position),
            http: if carries_http(protocol) { router.http(rules, number) } else { None },
            tcp: if matches!(protocol, Protocol::Tcp | Protocol::Tls | Protocol::Detect) {
                router.tcp(rules, number)
            } else {
                None
            },
        }
    }

    /// Remembers to which services the rules of this one send.
    fn depend(&mut self, service: usize, rules: &PortRules<'_>) {
        let http = rules.http.iter().flat_map(|http| &http.rules).flat_map(|rule| &*rule.route.destinations);
        let tcp = rules.tcp.iter().flat_map(|tcp| &*tcp.destinations);
        for id in http.chain(tcp).filter_map(|destination| destination.cluster) {
            let target = self.clusters.selections[id.index()].service;
            if target as usize != service {
                self.trace.dependents.entry(target).or_default().insert(service as u32);
            }
        }
    }

    /// VirtualServices that no port has asked for: what they refer to is looked up all the same, so that their faults
    /// show before they are needed.
    fn unused(&mut self, snapshot: &'s Snapshot, views: &Views, resolved: &[ViewRules<'s>]) {
        let domain = &self.options.cluster_domain;
        let is_service = |vs: &VirtualService| {
            let mut hosts = vs.hosts.iter();
            hosts.any(|(host, _)| self.registry.find(&expand(host, vs.meta.namespace(), domain)).is_some())
        };
        let unused: Vec<&VirtualService> =
            snapshot.virtual_services.values().map(|vs| &**vs).filter(|vs| !vs.in_mesh() || !is_service(vs)).collect();
        let kept = std::mem::take(&mut self.clusters);
        for vs in unused {
            let mut router = self.router(&resolved[views.position(vs.meta.namespace())]);
            router.http(&[vs], PORT_OF_OTHER_HOSTS);
            router.tcp(&[vs], PORT_OF_OTHER_HOSTS);
        }
        self.clusters = kept;
    }

    fn router<'r>(&'r mut self, view: &'r ViewRules<'s>) -> Router<'r, 's, 'f> {
        Router {
            registry: self.registry,
            policies: self.policies,
            in_force: &view.policies,
            guards: self.guards,
            options: self.options,
            clusters: &mut self.clusters,
            findings: self.findings,
        }
    }

    fn port(&mut self, view: &ViewRules<'s>, service: usize, position: usize, table: HostTableId, changed: bool) {
        let rules = self.rules(view, service, position);
        self.depend(service, &rules);
        let registered = &self.registry.services[service];
        let port = &registered.ports[position];
        let number = port.port.number;
        if let Some(http) = rules.http.as_ref().filter(|_| changed) {
            http2::note(http, registered, port, self.findings);
        }
        if registered.object.kind != ServiceType::ExternalName {
            let facts = Facts {
                service: registered,
                port,
                http: rules.http.as_ref(),
                tcp: rules.tcp.as_ref(),
                policy: view.policies[service].map(|id| self.policies.get(id)),
                guard: self.guards[service],
                telemetry: self.telemetry.contains(registered.namespace()),
                knows_node: self.options.node.is_some(),
                plain: &rules.plain,
                clusters: &self.clusters,
            };
            let id = PortId(self.ports.len() as u32);
            let headless = registered.is_headless();
            if headless {
                let decision = facts.decide(self.findings);
                for backend in &port.endpoints {
                    let dialled = backend.address;
                    let key = (view.view, dialled.ip(), dialled.port());
                    if !self.registry.is_dialled(registered, dialled.ip())
                        || self.dialled.get(&key).is_some_and(|stricter| *stricter >= decision.verdict)
                    {
                        continue;
                    }
                    self.dialled.insert(key, decision.verdict);
                    self.destinations.insert(key, id);
                    if changed {
                        let key = PlanKey { view: key.0, address: Some(key.1), port: key.2, udp: false };
                        let entry = shared(self.former, &key, facts.dialled(&decision, dialled));
                        self.plan.services.insert(key, entry);
                    }
                }
            } else if changed {
                let decision = facts.decide(self.findings);
                for address in &registered.object.addresses {
                    let key = PlanKey { view: view.view, address: Some(*address), port: number, udp: false };
                    match self.plan.services.entry(key) {
                        Entry::Vacant(free) => {
                            let entry = facts.planned(&decision, address.is_ipv6());
                            free.insert(shared(self.former, &key, entry));
                        }
                        Entry::Occupied(_) => self.trace.contended = true,
                    }
                }
            }
            for address in &registered.object.addresses {
                self.destinations.entry((view.view, *address, number)).or_insert(id);
            }
            let http2 = match &rules.http {
                Some(http) => http.catch_all().unwrap_or_default().into(),
                None => [rules.plain.clone()].into(),
            };
            let tcp = rules.tcp.map_or_else(|| [rules.plain.clone()].into(), |tcp| tcp.destinations);
            self.ports.push(ServicePort {
                host: Arc::clone(&registered.fqdn),
                number,
                protocol: port.protocol,
                headless,
                plain: rules.plain.cluster.expect("the plain service always has a cluster"),
                hosts: table,
                tcp,
                http2,
            });
        }
        if table != NO_HOSTS {
            let rules = rules.http.map_or_else(|| vec![plain_rule(rules.plain)], |http| http.rules);
            self.host(service, table, rules);
        }
    }

    /// Adds a service's names to a table.
    fn host(&mut self, service: usize, table: HostTableId, rules: Vec<Rule>) {
        let registered = &self.registry.services[service];
        let (namespace, name) = (&**registered.namespace(), &**registered.name());
        let names = [
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
            registered.fqdn.to_string(),
            format!("{}.", registered.fqdn),
        ];
        let addresses = registered.object.addresses.iter().map(IpAddr::to_string);
        let table = &mut self.tables[table.index()];
        let index = table.add(&registered.fqdn, names.into_iter().chain(addresses), rules);
        table.hosts[index as usize].headless = registered.is_headless();
        table.short_names.entry(namespace.into()).or_default().entry(name.into()).or_insert(index);
    }

    /// Hosts of VirtualServices that no service has: they can be asked for by name alone.
    fn other_hosts(&mut self, view: &ViewRules<'s>, table: HostTableId) {
        let registry = self.registry;
        let (exact, suffixes) = self.hosts.others(|host| registry.find(host).is_some());
        for host in exact {
            let rules = self.hosts.resolve(view.client.as_ref(), host, self.findings);
            if let Some(http) = self.router(view).http(&rules, PORT_OF_OTHER_HOSTS) {
                let names = [host.to_string(), format!("{host}.")].into_iter();
                self.tables[table.index()].add(host, names, http.rules);
            }
        }
        for suffix in suffixes {
            let rules = self.hosts.resolve_suffix(view.client.as_ref(), suffix, self.findings);
            if let Some(http) = self.router(view).http(&rules, PORT_OF_OTHER_HOSTS) {
                let host = format!("*{suffix}");
                let table = &mut self.tables[table.index()];
                let index = table.add(&host, std::iter::empty(), http.rules);
                table.suffixes.push((suffix.into(), index));
            }
        }
    }
}

fn carries_http(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http | Protocol::Http2 | Protocol::Detect)
}

/// What a host without rules does.
fn plain_rule(plain: WeightedCluster) -> Rule {
    let route = Route { name: "default".into(), object: None, at: None, destinations: [plain].into() };
    Rule { matches: [].into(), route }
}

/// A [`HostTable`] that is being filled.
#[derive(Default)]
struct Table {
    hosts: Vec<VirtualHost>,
    names: Map<Box<str>, u32>,
    short_names: Map<Box<str>, Map<Box<str>, u32>>,
    suffixes: Vec<(Box<str>, u32)>,
}

impl Table {
    /// The first that claims a name has it: services come in the order of their names.
    fn add(&mut self, host: &str, names: impl Iterator<Item = String>, rules: Vec<Rule>) -> u32 {
        let index = self.hosts.len() as u32;
        self.hosts.push(VirtualHost { host: host.into(), headless: false, rules: rules.into() });
        for name in names {
            self.names.entry(name.into()).or_insert(index);
        }
        index
    }

    fn finish(self) -> HostTable {
        HostTable {
            hosts: self.hosts.into(),
            names: self.names,
            short_names: self.short_names,
            suffixes: self.suffixes.into(),
        }
    }
}
