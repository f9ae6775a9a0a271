//! To which listeners and Services a route is attached, and why not to others.

use std::sync::Arc;

use super::status::{Condition, ParentStatus, RouteStatus};
use super::{CompileOptions, Snapshot, api, backends, common, is_own, listener_name, within};
use crate::crd::gateway_api::{AllowedNamespaces, ParentRef, Route, RouteKind};
use crate::snapshot::Key;

/// Where requests come from that a route is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// Through a listener, `namespace/GATEWAY~LISTENER`.
    Listener(Arc<str>),
    /// From everybody in the mesh: the route is the Service's own.
    Everybody,
    /// From clients of this namespace, whose route it is.
    Namespace(Arc<str>),
}

/// One place.
#[derive(Clone, Debug)]
pub(super) struct Attachment {
    pub(super) way: Way,
    /// For which hosts; `*` = all.
    pub(super) hosts: Vec<Arc<str>>,
    /// For which port alone.
    pub(super) port: Option<u16>,
    /// The Gateway, and the name of the listener.
    pub(super) listener: Option<(Key, Arc<str>)>,
}

/// The places of a route, and the conditions for each parent that is weir's; `None` when none is.
pub(super) fn attach(
    route: &Route,
    snapshot: &Snapshot,
    options: &CompileOptions,
) -> (Vec<Attachment>, Option<RouteStatus>) {
    let mut attachments = Vec::new();
    let mut parents = Vec::new();
    let resolved = backends::resolved(route, snapshot);
    for parent in &route.parents {
        let accepted = if parent.is_gateway() {
            let key = (Arc::clone(&parent.namespace), Arc::clone(&parent.name));
            match snapshot.api_gateways.get(&key) {
                // Somebody else answers for it.
                Some(gateway) if !is_own(gateway, snapshot, options) => continue,
                Some(gateway) => to_listeners(route, parent, gateway, snapshot, &mut attachments),
                None => {
                    let message = format!("there is no Gateway {}/{}", parent.namespace, parent.name);
                    Condition::no("NoMatchingParent", message)
                }
            }
        } else if parent.is_service() {
            to_service(route, parent, snapshot, options, &mut attachments)
        } else {
            continue;
        };
        parents.push(ParentStatus { parent: parent.clone(), accepted, resolved_refs: resolved.clone() });
    }
    let status = RouteStatus { object: route.meta.object.clone(), parents };
    (attachments, (!status.parents.is_empty()).then_some(status))
}

fn to_service(
    route: &Route,
    parent: &ParentRef,
    snapshot: &Snapshot,
    options: &CompileOptions,
    attachments: &mut Vec<Attachment>,
) -> Condition {
    let key = (Arc::clone(&parent.namespace), Arc::clone(&parent.name));
    let Some(service) = snapshot.services.get(&key) else {
        return Condition::no("NoMatchingParent", format!("there is no Service {}/{}", key.0, key.1));
    };
    if parent.port.is_some_and(|port| service.port(port).is_none()) {
        return Condition::no("NoMatchingParent", format!("Service {}/{} has no such port", key.0, key.1));
    }
    let own = route.meta.namespace();
    attachments.push(Attachment {
        way: if *own == key.0 { Way::Everybody } else { Way::Namespace(Arc::clone(own)) },
        hosts: vec![format!("{}.{}.svc.{}", key.1, key.0, options.cluster_domain).into()],
        port: parent.port,
        listener: None,
    });
    Condition::yes("Accepted")
}

fn to_listeners(
    route: &Route,
    parent: &ParentRef,
    gateway: &api::Gateway,
    snapshot: &Snapshot,
    attachments: &mut Vec<Attachment>,
) -> Condition {
    let named = |listener: &&api::Listener| {
        (parent.section.is_empty() || parent.section == listener.name)
            && parent.port.is_none_or(|port| port == listener.port)
    };
    let mut why = Condition::no("NoMatchingParent", format!("{} has no such listener", gateway.meta.object));
    let mut any = false;
    for listener in gateway.listeners.iter().filter(named) {
        if !is_allowed(route, gateway, listener, snapshot) {
            let message = format!("listener {} does not let it be attached", listener.name);
            why = Condition::no("NotAllowedByListeners", message);
            continue;
        }
        let hosts = hosts(route, gateway, listener);
        if hosts.is_empty() {
            let message = format!("listener {} is for {}", listener.name, listener.hostname);
            why = Condition::no("NoMatchingListenerHostname", message);
            continue;
        }
        any = true;
        let name = listener_name(gateway, listener);
        attachments.push(Attachment {
            way: Way::Listener(format!("{}/{name}", gateway.meta.namespace()).into()),
            hosts,
            port: None,
            listener: Some((
                (Arc::clone(gateway.meta.namespace()), Arc::clone(gateway.meta.name())),
                Arc::clone(&listener.name),
            )),
        });
    }
    if any { Condition::yes("Accepted") } else { why }
}

/// The hosts that a route and a listener have in common, without those that another listener of the Gateway on the same
/// port is more specific for: their requests are that one's alone.
fn hosts(route: &Route, gateway: &api::Gateway, listener: &api::Listener) -> Vec<Arc<str>> {
    let name = |listener: &api::Listener| -> Arc<str> {
        if listener.hostname.is_empty() { "*".into() } else { Arc::clone(&listener.hostname) }
    };
    let own = name(listener);
    if route.hostnames.is_empty() || route.kind == RouteKind::Tcp {
        return vec![own];
    }
    let beside = gateway.listeners.iter().filter(|other| other.port == listener.port).map(name);
    let narrower: Vec<Arc<str>> = beside.filter(|other| *other != own && within(other, &own)).collect();
    let is_left = |host: &&Arc<str>| !narrower.iter().any(|other| within(host, other));
    route.hostnames.iter().filter_map(|host| common(host, &own)).filter(is_left).map(Arc::clone).collect()
}

fn is_allowed(route: &Route, gateway: &api::Gateway, listener: &api::Listener, snapshot: &Snapshot) -> bool {
    let passthrough = listener.tls.as_ref().is_some_and(|tls| tls.passthrough);
    let spoken = match (&*listener.protocol, route.kind) {
        ("HTTP" | "HTTPS", kind) => kind.is_http(),
        ("TLS", RouteKind::Tls) => passthrough,
        ("TLS", RouteKind::Tcp) => !passthrough,
        ("TCP", kind) => kind == RouteKind::Tcp,
        _ => false,
    };
    let kind = || {
        let is_kind = |(group, kind): &(Arc<str>, Arc<str>)| **group == *api::GROUP && **kind == *route.kind.as_str();
        listener.kinds.is_empty() || listener.kinds.iter().any(is_kind)
    };
    let own = route.meta.namespace();
    let from = || match &listener.namespaces {
        AllowedNamespaces::All => true,
        AllowedNamespaces::Same => own == gateway.meta.namespace(),
        AllowedNamespaces::Selected(selector) => {
            snapshot.namespace(own).is_some_and(|namespace| selector.selects(&namespace.meta))
        }
    };
    spoken && kind() && from()
}
