//! AuthorizationPolicy, PeerAuthentication, RequestAuthentication, Telemetry.

use super::{SECURITY, lines, table};

fn policy(rows: &[(&str, &str)]) {
    table(SECURITY, "AuthorizationPolicy", rows);
}

#[test]
fn actions_and_scope_of_an_authorization_policy() {
    policy(&[
        // No rule allows nothing, an empty rule everything; both may be meant.
        ("{}", ""),
        ("{rules: [{}]}", ""),
        ("{action: DENY, rules: [{}]}", ""),
        ("{action: CUSTOM, provider: {name: x}, rules: [{}]}", ""),
        ("{selector: {matchLabels: {app: a}}, rules: [{from: [{source: {principals: [a]}}]}]}", ""),
        ("{targetRefs: [{kind: Service, name: a}, {group: gateway.networking.k8s.io, kind: Gateway, name: g}]}", ""),
        ("{action: DENY}", "!spec.rules: DENY without rules does nothing; write rules: [{}]"),
        ("{action: CUSTOM, provider: {name: x}}", "!spec.rules: CUSTOM without rules"),
        ("{action: CUSTOM, rules: [{}]}", "!spec.provider.name: must be given for CUSTOM"),
        ("{action: DENY, provider: {name: x}, rules: [{}]}", "!spec.provider: is for CUSTOM only"),
        ("{action: FORBID}", "!spec.action: FORBID must be one of"),
        (
            "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: a}]}",
            "!spec: only one of selector and targetRefs",
        ),
        ("{selector: {matchLabels: {}}}", "?spec.selector: selects every workload"),
        (
            "{targetRefs: [{kind: Service, name: a, namespace: b}]}",
            "!spec.targetRefs[0].namespace: a policy is attached",
        ),
        (
            "{targetRefs: [{kind: Gateway, name: a}]}",
            "!spec.targetRefs[0]: must be a Service, a ServiceEntry, a Gateway or a GatewayClass, and Gateway is none of them; write group: gateway.networking.k8s.io",
        ),
        ("{targetRefs: [{kind: Pod, name: a}]}", "!spec.targetRefs[0]: must be a Service"),
    ]);
    let targets = format!("{{targetRefs: [{}]}}", ["{kind: Service, name: a}"; 17].join(", "));
    policy(&[(&targets, "!spec.targetRefs: must have at most 16 items, has 17")]);
}

