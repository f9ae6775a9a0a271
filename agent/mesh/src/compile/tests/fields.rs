//! Fields that are in force and that no other test is about: what docs/features.md says of them.

use super::*;

#[test]
fn a_tcp_match_is_for_its_port_and_for_the_mesh() {
    let spec = "{hosts: [b], gateways: [mesh, edge], tcp: [
        {match: [{gateways: [edge]}, {port: 81, gateways: [mesh]}], route: [{destination: {host: b, subset: v1}}]},
        {match: [{port: 80, gateways: [mesh]}], route: [{destination: {host: b, subset: v2, port: {number: 81}}}]}]}";
    let ports = "{name: tcp-a, port: 80, targetPort: 5432}, {name: tcp-b, port: 81, targetPort: 6543}";
    let compiled = compiled(&[shop(ports), vs("shop", "b", spec)].concat());
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), ["v2:1:10.0.0.3:6543"], "to another port than was dialled");
    assert_eq!(compiled.groups(0, "10.96.0.2", 81), ["v1:1:10.0.0.1:6543,10.0.0.2:6543"]);
}

#[test]
fn a_match_by_the_beginning_of_the_method_is_a_match() {
    let http = "{match: [{method: {prefix: P}}], route: [{destination: {host: b, subset: v2}}]},
                {route: [{destination: {host: b, subset: v1}}]}";
    let compiled = compiled(&[shop(HTTP), vs("shop", "b", &format!("{{hosts: [b], http: [{http}]}}"))].concat());
    let ask = |request| compiled.ask(0, "shop", "10.96.0.2", "b", request);
    assert_eq!(
        [ask("POST /"), ask("PUT /"), ask("GET /")],
        ["default: b-v2/1=1", "default: b-v2/1=1", "default: b-v1/2=1"]
    );
}

#[test]
fn a_match_for_a_port_is_for_no_other() {
    let http = "{match: [{port: 81}], route: [{destination: {host: b, subset: v2}}]},
                {route: [{destination: {host: b, subset: v1, port: {number: 80}}}]}";
    let ports = "{name: http, port: 80}, {name: http-b, port: 81}";
    let rule = vs("shop", "b", &format!("{{hosts: [b], http: [{http}]}}").replace("v2}}", "v2, port: {number: 81}}}"));
    let compiled = compiled(&[shop(ports), rule].concat());
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), ["v1:1:10.0.0.1:80,10.0.0.2:80"]);
    assert_eq!(compiled.groups(0, "10.96.0.2", 81), ["v2:1:10.0.0.3:81"]);
}

#[test]
fn a_destination_rule_is_for_whom_it_is_exported_to() {
    let client = pod("clients", "c", "10.0.2.1", "weir.mesh/mode: enabled")
        .replace("labels:", "annotations: {weir.mesh/netns: /run/netns/c}, labels:");
    let policy = "trafficPolicy: {loadBalancer: {simple: RANDOM}}";
    let base = shop(HTTP);
    let (base, _) = base.split_once("---\napiVersion: networking").expect("its rule is the last");
    let rule = dr("shop", "b", &format!("{{host: b, exportTo: [clients], {policy}}}"));
    let compiled = compiled(&[base, &client, &rule].concat());
    let view = compiled.plan.pods["clients/c"].view;
    assert_ne!(view, 0);
    assert_eq!(compiled.entry(view, "10.96.0.2", 80).map(|entry| entry.verdict), Some(Verdict::Proxy));
    assert_eq!(compiled.entry(0, "10.96.0.2", 80).map(|entry| entry.verdict), Some(Verdict::Balance));
}

#[test]
fn a_subset_has_its_own_balancer_and_timeout() {
    let spec = "{host: b, trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {connectTimeout: 1s}}},
        subsets: [{name: v1, labels: {version: v1}},
                  {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {tcp: {connectTimeout: 3s}}}}]}";
    let base = shop(HTTP);
    let (base, _) = base.split_once("---\napiVersion: networking").expect("its rule is the last");
    let routes = "{hosts: [b], http: [{route: [{destination: {host: b, subset: v1}, weight: 1}, {destination: {host: b, subset: v2}, weight: 1}]}]}";
    let compiled = compiled(&[base, &dr("shop", "b", spec), &vs("shop", "b", routes)].concat());
    let settings = |subset: &str| {
        let cluster =
            compiled.program.clusters.iter().find(|cluster| &*cluster.subset == subset).expect("it is led to");
        (cluster.policy.simple(), cluster.policy.connect_timeout().as_secs())
    };
    assert_eq!(settings("v1"), (crate::program::LoadBalancer::Random, 1));
    assert_eq!(settings("v2"), (crate::program::LoadBalancer::RoundRobin, 3));
}

