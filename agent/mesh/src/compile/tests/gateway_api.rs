//! The Gateway API: order of rules, filters, weights, references, parents and conditions.

use super::gateways::outside;
use super::*;
use crate::finding::code;
use crate::program::Connection;

fn api(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

const LISTENER: &str = "{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}";

/// A Gateway with one HTTP listener, and Services `a` and `b` of `shop`.
fn edge() -> String {
    [
        api("Gateway", "edge", "gw", &format!("{{gatewayClassName: weir, listeners: [{LISTENER}]}}")),
        shop(HTTP),
        service("shop", "a", "10.96.0.1", HTTP),
        pod("shop", "a-1", "10.0.1.1", "app: a"),
    ]
    .concat()
}

fn route(name: &str, more: &str, rules: &str) -> String {
    api("HTTPRoute", "shop", name, &format!("{{parentRefs: [{{name: gw, namespace: edge}}], {more}rules: [{rules}]}}"))
}

const TO_A: &str = "backendRefs: [{name: a, port: 80}]";
const TO_B: &str = "backendRefs: [{name: b, port: 80}]";

fn of(host: &str, service: &str) -> String {
    format!("{host}:80 -> outbound|80||{service}.shop.svc.cluster.local")
}

#[test]
fn the_most_specific_rule_wins_whichever_route_it_is_from() {
    let text = [
        edge(),
        route("x", "", &format!("{{{TO_A}}}, {{matches: [{{path: {{type: PathPrefix, value: /v2/}}}}], {TO_A}}}")),
        route(
            "yy",
            "",
            &format!(
                "{{matches: [{{path: {{type: PathPrefix, value: /v2/deep}}}}, {{path: {{type: Exact, value: /v2/x}}}}], {TO_B}}}"
            ),
        ),
        route(
            "z",
            "",
            &format!(
                "{{matches: [{{path: {{value: /v2}}, headers: [{{name: X, value: '1'}}]}}, {{path: {{value: /q}}, queryParams: [{{name: k, value: v}}]}}], {TO_B}}}, {{matches: [{{path: {{value: /q}}}}], {TO_A}}}"
            ),
        ),
    ];
    let compiled = outside(&text.concat());
    let ask = |path: &str| compiled.call(80, false, "h", path);
    for (path, service) in [
        ("/", "a"),
        ("/v2", "a"),
        // Whole segments: not within /v2.
        ("/v2foo", "a"),
        ("/v2/x", "b"),
        ("/v2/xy", "a"),
        ("/v2/deep/er", "b"),
        ("/v2/deeper", "a"),
        ("/q", "a"),
        ("/q?k=v", "b"),
    ] {
        assert_eq!(ask(path), of("*", service), "{path}");
    }
    let headers: HeaderMap = [("x".parse().expect("a name"), "1".parse().expect("a value"))].into_iter().collect();
    let found = compiled.call_with(80, Connection::default(), "h", "/v2/y", &headers, 0);
    assert_eq!(found, of("*", "b"));
}

#[test]
fn hostnames_of_routes_and_listeners_meet() {
    let gateway = "{gatewayClassName: weir, listeners: [{name: w, port: 80, protocol: HTTP, hostname: '*.example.com', allowedRoutes: {namespaces: {from: All}}}]}";
    let text = [
        edge().replacen(&format!("{{gatewayClassName: weir, listeners: [{LISTENER}]}}"), gateway, 1),
        route("a", "hostnames: [a.example.com, a.example.org], ", &format!("{{{TO_A}}}")),
        route("b", "", &format!("{{{TO_B}}}")),
        route("c", "hostnames: [c.example.org], ", &format!("{{{TO_B}}}")),
    ];
    let text = text.concat();
    let compiled = outside(&text);
    assert_eq!(compiled.call(80, false, "a.example.com", "/"), of("a.example.com", "a"));
    assert_eq!(compiled.call(80, false, "a.example.org", "/"), "no host");
    assert_eq!(compiled.call(80, false, "x.example.com", "/"), of("*.example.com", "b"));
    let told = compiled.found(code::REFERENCE);
    assert!(told[0].contains("HTTPRoute shop/c") && told[0].contains("NoMatchingListenerHostname"), "{told:?}");
}

#[test]
fn filters_change_paths_and_redirect() {
    let filter = |filter: &str| format!("filters: [{filter}]");
    let rewrite = |path: &str| filter(&format!("{{type: URLRewrite, urlRewrite: {{path: {path}}}}}"));
    let redirect = "{type: RequestRedirect, requestRedirect: {scheme: https, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}";
    let rules = [
        format!(
            "{{matches: [{{path: {{value: /p}}}}], {}, {TO_A}}}",
            rewrite("{type: ReplacePrefixMatch, replacePrefixMatch: /}")
        ),
        format!(
            "{{matches: [{{path: {{value: /q}}}}], {}, {TO_A}}}",
            rewrite("{type: ReplacePrefixMatch, replacePrefixMatch: /n}")
        ),
        format!(
            "{{matches: [{{path: {{value: /f}}}}], {}, {TO_A}}}",
            rewrite("{type: ReplaceFullPath, replaceFullPath: '/full\\1'}")
        ),
        format!("{{matches: [{{path: {{value: /r}}}}], {}}}", filter(redirect)),
    ];
    let compiled = outside(&[edge(), route("x", "", &rules.join(", "))].concat());
    for (path, becomes) in
        [("/p", "/"), ("/p/", "/"), ("/p/x", "/x"), ("/q", "/n"), ("/q/x/y", "/n/x/y"), ("/f/x", "/full\\1")]
    {
        assert_eq!(compiled.call(80, false, "h", path), format!("{} as {becomes}", of("*", "a")), "{path}");
    }
    assert_eq!(compiled.call(80, false, "h", "/r/x"), "*:80 -> 302 https://h/new/x");
    assert_eq!(compiled.call(80, false, "h", "/r"), "*:80 -> 302 https://h/new");
}

#[test]
fn an_invalid_backend_keeps_its_share() {
    let weighted = "{backendRefs: [{name: a, port: 80, weight: 1}, {name: gone, port: 80, weight: 1}]}";
    let compiled = outside(&[edge(), route("x", "", weighted)].concat());
    let shares = |roll| compiled.call_with(80, Connection::default(), "h", "/", &HeaderMap::new(), roll);
    assert_eq!(shares(0), of("*", "a"));
    assert_eq!(shares(u64::MAX), "*:80 -> invalid-backend");
    for rules in
        ["{backendRefs: [{name: a, port: 80, weight: 0}]}", "{backendRefs: []}", "{backendRefs: [{name: a, port: 81}]}"]
    {
        let compiled = outside(&[edge(), route("x", "", rules)].concat());
        assert_eq!(compiled.call(80, false, "h", "/"), "*:80 -> invalid-backend", "{rules}");
    }
}

#[test]
fn a_backend_elsewhere_needs_a_grant() {
    let foreign = api(
        "HTTPRoute",
        "edge",
        "x",
        &format!(
            "{{parentRefs: [{{name: gw}}], rules: [{{{}}}]}}",
            TO_A.replace("name: a", "name: a, namespace: shop")
        ),
    );
    let grant = |from: &str| {
        api(
            "ReferenceGrant",
            "shop",
            "g",
            &format!(
                "{{from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: {from}}}], to: [{{group: '', kind: Service, name: a}}]}}"
            ),
        )
    };
    let ask = |more: &str| {
        let compiled = outside(&[edge(), foreign.clone(), more.to_owned()].concat());
        (compiled.call(80, false, "h", "/"), compiled.found(code::REFERENCE))
    };
    assert_eq!(ask(&grant("edge")), (of("*", "a"), Vec::new()));
    for refused in [String::new(), grant("other")] {
        let (found, told) = ask(&refused);
        assert_eq!(found, "*:80 -> invalid-backend");
        assert!(told[0].contains("RefNotPermitted"), "{told:?}");
    }
}

#[test]
fn conditions_say_what_was_attached() {
    let text = [
        edge(),
        route("good", "", &format!("{{{TO_A}}}")),
        api("HTTPRoute", "shop", "lost", &format!("{{parentRefs: [{{name: none}}], rules: [{{{TO_A}}}]}}")),
        api(
            "HTTPRoute",
            "shop",
            "section",
            &format!("{{parentRefs: [{{name: gw, namespace: edge, sectionName: other}}], rules: [{{{TO_A}}}]}}"),
        ),
        api(
            "TLSRoute",
            "shop",
            "kind",
            &format!(
                "{{hostnames: [a.example.com], parentRefs: [{{name: gw, namespace: edge}}], rules: [{{{TO_A}}}]}}"
            ),
        ),
        api(
            "HTTPRoute",
            "shop",
            "dangling",
            "{parentRefs: [{name: gw, namespace: edge}], rules: [{backendRefs: [{name: none, port: 80}]}]}",
        ),
        api("Gateway", "edge", "foreign", "{gatewayClassName: else, listeners: []}"),
    ];
    let mut store = Store::new();
    store.set_file("test.yaml", &text.concat());
    let statuses = gateway_api_statuses(&store.assemble().0, &CompileOptions::default());
    let told: Vec<String> = statuses
        .routes
        .iter()
        .flat_map(|route| {
            route.parents.iter().map(move |parent| {
                format!("{} {} {}", route.object.name, parent.accepted.reason, parent.resolved_refs.reason)
            })
        })
        .collect();
    assert_eq!(
        told,
        [
            "dangling Accepted BackendNotFound",
            "good Accepted ResolvedRefs",
            "kind NotAllowedByListeners ResolvedRefs",
            "lost NoMatchingParent ResolvedRefs",
            "section NoMatchingParent ResolvedRefs",
        ]
    );
    let [gateway] = &*statuses.gateways else { panic!("{statuses:?}") };
    assert!(gateway.accepted.status && !gateway.programmed.status);
    assert_eq!(gateway.listeners[0].attached_routes, 2);
}

#[test]
fn a_route_for_a_service_is_for_the_mesh() {
    let parent = "parentRefs: [{kind: Service, group: '', name: b}]";
    let rules = format!("{{matches: [{{path: {{value: /x}}}}], {TO_A}}}, {{{TO_B}}}");
    let text = [
        shop(HTTP),
        service("shop", "a", "10.96.0.1", HTTP),
        pod("shop", "a-1", "10.0.1.1", "app: a"),
        api("HTTPRoute", "shop", "p", &format!("{{{parent}, rules: [{rules}]}}")),
    ];
    let compiled = compiled(&text.concat());
    assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Proxy);
    assert_eq!(compiled.ask(0, "any", "10.96.0.2", "b.shop", "/x/y"), "shop.p.0: a/1=1");
    assert_eq!(compiled.ask(0, "any", "10.96.0.2", "b.shop", "/xy"), "shop.p.1: b/3=1");
}

