//! What is wrong with manifests taken together: `Sources → Vec<Finding>`, pure and deterministic. Called by the command
//! line on files and on what an API server lists.
//!
//! - `sources`: the objects as parsed trees; `input`: the same, indexed, with typed views
//! - one module for each family of analyzers; `own` has those that Istio's tool lacks
//! - `compiled`: what the compiler finds, by the compiler itself
//! - [`catalog`]: every code with its severity, cause, example and fix; docs/findings.md is made from it
//!
//! An analyzer is a function of the input that adds findings. It never fails: what it cannot read it leaves to validation.

use std::collections::BTreeSet;

use crate::finding::{Finding, Severity};
use crate::source::ObjectRef;

mod annotation_table;
mod annotations;
pub mod catalog;
mod certificate;
mod compiled;
mod destination_rules;
mod findings;
mod gateway_api;
mod gateway_rivals;
mod gateways;
mod hosts;
mod input;
mod mesh_config;
mod namespaces;
mod own;
mod policies;
mod service_entries;
mod services;
mod sidecars;
mod sources;
mod telemetry;
#[cfg(test)]
mod tests;
mod tree;
mod virtual_service;
mod workloads;

pub use sources::{OLDEST_KUBERNETES, Options, Sources};

use findings::Findings;
use input::{IGNORED_NAMESPACES, Input};
use sources::Resource;

/// Annotations that list codes, or `*`, which are not told of an object: Istio's and weir's.
const SUPPRESS: [&str; 2] = ["galley.istio.io/analyze-suppress", "weir.mesh/analyze-suppress"];

/// Analyzes everything. The findings are in the order of their places; those of an object that says so itself are left
/// out.
pub fn analyze(sources: &mut Sources) -> Vec<Finding> {
    sources.find_mesh_config();
    sources.settle();
    let mut findings = Findings::default();
    findings.extend(sources.take_findings());
    let sources = &*sources;
    let mut refused = BTreeSet::new();
    for resource in sources.resources() {
        let told = validate(resource);
        if told.iter().any(|finding| finding.severity == Severity::Error) {
            refused.insert(&resource.meta.object);
        }
        findings.extend(told);
    }
    mesh_config::analyze(sources, &mut findings);
    let input = Input::new(sources, &refused);
    annotations::analyze(&input, &mut findings);
    destination_rules::analyze(&input, &mut findings);
    gateway_api::analyze(&input, &mut findings);
    gateways::analyze(&input, &mut findings);
    namespaces::analyze(&input, &mut findings);
    policies::analyze(&input, &mut findings);
    service_entries::analyze(&input, &mut findings);
    services::analyze(&input, &mut findings);
    sidecars::analyze(&input, &mut findings);
    telemetry::analyze(&input, &mut findings);
    virtual_service::analyze(&input, &mut findings);
    own::analyze(&input, &mut findings);
    compiled::analyze(sources, &refused, &mut findings);
    let mut found = findings.into_vec();
    found.retain(|finding| !is_suppressed(finding, sources));
    found.sort_by(|a, b| {
        let key = |f: &Finding| (f.at.clone(), f.object.clone(), std::cmp::Reverse(f.severity), f.code);
        key(a).cmp(&key(b)).then_with(|| a.cmp(b))
    });
    found
}

/// The rules for one object by itself.
fn validate(resource: &Resource) -> Vec<Finding> {
    crate::validate::object(&resource.node, &resource.header, resource.file.as_ref())
}

fn is_suppressed(finding: &Finding, sources: &Sources) -> bool {
    let Some(object) = &finding.object else { return false };
    let namespace: &str = if &*object.kind == "Namespace" { &object.name } else { &object.namespace };
    if IGNORED_NAMESPACES.contains(&namespace) {
        return true;
    }
    resources_of(object, sources).any(|resource| {
        SUPPRESS
            .iter()
            .filter_map(|key| resource.meta.annotation(key))
            .any(|list| list.split(',').map(str::trim).any(|code| code == "*" || catalog::means(code, finding.code)))
    })
}

fn resources_of<'s>(object: &'s ObjectRef, sources: &'s Sources) -> impl Iterator<Item = &'s Resource> {
    let all = sources.resources();
    let start = all.partition_point(|resource| resource.meta.object < *object);
    all[start..].iter().take_while(move |resource| resource.meta.object == *object)
}