/// Of the rule and of a subset, on the port and on another one.
#[test]
fn a_port_has_its_own_balancer_and_timeout() {
    let of_port = |balancer: &str, timeout: &str| {
        format!(
            "trafficPolicy: {{loadBalancer: {{simple: LEAST_REQUEST}}, portLevelSettings: [{{port: {{number: 81}}, \
             loadBalancer: {{simple: {balancer}}}, connectionPool: {{tcp: {{connectTimeout: {timeout}}}}}}}]}}"
        )
    };
    let subsets = format!(
        "[{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}, {}}}]",
        of_port("RANDOM", "3s")
    );
    let spec = format!("{{host: b, {}, subsets: {subsets}}}", of_port("ROUND_ROBIN", "2s"));
    let base = shop("{name: http, port: 80}, {name: http-b, port: 81}");
    let (base, _) = base.split_once("---\napiVersion: networking").expect("its rule is the last");
    let to = |port: u16| {
        let to =
            |subset| format!("{{destination: {{host: b, subset: {subset}, port: {{number: {port}}}}}, weight: 1}}");
        format!("{{match: [{{port: {port}}}], route: [{}, {}]}}", to("v1"), to("v2"))
    };
    let routes = format!("{{hosts: [b], http: [{}, {}]}}", to(80), to(81));
    let compiled = compiled(&[base, &dr("shop", "b", &spec), &vs("shop", "b", &routes)].concat());
    let settings = |subset: &str, port: u16| {
        let is =
            |cluster: &&std::sync::Arc<crate::program::Cluster>| &*cluster.subset == subset && cluster.port == port;
        let policy = &compiled.program.clusters.iter().find(is).expect("it is led to").policy;
        (policy.simple().as_str(), policy.connect_timeout().as_secs())
    };
    assert_eq!([settings("v1", 80), settings("v2", 80)], [("LEAST_REQUEST", 10); 2]);
    assert_eq!([settings("v1", 81), settings("v2", 81)], [("ROUND_ROBIN", 2), ("RANDOM", 3)]);
}

#[test]
fn a_tcp_match_is_for_clients_of_its_namespace() {
    let client = pod("clients", "c", "10.0.2.1", "weir.mesh/mode: enabled")
        .replace("labels:", "annotations: {weir.mesh/netns: /run/netns/c}, labels:");
    let spec = "{hosts: [b], tcp: [
        {match: [{sourceNamespace: clients}], route: [{destination: {host: b, subset: v2}}]},
        {route: [{destination: {host: b, subset: v1}}]}]}";
    let compiled =
        compiled(&[shop("{name: tcp-a, port: 80, targetPort: 5432}"), client, vs("shop", "b", spec)].concat());
    let view = compiled.plan.pods["clients/c"].view;
    assert_eq!(compiled.groups(view, "10.96.0.2", 80), ["v2:1:10.0.0.3:5432"]);
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), ["v1:1:10.0.0.1:5432,10.0.0.2:5432"]);
}

