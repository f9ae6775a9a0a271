//! Hosts of ServiceEntries as services of the registry: their ports, their endpoints and who comes first.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Findings;
use super::registry::{Backend, Registered, RegisteredPort, Registry, has_labels, protocol_of};
use crate::crd::{EntryHost, Mark, Metadata, Port, Resolution, ServiceEntry, ServiceType, TargetPort, Workload};
use crate::finding::{Severity, code};
use crate::program::canonical_place;
use crate::snapshot::Snapshot;

/// Whether connections to its addresses are weir's business.
pub(super) fn is_asked_for(entry: &ServiceEntry) -> bool {
    entry.resolution == Resolution::Static
}

/// Whether an entry adds to a service that has its host already: to a Service of its own namespace its endpoints, to an
/// older entry there, for the same clients, ports and addresses too.
fn adds_to(entry: &ServiceEntry, first: &Registered<'_>) -> bool {
    let alike = match first.entry {
        Some(own) => is_asked_for(own) && own.export_to == entry.export_to,
        None => first.object.kind == ServiceType::ClusterIp,
    };
    is_asked_for(entry) && entry.meta.namespace() == first.namespace() && alike
}

/// The entries that somebody sees, the oldest first.
fn visible(snapshot: &Snapshot) -> Vec<&ServiceEntry> {
    let mut entries: Vec<&ServiceEntry> = snapshot.service_entries.values().map(|entry| &**entry).collect();
    entries.retain(|entry| !entry.export_to.iter().any(|name| **name == *"~"));
    entries.sort_by(|a, b| a.meta.seniority().cmp(&b.meta.seniority()));
    entries
}

/// Adds the hosts of entries. What several have for one host of a namespace is put together; of several namespaces a
/// Service comes first, then the oldest entry.
pub(super) fn register<'s>(snapshot: &'s Snapshot, registry: &mut Registry<'s>) {
    for entry in visible(snapshot) {
        for host in &entry.hosts {
            // Many hosts in one: nobody has the endpoints of each.
            if host.name.starts_with('*') {
                continue;
            }
            if let Some(first) = registry.find(&host.name) {
                if adds_to(entry, &registry.services[first]) {
                    add(entry, host, first, snapshot, registry);
                }
                continue;
            }
            let ports = host.service.ports.iter().filter(|port| !port.udp).map(|port| RegisteredPort {
                port,
                protocol: protocol_of(port).0,
                endpoints: endpoints(entry, port, snapshot, registry),
            });
            let ports = ports.collect();
            registry.by_host.insert(Arc::clone(&host.name), registry.services.len());
            let fqdn = Arc::clone(&host.name);
            let object = &host.service;
            registry.services.push(Registered { object, entry: Some(entry), fqdn, ports, more_addresses: Vec::new() });
        }
    }
}

/// Adds what an entry has for a host to what is there.
fn add<'s>(
    entry: &'s ServiceEntry,
    host: &'s EntryHost,
    first: usize,
    snapshot: &'s Snapshot,
    registry: &mut Registry<'s>,
) {
    for port in host.service.ports.iter().filter(|port| !port.udp) {
        let endpoints = endpoints(entry, port, snapshot, registry);
        let protocol = protocol_of(port).0;
        let service = &mut registry.services[first];
        match service.position(port.number) {
            Some(position) if service.entry.is_none() || service.ports[position].protocol == protocol => {
                let held = &mut service.ports[position].endpoints;
                held.extend(endpoints);
                held.sort_by_key(|backend| backend.address);
                held.dedup_by_key(|backend| backend.address);
            }
            None if service.entry.is_some() => service.ports.push(RegisteredPort { port, protocol, endpoints }),
            _ => {}
        }
    }
    let service = &mut registry.services[first];
    if service.entry.is_some() {
        let new: Vec<IpAddr> = host.service.addresses.iter().copied().filter(|ip| !service.has(*ip)).collect();
        service.more_addresses.extend(new);
    }
}

