//! What the proxy runs on: immutable, shared, and indexed by small integers. Made by [`crate::compile`].

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::route::HostTable;
use crate::source::{Location, ObjectRef};

mod action;
mod client_tls;
mod gateways;
mod locality;
mod parts;
mod policy;
mod rate_limit;
mod rewrite;
mod subnet;
mod workload;

pub use action::{
    Abort, Action, Chance, CorsPolicy, DirectResponse, FaultInjection, HeaderChanges, HeaderOperations, Mirror,
    RetryOn, RetryPolicy, RouteSettings, Share,
};
pub use client_tls::{ClientTls, ClientTlsFiles};
pub use gateways::{
    Connection, FilterChain, GatewayDecision, GatewayHost, Handler, HttpHandler, Listener, ListenerId, Termination,
    decide_gateway, decide_gateway_observed,
};
pub use locality::{
    Clients, HOSTNAME, Localities, NETWORK, REGION, SUBZONE, TrafficDistribution, Whereabouts, ZONE, canonical_place,
};
pub use parts::{PART, Parts};
pub use policy::{
    Block, ClusterPolicy, ConnectionPool, ConsistentHash, Cookie, Distribute, Failover, HashKey, HashTable, HttpPool,
    Level, LoadBalancer, LoadBalancing, Locality, Origin, OutlierDetection, RetryBudget, Tunnel, Warmup, ZoneAware,
};
pub use rate_limit::{Drawn, RateLimit};
pub use rewrite::{Redirect, RedirectPath, RedirectPort, Rewrite, Substitution, UriRewrite};
pub use subnet::Subnet;
pub use workload::{PodTable, Workload};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);
        impl $name {
            /// As an index into the table that it belongs to.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}
id!(/** Index into [`Program::ports`]. */ PortId);
id!(/** Index into [`Program::clusters`]. */ ClusterId);
id!(/** Index into [`Program::host_tables`]. */ HostTableId);

/// How the bytes of a service port are read. Istio's protocol selection: appProtocol, else the port name up to the
/// first `-`, else detection; ports 25, 53, 3306 and 27017 are TCP when nothing is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Declared `http`.
    Http,
    /// Declared `http2` or `grpc`.
    Http2,
    /// Declared `https` or `tls`: passed through.
    Tls,
    /// Declared anything else, or a port that is TCP by custom.
    Tcp,
    /// Nothing declared: the first bytes tell.
    Detect,
}

/// Everything that a worker needs to decide. A clone shares everything, and a change of a few clusters or pods copies the
/// parts of the tables that they are in ([`Parts`]).
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Counts the compilations; equal generation, equal program.
    pub generation: u64,
    /// Original destination → service port, for a view. View 0 = everybody.
    pub destinations: Arc<HashMap<(u32, IpAddr, u16), PortId, foldhash::fast::RandomState>>,
    /// Service ports.
    pub ports: Arc<[Arc<ServicePort>]>,
    /// Host tables, one for a port number: the dialled port selects the set of hosts.
    pub host_tables: Arc<[Arc<HostTable>]>,
    /// What clients of a view find otherwise than everybody, by view and port number: tables to be looked at before that
    /// of the port.
    pub overlays: Arc<HashMap<(u32, u16), HostTableId, foldhash::fast::RandomState>>,
    /// Destinations of routes: service port and subset.
    pub clusters: Parts<Arc<Cluster>>,
    /// What comes in through gateways, by port and address.
    pub gateways: Arc<[Listener]>,
    /// Who is behind an address, for telling of traffic; nothing is decided by it.
    pub pods: PodTable,
    /// Where this node's pods are.
    pub clients: Arc<Clients>,
}

impl Program {
    /// The service port behind an original destination: the view's own entry, else everybody's.
    pub fn port_of(&self, view: u32, destination: SocketAddr) -> Option<PortId> {
        let (address, port) = (destination.ip().to_canonical(), destination.port());
        let found = |view| self.destinations.get(&(view, address, port)).copied();
        if view == 0 { found(0) } else { found(view).or_else(|| found(0)) }
    }

    /// A service port.
    pub fn port(&self, id: PortId) -> &ServicePort {
        &self.ports[id.index()]
    }

    /// True when `cluster` is reached where the client dialled: it chose the endpoint itself, by dialling a pod of a
    /// headless service, or the policy passes connections through. One without endpoints leads nowhere all the same.
    pub fn is_dialled(&self, port: PortId, cluster: ClusterId) -> bool {
        let (port, cluster) = (self.port(port), self.cluster(cluster));
        let chosen = port.headless && cluster.port == port.number && cluster.host == port.host;
        (chosen || cluster.policy.passes_through()) && !(cluster.endpoints4.is_empty() && cluster.endpoints6.is_empty())
    }

    /// A cluster.
    pub fn cluster(&self, id: ClusterId) -> &Cluster {
        &self.clusters[id.index()]
    }
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `service-b.default.svc.cluster.local`
    pub host: Arc<str>,
    /// The service port's number.
    pub number: u16,
    /// How its bytes are read.
    pub protocol: Protocol,
    /// Its clients dial a pod of a headless service: what goes to this very port goes to the pod that was dialled.
    pub headless: bool,
    /// The plain service: every endpoint, no subset. Where a Host that nobody knows goes.
    pub plain: ClusterId,
    /// The hosts that can be asked for on this port.
    pub hosts: HostTableId,
    /// Where bytes that are not HTTP go; the first that fits, and the last always does.
    pub tcp: Box<[TcpRule]>,
    /// Where TLS goes by its SNI; the first that fits, else `tcp`.
    pub tls: Box<[TlsRule]>,
    /// Where an HTTP/2 connection goes as a whole: by the HTTP rule that takes everything, or to the plain service
    /// where the host has no rules. Empty: it has rules of which none takes everything, so the connection is refused.
    pub http2: Box<[WeightedCluster]>,
}

