//! The DestinationRule in force for a service and a class of clients. Rules of the client's namespace come first, then
//! the service's, then the root namespace's; they are merged within a namespace, and never across.

use std::sync::Arc;
use std::time::Duration;

use super::registry::{Map, Registered};
use super::visibility::{expand, is_public, sees};
use super::{CompileOptions, Findings};
use crate::crd::{ClientTls, DestinationRule, Subset};
use crate::finding::{Severity, code};
use crate::program::LoadBalancer;
use crate::snapshot::Snapshot;

/// Istio's default for a connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Index into [`Policies::merged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PolicyId(u32);

/// All DestinationRules, by namespace and host.
pub(super) struct Policies<'s> {
    rules: Vec<&'s DestinationRule>,
    by_namespace: Map<&'s str, NamespaceRules>,
    /// Rules for some clients of their namespace that ask for encryption: they close their hosts for all of them.
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

    /// How an endpoint of the service, or of a subset, is picked, and how long a connect may take. A block of the
    /// subset replaces the rule's.
    pub(super) fn settings(&self, subset: Option<&Subset>) -> (LoadBalancer, Duration) {
        let rule = self.ruled_by.and_then(|rule| rule.policy.as_ref());
        let levels = || subset.map(|s| &s.policy).into_iter().chain(rule);
        let pool = levels().find_map(|policy| policy.connection_pool);
        (
            levels().find_map(|policy| policy.load_balancer).unwrap_or_default(),
            pool.flatten().unwrap_or(CONNECT_TIMEOUT),
        )
    }

    /// The rule that asks for encryption, which this version does not do, toward a port of the service or of a subset.
    pub(super) fn encryption(&self, subset: &str, port: u16) -> Option<(&'s DestinationRule, &'s ClientTls)> {
        if let Some(rule) = self.closed_by {
            return Some((rule, rule.encryption()?));
        }
        let own = self.subsets.iter().find(|(one, _)| !subset.is_empty() && *one.name == *subset);
        let own = own.and_then(|(subset, rule)| Some((*rule, subset.policy.tls_of(port)?)));
        let common = || self.ruled_by.and_then(|rule| Some((rule, rule.policy.as_ref()?.tls_of(port)?)));
        own.or_else(common).filter(|(_, tls)| tls.encrypts())
    }

    /// The rule that sets a load balancer for the plain service.
    pub(super) fn load_balancer(&self) -> Option<(&'s DestinationRule, LoadBalancer)> {
        let rule = self.ruled_by?;
        Some((rule, rule.policy.as_ref()?.load_balancer?))
    }
}

/// What holds without any rule.
pub(super) fn defaults() -> (LoadBalancer, Duration) {
    (LoadBalancer::default(), CONNECT_TIMEOUT)
}

impl<'s> Policies<'s> {
    pub(super) fn new(snapshot: &'s Snapshot, options: &CompileOptions) -> Self {
        let in_force = |rule: &&DestinationRule| rule.applies || rule.encryption().is_some();
        let mut rules: Vec<&DestinationRule> =
            snapshot.destination_rules.values().map(|rule| &**rule).filter(in_force).collect();
        rules.sort_by(|a, b| a.meta.seniority().cmp(&b.meta.seniority()));
        let mut by_namespace: Map<&str, NamespaceRules> = Map::default();
        let mut for_some: Map<&str, NamespaceRules> = Map::default();
        for (index, rule) in (0_u32..).zip(&rules) {
            let namespace = rule.meta.namespace();
            let group = if rule.applies { &mut by_namespace } else { &mut for_some };
            let own = group.entry(namespace).or_default();
            if let Some(suffix) = rule.host.strip_prefix('*') {
                match own.suffixes.iter_mut().find(|(s, _)| **s == *suffix) {
                    Some((_, same)) => same.push(index),
                    None => own.suffixes.push((suffix.into(), vec![index])),
                }
            } else {
                own.exact.entry(expand(&rule.host, namespace, &options.cluster_domain)).or_default().push(index);
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

    /// The policy for a service and clients of a namespace (`None` = everybody).
    pub(super) fn resolve(
        &mut self,
        client: Option<&Arc<str>>,
        service: &Registered<'_>,
        findings: &mut Findings,
    ) -> Option<PolicyId> {
        let root = Arc::clone(&self.root);
        let in_root = client == Some(&root);
        let mut found = client
            // Of the root namespace, only what is not for everybody is its own clients' first.
            .map(|own| {
                self.within(own, service, |rule| {
                    sees(client, &rule.meta, &rule.export_to) && !(in_root && is_public(&rule.export_to))
                })
            })
            .filter(|found| !found.is_empty())
            .or_else(|| Some(self.within(service.namespace(), service, |r| sees(client, &r.meta, &r.export_to))))
            .filter(|found| !found.is_empty())
            .unwrap_or_else(|| self.within(&root, service, |r| sees(client, &r.meta, &r.export_to)));
        let for_some = client.and_then(|own| self.for_some.get(&**own));
        found.extend(for_some.into_iter().flat_map(|rules| rules.of(&service.fqdn)).flatten());
        if found.is_empty() {
            return None;
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

    /// The rules of one namespace with the most specific host that fits.
    fn within(&self, namespace: &str, service: &Registered<'_>, wanted: impl Fn(&DestinationRule) -> bool) -> Vec<u32> {
        let Some(own) = self.by_namespace.get(namespace) else {
            return Vec::new();
        };
        own.of(&service.fqdn)
            .map(|rules| rules.iter().copied().filter(|i| wanted(self.rules[*i as usize])).collect::<Vec<_>>())
            .find(|rules| !rules.is_empty())
            .unwrap_or_default()
    }

    fn merge(&self, found: &[u32], findings: &mut Findings) -> Policy<'s> {
        let (rules, for_some): (Vec<&DestinationRule>, Vec<_>) =
            found.iter().map(|i| self.rules[*i as usize]).partition(|rule| rule.applies);
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
            if let (Some(policy), Some(first)) = (&rule.policy, ruled_by.filter(|first| !std::ptr::eq(*first, *rule))) {
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
        Policy { ruled_by, subsets, rules, closed_by: for_some.first().copied() }
    }
}
