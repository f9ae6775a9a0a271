//! Changed VirtualServices: the rules of the services that they name, taken from the cut and put in the place of those in
//! force.
//!
//! The clusters of a cut have numbers of their own. One stands for a cluster in force that is the same, endpoints and
//! policy included, and was chosen in the same way; what is new is added at the end. Clusters that nobody is sent to any
//! more stay until the next compilation of everything, which [`Trace::is_littered`] asks for in time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Part;
use crate::compile::CompileOptions;
use crate::compile::trace::{Selection, Trace, fqdn};
use crate::compile::visibility::{expand, tell_alike};
use crate::crd::{Object, ServiceType, VirtualService};
use crate::program::{Cluster, ClusterId, HostTableId, Program, RouteSettings, ServicePort, WeightedCluster};
use crate::route::{HostTable, Rule, VirtualHost};
use crate::snapshot::{Key, Snapshot};
use crate::store::Change;

/// The services whose rules change with a VirtualService. `None` when its reach is not plain: it is not for the mesh
/// alone, delegates or is delegated to, names hosts that are not services with an address, or tells other clients apart
/// than before.
pub(super) fn ruled(
    change: &Change,
    now: Option<&VirtualService>,
    snapshot: &Snapshot,
    domain: &str,
) -> Option<BTreeSet<Key>> {
    let before = match &change.before {
        None => None,
        Some(Object::VirtualService(before)) => Some(&**before),
        Some(_) => return None,
    };
    if !tell_alike(before, now) {
        return None;
    }
    let mut services = BTreeSet::new();
    for vs in before.into_iter().chain(now) {
        let outside = vs.gateways.iter().any(|gateway| **gateway != *"mesh");
        if !vs.in_mesh() || outside || vs.is_delegate() || vs.delegates().next().is_some() {
            return None;
        }
        for (host, _) in &vs.hosts {
            let key = super::named(&expand(host, vs.meta.namespace(), domain), domain)?;
            let service = snapshot.services.get(&key)?;
            if service.kind != ServiceType::ClusterIp || service.addresses.is_empty() {
                return None;
            }
            services.insert(key);
        }
    }
    Some(services)
}

/// What the rules of some services come to.
#[derive(Default)]
pub(super) struct Patch {
    /// Clusters that are new, in order, and how their endpoints were chosen.
    added: Vec<(Arc<Cluster>, Selection)>,
    ports: BTreeMap<usize, Arc<ServicePort>>,
    hosts: BTreeMap<usize, BTreeMap<usize, Arc<VirtualHost>>>,
    /// From a service to those whose rules send to it.
    dependents: Vec<(Key, Key)>,
}

/// The numbers of a cut's clusters among those in force.
struct Numbers<'a> {
    trace: &'a Trace,
    part: &'a Part,
    clusters: &'a [Arc<Cluster>],
    /// Where what is not in force goes; `None` = everything has to be.
    added: Option<Vec<(Arc<Cluster>, Selection)>>,
    known: BTreeMap<ClusterId, ClusterId>,
}

impl<'a> Numbers<'a> {
    fn new(trace: &'a Trace, part: &'a Part, clusters: &'a [Arc<Cluster>]) -> Self {
        Self { trace, part, clusters, added: None, known: BTreeMap::new() }
    }

    fn of(&mut self, id: ClusterId) -> Option<ClusterId> {
        if let Some(known) = self.known.get(&id) {
            return Some(*known);
        }
        let cluster = self.part.program.clusters.get(id.index())?;
        let own = self.part.trace.clusters.get(id.index())?;
        let service = self.part.trace.services.get(own.service as usize)?;
        let selection = Selection { service: self.trace.place(service)?, ..own.clone() };
        let same = |held: &ClusterId| {
            self.trace.clusters.get(held.index()) == Some(&selection)
                && self.clusters.get(held.index()) == Some(cluster)
        };
        let found = self.trace.clusters_of(service).find(same);
        let found = match (found, &mut self.added) {
            (Some(found), _) => found,
            (None, None) => return None,
            (None, Some(added)) => {
                added.push((Arc::clone(cluster), selection));
                ClusterId((self.clusters.len() + added.len() - 1) as u32)
            }
        };
        self.known.insert(id, found);
        Some(found)
    }

    fn group(&mut self, group: &[WeightedCluster]) -> Option<Box<[WeightedCluster]>> {
        group.iter().map(|one| self.one(one)).collect()
    }

    fn one(&mut self, one: &WeightedCluster) -> Option<WeightedCluster> {
        let cluster = match one.cluster {
            Some(id) => Some(self.of(id)?),
            None => None,
        };
        Some(WeightedCluster { cluster, ..one.clone() })
    }

    fn port(&mut self, port: &ServicePort, hosts: HostTableId) -> Option<ServicePort> {
        let mut port = port.clone();
        port.hosts = hosts;
        port.plain = self.of(port.plain)?;
        port.http2 = self.group(&port.http2)?;
        for rule in &mut port.tcp {
            rule.destinations = self.group(&rule.destinations)?;
        }
        for rule in &mut port.tls {
            rule.destinations = self.group(&rule.destinations)?;
        }
        Some(port)
    }

