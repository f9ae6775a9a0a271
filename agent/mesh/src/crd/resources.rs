//! The kinds that are read from an API server, as it serves them: which versions are understood, and which of their
//! fields are kept. One table for the watch, for the rights that it needs and for the tests.

use super::json::Keep;
use super::json::Keep::{All, Annotations, Fields};
use crate::program::{REGION, SUBZONE, ZONE};

/// A kind as an API server serves it.
#[derive(Debug)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// The name in its URL.
    pub plural: &'static str,
    /// The name in its objects.
    pub kind: &'static str,
    /// Versions that are understood, the one to prefer first.
    pub versions: &'static [&'static str],
    /// What is kept of an object.
    pub keep: Keep,
    /// How it bears on what is in force.
    pub role: Role,
}

/// How a kind bears on what is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Kubernetes' own: every API server serves it, and without it nothing can be compiled.
    Core,
    /// Compiled where it is served; its definition may come and go.
    Policy,
    /// Only told of, because this version does nothing with it: its names are enough.
    Named,
}

impl Resource {
    /// `v1`, or `group/version`.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    /// Whether nothing is kept but metadata.
    pub fn is_metadata(&self) -> bool {
        matches!(self.keep, Fields([("metadata", _)]))
    }

    /// The path of all its objects at this version.
    pub fn path(&self, version: &str) -> String {
        if self.group.is_empty() {
            format!("/api/{version}/{}", self.plural)
        } else {
            format!("/apis/{}/{version}/{}", self.group, self.plural)
        }
    }
}

const METADATA: Keep = Fields(&[
    ("name", All),
    ("namespace", All),
    ("uid", All),
    ("generation", All),
    ("resourceVersion", All),
    ("creationTimestamp", All),
    ("labels", All),
    ("annotations", Annotations),
]);
const OWNERS: Keep = Fields(&[("kind", All), ("name", All), ("controller", All)]);
/// A pod's, with what made it.
const OWNED: Keep = Fields(&[
    ("name", All),
    ("namespace", All),
    ("uid", All),
    ("generation", All),
    ("resourceVersion", All),
    ("creationTimestamp", All),
    ("labels", All),
    ("annotations", Annotations),
    ("ownerReferences", OWNERS),
]);
/// Of a kind that is only told of.
pub(crate) const NAME: Keep = Fields(&[("metadata", METADATA)]);
const CONTAINERS: Keep = Fields(&[("name", All), ("ports", Fields(&[("name", All), ("containerPort", All)]))]);
const POD: Keep = Fields(&[
    ("metadata", OWNED),
    (
        "spec",
        Fields(&[
            ("nodeName", All),
            ("hostNetwork", All),
            ("serviceAccountName", All),
            ("runtimeClassName", All),
            ("containers", CONTAINERS),
            ("initContainers", CONTAINERS),
        ]),
    ),
    (
        "status",
        Fields(&[
            ("phase", All),
            ("podIP", All),
            ("podIPs", All),
            ("conditions", Fields(&[("type", All), ("status", All)])),
        ]),
    ),
]);
const SERVICE: Keep = Fields(&[("metadata", METADATA), ("spec", All)]);
const ENDPOINT_SLICE: Keep = Fields(&[
    ("metadata", METADATA),
    ("addressType", All),
    (
        "endpoints",
        Fields(&[("addresses", All), ("conditions", All), ("targetRef", All), ("nodeName", All), ("zone", All)]),
    ),
    ("ports", All),
]);
/// Whole, because what is written there and not supported is told of.
const POLICY: Keep = Fields(&[("metadata", METADATA), ("spec", All)]);

const fn core(group: &'static str, plural: &'static str, kind: &'static str, keep: Keep) -> Resource {
    Resource { group, plural, kind, versions: &["v1"], keep, role: Role::Core }
}

const fn networking(plural: &'static str, kind: &'static str) -> Resource {
    let versions = &["v1", "v1beta1", "v1alpha3"];
    Resource { group: "networking.istio.io", plural, kind, versions, keep: POLICY, role: Role::Policy }
}

const fn security(plural: &'static str, kind: &'static str) -> Resource {
    let versions = &["v1", "v1beta1"];
    Resource { group: "security.istio.io", plural, kind, versions, keep: POLICY, role: Role::Policy }
}

