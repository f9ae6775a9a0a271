//! HTTP rules: weights, rewrites, prefixes, retries, faults, and clients that do not take part.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::super::findings::Findings;
use super::super::input::{Input, VirtualService};
use super::super::tree::Tree;
use crate::crd::Node;
use crate::finding::code;

pub(super) fn analyze(vs: &VirtualService<'_>, input: &Input<'_>, findings: &mut Findings) {
    for (i, rule) in vs.http.iter().enumerate() {
        weights(vs, rule, &format!("http[{i}]"), findings);
        rewrite(vs, rule, i, findings);
        retries(vs, rule, i, findings);
        faults(vs, rule, i, findings);
        hash(vs, rule, i, input, findings);
    }
    prefixes(vs, findings);
    for protocol in ["tls", "tcp"] {
        for (i, rule) in vs.resource.node.items(&format!("spec.{protocol}")).iter().enumerate() {
            weights(vs, rule, &format!("{protocol}[{i}]"), findings);
        }
    }
    clients(vs, input, findings);
}

fn weights(vs: &VirtualService<'_>, rule: &Node, name: &str, findings: &mut Findings) {
    let routes = rule.items("route");
    if let [only] = routes {
        if let Some(weight) = only.int_at("weight").filter(|weight| *weight != 100) {
            findings.add(
                code::LONE_WEIGHT,
                vs.resource,
                only.mark_of("weight"),
                format!("weight {weight} of {name} has no effect: its only destination gets everything"),
                "to split traffic, list all destinations with their weights under one `route`",
            );
        }
        return;
    }
    if !routes.iter().any(|route| route.int_at("weight").is_some_and(|weight| weight > 0)) {
        return;
    }
    for (j, route) in routes.iter().enumerate().filter(|(_, route)| route.at("weight").is_none()) {
        findings.add(
            code::WEIGHT_MISSING,
            vs.resource,
            route.mark,
            format!("{name}.route[{j}] has no weight beside others that have one: it gets nothing"),
            "give it a weight, or 0 to say that it is meant so",
        );
    }
}

fn rewrite(vs: &VirtualService<'_>, rule: &Node, i: usize, findings: &mut Findings) {
    let Some(to) = rule.at("rewrite.uri").and_then(Node::text) else { return };
    let mut add = |message: String, help: &str| {
        findings.add(code::REWRITE_JOINT, vs.resource, rule.mark_of("rewrite.uri"), message, help);
    };
    let items = rule.items("match");
    if items.iter().all(|item| item.at("uri").is_none()) && to != "/" {
        add(
            format!("http[{i}] matches no uri, so `/` is what rewrite.uri replaces: `/a` becomes `{to}a`"),
            "match uri.prefix, or use uriRegexRewrite",
        );
        return;
    }
    for prefix in items.iter().filter_map(|item| item.at("uri.prefix")?.text()) {
        let (slash, ends) = (prefix.ends_with('/'), to.ends_with('/'));
        if !slash && ends {
            add(
                format!("http[{i}] replaces the text `{prefix}`: `{prefix}/x` becomes `{to}/x`, with two slashes"),
                &format!("match `{prefix}/` as a prefix beside `{prefix}` as exact, and rewrite each"),
            );
        } else if slash && !ends && prefix != to {
            add(
                format!(
                    "http[{i}] replaces the text `{prefix}`: `{prefix}x` becomes `{to}x`, without the slash between"
                ),
                &format!("rewrite to `{to}/`"),
            );
        }
    }
}

/// Only where it can be seen that it matters: most prefixes take more than their segment, and no such path exists.
fn prefixes(vs: &VirtualService<'_>, findings: &mut Findings) {
    let mut later: BTreeSet<&str> = BTreeSet::new();
    for (i, rule) in vs.http.iter().enumerate().rev() {
        let is_rewritten = rule.at("rewrite.uri").is_some() || rule.at("redirect.prefixRewrite").is_some();
        for (j, item) in rule.items("match").iter().enumerate() {
            let prefix = item.text_at("uri.prefix");
            if prefix.len() < 2 || !prefix.ends_with(|last: char| last.is_ascii_alphanumeric()) {
                continue;
            }
            let example = match goes_on(&later, prefix) {
                Some(path) => format!("`{path}`, too, which a later rule is for"),
                None if is_rewritten => format!("`{prefix}foo`, too, and rewrites it"),
                None => continue,
            };
            findings.add(
                code::GREEDY_PREFIX,
                vs.resource,
                item.mark_of("uri.prefix"),
                format!("http[{i}].match[{j}] compares letters, not path segments: prefix `{prefix}` takes {example}"),
                &format!("match `{prefix}/` as a prefix and `{prefix}` as exact"),
            );
        }
        later.extend(
            rule.items("match").iter().flat_map(|item| [item.text_at("uri.exact"), item.text_at("uri.prefix")]),
        );
    }
}