#[test]
fn a_consumers_route_is_for_its_own_namespace() {
    let route = api(
        "HTTPRoute",
        "clients",
        "c",
        "{parentRefs: [{kind: Service, group: '', name: b, namespace: shop}], rules: [{backendRefs: [{name: own, port: 80}]}]}",
    );
    let text = [
        shop(HTTP),
        service("clients", "own", "10.96.0.8", HTTP),
        pod("clients", "own-1", "10.0.8.1", "app: own"),
        pod("clients", "c", "10.0.2.1", "weir.mesh/mode: enabled"),
        route,
    ];
    let compiled = compiled(&text.concat());
    let view = compiled.views.of(&"clients".into(), &crate::crd::Labels::new());
    assert_ne!(view, 0);
    assert_eq!(compiled.ask(view, "clients", "10.96.0.2", "b.shop", "/"), "clients.c.0: own/1=1");
    assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Balance, "for everybody else");
}

#[test]
fn grpc_methods_are_paths() {
    let rules = "{matches: [{method: {service: shop.Cart, method: Add}}], backendRefs: [{name: a, port: 80}]}, {matches: [{method: {service: shop.Cart}}], backendRefs: [{name: b, port: 80}]}";
    let grpc =
        api("GRPCRoute", "shop", "g", &format!("{{parentRefs: [{{name: gw, namespace: edge}}], rules: [{rules}]}}"));
    let compiled = outside(&[edge(), grpc].concat());
    assert_eq!(compiled.call(80, false, "h", "/shop.Cart/Add"), of("*", "a"));
    assert_eq!(compiled.call(80, false, "h", "/shop.Cart/List"), of("*", "b"));
    assert_eq!(compiled.call(80, false, "h", "/shop.Cart2/List"), "*:80 -> 404");
    // A rule for everything is the last, wherever it stands and however a method is given.
    let rules = "{backendRefs: [{name: b, port: 80}]}, {matches: [{method: {type: RegularExpression, service: 'shop[.]V[0-9]'}}], backendRefs: [{name: a, port: 80}]}";
    let grpc =
        api("GRPCRoute", "shop", "g", &format!("{{parentRefs: [{{name: gw, namespace: edge}}], rules: [{rules}]}}"));
    let compiled = outside(&[edge(), grpc].concat());
    assert_eq!(compiled.call(80, false, "h", "/shop.V2/Get"), of("*", "a"));
    assert_eq!(compiled.call(80, false, "h", "/shop.V22/Get"), of("*", "b"));
}

