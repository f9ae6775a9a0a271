//! The fields of the Gateway API's kinds. Read through [`super::KINDS`].

use super::{Feature, no, part, yes};

/// What comes of everything that is for gateways.
const NO_PORT: &str = "compiled and decided, and told in conditions, but no port is opened for it (Warning)";
const PARENTS: &str = "Services are in force; what is attached to a Gateway is compiled, but no port is opened for it";
const NO_HOSTNAMES: &str = "for Gateways alone; for a Service they are not looked at";
const NO_LISTENERS: &str = "for Gateways alone, for which no port is opened";
const NO_DEFAULT: &str = "a route is attached to what it names alone; nothing says so";
const FORWARDED: &str = "requests are forwarded without it (Warning)";
const FILTERS: &str = "RequestHeaderModifier, ResponseHeaderModifier, RequestMirror and URLRewrite: requests are forwarded \
                       without it; RequestRedirect: they are answered with 503; any other: they are answered with 500 \
                       (Error)";
const BACKENDS: &str = "Services; the share of anything else is answered with 500 (Error)";
const BY_CONNECTION: &str = "HTTP/2 is not told apart by request: the rule that takes everything splits connections";

const MESH: &str = "gateway_api::a_route_for_a_service_is_for_the_mesh";
const CONSUMER: &str = "gateway_api::a_consumers_route_is_for_its_own_namespace";
const GRANT: &str = "gateway_api::a_backend_elsewhere_needs_a_grant";
const SHARES: &str = "gateway_api::an_invalid_backend_keeps_its_share";
const MATCHES: &str = "fields::matches_of_a_route_are_looked_at";
const TCP: &str = "fields::a_tcp_route_for_a_service_splits_in_the_kernel";
const GRPC: &str = "gateway_api::grpc_methods_are_paths";

pub(super) const GATEWAY_CLASS: &[Feature] =
    &[no("", "read to know whose Gateways are weir's, for which no port is opened")];

pub(super) const GATEWAY: &[Feature] = &[no("", NO_PORT)];

pub(super) const HTTP_ROUTE: &[Feature] = &[
    part("parentRefs", MESH, PARENTS),
    yes("parentRefs[].{group,kind,name}", MESH),
    yes("parentRefs[].namespace", CONSUMER),
    yes("parentRefs[].port", MATCHES),
    no("parentRefs[].sectionName", NO_LISTENERS),
    no("hostnames", NO_HOSTNAMES),
    no("useDefaultGateways", NO_DEFAULT),
    yes("rules", MESH),
    yes("rules[].name", MATCHES),
    yes("rules[].matches", MATCHES),
    yes("rules[].matches[].path{,.type,.value}", MATCHES),
    yes("rules[].matches[].{headers,queryParams}{,[].name,[].type,[].value}", MATCHES),
    yes("rules[].matches[].method", MATCHES),
    yes("rules[].backendRefs{,[].name,[].port}", MESH),
    yes("rules[].backendRefs[].weight", SHARES),
    yes("rules[].backendRefs[].namespace", GRANT),
    part("rules[].backendRefs[].{group,kind}", MATCHES, BACKENDS),
    no("rules[].{filters,backendRefs[].filters}", FILTERS),
    no("rules[].{timeouts,retry,sessionPersistence}", FORWARDED),
];

pub(super) const GRPC_ROUTE: &[Feature] = &[
    part("parentRefs", GRPC, PARENTS),
    part("parentRefs[].{group,kind,name,namespace}", GRPC, "as in an HTTPRoute"),
    part("parentRefs[].port", GRPC, "as in an HTTPRoute"),
    no("parentRefs[].sectionName", NO_LISTENERS),
    no("hostnames", NO_HOSTNAMES),
    no("useDefaultGateways", NO_DEFAULT),
    part("rules", GRPC, BY_CONNECTION),
    part("rules[].name", GRPC, BY_CONNECTION),
    part("rules[].matches", GRPC, BY_CONNECTION),
    part("rules[].matches[].{method,method.service,method.method,method.type}", GRPC, BY_CONNECTION),
    part("rules[].matches[].headers{,[].name,[].type,[].value}", GRPC, BY_CONNECTION),
    part("rules[].backendRefs{,[].name,[].port,[].weight,[].namespace,[].group,[].kind}", GRPC, BY_CONNECTION),
    no("rules[].{filters,backendRefs[].filters}", FILTERS),
    no("rules[].sessionPersistence", FORWARDED),
];

pub(super) const TLS_ROUTE: &[Feature] = &[no(
    "",
    "TLS connections go to the service that was dialled; what is attached to a Gateway is compiled, but no port is opened for it",
)];

pub(super) const TCP_ROUTE: &[Feature] = &[
    part("parentRefs", TCP, PARENTS),
    yes("parentRefs[].{group,kind,name,port}", TCP),
    part("parentRefs[].namespace", CONSUMER, "as in an HTTPRoute"),
    no("parentRefs[].sectionName", NO_LISTENERS),
    no("useDefaultGateways", NO_DEFAULT),
    yes("rules", TCP),
    no("rules[].name", "not shown anywhere"),
    yes("rules[].backendRefs{,[].name,[].port,[].weight}", TCP),
    part("rules[].backendRefs[].{namespace,group,kind}", GRANT, "as in an HTTPRoute"),
];

pub(super) const REFERENCE_GRANT: &[Feature] =
    &[yes("from{,[].group,[].kind,[].namespace}", GRANT), yes("to{,[].group,[].kind,[].name}", GRANT)];
