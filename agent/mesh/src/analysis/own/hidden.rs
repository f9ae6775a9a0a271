//! DestinationRules that hide what the owner of a host says: a rule of the client's namespace comes first, be it for
//! `*`, and is merged with none of another namespace; and one with a workloadSelector comes before those without.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::findings::Findings;
use super::super::input::{DestinationRule, Input, VirtualService, scopes};
use super::super::tree::{Tree, canonical};
use crate::finding::{Severity, code};

/// Rules for one host whose subsets are looked at: more of them are rivals, which is told of.
const MAX_RULES: usize = 16;
/// Of the hosts that a rule hides others for so many are told of.
const MAX_HOSTS: usize = 5;

/// Who sends to a subset, by host and subset.
type Uses<'i, 's> = BTreeMap<(Arc<str>, &'s str), Vec<&'i VirtualService<'s>>>;

/// Looks at every DestinationRule that is for a host of another namespace.
pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    let uses = uses(input);
    chosen(input, &uses, findings);
    let mut exact: BTreeMap<(&str, &str), Vec<&DestinationRule<'_>>> = BTreeMap::new();
    let mut wide: BTreeMap<&str, Vec<&DestinationRule<'_>>> = BTreeMap::new();
    for rule in input.destination_rules.iter().filter(|rule| !rule.written.is_empty() && is_first(rule, input)) {
        let own: &str = rule.resource.namespace();
        match rule.host.strip_prefix('*') {
            Some(_) => wide.entry(own).or_default().push(rule),
            None => exact.entry((own, &rule.host)).or_default().push(rule),
        }
    }
    for ((namespace, host), first) in &exact {
        hides(namespace, host, first, input, &uses, findings);
    }
    // A rule for many hosts holds for those that no other of its namespace names more closely.
    let hosts: BTreeSet<&Arc<str>> = input.destination_rules.iter().map(|rule| &rule.host).collect();
    for (namespace, rules) in &wide {
        let mut told: BTreeMap<*const DestinationRule<'_>, usize> = BTreeMap::new();
        for host in hosts.iter().filter(|host| !host.starts_with('*')) {
            if exact.contains_key(&(*namespace, &***host)) {
                continue;
            }
            let fits = |rule: &&&DestinationRule<'_>| host.ends_with(&rule.host[1..]);
            let Some(longest) = rules.iter().filter(fits).map(|rule| rule.host.len()).max() else { continue };
            let first: Vec<_> = rules.iter().filter(fits).filter(|rule| rule.host.len() == longest).copied().collect();
            let count = told.entry(std::ptr::from_ref(first[0])).or_default();
            if *count < MAX_HOSTS && hides(namespace, host, &first, input, &uses, findings) {
                *count += 1;
            }
        }
    }
}

/// Rules for some clients: these follow no other of their namespace, and its subsets are not there for them.
fn chosen(input: &Input<'_>, uses: &Uses<'_, '_>, findings: &mut Findings) {
    let selector =
        |rule: &DestinationRule<'_>| rule.resource.node.at("spec.workloadSelector").map(|node| canonical(node, ""));
    for rule in input.destination_rules.iter().filter(|rule| !rule.host.starts_with('*')) {
        let Some(clients) = selector(rule).filter(|_| !input.is_refused(rule.resource)) else { continue };
        let own: &str = rule.resource.namespace();
        let sees = |export_to: &[Arc<str>], from: &str| {
            let seen_in = scopes(export_to, from);
            seen_in.is_empty() || seen_in.contains(&own)
        };
        let has =
            |other: &DestinationRule<'_>, name: &str| other.subsets.iter().any(|subset| subset.text_at("name") == name);
        let of_host = uses.range((Arc::clone(&rule.host), "")..);
        for ((_, name), users) in of_host.take_while(|((host, _), _)| *host == rule.host) {
            let user = users.iter().find(|vs| sees(&vs.export_to, vs.namespace()) && !input.is_refused(vs.resource));
            let together = |other: &&DestinationRule<'_>| {
                other.resource.namespace() == rule.resource.namespace()
                    && selector(other).is_some_and(|other| other == clients)
            };
            if input.rules_for(&rule.host).take(MAX_RULES).filter(together).any(|other| has(other, name)) {
                continue;
            }
            let hidden = input.rules_for(&rule.host).find(|other| {
                selector(other).is_none()
                    && !input.is_refused(other.resource)
                    && sees(&other.export_to, other.resource.namespace())
                    && has(other, name)
            });
            let (Some(vs), Some(hidden)) = (user, hidden) else { continue };
            findings.add(
                code::HIDDEN_RULE,
                rule.resource,
                rule.resource.node.mark_of("spec.workloadSelector"),
                format!(
                    "the clients that its workloadSelector selects follow this rule toward {}, and not {}: subset {name}, to which {} sends, is not there for them: 503 (NC)",
                    rule.host, hidden.resource.meta.object, vs.resource.meta.object
                ),
                "repeat the subsets that they need here: a rule with a workloadSelector is merged with none without",
            );
            break;
        }
    }
}