fn route(kind: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

/// Service `a` beside `b`, with one pod.
fn beside() -> String {
    let ports = "{name: http, port: 80}, {name: http-b, port: 81}";
    [shop(ports), service("shop", "a", "10.96.0.1", HTTP), pod("shop", "a-1", "10.0.1.1", "app: a")].concat()
}

#[test]
fn matches_of_a_route_are_looked_at() {
    let parent = "parentRefs: [{kind: Service, group: '', name: b, port: 80}]";
    let to_a = "backendRefs: [{group: '', kind: Service, name: a, port: 80}]";
    // Any prefix comes before any regular expression.
    let rest = "{matches: [{path: {type: RegularExpression, value: '.*'}}], backendRefs: [{name: b, port: 80}]}";
    for (item, request, headers, query, taken) in [
        ("path: {type: Exact, value: /x}", "GET /x", None, None, true),
        ("path: {type: Exact, value: /x}", "GET /x/y", None, None, false),
        ("path: {type: RegularExpression, value: '/v[0-9]'}", "GET /v2", None, None, true),
        ("path: {type: RegularExpression, value: '/v[0-9]'}", "GET /v22", None, None, false),
        ("method: POST", "POST /", None, None, true),
        ("method: POST", "GET /", None, None, false),
        ("headers: [{name: X, value: a}]", "GET /", Some("a"), None, true),
        ("headers: [{name: X, value: a}]", "GET /", Some("ab"), None, false),
        ("headers: [{name: X, type: RegularExpression, value: 'a.*'}]", "GET /", Some("ab"), None, true),
        ("queryParams: [{name: k, value: v}]", "GET /", None, Some("k=v"), true),
        ("queryParams: [{name: k, type: RegularExpression, value: 'v+'}]", "GET /", None, Some("k=vv"), true),
        ("queryParams: [{name: k, type: RegularExpression, value: 'v+'}]", "GET /", None, Some("k=w"), false),
    ] {
        let spec = format!("{{{parent}, rules: [{{name: hit, matches: [{{{item}}}], {to_a}}}, {rest}]}}");
        let compiled = compiled(&[beside(), route("HTTPRoute", &spec)].concat());
        assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Proxy);
        let other = compiled.entry(0, "10.96.0.2", 81).map(|entry| entry.verdict);
        assert_eq!(other, Some(Verdict::Balance), "the route is for port 80");
        let (method, path) = request.split_once(' ').expect("a method and a path");
        let headers: HeaderMap =
            headers.iter().map(|text| (http::HeaderName::from_static("x"), text.parse().expect("a value"))).collect();
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request =
            RequestView { method: &method, scheme: "http", authority: "b.shop", path, query, headers: &headers };
        let port = compiled.port(0, "10.96.0.2", 80).expect("known");
        let RouteDecision::Forward { route: Some(route), destination: Some(to), .. } =
            decide(&compiled.program, port, &Source { namespace: "shop", view: 0 }, &request, 0)
        else {
            panic!("{item}: it goes nowhere");
        };
        let service = if taken { "a" } else { "b" };
        assert_eq!(&*to.name, format!("outbound|80||{service}.shop.svc.cluster.local"), "{item}");
        assert_eq!(&*route.name, if taken { "shop.p.hit" } else { "shop.p.1" });
    }
}

#[test]
fn a_tcp_route_for_a_service_splits_in_the_kernel() {
    let tcp = |text: String| text.replace("name: http", "name: tcp");
    let spec = "{parentRefs: [{kind: Service, group: '', name: b, port: 80}], rules: [{backendRefs: [{name: a, port: 80, weight: 3}, {name: b, port: 80, weight: 1}]}]}";
    let compiled = compiled(&[tcp(beside()), route("TCPRoute", spec)].concat());
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), [":3:10.0.1.1:8080", ":1:10.0.0.1:80,10.0.0.2:80,10.0.0.3:80"]);
    assert_eq!(compiled.groups(0, "10.96.0.2", 81).len(), 1, "the route is for port 80");
}

#[test]
fn policies_protect_what_they_select_or_target() {
    for (kind, spec, refuses) in [
        ("RequestAuthentication", "{selector: {matchLabels: {app: b}}, jwtRules: [{issuer: x}]}", true),
        ("RequestAuthentication", "{selector: {matchLabels: {app: c}}, jwtRules: [{issuer: x}]}", false),
        ("RequestAuthentication", "{targetRefs: [{kind: Service, group: '', name: b}], jwtRules: [{issuer: x}]}", true),
        (
            "RequestAuthentication",
            "{targetRefs: [{kind: Service, group: '', name: c}], jwtRules: [{issuer: x}]}",
            false,
        ),
        ("RequestAuthentication", "{targetRef: {kind: Service, group: '', name: b}, jwtRules: [{issuer: x}]}", true),
        ("AuthorizationPolicy", "{targetRef: {kind: Service, group: '', name: b}}", true),
        ("AuthorizationPolicy", "{targetRef: {kind: Service, group: '', name: c}}", false),
        ("PeerAuthentication", "{selector: {matchLabels: {app: b}}, mtls: {mode: STRICT}}", true),
        ("PeerAuthentication", "{selector: {matchLabels: {app: c}}, mtls: {mode: STRICT}}", false),
    ] {
        let policy = format!(
            "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
        );
        let compiled = compiled(&[shop(HTTP), policy].concat());
        assert_eq!(compiled.verdict("10.96.0.2").0 == Verdict::Reject, refuses, "{kind} {spec}");
    }
}