/// One entry of `tcp[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpRule {
    /// The addresses that the client dialled; empty = all.
    pub subnets: Box<[Subnet]>,
    /// Where it goes; each connection by weight.
    pub destinations: Box<[WeightedCluster]>,
}

impl TcpRule {
    /// A rule that takes every connection.
    pub fn all(destinations: Box<[WeightedCluster]>) -> Self {
        Self { subnets: Box::default(), destinations }
    }

    /// Whether a connection to this address is taken.
    pub fn takes(&self, dialled: IpAddr) -> bool {
        Subnet::any(&self.subnets, dialled)
    }
}

/// One item of `tls[].match[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsRule {
    /// In lower case; `*.example.com` takes what ends in `.example.com`.
    pub sni_hosts: Box<[Arc<str>]>,
    /// As in [`TcpRule::subnets`].
    pub subnets: Box<[Subnet]>,
    /// Where it goes; each connection by weight.
    pub destinations: Box<[WeightedCluster]>,
}

impl TlsRule {
    /// Whether a connection with this SNI, to this address, is taken.
    pub fn takes(&self, sni: &str, dialled: IpAddr) -> bool {
        let fits = |host: &str| match host.strip_prefix('*') {
            Some(suffix) => sni.len() > suffix.len() && ends_with_ignore_case(sni, suffix),
            None => sni.eq_ignore_ascii_case(host),
        };
        self.sni_hosts.iter().any(|host| fits(host)) && Subnet::any(&self.subnets, dialled)
    }
}

fn ends_with_ignore_case(text: &str, suffix: &str) -> bool {
    let from = text.len().checked_sub(suffix.len());
    from.and_then(|from| text.as_bytes().get(from..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
}

/// One destination of a weighted route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightedCluster {
    /// `None`: the route names a subset or a host that does not exist (503 NC).
    pub cluster: Option<ClusterId>,
    /// Its share is `weight / Σ weights`.
    pub weight: u32,
    /// Envoy's name, `outbound|80|v1|service-b.default.svc.cluster.local`, for the access log.
    pub name: Arc<str>,
    /// Applied after those of the route.
    pub headers: Option<Arc<HeaderOperations>>,
}

/// The name of a destination that a route of the Gateway API cannot be sent to.
pub const INVALID_BACKEND: &str = "invalid-backend";

impl WeightedCluster {
    /// True for what a route of the Gateway API cannot be sent to, which is answered with 500.
    pub fn is_invalid_backend(&self) -> bool {
        self.cluster.is_none() && *self.name == *INVALID_BACKEND
    }

    /// A destination that changes no headers.
    pub fn new(cluster: Option<ClusterId>, weight: u32, name: Arc<str>) -> Self {
        Self { cluster, weight, name, headers: None }
    }
}

/// One endpoint set with one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Envoy's name: `outbound|PORT|SUBSET|FQDN`.
    pub name: Arc<str>,
    /// The service's FQDN.
    pub host: Arc<str>,
    /// The subset's name; empty = the plain service.
    pub subset: Arc<str>,
    /// Service port.
    pub port: u16,
    /// Everything that holds toward it.
    pub policy: Arc<ClusterPolicy>,
    /// Whether those that it ejects are out of use for everybody on the node, clients that the kernel balances among
    /// them: the outlier detection is the service's own namespace's or the root namespace's. One that a client's namespace
    /// gives itself takes nothing from others.
    pub shares_ejections: bool,
    /// Ready endpoints with an IPv4 address; one that shall get more than others is there several times.
    pub endpoints4: Arc<[SocketAddr]>,
    /// Ready endpoints with an IPv6 address, likewise.
    pub endpoints6: Arc<[SocketAddr]>,
    /// Where they are; `None` where that changes nothing, which is most clusters.
    pub localities: Option<Arc<Localities>>,
}

impl Cluster {
    /// The endpoints for a client that dialled this family; those of the other where it has none.
    pub fn endpoints_for(&self, ipv6: bool) -> &[SocketAddr] {
        let (own, other) =
            if ipv6 { (&self.endpoints6, &self.endpoints4) } else { (&self.endpoints4, &self.endpoints6) };
        if own.is_empty() { other } else { own }
    }
}

/// What a request that matched is to get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// `%ROUTE_NAME%`: `name.matchName`, or `default`.
    pub name: Arc<str>,
    /// The object that asked for it.
    pub object: Option<ObjectRef>,
    /// Where in the input it stands.
    pub at: Option<Location>,
    /// What is done.
    pub action: Action,
    /// Where it goes; empty when it goes nowhere.
    pub destinations: Box<[WeightedCluster]>,
    /// What else is asked for; `None` = nothing.
    pub settings: Option<Arc<RouteSettings>>,
}

impl Route {
    /// The retries that are asked for, or that hold where none are.
    pub fn retries(&self) -> Arc<RetryPolicy> {
        let given = self.settings.as_ref().and_then(|settings| settings.retries.clone());
        given.unwrap_or_else(|| Arc::new(RetryPolicy::none_given()))
    }
}
