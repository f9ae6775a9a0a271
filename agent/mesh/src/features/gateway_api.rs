//! The fields of the Gateway API's kinds. Read through [`super::KINDS`].

use super::{Feature, decided, no, part, yes};

/// What comes of everything that is for gateways.
const NO_PORT: &str = "told in conditions; no port is opened for it (Warning)";
const PARENTS: &str = "Services are in force; what is attached to a Gateway is decided, but no port is opened for it";
const NO_HOSTNAMES: &str = "for Gateways alone, for which no port is opened; for a Service they are not looked at";
const NO_LISTENERS: &str = "for Gateways alone, for which no port is opened";
const NO_DEFAULT: &str = "a route is attached to what it names alone; nothing says so";
const FORWARDED: &str = "requests are forwarded without it (Warning)";
const UNKNOWN: &str = "its rule answers with 500 (Error)";
const BACKENDS: &str = "Services; the share of anything else is answered with 500 (Error)";
const HOSTNAMES: &str = "gateway_api::hostnames_of_routes_and_listeners_meet";
const CONDITIONS: &str = "gateway_api::conditions_say_what_was_attached";
const FILTERS: &str = "gateway_api::filters_change_paths_and_redirect";
const MODIFIERS: &str = "decided::filters_of_a_route_are_compiled";
const TIMEOUTS: &str = "gateway_api::timeouts_are_those_of_the_rule_and_of_each_try";
const PASSED: &str = "decided::a_tls_route_passes_through_by_name";
const NOT_READ: &str = "not looked at";
const BY_CONNECTION: &str = "HTTP/2 is not told apart by request: the rule that takes everything splits connections";

const MESH: &str = "gateway_api::a_route_for_a_service_is_for_the_mesh";
const CONSUMER: &str = "gateway_api::a_consumers_route_is_for_its_own_namespace";
const GRANT: &str = "gateway_api::a_backend_elsewhere_needs_a_grant";
const CHOSEN: &str = "gateway_api::a_route_for_a_service_chooses_by_what_a_request_says";
const FILTERED: &str = "gateway_api::filters_and_timeouts_of_a_route_are_in_force";
const MATCHES: &str = "fields::matches_of_a_route_are_looked_at";
const TCP: &str = "fields::a_tcp_route_for_a_service_splits_in_the_kernel";
const GRPC: &str = "gateway_api::grpc_methods_are_paths";

pub(super) const GATEWAY_CLASS: &[Feature] = &[
    decided("controllerName", "decided::a_gateway_of_another_class_is_left_alone", NO_LISTENERS),
    no("{description,parametersRef}", NOT_READ),
];

pub(super) const GATEWAY: &[Feature] = &[
    decided("gatewayClassName", "decided::a_gateway_of_another_class_is_left_alone", NO_PORT),
    decided("listeners{,[].name}", CONDITIONS, NO_PORT),
    decided("listeners[].{port,protocol}", FILTERS, NO_PORT),
    decided("listeners[].hostname", HOSTNAMES, NO_PORT),
    decided("listeners[].allowedRoutes", "decided::a_listener_says_whose_routes_and_which_kinds_it_takes", NO_PORT),
    decided("listeners[].tls{,.mode}", PASSED, NO_PORT),
    decided("listeners[].tls.certificateRefs", "decided::a_listener_names_its_certificates", NO_PORT),
    no("listeners[].tls.options", NOT_READ),
    no("{addresses,allowedListeners,defaultScope,infrastructure,tls}", NOT_READ),
];

