//! Policies that this version does not enforce: what they protect refuses, and never stays open silently.

use super::registry::{Backend, Map, Registered, Registry, has_labels};
use super::{CompileOptions, EXCLUDED_NAMESPACES, Findings};
use crate::crd::{Mark, Protection};
use crate::finding::{Severity, code};
use crate::snapshot::Snapshot;

/// For each service, the first policy for which its ports must refuse.
pub(super) fn guards<'s>(
    snapshot: &'s Snapshot,
    registry: &Registry<'_>,
    options: &CompileOptions,
    findings: &mut Findings,
) -> Vec<Option<&'s Protection>> {
    let mut by_namespace: Map<&str, Vec<&Protection>> = Map::default();
    for protection in snapshot.protections.values().filter(|p| p.restricts) {
        by_namespace.entry(protection.meta.namespace()).or_default().push(protection);
        // What is wrong with one that cannot be read, and what it does, was said by whoever read it.
        if protection.broken {
            continue;
        }
        findings.push(
            Severity::Error,
            code::NOT_ENFORCED,
            &protection.meta,
            Mark::default(),
            format!(
                "{} is not enforced by this version: clients in the mesh are refused by the service ports in front of what it protects",
                protection.meta.object.kind
            ),
        );
    }
    let of = |namespace: &str| by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default();
    registry
        .services
        .iter()
        .map(|service| {
            let namespace = &**service.namespace();
            let mut own = of(namespace).iter().filter(|p| protects(p, service, registry, true));
            let root = if *options.root_namespace == *namespace { &[][..] } else { of(&options.root_namespace) };
            let mut root = root
                .iter()
                .filter(|p| !EXCLUDED_NAMESPACES.contains(&namespace) && protects(p, service, registry, false));
            own.next().or_else(|| root.next()).copied()
        })
        .collect()
}

fn protects(protection: &Protection, service: &Registered<'_>, registry: &Registry<'_>, own: bool) -> bool {
    if !protection.services.is_empty() {
        return own && service.entry.is_none() && protection.services.contains(service.name());
    }
    // A selector in the root namespace is ignored by PeerAuthentication alone; the stricter reading is the safe one.
    let selected = |backend: &Backend| match backend.pod.map(|index| registry.pods.get(index)) {
        Some(pod) => !pod.spec.host_network && has_labels(&pod.meta.labels, &protection.selector),
        None => backend.is_pod,
    };
    service.ports.iter().any(|port| port.endpoints.iter().any(selected))
}
