//! `delegate`: the rules of one VirtualService within the matches of another's. What comes of it is as if the root had
//! written them itself.
//!
//! Each match of a delegated rule has to be within one of the root's, else the rule is dropped; what the delegated rule
//! does not set is as the root sets it. One level: a delegate that delegates is not followed.

use std::borrow::Cow;
use std::sync::Arc;

use super::Findings;
use super::registry::Map;
use super::visibility::{expand, sees};
use crate::crd::{
    Action, Delegate, HttpMatchItem, HttpRoute, HttpSettings, Labels, Mirror, SourceMatch, VirtualService,
};
use crate::finding::{Severity, code};
use crate::matching::{HeaderMatch, HttpMatch, MoreConditions, QueryMatch, StringMatch};
use crate::snapshot::Snapshot;

/// A rule of a VirtualService that delegates nothing any more.
#[derive(Clone)]
pub(super) struct Entry<'s> {
    /// Whose words its destinations are.
    pub(super) vs: &'s VirtualService,
    /// The position in the `http` of `vs`.
    pub(super) position: usize,
    pub(super) route: Cow<'s, HttpRoute>,
}

/// The rules of VirtualServices that delegate.
#[derive(Default)]
pub(super) struct Delegations<'s> {
    /// By the root's own name.
    merged: Map<(&'s str, &'s str), Vec<Entry<'s>>>,
}

impl<'s> Delegations<'s> {
    pub(super) fn new(snapshot: &'s Snapshot, cluster_domain: &str, findings: &mut Findings) -> Self {
        let mut merged: Map<(&str, &str), Vec<Entry<'s>>> = Map::default();
        for root in snapshot.virtual_services.values().filter(|vs| vs.delegates().next().is_some()) {
            let mut entries = Vec::new();
            for (position, route) in root.http.iter().enumerate() {
                let Action::Delegate(delegate) = &route.action else {
                    entries.push(Entry { vs: root, position, route: Cow::Borrowed(route) });
                    continue;
                };
                let Some(target) = target(snapshot, root, delegate) else {
                    missing(root, delegate, findings);
                    continue;
                };
                for (position, own) in target.http.iter().enumerate() {
                    if matches!(own.action, Action::Delegate(_)) {
                        let message = "a VirtualService that others delegate to cannot delegate: this rule is left out";
                        findings.push(Severity::Error, code::REFERENCE, &target.meta, own.mark, message.to_owned());
                    } else if let Some(route) = merge(root, route, own, cluster_domain) {
                        entries.push(Entry { vs: target, position, route: Cow::Owned(route) });
                    } else {
                        let message = format!(
                            "http[{position}] is left out where {} delegates to it: its match is not within the root's",
                            root.meta.object
                        );
                        findings.push(Severity::Error, code::NO_EFFECT, &target.meta, own.mark, message);
                    }
                }
            }
            merged.insert((&**root.meta.namespace(), &**root.meta.name()), entries);
        }
        Self { merged }
    }

    /// The HTTP rules of a VirtualService, in order.
    pub(super) fn entries<'a>(&'a self, vs: &'s VirtualService) -> impl Iterator<Item = Entry<'s>> + 'a
    where
        's: 'a,
    {
        // What a route of the Gateway API comes to has that route's name.
        let own = |kind: &str| kind == "VirtualService";
        let merged = self.merged.get(&(&**vs.meta.namespace(), &**vs.meta.name()));
        let merged = merged.filter(|_| own(&vs.meta.object.kind));
        let plain = merged.is_none().then_some(&vs.http).into_iter().flatten().enumerate();
        let plain = plain.map(move |(position, route)| Entry { vs, position, route: Cow::Borrowed(route) });
        merged.into_iter().flatten().cloned().chain(plain)
    }
}

/// The VirtualService of that name, where the root's namespace sees it and it has no hosts of its own.
fn target<'s>(snapshot: &'s Snapshot, root: &VirtualService, delegate: &Delegate) -> Option<&'s VirtualService> {
    let own = root.meta.namespace();
    let namespace = if delegate.namespace.is_empty() { own } else { &delegate.namespace };
    let target = snapshot.virtual_services.get(&(Arc::clone(namespace), Arc::clone(&delegate.name)))?;
    (target.is_delegate() && sees(Some(own), &target.meta, &target.export_to)).then_some(&**target)
}