/// The first of the paths whose segment goes on where the prefix ends. The order of the paths finds it: a
/// VirtualService may have thousands.
fn goes_on<'p>(paths: &BTreeSet<&'p str>, prefix: &str) -> Option<&'p str> {
    const GOES_ON: [(char, char); 5] = [('-', '.'), ('0', ':'), ('A', '['), ('_', '`'), ('a', '{')];
    let between = |(from, to)| {
        let (from, to) = (format!("{prefix}{from}"), format!("{prefix}{to}"));
        paths.range::<str, _>((Bound::Included(&*from), Bound::Excluded(&*to))).next().copied()
    };
    GOES_ON.into_iter().find_map(between)
}

fn retries(vs: &VirtualService<'_>, rule: &Node, i: usize, findings: &mut Findings) {
    if let Some(retries) = rule.at("retries")
        && retries.at("attempts").is_none()
    {
        findings.add(
            code::NO_ATTEMPTS,
            vs.resource,
            rule.mark_of("retries"),
            format!(
                "http[{i}].retries has no attempts, which means 0: nothing is sent again, not even where a connection cannot be made"
            ),
            "add attempts, or remove the block for the default of 2",
        );
    }
}

fn faults(vs: &VirtualService<'_>, rule: &Node, i: usize, findings: &mut Findings) {
    let Some(fault) = rule.at("fault") else { return };
    let mut happens = false;
    for kind in ["delay", "abort"] {
        let Some(block) = fault.at(kind) else { continue };
        let share = block.number_at("percentage.value");
        let old = block.number_at("percent");
        if share.or(old).is_some_and(|share| share > 0.0) {
            happens = true;
            continue;
        }
        let why =
            if block.at("percentage").is_some() || old.is_some() { "0 %" } else { "no percentage, which means 0 %" };
        findings.add(
            code::NO_FAULT,
            vs.resource,
            fault.mark_of(kind),
            format!("http[{i}].fault.{kind} has {why}: it never happens"),
            "add percentage: {value: 100}",
        );
    }
    let unseen: Vec<&str> = ["retries", "timeout"].into_iter().filter(|field| rule.at(field).is_some()).collect();
    if happens && !unseen.is_empty() {
        findings.add(
            code::FAULT_FIRST,
            vs.resource,
            rule.mark_of("fault"),
            format!(
                "the fault of http[{i}] comes before its {}: an injected error is not repeated, and an injected delay does not count",
                unseen.join(" and its ")
            ),
            "to test them, inject the fault in a VirtualService that the destination itself sends through",
        );
    }
}

/// The version is drawn anew for each request, before the hash picks a pod of it.
fn hash(vs: &VirtualService<'_>, rule: &Node, i: usize, input: &Input<'_>, findings: &mut Findings) {
    let routes = rule.items("route");
    let weighted = routes.iter().filter(|route| route.int_at("weight").is_some_and(|weight| weight > 0));
    if weighted.clone().count() < 2 {
        return;
    }
    for route in weighted {
        let host = input.expand(route.text_at("destination.host"), vs.namespace());
        let subset = route.text_at("destination.subset");
        let hashes =
            |policy: Option<&Node>| policy.is_some_and(|policy| policy.at("loadBalancer.consistentHash").is_some());
        let found = input.rules_for(&host).find(|other| {
            let own = other.subsets.iter().find(|one| one.text_at("name") == subset);
            let own = own.and_then(|one| one.at("trafficPolicy"));
            hashes(own) || (own.is_none_or(|own| own.at("loadBalancer").is_none()) && hashes(other.policy))
        });
        if let Some(found) = found {
            findings.add(
                code::HASH_AND_WEIGHTS,
                vs.resource,
                rule.mark_of("route"),
                format!(
                    "http[{i}] draws a destination by weight for each request, so a client does not stay with the pod that the consistentHash of {} gives it",
                    found.resource.meta.object
                ),
                "choose the version by a header or cookie match, or accept that only one version is sticky",
            );
            return;
        }
    }
}

/// Rules for clients in the mesh, where no client takes part as far as can be seen.
fn clients(vs: &VirtualService<'_>, input: &Input<'_>, findings: &mut Findings) {
    if !vs.in_mesh() || input.namespaces().next().is_none() {
        return;
    }
    let seen_in = vs.seen_in();
    let part = input.taking_part();
    let any = if seen_in.is_empty() { !part.is_empty() } else { seen_in.iter().any(|name| part.contains(name)) };
    // Of a namespace that is not here nothing is known.
    if any || seen_in.iter().any(|name| input.namespace(name).is_none()) {
        return;
    }
    findings.add(
        code::NO_CLIENTS,
        vs.resource,
        vs.resource.node.mark_of("spec.hosts"),
        "no namespace or pod that could be its client takes part in the mesh: its rules hold for nobody".to_owned(),
        "label the clients' namespace weir.mesh/mode=enabled",
    );
}
