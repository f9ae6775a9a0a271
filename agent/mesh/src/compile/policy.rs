//! The DestinationRule in force for a service and a class of clients. Rules of the client's namespace come first, then
//! the service's, then the root namespace's; they are merged within a namespace, and never across.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::registry::{Map, Registered, has_labels};
use super::visibility::{Client, expand, is_public, sees};
use super::{CompileOptions, Findings};
use crate::crd::{Blocks, DestinationRule, Marked, Subset, TrafficPolicy};
use crate::finding::{Severity, code};
use crate::program::{Block, ClusterPolicy, Level, Origin};
use crate::snapshot::Snapshot;
use crate::source::ObjectRef;

/// Index into [`Policies::merged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PolicyId(u32);

/// All DestinationRules, by namespace and host.
pub(super) struct Policies<'s> {
    rules: Vec<&'s DestinationRule>,
    by_namespace: Map<&'s str, NamespaceRules>,
    /// Rules for some clients of their namespace that ask for encryption, where clients cannot be told apart: they close
    /// their hosts for all of them.
    for_some: Map<&'s str, NamespaceRules>,
    root: Arc<str>,
    merged: Vec<Policy<'s>>,
    ids: Map<Vec<u32>, PolicyId>,
}

#[derive(Default)]
struct NamespaceRules {
    exact: Map<Arc<str>, Vec<u32>>,
    /// `*.example.com` as `.example.com`, the longest first.
    suffixes: Vec<(Box<str>, Vec<u32>)>,
}

impl NamespaceRules {
    fn add(&mut self, index: u32, rule: &DestinationRule, domain: &str) {
        let Some(suffix) = rule.host.strip_prefix('*') else {
            self.exact.entry(expand(&rule.host, rule.meta.namespace(), domain)).or_default().push(index);
            return;
        };
        match self.suffixes.iter_mut().find(|(s, _)| **s == *suffix) {
            Some((_, same)) => same.push(index),
            None => self.suffixes.push((suffix.into(), vec![index])),
        }
    }

    /// The rules for a host, those with the most specific host first.
    fn of(&self, fqdn: &str) -> impl Iterator<Item = &Vec<u32>> {
        let suffixes = self.suffixes.iter().filter(move |(suffix, _)| fqdn.ends_with(&**suffix)).map(|(_, r)| r);
        self.exact.get(fqdn).into_iter().chain(suffixes)
    }
}

/// Rules for one host, merged.
pub(super) struct Policy<'s> {
    /// Whose `trafficPolicy` it is, where one has any.
    pub(super) ruled_by: Option<&'s DestinationRule>,
    /// The first definition of each name.
    pub(super) subsets: Vec<(&'s Subset, &'s DestinationRule)>,
    /// The rules that it was made of, the oldest first.
    pub(super) rules: Vec<&'s DestinationRule>,
    /// A rule for some of the clients, who cannot be told apart, that asks for encryption.
    closed_by: Option<&'s DestinationRule>,
}

impl<'s> Policy<'s> {
    pub(super) fn subset(&self, name: &str) -> Option<&'s Subset> {
        self.subsets.iter().find(|(subset, _)| *subset.name == *name).map(|(subset, _)| *subset)
    }

    /// The rule that has this very subset.
    pub(super) fn definition(&self, subset: &Subset) -> Option<&'s DestinationRule> {
        self.subsets.iter().find(|(other, _)| std::ptr::eq(*other, subset)).map(|(_, rule)| *rule)
    }

    /// Everything that holds toward a port of the service, or of a subset.
    ///
    /// A block of the subset comes before the rule's. The settings of a port stand for all blocks of their level that a
    /// port can have: one that they lack is as if no rule gave it.
    pub(super) fn settings(&self, subset: Option<&Subset>, port: u16) -> ClusterPolicy {
        let mut effective = ClusterPolicy::default();
        if let Some((rule, policy)) = self.ruled_by.and_then(|rule| Some((rule, rule.policy.as_deref()?))) {
            lay(&mut effective, rule, policy, port, [Level::Rule, Level::RulePort]);
        }
        if let Some((subset, rule)) = subset.and_then(|subset| Some((subset, self.definition(subset)?)))
            && let Some(policy) = &subset.policy
        {
            lay(&mut effective, rule, policy, port, [Level::Subset, Level::SubsetPort]);
        }
        effective
    }

    /// Whether the settings of a port differ from those of the others.
    pub(super) fn has_port(&self, subset: Option<&Subset>, port: u16) -> bool {
        let common = self.ruled_by.and_then(|rule| rule.policy.as_deref());
        let own = subset.and_then(|subset| subset.policy.as_deref());
        common.into_iter().chain(own).any(|policy| policy.port(port).is_some())
    }

    /// The rule that asks for encryption which this version does not do, and its mode. `settings` are those of a port of
    /// the service, or of a subset.
    pub(super) fn closing(&self, settings: &ClusterPolicy) -> Option<(ObjectRef, Arc<str>)> {
        if let Some(rule) = self.closed_by {
            return Some((rule.meta.object.clone(), Arc::clone(&rule.encryption()?.mode)));
        }
        let tls = settings.tls.as_ref().filter(|tls| tls.value.is_refused())?;
        Some((tls.origin.object.clone(), Arc::clone(&tls.value.mode)))
    }
}

