//! VirtualService.

use super::{NETWORKING, said, table};

/// A VirtualService with one HTTP route of these fields.
fn routes(rows: &[(&str, &str)]) {
    let rows: Vec<(String, &str)> =
        rows.iter().map(|(route, wanted)| (format!("{{hosts: [a], http: [{route}]}}"), *wanted)).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(spec, wanted)| (spec.as_str(), *wanted)).collect();
    table(NETWORKING, "VirtualService", &rows);
}

/// A route with these fields beside its destination.
fn with_route(rows: &[(&str, &str)]) {
    let rows: Vec<(String, &str)> = rows
        .iter()
        .map(|(fields, wanted)| (format!("{{route: [{{destination: {{host: a}}}}], {fields}}}"), *wanted))
        .collect();
    routes(&rows.iter().map(|(route, wanted)| (route.as_str(), *wanted)).collect::<Vec<_>>());
}

#[test]
fn hosts_and_gateways_of_a_virtual_service() {
    let http = "http: [{route: [{destination: {host: a}}]}]";
    for (fields, wanted) in [
        ("hosts: [a, b.c, '*.d', 10.0.0.1]", ""),
        ("gateways: [gw], hosts: ['*']", ""),
        ("gateways: [ns/gw, mesh], hosts: [a]", ""),
        ("exportTo: [.], hosts: [a]", ""),
        ("exportTo: [one, two], hosts: [a]", ""),
        // Without hosts it is one that others delegate to.
        ("exportTo: ['*']", ""),
        ("gateways: [gw]", "!spec.gateways: a VirtualService without hosts"),
        ("hosts: ['*']", "!spec.hosts[0]: * is for gateways only; name the hosts"),
        ("hosts: ['*'], gateways: [gw, mesh]", "!spec.hosts[0]: * is for gateways only"),
        ("hosts: [a, b, a]", "!spec.hosts[2]: a is there twice"),
        ("hosts: ['*.com', a.com]", "!spec.hosts[1]: *.com and a.com overlap"),
        ("hosts: [a_b]", "!spec.hosts[0]: a_b is no host name"),
        ("hosts: ['a.*.b']", "!spec.hosts[0]: a.*.b is no host name: * may only be its first label"),
        ("hosts: [a.1]", "!spec.hosts[0]: a.1 is no host name: its last label must not be all digits"),
        ("hosts: [a], gateways: [ns/*]", "!spec.gateways[0]: ns/*: * is no name"),
        (
            "hosts: [a], gateways: [gw.ns.svc.cluster.local]",
            "?spec.gateways[0]: this way to name a gateway is outdated; write ns/gw",
        ),
        ("hosts: [a], exportTo: ['*', b]", "!spec.exportTo[0]: * must be the only entry"),
        ("hosts: [a], exportTo: [., shop]", "!spec.exportTo[1]: shop is there twice"),
        ("hosts: [a], exportTo: ['~']", "!spec.exportTo[0]: only a ServiceEntry"),
    ] {
        table(NETWORKING, "VirtualService", &[(&format!("{{{fields}, {http}}}").replace('`', ""), wanted)]);
    }
    table(NETWORKING, "VirtualService", &[("{hosts: [a]}", "!spec: one of http, tls and tcp must be given")]);
}

#[test]
fn an_http_route_does_one_thing() {
    routes(&[
        ("{route: [{destination: {host: a}}]}", ""),
        ("{redirect: {uri: /x}}", ""),
        ("{directResponse: {status: 503}}", ""),
        ("{delegate: {name: other}}", ""),
        (
            "{match: [{uri: {prefix: /}}]}",
            "!spec.http[0]: one of route, redirect, directResponse and delegate must be given",
        ),
        ("{route: [{destination: {host: a}}], redirect: {uri: /x}}", "!spec.http[0]: only one of route and redirect"),
        (
            "{redirect: {uri: /x}, directResponse: {status: 200}}",
            "!spec.http[0]: only one of redirect and directResponse",
        ),
        (
            "{route: [{destination: {host: a}}], delegate: {name: o}}",
            "!spec.http[0].route: a route that delegates does nothing itself",
        ),
        ("{redirect: {uri: /x}, rewrite: {uri: /}}", "!spec.http[0].rewrite: cannot be given together with redirect"),
        (
            "{directResponse: {status: 200}, fault: {abort: {httpStatus: 500}}}",
            "!spec.http[0].fault: cannot be given together with directResponse",
        ),
    ]);
    let delegate = "{http: [{delegate: {name: o}, route: [{destination: {host: a}}]}]}";
    assert!(said(NETWORKING, "VirtualService", delegate)[0].contains("cannot delegate itself"));
}