fn endpoints(entry: &ServiceEntry, port: &Port, snapshot: &Snapshot, registry: &Registry<'_>) -> Vec<Backend> {
    if entry.resolution != Resolution::Static {
        return Vec::new();
    }
    let TargetPort::Number(target) = port.target else {
        return Vec::new();
    };
    let of_workload = |workload: &Workload| {
        let number = workload.port(&port.name).unwrap_or(target);
        let labels = Some(Arc::new(workload.labels.clone()));
        let address = |ip| SocketAddr::new(ip, number);
        workload.ip().map(|ip| Backend {
            address: address(ip),
            pod: None,
            labels,
            is_pod: false,
            ready: true,
            weight: workload.weight,
            place: Some(canonical_place(&workload.locality)),
        })
    };
    let mut found: Vec<Backend> = entry.endpoints.iter().filter_map(of_workload).collect();
    if let Some(selector) = &entry.selector {
        for index in registry.pods.select(entry.meta.namespace(), selector) {
            let pod = registry.pods.get(index);
            let addresses = pod.addresses.iter().filter(|_| pod.ready);
            found.extend(addresses.map(|ip| Backend {
                address: SocketAddr::new(*ip, target),
                pod: Some(index),
                labels: None,
                is_pod: true,
                ready: true,
                weight: 1,
                place: None,
            }));
        }
        let own = |other: &Metadata| other.namespace() == entry.meta.namespace() && has_labels(&other.labels, selector);
        let workloads = snapshot.workload_entries.values().filter(|workload| own(&workload.meta));
        found.extend(workloads.filter_map(|workload| of_workload(&workload.workload)));
    }
    found.sort_by_key(|backend| backend.address);
    found.dedup_by_key(|backend| backend.address);
    found
}

/// What is written and does not do what it seems to.
pub(super) fn lint(snapshot: &Snapshot, registry: &Registry<'_>, findings: &mut Findings) {
    for entry in visible(snapshot) {
        for workload in entry.endpoints.iter().filter(|workload| workload.ip().is_none()) {
            if entry.resolution == Resolution::Static {
                findings.push(
                    Severity::Warning,
                    code::NOT_SUPPORTED,
                    &entry.meta,
                    workload.mark,
                    format!("the endpoint {} is no IP address: nothing is sent to it", workload.address),
                );
            }
        }
        for host in &entry.hosts {
            if host.name.starts_with('*') {
                findings.push(
                    Severity::Warning,
                    code::NOT_SUPPORTED,
                    &entry.meta,
                    host.mark,
                    format!("{} stands for many hosts: connections to them pass as without weir", host.name),
                );
                continue;
            }
            let first = registry.find(&host.name).map(|index| &registry.services[index]);
            if let Some(first) = first.filter(|first| !first.entry.is_some_and(|own| std::ptr::eq(own, entry))) {
                shared(entry, host, first, findings);
            }
        }
        if is_asked_for(entry) && entry.hosts.iter().all(|host| host.service.addresses.is_empty()) {
            findings.push(
                Severity::Info,
                code::NO_EFFECT,
                &entry.meta,
                Mark::default(),
                "it has no addresses: connections pass as without weir, and rules may send to its hosts".to_owned(),
            );
        }
    }
}

/// Tells what of a host that another object has too is not in force.
fn shared(entry: &ServiceEntry, host: &EntryHost, first: &Registered<'_>, findings: &mut Findings) {
    let name = &first.object.meta.object;
    let mut tell = |message: String| {
        findings.push(Severity::Warning, code::NO_EFFECT, &entry.meta, host.mark, message);
    };
    if !adds_to(entry, first) {
        tell(format!("{} has no effect here: {name} comes first for the same host", host.name));
        return;
    }
    for port in host.service.ports.iter().filter(|port| !port.udp) {
        let held = first.position(port.number).map(|position| &first.ports[position]);
        let why = match (held, first.entry) {
            (None, None) => "does not have",
            (Some(held), Some(_)) if held.protocol != protocol_of(port).0 => "has for another protocol",
            _ => continue,
        };
        tell(format!(
            "port {} of {} has no effect: {name} comes first for the host, and {why} it",
            port.number, host.name
        ));
    }
    if first.entry.is_none() && !host.service.addresses.is_empty() {
        tell(format!("addresses of {} have no effect: those of {name} are in force", host.name));
    }
}