fn missing(root: &VirtualService, delegate: &Delegate, findings: &mut Findings) {
    let namespace = if delegate.namespace.is_empty() { root.meta.namespace() } else { &delegate.namespace };
    findings.with_help(
        Severity::Error,
        code::REFERENCE,
        &root.meta,
        delegate.mark,
        format!("delegate not found: \"{namespace}/{}\"; the rule is left out", delegate.name),
        Some("name a VirtualService without hosts that is exported to this namespace".to_owned()),
    );
}

/// `None`: a match of the delegated rule is within none of the root's.
fn merge(root: &VirtualService, outer: &HttpRoute, inner: &HttpRoute, cluster_domain: &str) -> Option<HttpRoute> {
    let items = match (&*outer.items, &*inner.items) {
        ([], _) => inner.items.clone(),
        (_, []) => outer.items.clone(),
        (outer, inner) => {
            let mut merged = Vec::new();
            for item in inner {
                let before = merged.len();
                merged.extend(outer.iter().filter(|one| !conflict(one, item)).map(|one| merge_items(one, item)));
                if merged.len() == before {
                    return None;
                }
            }
            merged.into()
        }
    };
    Some(HttpRoute {
        mark: inner.mark,
        name: joined(&outer.name, &inner.name),
        items,
        action: inner.action.clone(),
        settings: merge_settings(root, outer.settings.as_deref(), inner.settings.as_deref(), cluster_domain),
    })
}

fn joined(outer: &Arc<str>, inner: &Arc<str>) -> Arc<str> {
    match (&**outer, &**inner) {
        ("", _) => Arc::clone(inner),
        (_, "") => Arc::clone(outer),
        (outer, inner) => format!("{outer}-{inner}").into(),
    }
}

fn merge_settings(
    root: &VirtualService,
    outer: Option<&HttpSettings>,
    inner: Option<&HttpSettings>,
    cluster_domain: &str,
) -> Option<Box<HttpSettings>> {
    let Some(outer) = outer else {
        return inner.cloned().map(Box::new);
    };
    // A short name is one of the namespace in which it was written.
    let mirror = |mirror: &Mirror| {
        let mut mirror = mirror.clone();
        mirror.destination.host = expand(&mirror.destination.host, root.meta.namespace(), cluster_domain);
        mirror
    };
    let inner = inner.cloned().unwrap_or_default();
    Some(Box::new(HttpSettings {
        rewrite: inner.rewrite.or_else(|| outer.rewrite.clone()),
        timeout: inner.timeout.or(outer.timeout),
        retries: inner.retries.or_else(|| outer.retries.clone()),
        fault: inner.fault.or_else(|| outer.fault.clone()),
        mirrors: if inner.mirrors.is_empty() { outer.mirrors.iter().map(mirror).collect() } else { inner.mirrors },
        cors: inner.cors.or_else(|| outer.cors.clone()),
        headers: inner.headers.or_else(|| outer.headers.clone()),
    }))
}

fn merge_items(outer: &HttpMatchItem, inner: &HttpMatchItem) -> HttpMatchItem {
    let (a, b) = (&outer.conditions, &inner.conditions);
    let empty = MoreConditions::default();
    let (more_a, more_b) = (a.more.as_deref().unwrap_or(&empty), b.more.as_deref().unwrap_or(&empty));
    let more = MoreConditions {
        scheme: more_b.scheme.clone().or_else(|| more_a.scheme.clone()),
        authority: more_b.authority.clone().or_else(|| more_a.authority.clone()),
        without_headers: merge_headers(&more_a.without_headers, &more_b.without_headers),
        query_params: merge_params(&more_a.query_params, &more_b.query_params),
    };
    HttpMatchItem {
        mark: inner.mark,
        name: joined(&outer.name, &inner.name),
        conditions: HttpMatch {
            uri: b.uri.clone().or_else(|| a.uri.clone()),
            method: b.method.clone().or_else(|| a.method.clone()),
            headers: merge_headers(&a.headers, &b.headers),
            more: (more != empty).then(|| Box::new(more)),
        },
        port: inner.port.or(outer.port),
        gateways: if inner.gateways.is_empty() { outer.gateways.clone() } else { inner.gateways.clone() },
        source: merge_sources(outer.source.as_deref(), inner.source.as_deref()),
        never: outer.never || inner.never,
    }
}