#[test]
fn rules_of_an_authorization_policy() {
    let rules: &[(&str, &str)] = &[
        (
            "{from: [{source: {ipBlocks: [10.0.0.0/8, '::1']}}], to: [{operation: {ports: ['80'], paths: ['/a/{*}', '/b/{**}']}}]}",
            "",
        ),
        ("{when: [{key: 'request.headers[x]', values: [a]}, {key: source.ip, notValues: [10.0.0.1]}]}", ""),
        ("{from: []}", "!spec.rules[0].from: must not be empty"),
        ("{to: []}", "!spec.rules[0].to: must not be empty"),
        ("{from: [{}]}", "!spec.rules[0].from[0].source: must be given"),
        ("{from: [{source: {}}]}", "!spec.rules[0].from[0].source: must not be empty"),
        ("{to: [{operation: {}}]}", "!spec.rules[0].to[0].operation: must not be empty"),
        ("{from: [{source: {principals: ['']}}]}", "!spec.rules[0].from[0].source.principals[0]: must not be empty"),
        (
            "{from: [{source: {ipBlocks: [10.0.0.256]}}]}",
            "!spec.rules[0].from[0].source.ipBlocks[0]: 10.0.0.256 must be an IP address",
        ),
        (
            "{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}",
            "!spec.rules[0].from[0].source.serviceAccounts: cannot be given together with namespaces",
        ),
        (
            "{from: [{source: {serviceAccounts: ['ns/*']}}]}",
            "!spec.rules[0].from[0].source.serviceAccounts[0]: ns/*: a service account takes no *",
        ),
        (
            "{from: [{source: {serviceAccounts: [a/b/c]}}]}",
            "!spec.rules[0].from[0].source.serviceAccounts[0]: a/b/c must be name or namespace/name",
        ),
        ("{to: [{operation: {ports: ['70000']}}]}", "!spec.rules[0].to[0].operation.ports[0]: 70000 must be a port"),
        (
            "{to: [{operation: {ports: [80]}}]}",
            "!spec.rules[0].to[0].operation.ports[0]: must be a string, is a number: put it in quotes",
        ),
        (
            "{to: [{operation: {paths: ['/a/{*}/{name}']}}]}",
            "!spec.rules[0].to[0].operation.paths[0]: /a/{*}/{name}: a template knows",
        ),
        (
            "{to: [{operation: {paths: ['/a/{*}b']}}]}",
            "!spec.rules[0].to[0].operation.paths[0]: /a/{*}b: {*} and {**} must be whole parts",
        ),
        ("{when: [{key: source.ip}]}", "!spec.rules[0].when[0]: one of values and notValues"),
        ("{when: [{values: [a]}]}", "!spec.rules[0].when[0].key: must be given"),
        (
            "{when: [{key: source.ipp, values: [a]}]}",
            "!spec.rules[0].when[0].key: source.ipp is no attribute of a connection or request; did you mean source.ip?",
        ),
        (
            "{when: [{key: request.headers, values: [a]}]}",
            "!spec.rules[0].when[0].key: request.headers needs a name in brackets",
        ),
        ("{when: [{key: source.ip, values: [a]}]}", "!spec.rules[0].when[0].values[0]: a must be an IP address"),
        ("{when: [{key: destination.port, values: [a]}]}", "!spec.rules[0].when[0].values[0]: a must be a port"),
    ];
    for (rule, wanted) in rules {
        policy(&[(&format!("{{rules: [{rule}]}}"), wanted)]);
    }
    policy(&[
        (
            "{action: CUSTOM, provider: {name: x}, rules: [{from: [{source: {principals: [a]}}]}]}",
            "!spec.rules[0].from[0].source.principals: cannot be asked for",
        ),
        (
            "{action: CUSTOM, provider: {name: x}, rules: [{when: [{key: 'request.auth.claims[a]', values: [b]}]}]}",
            "!spec.rules[0].when[0].key: request.auth.claims[a] cannot be asked for",
        ),
        // On a port that is not HTTP nothing is left of such a rule but the denial.
        ("{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}", "?spec.rules[0]: asks for nothing but HTTP"),
        ("{action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ['80']}}]}]}", ""),
        ("{action: DENY, rules: [{from: [{source: {namespaces: [a]}}]}]}", ""),
    ]);
}

#[test]
fn a_dry_run_is_for_policies_that_allow_or_deny() {
    let text = |kind: &str, value: &str, spec: &str| {
        let group = if kind == "VirtualService" { "networking" } else { "security" };
        format!(
            "apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: x, annotations: {{istio.io/dry-run: \"{value}\"}}}}\nspec: {spec}\n"
        )
    };
    assert_eq!(lines(&text("AuthorizationPolicy", "true", "{}")), [""; 0]);
    for (kind, value, spec, wanted) in [
        ("AuthorizationPolicy", "yes", "{}", "yes must be \"true\" or \"false\""),
        ("AuthorizationPolicy", "true", "{action: AUDIT}", "is for ALLOW and DENY only"),
        ("PeerAuthentication", "true", "{}", "is for AuthorizationPolicies only"),
    ] {
        let found = lines(&text(kind, value, spec));
        assert!(found.len() == 1 && found[0].contains(wanted), "{found:?}");
    }
}

#[test]
fn modes_of_mutual_tls() {
    table(
        SECURITY,
        "PeerAuthentication",
        &[
            ("{mtls: {mode: STRICT}}", ""),
            ("{selector: {matchLabels: {a: b}}, portLevelMtls: {8080: {mode: DISABLE}}}", ""),
            (
                "{mtls: {mode: strict}}",
                "!spec.mtls.mode: strict must be one of UNSET, DISABLE, PERMISSIVE and STRICT; did you mean STRICT?",
            ),
            ("{portLevelMtls: {8080: {mode: STRICT}}}", "!spec.portLevelMtls: needs a selector"),
            ("{selector: {matchLabels: {a: b}}, portLevelMtls: {}}", "!spec.portLevelMtls: must not be empty"),
            (
                "{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {mode: STRICT}}}",
                "!spec.portLevelMtls.0: 0 must be a port",
            ),
            // What protects is refused whole when a part of it is not understood.
            ("{mtlss: {mode: STRICT}}", "!spec.mtlss: there is no such field; did you mean spec.mtls?"),
        ],
    );
}

