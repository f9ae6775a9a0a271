//! The answer of `/config`: what is in force of a service or a host, down to its endpoints; without one, which service
//! ports there are, a page of them. Made by `shared` on the control thread; the workers notice nothing of it.
//!
//! An answer is bounded whatever the mesh is: a list that is cut says how many there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;
use weir_mesh::explain::decoded;
use weir_mesh::explain::model::Setting;
use weir_mesh::explain::text::{of_cluster, of_route};
use weir_mesh::plan::{PlanKey, PlannedService, Verdict, WeightedGroup};
use weir_mesh::program::{ClientTls, Cluster, ClusterId, HostTableId, Localities, PortId, Program, Route};

use crate::proxy::{ClusterNow, InUse, Inspection};

/// Service ports of a page, where nobody says how many.
const DEFAULT_LIMIT: usize = 100;
/// Service ports of a page at most: some 300 KiB.
const MAX_LIMIT: usize = 1_000;
/// Of each list so many at most …
const MAX_LISTED: usize = 1_000;
/// … and of all lists of an answer together: some 3 MiB.
const MAX_SHOWN: usize = 5_000;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A page of service ports: those after a name, and how many at most.
    Page(String, usize),
    /// `namespace/name`, of one port or of all.
    Service(String),
    /// A host as rules write it: `name.namespace` or longer, or a name that is no service's.
    Host(String),
}

impl Wanted {
    /// From a URL's query.
    ///
    /// # Errors
    /// In words, for what cannot be read.
    pub(super) fn of_query(query: &str) -> Result<Self, String> {
        let (mut after, mut limit, mut filter) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).ok_or_else(|| format!("`{pair}` cannot be read"))?;
            match key {
                "service" | "host" if filter.is_some() => {
                    return Err("one `service` or `host`, and not more".to_owned());
                }
                "service" | "host" if value.is_empty() => return Err(format!("`{key}` is empty")),
                "service" => filter = Some(Self::Service(value)),
                "host" => filter = Some(Self::Host(value.trim_end_matches('.').to_ascii_lowercase())),
                "continue" => after = Some(value),
                "limit" => {
                    let wanted = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                    limit = Some(wanted.ok_or_else(|| format!("`limit` is from 1 to {MAX_LIMIT}"))?);
                }
                _ => return Err(format!("`{key}` is not asked for here: service, host, limit, continue")),
            }
        }
        match filter {
            Some(_) if after.is_some() || limit.is_some() => Err("`limit` and `continue` are of the list".to_owned()),
            Some(filter) => Ok(filter),
            None => Ok(Self::Page(after.unwrap_or_default(), limit.unwrap_or(DEFAULT_LIMIT))),
        }
    }

    fn is_service(&self, name: &str) -> bool {
        let Self::Service(wanted) = self else { return false };
        name.strip_prefix(&**wanted).is_some_and(|rest| rest.is_empty() || port_alone(rest))
    }

    fn is_host(&self, host: &str) -> bool {
        let Self::Host(wanted) = self else { return false };
        let Some(rest) = host.strip_prefix(&**wanted) else { return false };
        rest.is_empty()
            || wanted.contains('.') && rest.starts_with(".svc.")
            || wanted.strip_suffix(".svc").is_some_and(|_| rest.starts_with('.'))
    }
}

/// `:80`
fn port_alone(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

/// Service ports by name, a page of them.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    generation: u64,
    services: Vec<Summary>,
    /// What `continue` has to be for the next page; absent on the last.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// One service port.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// `namespace/name:port`
    service: String,
    /// Empty where the proxy does not know it.
    host: String,
    /// Each once, in the order of their cost: views and families may differ.
    verdicts: BTreeSet<&'static str>,
    /// Addresses that clients dial, in all views.
    addresses: usize,
    /// The service itself and its subsets.
    clusters: usize,
    /// Of the service itself.
    endpoints: usize,
    /// Of the service itself, those out of use.
    ejected: usize,
    /// Rules of its host.
    routes: usize,
}

/// Everything in force of what was asked for.
#[derive(Debug, Serialize)]
pub(super) struct Detail {
    generation: u64,
    services: Part<ServiceShown>,
    clusters: Part<ClusterShown>,
    routes: Part<RouteShown>,
}

/// A list that may be cut.
#[derive(Debug, Serialize)]
struct Part<T> {
    /// How many there are.
    total: usize,
    items: Vec<T>,
}