#[test]
fn matches_of_http_routes() {
    with_route(&[
        ("match: [{uri: {prefix: ''}}]", ""),
        ("match: [{}]", ""),
        ("match: [{port: 0}]", ""),
        ("match: [{headers: {x: {}, y: {regex: '*'}, uri: {exact: a}}}]", ""),
        ("match: [{uri: {regex: '/v[0-9]+/{id}'}, ignoreUriCase: true}]", ""),
        ("match: [{sourceLabels: {app: a}, sourceNamespace: ns, gateways: [mesh]}]", ""),
        ("match: [{scheme: {prefix: ''}}]", "!spec.http[0].match[0].scheme.prefix: must not be empty"),
        ("match: [{headers: {x: {prefix: ''}}}]", "!spec.http[0].match[0].headers.x.prefix: must not be empty"),
        ("match: [{headers: {'a b': {exact: x}}}]", "!spec.http[0].match[0].headers.a b: a b is no name of a header"),
        ("match: [{headers: {x: null}}]", "!spec.http[0].match[0].headers.x: must be a map, is nothing"),
        ("match: [{uri: {regex: '('}}]", "!spec.http[0].match[0].uri.regex: is no regular expression"),
        ("match: [{uri: {regex: ''}}]", "!spec.http[0].match[0].uri.regex: must not be empty"),
        ("match: [{uri: {regex: '*'}}]", "!spec.http[0].match[0].uri.regex: is no regular expression"),
        ("match: [{uri: {exact: a, prefix: b}}]", "!spec.http[0].match[0].uri: only one of exact and prefix"),
        ("match: [{port: 70000}]", "!spec.http[0].match[0].port: must be between 1 and 65535"),
        ("match: [{sourceNamespace: a_b}]", "!spec.http[0].match[0].sourceNamespace: a_b is no name of a namespace"),
        ("match: [{sourceLabels: {a b: c}}]", "!spec.http[0].match[0].sourceLabels.a b: is no key of a label"),
        (
            "match: [{headers: {'@request.auth.claims.group': {exact: a}}}]",
            "!spec.http[0].match[0].headers.@request.auth.claims.group: claims of a token",
        ),
    ]);
    let regex = format!("match: [{{uri: {{regex: '{}'}}}}]", "a".repeat(1025));
    with_route(&[(&regex, "!spec.http[0].match[0].uri.regex: must not be longer than 1024 bytes")]);
    let claims = "{hosts: [a.b], gateways: [gw], http: [{match: [{headers: {'@request.auth.claims[a][b]': {exact: x}}}], route: [{destination: {host: a}}]}]}";
    table(NETWORKING, "VirtualService", &[(claims, "")]);
}

#[test]
fn destinations_and_weights() {
    routes(&[
        ("{route: [{destination: {host: a}, weight: 0}]}", ""),
        (
            "{route: [{destination: {host: a}, weight: 90}, {destination: {host: a, subset: v2, port: {number: 80}}, weight: 5}]}",
            "",
        ),
        ("{route: [{destination: {host: a}, weight: 5.0}]}", ""),
        (
            "{route: [{destination: {host: a}}, {destination: {host: b}}]}",
            "!spec.http[0].route: the weights add up to 0",
        ),
        ("{route: [{destination: {host: a}, weight: -1}]}", "!spec.http[0].route[0].weight: must not be negative"),
        (
            "{route: [{destination: {host: a}, weight: '1'}]}",
            "!spec.http[0].route[0].weight: must be an integer, is a string",
        ),
        ("{route: [{weight: 1}]}", "!spec.http[0].route[0].destination: must be given"),
        ("{route: [{destination: {host: '*'}}]}", "!spec.http[0].route[0].destination.host: must name one host"),
        (
            "{route: [{destination: {host: a, subset: v_1}}]}",
            "!spec.http[0].route[0].destination.subset: v_1 is no name",
        ),
        (
            "{route: [{destination: {host: a, port: {number: 0}}}]}",
            "!spec.http[0].route[0].destination.port.number: must be between 1 and 65535",
        ),
        (
            "{route: [{destination: {host: a, port: {}}}]}",
            "!spec.http[0].route[0].destination.port.number: must be given",
        ),
    ]);
}