impl Policy<'_> {
    /// The rule that asks for encryption, done by this version or not, and its mode.
    pub(super) fn encrypting(&self, settings: &ClusterPolicy) -> Option<(ObjectRef, Arc<str>)> {
        let originated = || settings.originates().map(|tls| (tls.origin.object.clone(), Arc::clone(&tls.value.mode)));
        self.closing(settings).or_else(originated)
    }
}

/// Whether two rules of a namespace are for the same clients, however that is written.
fn is_for_the_same(one: &DestinationRule, other: &DestinationRule) -> bool {
    let seen_in = |rule: &DestinationRule| -> BTreeSet<Arc<str>> {
        if is_public(&rule.export_to) {
            return BTreeSet::new();
        }
        let own = rule.meta.namespace();
        rule.export_to.iter().map(|name| Arc::clone(if **name == *"." { own } else { name })).collect()
    };
    one.selector == other.selector && seen_in(one) == seen_in(other)
}

/// Lays a level over what holds below it.
fn lay(effective: &mut ClusterPolicy, rule: &DestinationRule, policy: &TrafficPolicy, port: u16, levels: [Level; 2]) {
    let [level, level_of_port] = levels;
    match policy.port(port) {
        Some(settings) => {
            let none = ClusterPolicy::default();
            effective.load_balancer = none.load_balancer;
            effective.connection_pool = none.connection_pool;
            effective.outlier_detection = none.outlier_detection;
            effective.tls = none.tls;
            lay_blocks(effective, rule, &settings.blocks, level_of_port);
        }
        None => lay_blocks(effective, rule, &policy.blocks, level),
    }
    over(&mut effective.tunnel, policy.tunnel.as_ref(), rule, level);
    over(&mut effective.proxy_protocol, policy.proxy_protocol.as_ref(), rule, level);
    over(&mut effective.retry_budget, policy.retry_budget.as_ref(), rule, level);
}

fn lay_blocks(effective: &mut ClusterPolicy, rule: &DestinationRule, blocks: &Blocks, level: Level) {
    over(&mut effective.load_balancer, blocks.load_balancer.as_ref(), rule, level);
    over(&mut effective.connection_pool, blocks.connection_pool.as_ref(), rule, level);
    over(&mut effective.outlier_detection, blocks.outlier_detection.as_ref(), rule, level);
    over(&mut effective.tls, blocks.tls.as_ref(), rule, level);
}

fn over<T>(below: &mut Option<Block<T>>, given: Option<&Marked<Arc<T>>>, rule: &DestinationRule, level: Level) {
    if let Some(given) = given {
        let origin = Origin { object: rule.meta.object.clone(), at: rule.meta.place(given.mark), level };
        *below = Some(Block { value: Arc::clone(given), origin: Arc::new(origin) });
    }
}

impl<'s> Policies<'s> {
    /// With `overflowed` some clients cannot be told apart by their labels.
    pub(super) fn new(snapshot: &'s Snapshot, options: &CompileOptions, overflowed: bool) -> Self {
        let mut rules: Vec<&DestinationRule> = snapshot.destination_rules.values().map(|rule| &**rule).collect();
        rules.sort_by(|a, b| a.meta.seniority().cmp(&b.meta.seniority()));
        let mut by_namespace: Map<&str, NamespaceRules> = Map::default();
        let mut for_some: Map<&str, NamespaceRules> = Map::default();
        for (index, rule) in (0_u32..).zip(&rules) {
            let namespace = rule.meta.namespace();
            by_namespace.entry(namespace).or_default().add(index, rule, &options.cluster_domain);
            if overflowed && rule.selector.is_some() && rule.encryption().is_some() {
                for_some.entry(namespace).or_default().add(index, rule, &options.cluster_domain);
            }
        }
        for own in by_namespace.values_mut().chain(for_some.values_mut()) {
            own.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        }
        let root = Arc::clone(&options.root_namespace);
        Self { rules, by_namespace, for_some, root, merged: Vec::new(), ids: Map::default() }
    }