/// One service port at one address.
#[derive(Debug, Serialize)]
struct ServiceShown {
    service: String,
    host: String,
    /// `*` = any.
    address: String,
    /// 0 = everybody.
    view: u32,
    udp: bool,
    verdict: &'static str,
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<String>,
    /// What the kernel balances, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    slots: Vec<GroupShown>,
    /// What it balances while no proxy is alive.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fallback: Vec<GroupShown>,
}

#[derive(Debug, Serialize)]
struct GroupShown {
    subset: String,
    weight: u32,
    endpoints: usize,
}

/// An endpoint set with its policy.
#[derive(Debug, Serialize)]
struct ClusterShown {
    /// Envoy's name.
    name: String,
    host: String,
    subset: String,
    port: u16,
    /// With who asks for each; a default has nobody.
    settings: Vec<Setting>,
    tls: TlsShown,
    /// Of this node, by the name of the limit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    in_use: BTreeMap<&'static str, InUseShown>,
    /// Where balancing by locality is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    localities: Option<LocalitiesShown>,
    ejected: usize,
    /// Those that are out of use come first.
    endpoints: Part<EndpointShown>,
}

#[derive(Debug, Serialize)]
struct TlsShown {
    /// As Istio has it; `DISABLE` where nobody asks for any.
    mode: String,
    /// Connections are refused, as what is asked for is not done.
    refused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct InUseShown {
    active: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
}

#[derive(Debug, Serialize)]
struct LocalitiesShown {
    field: &'static str,
    because: String,
    fails_over: bool,
}

#[derive(Debug, Serialize)]
struct EndpointShown {
    address: SocketAddr,
    /// How many times what others get.
    weight: u32,
    /// `region/zone/subzone`, where that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    locality: Option<String>,
    /// Out of use for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    ejected_for_ms: Option<u64>,
    /// By how many times the base time.
    #[serde(skip_serializing_if = "Option::is_none")]
    times_ejected: Option<u32>,
}

/// A rule, in the order in which rules are tried.
#[derive(Debug, Serialize)]
struct RouteShown {
    host: String,
    port: u16,
    /// 0 = everybody.
    view: u32,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    destinations: Vec<DestinationShown>,
    settings: Vec<Setting>,
}

#[derive(Debug, Serialize)]
struct DestinationShown {
    cluster: String,
    weight: u32,
    /// False: it names what does not exist.
    exists: bool,
}

/// How many items may still be shown.
struct Room(usize);

impl Room {
    fn part<I, T>(&mut self, all: Vec<I>, mut show: impl FnMut(&mut Self, I) -> T) -> Part<T> {
        let total = all.len();
        let mut items = Vec::new();
        for one in all {
            if self.0 == 0 || items.len() == MAX_LISTED {
                break;
            }
            self.0 -= 1;
            items.push(show(self, one));
        }
        Part { total, items }
    }
}

/// Entries of the plan, by the name of their service port.
pub(super) type Entries = Vec<(PlanKey, Arc<PlannedService>)>;

/// The entries of the plan that matter for a question: all of a page's, or those that are asked for. `program` knows the
/// hosts behind them.
pub(super) fn entries(
    services: &BTreeMap<PlanKey, Arc<PlannedService>>,
    wanted: &Wanted,
    program: &Program,
) -> (Entries, Option<String>) {
    let Wanted::Page(after, limit) = wanted else {
        let fits = |(key, entry): &(&PlanKey, &Arc<PlannedService>)| {
            let host = || port_of(program, key).map(|port| &*program.port(port).host);
            wanted.is_service(&entry.name)
                || matches!(wanted, Wanted::Host(_)) && host().is_some_and(|host| wanted.is_host(host))
        };
        return (services.iter().filter(fits).map(|(key, entry)| (*key, Arc::clone(entry))).collect(), None);
    };
    // The first names after the last page's, and one more where any follows.
    let mut names = BTreeSet::new();
    for entry in services.values().filter(|entry| *entry.name > **after) {
        names.insert(&*entry.name);
        if names.len() > limit + 1 {
            names.pop_last();
        }
    }
    let more = names.len() > *limit;
    if more {
        names.pop_last();
    }
    let next = names.last().filter(|_| more).map(|name| (*name).to_owned());
    let found = services.iter().filter(|(_, entry)| names.contains(&*entry.name));
    (found.map(|(key, entry)| (*key, Arc::clone(entry))).collect(), next)
}

/// The proxy's service port behind an entry.
fn port_of(program: &Program, key: &PlanKey) -> Option<PortId> {
    program.port_of(key.view, SocketAddr::new(key.address.filter(|_| !key.udp)?, key.port))
}

/// A page of service ports: `entries` are all of theirs.
pub(super) fn page(generation: u64, entries: &Entries, next: Option<String>, now: &Inspection) -> Page {
    let program = now.program();
    let mut ports: HashMap<(&str, u16), Vec<ClusterId>> = HashMap::new();
    let mut services: BTreeMap<&str, (Summary, Option<PortId>)> = BTreeMap::new();
    for (key, entry) in entries {
        let (summary, port) = services.entry(&entry.name).or_default();
        summary.addresses += 1;
        summary.verdicts.insert(entry.verdict.as_str());
        *port = port.or_else(|| port_of(program, key));
        if let Some(port) = *port {
            let port = program.port(port);
            ports.entry((&port.host, port.number)).or_default();
        }
    }
    for (n, cluster) in program.clusters.iter().enumerate() {
        if let Some(clusters) = ports.get_mut(&(&*cluster.host, cluster.port)) {
            clusters.push(ClusterId(n as u32));
        }
    }
    let services = services.into_iter().map(|(name, (mut summary, port))| {
        name.clone_into(&mut summary.service);
        if let Some(port) = port.map(|port| program.port(port)) {
            let plain = program.cluster(port.plain);
            port.host.as_ref().clone_into(&mut summary.host);
            summary.clusters = ports.get(&(&*port.host, port.number)).map_or(0, Vec::len);
            summary.endpoints = by_address(plain).len();
            summary.ejected = now.ejected_count(port.plain);
            let table = program.host_tables.get(port.hosts.index());
            let hosts = table.iter().flat_map(|table| &table.hosts).filter(|host| *host.host == *port.host);
            summary.routes = hosts.map(|host| host.rules.len()).sum();
        }
        summary
    });
    Page { generation, services: services.collect(), next }
}

/// Everything in force of what was asked for; `None` = nobody knows it.
pub(super) fn detail(generation: u64, entries: Entries, wanted: &Wanted, now: &Inspection) -> Option<Detail> {
    let program = now.program();
    let mut hosts: BTreeSet<(&str, u16)> = BTreeSet::new();
    for port in entries.iter().filter_map(|(key, _)| port_of(program, key)).map(|port| program.port(port)) {
        hosts.insert((&port.host, port.number));
    }
    let is_wanted = |host: &str, port| hosts.contains(&(host, port)) || wanted.is_host(host);
    let routes = routes(program, is_wanted);
    let mut clusters: BTreeSet<ClusterId> = BTreeSet::new();
    for (n, cluster) in program.clusters.iter().enumerate() {
        if is_wanted(&cluster.host, cluster.port) {
            clusters.insert(ClusterId(n as u32));
        }
    }
    clusters.extend(routes.iter().flat_map(|(.., route)| &route.destinations).filter_map(|to| to.cluster));
    if entries.is_empty() && routes.is_empty() && clusters.is_empty() {
        return None;
    }
    let mut room = Room(MAX_SHOWN);
    let routes = room.part(routes, |_, (host, port, view, route)| RouteShown {
        host: host.to_owned(),
        port,
        view,
        name: route.name.to_string(),
        object: route.object.as_ref().map(ToString::to_string),
        at: route.at.as_ref().map(ToString::to_string),
        destinations: route
            .destinations
            .iter()
            .map(|to| DestinationShown {
                cluster: to.name.to_string(),
                weight: to.weight,
                exists: to.cluster.is_some(),
            })
            .collect(),
        settings: of_route(route),
    });
    let by_kernel = !entries.is_empty() && entries.iter().all(|(_, entry)| entry.verdict != Verdict::Proxy);
    let headless = entries.iter().filter_map(|(key, _)| port_of(program, key)).any(|port| program.port(port).headless);
    let services = room.part(entries, |_, (key, entry)| service(program, &key, &entry));
    let clusters = room.part(clusters.into_iter().collect(), |room, id| {
        cluster(program.cluster(id), now.cluster(id), (by_kernel, headless), room)
    });
    Some(Detail { generation, services, clusters, routes })
}

fn service(program: &Program, key: &PlanKey, entry: &PlannedService) -> ServiceShown {
    let address = key.address.map_or_else(|| "*".to_owned(), |address| SocketAddr::new(address, key.port).to_string());
    let groups = |groups: &[WeightedGroup]| {
        let shown = |group: &WeightedGroup| GroupShown {
            subset: group.subset.to_string(),
            weight: group.weight,
            endpoints: group.endpoints.len(),
        };
        groups.iter().map(shown).collect()
    };
    ServiceShown {
        service: entry.name.to_string(),
        host: port_of(program, key).map(|port| program.port(port).host.to_string()).unwrap_or_default(),
        address,
        view: key.view,
        udp: key.udp,
        verdict: entry.verdict.as_str(),
        why: entry.why.clone(),
        because: entry.because.as_ref().map(ToString::to_string),
        slots: groups(&entry.slots),
        fallback: groups(&entry.fallback),
    }
}

type Found<'p> = (&'p str, u16, u32, &'p Route);

/// The rules of hosts, each table of everybody once, then what views have otherwise.
fn routes(program: &Program, is_wanted: impl Fn(&str, u16) -> bool) -> Vec<Found<'_>> {
    let everybody = program.ports.iter().map(|port| (0, port.number, port.hosts));
    let views = program.overlays.iter().map(|((view, number), table)| (*view, *number, *table));
    let tables: BTreeSet<(u32, u16, HostTableId)> = everybody.chain(views).collect();
    let tables =
        tables.into_iter().filter_map(|(view, port, id)| Some((view, port, program.host_tables.get(id.index())?)));
    tables
        .flat_map(|(view, port, table)| table.hosts.iter().map(move |host| (view, port, host)))
        .filter(|(_, port, host)| is_wanted(&host.host, *port))
        .flat_map(|(view, port, host)| host.rules.iter().map(move |rule| (&*host.host, port, view, &rule.route)))
        .collect()
}

