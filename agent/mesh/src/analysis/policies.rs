//! AuthorizationPolicy and its like: whom they select, the namespaces that they name, and conditions that are not met.

use super::findings::Findings;
use super::input::{Input, NETWORKING, SECURITY, TELEMETRY};
use super::sources::Resource;
use super::tree::{Tree, selects, shown};
use crate::crd::{Mark, Node};
use crate::finding::code;

/// The label that ties a pod to a Gateway of the Gateway API.
const GATEWAY_NAME: [&str; 2] = ["gateway.networking.k8s.io/gateway-name", "istio.io/gateway-name"];

pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    for kind in ["PeerAuthentication", "RequestAuthentication"] {
        for policy in input.all(SECURITY, kind).iter().filter(|policy| policy.node.at("spec.selector").is_some()) {
            if input.sources.is_read("Pod") {
                workloads(policy, input, findings);
            }
        }
    }
    for policy in input.all(SECURITY, "AuthorizationPolicy") {
        if input.sources.is_read("Pod") {
            workloads(policy, input, findings);
        }
        if input.sources.is_read("Namespace") {
            namespaces(policy, input, findings);
        }
        allow(policy, findings);
        watches(policy, findings);
    }
    let selecting = [
        (SECURITY, "AuthorizationPolicy"),
        (SECURITY, "RequestAuthentication"),
        (TELEMETRY, "Telemetry"),
        ("extensions.istio.io", "WasmPlugin"),
    ];
    for (group, kind) in selecting {
        for policy in input.all(group, kind) {
            on_gateway(policy, input, findings);
        }
    }
    let conditional = [("", "Service"), (NETWORKING, "ServiceEntry"), (SECURITY, "AuthorizationPolicy")];
    for (group, kind) in conditional {
        for resource in input.all(group, kind) {
            conditions(resource, findings);
        }
    }
}

fn has_target(policy: &Resource) -> bool {
    policy.node.at("spec.targetRef").is_some() || !policy.node.items("spec.targetRefs").is_empty()
}

fn workloads(policy: &Resource, input: &Input<'_>, findings: &mut Findings) {
    let node = &policy.node;
    if has_target(policy) {
        return;
    }
    let selector = node.labels("spec.selector.matchLabels");
    let has_selector = node.at("spec.selector").is_some();
    let everywhere = &**policy.namespace() == input.root_namespace();
    let namespace = (!everywhere).then_some(&**policy.namespace());
    if everywhere && !has_selector {
        return;
    }
    let found = input.workloads.select(namespace, &selector);
    if found.iter().any(|workload| workload.in_mesh) {
        return;
    }
    let place = namespace.map_or_else(|| "the mesh".to_owned(), |namespace| format!("namespace {namespace}"));
    let (what, help) = match (has_selector, found.is_empty()) {
        (false, true) => {
            (format!("there is no pod in {place}"), "write it in the namespace of the pods that it is for")
        }
        (false, false) => {
            (format!("no pod in {place} takes part in the mesh"), "label the namespace weir.mesh/mode=enabled")
        }
        (true, true) => (
            format!("no pod in {place} has the labels {}", shown(&selector)),
            "mend spec.selector.matchLabels: it holds for pods, not for Services",
        ),
        (true, false) => (
            format!("the pods in {place} with {} do not take part in the mesh", shown(&selector)),
            "label their namespace weir.mesh/mode=enabled",
        ),
    };
    let mark = node.mark_of("spec.selector");
    findings.add(code::NO_WORKLOAD, policy, mark, format!("{what}: the policy protects nothing"), help);
}

