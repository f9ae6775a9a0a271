//! Services: port names, and workloads that several Services disagree about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::findings::Findings;
use super::input::{IGNORED_NAMESPACES, Input, Service};
use super::tree::{Tree, selects};
use super::workloads::Workload;
use crate::compile::protocol_of;
use crate::crd::{Node, Port, TargetPort, Value};
use crate::finding::code;

/// The label of what a Gateway of the Gateway API made: nobody wrote the names of its ports.
const MANAGED: &str = "gateway.istio.io/managed";

pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    for service in &input.services {
        port_names(service, findings);
    }
    let mut by_namespace: BTreeMap<&str, Vec<&Service<'_>>> = BTreeMap::new();
    for service in input.services.iter().filter(|service| !service.selector.is_empty()) {
        by_namespace.entry(service.resource.namespace()).or_default().push(service);
    }
    for workload in input.workloads.all() {
        // What a Gateway of the Gateway API made has the Services that were made with it.
        let is_made = workload.resource.meta.label(MANAGED).is_some();
        if workload.resource.kind() == "Deployment" && workload.in_mesh && !is_made {
            let near = by_namespace.get(&**workload.resource.namespace()).map_or(&[][..], Vec::as_slice);
            disagreements(workload, near, findings);
        }
    }
}

fn port_names(service: &Service<'_>, findings: &mut Findings) {
    let meta = &service.resource.meta;
    let of_istio = meta.label("istio").is_some() || meta.label("release") == Some("istio");
    if of_istio || meta.label(MANAGED).is_some() || IGNORED_NAMESPACES.contains(&&**meta.namespace()) {
        return;
    }
    for node in service.ports {
        let port = port(node);
        let declared = port.udp || protocol_of(&port).1;
        let mark = node.mark_of("name");
        if service.is_external_name {
            if !declared || &*port.name == "tcp" {
                findings.add(
                    code::EXTERNAL_NAME_PORT,
                    service.resource,
                    mark,
                    format!(
                        "port {} of an ExternalName Service carries {}: it cannot be told from other TCP to that port",
                        port.number,
                        if declared { "TCP" } else { "an undeclared protocol" }
                    ),
                    "name it http, https or tls, or make a ServiceEntry for the outside host",
                );
            }
        } else if !declared {
            let named = if port.name.is_empty() { "has no name".to_owned() } else { format!("is named {}", port.name) };
            findings.add(
                code::PORT_NAME,
                service.resource,
                mark,
                format!(
                    "port {} {named}, which declares no protocol: it is detected from the first bytes",
                    port.number
                ),
                "name it http, or http-SOMETHING, or give appProtocol",
            );
        }
    }
}

fn port(node: &Node) -> Port {
    let number = node.int_at("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
    Port {
        mark: node.mark,
        name: node.text_at("name").into(),
        number,
        udp: node.text_at("protocol") == "UDP",
        sctp: node.text_at("protocol") == "SCTP",
        app_protocol: node.at("appProtocol").and_then(Node::text).map(Arc::from),
        target: TargetPort::Number(number),
    }
}

/// Services that lead to the same pods, and call their ports differently.
fn disagreements(workload: &Workload<'_>, near: &[&Service<'_>], findings: &mut Findings) {
    let resource = workload.resource;
    let services = near.iter().filter(|service| selects(&service.selector, &workload.labels));
    let mut transports: BTreeMap<i64, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    let mut numbers: BTreeMap<String, BTreeMap<i64, &str>> = BTreeMap::new();
    for service in services {
        let name = &**service.resource.name();
        for node in service.ports {
            let number = node.int_at("port").unwrap_or(0);
            let transport = match node.text_at("protocol") {
                "" => "TCP",
                other => other,
            };
            transports.entry(number).or_default().entry(transport).or_default().insert(name);
            let target = match node.at("targetPort").map(|target| &target.value) {
                Some(Value::Text(name)) => name.to_string(),
                Some(Value::Int(target)) if *target != 0 => target.to_string(),
                _ => number.to_string(),
            };
            numbers.entry(target).or_default().insert(number, name);
        }
    }
    let mark = resource.node.mark_of("metadata.name");
    for (number, by_transport) in transports.iter().filter(|(_, by_transport)| by_transport.len() > 1) {
        let names: BTreeSet<&str> = by_transport.values().flatten().copied().collect();
        findings.add(
            code::PORT_TRANSPORTS,
            resource,
            mark,
            format!(
                "Services {} lead to its pods with port {number} as {}: a pod's port is one of them",
                list(names),
                list(by_transport.keys().copied())
            ),
            "give the ports different numbers",
        );
    }
    for (target, by_number) in numbers.iter().filter(|(_, by_number)| by_number.len() > 1) {
        let names: BTreeSet<&str> = by_number.values().copied().collect();
        let ports = by_number.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        findings.add(
            code::PORT_NUMBERS,
            resource,
            mark,
            format!("its port {target} is reached as the ports {ports} (Services {}): policy for one of them does not hold for the other", list(names)),
            "use one port number for a targetPort",
        );
    }
}

fn list<'t>(names: impl IntoIterator<Item = &'t str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(" and ")
}
