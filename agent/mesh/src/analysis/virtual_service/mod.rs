//! VirtualServices: what they refer to, which of their rules can match, and what rules of several of them for one host
//! come to.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::Findings;
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
        if rule.number_at("fault.delay.percent").is_some_and(|percent| percent > 0.0) {
            findings.add(
                code::DEPRECATED,
                vs.resource,
                rule.mark_of("fault.delay.percent"),
                format!("http[{i}].fault.delay.percent is deprecated: it takes whole numbers only"),
                "write percentage.value",
            );
        }
    }
}

/// Of VirtualServices that share a host so many are named.
const MAX_NAMED: usize = 5;

/// Whose VirtualServices are for one host of the mesh, by the namespaces that see them (`*` = all) and the host.
fn shared_hosts(input: &Input<'_>, findings: &mut Findings) {
    let mut claims: BTreeMap<(&str, String), Vec<&VirtualService<'_>>> = BTreeMap::new();
    for vs in input.virtual_services.iter().filter(|vs| vs.in_mesh()) {
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
    let mut told: BTreeSet<*const VirtualService<'_>> = BTreeSet::new();
    for ((scope, host), own) in &claims {
        let mut all = own.clone();
        if *scope != "*"
            && let Some(public) = claims.get(&("*", host.clone()))
        {
            let mine: BTreeSet<*const VirtualService<'_>> = own.iter().map(|vs| std::ptr::from_ref(*vs)).collect();
            all.extend(public.iter().filter(|vs| !mine.contains(&std::ptr::from_ref(**vs))));
        }
        if all.len() < 2 {
            continue;
        }
        all.sort_by(|a, b| a.resource.meta.seniority().cmp(&b.resource.meta.seniority()));
        let what = if own.len() < all.len() {
            let own = names(own);
            format!("clients of namespace {scope} follow {own} where a rule of theirs is for them, all others the rest")
        } else {
            let all = names(&all);
            format!(
                "their rules are merged in the order {all}, those that take everything last; Istio takes the oldest one alone"
            )
        };
        let message = format!("{} VirtualServices are for the mesh host {host} ({}): {what}", all.len(), names(&all));
        for vs in &all {
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

/// The first few, and how many more there are: each of them has a finding that names them.
fn names(list: &[&VirtualService<'_>]) -> String {
    let named = list.iter().take(MAX_NAMED).map(|vs| vs.resource.meta.object.to_string());
    let named = named.collect::<Vec<_>>().join(", then ");
    match list.len().saturating_sub(MAX_NAMED) {
        0 => named,
        more => format!("{named}, then {more} more"),
    }
}
