//! Gateways: ports, hosts, the rules that are bound to them, TLS, and who comes first.

use super::*;
use crate::finding::code;
use crate::program::{Connection, GatewayDecision, Handler, decide_gateway};

pub(super) const HTTP80: &str = "port: {number: 80, name: http, protocol: HTTP}";

/// A Gateway of weir's with these servers.
pub(super) fn gateway(namespace: &str, name: &str, servers: &str) -> String {
    rule("Gateway", namespace, name, &format!("{{selector: {{istio: ingressgateway}}, servers: [{servers}]}}"))
}

/// Compiles texts of which the store may say that no port is opened.
pub(super) fn outside(text: &str) -> Compiled {
    let (compiled, findings) = with_store(&[("test.yaml", text)], &CompileOptions::default());
    let others: Vec<_> = findings
        .iter()
        .filter(|f| !f.message.ends_with("no port is opened for it") && f.code != code::WARNING)
        .collect();
    assert!(others.is_empty(), "{others:?}");
    compiled
}

impl Compiled {
    /// `virtual host -> cluster`, or why a GET from outside comes to nothing.
    pub(super) fn call(&self, port: u16, tls: bool, host: &str, path: &str) -> String {
        self.call_with(port, Connection { tls, sni: Some(host) }, host, path, &HeaderMap::new(), 0)
    }

    pub(super) fn call_with(
        &self,
        port: u16,
        connection: Connection<'_>,
        host: &str,
        path: &str,
        headers: &HeaderMap,
        roll: u64,
    ) -> String {
        let Some(listener) = self.program.listener(None, port) else {
            return "no listener".to_owned();
        };
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let method = Method::GET;
        let request = RequestView { method: &method, scheme: "http", authority: host, path, query, headers };
        match decide_gateway(&self.program, listener, connection, Some(&request), roll) {
            GatewayDecision::NoChain => "no chain".to_owned(),
            GatewayDecision::TlsMismatch => "tls".to_owned(),
            GatewayDecision::NotHttp => "not http".to_owned(),
            GatewayDecision::NoHost => "no host".to_owned(),
            GatewayDecision::HttpsRedirect(host) => format!("{} -> https", host.name),
            GatewayDecision::Forward(to) => format!("tcp -> {}", to.map_or("nothing", |to| &to.name)),
            GatewayDecision::Routed(host, decision) => {
                let to = match decision {
                    RouteDecision::NoRoute => "404".to_owned(),
                    RouteDecision::Redirect { redirect, matched, .. } => {
                        format!("{} {}", redirect.code, redirect.location(&request, matched, port))
                    }
                    RouteDecision::Respond { response, .. } => response.status.to_string(),
                    RouteDecision::Forward { destination, route, matched } => {
                        let settings = route.and_then(|route| route.settings.as_ref());
                        let rewrite = settings.and_then(|settings| settings.rewrite.as_ref());
                        let path = rewrite.map(|rewrite| format!(" as {}", rewrite.path(matched, path)));
                        format!("{}{}", destination.map_or("nothing", |to| &*to.name), path.unwrap_or_default())
                    }
                };
                format!("{} -> {to}", host.name)
            }
        }
    }
}

fn to(hosts: &str, gateways: &str, service: &str) -> String {
    format!(
        "{{hosts: [{hosts}], gateways: [{gateways}], http: [{{route: [{{destination: {{host: {service}, port: {{number: 80}}}}}}]}}]}}"
    )
}

#[test]
fn rules_are_bound_by_name_host_and_namespace() {
    let text = [
        gateway(
            "edge",
            "gw",
            &format!("{{{HTTP80}, hosts: [\"shop/*.example.com\", \"./admin.example.org\", open.example.net]}}"),
        ),
        vs("shop", "a", &to("a.example.com", "edge/gw", "a")),
        vs("other", "b", &to("b.example.com", "edge/gw", "b")),
        vs("shop", "short", &to("c.example.com", "gw", "c")),
        vs("edge", "own", &to("admin.example.org", "gw", "own")),
        vs("other", "any", &to("\"*.example.net\"", "edge/gw", "any")),
        vs("shop", "mesh", "{hosts: [d.example.com], http: [{route: [{destination: {host: d}}]}]}"),
        vs(
            "shop",
            "hidden",
            "{hosts: [e.example.com], exportTo: [\".\"], gateways: [edge/gw], http: [{route: [{destination: {host: e}}]}]}",
        ),
    ];
    let compiled = outside(&text.concat());
    for (host, decision) in [
        ("a.example.com", "a.example.com:80 -> outbound|80||a.shop.svc.cluster.local"),
        ("A.EXAMPLE.COM:80", "a.example.com:80 -> outbound|80||a.shop.svc.cluster.local"),
        // Of a namespace that the server does not let in.
        ("b.example.com", "no host"),
        // `gw` is a Gateway of the rule's own namespace.
        ("c.example.com", "no host"),
        ("admin.example.org", "admin.example.org:80 -> outbound|80||own.edge.svc.cluster.local"),
        ("open.example.net", "open.example.net:80 -> outbound|80||any.other.svc.cluster.local"),
        // The server's host is all that both have in common.
        ("closed.example.net", "no host"),
        ("d.example.com", "no host"),
        ("e.example.com", "no host"),
    ] {
        assert_eq!(compiled.call(80, false, host, "/"), decision, "{host}");
    }
    assert_eq!(compiled.call(81, false, "a.example.com", "/"), "no listener");
}

