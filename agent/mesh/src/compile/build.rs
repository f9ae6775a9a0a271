//! Drives the compilation: view 0 whole, then of every other view what differs from it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::delegate::Delegations;
use super::destinations::{Clusters, Router};
use super::guard::{self, Guards};
use super::hosts::{Hosts, Layers};
use super::layer4::{TcpRules, TlsRules};
use super::policy::{Policies, PolicyId};
use super::registry::{Map, Registered, Registry};
use super::routes::{self, HttpRules};
use super::table::Table;
use super::trace::Trace;
use super::verdict::{self, Facts};
use super::visibility::{Client, ViewTable, expand};
use super::{CompileOptions, Findings, http2, lint};
use crate::crd::{HttpMatchItem, Layer4Match, ServiceType, VirtualService};
use crate::plan::{KernelPlan, PlanKey, PlannedService, Verdict};
use crate::program::{HostTableId, PodTable, PortId, Program, Protocol, Route, ServicePort, TcpRule, WeightedCluster};
use crate::route::Rule;
use crate::snapshot::Snapshot;

mod beyond;

/// The table of ports that carry no HTTP.
pub(super) const NO_HOSTS: HostTableId = HostTableId(0);
/// Where Istio answers for hosts that no service has.
pub(super) const PORT_OF_OTHER_HOSTS: u16 = 80;
/// Label of a namespace: `http` asks for telemetry of requests.
const TELEMETRY: &str = "weir.mesh/telemetry";

/// Which views there are.
#[derive(Clone, Copy)]
pub(super) enum Seen<'a> {
    /// Those that the snapshot makes.
    Own,
    /// These, as for the whole that the snapshot is a part of.
    As(&'a ViewTable),
}

