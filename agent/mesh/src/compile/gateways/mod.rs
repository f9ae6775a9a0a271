//! Gateways: from servers to listeners, from the VirtualServices that are bound to them to virtual hosts. Called by
//! `build`, once, after everything in the mesh.
//!
//! - here: which Gateways are served, and which of their servers share a port
//! - `ports`: the port that a server's number stands for
//! - `names`: hosts of servers and of VirtualServices, and what they have in common
//! - `http`: virtual hosts
//! - `layer4`: chains of bytes and of TLS that is passed through
//!
//! Of Gateways that want the same, the oldest has it: what a younger one adds is taken only as far as both can be told
//! apart.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::destinations::Router;
use super::registry::Registry;
use super::visibility::sees;
use super::{CompileOptions, Findings};
use crate::crd::{Gateway, Labels, Metadata, Server, ServerHost, TlsMode, VirtualService};
use crate::finding::{Severity, code};
use crate::program::{FilterChain, Listener, Termination};
use crate::snapshot::Snapshot;

mod http;
mod layer4;
mod names;
mod ports;

pub(super) use names::{common, within};
pub(super) use ports::opened;

/// Which pods are the gateway's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayIdentity {
    /// Their labels: a Gateway whose `selector` asks for another is somebody else's.
    pub labels: Labels,
    /// Their addresses, where they are known.
    pub addresses: Vec<IpAddr>,
}

impl Default for GatewayIdentity {
    /// Those of Istio's ingress gateway, which users' Gateways select.
    fn default() -> Self {
        let labels = [("app", "istio-ingressgateway"), ("istio", "ingressgateway")];
        let labels = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self { labels, addresses: Vec::new() }
    }
}

/// The name of a Gateway that a VirtualService names, as `namespace/name`.
pub(super) fn full_name(name: &str, vs: &Metadata) -> String {
    if name.contains('/') { name.to_owned() } else { format!("{}/{name}", vs.namespace()) }
}

/// A server on one of the ports that it is for.
#[derive(Clone, Copy)]
struct Bound<'g> {
    gateway: &'g Gateway,
    server: &'g Server,
    /// Which is opened.
    port: u16,
}

impl Bound<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.gateway.meta.namespace(), self.gateway.meta.name())
    }

    fn bind(&self) -> Option<IpAddr> {
        // An address that is none cannot be bound.
        self.server.bind.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified())
    }

    fn chain(&self, sni_hosts: Box<[Arc<str>]>, handler: crate::program::Handler) -> FilterChain {
        let tls = self.server.tls.as_ref().filter(|_| self.server.terminates());
        FilterChain {
            gateway: self.gateway.meta.object.clone(),
            at: self.gateway.meta.place(self.server.mark),
            sni_hosts,
            termination: tls.map(|tls| Termination {
                credentials: tls.credentials.clone(),
                mutual: matches!(tls.mode, TlsMode::Mutual | TlsMode::IstioMutual),
            }),
            handler,
        }
    }
}

/// The servers of one address and port.
#[derive(Default)]
struct Socket<'g> {
    servers: Vec<Bound<'g>>,
    /// Hosts of its servers that are for TLS.
    tls_hosts: Vec<&'g ServerHost>,
}

impl<'g> Socket<'g> {
    /// Adds a server, or says why it cannot share the port.
    fn add(&mut self, bound: Bound<'g>) -> Result<(), String> {
        let server = bound.server;
        let Some(first) = self.servers.first() else {
            self.tls_hosts.extend(server.hosts.iter().filter(|_| server.is_tls()));
            self.servers.push(bound);
            return Ok(());
        };
        let owner = &first.gateway.meta.object;
        if server.is_tls() != first.server.is_tls()
            || !(server.is_tls() || (server.is_http() && first.server.is_http()))
        {
            let port = bound.port;
            return Err(format!("{owner} has port {port} for something that cannot be told from it"));
        }
        if server.is_tls() {
            if let Some(twice) = server.hosts.iter().find(|host| self.tls_hosts.contains(host)) {
                return Err(format!("an older server has {} on port {} already", twice.name, bound.port));
            }
            self.tls_hosts.extend(&server.hosts);
        }
        self.servers.push(bound);
        Ok(())
    }
}