    pub(super) fn get(&self, id: PolicyId) -> &Policy<'s> {
        &self.merged[id.0 as usize]
    }

    /// The policy for a service and a class of clients.
    pub(super) fn resolve(
        &mut self,
        client: &Client,
        service: &Registered<'_>,
        findings: &mut Findings,
    ) -> Option<PolicyId> {
        let root = Arc::clone(&self.root);
        let namespace = client.namespace.as_ref();
        let in_root = namespace == Some(&root);
        let seen = |rule: &DestinationRule| match &rule.selector {
            // Whatever it says, it is for clients of its own namespace alone.
            Some(selector) => namespace == Some(rule.meta.namespace()) && has_labels(&client.labels, selector),
            None => sees(namespace, &rule.meta, &rule.export_to),
        };
        let mut found = namespace
            // Of the root namespace, only what is not for everybody is its own clients' first.
            .map(|own| {
                let first = |rule: &DestinationRule| {
                    seen(rule) && !(in_root && rule.selector.is_none() && is_public(&rule.export_to))
                };
                self.within(own, service, first)
            })
            .filter(|found| !found.is_empty())
            .or_else(|| Some(self.within(service.namespace(), service, seen)))
            .filter(|found| !found.is_empty())
            .unwrap_or_else(|| self.within(&root, service, seen));
        let for_some = namespace.and_then(|own| self.for_some.get(&**own));
        let closing = for_some.into_iter().flat_map(|rules| rules.of(&service.fqdn)).flatten();
        let closing: Vec<u32> = closing.copied().filter(|index| !found.contains(index)).collect();
        if found.is_empty() && closing.is_empty() {
            return None;
        }
        // The separator tells apart what holds from what closes.
        if !closing.is_empty() {
            found.push(u32::MAX);
            found.extend(closing);
        }
        if let Some(id) = self.ids.get(&found) {
            return Some(*id);
        }
        let id = PolicyId(self.merged.len() as u32);
        let merged = self.merge(&found, findings);
        self.merged.push(merged);
        self.ids.insert(found, id);
        Some(id)
    }

    /// The rules of one namespace with the most specific host that fits. Those that select the client come before those
    /// that select nobody.
    fn within(&self, namespace: &str, service: &Registered<'_>, wanted: impl Fn(&DestinationRule) -> bool) -> Vec<u32> {
        let Some(own) = self.by_namespace.get(namespace) else {
            return Vec::new();
        };
        let rule = |index: u32| self.rules[index as usize];
        let found = own
            .of(&service.fqdn)
            .map(|rules| rules.iter().copied().filter(|i| wanted(rule(*i))).collect::<Vec<_>>())
            .find(|rules| !rules.is_empty())
            .unwrap_or_default();
        let selected: Vec<u32> = found.iter().copied().filter(|i| rule(*i).selector.is_some()).collect();
        let mut found = if selected.is_empty() { found } else { selected };
        // Those for the same clients as the oldest are merged with it; the others are not for whom it is.
        if let Some(first) = found.first().map(|first| rule(*first)) {
            found.retain(|i| is_for_the_same(first, rule(*i)));
        }
        found
    }

    fn merge(&self, found: &[u32], findings: &mut Findings) -> Policy<'s> {
        let mut parts = found.split(|index| *index == u32::MAX);
        let mut part = || -> Vec<&'s DestinationRule> {
            parts.next().unwrap_or_default().iter().map(|index| self.rules[*index as usize]).collect()
        };
        let (rules, closing) = (part(), part());
        let ruled_by = rules.iter().copied().find(|rule| rule.policy.is_some());
        let mut subsets: Vec<(&Subset, &DestinationRule)> = Vec::new();
        for rule in &rules {
            for subset in &rule.subsets {
                match subsets.iter().find(|(other, _)| other.name == subset.name) {
                    None => subsets.push((subset, rule)),
                    Some((_, first)) => findings.push(
                        Severity::Warning,
                        code::NO_EFFECT,
                        &rule.meta,
                        subset.mark,
                        format!("subset {} has no effect: {} defines it first", subset.name, first.meta.object),
                    ),
                }
            }
            if let (Some(policy), Some(first)) =
                (rule.policy.as_deref(), ruled_by.filter(|first| !std::ptr::eq(*first, *rule)))
            {
                findings.with_help(
                    Severity::Warning,
                    code::NO_EFFECT,
                    &rule.meta,
                    policy.mark,
                    format!("trafficPolicy has no effect: {} comes first for the same host", first.meta.object),
                    Some("keep one DestinationRule for a host".to_owned()),
                );
            }
        }
        Policy { ruled_by, subsets, rules, closed_by: closing.first().copied() }
    }
}
