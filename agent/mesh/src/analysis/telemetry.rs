//! Telemetry: selectors without pods, objects for the same pod, providers that are missing.

use std::collections::BTreeMap;

use super::findings::{Findings, MAX_NAMED, few};
use super::input::{Input, TELEMETRY};
use super::sources::Resource;
use super::tree::{Tree, shown};
use crate::finding::code;
use crate::source::ObjectRef;

pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    let all = input.all(TELEMETRY, "Telemetry");
    overlaps(all, "spec.selector.matchLabels", code::TELEMETRY_OVERLAP, input, findings, |_| false);
    let has_target =
        |r: &Resource| r.node.at("spec.targetRef").is_some() || !r.node.items("spec.targetRefs").is_empty();
    let defaults: Vec<&Resource> =
        all.iter().copied().filter(|r| r.node.at("spec.selector").is_none() && !has_target(r)).collect();
    several_defaults(&defaults, code::TELEMETRY_DEFAULT, input, findings);
    providers(all, input, findings);
}

/// An object, how many workloads it shares with others, and the first of them with who selects it.
type Shared<'s> = (&'s Resource, usize, Vec<(&'s ObjectRef, &'s [&'s Resource])>);

/// Objects with a selector: those that select no pod, and those that select the same one. `other` = a pod whose
/// overlaps are no conflict.
pub(super) fn overlaps(
    all: &[&Resource],
    path: &str,
    code: &'static str,
    input: &Input<'_>,
    findings: &mut Findings,
    other: impl Fn(&super::workloads::Workload<'_>) -> bool,
) {
    let parent = path.rsplit_once('.').map_or(path, |(parent, _)| parent);
    let mut by_workload: BTreeMap<(bool, &ObjectRef), Vec<&Resource>> = BTreeMap::new();
    let mut pods_overlap = false;
    let mut all = all.to_vec();
    all.sort_by(|a, b| a.meta.seniority().cmp(&b.meta.seniority()));
    for resource in all {
        let selector = resource.node.labels(path);
        if selector.is_empty() {
            continue;
        }
        let found = input.workloads.select(Some(resource.namespace()), &selector);
        if found.is_empty() && input.sources.is_read("Pod") {
            findings.add(
                code::REFERENCE,
                resource,
                resource.node.mark_of(parent),
                format!(
                    "selector not found: \"{}\"; no pod in namespace {} has these labels, so it has no effect",
                    shown(&selector),
                    resource.namespace()
                ),
                "mend the labels: they are those of pods",
            );
        }
        if input.is_refused(resource) {
            continue;
        }
        for workload in found.into_iter().filter(|workload| !other(workload)) {
            let list = by_workload.entry((workload.is_pod, &workload.resource.meta.object)).or_default();
            list.push(resource);
            pods_overlap |= workload.is_pod && list.len() > 1;
        }
    }
    // Where pods tell it, their templates would tell it again.
    let told = by_workload.iter().filter(|((is_pod, _), list)| list.len() > 1 && (*is_pod || !pods_overlap));
    let mut shared: BTreeMap<&ObjectRef, Shared<'_>> = BTreeMap::new();
    for ((_, workload), list) in told {
        for resource in list {
            let (_, count, named) = shared.entry(&resource.meta.object).or_insert_with(|| (*resource, 0, Vec::new()));
            *count += 1;
            if named.len() < MAX_NAMED {
                named.push((*workload, &**list));
            }
        }
    }
    for (resource, count, named) in shared.into_values() {
        let last = named.len() - 1;
        for (i, (workload, list)) in named.into_iter().enumerate() {
            let names = few(list.iter().map(|r| &r.meta.object), list.len(), ", ");
            let more = match count - last - 1 {
                more @ 1.. if i == last => format!("; it shares {more} more, too"),
                _ => String::new(),
            };
            findings.add(
                code,
                resource,
                resource.node.mark_of(parent),
                format!("{names} all select {workload}: only the oldest, {}, holds for it{more}", list[0].name()),
                "let each pod be selected by one of them",
            );
        }
    }
}

/// More than one of a namespace without a selector.
pub(super) fn several_defaults(defaults: &[&Resource], code: &'static str, input: &Input<'_>, findings: &mut Findings) {
    let mut by_namespace: BTreeMap<&str, Vec<&Resource>> = BTreeMap::new();
    for resource in defaults.iter().filter(|resource| !input.is_refused(resource)) {
        by_namespace.entry(resource.namespace()).or_default().push(resource);
    }
    for (namespace, mut list) in by_namespace.into_iter().filter(|(_, list)| list.len() > 1) {
        list.sort_by(|a, b| a.meta.seniority().cmp(&b.meta.seniority()));
        let names = few(list.iter().map(|r| r.name()), list.len(), ", ");
        for resource in &list {
            findings.add(
                code,
                resource,
                resource.node.mark_of("metadata.name"),
                format!(
                    "{names} in namespace {namespace} have no selector: only the oldest, {}, holds",
                    list[0].name()
                ),
                "merge them, or give all but one a selector",
            );
        }
    }
}

fn providers(all: &[&Resource], input: &Input<'_>, findings: &mut Findings) {
    let mesh = input.sources.mesh();
    let has_default = mesh.is_some_and(|mesh| !mesh.items("defaultProviders.accessLogging").is_empty());
    let extensions = mesh.map_or(&[][..], |mesh| mesh.items("extensionProviders")).iter();
    let lightstep: Vec<&str> = extensions
        .filter(|provider| provider.at("lightstep").is_some())
        .map(|provider| provider.text_at("name"))
        .collect();
    for resource in all {
        for (i, logging) in resource.node.items("spec.accessLogging").iter().enumerate() {
            if !has_default && !logging.flag_at("disabled") && logging.items("providers").is_empty() {
                findings.add(
                    code::NO_PROVIDER,
                    resource,
                    logging.mark,
                    format!("accessLogging[{i}] names no provider and the mesh has no default one: it is ignored"),
                    "add providers: [{name: envoy}]",
                );
            }
        }
        let tracing = resource.node.items("spec.tracing").iter().flat_map(|tracing| tracing.items("providers"));
        for provider in tracing.filter(|provider| lightstep.contains(&provider.text_at("name"))) {
            findings.add(
                code::DEPRECATED,
                resource,
                provider.mark,
                format!("the provider {} is of the kind lightstep, which no longer exists", provider.text_at("name")),
                "use the opentelemetry provider",
            );
        }
    }
}
