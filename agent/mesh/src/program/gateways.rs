//! What comes in through gateways: listeners, the chain that a connection takes by its SNI, and the virtual hosts behind
//! it. Made by `compile/gateways`. No port is opened for it by this version: commands and tests ask it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{Program, WeightedCluster};
use crate::request::RequestView;
use crate::route::{Observer, RouteDecision, Unobserved, VirtualHost, choose, decide_for, split_port};
use crate::source::{Location, ObjectRef};

/// Index into [`Program::gateways`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u32);

/// A port of the gateway.
#[derive(Debug, Default)]
pub struct Listener {
    /// Envoy's name: `0.0.0.0_8080`.
    pub name: Box<str>,
    /// The address that it is bound to; `None` = every address.
    pub bind: Option<IpAddr>,
    /// The port that pods of the gateway listen on.
    pub port: u16,
    /// By the age of their Gateways: of two that fit equally well, the first is taken.
    pub chains: Box<[FilterChain]>,
}

/// What is done with the connections of a listener that ask for certain names.
#[derive(Debug)]
pub struct FilterChain {
    /// The Gateway that asked for it; of several that share it, the oldest.
    pub gateway: ObjectRef,
    /// Where in the input its server stands.
    pub at: Option<Location>,
    /// SNI, in lower case; `*.example.com` takes what ends in `.example.com`. Empty: every connection.
    pub sni_hosts: Box<[Arc<str>]>,
    /// `None`: TLS does not end here.
    pub termination: Option<Termination>,
    /// Where it leads.
    pub handler: Handler,
}

/// TLS ends here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Termination {
    /// Secrets with the certificates, as `namespace/name`; without a namespace they are in that of the gateway's pods.
    /// Nobody reads them yet.
    pub credentials: Box<[Arc<str>]>,
    /// The client has to have a certificate.
    pub mutual: bool,
}

/// Where the bytes of a chain go.
#[derive(Debug)]
pub enum Handler {
    /// By request.
    Http(HttpHandler),
    /// By connection.
    Tcp(Box<[WeightedCluster]>),
}

/// The virtual hosts of a chain.
#[derive(Debug, Default)]
pub struct HttpHandler {
    /// Envoy's name: `http.8080`, or `https.443.PORTNAME.GATEWAY.NAMESPACE`.
    pub name: Box<str>,
    /// In the order in which they came up.
    pub hosts: Box<[GatewayHost]>,
    /// Whole names in lower case → index into `hosts`.
    pub names: HashMap<Box<str>, u32, RandomState>,
    /// `.example.com` → index, the longest first; last, `` for every name.
    pub suffixes: Box<[(Box<str>, u32)]>,
}

/// A virtual host of a gateway.
#[derive(Debug)]
pub struct GatewayHost {
    /// Envoy's name: `example.com:80`, with the port of the Gateway's server.
    pub name: Box<str>,
    /// Plain requests are sent to `https` (301).
    pub requires_tls: bool,
    /// Its rules.
    pub host: VirtualHost,
}

/// A connection, as far as a listener looks at it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connection<'a> {
    /// It begins as TLS does.
    pub tls: bool,
    /// The name that the client asks for in TLS.
    pub sni: Option<&'a str>,
}