/// Everything but the pods.
pub(super) fn build(
    snapshot: &Snapshot,
    options: &CompileOptions,
    former: &Former<'_>,
    seen: Seen<'_>,
    findings: &mut Findings,
) -> (Program, KernelPlan, ViewTable, Trace) {
    let registry = Registry::new(snapshot, options);
    let views = match seen {
        Seen::Own => ViewTable::of_snapshot(snapshot, &registry, options, findings),
        Seen::As(views) => views.clone(),
    };
    let hosts = Hosts::new(snapshot, options);
    let delegations = Delegations::new(snapshot, &options.cluster_domain, findings);
    let mut policies = Policies::new(snapshot, options, views.overflowed());
    let guards = guard::guards(snapshot, &registry, options, findings);
    let namespaces = snapshot.namespaces.values().map(|namespace| &namespace.meta);
    let telemetry = namespaces.filter(|meta| meta.label(TELEMETRY) == Some("http"));
    let telemetry = telemetry.map(|meta| Arc::clone(meta.name())).collect();

    let mut resolved: Vec<ViewRules<'_>> = Vec::new();
    for (view, client) in views.iter() {
        let mut rules = ViewRules {
            view,
            policies: registry.services.iter().map(|service| policies.resolve(&client, service, findings)).collect(),
            rules: routes::rules_of(&hosts, &registry, &client, findings),
            changed: BTreeSet::new(),
            client,
        };
        if let Some(everybody) = resolved.first() {
            rules.changed = rules.differences(everybody, &registry, &delegations, options);
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
        delegations: &delegations,
        policies: &policies,
        guards: &guards,
        options,
        telemetry,
        former: former.plan,
        clusters: Clusters::new(former.program),
        ports: Vec::new(),
        tables: vec![Table::default()],
        common: BTreeMap::new(),
        overlays: Map::default(),
        others: Map::default(),
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
    let gateways = build.gateways(snapshot, &views, &resolved);
    let program = Program {
        generation: options.generation,
        destinations: Arc::new(build.destinations),
        ports: build.ports.into_iter().map(Arc::new).collect(),
        host_tables: build.tables.into_iter().map(Table::finish).map(Arc::new).collect(),
        overlays: Arc::new(build.overlays),
        clusters: build.clusters.all.into_iter().collect(),
        gateways: gateways.into(),
        pods: PodTable::default(),
        clients: Arc::default(),
    };
    let mut trace = build.trace;
    trace.clusters = build.clusters.selections;
    trace.clusters.shrink_to_fit();
    trace.services = registry.services.iter().map(Registered::key).collect();
    trace.of_kubernetes = registry.of_kubernetes;
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
    client: Client,
    policies: Vec<Option<PolicyId>>,
    rules: Vec<Layers<'s>>,
    /// Services that are not as in view 0.
    changed: BTreeSet<usize>,
}

impl<'s> ViewRules<'s> {
    fn differences(
        &self,
        everybody: &Self,
        registry: &Registry<'_>,
        delegations: &Delegations<'s>,
        options: &CompileOptions,
    ) -> BTreeSet<usize> {
        let differs = |service: usize| {
            let registered = &registry.services[service];
            self.policies[service] != everybody.policies[service]
                || registered.is_seen_by(self.client.namespace.as_ref()) != registered.is_seen_by(None)
        };
        // Everybody fits no condition on clients.
        let meant = |vs: &&'s VirtualService| {
            let tls = vs.tls.iter().flat_map(|route| &route.items).map(|item| &item.conditions);
            let mut layer4 = tls.chain(vs.tcp.iter().flat_map(|route| &route.items));
            let fits = |item: &HttpMatchItem| item.source_in_force().is_some_and(|source| self.client.fits(source));
            layer4.any(|item: &Layer4Match| item.source_in_force().is_some_and(|source| self.client.fits(source)))
                || delegations.entries(vs).any(|entry| entry.route.items.iter().any(fits))
        };
        (0..registry.services.len())
            .filter(|&service| {
                let (own, common) = (&self.rules[service], &everybody.rules[service]);
                differs(service)
                    || own.len() != common.len()
                    || own.iter().zip(common).any(|(a, b)| !a.is(b))
                    || own.iter().flat_map(|layer| &layer.rules).any(meant)
                    || routes::targets(own, delegations, registry, &options.cluster_domain).any(differs)
            })
            .collect()
    }
}

struct Build<'a, 's, 'f> {
    registry: &'a Registry<'s>,
    hosts: &'a Hosts<'s>,
    delegations: &'a Delegations<'s>,
    policies: &'a Policies<'s>,
    guards: &'a Guards<'s>,
    options: &'a CompileOptions,
    telemetry: BTreeSet<Arc<str>>,
    /// The plan in force.
    former: &'f KernelPlan,
    clusters: Clusters<'f>,
    ports: Vec<ServicePort>,
    tables: Vec<Table>,
    /// Everybody's tables, by port number.
    common: BTreeMap<u16, HostTableId>,
    /// What views have otherwise.
    overlays: Map<(u32, u16), HostTableId>,
    /// What everybody has for hosts that no service has.
    others: Map<Box<str>, Vec<Rule>>,
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
    tls: Option<TlsRules<'s>>,
}