#[test]
fn timeouts_are_those_of_the_rule_and_of_each_try() {
    use std::time::Duration;

    let mesh = |rules: &str| {
        let spec = format!("{{parentRefs: [{{kind: Service, group: '', name: b}}], rules: [{rules}]}}");
        outside(&[edge(), api("HTTPRoute", "shop", "r", &spec)].concat())
    };
    let of = |timeouts: &str| {
        let compiled = mesh(&format!("{{timeouts: {timeouts}, {TO_A}}}"));
        let port = compiled.port(0, "10.96.0.2", 80).expect("a service");
        let source = Source { namespace: "shop", view: 0 };
        let host = crate::route::host(&compiled.program, port, &source, "b").expect("its host");
        let settings = host.rules[0].route.settings.clone();
        let tries = host.rules[0].route.retries();
        let told = compiled.found(code::NOT_SUPPORTED);
        (settings.and_then(|settings| settings.timeout), tries.per_try_timeout, tries.attempts, told)
    };
    let second = Duration::from_secs(1);
    let (request, one_try, attempts, told) = of("{request: 10s, backendRequest: 1s}");
    assert_eq!((request, one_try, attempts), (Some(10 * second), Some(second), 2));
    assert_eq!(told, [""; 0]);
    assert_eq!(of("{request: 0s, backendRequest: 0s}"), (None, None, 2, Vec::new()), "zero is no limit");
}

