//! What is in force, fact by fact, under names that stay the same from one compilation to the next: no addresses, no
//! numbers of views, no places in files. Used by [`super`].

use std::collections::{BTreeMap, BTreeSet};

use super::{Area, Side};
use crate::compile::describe::{self, Describer};
use crate::explain::text;
use crate::plan::{OnFailure, Verdict};
use crate::program::{Handler, PortId, Program, Protocol, WeightedCluster};
use crate::route::{HostTable, Rule, VirtualHost};

/// What a fact is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) area: Area,
    pub(super) subject: String,
    /// For whom; empty = everybody.
    pub(super) clients: String,
}

/// Fields and what they say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) fields: BTreeMap<String, String>,
    /// The object that it is from.
    pub(super) object: Option<String>,
}

/// Everything of one side.
#[derive(Debug, Default)]
pub(super) struct All {
    pub(super) facts: BTreeMap<Key, Facts>,
    /// The rules of each host, in order.
    pub(super) orders: BTreeMap<Key, Vec<String>>,
}

struct Collector<'a> {
    side: &'a Side<'a>,
    describer: Describer<'a>,
    /// By the number of a view, who is of it.
    clients: BTreeMap<u32, String>,
    all: All,
}

pub(super) fn collect(side: &Side<'_>) -> All {
    let clients = describe::clients(side.views).into_iter().collect();
    let describer = Describer::new(side.snapshot(), side.options, side.views);
    let mut collector = Collector { side, describer, clients, all: All::default() };
    collector.service_ports();
    collector.hosts();
    collector.connections();
    collector.gateways();
    collector.pods();
    collector.policies();
    collector.all
}

