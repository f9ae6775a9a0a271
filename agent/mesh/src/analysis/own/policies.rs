//! AuthorizationPolicies whose conditions mean something else than they seem to: identities of clients in plain text,
//! identities as certificates spell them, and ports of Services.

use std::collections::{BTreeMap, BTreeSet};

use super::super::findings::{Findings, few};
use super::super::input::{Input, SECURITY};
use super::super::sources::Resource;
use super::super::tree::{Tree, selects};
use super::super::workloads::Workload;
use crate::crd::{Node, Value};
use crate::finding::{Severity, code};

/// How a certificate spells an identity, and policies do not.
const SCHEME: &str = "spiffe://";
/// Conditions that a client without mutual TLS meets, as it has no identity.
const NEGATIVE: [&str; 3] = ["notPrincipals", "notNamespaces", "notServiceAccounts"];
/// Conditions that it never meets.
const POSITIVE: [&str; 3] = ["principals", "namespaces", "serviceAccounts"];

/// Looks at every AuthorizationPolicy that is in force.
pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    let policies = input.all(SECURITY, "AuthorizationPolicy").iter();
    for policy in policies.filter(|policy| !input.is_refused(policy)) {
        let rules = || policy.node.items("spec.rules").iter();
        for source in rules().flat_map(|rule| rule.items("from")).filter_map(|from| from.at("source")) {
            without_identity(policy, source, findings);
            spelling(policy, source, findings);
        }
        let operations = rules().flat_map(|rule| rule.items("to")).filter_map(|to| to.at("operation"));
        let nodes: Vec<&Node> = operations.flat_map(|to| to.texts("ports").chain(to.texts("notPorts"))).collect();
        if !nodes.is_empty() {
            ports(policy, &nodes, input, findings);
        }
    }
}

fn without_identity(policy: &Resource, source: &Node, findings: &mut Findings) {
    if POSITIVE.iter().any(|field| source.texts(field).next().is_some()) {
        return;
    }
    let Some(field) = NEGATIVE.into_iter().find(|field| source.texts(field).next().is_some()) else { return };
    let (severity, effect) = match policy.node.text_at("spec.action") {
        "" | "ALLOW" => (Severity::Warning, "is allowed, too"),
        "DENY" => (Severity::Info, "is refused, too"),
        _ => (Severity::Info, "is meant, too"),
    };
    findings.at(
        severity,
        code::PLAIN_TEXT_MATCHES,
        policy,
        source.mark_of(field),
        format!("a client that comes without mutual TLS has no identity, so it meets {field}: it {effect}"),
        "name beside it who is meant (principals: [\"*\"] is every client with an identity)",
    );
}

fn spelling(policy: &Resource, source: &Node, findings: &mut Findings) {
    for field in ["principals", "notPrincipals"] {
        for node in source.texts(field) {
            let Some(bare) = node.text().and_then(|text| text.strip_prefix(SCHEME)) else { continue };
            let effect = if field == "principals" { "it matches nobody" } else { "it excludes nobody" };
            findings.add(
                code::SPIFFE_SCHEME,
                policy,
                node.mark,
                format!("identities are compared without {SCHEME}: {effect}"),
                &format!("write {bare}"),
            );
        }
    }
}

/// Ports of Services that the pods, at which policies are enforced, do not have.
fn ports(policy: &Resource, nodes: &[&Node], input: &Input<'_>, findings: &mut Findings) {
    let selector = policy.node.labels("spec.selector.matchLabels");
    let everywhere = &**policy.namespace() == input.root_namespace();
    let has_target = policy.node.at("spec.targetRef").is_some() || !policy.node.items("spec.targetRefs").is_empty();
    let wanted: BTreeSet<i64> = nodes.iter().filter_map(|node| node.text()?.parse().ok()).collect();
    if everywhere || has_target || wanted.is_empty() {
        return;
    }
    let found = input.workloads.select(Some(policy.namespace()), &selector);
    let mut own: BTreeSet<i64> = found.iter().flat_map(|workload| containers(workload)).map(|(_, port)| port).collect();
    // By the port of a Service: the Services, and where they lead.
    let mut leads: BTreeMap<i64, (BTreeSet<&str>, BTreeSet<i64>)> = BTreeMap::new();
    let near = |service: &&super::super::input::Service<'_>| {
        !service.selector.is_empty() && service.resource.namespace() == policy.namespace()
    };
    for service in input.services.iter().filter(near) {
        let Some(workload) = found.iter().find(|workload| selects(&service.selector, &workload.labels)) else {
            continue;
        };
        for port in service.ports {
            let number = port.int_at("port").unwrap_or(0);
            let target = match port.at("targetPort").map(|target| &target.value) {
                Some(Value::Text(name)) => containers(workload).find(|(own, _)| **own == **name).map(|(_, port)| port),
                Some(Value::Int(target)) if *target != 0 => Some(*target),
                _ => Some(number),
            };
            let Some(target) = target else { continue };
            own.insert(target);
            if wanted.contains(&number) {
                let (names, targets) = leads.entry(number).or_default();
                names.insert(service.resource.name());
                targets.insert(target);
            }
        }
    }
    for node in nodes {
        let number = node.text().and_then(|text| text.parse::<i64>().ok()).filter(|number| !own.contains(number));
        let Some((number, (names, targets))) = number.and_then(|number| Some((number, leads.get(&number)?))) else {
            continue;
        };
        let targets = few(targets, targets.len(), ", ");
        findings.add(
            code::SERVICE_PORT_IN_POLICY,
            policy,
            node.mark,
            format!(
                "{number} is a port of Service {}, whose pods listen on {targets}: policies compare the port of the pod, so it never matches",
                few(names, names.len(), " and ")
            ),
            &format!("write {targets}"),
        );
    }
}

/// Names and numbers of the ports that a workload's containers declare.
fn containers<'s>(workload: &Workload<'s>) -> impl Iterator<Item = (&'s str, i64)> {
    let node = &workload.resource.node;
    let list = if workload.is_pod { "spec.containers" } else { "spec.template.spec.containers" };
    let ports = node.items(list).iter().flat_map(|container| container.items("ports"));
    ports.map(|port| (port.text_at("name"), port.int_at("containerPort").unwrap_or(0)))
}