fn merge_headers(outer: &[HeaderMatch], inner: &[HeaderMatch]) -> Box<[HeaderMatch]> {
    let own = |header: &&HeaderMatch| !inner.iter().any(|other| other.name == header.name);
    outer.iter().filter(own).chain(inner).cloned().collect()
}

fn merge_params(outer: &[QueryMatch], inner: &[QueryMatch]) -> Box<[QueryMatch]> {
    let own = |param: &&QueryMatch| !inner.iter().any(|other| other.name == param.name);
    outer.iter().filter(own).chain(inner).cloned().collect()
}

fn merge_sources(outer: Option<&SourceMatch>, inner: Option<&SourceMatch>) -> Option<Box<SourceMatch>> {
    let (Some(outer), Some(inner)) = (outer, inner) else {
        return outer.or(inner).cloned().map(Box::new);
    };
    let labels = outer.labels.iter().chain(inner.labels.iter()).map(|(k, v)| (Arc::clone(k), Arc::clone(v)));
    Some(Box::new(SourceMatch {
        labels: labels.collect::<Labels>(),
        namespace: inner.namespace.clone().or_else(|| outer.namespace.clone()),
    }))
}

/// True when the inner item asks for something outside of the outer one.
fn conflict(outer: &HttpMatchItem, inner: &HttpMatchItem) -> bool {
    let (a, b) = (&outer.conditions, &inner.conditions);
    let empty = MoreConditions::default();
    let (more_a, more_b) = (a.more.as_deref().unwrap_or(&empty), b.more.as_deref().unwrap_or(&empty));
    let header = |outer: &[HeaderMatch], own: &HeaderMatch| {
        let same = outer.iter().find(|header| header.name == own.name);
        outside(same.map(|header| &header.value), Some(&own.value))
    };
    let source = |item: &HttpMatchItem| item.source.as_deref().cloned().unwrap_or_default();
    let (from, to) = (source(outer), source(inner));
    let other_label = |(key, value): (&Arc<str>, &Arc<str>)| from.labels.get(key).is_some_and(|own| own != value);
    outside(a.uri.as_ref(), b.uri.as_ref())
        || outside(a.method.as_ref(), b.method.as_ref())
        || outside(more_a.scheme.as_ref(), more_b.scheme.as_ref())
        || outside(more_a.authority.as_ref(), more_b.authority.as_ref())
        || b.headers.iter().any(|own| header(&a.headers, own))
        || more_b.without_headers.iter().any(|own| header(&more_a.without_headers, own))
        || more_b.query_params.iter().any(|own| {
            let same = more_a.query_params.iter().find(|param| param.name == own.name);
            outside(same.map(|param| &param.value), Some(&own.value))
        })
        || outer.port.zip(inner.port).is_some_and(|(a, b)| a != b)
        || from.namespace.as_ref().zip(to.namespace.as_ref()).is_some_and(|(a, b)| a != b)
        || to.labels.iter().any(other_label)
        || (!outer.gateways.is_empty() && inner.gateways.iter().any(|gateway| !outer.gateways.contains(gateway)))
}

/// Whether the texts that `inner` takes are not all taken by `outer`, as far as that is plain: a regex goes with nothing
/// on the other side.
fn outside(outer: Option<&StringMatch>, inner: Option<&StringMatch>) -> bool {
    let (Some(outer), Some(inner)) = (outer, inner) else {
        return false;
    };
    !match (outer, inner) {
        (StringMatch::Present, _) => true,
        (StringMatch::Exact(a), StringMatch::Exact(b))
        | (StringMatch::ExactIgnoreCase(a), StringMatch::ExactIgnoreCase(b)) => a == b,
        (StringMatch::Prefix(prefix), StringMatch::Exact(text) | StringMatch::Prefix(text))
        | (
            StringMatch::PrefixIgnoreCase(prefix),
            StringMatch::ExactIgnoreCase(text) | StringMatch::PrefixIgnoreCase(text),
        ) => text.starts_with(&**prefix),
        _ => false,
    }
}
