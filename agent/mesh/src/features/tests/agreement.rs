//! The tables against what the compiler tells of VirtualServices and DestinationRules: objects that hold every field of
//! the schema are compiled, and each finding that says what is not in force must be what the tables say, word for word.
//! Neither can say something that the other does not.

use std::collections::BTreeSet;

use crate::compile::{CompileOptions, compile};
use crate::crd::{Node, Value, parse};
use crate::features::{Feature, Support, fields, networking, of};
use crate::finding::{Severity, code};
use crate::store::Store;

const MESH: &str = "---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: shop}
spec: {clusterIP: 10.96.0.2, selector: {app: b}, ports: [{name: http, port: 80}, {name: tcp, port: 81}]}
";

/// Rules of VirtualServices: together they have every field.
const HTTP: [&str; 9] = [
    "name: a, match: [{name: m, uri: {exact: /a}, ignoreUriCase: true, method: {exact: GET}, authority: {exact: b},
      scheme: {exact: http}, headers: {x: {exact: a}}, queryParams: {q: {exact: a}}, withoutHeaders: {y: {exact: a}},
      port: 80, gateways: [mesh], sourceLabels: {app: a}, sourceNamespace: shop, statPrefix: s}],
      route: [{destination: {host: b, subset: v1, port: {number: 80}}, weight: 1, headers: {request: {set: {a: b}, add: {c: d}, remove: [e]},
      response: {set: {a: b}, add: {c: d}, remove: [e]}}}, {destination: {host: b}, weight: 1}]",
    "match: [{uri: {prefix: /a}, method: {prefix: G}, authority: {prefix: b}, scheme: {prefix: h}, headers: {x: {prefix: a}},
      queryParams: {q: {prefix: a}}, withoutHeaders: {y: {prefix: a}}}], route: [{destination: {host: b}}],
      headers: {request: {set: {a: b}, add: {c: d}, remove: [e]}, response: {set: {a: b}, add: {c: d}, remove: [e]}},
      corsPolicy: {allowCredentials: true, allowHeaders: [x], allowMethods: [GET], allowOrigins: [{exact: a}, {prefix: b}, {regex: c}],
      exposeHeaders: ['y'], maxAge: 1h, unmatchedPreflights: IGNORE}",
    "match: [{uri: {regex: /a}, method: {regex: G}, authority: {regex: b}, scheme: {regex: h}, headers: {x: {regex: a}},
      queryParams: {q: {regex: a}}, withoutHeaders: {y: {regex: a}}}], route: [{destination: {host: b}}],
      corsPolicy: {allowOrigin: [a]}, mirror: {host: b, subset: v1, port: {number: 80}}, mirrorPercentage: {value: 1}",
    "match: [{uri: {exact: /d}}], redirect: {uri: /e, authority: c, port: 81, redirectCode: 301, scheme: https}",
    "match: [{uri: {prefix: /e}}], redirect: {prefixRewrite: /f, derivePort: FROM_REQUEST_PORT}",
    "match: [{uri: {exact: /f}}], directResponse: {status: 200, body: {string: a}}",
    "match: [{uri: {exact: /g}}], directResponse: {status: 200, body: {bytes: aGk=}}",
    "match: [{uri: {exact: /h}}], route: [{destination: {host: b}}], rewrite: {uri: /a, authority: c}, timeout: 1s,
      retries: {attempts: 2, backoff: 1s, perTryTimeout: 1s, retryOn: 5xx, retryIgnorePreviousHosts: true, retryRemoteLocalities: true},
      fault: {delay: {fixedDelay: 1s, percentage: {value: 1}}, abort: {httpStatus: 500, percentage: {value: 1}}},
      mirrors: [{destination: {host: b, subset: v1, port: {number: 80}}, percentage: {value: 1}}]",
    "route: [{destination: {host: b}}], rewrite: {uriRegexRewrite: {match: a, rewrite: b}}, mirror: {host: b}, mirrorPercent: 1,
      fault: {delay: {fixedDelay: 1s, percent: 1}, abort: {grpcStatus: UNAVAILABLE, percentage: {value: 1}}}",
];

/// Fields of which an object that has them is not valid, or that are another spelling of one that is there.
const NEVER_VALID: [&str; 3] =
    ["http[].fault.abort.http2Error", "http[].fault.delay.exponentialDelay", "http[].mirror_percent"];

