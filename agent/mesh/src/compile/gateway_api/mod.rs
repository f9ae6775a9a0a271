//! The Gateway API in Istio's words: listeners become servers of Gateways, routes become VirtualServices, so that the
//! same code makes the same rules of both. Called before everything else is compiled.
//!
//! - here: the objects that come of it
//! - `attach`: to which listeners and Services a route is attached
//! - `backends`: whether a backend is there, and may be referred to
//! - `rules`: HTTP rules in the order of their precedence
//! - `filters`: what a rule does to requests beside sending them on
//! - `status`: conditions, for whoever writes them back

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gateways::{common, within};
use super::{CompileOptions, Findings};
use crate::crd::gateway_api::{self as api, Route, RouteKind};
use crate::crd::{
    Gateway, Labels, Layer4Match, Mark, Metadata, Server, ServerHost, ServerProtocol, ServerTls, TcpRoute,
    TlsMatchItem, TlsMode, TlsRoute, VirtualService,
};
use crate::finding::{Severity, code};
use crate::snapshot::Snapshot;

mod attach;
mod backends;
mod filters;
mod rules;
mod status;

use attach::{Attachment, Way};
pub use status::{Condition, GatewayStatus, ListenerStatus, ParentStatus, RouteStatus, Statuses};

/// The class that is weir's by its name.
const OWN_CLASS: &str = "weir";
/// The class that users of Istio name.
const ISTIO_CLASS: &str = "istio";
/// The controller of a class that is weir's.
const CONTROLLER: &str = "weir.mesh/gateway-controller";

/// Whether a Gateway is of a class that weir serves.
fn is_own(gateway: &api::Gateway, snapshot: &Snapshot, options: &CompileOptions) -> bool {
    let class = snapshot.gateway_classes.get(&(Arc::default(), Arc::clone(&gateway.class)));
    match class {
        Some(class) if *class.controller == *CONTROLLER => true,
        _ => *gateway.class == *OWN_CLASS || (options.accept_istio_labels && *gateway.class == *ISTIO_CLASS),
    }
}

/// The name by which a VirtualService is bound to a listener: none that a Gateway could have.
fn listener_name(gateway: &api::Gateway, listener: &api::Listener) -> Arc<str> {
    format!("{}~{}", gateway.meta.name(), listener.name).into()
}

/// What the routes and Gateways of a snapshot come to.
struct Converted {
    gateways: Vec<Gateway>,
    virtual_services: Vec<VirtualService>,
    statuses: Statuses,
}

/// The snapshot with what its Gateway API objects come to. `None` when it has none.
pub(super) fn convert(snapshot: &Snapshot, options: &CompileOptions, findings: &mut Findings) -> Option<Snapshot> {
    if snapshot.routes.is_empty() && snapshot.api_gateways.is_empty() {
        return None;
    }
    let converted = converted(snapshot, options);
    converted.statuses.tell(snapshot, findings);
    let mut whole = snapshot.clone();
    for gateway in converted.gateways {
        let key = (Arc::clone(gateway.meta.namespace()), Arc::clone(gateway.meta.name()));
        whole.gateways.entry(key).or_insert_with(|| Arc::new(gateway));
    }
    for vs in converted.virtual_services {
        let host = vs.hosts.first().map(|(host, _)| &**host).unwrap_or_default();
        let way = vs.gateways.first().map(|gateway| &**gateway).unwrap_or_default();
        // A name that no object can have.
        let name = format!("{}/{}/{way}/{host}", vs.meta.object.kind, vs.meta.name());
        whole.virtual_services.insert((Arc::clone(vs.meta.namespace()), name.into()), Arc::new(vs));
    }
    Some(whole)
}

/// The conditions of all Gateways of weir's classes and of the routes that are attached to them or to Services.
pub fn statuses(snapshot: &Snapshot, options: &CompileOptions) -> Statuses {
    converted(snapshot, options).statuses
}

fn converted(snapshot: &Snapshot, options: &CompileOptions) -> Converted {
    let mut gateways: Vec<&api::Gateway> = snapshot.api_gateways.values().map(|gateway| &**gateway).collect();
    gateways.retain(|gateway| is_own(gateway, snapshot, options));
    gateways.sort_by(|a, b| a.meta.seniority().cmp(&b.meta.seniority()));
    let mut routes: Vec<&Route> = snapshot.routes.values().map(|route| &**route).collect();
    routes.sort_by(|a, b| a.meta.seniority().cmp(&b.meta.seniority()));
    let mut statuses = Statuses::default();
    let mut attached: Vec<(&Route, Vec<Attachment>)> = Vec::new();
    for route in routes {
        let (attachments, status) = attach::attach(route, snapshot, options);
        statuses.routes.extend(status);
        attached.push((route, attachments));
    }
    let mut servers = Vec::new();
    for gateway in gateways {
        statuses.gateways.push(status::gateway(gateway, &attached, snapshot));
        let usable = |listener: &&api::Listener| {
            server_protocol(listener).is_some() && backends::certificates(gateway, listener, snapshot).is_ok()
        };
        servers.extend(gateway.listeners.iter().filter(usable).filter_map(|one| server(gateway, one)));
    }
    let mut virtual_services = rules::http(&attached, snapshot, options);
    virtual_services.extend(layer4(&attached, snapshot, options));
    Converted { gateways: servers, virtual_services, statuses }
}

