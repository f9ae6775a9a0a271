//! What is to become of a request: the decision of the pure core with what it was decided on, and what a rule asks for
//! beside a destination. Made by `handler` once a request; `fault`, `cors`, `respond`, `rewrite` and `headers` read it.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use http::{Request, header};
use weir_mesh::balance::{Affinity, affinity};
use weir_mesh::matching::HttpMatch;
use weir_mesh::program::{Chance, ClusterId, PortId, Route, RouteSettings, WeightedCluster};
use weir_mesh::request::{RequestView, Source};
use weir_mesh::route::{self, RouteDecision};

use super::error::{Kind, ProxyError};
use super::upstream::target::{Held, Target};
use super::worker::Connection;

/// See the module. It borrows the program that it was decided on, which is held until the response's head is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'p> {
    program: &'p Held,
    port: Option<PortId>,
    /// `None`: a host without rules, or an address that nobody describes.
    pub(crate) route: Option<&'p Route>,
    /// The item of the rule that took the request; `None` = it has none.
    pub(crate) matched: Option<&'p HttpMatch>,
    /// What the weights chose, or the client's hash.
    pub(crate) destination: Option<&'p WeightedCluster>,
    /// What the client is known by, where a destination sticks to clients.
    pub(crate) affinity: Option<Affinity<'p>>,
    /// The one random number of the request.
    pub(crate) roll: u64,
}

impl<'p> Plan<'p> {
    /// The dialled port, the Host, the first rule that matches, its weights. A port that the program no longer knows is
    /// one that nobody describes: the request goes where the client dialled.
    pub(crate) fn decide<B>(
        connection: &Connection,
        program: &'p Held,
        port: Option<PortId>,
        request: &Request<B>,
    ) -> Result<Self, ProxyError> {
        let roll = connection.worker.roll();
        let plain = Self { program, port, route: None, matched: None, destination: None, affinity: None, roll };
        let Some(port) = port else {
            return Ok(plain);
        };
        let pod = &connection.pod.source;
        let source = Source { namespace: &pod.namespace, view: pod.view() };
        let view = view(request);
        match route::decide(program, port, &source, &view, roll) {
            RouteDecision::NoRoute => Err(Kind::NoRoute.into()),
            RouteDecision::Forward { route, destination, matched } => {
                let plan = Self { route, matched, destination, ..plain };
                Ok(if program.sticks() { plan.stay(&view, connection.peer.ip()) } else { plan })
            }
            RouteDecision::Redirect { route, matched, .. } => Ok(Self { route: Some(route), matched, ..plain }),
            RouteDecision::Respond { route, .. } => Ok(Self { route: Some(route), ..plain }),
        }
    }

    /// The same, with the destination and the endpoint that the client belongs to, where it belongs to any.
    fn stay(self, request: &RequestView<'_>, client: IpAddr) -> Self {
        let Self { program, destination: drawn, roll, .. } = self;
        let (destination, affinity) = match (self.route, self.port) {
            (Some(route), _) => affinity::settle(program, &route.destinations, drawn, request, client, roll),
            (None, Some(port)) => {
                let key = program.cluster(program.port(port).plain).policy.hash().map(|hash| &hash.key);
                (drawn, key.and_then(|key| affinity::affinity(key, request, client, Chance::Cookie.of(roll))))
            }
            (None, None) => (drawn, None),
        };
        Self { destination, affinity, ..self }
    }

    /// What the rule asks for beside a destination; `None` = nothing.
    pub(crate) fn settings(&self) -> Option<&'p RouteSettings> {
        self.route.and_then(|route| route.settings.as_deref())
    }

    /// Where the request is forwarded to, for a client that dialled `dialled`.
    pub(crate) fn target(&self, dialled: SocketAddr) -> Result<Target, ProxyError> {
        match (self.port, self.route, self.destination) {
            (None, ..) => Ok(Target::Passthrough(dialled)),
            (Some(port), None, _) => Ok(self.reached(port, self.program.port(port).plain, dialled)),
            (Some(_), Some(_), None) => Err(Kind::NoCluster.into()),
            (Some(_), Some(_), Some(destination)) => self.toward(destination, dialled),
        }
    }

    /// One of the destinations that the rule names.
    pub(crate) fn toward(&self, destination: &WeightedCluster, dialled: SocketAddr) -> Result<Target, ProxyError> {
        match (self.port, destination.cluster) {
            (Some(port), Some(cluster)) => Ok(self.reached(port, cluster, dialled)),
            _ if destination.is_invalid_backend() => Err(Kind::InvalidBackend.into()),
            _ => Err(Kind::NoCluster.into()),
        }
    }

    fn reached(&self, port: PortId, cluster: ClusterId, dialled: SocketAddr) -> Target {
        Target::new(Rc::clone(self.program), port, cluster, dialled, self.affinity.map(|affinity| affinity.hash))
    }
}

/// A request as the core sees it.
pub(crate) fn view<B>(request: &Request<B>) -> RequestView<'_> {
    RequestView {
        method: request.method(),
        scheme: "http",
        authority: request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
        path: request.uri().path(),
        query: request.uri().query(),
        headers: request.headers(),
    }
}