const LAYER4: &str = "tcp: [{match: [{port: 81, gateways: [mesh], destinationSubnets: [10.0.0.0/8], sourceLabels: {app: a}, sourceNamespace: shop}],
    route: [{destination: {host: b, subset: v1, port: {number: 81}}, weight: 1}, {destination: {host: b}, weight: 1}]},
    {match: [{sourceSubnet: 10.0.0.0/8}], route: [{destination: {host: b}}]}],
  tls: [{match: [{port: 443, gateways: [mesh], sniHosts: [b], destinationSubnets: [10.0.0.0/8], sourceLabels: {app: a}, sourceNamespace: shop}],
    route: [{destination: {host: b, subset: v1, port: {number: 81}}, weight: 1}, {destination: {host: b}, weight: 1}]}]";

/// What a policy says, at any level: together every field.
const BLOCKS: [&str; 6] = [
    "loadBalancer: {simple: PASSTHROUGH, warmup: {duration: 1s, minimumPercent: 1, aggression: 1}}, tls: {mode: SIMPLE, caCertificates: a,
      caCrl: b, credentialName: '', sni: c, subjectAltNames: [d]}, outlierDetection: {baseEjectionTime: 1s, consecutive5xxErrors: 1,
      consecutiveErrors: 1, consecutiveGatewayErrors: 1, consecutiveLocalOriginFailures: 1, interval: 1s, maxEjectionPercent: 1,
      minHealthPercent: 1, outlierDetectionHttpErrorCodes: [500], splitExternalLocalOriginErrors: true}",
    "loadBalancer: {consistentHash: {httpCookie: {name: a, path: /, ttl: 1s, attributes: [{name: a, value: b}]}, ringHash: {minimumRingSize: 1}},
      localityLbSetting: {enabled: true, distribute: [{from: a/*, to: {a/b: 100}}]}, warmupDurationSecs: 1s},
      connectionPool: {tcp: {connectTimeout: 1s, idleTimeout: 1s, maxConnectionDuration: 1s, maxConnections: 1, tcpKeepalive: {interval: 1s, probes: 1, time: 1s}},
      http: {h2UpgradePolicy: UPGRADE, http1MaxPendingRequests: 1, http2KeepAlive: {interval: 1s, timeout: 1s}, http2MaxRequests: 1, idleTimeout: 1s,
      maxConcurrentStreams: 1, maxRequestsPerConnection: 1, maxRetries: 1, useClientProtocol: false}},
      tls: {mode: MUTUAL, clientCertificate: a, privateKey: b, insecureSkipVerify: true}",
    "loadBalancer: {consistentHash: {httpHeaderName: a, maglev: {tableSize: 5}},
      localityLbSetting: {failover: [{from: a, to: b}]}}, outlierDetection: {}, tls: {mode: SIMPLE, credentialName: a}",
    "loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 1}, zoneAwareLbSetting: {enabled: true, failoverPriority: [a], minClusterSize: 1}},
      outlierDetection: {}",
    "loadBalancer: {consistentHash: {httpQueryParameterName: a}, zoneAwareLbSetting: {failover: [{from: a, to: b}]}}, outlierDetection: {},
      tls: {mode: ISTIO_MUTUAL}",
    "loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {failoverPriority: [a]}}, outlierDetection: {}",
];
/// What ports have none of.
const OF_LEVEL: [&str; 2] = [
    "proxyProtocol: {version: V2}, retryBudget: {percent: 1, minRetryConcurrency: 1, budgetInterval: 1s}",
    "tunnel: {protocol: CONNECT, targetHost: a.example.com, targetPort: 443}",
];

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

fn virtual_services() -> Vec<String> {
    let rules = HTTP.map(|rule| format!("{{{rule}}}")).join(", ");
    let root = "hosts: [c.example.com], http: [{delegate: {name: part, namespace: shop}}]";
    let spec = format!("hosts: [b], gateways: [mesh], exportTo: ['*'], http: [{rules}], {LAYER4}");
    vec![object("VirtualService", "b", &spec), object("VirtualService", "root", root)]
}

fn destination_rules() -> Vec<String> {
    let mut made = Vec::new();
    for (number, blocks) in BLOCKS.into_iter().enumerate() {
        let on_port = format!("portLevelSettings: [{{port: {{number: 80}}, {blocks}}}]");
        for (level, policy) in [format!("{blocks}, {}", OF_LEVEL[number % 2]), on_port].into_iter().enumerate() {
            let subset = format!("subsets: [{{name: v1, labels: {{version: v1}}, trafficPolicy: {{{policy}}}}}]");
            for (place, policy) in [format!("trafficPolicy: {{{policy}}}"), subset].into_iter().enumerate() {
                let spec = format!("host: b, exportTo: ['.'], workloadSelector: {{matchLabels: {{app: a}}}}, {policy}");
                made.push(object("DestinationRule", &format!("r-{number}-{level}-{place}"), &spec));
            }
        }
    }
    made
}

/// Whether an object holds a field of the schema, `http[].match[].headers.*.exact`.
fn holds(node: &Node, path: &[&str]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    let within = |node: &Node| match (&node.value, first.strip_suffix("[]")) {
        (Value::List(items), Some(_)) => items.iter().any(|item| holds(item, rest)),
        (_, None) => holds(node, rest),
        (_, Some(_)) => false,
    };
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .any(|entry| (*first == "*" || *entry.key == *first.trim_end_matches("[]")) && within(&entry.node)),
        _ => false,
    }
}

/// `spec.http[0].fault.abort` → `http[].fault.abort`; of a value, its field.
fn field(path: &str) -> String {
    let path = path.strip_prefix("spec.").expect("it is told of a field");
    let path = path.split_once(':').map_or(path, |(path, _)| path);
    let mut field = String::new();
    for part in path.split_inclusive(['[', ']']) {
        match part.strip_suffix(']') {
            Some(_) => field.push(']'),
            None => field.push_str(part),
        }
    }
    field
}

#[test]
fn the_field_of_a_place() {
    assert_eq!(field("spec.http[10].route[2].headers"), "http[].route[].headers");
    assert_eq!(field("spec.trafficPolicy.loadBalancer.simple: PASSTHROUGH"), "trafficPolicy.loadBalancer.simple");
}

fn words(feature: &Feature) -> &'static str {
    match feature.support {
        Support::Yes(_) => "",
        Support::Part(_, words) | Support::Decided(_, words) | Support::No(words) => words,
    }
}

#[test]
fn what_is_told_is_what_the_tables_say() {
    let mut wrong = Vec::new();
    let mut told = [BTreeSet::new(), BTreeSet::new()];
    let kinds = [("VirtualService", networking::VIRTUAL_SERVICE), ("DestinationRule", networking::DESTINATION_RULE)];
    let objects = [virtual_services(), destination_rules()];
    for ((kind, features), objects) in kinds.into_iter().zip(&objects) {
        let trees: Vec<Node> =
            objects.iter().map(|text| parse(text.trim_start_matches("---\n"), 0).unwrap().unwrap()).collect();
        for field in fields("networking.istio.io", kind).iter().filter(|field| !NEVER_VALID.contains(&&***field)) {
            let path: Vec<&str> = std::iter::once("spec").chain(field.split('.')).collect();
            assert!(trees.iter().any(|tree| holds(tree, &path)), "no object of this test has {kind} {field}");
        }
        // One by one: of rules for one host and the same clients, one hides the others.
        for text in objects {
            let mut store = Store::new();
            store.set_file("t.yaml", &format!("{MESH}{text}"));
            let (snapshot, refused) = store.assemble();
            let not_valid: Vec<&str> = refused
                .iter()
                .filter(|finding| finding.severity == Severity::Error && finding.code != code::NOT_SUPPORTED)
                .map(|finding| &*finding.message)
                .collect();
            if !not_valid.is_empty() {
                wrong.push(format!("{not_valid:?}"));
            }
            let compiled = compile(&snapshot, &CompileOptions::default());
            let findings =
                refused.iter().chain(&compiled.findings).filter(|finding| finding.code == code::NOT_SUPPORTED);
            for finding in findings {
                let Some((path, instead)) = finding
                    .message
                    .strip_prefix('`')
                    .and_then(|message| message.split_once("` is not supported yet: "))
                else {
                    continue;
                };
                let field = field(path);
                let feature = of(features, &field).unwrap_or_else(|| panic!("{kind} {field}: {finding}"));
                let words = words(feature);
                let said = format!("{instead} ({})", finding.severity);
                if !words.contains(&said) {
                    wrong.push(format!("{kind} {field}: told `{said}`, and the tables say `{words}`"));
                }
                told[usize::from(kind != "VirtualService")].insert((feature.path, finding.severity.to_string()));
            }
        }
    }
    for ((kind, features), told) in kinds.into_iter().zip(&told) {
        for feature in features {
            for severity in ["Error", "Warning"].into_iter().filter(|s| words(feature).contains(&format!("({s})"))) {
                let pair = (feature.path, severity.to_owned());
                if !told.contains(&pair) {
                    wrong.push(format!("{kind} {}: the tables say {severity}, and nothing is told", feature.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
