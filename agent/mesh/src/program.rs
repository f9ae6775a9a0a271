//! What the proxy runs on: immutable, shared, and indexed by small integers. Made by [`crate::compile`].

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::route::HostTable;
use crate::source::{Location, ObjectRef};

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

/// How an endpoint is picked within a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum LoadBalancer {
    /// Two random choices, the one with fewer active requests. Istio's default.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
}

/// Everything that a worker needs to decide. A clone shares everything, so that a change of a few clusters costs no more
/// than their number of pointers.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Counts the compilations; equal generation, equal program.
    pub generation: u64,
    /// Original destination → service port, for a view. View 0 = everybody.
    pub destinations: Arc<HashMap<(u32, IpAddr, u16), PortId, foldhash::fast::RandomState>>,
    /// Service ports.
    pub ports: Arc<[ServicePort]>,
    /// Host tables, one for a port number and view: the dialled port selects the set of hosts.
    pub host_tables: Arc<[HostTable]>,
    /// Destinations of routes: service port and subset.
    pub clusters: Box<[Arc<Cluster>]>,
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

    /// True when `cluster` is asked for by clients that chose its endpoint themselves, by dialling a pod of a headless
    /// service. One without endpoints leads nowhere all the same.
    pub fn is_dialled(&self, port: PortId, cluster: ClusterId) -> bool {
        let (port, cluster) = (self.port(port), self.cluster(cluster));
        port.headless
            && cluster.port == port.number
            && cluster.host == port.host
            && !(cluster.endpoints4.is_empty() && cluster.endpoints6.is_empty())
    }

    /// A cluster.
    pub fn cluster(&self, id: ClusterId) -> &Cluster {
        &self.clusters[id.index()]
    }
}

/// One port of a Service.
#[derive(Debug)]
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
    /// Where bytes that are not HTTP go.
    pub tcp: Box<[WeightedCluster]>,
    /// Where an HTTP/2 connection goes as a whole: by the HTTP rule that takes everything, or to the plain service
    /// where the host has no rules. Empty: it has rules of which none takes everything, so the connection is refused.
    pub http2: Box<[WeightedCluster]>,
}

/// One destination of a weighted route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedCluster {
    /// `None`: the route names a subset or a host that does not exist (503 NC).
    pub cluster: Option<ClusterId>,
    /// Its share is `weight / Σ weights`.
    pub weight: u32,
    /// Envoy's name, `outbound|80|v1|service-b.default.svc.cluster.local`, for the access log.
    pub name: Arc<str>,
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
    /// How an endpoint is picked.
    pub load_balancer: LoadBalancer,
    /// How long a connect may take. Istio's default: 10 s.
    pub connect_timeout: std::time::Duration,
    /// Ready endpoints with an IPv4 address.
    pub endpoints4: Arc<[SocketAddr]>,
    /// Ready endpoints with an IPv6 address.
    pub endpoints6: Arc<[SocketAddr]>,
}

impl Cluster {
    /// The endpoints for a client that dialled this family; those of the other where it has none.
    pub fn endpoints_for(&self, ipv6: bool) -> &[SocketAddr] {
        let (own, other) =
            if ipv6 { (&self.endpoints6, &self.endpoints4) } else { (&self.endpoints4, &self.endpoints6) };
        if own.is_empty() { other } else { own }
    }
}

/// What a request that matched is to get. The fields that later features need (timeout, retries, faults, rewrites)
/// have their place here.
#[derive(Debug)]
pub struct Route {
    /// `%ROUTE_NAME%`: `name.matchName`, or `default`.
    pub name: Arc<str>,
    /// The object that asked for it.
    pub object: Option<ObjectRef>,
    /// Where in the input it stands.
    pub at: Option<Location>,
    /// Where it goes.
    pub destinations: Box<[WeightedCluster]>,
}