impl Collector<'_> {
    fn clients(&self, view: u32) -> String {
        self.clients.get(&view).cloned().unwrap_or_default()
    }

    fn put(&mut self, area: Area, subject: String, clients: &str, fields: Vec<(&str, String)>, object: Option<String>) {
        let key = Key { area, subject, clients: clients.to_owned() };
        let facts = self.all.facts.entry(key).or_default();
        facts.object = facts.object.take().or(object);
        for (field, value) in fields {
            facts.fields.insert(field.to_owned(), value);
        }
    }

    /// Addresses of one port have one verdict; of those that differ, all are shown.
    fn service_ports(&mut self) {
        let mut said: BTreeMap<(String, String), [BTreeSet<String>; 3]> = BTreeMap::new();
        for (key, entry) in &self.side.plan.services {
            let udp = if key.udp { "/UDP" } else { "" };
            let subject = (format!("{}{udp}", entry.name), self.clients(key.view));
            let [verdicts, reasons, failures] = said.entry(subject).or_default();
            verdicts.insert(entry.verdict.as_str().to_owned());
            reasons.insert(entry.why.clone());
            let refuse = entry.on_failure == OnFailure::Refuse;
            if entry.verdict != Verdict::Proxy {
                continue;
            }
            failures.insert(if refuse { "refuse" } else { "balance" }.to_owned());
        }
        let joined = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join(" and ");
        for ((subject, clients), [verdicts, reasons, failures]) in said {
            let mut fields = vec![("verdict", joined(verdicts)), ("why", joined(reasons))];
            if !failures.is_empty() {
                fields.push(("while no proxy is alive", joined(failures)));
            }
            self.put(Area::ServicePort, subject, &clients, fields, None);
        }
    }

    /// Hosts by request: everybody's, then what views have otherwise.
    fn hosts(&mut self) {
        let program = self.side.program;
        let common: BTreeSet<(u16, usize)> = program
            .ports
            .iter()
            .filter(|port| !matches!(port.protocol, Protocol::Tcp | Protocol::Tls))
            .map(|port| (port.number, port.hosts.index()))
            .collect();
        for (number, table) in common {
            self.table(&program.host_tables[table], number, 0);
        }
        let overlays: BTreeSet<(u32, u16, usize)> =
            program.overlays.iter().map(|((view, number), id)| (*view, *number, id.index())).collect();
        for (view, number, table) in overlays {
            self.table(&program.host_tables[table], number, view);
        }
    }

    fn table(&mut self, table: &HostTable, number: u16, view: u32) {
        let clients = self.clients(view);
        for host in &table.hosts {
            self.rules(Area::Route, &format!("{}:{number}", host.host), &clients, view, host);
        }
    }

    fn rules(&mut self, area: Area, subject: &str, clients: &str, view: u32, host: &VirtualHost) {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut order = Vec::new();
        for rule in &host.rules {
            let mut name = matched(rule);
            let times = seen.entry(name.clone()).or_default();
            *times += 1;
            if *times > 1 {
                name = format!("{name} (again, {times})");
            }
            self.rule(area, format!("{subject}, rule for {name}"), clients, view, rule);
            order.push(name);
        }
        let key = Key { area, subject: subject.to_owned(), clients: clients.to_owned() };
        self.all.orders.insert(key, order);
    }

    fn rule(&mut self, area: Area, subject: String, clients: &str, view: u32, rule: &Rule) {
        let route = &rule.route;
        let mut fields = vec![("name", route.name.to_string())];
        fields.push(("destinations", shares(&route.destinations)));
        let settings = text::of_route(route);
        let settings: Vec<(String, String)> = settings.into_iter().map(|one| (one.field, one.value)).collect();
        let mut joined: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (field, value) in &settings {
            joined.entry(field).or_default().push(value);
        }
        fields.extend(joined.iter().map(|(field, values)| (*field, values.join("; "))));
        let object = route.object.as_ref().map(ToString::to_string);
        self.put(area, subject, clients, fields, object);
        let settings = route.settings.as_deref();
        let mirrors = settings.into_iter().flat_map(|settings| &settings.mirrors).map(|mirror| &mirror.destination);
        for destination in route.destinations.iter().chain(mirrors) {
            self.destination(destination, clients, view);
        }
    }

    fn destination(&mut self, destination: &WeightedCluster, clients: &str, view: u32) {
        let Some(id) = destination.cluster else { return };
        let cluster = self.side.program.cluster(id);
        let endpoints = cluster.endpoints4.len() + cluster.endpoints6.len();
        let mut fields: Vec<(String, String)> = vec![("ready endpoints".to_owned(), endpoints.to_string())];
        let ports: BTreeSet<u16> =
            cluster.endpoints4.iter().chain(&*cluster.endpoints6).map(std::net::SocketAddr::port).collect();
        if !ports.is_empty() {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            fields.push(("their ports".to_owned(), ports.join(", ")));
        }
        fields.extend(text::of_cluster(&cluster.policy, false, false).into_iter().map(|one| (one.field, one.value)));
        let subset = self.describer.subset(view, &cluster.host, &cluster.subset);
        if let Some(subset) = &subset {
            let labels: Vec<String> = subset.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            fields.push(("labels".to_owned(), labels.join(",")));
        }
        let fields = fields.iter().map(|(field, value)| (&**field, value.clone())).collect();
        let object = subset.map(|subset| subset.rule.to_string());
        self.put(Area::Destination, name_of(&cluster.name), clients, fields, object);
    }

    /// Connections that are not looked into.
    fn connections(&mut self) {
        let program: &Program = self.side.program;
        let dialled: BTreeSet<(u32, PortId)> =
            program.destinations.iter().map(|((view, ..), id)| (*view, *id)).collect();
        for (view, id) in dialled {
            let (port, clients) = (program.port(id), self.clients(view));
            let mut fields = vec![("protocol", format!("{:?}", port.protocol))];
            if !matches!(port.protocol, Protocol::Http | Protocol::Http2) {
                let rules = port.tcp.iter().map(|rule| {
                    let subnets: Vec<String> = rule.subnets.iter().map(ToString::to_string).collect();
                    let to = if subnets.is_empty() { String::new() } else { format!("to {}: ", subnets.join(", ")) };
                    format!("{to}{}", shares(&rule.destinations))
                });
                fields.push(("bytes", rules.collect::<Vec<_>>().join("; ")));
            }
            if matches!(port.protocol, Protocol::Http2 | Protocol::Detect) {
                let http2 = if port.http2.is_empty() { "refused".to_owned() } else { shares(&port.http2) };
                fields.push(("HTTP/2", http2));
            }
            for destination in port.tcp.iter().flat_map(|rule| &rule.destinations).chain(&port.http2) {
                self.destination(destination, &clients, view);
            }
            self.put(Area::Connection, format!("{}:{}", port.host, port.number), &clients, fields, None);
        }
    }

    fn gateways(&mut self) {
        let program: &Program = self.side.program;
        for listener in &*program.gateways {
            for chain in &listener.chains {
                let sni = if chain.sni_hosts.is_empty() {
                    String::new()
                } else {
                    format!(" for {}", chain.sni_hosts.join(", "))
                };
                let subject = format!("{}{sni}", listener.name);
                let ends = if chain.termination.is_some() { "TLS ends here" } else { "plain, or TLS as it is" };
                let mut fields = vec![("TLS", ends.to_owned())];
                match &chain.handler {
                    Handler::Tcp(destinations) => fields.push(("destinations", shares(destinations))),
                    Handler::Http(http) => {
                        for host in &http.hosts {
                            let subject = format!("{subject}, {}", host.name);
                            self.rules(Area::Gateway, &subject, "", 0, &host.host);
                        }
                    }
                }
                self.put(Area::Gateway, subject, "", fields, Some(chain.gateway.to_string()));
            }
        }
    }

    fn pods(&mut self) {
        let snapshot = self.side.snapshot();
        for pod in snapshot.pods.values() {
            let why_not = describe::why_not(pod, snapshot, self.side.options);
            let takes = why_not.map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"));
            let subject = format!("{}/{}", pod.meta.namespace(), pod.meta.name());
            self.put(Area::Pod, subject, "", vec![("takes part", takes)], None);
        }
    }

    fn policies(&mut self) {
        let ports = self.side.program.ports.iter();
        let ports: BTreeSet<_> = ports.map(|port| (std::sync::Arc::clone(&port.host), port.number)).collect();
        for (host, port) in ports {
            if let Some(guard) = self.describer.guard(&host, port) {
                let object = guard.meta.object.to_string();
                let fields = vec![("refuses for", object.clone())];
                self.put(Area::Policy, host.to_string(), "", fields, Some(object));
            }
        }
    }
}

/// `90% v1 of web.shop.svc.cluster.local:80, 10% …`
fn shares(destinations: &[WeightedCluster]) -> String {
    let total: u64 = destinations.iter().map(|one| u64::from(one.weight)).sum();
    let share = |one: &WeightedCluster| match (destinations, total) {
        ([_], _) => 100.0,
        (_, 0) => 0.0,
        (_, total) => f64::from(one.weight) * 100.0 / total as f64,
    };
    let all = destinations.iter().map(|one| format!("{} {}", text::percent(share(one)), name_of(&one.name)));
    all.collect::<Vec<_>>().join(", ")
}

/// Envoy's name as people say it.
fn name_of(name: &str) -> String {
    let mut parts = name.split('|').skip(1);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(port), Some(""), Some(host)) => format!("{host}:{port}"),
        (Some(port), Some(subset), Some(host)) => format!("{subset} of {host}:{port}"),
        _ => name.to_owned(),
    }
}

/// What a rule takes.
fn matched(rule: &Rule) -> String {
    let items = rule.matches.iter().map(text::of_item);
    let items: Vec<String> = items.collect();
    if items.is_empty() { "everything".to_owned() } else { items.join(", or ") }
}