#[test]
fn header_operations_redirects_and_rewrites() {
    with_route(&[
        (
            "headers: {request: {set: {Host: x, ':authority-x': z}}}",
            "!spec.http[0].headers.request.set.:authority-x: :authority-x cannot be changed",
        ),
        ("headers: {request: {set: {x: '%HOSTNAME%', y: 100%%}, add: {z: a}, remove: [w]}}", ""),
        ("headers: {request: {set: {x: '50%'}}}", "!spec.http[0].headers.request.set.x: % at"),
        (
            "headers: {request: {remove: [host]}}",
            "!spec.http[0].headers.request.remove[0]: the Host header can only be set",
        ),
        (
            "headers: {response: {set: {':status': a}}}",
            "!spec.http[0].headers.response.set.:status: :status cannot be changed",
        ),
        (
            "headers: {response: {add: {'': a}}}",
            "!spec.http[0].headers.response.add.: the name of a header must not be empty",
        ),
        (
            "headers: {request: {set: {host: x}}}, rewrite: {authority: z}",
            "!spec.http[0].headers.request.set.host: the authority is set already",
        ),
        ("rewrite: {uri: /}", ""),
        ("rewrite: {uriRegexRewrite: {match: '/(.*)', rewrite: '/x/\\1'}, authority: x}", ""),
        ("rewrite: {}", "!spec.http[0].rewrite: one of uri, uriRegexRewrite and authority must be given"),
        ("rewrite: {uri: /, uriRegexRewrite: {match: a, rewrite: b}}", "!spec.http[0].rewrite: only one of"),
        (
            "rewrite: {uriRegexRewrite: {match: '(', rewrite: b}}",
            "!spec.http[0].rewrite.uriRegexRewrite.match: is no regular",
        ),
    ]);
    routes(&[
        ("{match: [{uri: {prefix: /a}}], redirect: {prefixRewrite: /b}}", ""),
        ("{redirect: {derivePort: FROM_REQUEST_PORT}}", ""),
        (
            "{match: [{uri: {exact: /a}}], redirect: {prefixRewrite: /b}}",
            "!spec.http[0].redirect.prefixRewrite: replaces the prefix",
        ),
        ("{redirect: {uri: /, prefixRewrite: /b}}", "!spec.http[0].redirect: only one of uri and prefixRewrite"),
        ("{redirect: {}}", "!spec.http[0].redirect: one of uri, prefixRewrite"),
        ("{redirect: {uri: /, redirectCode: 200}}", "!spec.http[0].redirect.redirectCode: must be between 300 and 399"),
        ("{redirect: {uri: /, scheme: ftp}}", "!spec.http[0].redirect.scheme: ftp must be http or https"),
        (
            "{redirect: {port: 80, derivePort: FROM_REQUEST_PORT}}",
            "!spec.http[0].redirect: only one of port and derivePort",
        ),
        ("{directResponse: {status: 100}}", "!spec.http[0].directResponse.status: must be an HTTP status"),
        ("{directResponse: {status: 600}}", ""),
        ("{directResponse: {body: {string: x}}}", "!spec.http[0].directResponse.status: must be given"),
    ]);
    for (bytes, wanted) in
        [(102_401, "?spec.http[0].directResponse.body"), (1_048_577, "!spec.http[0].directResponse.body")]
    {
        routes(&[(&format!("{{directResponse: {{status: 200, body: {{string: '{}'}}}}}}", "x".repeat(bytes)), wanted)]);
    }
}

#[test]
fn timeouts_and_retries() {
    with_route(&[
        ("timeout: 1h2m3.5s", ""),
        // Nought is not "none": the API server refuses it.
        ("timeout: 0s", "!spec.http[0].timeout: 0s must be a duration of at least 1ms"),
        ("timeout: 0.5ms", "!spec.http[0].timeout: 0.5ms must be a duration of at least 1ms"),
        ("timeout: 1.0005s", "!spec.http[0].timeout: 1.0005s must be a duration of whole milliseconds"),
        ("timeout: 10", "!spec.http[0].timeout: must be a string, is a number: put it in quotes"),
        ("timeout: soon", "!spec.http[0].timeout: soon must be a duration such as"),
        ("retries: {attempts: 0}", ""),
        ("retries: {}", ""),
        ("retries: {attempts: 2, perTryTimeout: 1s, retryOn: '5xx,reset,503,unavailable', backoff: 25ms}", ""),
        // A block without attempts means none, so nothing else makes sense in it.
        (
            "retries: {perTryTimeout: 1s}",
            "!spec.http[0].retries.attempts: nothing is retried without attempts, so perTryTimeout",
        ),
        ("retries: {attempts: 0, retryOn: 5xx}", "!spec.http[0].retries.attempts: nothing is retried"),
        ("retries: {attempts: -1}", "!spec.http[0].retries.attempts: must not be negative"),
        (
            "retries: {attempts: 1, retryOn: 'reset, 5xx'}",
            "!spec.http[0].retries.retryOn:  5xx is no condition to retry on; leave out the blanks",
        ),
        (
            "retries: {attempts: 1, retryOn: resett}",
            "!spec.http[0].retries.retryOn: resett is no condition to retry on; did you mean reset?",
        ),
        ("retries: {attempts: 1, retryOn: '600'}", "!spec.http[0].retries.retryOn: 600 is no condition"),
    ]);
}

