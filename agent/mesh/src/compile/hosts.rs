//! The VirtualServices in force for a host and a class of clients. Several for one host are merged by age, and each of
//! them says so.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::registry::Map;
use super::visibility::{Client, expand, is_public, sees};
use super::{CompileOptions, Findings};
use crate::crd::{Mark, VirtualService};
use crate::finding::{Severity, code};
use crate::snapshot::Snapshot;

/// All VirtualServices of the mesh, by host.
pub(super) struct Hosts<'s> {
    exact: Map<Arc<str>, Vec<Claim<'s>>>,
    /// `*.example.com` as `.example.com`, the longest first.
    suffixes: Vec<(Box<str>, Vec<Claim<'s>>)>,
}

/// A VirtualService that names a host.
#[derive(Clone, Copy)]
struct Claim<'s> {
    rule: &'s VirtualService,
    mark: Mark,
}

impl<'s> Hosts<'s> {
    pub(super) fn new(snapshot: &'s Snapshot, options: &CompileOptions) -> Self {
        let mut rules: Vec<&VirtualService> =
            snapshot.virtual_services.values().map(|vs| &**vs).filter(|vs| vs.in_mesh()).collect();
        rules.sort_by(|a, b| a.meta.seniority().cmp(&b.meta.seniority()));
        let mut exact: Map<Arc<str>, Vec<Claim<'_>>> = Map::default();
        let mut suffixes: BTreeMap<&str, Vec<Claim<'_>>> = BTreeMap::new();
        for rule in rules {
            for (host, mark) in &rule.hosts {
                let claim = Claim { rule, mark: *mark };
                if let Some(suffix) = host.strip_prefix('*') {
                    suffixes.entry(suffix).or_default().push(claim);
                    continue;
                }
                let claims = exact.entry(expand(host, rule.meta.namespace(), &options.cluster_domain)).or_default();
                // `a` and `a.ns.svc.cluster.local` in one object are one host.
                if !claims.iter().any(|other| std::ptr::eq(other.rule, rule)) {
                    claims.push(claim);
                }
            }
        }
        let mut suffixes: Vec<_> = suffixes.into_iter().map(|(s, claims)| (s.into(), claims)).collect();
        suffixes.sort_by_key(|(suffix, _): &(Box<str>, _)| Reverse(suffix.len()));
        Self { exact, suffixes }
    }

    /// The rules for a host, the oldest first; empty when there is none.
    pub(super) fn resolve(&self, client: &Client, host: &str, findings: &mut Findings) -> Vec<&'s VirtualService> {
        let suffixes = self.suffixes.iter().filter(|(suffix, _)| host.ends_with(&**suffix)).map(|(_, claims)| claims);
        self.exact
            .get(host)
            .into_iter()
            .chain(suffixes)
            .map(|claims| visible(claims, client, host, findings))
            .find(|found| !found.is_empty())
            .unwrap_or_default()
    }

    /// The rules for `*SUFFIX` itself.
    pub(super) fn resolve_suffix(
        &self,
        client: &Client,
        suffix: &str,
        findings: &mut Findings,
    ) -> Vec<&'s VirtualService> {
        let claims = self.suffixes.iter().find(|(other, _)| **other == *suffix).map(|(_, claims)| &claims[..]);
        visible(claims.unwrap_or_default(), client, &format!("*{suffix}"), findings)
    }

    /// Hosts that no service has: exact ones, then suffixes.
    pub(super) fn others<'a>(
        &'a self,
        is_service: impl Fn(&str) -> bool + 'a,
    ) -> (Vec<&'a Arc<str>>, impl Iterator<Item = &'a str> + 'a) {
        let mut exact: Vec<_> = self.exact.keys().filter(|host| !is_service(host)).collect();
        exact.sort();
        (exact, self.suffixes.iter().map(|(suffix, _)| &**suffix))
    }
}

fn visible<'s>(claims: &[Claim<'s>], client: &Client, host: &str, findings: &mut Findings) -> Vec<&'s VirtualService> {
    let namespace = client.namespace.as_ref();
    let seen = |claim: &&Claim<'s>| sees(namespace, &claim.rule.meta, &claim.rule.export_to);
    // What the client's namespace keeps to itself overrides what others offer to everybody.
    let own = |claim: &&Claim<'s>| !is_public(&claim.rule.export_to) && Some(claim.rule.meta.namespace()) == namespace;
    let mut found: Vec<&Claim<'s>> = claims.iter().filter(seen).filter(own).collect();
    if found.is_empty() {
        found = claims.iter().filter(seen).collect();
    }
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(|c| c.rule.meta.object.to_string()).collect();
        let names = names.join(", then ");
        for claim in &found {
            findings.with_help(
                Severity::Error,
                code::CONFLICTING_HOSTS,
                &claim.rule.meta,
                claim.mark,
                format!(
                    "several VirtualServices are for host {host}: their rules apply in the order {names}, those that take everything last"
                ),
                Some("put the rules of a host into one VirtualService".to_owned()),
            );
        }
    }
    found.into_iter().map(|claim| claim.rule).collect()
}