#[test]
fn items_may_be_for_one_gateway_alone() {
    let item = "{hosts: [x.example.com], gateways: [mesh, edge/one, edge/two], http: [{match: [{gateways: [edge/one], uri: {prefix: /one}}, {gateways: [mesh], uri: {prefix: /mesh}}], route: [{destination: {host: a}}]}]}";
    let text = [
        gateway("edge", "one", &format!("{{{HTTP80}, hosts: [\"*\"]}}")),
        gateway("edge", "two", "{port: {number: 81, name: http, protocol: HTTP}, hosts: [\"*\"]}"),
        vs("edge", "x", item),
    ];
    let compiled = outside(&text.concat());
    let found = "x.example.com:80 -> outbound|80||a.edge.svc.cluster.local";
    assert_eq!(compiled.call(80, false, "x.example.com", "/one"), found);
    assert_eq!(compiled.call(80, false, "x.example.com", "/mesh"), "x.example.com:80 -> 404");
    assert_eq!(compiled.call(81, false, "x.example.com", "/one"), "x.example.com:81 -> 404");
}

#[test]
fn a_port_without_rules_answers_and_tcp_without_rules_is_not_there() {
    let tcp = "{port: {number: 9000, name: tcp, protocol: TCP}, hosts: [\"*\"]}";
    let compiled = outside(&gateway("edge", "gw", &format!("{{{HTTP80}, hosts: [a.example.com]}}, {tcp}")));
    assert_eq!(compiled.call(80, false, "any.example.com", "/"), "blackhole:80 -> 404");
    assert_eq!(compiled.call(9000, false, "", "/"), "no listener");
    let bytes = "{hosts: [\"*\"], gateways: [gw], tcp: [{match: [{port: 1}], route: [{destination: {host: a}}]}, {route: [{destination: {host: b, port: {number: 7}}}]}]}";
    let compiled = outside(&[gateway("edge", "gw", tcp), vs("edge", "t", bytes)].concat());
    assert_eq!(compiled.call(9000, false, "", "/"), "tcp -> outbound|7||b.edge.svc.cluster.local");
}

#[test]
fn plain_requests_are_sent_to_https_where_a_server_says_so() {
    let redirecting = format!("{{{HTTP80}, hosts: [a.example.com], tls: {{httpsRedirect: true}}}}");
    let https = "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example.com], tls: {mode: SIMPLE, credentialName: c, httpsRedirect: true}}";
    let text =
        [gateway("edge", "gw", &format!("{redirecting}, {https}")), vs("edge", "a", &to("a.example.com", "gw", "a"))];
    let compiled = outside(&text.concat());
    assert_eq!(compiled.call(80, false, "a.example.com", "/"), "a.example.com:80 -> https");
    let found = "a.example.com:443 -> outbound|80||a.edge.svc.cluster.local";
    assert_eq!(compiled.call(443, true, "a.example.com", "/"), found);
    assert_eq!(compiled.call(443, false, "a.example.com", "/"), "no chain");
    assert_eq!(compiled.call(443, true, "b.example.com", "/"), "no chain");
    assert_eq!(compiled.call(80, true, "a.example.com", "/"), "tls");
    let listener = compiled.program.gateway_listener(compiled.program.listener(None, 443).expect("it is there"));
    let termination = listener.chains[0].termination.as_ref().expect("TLS ends there");
    assert_eq!((&*termination.credentials[0], termination.mutual), ("c", false));
    assert!(matches!(&listener.chains[0].handler, Handler::Http(http) if &*http.name == "https.443.https.gw.edge"));
}

#[test]
fn tls_is_passed_through_by_the_name_that_is_asked_for() {
    let tls = "{port: {number: 443, name: tls, protocol: TLS}, hosts: [\"*.example.com\"], tls: {mode: PASSTHROUGH}}";
    let rule = |sni: &str, host: &str| {
        format!(
            "{{hosts: [\"*.example.com\"], gateways: [gw], tls: [{{match: [{{port: 443, sniHosts: [\"{sni}\"]}}], route: [{{destination: {{host: {host}, port: {{number: 443}}}}}}]}}]}}"
        )
    };
    let text = [
        gateway("edge", "gw", tls),
        vs("edge", "a", &rule("a.example.com", "a")),
        vs("edge", "b", &rule("*.example.com", "b")),
        vs("edge", "c", &rule("a.example.com", "c")),
    ];
    let compiled = outside(&text.concat());
    let of = |host: &str| format!("tcp -> outbound|443||{host}.edge.svc.cluster.local");
    assert_eq!(compiled.call(443, true, "a.example.com", "/"), of("a"));
    assert_eq!(compiled.call(443, true, "A.Example.Com", "/"), of("a"));
    assert_eq!(compiled.call(443, true, "x.example.com", "/"), of("b"));
    assert_eq!(compiled.call(443, true, "example.com", "/"), "no chain");
    let nobody = Connection { tls: true, sni: None };
    assert_eq!(compiled.call_with(443, nobody, "a.example.com", "/", &HeaderMap::new(), 0), "no chain");
    assert!(
        compiled
            .found(code::NO_EFFECT)
            .iter()
            .any(|f| f.contains("VirtualService edge/c") && f.contains("a.example.com"))
    );
}