#[test]
fn tokens_and_their_issuers() {
    let rule = |fields: &str| format!("{{jwtRules: [{{{fields}}}]}}");
    for (fields, wanted) in [
        ("issuer: a, jwksUri: 'https://a.b:8443/keys'", ""),
        ("jwksUri: 'http://a.b'", ""),
        ("issuer: a, jwks: '{\"keys\": [{\"kty\": \"RSA\"}]}'", ""),
        (
            "issuer: a, fromHeaders: [{name: x, prefix: 'Bearer '}], outputClaimToHeaders: [{claim: c, header: x-c}], timeout: 5s",
            "",
        ),
        ("audiences: [a]", "!spec.jwtRules[0].issuer: must be given, or jwksUri"),
        ("issuer: a, jwksUri: 'https://a', jwks: '{\"keys\": []}'", "!spec.jwtRules[0]: only one of jwks and jwksUri"),
        ("issuer: a, jwksUri: a.b", "!spec.jwtRules[0].jwksUri: a.b must begin with http:// or https://"),
        ("issuer: a, jwksUri: 'https://a:port'", "!spec.jwtRules[0].jwksUri: https://a:port: port is no port"),
        ("issuer: a, jwks: '{'", "!spec.jwtRules[0].jwks: is no JSON"),
        ("issuer: a, jwks: '{\"keys\": [{\"kty\": \"X\"}]}'", "!spec.jwtRules[0].jwks: key 0 has no kty"),
        ("issuer: a, audiences: ['']", "!spec.jwtRules[0].audiences[0]: must not be empty"),
        ("issuer: a, fromHeaders: [{prefix: x}]", "!spec.jwtRules[0].fromHeaders[0].name: must be given"),
        (
            "issuer: a, outputClaimToHeaders: [{claim: c, header: 'x c'}]",
            "!spec.jwtRules[0].outputClaimToHeaders[0].header: x c must be a header name",
        ),
        ("issuer: a, timeout: 0s", "!spec.jwtRules[0].timeout: 0s must be a duration of at least 1ms"),
    ] {
        table(SECURITY, "RequestAuthentication", &[(&rule(fields), wanted)]);
    }
}

#[test]
fn telemetry() {
    table(
        "telemetry.istio.io/v1",
        "Telemetry",
        &[
            (
                "{tracing: [{providers: [{name: a}], randomSamplingPercentage: 1.5, customTags: {t: {literal: {value: v}}}}]}",
                "",
            ),
            (
                "{metrics: [{overrides: [{match: {metric: REQUEST_COUNT, mode: CLIENT}, tagOverrides: {x: {operation: REMOVE}}}]}]}",
                "",
            ),
            ("{accessLogging: [{filter: {expression: 'response.code >= 400'}}]}", ""),
            ("{tracing: [{providers: [{name: a}, {name: b}]}]}", "?spec.tracing[0].providers[1]: only the first one"),
            ("{tracing: [{}, {}]}", "?spec.tracing[1]: only the first one"),
            (
                "{tracing: [{randomSamplingPercentage: 101}]}",
                "!spec.tracing[0].randomSamplingPercentage: must be between 0 and 100",
            ),
            (
                "{tracing: [{customTags: {t: {literal: {value: v}, header: {name: h}}}}]}",
                "!spec.tracing[0].customTags.t: only one of",
            ),
            ("{metrics: [{providers: [{name: ''}]}]}", "!spec.metrics[0].providers[0].name: must not be empty"),
            (
                "{metrics: [{overrides: [{tagOverrides: {x: {operation: UPSERT}}}]}]}",
                "!spec.metrics[0].overrides[0].tagOverrides.x.value: must be given",
            ),
            (
                "{metrics: [{overrides: [{tagOverrides: {x: {operation: REMOVE, value: v}}}]}]}",
                "!spec.metrics[0].overrides[0].tagOverrides.x.value: cannot be given together with REMOVE",
            ),
            (
                "{accessLogging: [{filter: {expression: 'response.code >='}}]}",
                "!spec.accessLogging[0].filter.expression: response.code >= is no expression",
            ),
        ],
    );
}
