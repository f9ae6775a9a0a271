//! The target `matching`: rules and requests made of bytes; what the core decides must be what a naive oracle does. The
//! rules go the whole way, as the YAML of a VirtualService. Called by [`crate::Target`].
//!
//! - [`case`]: rules and requests, and the bytes that they are made of
//! - [`expression`]: regular expressions as trees
//! - [`oracle`]: what becomes of a request, by the words of the specification and nothing of the core

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use weir_mesh::compile::{CompileOptions, compile};
use weir_mesh::finding::Severity;
use weir_mesh::request::{RequestView, Source};
use weir_mesh::route::{RouteDecision, decide};
use weir_mesh::store::Store;

use crate::features::Features;

pub mod case;
mod expression;
mod oracle;

use case::{Case, Request};
use oracle::Expected;

/// The mesh, read once.
static READ: LazyLock<Store> = LazyLock::new(|| {
    let mut store = Store::new();
    store.set_file("mesh.yaml", MESH);
    store
});
/// Two services in `shop`, of which `a` has three versions; `a` is asked for on ports 80 and 81.
const MESH: &str = include_str!("mesh.yaml");

/// Decides every request of the case that the bytes make, and compares.
///
/// # Panics
/// When the core decides otherwise than the oracle, or refuses the rules.
pub fn run(input: &[u8], features: &mut Features) {
    let case = Case::from_bytes(input);
    let mut store = READ.clone();
    let text = case.yaml();
    store.set_file("rules.yaml", &text);
    let (snapshot, findings) = store.assemble();
    let refused: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(refused.is_empty(), "rules that are allowed are refused: {refused:?}\n{text}");
    let program = compile(&snapshot, &CompileOptions::default()).program;
    for request in &case.requests {
        let expected = oracle::decide(&case.rules, request);
        let address = (request.address, request.port).into();
        let port = program.port_of(0, address).expect("both services have both ports");
        let (method, headers) = head(request);
        let query: Vec<String> = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let query = query.join("&");
        let view = RequestView {
            method: &method,
            scheme: "http",
            authority: &request.authority,
            path: &request.path,
            query: (!request.query.is_empty()).then_some(&query),
            headers: &headers,
        };
        let source = Source { namespace: request.namespace, view: 0 };
        let got = match decide(&program, port, &source, &view, request.roll) {
            RouteDecision::NoRoute => Expected::NoRoute,
            RouteDecision::Redirect { .. } | RouteDecision::Respond { .. } => panic!("no rule of a case asks for that"),
            RouteDecision::Forward { route: None, destination, .. } => {
                assert!(destination.is_none(), "a host that nobody knows has no destinations");
                Expected::UnknownHost
            }
            RouteDecision::Forward { route: Some(route), destination, .. } => {
                let destination = destination.expect("not all weights are 0");
                let cluster = destination.cluster.map(|id| program.cluster(id));
                if let Some(cluster) = cluster {
                    assert_eq!(cluster.name, destination.name);
                }
                Expected::To {
                    route: route.name.to_string(),
                    cluster: destination.name.to_string(),
                    exists: cluster.is_some(),
                }
            }
        };
        assert_eq!(got, expected, "{request:?}\n{text}");
        if let Expected::To { route, .. } = &got {
            // A late rule is worth keeping: many before it did not take the request.
            features.add(&(route, case.rules.len() / 8));
        }
        features.add(&(case.rules.len(), format!("{got:?}").replace(|c: char| c.is_ascii_digit(), ""), request.port));
    }
}

fn head(request: &Request) -> (Method, HeaderMap) {
    let method = Method::from_bytes(request.method.as_bytes()).expect("one of the case's own methods");
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let name: HeaderName = name.parse().expect("one of the case's own names");
        headers.append(name, HeaderValue::from_str(value).expect("letters"));
    }
    (method, headers)
}