#[test]
fn faults_mirrors_and_cors() {
    with_route(&[
        ("fault: {abort: {httpStatus: 500, percentage: {value: 0.0001}}, delay: {fixedDelay: 1s}}", ""),
        ("fault: {abort: {grpcStatus: NOT_FOUND}}", ""),
        ("fault: {abort: {percentage: {value: 1}}}", "?spec.http[0].fault.abort: without httpStatus"),
        ("fault: {}", "!spec.http[0].fault: one of abort and delay must be given"),
        (
            "fault: {abort: {httpStatus: 500, percentage: {value: 0.00001}}}",
            "!spec.http[0].fault.abort.percentage.value: must be 0, or between 0.0001 and 100",
        ),
        ("fault: {abort: {httpStatus: 99}}", "!spec.http[0].fault.abort.httpStatus: must be an HTTP status"),
        (
            "fault: {abort: {grpcStatus: NOT_FUOND}}",
            "!spec.http[0].fault.abort.grpcStatus: NOT_FUOND is no name of a gRPC status, such as NOT_FOUND; did you mean NOT_FOUND?",
        ),
        ("fault: {abort: {http2Error: x}}", "!spec.http[0].fault.abort.http2Error: no proxy can do that"),
        ("fault: {delay: {exponentialDelay: 1s}}", "!spec.http[0].fault.delay.exponentialDelay: no proxy"),
        ("mirror: {host: b}, mirrorPercentage: {value: 0.5}", ""),
        ("mirrors: [{destination: {host: b}, percentage: {value: 10}}]", ""),
        (
            "mirror: {host: b}, mirrors: [{destination: {host: b}}]",
            "!spec.http[0].mirrors: cannot be given together with mirror",
        ),
        (
            "mirror: {host: b}, mirrorPercentage: {value: 101}",
            "!spec.http[0].mirrorPercentage.value: must be between 0 and 100",
        ),
        ("mirror: {host: b}, mirrorPercent: 5", "?spec.http[0].mirrorPercent: is outdated"),
        ("corsPolicy: {allowOrigins: [{exact: a}], allowMethods: [GET], allowHeaders: ['*', x-a], maxAge: 24h}", ""),
        (
            "corsPolicy: {allowOrigins: [{}]}",
            "!spec.http[0].corsPolicy.allowOrigins[0]: one of exact, prefix and regex",
        ),
        (
            "corsPolicy: {allowMethods: [get]}",
            "!spec.http[0].corsPolicy.allowMethods[0]: get is no HTTP method; did you mean GET?",
        ),
        (
            "corsPolicy: {exposeHeaders: ['a b']}",
            "!spec.http[0].corsPolicy.exposeHeaders[0]: a b is no name of a header",
        ),
        ("corsPolicy: {maxAge: 1500ms}", "!spec.http[0].corsPolicy.maxAge: must be whole seconds"),
    ]);
}

#[test]
fn tls_and_tcp_routes() {
    table(
        NETWORKING,
        "VirtualService",
        &[
            (
                "{hosts: ['*.a.b'], tls: [{match: [{sniHosts: [x.a.b], port: 443}], route: [{destination: {host: a}}]}]}",
                "",
            ),
            (
                "{hosts: [a.b], tls: [{match: [{sniHosts: [c.d]}], route: [{destination: {host: a}}]}]}",
                "!spec.tls[0].match[0].sniHosts[0]: c.d is not one of spec.hosts (a.b)",
            ),
            (
                "{hosts: [a.b], tls: [{match: [{sniHosts: []}], route: [{destination: {host: a}}]}]}",
                "!spec.tls[0].match[0].sniHosts: must name a host",
            ),
            (
                "{hosts: [a.b], tls: [{match: [{port: 1}], route: [{destination: {host: a}}]}]}",
                "!spec.tls[0].match[0].sniHosts: must be given",
            ),
            ("{hosts: [a.b], tls: [{route: [{destination: {host: a}}]}]}", "!spec.tls[0].match: must be given"),
            ("{hosts: [a.b], tls: [{match: [{sniHosts: [a.b]}]}]}", "!spec.tls[0].route: must have a destination"),
            (
                "{hosts: [10.0.0.1], tls: [{match: [{sniHosts: [10.0.0.1]}], route: [{destination: {host: a}}]}]}",
                "?spec.tls[0].match[0].sniHosts[0]: clients do not send an IP address",
            ),
            (
                "{hosts: [a], tcp: [{match: [{port: 1, destinationSubnets: [10.0.0.0/8]}], route: [{destination: {host: a}}]}]}",
                "",
            ),
            (
                "{hosts: [a], tcp: [{match: [{destinationSubnets: [10.0.0.0/40]}], route: [{destination: {host: a}}]}]}",
                "!spec.tcp[0].match[0].destinationSubnets[0]: 10.0.0.0/40 must be an IP address or a range",
            ),
            ("{hosts: [a], tcp: [{}]}", "!spec.tcp[0].route: must have a destination"),
        ],
    );
}
