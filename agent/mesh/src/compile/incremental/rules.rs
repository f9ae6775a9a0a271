//! Changed VirtualServices: the rules of the hosts that they are for, taken from the cut and put in the place of those in
//! force.
//!
//! The clusters of a cut have numbers of their own. One stands for a cluster in force that is the same, endpoints and
//! policy included, and was chosen in the same way; what is new is added at the end. Clusters that nobody is sent to any
//! more stay until the next compilation of everything, which [`Trace::is_littered`] asks for in time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Part, Reach};
use crate::compile::CompileOptions;
use crate::compile::build::{NO_HOSTS, PORT_OF_OTHER_HOSTS, carries_http};
use crate::compile::registry::Registry;
use crate::compile::trace::{Selection, Trace, fqdn};
use crate::program::{Cluster, ClusterId, HostTableId, Parts, Program, RouteSettings, ServicePort, WeightedCluster};
use crate::route::{HostTable, Rule, VirtualHost};
use crate::snapshot::Key;

/// What the rules of some hosts come to.
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
    clusters: &'a Parts<Arc<Cluster>>,
    /// Where what is not in force goes; `None` = everything has to be.
    added: Option<Vec<(Arc<Cluster>, Selection)>>,
    known: BTreeMap<ClusterId, ClusterId>,
}

impl<'a> Numbers<'a> {
    fn new(trace: &'a Trace, part: &'a Part, clusters: &'a Parts<Arc<Cluster>>) -> Self {
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
    /// The rules of what the changes reach as they are now. `program` is what is in force but for the endpoints of its clusters, which
    /// are as they are now. `None` unless `was` is what is in force.
    pub(super) fn of(
        reach: &Reach,
        trace: &Trace,
        [was, is]: [&Part; 2],
        in_force: &Program,
        program: &Program,
        registry: &Registry<'_>,
        options: &CompileOptions,
    ) -> Option<Self> {
        let mut patch = Self::default();
        let mut before = Numbers::new(trace, was, &in_force.clusters);
        let mut after = Numbers { added: Some(Vec::new()), ..Numbers::new(trace, is, &program.clusters) };
        let views: Vec<u32> = std::iter::once(0).chain(options.views.ids.values().copied()).collect();
        let named = reach.services.iter().map(|key| Arc::from(fqdn(key, &options.cluster_domain)));
        for host in named.chain(reach.entries.iter().cloned()) {
            let service = &registry.services[registry.find(&host)?];
            for (number, protocol) in service.ports.iter().map(|port| (port.port.number, port.protocol)) {
                for view in &views {
                    for address in service.addresses() {
                        let at = (*view, address, number);
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
                    if !carries_http(protocol) {
                        continue;
                    }
                    let found = [in_force, &was.program, &is.program]
                        .map(|program| place(program, table(program, *view, number)?, &host));
                    patch.host(found, &mut before, &mut after)?;
                }
            }
        }
        for view in &views {
            let programs = [in_force, &was.program, &is.program];
            let tables = programs.map(|program| Some((program, table(program, *view, PORT_OF_OTHER_HOSTS)?)));
            for host in &reach.others {
                let found = tables.map(|table| table.and_then(|(program, table)| place(program, table, host)));
                patch.host(found, &mut before, &mut after)?;
            }
            for suffix in &reach.suffixes {
                let found = tables.map(|table| table.and_then(|(program, table)| of_suffix(program, table, suffix)));
                patch.host(found, &mut before, &mut after)?;
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

    /// A host that is in force, in the cut as it was, and as it is. `None` where it comes or goes, or is not in force so.
    fn host(&mut self, found: [Option<Found<'_>>; 3], before: &mut Numbers<'_>, after: &mut Numbers<'_>) -> Option<()> {
        match found {
            [None, None, None] => {}
            [Some(held), Some(then), Some(now)] => match [held.host, then.host, now.host] {
                // Hidden from the clients of a view.
                [None, None, None] => {}
                [Some(host), Some(then), Some(now)] => {
                    if before.host(then)? != **host {
                        return None;
                    }
                    let now = after.host(now)?;
                    if now != **host {
                        self.hosts.entry(held.table.index()).or_default().insert(held.position, Arc::new(now));
                    }
                }
                _ => return None,
            },
            _ => return None,
        }
        Some(())
    }

    /// Puts the rules into the program, and what they lead to into the trace.
    pub(super) fn apply(self, program: &mut Program, trace: &mut Trace) {
        let (added, selections): (Vec<_>, Vec<_>) = self.added.into_iter().unzip();
        for (selection, id) in selections.into_iter().zip(program.clusters.len() as u32..) {
            trace.add(ClusterId(id), selection);
        }
        program.clusters.append(added);
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

/// The table in which a view has the hosts of a port number: its own, or everybody's.
fn table(program: &Program, view: u32, number: u16) -> Option<HostTableId> {
    if view > 0 {
        return program.overlays.get(&(view, number)).copied();
    }
    program.ports.iter().find(|port| port.number == number && port.hosts != NO_HOSTS).map(|port| port.hosts)
}

/// An entry of a table.
struct Found<'p> {
    table: HostTableId,
    position: usize,
    /// `None`: it is nobody's.
    host: Option<&'p Arc<VirtualHost>>,
}

fn found(program: &Program, table: HostTableId, index: u32) -> Option<Found<'_>> {
    let (own, position) = (program.host_tables.get(table.index())?, index as usize);
    Some(Found { table, position, host: own.hosts.get(position) })
}

fn place<'p>(program: &'p Program, table: HostTableId, host: &str) -> Option<Found<'p>> {
    let index = *program.host_tables.get(table.index())?.names.get(host)?;
    found(program, table, index)
}

fn of_suffix<'p>(program: &'p Program, table: HostTableId, suffix: &str) -> Option<Found<'p>> {
    let (_, index) = program.host_tables.get(table.index())?.suffixes.iter().find(|(own, _)| **own == *suffix)?;
    found(program, table, *index)
}