fn namespaces(policy: &Resource, input: &Input<'_>, findings: &mut Findings) {
    let rules = policy.node.items("spec.rules").iter();
    for source in rules.flat_map(|rule| rule.items("from")).filter_map(|from| from.at("source")) {
        for field in ["namespaces", "notNamespaces"] {
            for node in source.texts(field) {
                let pattern = node.text().unwrap_or_default();
                if !input.namespaces().any(|namespace| fits(namespace.name(), pattern)) {
                    let consequence = if field == "namespaces" { "it matches nobody" } else { "it excludes nobody" };
                    findings.add(
                        code::REFERENCE,
                        policy,
                        node.mark,
                        format!("namespace not found: \"{pattern}\" in {field}; {consequence}"),
                        "",
                    );
                }
            }
        }
    }
}

/// `*`, `prefix*`, `*suffix` or a name.
fn fits(namespace: &str, pattern: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => namespace.ends_with(suffix),
        (None, Some(prefix)) => namespace.starts_with(prefix),
        (None, None) => namespace.eq_ignore_ascii_case(pattern),
    }
}

/// Refuses nobody, and is written for what it would tell of.
fn watches(policy: &Resource, findings: &mut Findings) {
    let (mark, what) = if policy.meta.annotation("istio.io/dry-run") == Some("true") {
        (policy.node.mark_of("metadata.annotations"), "a dry run")
    } else if policy.node.text_at("spec.action") == "AUDIT" {
        (policy.node.mark_of("spec.action"), "the action AUDIT")
    } else {
        return;
    };
    let message = format!("{what} is not supported yet: what the policy takes is written down nowhere");
    findings.add(code::NOT_SUPPORTED, policy, mark, message, "");
}

fn allow(policy: &Resource, findings: &mut Findings) {
    let node = &policy.node;
    if !matches!(node.text_at("spec.action"), "" | "ALLOW") {
        return;
    }
    let rules = node.items("spec.rules");
    let takes_all = |rule: &Node| ["from", "to", "when"].iter().all(|field| rule.at(field).is_none());
    if rules.iter().any(takes_all) {
        return;
    }
    let selector = node.labels("spec.selector.matchLabels");
    let whom = if selector.is_empty() {
        "every pod that it is for".to_owned()
    } else {
        format!("pods with {}", shown(&selector))
    };
    let what = if rules.is_empty() {
        "it has no rules, so all requests"
    } else {
        "all requests that none of its rules and of no other ALLOW policy take"
    };
    findings.add(
        code::ALLOW_DENIES,
        policy,
        node.mark_of("spec.rules"),
        format!(
            "as soon as one ALLOW policy selects a pod, what no policy allows is refused: {what} to {whom} get 403"
        ),
        "to refuse some and leave the rest as it is, write action: DENY",
    );
}

/// A selector that means the pods of a Gateway of the Gateway API, which policies have to name.
fn on_gateway(policy: &Resource, input: &Input<'_>, findings: &mut Findings) {
    let node = &policy.node;
    if has_target(policy) || node.at("spec.selector").is_none() {
        return;
    }
    let selector = node.labels("spec.selector.matchLabels");
    let pods = input.workloads.select(Some(policy.namespace()), &selector);
    let named = pods.iter().filter(|pod| selects(&selector, &pod.labels));
    let gateways = named.filter_map(|pod| GATEWAY_NAME.iter().find_map(|key| pod.labels.get(key)));
    for gateway in gateways.collect::<std::collections::BTreeSet<_>>() {
        findings.add(
            code::SELECTOR_ON_GATEWAY,
            policy,
            node.mark_of("spec.selector"),
            format!("its selector means pods of the Gateway {gateway}, for which selectors do not hold: it has no effect there"),
            &format!("write targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: {gateway}}}]"),
        );
    }
}

fn conditions(resource: &Resource, findings: &mut Findings) {
    for condition in resource.node.items("status.conditions") {
        if condition.text_at("status") == "False" {
            findings.add(
                code::CONDITION,
                resource,
                Mark::default(),
                format!(
                    "its condition {} is False ({}): {}",
                    condition.text_at("type"),
                    condition.text_at("reason"),
                    condition.text_at("message")
                ),
                "",
            );
        }
    }
}