/// The servers of all Gateways, by port and address. What cannot be served is told of.
fn sockets<'g>(
    gateways: &[&'g Gateway],
    registry: &Registry<'_>,
    options: &CompileOptions,
    findings: &mut Findings,
) -> BTreeMap<(u16, Option<IpAddr>), Socket<'g>> {
    let mut sockets: BTreeMap<_, Socket<'g>> = BTreeMap::new();
    for gateway in gateways {
        for server in &gateway.servers {
            if server.port == 0 {
                let message = format!("server {} is left out: it has no port", server.port_name);
                findings.push(Severity::Warning, code::NOT_SUPPORTED, &gateway.meta, server.mark, message);
                continue;
            }
            for port in opened(gateway, server, registry, &options.gateway) {
                let bound = Bound { gateway, server, port };
                if let Err(why) = sockets.entry((port, bound.bind())).or_default().add(bound) {
                    let message = format!("server {} is left out: {why}", server.port_name);
                    findings.push(Severity::Warning, code::NO_EFFECT, &gateway.meta, server.mark, message);
                }
            }
        }
    }
    sockets
}

/// The VirtualServices of a Gateway, the oldest first.
struct Bindings<'s>(Vec<&'s VirtualService>);

impl<'s> Bindings<'s> {
    fn of(&self, gateway: &Gateway) -> impl Iterator<Item = &'s VirtualService> {
        let own = format!("{}/{}", gateway.meta.namespace(), gateway.meta.name());
        let namespace = Arc::clone(gateway.meta.namespace());
        self.0.iter().copied().filter(move |vs| {
            vs.gateways.iter().any(|name| full_name(name, &vs.meta) == own)
                && sees(Some(&namespace), &vs.meta, &vs.export_to)
        })
    }
}

/// Makes the listeners of all Gateways that are weir's, by port and address.
pub(super) fn listeners<'s>(snapshot: &'s Snapshot, router: &mut Router<'_, 's, '_>) -> Vec<Listener> {
    let options = router.options;
    let mut gateways: Vec<&Gateway> = snapshot.gateways.values().map(|gateway| &**gateway).collect();
    gateways.sort_by(|a, b| a.meta.seniority().cmp(&b.meta.seniority()));
    let own = |gateway: &&Gateway| super::registry::has_labels(&options.gateway.labels, &gateway.selector);
    let (gateways, others): (Vec<&Gateway>, Vec<&Gateway>) = gateways.into_iter().partition(own);
    for gateway in others {
        let message = "its selector is not for weir's gateway, whose labels are app=istio-ingressgateway and istio=ingressgateway unless configured: nothing of it is served";
        let mark = crate::crd::Mark::default();
        router.findings.push(Severity::Info, code::NO_EFFECT, &gateway.meta, mark, message.to_owned());
    }
    let mut rules: Vec<&VirtualService> =
        snapshot.virtual_services.values().map(|vs| &**vs).filter(|vs| !vs.is_delegate()).collect();
    rules.sort_by(|a, b| a.meta.seniority().cmp(&b.meta.seniority()));
    let bindings = Bindings(rules);
    let sockets = sockets(&gateways, router.registry, options, router.findings);
    let mut listeners = Vec::new();
    for ((port, bind), socket) in sockets {
        let mut chains = Vec::new();
        if let [first, ..] = &*socket.servers
            && !first.server.is_tls()
            && first.server.is_http()
        {
            chains.push(first.chain(Box::default(), http::handler(&socket.servers, &bindings, router)));
        } else {
            let mut sni_hosts = Vec::new();
            for bound in &socket.servers {
                if bound.server.is_http() {
                    let handler = http::handler(&[*bound], &bindings, router);
                    chains.push(bound.chain(names::sni_of(bound.server), handler));
                } else {
                    layer4::chains(bound, &bindings, router, &mut sni_hosts, &mut chains);
                }
            }
        }
        // Nothing can become of what comes in: no socket is needed.
        if chains.is_empty() {
            continue;
        }
        let address = bind.map_or_else(|| "0.0.0.0".to_owned(), |bind| bind.to_string());
        listeners.push(Listener { name: format!("{address}_{port}").into(), bind, port, chains: chains.into() });
    }
    listeners
}
