//! Backends: whether they are there, and whether a route of another namespace may refer to them.

use std::sync::Arc;

use super::status::Condition;
use super::{CompileOptions, Snapshot, api, filters};
use crate::crd::gateway_api::{BackendRef, Filter, Route, RouteRule};
use crate::crd::{Mark, RouteDestination};

/// Why a backend cannot be sent to.
fn refused(route: &Route, backend: &BackendRef, snapshot: &Snapshot) -> Option<Condition> {
    if !backend.is_service() {
        let message = format!("{} is a {}, which is nothing that can be sent to", backend.name, backend.kind);
        return Some(Condition::no("InvalidKind", message));
    }
    let namespace = namespace_of(route, backend);
    let own = route.meta.namespace();
    let from = (api::GROUP, route.kind.as_str(), &**own);
    if namespace != own && !is_granted(snapshot, namespace, from, ("", "Service", &backend.name)) {
        let message = format!("no ReferenceGrant of {namespace} lets {own} refer to Service {}", backend.name);
        return Some(Condition::no("RefNotPermitted", message));
    }
    let service = snapshot.services.get(&(Arc::clone(namespace), Arc::clone(&backend.name)));
    let name = format!("Service {namespace}/{}", backend.name);
    match (service, backend.port) {
        (None, _) => Some(Condition::no("BackendNotFound", format!("there is no {name}"))),
        (Some(_), None) => Some(Condition::no("BackendNotFound", format!("no port of {name} is named"))),
        (Some(service), Some(port)) if service.port(port).is_none() => {
            Some(Condition::no("BackendNotFound", format!("{name} has no port {port}")))
        }
        _ => None,
    }
}

fn namespace_of<'r>(route: &'r Route, backend: &'r BackendRef) -> &'r Arc<str> {
    if backend.namespace.is_empty() { route.meta.namespace() } else { &backend.namespace }
}

fn is_granted(snapshot: &Snapshot, namespace: &Arc<str>, from: (&str, &str, &str), to: (&str, &str, &str)) -> bool {
    snapshot
        .reference_grants
        .range((Arc::clone(namespace), Arc::default())..)
        .take_while(|((own, _), _)| own == namespace)
        .any(|(_, grant)| grant.allows(from, to))
}

/// `ResolvedRefs` of a route: of several faults the first.
pub(super) fn resolved(route: &Route, snapshot: &Snapshot) -> Condition {
    let backends = route.rules.iter().flat_map(|rule| {
        let mirrors = rule.filters.iter().filter_map(|filter| match filter {
            Filter::Mirror(backend, _) => Some(backend),
            _ => None,
        });
        rule.backends.iter().chain(mirrors)
    });
    let mut refused = backends.filter_map(|backend| refused(route, backend, snapshot));
    refused.next().unwrap_or_else(|| Condition::yes("ResolvedRefs"))
}

/// Whether a listener may have its certificates.
pub(super) fn certificates(
    gateway: &api::Gateway,
    listener: &api::Listener,
    snapshot: &Snapshot,
) -> Result<(), Condition> {
    let own = gateway.meta.namespace();
    for (namespace, name) in listener.tls.iter().flat_map(|tls| &tls.certificates) {
        let foreign = !namespace.is_empty() && namespace != own;
        let from = (api::GROUP, "Gateway", &**own);
        if foreign && !is_granted(snapshot, namespace, from, ("", "Secret", name)) {
            let message = format!("no ReferenceGrant of {namespace} lets {own} refer to Secret {name}");
            return Err(Condition::no("RefNotPermitted", message));
        }
    }
    Ok(())
}

/// A destination that leads nowhere.
fn nowhere(mark: Mark, weight: Option<u32>) -> RouteDestination {
    let none: Arc<str> = Arc::default();
    RouteDestination { mark, host: Arc::clone(&none), subset: none, port: None, weight, headers: None }
}

/// One backend as a destination; the empty host stands for one that cannot be sent to.
pub(super) fn destination(
    route: &Route,
    backend: &BackendRef,
    snapshot: &Snapshot,
    options: &CompileOptions,
) -> RouteDestination {
    if refused(route, backend, snapshot).is_some() || backend.filters.iter().any(filters::is_unknown) {
        return nowhere(backend.mark, Some(backend.weight));
    }
    let namespace = namespace_of(route, backend);
    RouteDestination {
        mark: backend.mark,
        host: format!("{}.{namespace}.svc.{}", backend.name, options.cluster_domain).into(),
        subset: Arc::default(),
        port: backend.port,
        weight: Some(backend.weight),
        headers: filters::headers(backend.mark, &backend.filters),
    }
}

/// The destinations of a rule, at least one: where nothing can be sent to, one that leads nowhere.
pub(super) fn destinations(
    route: &Route,
    rule: &RouteRule,
    snapshot: &Snapshot,
    options: &CompileOptions,
) -> Box<[RouteDestination]> {
    let total: u64 = rule.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    if total == 0 || rule.filters.iter().any(filters::is_unknown) {
        return [nowhere(rule.mark, None)].into();
    }
    let mut found: Vec<_> = rule.backends.iter().map(|one| destination(route, one, snapshot, options)).collect();
    if let [only] = &mut *found {
        only.weight = None;
    }
    found.into()
}
