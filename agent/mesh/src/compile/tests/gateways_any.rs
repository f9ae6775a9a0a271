//! Gateways, ServiceEntries and routes of any sort together: nothing panics, the order of files does not show, and what
//! comes from outside is decided for any call.

use std::fmt::Write as _;

use super::*;
use crate::program::{Connection, Handler, ListenerId, decide_gateway};

const MESHES: u64 = 400;

/// A generator of its own, so that a failure can be had again by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }
}

const HOSTS: &[&str] = &["a.example.com", "*.example.com", "*", "b.example.com", "db.example.org", "*.a.example.com"];
const NAMESPACES: &[&str] = &["shop", "edge"];
const PATHS: &[&str] = &["/", "/v2", "/v2/", "/v2/x", "/long/er"];
const PROTOCOLS: &[&str] = &["HTTP", "HTTPS", "TLS", "TCP"];
const TLS: &[&str] = &[
    "",
    "tls: {mode: SIMPLE, credentialName: c}",
    "tls: {mode: PASSTHROUGH}",
    "tls: {mode: AUTO_PASSTHROUGH}",
    "tls: {httpsRedirect: true}",
];

fn object(random: &mut Random, number: usize) -> String {
    let namespace = random.one(NAMESPACES);
    let host = random.one(HOSTS);
    let (kind, spec) = match random.below(8) {
        0 | 1 => {
            let (port, protocol) = ([80, 443, 7000][random.below(3)], random.one(PROTOCOLS));
            let tls = random.one(TLS);
            let server = format!("port: {{number: {port}, name: p, protocol: {protocol}}}, hosts: [\"{host}\"], {tls}");
            ("networking.istio.io/v1 Gateway", format!("{{servers: [{{{server}}}]}}"))
        }
        2 | 3 => {
            let path = random.one(PATHS);
            let gateway = random.one(&["shop/g0", "edge/g1", "g2", "mesh, g1", "shop/g3", "edge/g2"]);
            let tls = format!("tls: [{{match: [{{sniHosts: [\"{host}\"]}}], route: [{{destination: {{host: b}}}}]}}]");
            let to = "route: [{destination: {host: b}}]";
            let rules = format!("http: [{{match: [{{uri: {{prefix: {path}}}}}], {to}}}], tcp: [{{{to}}}], {tls}");
            (
                "networking.istio.io/v1 VirtualService",
                format!("{{hosts: [\"{host}\"], gateways: [{gateway}], {rules}}}"),
            )
        }
        4 => {
            let resolution = random.one(&["STATIC", "NONE", "DNS"]);
            let endpoints = if resolution == "NONE" { "" } else { "endpoints: [{address: 192.0.2.1}]" };
            let ports = "ports: [{number: 80, name: http, protocol: HTTP}]";
            let address = format!("10.99.0.{}", random.below(3) + 1);
            let spec = format!(
                "{{hosts: [\"{host}\"], addresses: [{address}], resolution: {resolution}, {ports}, {endpoints}}}"
            );
            ("networking.istio.io/v1 ServiceEntry", spec)
        }
        5 => {
            let protocol = random.one(&["HTTP", "TCP"]);
            let listener =
                format!("{{name: l, port: 80, protocol: {protocol}, allowedRoutes: {{namespaces: {{from: All}}}}}}");
            ("gateway.networking.k8s.io/v1 Gateway", format!("{{gatewayClassName: weir, listeners: [{listener}]}}"))
        }
        _ => {
            let parent = random.one(&["name: g0", "name: g1, namespace: edge", "kind: Service, group: '', name: b"]);
            let path = random.one(PATHS);
            let filter = random.one(&["", "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /n}}}], "]);
            let backend =
                random.one(&["name: b, port: 80", "name: gone, port: 80", "name: b, namespace: shop, port: 81"]);
            let rule = format!("{{matches: [{{path: {{value: {path}}}}}], {filter}backendRefs: [{{{backend}}}]}}");
            ("gateway.networking.k8s.io/v1 HTTPRoute", format!("{{parentRefs: [{{{parent}}}], rules: [{rule}]}}"))
        }
    };
    let (api_version, kind) = kind.split_once(' ').expect("two words");
    let name = format!("g{}", number % 4);
    format!(
        "---\napiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// What comes in from outside, without places in files and in an order that hash maps do not shuffle.
fn shape(compiled: &Compiled) -> String {
    let mut text = String::new();
    for listener in &*compiled.program.gateways {
        text.push_str(&listener.name);
        for chain in &listener.chains {
            let Handler::Http(http) = &chain.handler else {
                write!(text, "{} {:?} {:?}", chain.gateway, chain.sni_hosts, chain.handler)
                    .expect("a String takes all");
                continue;
            };
            let mut names: Vec<_> = http.names.iter().collect();
            names.sort();
            let parts = (&chain.sni_hosts, &chain.termination, &http.name, &http.hosts, names, &http.suffixes);
            write!(text, "{} {parts:?}", chain.gateway).expect("a String takes all");
        }
    }
    text.split("at: Some(Location").map(|part| part.split_once(')').map_or(part, |(_, rest)| rest)).collect()
}

#[test]
fn any_mesh_compiles_to_the_same_in_any_order_and_decides_every_call() {
    let (mut listeners, mut decided) = (0, 0);
    for seed in 0..MESHES {
        let mut random = Random(seed);
        let mut texts: Vec<String> = (0..2 + random.below(7)).map(|number| object(&mut random, number)).collect();
        // Of two objects of one name the first file's counts: that order does show.
        texts.sort();
        texts.dedup_by_key(|text| text.split("spec:").next().map(str::to_owned));
        texts.push(shop(HTTP));
        let mut seen = Vec::new();
        for reversed in [false, true] {
            let named = texts.iter().enumerate().map(|(number, text)| {
                let number = if reversed { texts.len() - number } else { number };
                (format!("{number:02}.yaml"), &**text)
            });
            let named: Vec<(String, &str)> = named.collect();
            let files: Vec<(&str, &str)> = named.iter().map(|(name, text)| (&**name, *text)).collect();
            let (compiled, _) = with_store(&files, &CompileOptions::default());
            for id in (0..compiled.program.gateways.len() as u32).map(ListenerId) {
                listeners += 1;
                for host in ["a.example.com", "x.a.example.com", "nowhere", ""] {
                    for tls in [false, true] {
                        let headers = HeaderMap::new();
                        let request = RequestView {
                            method: &Method::GET,
                            scheme: "http",
                            authority: host,
                            path: "/v2",
                            query: None,
                            headers: &headers,
                        };
                        let connection = Connection { tls, sni: Some(host) };
                        let decision = |roll| {
                            format!("{:?}", decide_gateway(&compiled.program, id, connection, Some(&request), roll))
                        };
                        assert_eq!(decision(seed), decision(seed), "seed {seed}");
                        decided += 1;
                    }
                }
            }
            seen.push((shape(&compiled), compiled.plan));
        }
        assert_eq!(seen[0].0, seen[1].0, "seed {seed}");
        assert_eq!(seen[0].1, seen[1].1, "seed {seed}");
    }
    assert!(listeners > 200 && decided > 1_000, "{listeners} listeners, {decided} calls");
}