/// Each endpoint once: how often it is there, and where it is.
fn by_address(cluster: &Cluster) -> BTreeMap<SocketAddr, (u32, Option<&str>)> {
    let localities = cluster.localities.as_deref();
    let mut endpoints: BTreeMap<SocketAddr, (u32, Option<&str>)> = BTreeMap::new();
    for (ipv6, addresses) in [(false, &cluster.endpoints4), (true, &cluster.endpoints6)] {
        let mut places = localities.into_iter().flat_map(|found: &Localities| found.endpoints(ipv6));
        for address in addresses.iter() {
            let (weight, place) = endpoints.entry(*address).or_default();
            *weight += 1;
            *place = places.next().map(|at| &*at.place);
        }
    }
    endpoints
}

fn cluster(cluster: &Cluster, now: ClusterNow, (by_kernel, headless): (bool, bool), room: &mut Room) -> ClusterShown {
    let ClusterNow { ejected, in_use, tls_problem } = now;
    let tls = cluster.policy.tls.as_ref().map(|block| &*block.value);
    let mode = tls.map_or("DISABLE", |tls| if tls.mode.is_empty() { "not given" } else { &tls.mode });
    let shown = |InUse { active, limit }| InUseShown { active, limit };
    let mut endpoints: Vec<_> = by_address(cluster).into_iter().collect();
    endpoints.sort_by_key(|(address, _)| (!ejected.contains_key(address), *address));
    ClusterShown {
        name: cluster.name.to_string(),
        host: cluster.host.to_string(),
        subset: cluster.subset.to_string(),
        port: cluster.port,
        settings: of_cluster(&cluster.policy, by_kernel, headless),
        tls: TlsShown { mode: mode.to_owned(), refused: tls.is_some_and(ClientTls::is_refused), problem: tls_problem },
        in_use: in_use.into_iter().map(|(name, count)| (name, shown(count))).collect(),
        localities: cluster.localities.as_ref().map(|found| LocalitiesShown {
            field: found.field,
            because: found.because.to_string(),
            fails_over: found.fails_over,
        }),
        ejected: ejected.len(),
        endpoints: room.part(endpoints, |_, (address, (weight, place))| {
            let out = ejected.get(&address);
            EndpointShown {
                address,
                weight,
                locality: place.map(str::to_owned),
                ejected_for_ms: out.map(|out| out.left.as_millis() as u64),
                times_ejected: out.map(|out| out.times),
            }
        }),
    }
}

#[cfg(test)]
mod tests;