fn server_protocol(listener: &api::Listener) -> Option<ServerProtocol> {
    Some(match &*listener.protocol {
        "HTTP" => ServerProtocol::Http,
        "HTTPS" => ServerProtocol::Https,
        "TLS" => ServerProtocol::Tls,
        "TCP" => ServerProtocol::Tcp,
        _ => return None,
    })
}

/// A Gateway of Istio's with this listener alone.
fn server(gateway: &api::Gateway, listener: &api::Listener) -> Option<Gateway> {
    let mut meta = gateway.meta.clone();
    meta.object.name = listener_name(gateway, listener);
    let name = if listener.hostname.is_empty() { "*".into() } else { Arc::clone(&listener.hostname) };
    let tls = listener.tls.as_ref().map(|tls| {
        let own = gateway.meta.namespace();
        let full = |(namespace, name): &(Arc<str>, Arc<str>)| {
            let namespace = if namespace.is_empty() { own } else { namespace };
            Arc::from(format!("{namespace}/{name}"))
        };
        ServerTls {
            https_redirect: false,
            mode: if tls.passthrough { TlsMode::Passthrough } else { TlsMode::Simple },
            credentials: tls.certificates.iter().map(full).collect(),
        }
    });
    let server = Server {
        mark: listener.mark,
        port: listener.port,
        port_name: Arc::clone(&listener.name),
        protocol: server_protocol(listener)?,
        bind: Arc::default(),
        hosts: [ServerHost { namespace: Arc::default(), name }].into(),
        tls,
    };
    Some(Gateway { meta, selector: Labels::new(), servers: [server].into() })
}

/// A VirtualService for one host, without rules yet.
fn empty(meta: &Metadata, way: &Way, host: &Arc<str>, mark: Mark) -> VirtualService {
    let (gateways, export_to): (&[Arc<str>], &[&str]) = match way {
        Way::Listener(name) => (std::slice::from_ref(name), &[]),
        Way::Everybody => (&[], &[]),
        Way::Namespace(_) => (&[], &["."]),
    };
    VirtualService {
        meta: meta.clone(),
        hosts: [(Arc::clone(host), mark)].into(),
        gateways: gateways.into(),
        export_to: export_to.iter().copied().map(Arc::from).collect(),
        http: Box::default(),
        tls: Box::default(),
        tcp: Box::default(),
        regexes: Box::default(),
    }
}

/// TLSRoutes and TCPRoutes: of several for one place the oldest has it.
fn layer4(
    attached: &[(&Route, Vec<Attachment>)],
    snapshot: &Snapshot,
    options: &CompileOptions,
) -> Vec<VirtualService> {
    let mut found: BTreeMap<(Way, Arc<str>, Option<u16>), VirtualService> = BTreeMap::new();
    for (route, attachments) in attached.iter().filter(|(route, _)| !route.kind.is_http()) {
        // Only the first rule can ever be taken.
        let Some(rule) = route.rules.first() else { continue };
        let destinations = backends::destinations(route, rule, snapshot, options);
        for attachment in attachments {
            for host in &attachment.hosts {
                let place = (attachment.way.clone(), Arc::clone(host), attachment.port);
                found.entry(place).or_insert_with(|| {
                    let mut vs = empty(&route.meta, &attachment.way, host, rule.mark);
                    let conditions = Layer4Match { port: attachment.port, ..Layer4Match::default() };
                    let destinations = destinations.clone();
                    if route.kind == RouteKind::Tls {
                        let sni_hosts = [Arc::clone(host)].into();
                        let items = [TlsMatchItem { sni_hosts, conditions }].into();
                        vs.tls = [TlsRoute { mark: rule.mark, items, destinations }].into();
                    } else {
                        vs.tcp = [TcpRoute { mark: rule.mark, items: [conditions].into(), destinations }].into();
                    }
                    vs
                });
            }
        }
    }
    found.into_values().collect()
}

impl Statuses {
    /// Tells what is not accepted, or leads nowhere.
    fn tell(&self, snapshot: &Snapshot, findings: &mut Findings) {
        for route in &self.routes {
            let Some(object) = snapshot.routes.get(&route.object) else { continue };
            for parent in &route.parents {
                for condition in [&parent.accepted, &parent.resolved_refs].into_iter().filter(|one| !one.status) {
                    let message = format!("{}: {}", condition.reason, condition.message);
                    findings.push(Severity::Error, code::REFERENCE, &object.meta, parent.parent.mark, message);
                }
            }
        }
        for gateway in &self.gateways {
            let key = (Arc::clone(&gateway.object.namespace), Arc::clone(&gateway.object.name));
            let Some(object) = snapshot.api_gateways.get(&key) else { continue };
            for (status, listener) in gateway.listeners.iter().zip(&object.listeners) {
                for condition in [&status.accepted, &status.resolved_refs].into_iter().filter(|one| !one.status) {
                    let message = format!("listener {}: {}: {}", status.name, condition.reason, condition.message);
                    findings.push(Severity::Error, code::REFERENCE, &object.meta, listener.mark, message);
                }
            }
        }
    }
}