#[test]
fn of_gateways_that_want_the_same_the_older_has_it() {
    let created = |text: String, when: &str| {
        text.replacen("metadata: {", &format!("metadata: {{creationTimestamp: \"{when}\", "), 1)
    };
    let tcp = "{port: {number: 80, name: tcp, protocol: TCP}, hosts: [\"*\"]}";
    let http = format!("{{{HTTP80}, hosts: [\"*\"]}}");
    let bytes = "{hosts: [\"*\"], gateways: [edge/tcp], tcp: [{route: [{destination: {host: a, port: {number: 7}}}]}]}";
    let rules = [vs("edge", "b", bytes), vs("edge", "h", &to("\"*\"", "edge/http", "h"))].concat();
    let text = |tcp_made: &str, http_made: &str| {
        [
            created(gateway("edge", "tcp", tcp), tcp_made),
            created(gateway("edge", "http", &http), http_made),
            rules.clone(),
        ]
        .concat()
    };
    let (old, young) = ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z");
    let compiled = outside(&text(old, young));
    assert_eq!(compiled.call(80, false, "x", "/"), "tcp -> outbound|7||a.edge.svc.cluster.local");
    assert!(compiled.found(code::NO_EFFECT).iter().any(|f| f.starts_with("Warning Gateway edge/http")));
    let compiled = outside(&text(young, old));
    assert_eq!(compiled.call(80, false, "x", "/"), "*:80 -> outbound|80||h.edge.svc.cluster.local");
}

#[test]
fn a_gateway_for_other_pods_is_not_served() {
    let other = rule(
        "Gateway",
        "edge",
        "gw",
        &format!("{{selector: {{istio: egressgateway}}, servers: [{{{HTTP80}, hosts: [\"*\"]}}]}}"),
    );
    let compiled = outside(&other);
    assert_eq!(compiled.call(80, false, "x", "/"), "no listener");
    assert!(compiled.found(code::NO_EFFECT)[0].contains("selector"));
}

#[test]
fn a_port_is_the_one_behind_the_service_of_the_gateway() {
    let front = |extra: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: gw, namespace: istio-system{extra}}}\nspec: {{clusterIP: 10.96.0.9, selector: {{istio: ingressgateway}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n"
        )
    };
    let text = |extra: &str| {
        [
            front(extra),
            gateway("edge", "gw", &format!("{{{HTTP80}, hosts: [\"*\"]}}")),
            vs("edge", "a", &to("\"*\"", "gw", "a")),
        ]
        .concat()
    };
    let found = "*:80 -> outbound|80||a.edge.svc.cluster.local";
    let compiled = outside(&text(""));
    assert_eq!(compiled.call(8080, false, "x", "/"), found);
    assert_eq!(compiled.call(80, false, "x", "/"), "no listener");
    let compiled = outside(&text(", labels: {experimental.istio.io/disable-gateway-port-translation: \"true\"}"));
    assert_eq!(compiled.call(80, false, "x", "/"), found);
}

#[test]
fn rules_of_several_objects_come_in_the_order_of_their_age_and_the_rest_last() {
    let rest = "{hosts: [a.example.com], gateways: [gw], http: [{match: [{uri: {prefix: /x}}], route: [{destination: {host: first}}]}, {route: [{destination: {host: rest}}]}]}";
    let more = "{hosts: [a.example.com], gateways: [gw], http: [{match: [{uri: {prefix: /y}}], route: [{destination: {host: second}}]}, {route: [{destination: {host: never}}]}]}";
    let text =
        [gateway("edge", "gw", &format!("{{{HTTP80}, hosts: [\"*\"]}}")), vs("edge", "a", rest), vs("edge", "b", more)];
    let compiled = outside(&text.concat());
    for (path, host) in [("/x", "first"), ("/y", "second"), ("/z", "rest")] {
        let found = format!("a.example.com:80 -> outbound|80||{host}.edge.svc.cluster.local");
        assert_eq!(compiled.call(80, false, "a.example.com", path), found);
    }
}

#[test]
fn a_server_that_passes_everything_on_is_told_of() {
    let server = "{port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}";
    let compiled = outside(&gateway("edge", "gw", server));
    assert_eq!(compiled.call(15443, true, "b.local", "/"), "no listener");
    let told = compiled.found(code::NOT_SUPPORTED);
    assert!(told.iter().any(|one| one.contains("AUTO_PASSTHROUGH")), "{told:?}");
}