/// Whether a rule is its own namespace's first choice. In the root namespace that is only what is not for everybody.
fn is_first(rule: &DestinationRule<'_>, input: &Input<'_>) -> bool {
    let own: &str = rule.resource.namespace();
    let seen_in = scopes(&rule.export_to, own);
    rule.resource.node.at("spec.workloadSelector").is_none()
        && (seen_in.contains(&own) || (seen_in.is_empty() && own != input.root_namespace()))
}

fn uses<'i, 's>(input: &'i Input<'s>) -> Uses<'i, 's> {
    let mut uses = Uses::new();
    for vs in input.virtual_services.iter().filter(|vs| vs.in_mesh()) {
        let mut seen = BTreeSet::new();
        for to in vs.destinations.iter().filter(|to| !to.subset.is_empty()) {
            let key = (input.expand(to.host, vs.namespace()), to.subset);
            if seen.insert(key.clone()) {
                uses.entry(key).or_default().push(vs);
            }
        }
    }
    uses
}

/// Tells what the rules `first` of `namespace` hide of those that the host's owner has for everybody.
fn hides(
    namespace: &str,
    host: &str,
    first: &[&DestinationRule<'_>],
    input: &Input<'_>,
    uses: &Uses<'_, '_>,
    findings: &mut Findings,
) -> bool {
    let Some(owner) = input.hosts.find(host, namespace, &[]).map(|found| found.resource.namespace()) else {
        return false;
    };
    if **owner == *namespace {
        return false;
    }
    let sees = |export_to: &[Arc<str>], own: &str| {
        let seen_in = scopes(export_to, own);
        seen_in.is_empty() || seen_in.contains(&namespace)
    };
    let owned = input.rules_for(host).filter(|rule| {
        rule.resource.namespace() == owner
            && rule.resource.node.at("spec.workloadSelector").is_none()
            && sees(&rule.export_to, owner)
    });
    let owned: Vec<_> = owned.take(MAX_RULES).collect();
    let has = |name: &str| first.iter().any(|rule| rule.subsets.iter().any(|subset| subset.text_at("name") == name));
    let mut lost: BTreeMap<&str, &DestinationRule<'_>> = BTreeMap::new();
    for rule in &owned {
        for name in rule.subsets.iter().map(|subset| subset.text_at("name")).filter(|name| !has(name)) {
            lost.entry(name).or_insert(rule);
        }
    }
    let needed = lost.iter().find_map(|(name, _)| {
        let users = uses.get(&(host.into(), *name))?;
        Some((*name, *users.iter().find(|vs| sees(&vs.export_to, vs.namespace()))?))
    });
    let by = first[0];
    let is_wide = by.host.starts_with('*');
    let Some(hidden) = lost.values().next().or_else(|| owned.iter().find(|rule| rule.policy.is_some())) else {
        return false;
    };
    let (severity, effect) = match needed {
        Some((name, vs)) => (
            Severity::Warning,
            format!("subset {name}, to which {} sends, is not there for them: 503 (NC)", vs.resource.meta.object),
        ),
        // To have settings of one's own for a host that is named is what such a rule is for.
        None if is_wide => (Severity::Info, "its settings and subsets do not hold for them".to_owned()),
        None => return false,
    };
    let place = hidden.resource.meta.at().map(|at| format!(" ({at})")).unwrap_or_default();
    findings.at(
        severity,
        code::HIDDEN_RULE,
        by.resource,
        by.resource.node.mark_of("spec.host"),
        format!(
            "clients of namespace {namespace} follow this rule toward {host}, and not {}{place}: {effect}",
            hidden.resource.meta.object
        ),
        "repeat what they need here, with its subsets, or move the rule to the root namespace, where it comes last",
    );
    true
}
