//! DestinationRules: the host that they are for, the pods that their subsets select, how TLS is checked.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::findings::Findings;
use super::hosts::Host;
use super::input::{DestinationRule, Input, NETWORKING, scopes};
use super::tree::{Tree, selects, shown};
use crate::crd::{Labels, Node};
use crate::finding::code;

/// Different label sets that a message lists before it stops.
const MAX_LISTED: usize = 4;
/// Tells the ReplicaSets of a Deployment apart: noise in a message.
const TEMPLATE_HASH: &str = "pod-template-hash";

pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    for rule in &input.destination_rules {
        authorities(rule, findings);
        host(rule, input, findings);
    }
}

fn host(rule: &DestinationRule<'_>, input: &Input<'_>, findings: &mut Findings) {
    if rule.written.is_empty() || !input.sources.is_read("Service") {
        return;
    }
    let mark = rule.resource.node.mark_of("spec.host");
    if let Some(suffix) = rule.host.strip_prefix('*') {
        if input.hosts.covered(suffix).next().is_none() {
            let message = format!("no service has a name that {} covers: the rule has no effect", rule.written);
            findings.add(code::RULE_WITHOUT_HOST, rule.resource, mark, message, "");
        }
        return;
    }
    let seen_in = scopes(&rule.export_to, rule.resource.namespace());
    let Some(found) = input.hosts.find(&rule.host, rule.resource.namespace(), &seen_in) else {
        let domain = &input.sources.options().compile.cluster_domain;
        findings.add(
            code::RULE_WITHOUT_HOST,
            rule.resource,
            mark,
            format!("{} is no service here: the rule has no effect", rule.host),
            &input.hosts.suggestion(rule.written, rule.resource.namespace(), domain).unwrap_or_default(),
        );
        return;
    };
    if rule.subsets.is_empty() || !input.sources.is_read("Pod") {
        return;
    }
    let behind = behind(found, input);
    for subset in rule.subsets {
        let labels = subset.labels("labels");
        if !behind.iter().any(|have| selects(&labels, have)) {
            empty_subset(rule, subset, &labels, found, &behind, findings);
        }
    }
}

/// The label sets of what a host stands for: pods, templates, and endpoints that are written by hand.
fn behind(host: &Host<'_>, input: &Input<'_>) -> BTreeSet<Labels> {
    let namespace = host.resource.namespace();
    let mut found: BTreeSet<Labels> = BTreeSet::new();
    match &host.selector {
        Some(selector) => {
            let selected = input.workloads.select(Some(namespace), selector);
            found.extend(selected.into_iter().map(|workload| workload.labels.clone()));
            if !host.is_service {
                let entries =
                    input.all(NETWORKING, "WorkloadEntry").iter().filter(|entry| entry.namespace() == namespace);
                let labels = entries.map(|entry| entry.node.labels("spec.labels"));
                found.extend(labels.filter(|labels| selects(selector, labels)));
            }
        }
        // Whoever writes the endpoints knows the pods: any of the namespace may be one.
        None if host.is_service => {
            let all = input.workloads.select(Some(namespace), &Labels::new());
            found.extend(all.into_iter().map(|workload| workload.labels.clone()));
        }
        None => {
            let endpoints = host.resource.node.items("spec.endpoints");
            if endpoints.is_empty() {
                // One endpoint, the host itself, without labels.
                found.insert(Labels::new());
            }
            found.extend(endpoints.iter().map(|endpoint| endpoint.labels("labels")));
        }
    }
    found
}

fn empty_subset(
    rule: &DestinationRule<'_>,
    subset: &Node,
    labels: &Labels,
    host: &Host<'_>,
    behind: &BTreeSet<Labels>,
    findings: &mut Findings,
) {
    let without_hash = |labels: &Labels| {
        let labels = labels.without(TEMPLATE_HASH);
        if labels.is_empty() { "no label".to_owned() } else { shown(&labels) }
    };
    let lacking: Labels = labels
        .iter()
        .filter(|(key, value)| !behind.iter().any(|have| have.get(key) == Some(*value)))
        .map(|(key, value)| (Arc::clone(key), Arc::clone(value)))
        .collect();
    let lacking = if lacking.is_empty() { "all of its labels together".to_owned() } else { shown(&lacking) };
    let have: BTreeSet<String> = behind.iter().map(without_hash).collect();
    let have = match have.len() {
        0 => "there is none".to_owned(),
        n if n <= MAX_LISTED => format!("they have {}", Vec::from_iter(have).join(" and ")),
        n => {
            let listed: Vec<String> = have.into_iter().take(MAX_LISTED).collect();
            format!("they have {} and {} more", listed.join(" and "), n - MAX_LISTED)
        }
    };
    findings.add(
        code::EMPTY_SUBSET,
        rule.resource,
        subset.mark,
        format!(
            "subset {} selects no pod: no pod of {} has {lacking} ({have}); its share of the traffic is refused with 503",
            subset.text_at("name"),
            host.resource.name()
        ),
        &format!("label the pods of the subset with {}, or mend its labels", shown(labels)),
    );
}

/// TLS that checks the server's certificate against no authority that is named.
fn authorities(rule: &DestinationRule<'_>, findings: &mut Findings) {
    let Some(policy) = rule.policy else { return };
    let has_selector = rule.resource.node.at("spec.workloadSelector").is_some();
    let unchecked = |level: &Node| {
        let credential = !level.text_at("tls.credentialName").is_empty() && has_selector;
        matches!(level.text_at("tls.mode"), "SIMPLE" | "MUTUAL")
            && level.text_at("tls.caCertificates").is_empty()
            && !credential
    };
    let help = "name the file of the authority in caCertificates (`system` for those of the image)";
    let message = |level: &Node, at: &str| {
        format!(
            "tls.mode {} without caCertificates{at}: which authorities the certificate of {} is checked against is up to the proxy's image",
            level.text_at("tls.mode"),
            rule.written
        )
    };
    if unchecked(policy) {
        findings.add(code::NO_CA, rule.resource, policy.mark_of("tls"), message(policy, ""), help);
    }
    for level in policy.items("portLevelSettings") {
        if unchecked(level) {
            let port = level.int_at("port.number").unwrap_or(0);
            let message = message(level, &format!(" at port {port}"));
            findings.add(code::NO_CA_PORT, rule.resource, level.mark_of("tls"), message, help);
        }
    }
}