    fn host(&mut self, host: &VirtualHost) -> Option<VirtualHost> {
        let mut rules: Vec<Rule> = host.rules.to_vec();
        for rule in &mut rules {
            rule.route.destinations = self.group(&rule.route.destinations)?;
            if let Some(settings) = rule.route.settings.as_mut().filter(|settings| !settings.mirrors.is_empty()) {
                let mut mirrors = settings.mirrors.clone();
                for mirror in &mut mirrors {
                    mirror.destination = self.one(&mirror.destination)?;
                }
                *settings = Arc::new(RouteSettings { mirrors, ..RouteSettings::clone(settings) });
            }
        }
        let mut host = VirtualHost::new(host.host.clone(), rules);
        host.headless = false;
        Some(host)
    }
}

impl Patch {
    /// The rules of `ruled` as they are now. `program` is what is in force but for the endpoints of its clusters, which
    /// are as they are now. `None` unless `was` is what is in force.
    pub(super) fn of(
        ruled: &BTreeSet<Key>,
        trace: &Trace,
        [was, is]: [&Part; 2],
        in_force: &Program,
        program: &Program,
        snapshot: &Snapshot,
        options: &CompileOptions,
    ) -> Option<Self> {
        let mut patch = Self::default();
        let mut before = Numbers::new(trace, was, &in_force.clusters);
        let mut after = Numbers { added: Some(Vec::new()), ..Numbers::new(trace, is, &program.clusters) };
        let views: Vec<u32> = std::iter::once(0).chain(options.views.ids.values().copied()).collect();
        for key in ruled {
            let service = snapshot.services.get(key)?;
            let host = fqdn(key, &options.cluster_domain);
            for number in service.ports.iter().filter(|port| !port.udp && !port.sctp).map(|port| port.number) {
                for view in &views {
                    for address in &service.addresses {
                        let at = (*view, *address, number);
                        let of = |program: &Program| program.destinations.get(&at).copied();
                        match (of(in_force), of(&was.program), of(&is.program)) {
                            (None, None, None) => {}
                            (Some(id), Some(then), Some(now)) => {
                                let held = in_force.port(id);
                                if before.port(was.program.port(then), held.hosts)? != *held {
                                    return None;
                                }
                                let port = after.port(is.program.port(now), held.hosts)?;
                                if port != *held {
                                    patch.ports.insert(id.index(), Arc::new(port));
                                }
                            }
                            _ => return None,
                        }
                    }
                    let at = |program| table(program, *view, service.addresses.first().copied()?, number);
                    let found =
                        [in_force, &was.program, &is.program].map(|program| place(program, at(program)?, &host));
                    match found {
                        [None, None, None] => {}
                        [Some((table, position, held)), Some((.., then)), Some((.., now))] => {
                            if before.host(then)? != **held {
                                return None;
                            }
                            let now = after.host(now)?;
                            if now != **held {
                                patch.hosts.entry(table.index()).or_default().insert(position, Arc::new(now));
                            }
                        }
                        _ => return None,
                    }
                }
            }
        }
        patch.added = after.added.unwrap_or_default();
        let name = |place: u32| is.trace.services.get(place as usize).cloned();
        for (target, senders) in &is.trace.dependents {
            for sender in senders {
                patch.dependents.push((name(*target)?, name(*sender)?));
            }
        }
        Some(patch)
    }

    /// Puts the rules into the program, and what they lead to into the trace.
    pub(super) fn apply(self, program: &mut Program, trace: &mut Trace) {
        if !self.added.is_empty() {
            let mut clusters = std::mem::take(&mut program.clusters).into_vec();
            for (cluster, selection) in self.added {
                trace.add(ClusterId(clusters.len() as u32), selection);
                clusters.push(cluster);
            }
            program.clusters = clusters.into();
        }
        if !self.ports.is_empty() {
            let mut ports = program.ports.to_vec();
            self.ports.into_iter().for_each(|(position, port)| ports[position] = port);
            program.ports = ports.into();
        }
        if !self.hosts.is_empty() {
            let mut tables = program.host_tables.to_vec();
            for (position, hosts) in self.hosts {
                let mut table = HostTable::clone(&tables[position]);
                for (place, host) in hosts {
                    table.hosts[place] = host;
                }
                tables[position] = Arc::new(table);
            }
            program.host_tables = tables.into();
        }
        for (target, sender) in self.dependents {
            trace.depend(&target, &sender);
        }
    }
}

/// The table in which a view has the hosts of a port: its own, or everybody's.
fn table(program: &Program, view: u32, address: std::net::IpAddr, number: u16) -> Option<HostTableId> {
    if view > 0 {
        return program.overlays.get(&(view, number)).copied();
    }
    Some(program.port(*program.destinations.get(&(0, address, number))?).hosts)
}

fn place<'p>(
    program: &'p Program,
    table: HostTableId,
    host: &str,
) -> Option<(HostTableId, usize, &'p Arc<VirtualHost>)> {
    let own = program.host_tables.get(table.index())?;
    let position = *own.names.get(host)? as usize;
    Some((table, position, own.hosts.get(position)?))
}