const fn named(
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    versions: &'static [&'static str],
) -> Resource {
    Resource { group, plural, kind, versions, keep: NAME, role: Role::Named }
}

const ISTIO: &[&str] = &["v1", "v1beta1", "v1alpha3"];

const fn gateway_api(plural: &'static str, kind: &'static str, versions: &'static [&'static str]) -> Resource {
    Resource { group: super::gateway_api::GROUP, plural, kind, versions, keep: POLICY, role: Role::Policy }
}

/// The kubelet writes a node every few seconds: no more is kept than where it is.
const NODE: Keep = Fields(&[(
    "metadata",
    Fields(&[
        ("name", All),
        ("uid", All),
        ("resourceVersion", All),
        ("labels", Fields(&[(REGION, All), (ZONE, All), (SUBZONE, All)])),
    ]),
)]);

/// All of them, in the order in which a cluster is best read.
pub const RESOURCES: &[Resource] = &[
    core("", "namespaces", "Namespace", NAME),
    core("", "nodes", "Node", NODE),
    core("", "services", "Service", SERVICE),
    core("", "pods", "Pod", POD),
    core("discovery.k8s.io", "endpointslices", "EndpointSlice", ENDPOINT_SLICE),
    networking("virtualservices", "VirtualService"),
    networking("destinationrules", "DestinationRule"),
    networking("gateways", "Gateway"),
    networking("serviceentries", "ServiceEntry"),
    networking("workloadentries", "WorkloadEntry"),
    networking("sidecars", "Sidecar"),
    security("authorizationpolicies", "AuthorizationPolicy"),
    security("peerauthentications", "PeerAuthentication"),
    security("requestauthentications", "RequestAuthentication"),
    named("networking.istio.io", "envoyfilters", "EnvoyFilter", &["v1alpha3"]),
    named("networking.istio.io", "workloadgroups", "WorkloadGroup", ISTIO),
    named("networking.istio.io", "proxyconfigs", "ProxyConfig", &["v1beta1"]),
    named("telemetry.istio.io", "telemetries", "Telemetry", &["v1", "v1alpha1"]),
    named("extensions.istio.io", "wasmplugins", "WasmPlugin", &["v1alpha1"]),
    gateway_api("gatewayclasses", "GatewayClass", &["v1", "v1beta1"]),
    gateway_api("gateways", "Gateway", &["v1", "v1beta1"]),
    gateway_api("httproutes", "HTTPRoute", &["v1", "v1beta1"]),
    gateway_api("grpcroutes", "GRPCRoute", &["v1", "v1alpha2"]),
    gateway_api("tcproutes", "TCPRoute", &["v1", "v1alpha2"]),
    gateway_api("tlsroutes", "TLSRoute", &["v1", "v1alpha3", "v1alpha2"]),
    gateway_api("referencegrants", "ReferenceGrant", &["v1", "v1beta1"]),
    gateway_api("backendtlspolicies", "BackendTLSPolicy", &["v1", "v1alpha3", "v1alpha2"]),
    named(super::gateway_api::GROUP, "udproutes", "UDPRoute", &["v1", "v1alpha2"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{Kind, classify};

    #[test]
    fn every_version_of_the_table_is_one_that_decoding_knows() {
        for resource in RESOURCES {
            for version in resource.versions {
                let kind = classify(&resource.api_version(version), resource.kind);
                match resource.role {
                    Role::Named => assert!(matches!(kind, Kind::NotServed(_)), "{resource:?} is {kind:?}"),
                    _ => assert_eq!(kind, Kind::Known, "{resource:?}"),
                }
            }
        }
    }

    #[test]
    fn paths_are_those_of_the_api() {
        let path = |kind: &str| RESOURCES.iter().find(|r| r.kind == kind).map(|r| r.path(r.versions[0]));
        let metadata: Vec<&str> = RESOURCES.iter().filter(|r| r.is_metadata()).map(|r| r.kind).take(3).collect();
        assert_eq!(metadata, ["Namespace", "Node", "EnvoyFilter"]);
        assert_eq!(path("Pod").as_deref(), Some("/api/v1/pods"));
        assert_eq!(path("EndpointSlice").as_deref(), Some("/apis/discovery.k8s.io/v1/endpointslices"));
    }
}
