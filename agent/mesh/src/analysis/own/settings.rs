//! DestinationRules: several for one host, settings of a port that drop others, hashes and ejection that do less than
//! they seem to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::findings::{Findings, few};
use super::super::input::{DestinationRule, Input, scopes};
use super::super::tree::{Tree, canonical};
use crate::crd::Node;
use crate::finding::{Severity, code};

/// What settings of a port replace as a whole.
const BLOCKS: [&str; 4] = ["connectionPool", "loadBalancer", "outlierDetection", "tls"];
/// `maxEjectionPercent` where none is given.
const DEFAULT_EJECTION: i64 = 10;

pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    rivals(input, findings);
    for rule in &input.destination_rules {
        for (level, name) in levels(rule) {
            absent_ports(rule, level, &name, input, findings);
            dropped(rule, level, &name, input, findings);
            let ports = level.items("portLevelSettings").iter();
            let inner = ports
                .map(|port| (port, format!("{name}.portLevelSettings[{}]", port.int_at("port.number").unwrap_or(0))));
            for (level, name) in std::iter::once((level, name.clone())).chain(inner) {
                cookie(rule, level, &name, findings);
                ejection(rule, level, &name, input, findings);
            }
        }
    }
}

/// The rule's own policy, and those of its subsets.
fn levels<'r>(rule: &'r DestinationRule<'_>) -> impl Iterator<Item = (&'r Node, String)> {
    let own = rule.policy.map(|policy| (policy, "trafficPolicy".to_owned()));
    let subsets = rule.subsets.iter().filter_map(|subset| {
        Some((subset.at("trafficPolicy")?, format!("trafficPolicy of subset {}", subset.text_at("name"))))
    });
    own.into_iter().chain(subsets)
}

/// Rules of one namespace for one host and the same clients.
fn rivals(input: &Input<'_>, findings: &mut Findings) {
    type Key<'s> = (&'s str, Arc<str>, String, Vec<Arc<str>>);
    let mut by_host: BTreeMap<Key<'_>, Vec<&DestinationRule<'_>>> = BTreeMap::new();
    let in_force = |rule: &&DestinationRule<'_>| !rule.written.is_empty() && !input.is_refused(rule.resource);
    for rule in input.destination_rules.iter().filter(in_force) {
        let selector =
            rule.resource.node.at("spec.workloadSelector").map(|node| canonical(node, "")).unwrap_or_default();
        let mut export_to = rule.export_to.clone();
        export_to.sort();
        let key = (&**rule.resource.namespace(), Arc::clone(&rule.host), selector, export_to);
        by_host.entry(key).or_default().push(rule);
    }
    for ((_, host, ..), mut rules) in by_host.into_iter().filter(|(_, rules)| rules.len() > 1) {
        rules.sort_by(|a, b| a.resource.meta.seniority().cmp(&b.resource.meta.seniority()));
        let mut ruled_by: Option<&DestinationRule<'_>> = None;
        let mut subsets: BTreeMap<&str, &DestinationRule<'_>> = BTreeMap::new();
        for rule in &rules {
            let mut lost = Vec::new();
            if rule.policy.is_some() {
                match ruled_by {
                    Some(other) => lost.push(format!("its trafficPolicy, as {} has one", other.resource.meta.object)),
                    None => ruled_by = Some(rule),
                }
            }
            for name in rule.subsets.iter().map(|subset| subset.text_at("name")) {
                match subsets.get(name) {
                    Some(other) => {
                        lost.push(format!("its subset {name}, as {} defines it", other.resource.meta.object));
                    }
                    None => drop(subsets.insert(name, rule)),
                }
            }
            let others = rules.iter().filter(|other| !std::ptr::eq(**other, *rule));
            let named = few(others.map(|other| &other.resource.meta.object), rules.len() - 1, " and ");
            let (severity, effect) = if lost.is_empty() {
                (Severity::Info, "they are merged, and all of this one holds".to_owned())
            } else {
                (
                    Severity::Warning,
                    format!("they are merged, the oldest first; of this one is not in force: {}", lost.join("; ")),
                )
            };
            findings.at(
                severity,
                code::RIVAL_RULES,
                rule.resource,
                rule.resource.node.mark_of("spec.host"),
                format!("{host} has {} DestinationRules in this namespace ({named}, too): {effect}", rules.len()),
                "put the settings of a host into one DestinationRule",
            );
        }
    }
}

/// The ports of what the rule is for; `None` = nothing is known of it.
fn ports(rule: &DestinationRule<'_>, input: &Input<'_>) -> Option<BTreeSet<i64>> {
    let found: BTreeSet<i64> = if let Some(suffix) = rule.host.strip_prefix('*') {
        input.hosts.covered(suffix).flat_map(|host| host.ports.iter().copied()).collect()
    } else {
        let namespace = rule.resource.namespace();
        let seen_in = scopes(&rule.export_to, namespace);
        input.hosts.find(&rule.host, namespace, &seen_in)?.ports.iter().copied().collect()
    };
    (!found.is_empty()).then_some(found)
}

