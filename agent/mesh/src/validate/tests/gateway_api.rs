//! The kinds of the Gateway API.

use super::table;

const GROUP: &str = "gateway.networking.k8s.io/v1";

#[test]
fn listeners_of_a_gateway() {
    for (listener, wanted) in [
        ("{name: a, port: 80, protocol: HTTP, hostname: '*.a.b'}", ""),
        ("{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}", ""),
        ("{name: a, port: 443, protocol: TLS, tls: {mode: Passthrough}}", ""),
        (
            "{name: a, port: 80, protocol: HTTP, tls: {mode: Passthrough}}",
            "!spec.listeners[0].tls: cannot be given for HTTP",
        ),
        (
            "{name: a, port: 443, protocol: HTTPS, tls: {mode: Passthrough}}",
            "!spec.listeners[0].tls.mode: must be Terminate",
        ),
        (
            "{name: a, port: 443, protocol: HTTPS, tls: {}}",
            "!spec.listeners[0].tls.certificateRefs: must be given where TLS ends",
        ),
        ("{name: a, port: 80, protocol: TCP, hostname: a.b}", "!spec.listeners[0].hostname: cannot be given for TCP"),
        ("{name: A, port: 80, protocol: HTTP}", "!spec.listeners[0].name: A must be a DNS name in lower case"),
        ("{name: a, port: 0, protocol: HTTP}", "!spec.listeners[0].port: must be between 1 and 65535"),
        (
            "{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}",
            "!spec.listeners[1]: another listener has the same",
        ),
        (
            "{name: a, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}",
            "!spec.listeners[1]: name a is there twice",
        ),
    ] {
        table(GROUP, "Gateway", &[(&format!("{{gatewayClassName: x, listeners: [{listener}]}}"), wanted)]);
    }
    table(GROUP, "Gateway", &[("{gatewayClassName: x}", "!spec.listeners: must be given")]);
}

#[test]
fn rules_of_routes() {
    for (rule, wanted) in [
        ("{backendRefs: [{name: a, port: 80, weight: 9}]}", ""),
        (
            "{matches: [{path: {type: PathPrefix, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]}",
            "",
        ),
        ("{timeouts: {request: 10s, backendRequest: 2s}}", ""),
        ("{backendRefs: [{name: a}]}", "!spec.rules[0].backendRefs[0].port: must be given for a Service"),
        (
            "{backendRefs: [{name: a, port: 80, weight: -1}]}",
            "!spec.rules[0].backendRefs[0].weight: must be between 0 and 1000000",
        ),
        ("{matches: [{path: {value: a}}]}", "!spec.rules[0].matches[0].path.value: a must begin with /"),
        ("{matches: [{path: {value: /a//b}}]}", "!spec.rules[0].matches[0].path.value: /a//b must not hold //"),
        (
            "{matches: [{headers: [{name: a, value: b}, {name: a, value: c}]}]}",
            "!spec.rules[0].matches[0].headers[1]: name a is there twice",
        ),
        (
            "{filters: [{type: RequestRedirect}]}",
            "!spec.rules[0].filters[0].requestRedirect: must be given for RequestRedirect",
        ),
        (
            "{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: a, port: 1}]}",
            "!spec.rules[0].backendRefs: cannot be given together",
        ),
        (
            "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]}",
            "!spec.rules[0].filters[0].urlRewrite.path.replacePrefixMatch: needs exactly one match",
        ),
        ("{timeouts: {request: 1s, backendRequest: 2s}}", "!spec.rules[0].timeouts.backendRequest: must not be longer"),
        ("{timeouts: {request: 1.5s}}", "!spec.rules[0].timeouts.request: 1.5s must be a duration such as"),
    ] {
        table(GROUP, "HTTPRoute", &[(&format!("{{parentRefs: [{{name: g}}], rules: [{rule}]}}"), wanted)]);
    }
    table(
        GROUP,
        "HTTPRoute",
        &[
            ("{parentRefs: [{group: '', kind: Service, name: a, port: 80}]}", ""),
            ("{parentRefs: [{name: g}, {name: g}]}", "!spec.parentRefs[1]: the same parent is there twice"),
            (
                "{parentRefs: [{name: g}, {name: g, sectionName: a}]}",
                "!spec.parentRefs[1]: the same parent is there as a whole",
            ),
            ("{hostnames: [A]}", "!spec.hostnames[0]: A must be a DNS name"),
            ("{hostnames: [10.0.0.1]}", "!spec.hostnames[0]: must be a name, not an address"),
        ],
    );
    table(
        GROUP,
        "GRPCRoute",
        &[
            ("{rules: [{matches: [{method: {service: a.B, method: C}}], backendRefs: [{name: a, port: 1}]}]}", ""),
            ("{rules: [{matches: [{method: {}}]}]}", "!spec.rules[0].matches[0].method: one of service and method"),
            (
                "{rules: [{matches: [{method: {service: a/b}}]}]}",
                "!spec.rules[0].matches[0].method.service: a/b is no name",
            ),
        ],
    );
    table(
        GROUP,
        "TCPRoute",
        &[("{rules: [{backendRefs: [{name: a}]}]}", "!spec.rules[0].backendRefs[0].port: must be given")],
    );
}

#[test]
fn grants() {
    let from = "from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}]";
    table(
        GROUP,
        "ReferenceGrant",
        &[
            (&format!("{{{from}, to: [{{group: '', kind: Service}}]}}"), ""),
            (&format!("{{{from}}}"), "!spec.to: must be given"),
            (&format!("{{{from}, to: []}}"), "!spec.to: must not be empty"),
        ],
    );
}
