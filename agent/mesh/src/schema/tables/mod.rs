//! The tables, one file a family, and which of them is whose. A line is a field; `must` before it says that it is
//! required, and `one of` that the fields named exclude each other.

mod destination_rule;
mod gateway;
mod gateway_api;
mod gateway_api_routes;
mod meta;
mod security;
mod service_entry;
mod sidecar;
mod telemetry;
mod virtual_service;

use super::Message;

/// Writes down a message.
macro_rules! message {
    ($name:ident { $($($must:ident)? $field:literal: $ty:expr,)* } $(one of $($member:literal),+)*) => {
        pub(in crate::schema) static $name: $crate::schema::Message = $crate::schema::Message {
            name: stringify!($name),
            fields: &[$($crate::schema::Field {
                name: $field,
                ty: $ty,
                required: !stringify!($($must)?).is_empty(),
            }),*],
            one_of: &[$(&[$($member),+]),*],
        };
    };
}
use message;

/// What every table needs.
mod prelude {
    pub(super) use super::message;
    pub(super) use super::meta::OBJECT_META;
    pub(super) use crate::schema::Size;
    pub(super) use crate::schema::Type::{self, Any, Bool, Enum, Float, Int, IntEnum, List, Map, Message, Text};
    pub(super) use crate::schema::pattern::{
        CONTROLLER_NAME, DOMAIN, GROUP, HEADER_NAME, HEADER_VALUE, HOSTNAME, KIND, LABEL, LABEL_VALUE,
        LISTENER_PROTOCOL, TOKEN,
    };

    pub(super) const ANY: Size = Size::ANY;
    pub(super) const TEXT: Type = Text(ANY);
    pub(super) const FLOAT: Type = Float(f64::MIN, f64::MAX);
    pub(super) const I32: Type = Int(i32::MIN as i64, i32::MAX as i64);
    /// An `int32` that is not negative.
    pub(super) const COUNT: Type = Int(0, i32::MAX as i64);
    pub(super) const U32: Type = Int(0, u32::MAX as i64);
    pub(super) const U64: Type = Int(0, i64::MAX);
    pub(super) const PORT_NUMBER: Type = Int(1, 65535);
    pub(super) const DURATION: Type = Type::Duration(1);
    pub(super) const DURATION_OR_ZERO: Type = Type::Duration(0);
    pub(super) const GATEWAY_DURATION: Type = Type::PlainDuration;

    pub(super) const fn between(min: usize, max: usize) -> Size {
        Size::ANY.between(min, max)
    }

    pub(super) const fn at_most(max: usize) -> Size {
        between(0, max)
    }

    pub(super) const fn at_least(min: usize) -> Size {
        between(min, usize::MAX)
    }
}

const NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY: &[&str] = &["v1", "v1beta1"];

/// Group, kind, versions and table of everything that is checked.
static KINDS: &[(&str, &str, &[&str], &Message)] = &[
    ("networking.istio.io", "VirtualService", NETWORKING, &virtual_service::VIRTUAL_SERVICE),
    ("networking.istio.io", "DestinationRule", NETWORKING, &destination_rule::DESTINATION_RULE),
    ("networking.istio.io", "Gateway", NETWORKING, &gateway::GATEWAY),
    ("networking.istio.io", "ServiceEntry", NETWORKING, &service_entry::SERVICE_ENTRY),
    ("networking.istio.io", "WorkloadEntry", NETWORKING, &service_entry::WORKLOAD_ENTRY),
    ("networking.istio.io", "WorkloadGroup", NETWORKING, &service_entry::WORKLOAD_GROUP),
    ("networking.istio.io", "Sidecar", NETWORKING, &sidecar::SIDECAR),
    ("security.istio.io", "AuthorizationPolicy", SECURITY, &security::AUTHORIZATION_POLICY),
    ("security.istio.io", "PeerAuthentication", SECURITY, &security::PEER_AUTHENTICATION),
    ("security.istio.io", "RequestAuthentication", SECURITY, &security::REQUEST_AUTHENTICATION),
    ("telemetry.istio.io", "Telemetry", &["v1", "v1alpha1"], &telemetry::TELEMETRY),
    ("gateway.networking.k8s.io", "Gateway", &["v1", "v1beta1"], &gateway_api::GATEWAY),
    ("gateway.networking.k8s.io", "GatewayClass", &["v1", "v1beta1"], &gateway_api::GATEWAY_CLASS),
    ("gateway.networking.k8s.io", "ReferenceGrant", &["v1", "v1beta1"], &gateway_api::REFERENCE_GRANT),
    ("gateway.networking.k8s.io", "HTTPRoute", &["v1", "v1beta1"], &gateway_api_routes::HTTPROUTE),
    ("gateway.networking.k8s.io", "GRPCRoute", &["v1", "v1alpha2"], &gateway_api_routes::GRPCROUTE),
    ("gateway.networking.k8s.io", "TLSRoute", &["v1", "v1alpha3", "v1alpha2"], &gateway_api_routes::TLSROUTE),
    ("gateway.networking.k8s.io", "TCPRoute", &["v1", "v1alpha2"], &gateway_api_routes::TCPROUTE),
];

/// What an object of this `apiVersion` and kind may hold; `None` for kinds that nobody checks.
pub fn message_of(api_version: &str, kind: &str) -> Option<&'static Message> {
    let (group, version) = api_version.split_once('/')?;
    KINDS
        .iter()
        .find(|(g, k, versions, _)| *g == group && *k == kind && versions.contains(&version))
        .map(|(.., message)| *message)
}

/// Every kind that is checked: group, kind, versions with the newest first, and what an object of it may hold.
pub fn kinds() -> impl Iterator<Item = (&'static str, &'static str, &'static [&'static str], &'static Message)> {
    KINDS.iter().copied()
}

/// The versions of a kind that is checked, whatever version its `apiVersion` says.
pub fn versions_of(api_version: &str, kind: &str) -> Option<&'static [&'static str]> {
    let (group, _) = api_version.split_once('/')?;
    KINDS.iter().find(|(g, k, ..)| *g == group && *k == kind).map(|(_, _, versions, _)| *versions)
}

/// Kinds of Istio's groups that nobody checks.
const UNCHECKED: &[&str] = &["EnvoyFilter", "ProxyConfig", "WasmPlugin", "TrafficExtension"];
const GATEWAY_API: &str = "gateway.networking.k8s.io";
/// Kinds of the Gateway API that nobody checks.
const UNCHECKED_GATEWAY_API: &[&str] = &["BackendTLSPolicy", "ListenerSet", "UDPRoute"];

/// False for a kind that one of Istio's groups, or the Gateway API, does not have.
pub fn group_has_kind(api_version: &str, kind: &str) -> bool {
    let group = api_version.split('/').next().unwrap_or_default();
    let unchecked = match group {
        GATEWAY_API => UNCHECKED_GATEWAY_API,
        _ if group.ends_with(".istio.io") => UNCHECKED,
        _ => return true,
    };
    let kind = kind.strip_suffix("List").unwrap_or(kind);
    unchecked.contains(&kind) || versions_of(api_version, kind).is_some()
}

/// The kind of any of the groups that was probably meant, with its `apiVersion`.
pub fn nearest_kind(kind: &str) -> Option<(String, &'static str)> {
    let kind = super::nearest(kind, KINDS.iter().map(|(_, kind, ..)| *kind))?;
    KINDS
        .iter()
        .find(|(_, k, ..)| *k == kind)
        .map(|(group, kind, versions, _)| (format!("{group}/{}", versions[0]), *kind))
}
