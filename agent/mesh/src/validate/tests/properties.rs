//! Whatever a text holds: nothing panics, and what is accepted can be decoded.

use crate::crd::{self, Header, Kind};
use crate::validate::{has_error, object};

const ROUNDS: u64 = 6_000;

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

const KEYS: &[&str] = &[
    "host",
    "hosts",
    "http",
    "tcp",
    "tls",
    "match",
    "route",
    "destination",
    "weight",
    "port",
    "number",
    "name",
    "labels",
    "subsets",
    "trafficPolicy",
    "loadBalancer",
    "simple",
    "consistentHash",
    "httpCookie",
    "servers",
    "protocol",
    "uri",
    "prefix",
    "regex",
    "exact",
    "headers",
    "request",
    "set",
    "retries",
    "attempts",
    "timeout",
    "fault",
    "abort",
    "percentage",
    "value",
    "selector",
    "matchLabels",
    "rules",
    "from",
    "source",
    "to",
    "operation",
    "ports",
    "when",
    "key",
    "values",
    "jwtRules",
    "issuer",
    "endpoints",
    "address",
    "resolution",
    "listeners",
    "filters",
    "type",
    "path",
    "traffic_policy",
    "localityLbSetting",
    "distribute",
    "portLevelMtls",
    "exportTo",
    "",
    "\u{e9}",
    "x y",
];
const SCALARS: &[&str] = &[
    "a",
    "\"*\"",
    "''",
    "0",
    "-1",
    "1.5",
    "70000",
    "true",
    "null",
    "10s",
    "0s",
    "v1",
    "\"*.a.b\"",
    "unix://",
    "'%'",
    "\"(\"",
    "STATIC",
    "SIMPLE",
    "HTTP",
    "\"\u{e9}\"",
    "9223372036854775807",
    "1e300",
    ".nan",
    "~",
    "'@request.auth.claims.a'",
    "10.0.0.0/8",
    "\"outbound_.80_._.a.b\"",
];

fn value(random: &mut Random, depth: usize, text: &mut String) {
    match random.below(if depth == 0 { 1 } else { 4 }) {
        0 => text.push_str(random.one(SCALARS)),
        1 => {
            text.push('[');
            for _ in 0..random.below(4) {
                value(random, depth - 1, text);
                text.push_str(", ");
            }
            text.push(']');
        }
        _ => {
            text.push('{');
            let mut seen = Vec::new();
            for _ in 0..random.below(6) {
                let key = random.one(KEYS);
                if seen.contains(&key) {
                    continue;
                }
                seen.push(key);
                text.extend(["\"", key, "\": "]);
                value(random, depth - 1, text);
                text.push_str(", ");
            }
            text.push('}');
        }
    }
}

#[test]
fn any_tree_is_refused_or_decoded_and_nothing_panics() {
    let kinds = [
        ("networking.istio.io/v1", "VirtualService"),
        ("networking.istio.io/v1", "DestinationRule"),
        ("networking.istio.io/v1", "Gateway"),
        ("networking.istio.io/v1", "ServiceEntry"),
        ("networking.istio.io/v1", "WorkloadEntry"),
        ("networking.istio.io/v1", "WorkloadGroup"),
        ("networking.istio.io/v1", "Sidecar"),
        ("security.istio.io/v1", "AuthorizationPolicy"),
        ("security.istio.io/v1", "PeerAuthentication"),
        ("security.istio.io/v1", "RequestAuthentication"),
        ("telemetry.istio.io/v1", "Telemetry"),
        ("gateway.networking.k8s.io/v1", "Gateway"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("gateway.networking.k8s.io/v1", "GRPCRoute"),
        ("gateway.networking.k8s.io/v1", "GatewayClass"),
        ("gateway.networking.k8s.io/v1", "ReferenceGrant"),
        ("gateway.networking.k8s.io/v1alpha2", "TCPRoute"),
        ("gateway.networking.k8s.io/v1alpha2", "TLSRoute"),
    ];
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let (api_version, kind) = kinds[random.below(kinds.len())];
        let mut spec = String::new();
        let depth = 2 + random.below(6);
        value(&mut random, depth, &mut spec);
        let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n");
        let Ok(Some(node)) = crd::parse(&text, 0) else {
            continue;
        };
        let header: Header = crd::header(&node, None).expect("it has a name");
        let findings = object(&node, &header, None);
        if has_error(&findings) {
            refused += 1;
        } else {
            accepted += 1;
            if header.kind == Kind::Known {
                assert!(crate::validate::decode(&node, &header, None).is_ok(), "seed {seed}: {text}");
            }
        }
    }
    assert!(accepted > 20 && refused > 1000, "{accepted} accepted, {refused} refused");
}

