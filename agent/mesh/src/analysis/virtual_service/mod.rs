//! VirtualServices: what they refer to, which of their rules can match, and what rules of several of them for one host
//! come to.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::{Findings, MAX_NAMED, few};
use super::input::{Input, VirtualService};
use super::tree::Tree;
use crate::finding::code;

mod gateways;
mod matches;
mod references;

/// Looks at every VirtualService.
pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    let subsets = references::Subsets::new(input);
    for vs in &input.virtual_services {
        references::destinations(vs, input, &subsets, findings);
        references::delegates(vs, input, findings);
        gateways::references(vs, input, findings);
        gateways::claims(vs, input, findings);
        matches::analyze(vs, findings);
        deprecated(vs, findings);
    }
    gateways::without_subset(input, findings);
    shared_hosts(input, findings);
}

fn deprecated(vs: &VirtualService<'_>, findings: &mut Findings) {
    for (i, rule) in vs.http.iter().enumerate() {
        if rule.number_at("fault.delay.percent").is_some_and(|percent| percent > 0.0)
            && let Some(percent) = rule.at("fault.delay.percent")
        {
            findings.add(
                code::DEPRECATED,
                vs.resource,
                percent.mark,
                format!("http[{i}].fault.delay.percent is deprecated: it takes whole numbers only"),
                "write percentage.value",
            );
        }
    }
}

/// Whose VirtualServices are for one host of the mesh, by the namespaces that see them (`*` = all) and the host. What
/// is refused meets none of them.
fn shared_hosts(input: &Input<'_>, findings: &mut Findings) {
    let mut claims: BTreeMap<(&str, String), Vec<&VirtualService<'_>>> = BTreeMap::new();
    let in_force = |vs: &&VirtualService<'_>| vs.in_mesh() && !input.is_refused(vs.resource);
    for vs in input.virtual_services.iter().filter(in_force) {
        let seen_in = vs.seen_in();
        let scopes = if seen_in.is_empty() { vec!["*"] } else { seen_in };
        for host in vs.hosts.iter().filter_map(|host| host.text()) {
            let host = input.expand(&host.to_ascii_lowercase(), vs.namespace()).to_string();
            for scope in &scopes {
                let claim = claims.entry((scope, host.clone())).or_default();
                if !claim.last().is_some_and(|other| std::ptr::eq(*other, vs)) {
                    claim.push(vs);
                }
            }
        }
    }
    for list in claims.values_mut() {
        list.sort_by(|a, b| a.resource.meta.seniority().cmp(&b.resource.meta.seniority()));
    }
    let mut told: BTreeSet<*const VirtualService<'_>> = BTreeSet::new();
    // Those for everybody meet those of each namespace, and are told once.
    let mut public_told: BTreeSet<&str> = BTreeSet::new();
    for ((scope, host), own) in &claims {
        let public = if *scope == "*" { None } else { claims.get(&("*", host.clone())) };
        let public = public.map_or(&[][..], Vec::as_slice);
        let total = own.len() + public.len();
        if total < 2 {
            continue;
        }
        let mut first: Vec<_> = own.iter().take(MAX_NAMED).chain(public.iter().take(MAX_NAMED)).copied().collect();
        first.sort_by(|a, b| a.resource.meta.seniority().cmp(&b.resource.meta.seniority()));
        let all = names(&first, total);
        let what = if public.is_empty() {
            format!(
                "their rules are merged in the order {all}, those that take everything last; Istio takes the oldest one alone"
            )
        } else {
            let own = names(own, own.len());
            format!("clients of namespace {scope} follow {own} where a rule of theirs is for them, all others the rest")
        };
        let message = format!("{total} VirtualServices are for the mesh host {host} ({all}): {what}");
        let public = if public.is_empty() || !public_told.insert(host) { &[] } else { public };
        for vs in own.iter().chain(public) {
            if !told.insert(std::ptr::from_ref(*vs)) {
                continue;
            }
            let is_this = |node: &&&crate::crd::Node| {
                node.text().is_some_and(|text| *input.expand(&text.to_ascii_lowercase(), vs.namespace()) == **host)
            };
            let mark = vs.hosts.iter().find(is_this).map(|node| node.mark).unwrap_or_default();
            findings.add(
                code::CONFLICTING_HOSTS,
                vs.resource,
                mark,
                message.clone(),
                "put the rules of a host into one VirtualService, or narrow exportTo",
            );
        }
    }
}

fn names(list: &[&VirtualService<'_>], total: usize) -> String {
    few(list.iter().map(|vs| &vs.resource.meta.object), total, ", then ")
}