impl<'s, 'f> Build<'_, 's, 'f> {
    fn view(&mut self, view: &ViewRules<'s>) {
        let by = view.client.namespace.as_ref();
        for service in 0..self.registry.services.len() {
            let registered = &self.registry.services[service];
            let differs = view.view == 0 || view.changed.contains(&service);
            if !differs || !registered.is_asked_for() || !registered.is_dialled_by(by) {
                continue;
            }
            if view.view == 0 {
                self.udp(service);
            }
            for position in 0..self.registry.services[service].ports.len() {
                let port = &self.registry.services[service].ports[position];
                if view.view == 0 && carries_http(port.protocol) {
                    let tables = &mut self.tables;
                    self.common.entry(port.port.number).or_insert_with(|| {
                        tables.push(Table::default());
                        HostTableId(tables.len() as u32 - 1)
                    });
                }
                self.port(view, service, position);
            }
        }
        self.out_of_reach(view);
        if self.common.contains_key(&PORT_OF_OTHER_HOSTS) {
            self.other_hosts(view);
        }
    }

    /// Where the hosts of a port number go that a view has.
    fn table(&mut self, view: u32, number: u16) -> &mut Table {
        let id = if view == 0 {
            self.common[&number]
        } else {
            let tables = &mut self.tables;
            *self.overlays.entry((view, number)).or_insert_with(|| {
                tables.push(Table::default());
                HostTableId(tables.len() as u32 - 1)
            })
        };
        &mut self.tables[id.index()]
    }

    fn udp(&mut self, service: usize) {
        let registered = &self.registry.services[service];
        if registered.object.kind != ServiceType::ClusterIp || registered.entry.is_some() {
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
            http: if carries_http(protocol) { router.http_in(rules, number) } else { None },
            tcp: if carries_bytes(protocol) { router.tcp_in(rules, number) } else { None },
            tls: if carries_tls(protocol) { router.tls_in(rules, number) } else { None },
        }
    }

    /// Remembers to which services the rules of this one send.
    fn depend(&mut self, service: usize, rules: &PortRules<'_>) {
        let http = rules.http.iter().flat_map(|http| &http.rules).flat_map(|rule| &*rule.route.destinations);
        let settings = rules.http.iter().flat_map(|http| &http.rules).filter_map(|rule| rule.route.settings.as_ref());
        let mirrors = settings.flat_map(|settings| &settings.mirrors).map(|mirror| &mirror.destination);
        let tcp = rules.tcp.iter().flat_map(TcpRules::destinations).flatten();
        let tls = rules.tls.iter().flat_map(TlsRules::destinations).flatten();
        for id in http.chain(mirrors).chain(tcp).chain(tls).filter_map(|destination| destination.cluster) {
            let target = self.clusters.selections[id.index()].service;
            if target as usize != service {
                self.trace.dependents.entry(target).or_default().insert(service as u32);
            }
        }
    }

    fn router<'r>(&'r mut self, view: &'r ViewRules<'s>) -> Router<'r, 's, 'f> {
        Router {
            client: &view.client,
            gateway: None,
            delegations: self.delegations,
            registry: self.registry,
            policies: self.policies,
            in_force: &view.policies,
            guards: self.guards,
            options: self.options,
            clusters: &mut self.clusters,
            findings: self.findings,
        }
    }

    fn port(&mut self, view: &ViewRules<'s>, service: usize, position: usize) {
        let rules = self.rules(view, service, position);
        self.depend(service, &rules);
        let registered = &self.registry.services[service];
        let port = &registered.ports[position];
        let number = port.port.number;
        if let Some(http) = &rules.http {
            http2::note(http, registered, port, self.findings);
        }
        {
            let facts = Facts {
                service: registered,
                port,
                http: rules.http.as_ref(),
                tcp: rules.tcp.as_ref(),
                tls: rules.tls.as_ref(),
                guard: self.guards[service][position],
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
                    let key = PlanKey { view: key.0, address: Some(key.1), port: key.2, udp: false };
                    let entry = shared(self.former, &key, facts.dialled(&decision, dialled));
                    self.plan.services.insert(key, entry);
                }
            } else {
                let decision = facts.decide(self.findings);
                for address in registered.addresses() {
                    let key = PlanKey { view: view.view, address: Some(address), port: number, udp: false };
                    match self.plan.services.entry(key) {
                        Entry::Vacant(free) => {
                            let entry = facts.planned(&decision, address);
                            free.insert(shared(self.former, &key, entry));
                        }
                        Entry::Occupied(_) => self.trace.contended = true,
                    }
                }
            }
            for address in registered.addresses() {
                self.destinations.entry((view.view, address, number)).or_insert(id);
            }
            let http2 = match &rules.http {
                Some(http) => http.catch_all().unwrap_or_default().into(),
                None => [rules.plain.clone()].into(),
            };
            let mut tcp = rules.tcp.map(|tcp| tcp.rules).unwrap_or_default();
            if tcp.last().is_none_or(|rule| !rule.subnets.is_empty()) {
                tcp.push(TcpRule::all([rules.plain.clone()].into()));
            }
            self.ports.push(ServicePort {
                host: Arc::clone(&registered.fqdn),
                number,
                protocol: port.protocol,
                headless,
                plain: rules.plain.cluster.expect("the plain service always has a cluster"),
                hosts: self.common.get(&number).copied().filter(|_| carries_http(port.protocol)).unwrap_or(NO_HOSTS),
                tcp: tcp.into(),
                tls: rules.tls.map(|tls| tls.rules.into()).unwrap_or_default(),
                http2,
            });
        }
        if carries_http(port.protocol) {
            let rules = rules.http.map_or_else(|| vec![plain_rule(rules.plain)], |http| http.rules);
            self.host(view.view, service, number, rules);
        }
    }

    /// Adds a service's names to a table.
    fn host(&mut self, view: u32, service: usize, number: u16, rules: Vec<Rule>) {
        let registered = &self.registry.services[service];
        let (namespace, name) = (&**registered.namespace(), &**registered.name());
        let mut names = vec![registered.fqdn.to_string(), format!("{}.", registered.fqdn)];
        if registered.entry.is_none() {
            names.extend([format!("{name}.{namespace}"), format!("{name}.{namespace}.svc")]);
        }
        let addresses = registered.addresses().map(|address| address.to_string());
        let table = self.table(view, number);
        let index = table.add(&registered.fqdn, names.into_iter().chain(addresses), rules);
        table.hosts[index as usize].headless = registered.is_headless();
        if registered.entry.is_none() {
            table.short_name(namespace, name, index);
        }
    }

    /// Hosts of VirtualServices that no service has: they can be asked for by name alone. Of a view only those that are
    /// not as for everybody.
    fn other_hosts(&mut self, view: &ViewRules<'s>) {
        let registry = self.registry;
        let (exact, suffixes) = self.hosts.others(|host| registry.is_asked_for(host, None));
        for host in exact {
            if registry.is_asked_for(host, view.client.namespace.as_ref()) {
                continue;
            }
            let layers = self.hosts.resolve(&view.client, host, self.findings);
            let rules = self.router(view).http_in(&layers, PORT_OF_OTHER_HOSTS).map(|http| http.rules);
            let names = || [host.to_string(), format!("{host}.")].into_iter();
            match self.otherwise(view, host, rules) {
                Otherwise::Same => {}
                Otherwise::Nobody => self.table(view.view, PORT_OF_OTHER_HOSTS).hide(names()),
                Otherwise::Rules(rules) => {
                    self.table(view.view, PORT_OF_OTHER_HOSTS).add(host, names(), rules);
                }
            }
        }
        for suffix in suffixes {
            let layers = self.hosts.resolve_suffix(&view.client, suffix, self.findings);
            let rules = self.router(view).http_in(&layers, PORT_OF_OTHER_HOSTS).map(|http| http.rules);
            let host = format!("*{suffix}");
            match self.otherwise(view, &host, rules) {
                Otherwise::Same => {}
                Otherwise::Nobody => self.table(view.view, PORT_OF_OTHER_HOSTS).hide_suffix(suffix),
                Otherwise::Rules(rules) => {
                    let table = self.table(view.view, PORT_OF_OTHER_HOSTS);
                    let index = table.add(&host, std::iter::empty(), rules);
                    table.suffix(suffix, index);
                }
            }
        }
    }

    /// What a view has for a host that no service has.
    fn otherwise(&mut self, view: &ViewRules<'s>, host: &str, rules: Option<Vec<Rule>>) -> Otherwise {
        if view.view == 0 {
            self.others.extend(rules.as_ref().map(|rules| (host.into(), rules.clone())));
            return rules.map_or(Otherwise::Same, Otherwise::Rules);
        }
        match (rules, self.others.get(host)) {
            (None, None) => Otherwise::Same,
            (Some(rules), Some(common)) if rules == *common => Otherwise::Same,
            (Some(rules), _) => Otherwise::Rules(rules),
            (None, Some(_)) => Otherwise::Nobody,
        }
    }
}

enum Otherwise {
    /// What everybody has.
    Same,
    /// Nothing, though everybody has something.
    Nobody,
    /// These rules.
    Rules(Vec<Rule>),
}

pub(super) fn carries_http(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http | Protocol::Http2 | Protocol::Detect)
}

fn carries_bytes(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tcp | Protocol::Tls | Protocol::Detect)
}

fn carries_tls(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tls | Protocol::Detect)
}

/// What a host without rules does.
fn plain_rule(plain: WeightedCluster) -> Rule {
    let route = Route { name: "default".into(), destinations: [plain].into(), ..Route::default() };
    Rule { matches: [].into(), route }
}
