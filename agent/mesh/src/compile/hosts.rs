//! The VirtualServices for a host and a class of clients, in layers: those of the first layer that has a rule for a port
//! and these clients are in force there. Several of one layer are merged by age, and each of them says so.

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

/// VirtualServices that stand or fall together for a host: as a port has the rules of the first layer in which one is
/// left for its clients, what is for other clients alone does not hide what comes after it.
#[derive(Debug)]
pub(super) struct Layer<'s> {
    /// The oldest first; never empty.
    pub(super) rules: Vec<&'s VirtualService>,
    /// How much of the host they name: the length of the suffix, of an exact host the largest number.
    pub(super) named: usize,
}

impl Layer<'_> {
    /// Whether both are of the same objects.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.named == other.named
            && self.rules.len() == other.rules.len()
            && self.rules.iter().zip(&other.rules).all(|(a, b)| std::ptr::eq(*a, *b))
    }
}

/// All layers for a host, the first to be asked first; empty when no VirtualService is for it.
pub(super) type Layers<'s> = Vec<Layer<'s>>;

/// [`Layer::named`] of an exact host.
const EXACT: usize = usize::MAX;
/// Of VirtualServices that share a host so many are named; of the others a finding says how many they are.
const MAX_NAMED: usize = 5;

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
                if !claims.last().is_some_and(|other: &Claim<'_>| std::ptr::eq(other.rule, rule)) {
                    claims.push(claim);
                }
            }
        }
        let mut suffixes: Vec<_> = suffixes.into_iter().map(|(s, claims)| (s.into(), claims)).collect();
        suffixes.sort_by_key(|(suffix, _): &(Box<str>, _)| Reverse(suffix.len()));
        Self { exact, suffixes }
    }

    /// The rules for a host.
    pub(super) fn resolve(&self, client: &Client, host: &str, findings: &mut Findings) -> Layers<'s> {
        let mut layers = Layers::new();
        if let Some(claims) = self.exact.get(host) {
            visible(claims, client, EXACT, || host.to_owned(), &mut layers, findings);
        }
        self.suffixes_of(host, client, &mut layers, findings);
        layers
    }

    /// The rules for `*SUFFIX` itself.
    pub(super) fn resolve_suffix(&self, client: &Client, suffix: &str, findings: &mut Findings) -> Layers<'s> {
        let mut layers = Layers::new();
        self.suffixes_of(suffix, client, &mut layers, findings);
        layers
    }

    fn suffixes_of(&self, host: &str, client: &Client, layers: &mut Layers<'s>, findings: &mut Findings) {
        for (suffix, claims) in self.suffixes.iter().filter(|(suffix, _)| host.ends_with(&**suffix)) {
            visible(claims, client, suffix.len(), || format!("*{suffix}"), layers, findings);
        }
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

/// Adds the layers of those who name the same host.
fn visible<'s>(
    claims: &[Claim<'s>],
    client: &Client,
    named: usize,
    host: impl Fn() -> String,
    layers: &mut Layers<'s>,
    findings: &mut Findings,
) {
    let namespace = client.namespace.as_ref();
    let seen = claims.iter().filter(|claim| sees(namespace, &claim.rule.meta, &claim.rule.export_to));
    // What the client's namespace keeps to itself comes before what others offer to everybody.
    let own = |claim: &&Claim<'s>| !is_public(&claim.rule.export_to) && Some(claim.rule.meta.namespace()) == namespace;
    let (own, others): (Vec<&Claim<'_>>, Vec<&Claim<'_>>) = seen.partition(own);
    for layer in [own, others].into_iter().filter(|layer| !layer.is_empty()) {
        if layer.len() > 1 {
            tell(&layer, &host(), findings);
        }
        layers.push(Layer { rules: layer.into_iter().map(|claim| claim.rule).collect(), named });
    }
}

fn tell(layer: &[&Claim<'_>], host: &str, findings: &mut Findings) {
    let names = layer.iter().take(MAX_NAMED).map(|claim| claim.rule.meta.object.to_string());
    let names = names.collect::<Vec<_>>().join(", then ");
    let more = match layer.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(", then {more} more"),
    };
    let message = format!(
        "several VirtualServices are for host {host}: their rules apply in the order {names}{more}, those that take everything last"
    );
    for claim in layer {
        findings.with_help(
            Severity::Error,
            code::CONFLICTING_HOSTS,
            &claim.rule.meta,
            claim.mark,
            message.clone(),
            Some("put the rules of a host into one VirtualService".to_owned()),
        );
    }
}
