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
const TCP_BACKENDS: &str = "Services; connections that are the share of anything else are refused (Error)";
const HOSTNAMES: &str = "gateway_api::hostnames_of_routes_and_listeners_meet";
const CONDITIONS: &str = "gateway_api::conditions_say_what_was_attached";
const FILTERS: &str = "gateway_api::filters_change_paths_and_redirect";
const MODIFIERS: &str = "decided::filters_of_a_route_are_compiled";
const TIMEOUTS: &str = "gateway_api::a_request_and_each_of_its_tries_have_a_time_of_their_own";
const PASSED: &str = "decided::a_tls_route_passes_through_by_name";
const NOT_READ: &str = "not looked at";
const BY_CONNECTION: &str = "HTTP/2 is not told apart by request: the rule that takes everything splits connections";
const HTTP_1: &str =
    "requests of HTTP/1.1; HTTP/2 is not told apart by request: the rule that takes everything splits connections";

const PARENT: &str = "references::a_route_is_for_the_services_and_ports_that_it_names";
const CONSUMER: &str = "references::a_consumers_route_is_for_clients_of_its_namespace_alone";
const GRANT: &str = "references::a_backend_of_another_namespace_needs_a_grant_that_is_for_it";
const NO_SERVICE: &str = "references::the_share_of_a_backend_that_is_no_service_is_answered_with_500";
const CHOSEN: &str = "gateway_api::a_route_for_a_service_chooses_by_what_a_request_says";
const FILTERED: &str = "gateway_api::filters_and_timeouts_of_a_route_are_in_force";
const OWN_FILTERS: &str = "gateway_api::backends_have_filters_of_their_own_and_paths_are_replaced_whole";
const COPIED: &str = "gateway_api::copies_are_made_of_the_share_that_a_mirror_says";
const TCP: &str = "references::a_tcp_route_splits_connections_and_refuses_the_share_of_what_it_may_not_refer_to";
const CONNECTIONS: &str = "grpc::grpc_connections_follow_the_rule_that_takes_everything";
const GRPC_CONSUMER: &str = "grpc::a_consumers_grpc_route_needs_a_grant_of_its_own_kind";
const METHODS: &str = "grpc::over_http_1_the_method_of_a_grpc_route_chooses";

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
    part("parentRefs", PARENT, PARENTS),
    yes("parentRefs[].{group,kind,name}", PARENT),
    yes("parentRefs[].namespace", CONSUMER),
    yes("parentRefs[].port", PARENT),
    decided("parentRefs[].sectionName", CONDITIONS, NO_LISTENERS),
    decided("hostnames", HOSTNAMES, NO_HOSTNAMES),
    no("useDefaultGateways", NO_DEFAULT),
    yes("rules", CHOSEN),
    yes("rules[].name", CHOSEN),
    yes("rules[].matches", CHOSEN),
    yes("rules[].matches[].path{,.type,.value}", CHOSEN),
    yes("rules[].matches[].{headers,queryParams}{,[].name,[].type,[].value}", CHOSEN),
    yes("rules[].matches[].method", CHOSEN),
    yes("rules[].backendRefs{,[].name,[].port}", CHOSEN),
    yes("rules[].backendRefs[].weight", CHOSEN),
    yes("rules[].backendRefs[].namespace", GRANT),
    part("rules[].backendRefs[].{group,kind}", NO_SERVICE, BACKENDS),
    part("rules[].{filters,backendRefs[].filters}{,[].type}", OWN_FILTERS, "as the field of its type says"),
    yes("rules[].filters[].requestRedirect{,.hostname,.port,.scheme,.statusCode}", FILTERED),
    yes("rules[].filters[].{requestRedirect,urlRewrite}.path{,.type,.replacePrefixMatch}", FILTERED),
    yes("rules[].filters[].{requestRedirect,urlRewrite}.path.replaceFullPath", OWN_FILTERS),
    yes("rules[].filters[].urlRewrite{,.hostname}", FILTERED),
    no("rules[].backendRefs[].filters[].{requestRedirect,urlRewrite,requestMirror}", NOT_READ),
    yes("rules[].filters[].requestMirror{,.percent,.fraction,.fraction.numerator,.fraction.denominator}", COPIED),
    yes("rules[].filters[].requestMirror.backendRef{,.group,.kind,.name,.namespace,.port}", COPIED),
    yes("rules[].filters[].{requestHeaderModifier,responseHeaderModifier}{,.remove,.set,.add}", FILTERED),
    yes("rules[].filters[].{requestHeaderModifier,responseHeaderModifier}.{set,add}[].{name,value}", FILTERED),
    yes(
        "rules[].backendRefs[].filters[].{requestHeaderModifier,responseHeaderModifier}{,.remove,.set,.add}",
        OWN_FILTERS,
    ),
    yes(
        "rules[].backendRefs[].filters[].{requestHeaderModifier,responseHeaderModifier}.{set,add}[].{name,value}",
        OWN_FILTERS,
    ),
    no("rules[].{filters,backendRefs[].filters}[].{extensionRef,cors,externalAuth}", UNKNOWN),
    yes("rules[].timeouts{,.request,.backendRequest}", TIMEOUTS),
    no("rules[].{retry,sessionPersistence}", FORWARDED),
];

pub(super) const GRPC_ROUTE: &[Feature] = &[
    part("parentRefs", CONNECTIONS, PARENTS),
    yes("parentRefs[].{group,kind,name,port}", CONNECTIONS),
    yes("parentRefs[].namespace", GRPC_CONSUMER),
    decided("parentRefs[].sectionName", CONDITIONS, NO_LISTENERS),
    decided("hostnames", HOSTNAMES, NO_HOSTNAMES),
    no("useDefaultGateways", NO_DEFAULT),
    part("rules", CONNECTIONS, BY_CONNECTION),
    part("rules[].name", METHODS, HTTP_1),
    part("rules[].matches", METHODS, HTTP_1),
    part("rules[].matches[].{method,method.service,method.method,method.type}", METHODS, HTTP_1),
    part("rules[].matches[].headers{,[].name,[].type,[].value}", METHODS, HTTP_1),
    part("rules[].backendRefs{,[].name,[].port,[].weight}", CONNECTIONS, BY_CONNECTION),
    part("rules[].backendRefs[].{group,kind}", CONNECTIONS, TCP_BACKENDS),
    yes("rules[].backendRefs[].namespace", GRPC_CONSUMER),
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
    yes("parentRefs[].namespace", TCP),
    decided("parentRefs[].sectionName", CONDITIONS, NO_LISTENERS),
    no("useDefaultGateways", NO_DEFAULT),
    yes("rules", TCP),
    no("rules[].name", "not shown anywhere"),
    yes("rules[].backendRefs{,[].name,[].port,[].weight}", TCP),
    yes("rules[].backendRefs[].namespace", TCP),
    part("rules[].backendRefs[].{group,kind}", TCP, TCP_BACKENDS),
];

pub(super) const REFERENCE_GRANT: &[Feature] =
    &[yes("from{,[].group,[].kind,[].namespace}", GRANT), yes("to{,[].group,[].kind,[].name}", GRANT)];