pub(super) const HTTP_ROUTE: &[Feature] = &[
    part("parentRefs", MESH, PARENTS),
    yes("parentRefs[].{group,kind,name}", MESH),
    yes("parentRefs[].namespace", CONSUMER),
    yes("parentRefs[].port", MATCHES),
    decided("parentRefs[].sectionName", CONDITIONS, NO_LISTENERS),
    decided("hostnames", HOSTNAMES, NO_HOSTNAMES),
    no("useDefaultGateways", NO_DEFAULT),
    yes("rules", MESH),
    yes("rules[].name", MATCHES),
    yes("rules[].matches", CHOSEN),
    yes("rules[].matches[].path{,.type,.value}", CHOSEN),
    yes("rules[].matches[].{headers,queryParams}{,[].name,[].type,[].value}", CHOSEN),
    yes("rules[].matches[].method", CHOSEN),
    yes("rules[].backendRefs{,[].name,[].port}", CHOSEN),
    yes("rules[].backendRefs[].weight", CHOSEN),
    yes("rules[].backendRefs[].namespace", GRANT),
    part("rules[].backendRefs[].{group,kind}", MATCHES, BACKENDS),
    part("rules[].{filters,backendRefs[].filters}{,[].type}", FILTERS, "as the field of its type says"),
    yes("rules[].filters[].requestRedirect{,.hostname,.port,.scheme,.statusCode}", FILTERED),
    yes("rules[].filters[].{requestRedirect,urlRewrite}.path{,.type,.replaceFullPath,.replacePrefixMatch}", FILTERED),
    yes("rules[].filters[].urlRewrite{,.hostname}", FILTERED),
    no("rules[].backendRefs[].filters[].{requestRedirect,urlRewrite,requestMirror}", NOT_READ),
    yes("rules[].filters[].requestMirror{,.percent,.fraction,.fraction.numerator,.fraction.denominator}", MODIFIERS),
    yes("rules[].filters[].requestMirror.backendRef{,.group,.kind,.name,.namespace,.port}", FILTERED),
    yes(
        "rules[].{filters,backendRefs[].filters}[].{requestHeaderModifier,responseHeaderModifier}{,.remove,.set,.add}",
        FILTERED,
    ),
    yes(
        "rules[].{filters,backendRefs[].filters}[].{requestHeaderModifier,responseHeaderModifier}.{set,add}[].{name,value}",
        FILTERED,
    ),
    no("rules[].{filters,backendRefs[].filters}[].{extensionRef,cors,externalAuth}", UNKNOWN),
    yes("rules[].timeouts{,.request,.backendRequest}", TIMEOUTS),
    no("rules[].{retry,sessionPersistence}", FORWARDED),
];

pub(super) const GRPC_ROUTE: &[Feature] = &[
    part("parentRefs", GRPC, PARENTS),
    part("parentRefs[].{group,kind,name,namespace}", GRPC, "as in an HTTPRoute"),
    part("parentRefs[].port", GRPC, "as in an HTTPRoute"),
    decided("parentRefs[].sectionName", CONDITIONS, NO_LISTENERS),
    decided("hostnames", HOSTNAMES, NO_HOSTNAMES),
    no("useDefaultGateways", NO_DEFAULT),
    part("rules", GRPC, BY_CONNECTION),
    part("rules[].name", GRPC, BY_CONNECTION),
    part("rules[].matches", GRPC, BY_CONNECTION),
    part("rules[].matches[].{method,method.service,method.method,method.type}", GRPC, BY_CONNECTION),
    part("rules[].matches[].headers{,[].name,[].type,[].value}", GRPC, BY_CONNECTION),
    part("rules[].backendRefs{,[].name,[].port,[].weight,[].namespace,[].group,[].kind}", GRPC, BY_CONNECTION),
    decided("rules[].{filters,backendRefs[].filters}{,[].type}", MODIFIERS, "as the field of its type says"),
    decided("rules[].filters[].requestMirror", MODIFIERS, BY_CONNECTION),
    no("rules[].backendRefs[].filters[].requestMirror", NOT_READ),
    decided(
        "rules[].{filters,backendRefs[].filters}[].{requestHeaderModifier,responseHeaderModifier}",
        MODIFIERS,
        BY_CONNECTION,
    ),
    no("rules[].{filters,backendRefs[].filters}[].extensionRef", UNKNOWN),
    no("rules[].sessionPersistence", FORWARDED),
];

const TLS_MESH: &str =
    "for a Service, connections go to the service that was dialled; for a Gateway, no port is opened";

pub(super) const TLS_ROUTE: &[Feature] = &[
    decided("parentRefs", PASSED, TLS_MESH),
    decided("hostnames", PASSED, TLS_MESH),
    no("useDefaultGateways", NO_DEFAULT),
    decided("rules", PASSED, TLS_MESH),
    no("rules[].name", "not shown anywhere"),
];

pub(super) const TCP_ROUTE: &[Feature] = &[
    part("parentRefs", TCP, PARENTS),
    yes("parentRefs[].{group,kind,name,port}", TCP),
    part("parentRefs[].namespace", CONSUMER, "as in an HTTPRoute"),
    decided("parentRefs[].sectionName", CONDITIONS, NO_LISTENERS),
    no("useDefaultGateways", NO_DEFAULT),
    yes("rules", TCP),
    no("rules[].name", "not shown anywhere"),
    yes("rules[].backendRefs{,[].name,[].port,[].weight}", TCP),
    part("rules[].backendRefs[].{namespace,group,kind}", GRANT, "as in an HTTPRoute"),
];

pub(super) const REFERENCE_GRANT: &[Feature] =
    &[yes("from{,[].group,[].kind,[].namespace}", GRANT), yes("to{,[].group,[].kind,[].name}", GRANT)];