/// What is not a map, or has no spec, or one of another type.
#[test]
fn trees_of_any_shape_are_told_of() {
    for text in [
        "[]",
        "5",
        "{}",
        "{kind: 5}",
        "{apiVersion: v1, kind: List, items: 5}",
        "{apiVersion: v1, kind: List, items: [null, 5, []]}",
        "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: x}, spec: 5}",
        "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: x}, spec: {servers: [null]}}",
    ] {
        assert!(has_error(&crate::validate::text(&"f".into(), text).findings), "{text}");
    }
}

/// Anybody who may write objects may write large ones, and each is checked on the thread that all the others wait for.
#[test]
fn large_objects_are_checked_in_linear_time() {
    let many = |item: &str| (0..3_000).map(|i| item.replace('#', &i.to_string())).collect::<Vec<_>>().join(", ");
    for (api_version, kind, item, spec) in [
        (
            "networking.istio.io/v1",
            "VirtualService",
            "{match: [{uri: {prefix: /a#}}], route: [{destination: {host: a}}]}",
            "{hosts: [a], http: [@]}",
        ),
        (
            "networking.istio.io/v1",
            "VirtualService",
            "'h#.a'",
            "{hosts: [@], exportTo: [@], tls: [{match: [{sniHosts: [@]}], route: [{destination: {host: a}}]}]}",
        ),
        ("networking.istio.io/v1", "DestinationRule", "{name: v#, nothing: 1}", "{host: a, subsets: [@]}"),
        (
            "networking.istio.io/v1",
            "DestinationRule",
            "a/b#: 1",
            "{host: a, trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: x, to: {@}}]}}}}",
        ),
        (
            "networking.istio.io/v1",
            "Gateway",
            "{port: {number: 80, name: p#, protocol: HTTP}, hosts: [a.b]}",
            "{servers: [@]}",
        ),
        (
            "networking.istio.io/v1",
            "ServiceEntry",
            "{number: #, name: p#}",
            "{hosts: [a.b], resolution: STATIC, ports: [@], endpoints: [@]}",
        ),
        (
            "gateway.networking.k8s.io/v1",
            "Gateway",
            "{name: l#, port: #, protocol: HTTP}",
            "{gatewayClassName: x, listeners: [@]}",
        ),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", "{name: g#}", "{parentRefs: [@], hostnames: [@]}"),
        ("security.istio.io/v1", "AuthorizationPolicy", "{from: [{source: {principals: ['']}}]}", "{rules: [@]}"),
    ] {
        let text = format!(
            "apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {}",
            spec.replace('@', &many(item))
        );
        let node = crd::parse(&text, 0).expect("YAML").expect("an object");
        let header = crd::header(&node, None).expect("it has a name");
        let before = std::time::Instant::now();
        let findings = object(&node, &header, None);
        // A second without optimisation; what is quadratic takes minutes.
        assert!(before.elapsed() < std::time::Duration::from_secs(10), "{kind} {item}: {:?}", before.elapsed());
        assert!(findings.len() <= 1_000, "{kind} {item}: {} findings", findings.len());
    }
}

#[test]
fn many_warnings_do_not_hide_an_error() {
    let unknown = (0..1_000).map(|i| format!("x{i}: 1")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: x}}\nspec: {{{unknown}, host: 5}}\n"
    );
    let mut store = crate::store::Store::new();
    store.set_file("f.yaml", &text);
    assert!(store.snapshot().destination_rules.is_empty());
    assert!(has_error(&store.findings()));
}