#[test]
fn what_a_rule_asks_for_that_is_no_part_of_the_standard_is_told() {
    let spec =
        format!("{{parentRefs: [{{kind: Service, group: '', name: b}}], rules: [{{retry: {{attempts: 2}}, {TO_A}}}]}}");
    let text = [edge(), api("HTTPRoute", "shop", "r", &spec)].concat();
    let (_, findings) = with_store(&[("test.yaml", &text)], &CompileOptions::default());
    let told =
        findings.iter().any(|one| one.message.contains("spec.rules[0].retry") && one.code == code::NOT_SUPPORTED);
    assert!(told, "{findings:?}");
}

#[test]
fn requests_are_for_the_most_specific_listener_alone() {
    let listener = |name: &str, host: &str| {
        format!("{{name: {name}, port: 80, protocol: HTTP{host}, allowedRoutes: {{namespaces: {{from: All}}}}}}")
    };
    let listeners = [
        listener("any", ""),
        listener("wild", ", hostname: '*.example.com'"),
        listener("one", ", hostname: one.example.com"),
        listener("empty", ", hostname: empty.example.com"),
    ];
    let route = |name: &str, section: &str, hosts: &str, to: &str| {
        let parent = format!("{{name: gw, namespace: edge, sectionName: {section}}}");
        api("HTTPRoute", "shop", name, &format!("{{parentRefs: [{parent}], {hosts}rules: [{{{to}}}]}}"))
    };
    let text = [
        api("Gateway", "edge", "gw", &format!("{{gatewayClassName: weir, listeners: [{}]}}", listeners.join(", "))),
        edge()
            .split_once("---\napiVersion: v1")
            .map(|(_, rest)| format!("---\napiVersion: v1{rest}"))
            .expect("services"),
        route("any", "any", "", TO_A),
        route("wild", "wild", "", TO_B),
        route("one", "one", "hostnames: [one.example.com], ", TO_A),
        // It is bound to a listener that never gets these requests.
        route("stray", "wild", "hostnames: [one.example.com, two.example.com], ", TO_B),
    ];
    let compiled = outside(&text.concat());
    for (host, to) in [
        ("elsewhere.org", of("*", "a")),
        ("other.example.com", of("*.example.com", "b")),
        ("two.example.com", of("two.example.com", "b")),
        ("one.example.com", of("one.example.com", "a")),
    ] {
        assert_eq!(compiled.call(80, false, host, "/"), to, "{host}");
    }
    let nothing = compiled.call(80, false, "empty.example.com", "/");
    assert!(nothing.ends_with("404"), "{nothing}");
}
