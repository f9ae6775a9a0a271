//! Sidecar objects: those for the same pod, and those that limit nothing because there is no sidecar.

use super::findings::Findings;
use super::input::{Input, NETWORKING};
use super::sources::Resource;
use super::telemetry::{overlaps, several_defaults};
use super::tree::Tree;
use crate::finding::code;

const SELECTOR: &str = "spec.workloadSelector.labels";

pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    let all = input.all(NETWORKING, "Sidecar");
    overlaps(all, SELECTOR, code::SIDECARS_OVERLAP, input, findings, |workload| workload.is_ambient);
    let (without, with): (Vec<&Resource>, Vec<&Resource>) =
        all.iter().copied().partition(|sidecar| sidecar.node.labels(SELECTOR).is_empty());
    let in_ambient = |r: &&Resource| input.namespace(r.namespace()).is_some_and(is_ambient);
    let defaults: Vec<&Resource> = without.iter().copied().filter(|r| !in_ambient(r)).collect();
    several_defaults(&defaults, code::SIDECARS_DEFAULT, input, findings);
    let selects_ambient = |r: &&Resource| {
        let selected = input.workloads.select(Some(r.namespace()), &r.node.labels(SELECTOR));
        selected.iter().any(|workload| workload.is_ambient)
    };
    let ineffective = without.into_iter().filter(in_ambient).chain(with.into_iter().filter(selects_ambient));
    for sidecar in ineffective {
        findings.add(
            code::NO_IMPACT,
            sidecar,
            sidecar.node.mark_of("spec"),
            "the policy has no impact: its pods have no sidecar".to_owned(),
            "limit what pods may reach by AuthorizationPolicy at the destination, and what they see by exportTo",
        );
    }
    for sidecar in all {
        if sidecar.node.at("spec.outboundTrafficPolicy.egressProxy").is_some() {
            findings.add(
                code::DEPRECATED,
                sidecar,
                sidecar.node.mark_of("spec.outboundTrafficPolicy.egressProxy"),
                "outboundTrafficPolicy.egressProxy is ignored".to_owned(),
                "remove it",
            );
        }
    }
}

/// The namespace's pods are without sidecars.
fn is_ambient(namespace: &Resource) -> bool {
    let label = |key: &str| namespace.meta.label(key);
    label("istio-injection") != Some("enabled")
        && label("istio.io/rev").is_none_or(str::is_empty)
        && label("istio.io/dataplane-mode") == Some("ambient")
}