/// Settings of ports that the host does not have.
fn absent_ports(rule: &DestinationRule<'_>, level: &Node, name: &str, input: &Input<'_>, findings: &mut Findings) {
    if level.items("portLevelSettings").is_empty() {
        return;
    }
    let Some(known) = ports(rule, input) else { return };
    for (i, port) in level.items("portLevelSettings").iter().enumerate() {
        let number = port.int_at("port.number").unwrap_or(0);
        if !known.contains(&number) {
            findings.at(
                Severity::Warning,
                code::REFERENCE,
                rule.resource,
                port.mark_of("port.number"),
                format!(
                    "port not found: {number}; portLevelSettings[{i}] of the {name} has no effect: {} has no such port",
                    rule.written
                ),
                &format!("port.number is the Service's, not the pods': {}", few(&known, known.len(), ", ")),
            );
        }
    }
}

fn dropped(rule: &DestinationRule<'_>, level: &Node, name: &str, input: &Input<'_>, findings: &mut Findings) {
    let known = if level.items("portLevelSettings").is_empty() { None } else { ports(rule, input) };
    let is_there =
        |port: &&Node| known.as_ref().is_none_or(|known| known.contains(&port.int_at("port.number").unwrap_or(0)));
    for port in level.items("portLevelSettings").iter().filter(is_there) {
        let lost: Vec<&str> =
            BLOCKS.into_iter().filter(|block| level.at(block).is_some() && port.at(block).is_none()).collect();
        if lost.is_empty() {
            continue;
        }
        let number = port.int_at("port.number").unwrap_or(0);
        findings.add(
            code::PORT_DROPS,
            rule.resource,
            port.mark,
            format!(
                "the settings for port {number} replace those of the {name} as a whole: at that port {} of the {name} do not hold, and the defaults do",
                lost.join(" and ")
            ),
            &format!("repeat {} in the settings of the port", lost.join(" and ")),
        );
    }
}

fn cookie(rule: &DestinationRule<'_>, level: &Node, name: &str, findings: &mut Findings) {
    if let Some(cookie) = level.at("loadBalancer.consistentHash.httpCookie")
        && cookie.at("ttl").is_none()
    {
        findings.add(
            code::COOKIE_WITHOUT_TTL,
            rule.resource,
            level.mark_of("loadBalancer.consistentHash.httpCookie"),
            format!(
                "the httpCookie {} of the {name} has no ttl, so nobody sets it: clients that do not bring it go to any pod",
                cookie.text_at("name")
            ),
            "add ttl: 0s for a cookie of the session, or a time",
        );
    }
}

fn ejection(rule: &DestinationRule<'_>, level: &Node, name: &str, input: &Input<'_>, findings: &mut Findings) {
    let Some(outlier) = level.at("outlierDetection") else { return };
    let mark = level.mark_of("outlierDetection");
    let counts =
        ["consecutive5xxErrors", "consecutiveErrors", "consecutiveGatewayErrors", "consecutiveLocalOriginFailures"];
    let off = |field: &str| outlier.int_at(field).unwrap_or(0) == 0;
    if outlier.int_at("consecutive5xxErrors") == Some(0) && counts.iter().all(|field| off(field)) {
        findings.add(
            code::NO_EJECTION,
            rule.resource,
            mark,
            format!(
                "the outlierDetection of the {name} counts no errors (consecutive5xxErrors is 0): it ejects nothing"
            ),
            "set consecutive5xxErrors or consecutiveGatewayErrors",
        );
        return;
    }
    let given = outlier.int_at("maxEjectionPercent");
    let percent = given.unwrap_or(DEFAULT_EJECTION);
    if percent >= 100 {
        return;
    }
    let pods = pods(rule, input);
    match pods {
        Some(1) => findings.add(
            code::NO_EJECTION,
            rule.resource,
            mark,
            format!("{} has one pod: outlierDetection never ejects the last one", rule.host),
            "run more than one pod",
        ),
        Some(pods) if pods > 0 && pods * percent < 100 => findings.at(
            Severity::Info,
            code::NO_EJECTION,
            rule.resource,
            mark,
            format!("{percent} % of the {pods} pods of {} is less than one: Istio ejects nothing, weir ejects one as long as two are healthy", rule.host),
            "for the same everywhere, set maxEjectionPercent to 100 or less, but at least one pod's share",
        ),
        None if given.is_none() => findings.at(
            Severity::Info,
            code::NO_EJECTION,
            rule.resource,
            mark,
            format!("maxEjectionPercent is {DEFAULT_EJECTION} where it is not given: with fewer than 10 pods Istio ejects nothing, weir ejects one as long as two are healthy"),
            "for the same everywhere, set maxEjectionPercent",
        ),
        _ => {}
    }
}

/// The pods of the rule's host; `None` = nothing is known of them.
fn pods(rule: &DestinationRule<'_>, input: &Input<'_>) -> Option<i64> {
    let namespace = rule.resource.namespace();
    let selector = input.hosts.find(&rule.host, namespace, &[])?.clone();
    let found = input.workloads.select(Some(selector.resource.namespace()), selector.selector.as_ref()?);
    let live = found.iter().filter(|workload| workload.is_pod).count();
    if live > 0 {
        return i64::try_from(live).ok();
    }
    (!found.is_empty()).then(|| found.iter().map(|workload| workload.replicas).sum())
}
