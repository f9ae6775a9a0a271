//! Fields that are compiled and decided, and that no other test is about: what docs/features.md says of them. The data
//! path does not do them yet.

use std::sync::Arc;
use std::time::Duration;

use super::gateways::{gateway, outside};
use super::*;
use crate::program::{ClusterPolicy, Connection, RouteSettings, Share};
use crate::route::Rule;

fn api(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// The rules of `b` in `shop`, of whatever kind they were.
fn rules(text: &str) -> Vec<Rule> {
    let (compiled, findings) = with_store(&[("t", text)], &CompileOptions::default());
    assert!(findings.iter().all(|f| f.severity < Severity::Error), "{findings:?}");
    let port = compiled.port(0, "10.96.0.2", 80).expect("known");
    let source = Source { namespace: "shop", view: 0 };
    crate::route::host(&compiled.program, port, &source, "b").expect("known").rules.to_vec()
}

fn settings(rule: &Rule) -> &RouteSettings {
    rule.route.settings.as_ref().expect("given")
}

#[test]
fn timeouts_and_rewrites_are_compiled() {
    let http = "{match: [{uri: {prefix: /old}}], timeout: 2s, rewrite: {uri: /new, authority: c}, route: [{destination: {host: b}}]},
                {rewrite: {uriRegexRewrite: {match: '^/v([0-9])', rewrite: '/\\1'}}, route: [{destination: {host: b}}]}";
    let rules = rules(&[shop(HTTP), vs("shop", "b", &format!("{{hosts: [b], http: [{http}]}}"))].concat());
    let rewrite = |rule: &Rule, path: &str| {
        let rewrite = settings(rule).rewrite.as_ref().expect("given");
        let (matched, headers) = (rule.matches.first(), HeaderMap::new());
        let request =
            RequestView { method: &Method::GET, scheme: "http", authority: "b", path, query: None, headers: &headers };
        assert!(rule.takes(&request).is_some());
        (rewrite.path(matched, path).into_owned(), rewrite.authority.as_deref().map(str::to_owned))
    };
    assert_eq!(settings(&rules[0]).timeout, Some(Duration::from_secs(2)));
    assert_eq!(settings(&rules[1]).timeout, None);
    assert_eq!(rewrite(&rules[0], "/old/x"), ("/new/x".to_owned(), Some("c".to_owned())));
    assert_eq!(rewrite(&rules[1], "/v2/x"), ("/2/x".to_owned(), None));
}

#[test]
fn headers_of_a_destination_are_its_own() {
    let to = |subset: &str, headers: &str| {
        format!("{{destination: {{host: b, subset: {subset}}}, weight: 1, headers: {{response: {{{headers}}}}}}}")
    };
    let spec =
        format!("{{hosts: [b], http: [{{route: [{}, {}]}}]}}", to("v1", "add: {x-a: '1'}"), to("v2", "remove: [x-a]"));
    let rules = rules(&[shop(HTTP), vs("shop", "b", &spec)].concat());
    let changes: Vec<_> = rules[0]
        .route
        .destinations
        .iter()
        .map(|to| &to.headers.as_ref().expect("given").response)
        .map(|changes| (changes.add.len(), changes.remove.len()))
        .collect();
    assert_eq!(changes, [(1, 0), (0, 1)]);
}

#[test]
fn policies_of_every_sort_are_compiled() {
    let policy = |policy: &str| -> Arc<ClusterPolicy> {
        let base = shop(HTTP);
        let (base, _) = base.split_once("---\napiVersion: networking").expect("its rule is the last");
        let compiled = compiled(&[base, &dr("shop", "b", &format!("{{host: b, trafficPolicy: {policy}}}"))].concat());
        Arc::clone(&compiled.program.clusters.iter().find(|cluster| cluster.port == 80).expect("there").policy)
    };
    let tunnel = policy("{tunnel: {protocol: POST, targetHost: example.com, targetPort: 443}}");
    let tunnel = &tunnel.tunnel.as_ref().expect("given").value;
    assert_eq!((tunnel.post, &*tunnel.host, tunnel.port), (true, "example.com", 443));
    let warmup = |balancer: &str| {
        let policy = policy(&format!("{{loadBalancer: {{simple: RANDOM, {balancer}}}}}"));
        let warmup = policy.load_balancer.as_ref().and_then(|block| block.value.warmup).expect("given");
        (warmup.duration, warmup.minimum, warmup.aggression_thousandths)
    };
    let whole = warmup("warmup: {duration: 9s, minimumPercent: 25, aggression: 2}");
    assert_eq!(whole, (Duration::from_secs(9), Share::of_percent(25.0), 2000));
    assert_eq!(warmup("warmupDurationSecs: 9s").0, Duration::from_secs(9));
}

#[test]
fn filters_of_a_route_are_compiled() {
    let modifier = |kind: &str, field: &str| {
        format!("{{type: {kind}, {field}: {{set: [{{name: x-a, value: '1'}}], add: [], remove: [x-b, x-c]}}}}")
    };
    let request = modifier("RequestHeaderModifier", "requestHeaderModifier");
    let response = modifier("ResponseHeaderModifier", "responseHeaderModifier");
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 80}, percent: 25}}";
    let backends = format!(
        "[{{name: b, port: 80, weight: 1, filters: [{request}]}}, {{name: b, port: 80, weight: 1, filters: [{response}]}}]"
    );
    let matches = [("HTTPRoute", "{path: {value: /}}"), ("GRPCRoute", "{method: {service: a.B, method: C}}")];
    for (kind, item) in matches {
        let spec = format!(
            "{{parentRefs: [{{kind: Service, group: '', name: b}}], rules: [{{matches: [{item}], filters: [{request}, {response}, {mirror}], backendRefs: {backends}}}]}}"
        );
        let rules = rules(&[shop(HTTP), api(kind, "shop", "r", &spec)].concat());
        let headers = settings(&rules[0]).headers.as_ref().expect("given");
        assert_eq!((headers.request.set.len(), headers.request.remove.len()), (1, 2), "{kind}");
        assert_eq!((headers.response.set.len(), headers.response.remove.len()), (1, 2), "{kind}");
        let shares: Vec<Share> = settings(&rules[0]).mirrors.iter().map(|mirror| mirror.share).collect();
        assert_eq!(shares, [Share::of_percent(25.0)], "{kind}");
        let own: Vec<_> = rules[0].route.destinations.iter().map(|to| to.headers.as_ref().expect("given")).collect();
        assert_eq!((own[0].request.set.len(), own[0].response.set.len()), (1, 0), "{kind}");
        assert_eq!((own[1].request.set.len(), own[1].response.set.len()), (0, 1), "{kind}");
    }
}

