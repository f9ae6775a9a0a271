//! Hosts of ServiceEntries as services of the registry: their ports, their endpoints and who comes first.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Findings;
use super::registry::{Backend, Registered, RegisteredPort, Registry, has_labels, protocol_of};
use super::visibility::is_public;
use crate::crd::{Mark, Metadata, Port, Resolution, ServiceEntry, TargetPort, Workload};
use crate::finding::{Severity, code};
use crate::snapshot::Snapshot;

/// Whether connections to its addresses are weir's business. Of a host that is for some clients alone, everybody else
/// would be steered too.
pub(super) fn is_asked_for(entry: &ServiceEntry) -> bool {
    entry.resolution == Resolution::Static && is_public(&entry.export_to)
}

/// The entries that somebody sees, the oldest first.
fn visible(snapshot: &Snapshot) -> Vec<&ServiceEntry> {
    let mut entries: Vec<&ServiceEntry> = snapshot.service_entries.values().map(|entry| &**entry).collect();
    entries.retain(|entry| !entry.export_to.iter().any(|name| **name == *"~"));
    entries.sort_by(|a, b| a.meta.seniority().cmp(&b.meta.seniority()));
    entries
}

/// Adds the hosts that no Service has; of several entries for one host the oldest has it.
pub(super) fn register<'s>(snapshot: &'s Snapshot, registry: &mut Registry<'s>) {
    for entry in visible(snapshot) {
        for host in &entry.hosts {
            // Many hosts in one: nobody has the endpoints of each.
            if host.name.starts_with('*') || registry.by_host.contains_key(&host.name) {
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
            registry.services.push(Registered { object: &host.service, entry: Some(entry), fqdn, ports });
        }
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
        workload.ip().map(|ip| Backend { address: address(ip), pod: None, labels, is_pod: false, ready: true })
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
        if !is_public(&entry.export_to) && entry.resolution == Resolution::Static {
            let message = "exportTo is not told apart yet: connections to its addresses pass as without weir, whoever the client is; rules of every namespace may send to its hosts";
            findings.push(Severity::Warning, code::NOT_SUPPORTED, &entry.meta, Mark::default(), message.to_owned());
        }
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
                let name = &first.object.meta.object;
                findings.push(
                    Severity::Warning,
                    code::NO_EFFECT,
                    &entry.meta,
                    host.mark,
                    format!("{} has no effect here: {name} comes first for the same host", host.name),
                );
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