/// What becomes of a connection, or of a request in it.
#[derive(Debug)]
pub enum GatewayDecision<'p> {
    /// No chain takes it: it is closed.
    NoChain,
    /// Plain text where TLS ends, or TLS where plain HTTP is expected: it is closed.
    TlsMismatch,
    /// Bytes that are no HTTP where HTTP is expected: it is closed.
    NotHttp,
    /// Nobody has the host: 404.
    NoHost,
    /// To the same URL by `https`: 301.
    HttpsRedirect(&'p GatewayHost),
    /// By the rules of a host.
    Routed(&'p GatewayHost, RouteDecision<'p>),
    /// As a whole to a destination; `None` = nowhere.
    Forward(Option<&'p WeightedCluster>),
}

impl Listener {
    /// The chains that take a connection, all of them equally well: the first one is taken. An exact name is better
    /// than a suffix, a longer suffix than a shorter one, and any of them than none.
    pub fn chains(&self, connection: Connection<'_>) -> impl Iterator<Item = &FilterChain> {
        let sni = connection.sni.filter(|_| connection.tls);
        let best = self.chains.iter().filter_map(|chain| chain.fit(sni)).max();
        self.chains.iter().filter(move |chain| best.is_some() && chain.fit(sni) == best)
    }
}

impl FilterChain {
    /// How well it fits; `None` when it does not take the connection.
    fn fit(&self, sni: Option<&str>) -> Option<usize> {
        if self.sni_hosts.is_empty() {
            return Some(0);
        }
        let sni = sni?;
        let fits = |host: &Arc<str>| match host.strip_prefix('*') {
            Some(suffix) => {
                let from = sni.len().checked_sub(suffix.len()).filter(|from| *from > 0)?;
                sni.as_bytes()[from..].eq_ignore_ascii_case(suffix.as_bytes()).then_some(suffix.len())
            }
            None => sni.eq_ignore_ascii_case(host).then_some(usize::MAX),
        };
        self.sni_hosts.iter().filter_map(fits).max()
    }
}

impl HttpHandler {
    /// The virtual host of an `authority`, port and case as sent.
    pub fn host(&self, authority: &str) -> Option<&GatewayHost> {
        let host = split_port(authority).0.to_ascii_lowercase();
        let index = self.names.get(&*host).copied().or_else(|| {
            let longer = |suffix: &str| host.len() > suffix.len() || suffix.is_empty();
            self.suffixes
                .iter()
                .find(|(suffix, _)| host.ends_with(&**suffix) && longer(suffix))
                .map(|(_, index)| *index)
        })?;
        self.hosts.get(index as usize)
    }
}

impl Program {
    /// The listener of an address and port; one of the address itself comes first.
    pub fn listener(&self, address: Option<IpAddr>, port: u16) -> Option<ListenerId> {
        let find = |bind: Option<IpAddr>| self.gateways.iter().position(|one| one.port == port && one.bind == bind);
        let own = address.and_then(|address| find(Some(address)));
        own.or_else(|| find(None)).map(|index| ListenerId(index as u32))
    }

    /// A listener.
    pub fn gateway_listener(&self, id: ListenerId) -> &Listener {
        &self.gateways[id.0 as usize]
    }
}

/// What becomes of a connection to a gateway, and of the request in it; `request` is `None` for bytes that are no HTTP.
/// Total, and the same for the same arguments.
pub fn decide_gateway<'p>(
    program: &'p Program,
    listener: ListenerId,
    connection: Connection<'_>,
    request: Option<&RequestView<'_>>,
    roll: u64,
) -> GatewayDecision<'p> {
    decide_gateway_observed(program, listener, connection, request, roll, &mut Unobserved)
}

/// [`decide_gateway`], while somebody looks.
pub fn decide_gateway_observed<'p>(
    program: &'p Program,
    listener: ListenerId,
    connection: Connection<'_>,
    request: Option<&RequestView<'_>>,
    roll: u64,
    observer: &mut impl Observer<'p>,
) -> GatewayDecision<'p> {
    let Some(chain) = program.gateway_listener(listener).chains(connection).next() else {
        return GatewayDecision::NoChain;
    };
    if chain.termination.is_some() && !connection.tls {
        return GatewayDecision::TlsMismatch;
    }
    let handler = match &chain.handler {
        Handler::Tcp(destinations) => return GatewayDecision::Forward(choose(destinations, roll)),
        Handler::Http(handler) => handler,
    };
    if chain.termination.is_none() && connection.tls {
        return GatewayDecision::TlsMismatch;
    }
    let Some(request) = request else {
        return GatewayDecision::NotHttp;
    };
    match handler.host(request.authority) {
        None => GatewayDecision::NoHost,
        Some(host) if host.requires_tls && !connection.tls => GatewayDecision::HttpsRedirect(host),
        Some(host) => GatewayDecision::Routed(host, decide_for(&host.host, request, roll, observer)),
    }
}
