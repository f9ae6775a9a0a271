//! Every field of every kind of [`crate::schema`]: what is in force, the test that shows it, and what happens instead
//! where it is not. docs/features.md is made of these tables; the tests hold them against the schema's.
//!
//! To change one: an entry [`yes`] or [`part`] is about its own field alone, so each field below needs its own; an entry
//! [`decided`] or [`no`] is about everything below it that has no entry. Paths begin below `spec`; `[]` is an item of a list, `*` any
//! key of a map, `{a,b}` stands for several. Then `WEIR_BLESS=1 cargo test -p weir-mesh features`.

use crate::schema::{self, Message, Type};

mod gateway_api;
pub mod markdown;
mod networking;
mod security;
#[cfg(test)]
mod tests;

/// What is said of a field.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// `http[].match[].uri.{exact,prefix}`; empty = the whole spec.
    pub path: &'static str,
    /// Whether it is in force.
    pub support: Support,
}

/// Whether a field is in force.
#[derive(Clone, Copy, Debug)]
pub enum Support {
    /// It is. The test that shows it, as `FILE::FUNCTION`; it sends something through sockets.
    Yes(&'static str),
    /// Some of its values are; the test, and what holds for the others.
    Part(&'static str, &'static str),
    /// It is compiled and decided, as the test shows, but the data path does not do it yet; what happens instead. So it is
    /// with everything below it that has no entry of its own.
    Decided(&'static str, &'static str),
    /// It is not looked at, nor anything below it that has no entry of its own; what happens instead.
    No(&'static str),
}

const fn yes(path: &'static str, test: &'static str) -> Feature {
    Feature { path, support: Support::Yes(test) }
}

const fn part(path: &'static str, test: &'static str, others: &'static str) -> Feature {
    Feature { path, support: Support::Part(test, others) }
}

const fn decided(path: &'static str, test: &'static str, instead: &'static str) -> Feature {
    Feature { path, support: Support::Decided(test, instead) }
}

const fn no(path: &'static str, instead: &'static str) -> Feature {
    Feature { path, support: Support::No(instead) }
}

/// What is said of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// `networking.istio.io`
    pub group: &'static str,
    /// `VirtualService`
    pub kind: &'static str,
    /// Of its fields, in the order of the page.
    pub features: &'static [Feature],
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// All kinds, in the order of the page.
pub static KINDS: &[Kind] = &[
    Kind { group: NETWORKING, kind: "VirtualService", features: networking::VIRTUAL_SERVICE },
    Kind { group: NETWORKING, kind: "DestinationRule", features: networking::DESTINATION_RULE },
    Kind { group: NETWORKING, kind: "Gateway", features: networking::GATEWAY },
    Kind { group: NETWORKING, kind: "ServiceEntry", features: networking::SERVICE_ENTRY },
    Kind { group: NETWORKING, kind: "WorkloadEntry", features: networking::WORKLOAD_ENTRY },
    Kind { group: NETWORKING, kind: "WorkloadGroup", features: networking::WORKLOAD_GROUP },
    Kind { group: NETWORKING, kind: "Sidecar", features: networking::SIDECAR },
    Kind { group: SECURITY, kind: "AuthorizationPolicy", features: security::AUTHORIZATION_POLICY },
    Kind { group: SECURITY, kind: "PeerAuthentication", features: security::PEER_AUTHENTICATION },
    Kind { group: SECURITY, kind: "RequestAuthentication", features: security::REQUEST_AUTHENTICATION },
    Kind { group: "telemetry.istio.io", kind: "Telemetry", features: security::TELEMETRY },
    Kind { group: GATEWAY_API, kind: "GatewayClass", features: gateway_api::GATEWAY_CLASS },
    Kind { group: GATEWAY_API, kind: "Gateway", features: gateway_api::GATEWAY },
    Kind { group: GATEWAY_API, kind: "HTTPRoute", features: gateway_api::HTTP_ROUTE },
    Kind { group: GATEWAY_API, kind: "GRPCRoute", features: gateway_api::GRPC_ROUTE },
    Kind { group: GATEWAY_API, kind: "TLSRoute", features: gateway_api::TLS_ROUTE },
    Kind { group: GATEWAY_API, kind: "TCPRoute", features: gateway_api::TCP_ROUTE },
    Kind { group: GATEWAY_API, kind: "ReferenceGrant", features: gateway_api::REFERENCE_GRANT },
];

impl Feature {
    /// Its paths, with braces written out.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = vec![self.path.to_owned()];
        while let Some(at) = paths.iter().position(|path| path.contains('{')) {
            let path = paths.remove(at);
            let (head, rest) = path.split_once('{').expect("it was found");
            let (choices, tail) = rest.split_once('}').expect("a brace is closed, as the tests see to");
            paths.splice(at..at, choices.split(',').map(|choice| format!("{head}{choice}{tail}")));
        }
        paths
    }
}

/// What is said of a field of the schema, found by the most specific entry; `None` when nothing is.
pub fn of<'f>(features: &'f [Feature], path: &str) -> Option<&'f Feature> {
    let fits = |feature: &Feature, entry: &str| match feature.support {
        Support::Decided(..) | Support::No(_) => {
            entry.is_empty()
                || path.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        }
        Support::Yes(_) | Support::Part(..) => entry == path,
    };
    features
        .iter()
        .flat_map(|feature| feature.paths().into_iter().map(move |entry| (entry, feature)))
        .filter(|(entry, feature)| fits(feature, entry))
        .max_by_key(|(entry, _)| entry.len())
        .map(|(_, feature)| feature)
}

/// Every field below the `spec` of a kind, in the order of the schema: `http`, `http[].name`, `http[].match[].headers`,
/// `http[].match[].headers.*.exact`.
pub fn fields(group: &str, kind: &str) -> Vec<String> {
    let mut found = Vec::new();
    let table = schema::kinds().find(|(g, k, ..)| *g == group && *k == kind).map(|(.., message)| message);
    if let Some(Type::Message(spec)) = table.and_then(|table| table.field("spec")).map(|field| field.ty) {
        below(spec, "", &mut found);
    }
    found
}

fn below(message: &'static Message, prefix: &str, found: &mut Vec<String>) {
    for field in message.fields {
        let mut path = format!("{prefix}{}", field.name);
        found.push(path.clone());
        let mut ty = field.ty;
        loop {
            match ty {
                Type::List(of, _) => {
                    path.push_str("[]");
                    ty = *of;
                }
                Type::Map(of, _) => {
                    path.push_str(".*");
                    ty = *of;
                }
                Type::Message(message) => {
                    path.push('.');
                    below(message, &path, found);
                    break;
                }
                _ => break,
            }
        }
    }
}