#[test]
fn a_server_may_be_bound_to_one_address() {
    let server = "{port: {number: 80, name: http, protocol: HTTP}, bind: 10.0.0.9, hosts: ['*']}";
    let compiled = outside(&gateway("edge", "gw", server));
    assert_eq!(compiled.program.listener(None, 80), None);
    assert_eq!(compiled.program.listener(Some(ip("10.0.0.8")), 80), None);
    let listener = compiled.program.listener(Some(ip("10.0.0.9")), 80).expect("there");
    assert_eq!(compiled.program.gateway_listener(listener).bind, Some(ip("10.0.0.9")));
}

/// A Gateway of the Gateway API in `edge` with one listener, of class `weir`.
fn edge(listener: &str) -> String {
    api("Gateway", "edge", "gw", &format!("{{gatewayClassName: weir, listeners: [{{name: l, {listener}}}]}}"))
}

#[test]
fn a_gateway_of_another_class_is_left_alone() {
    let class = |name: &str, controller: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: {name}}}\nspec: {{controllerName: {controller}}}\n"
        )
    };
    let own = "weir.mesh/gateway-controller";
    for (name, controller, is_served) in
        [("weir", None, true), ("x", None, false), ("x", Some(own), true), ("x", Some("example.com/other"), false)]
    {
        let gateway = edge("port: 80, protocol: HTTP").replace("Name: weir", &format!("Name: {name}"));
        let class = controller.map(|controller| class(name, controller)).unwrap_or_default();
        let compiled = outside(&[gateway, class].concat());
        assert_eq!(compiled.program.listener(None, 80).is_some(), is_served, "{name} {controller:?}");
    }
}

#[test]
fn a_tls_route_passes_through_by_name() {
    let listener = "port: 443, protocol: TLS, hostname: '*.example.com', tls: {mode: Passthrough}, allowedRoutes: {namespaces: {from: All}}";
    let route = "{parentRefs: [{name: gw, namespace: edge}], hostnames: [a.example.com], rules: [{backendRefs: [{name: b, port: 80}]}]}";
    let compiled = outside(&[edge(listener), shop(HTTP), api("TLSRoute", "shop", "r", route)].concat());
    assert_eq!(compiled.call(443, true, "a.example.com", "/"), "tcp -> outbound|80||b.shop.svc.cluster.local");
    assert_eq!(compiled.call(443, true, "c.example.com", "/"), "no chain");
    let nobody = Connection { tls: true, sni: None };
    assert_eq!(compiled.call_with(443, nobody, "a.example.com", "/", &HeaderMap::new(), 0), "no chain");
}

#[test]
fn a_listener_says_whose_routes_and_which_kinds_it_takes() {
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n";
    let route = "{parentRefs: [{name: gw, namespace: edge}], rules: [{backendRefs: [{name: b, port: 80}]}]}";
    let all = "namespaces: {from: All}";
    for (allowed, is_attached) in [
        ("namespaces: {from: Same}", false),
        (all, true),
        ("namespaces: {from: Selector, selector: {matchLabels: {team: a}}}", true),
        ("namespaces: {from: Selector, selector: {matchLabels: {team: b}}}", false),
        (
            "namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: In, values: [a, b]}]}}",
            true,
        ),
        ("namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}", false),
        ("namespaces: {from: All}, kinds: [{kind: HTTPRoute}]", true),
        ("namespaces: {from: All}, kinds: [{group: gateway.networking.k8s.io, kind: GRPCRoute}]", false),
    ] {
        let gateway = edge(&format!("port: 80, protocol: HTTP, allowedRoutes: {{{allowed}}}"));
        let compiled = outside(&[&gateway, namespace, &shop(HTTP), &api("HTTPRoute", "shop", "r", route)].concat());
        let found = compiled.call(80, false, "h", "/");
        assert_eq!(found.ends_with("|b.shop.svc.cluster.local"), is_attached, "{allowed}: {found}");
    }
}

#[test]
fn a_listener_names_its_certificates() {
    let listener = "port: 443, protocol: HTTPS, tls: {mode: Terminate, certificateRefs: [{name: c}, {kind: Secret, group: '', name: d, namespace: edge}]}";
    let compiled = outside(&edge(listener));
    let listener = compiled.program.listener(None, 443).expect("there");
    let chain = &compiled.program.gateway_listener(listener).chains[0];
    let names = &chain.termination.as_ref().expect("TLS ends there").credentials;
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["edge/c", "edge/d"]);
}
