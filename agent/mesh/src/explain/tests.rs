//! What is explained is what is decided, over generated meshes; and what users' mistakes look like.

use std::fmt::Write as _;

use super::*;
use crate::compile::{Compiled, compile};
use crate::program::{Connection, GatewayDecision, decide_gateway};
use crate::route::decide;
use crate::store::Store;

/// Requests for one mesh, and meshes: 100,000 pairs.
const REQUESTS: usize = 500;
const MESHES: u64 = 200;

/// xorshift64: the same meshes for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn some(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const PATHS: [&str; 8] = ["/", "/a", "/a/b", "/ab", "/b", "/B", "/api/v1", ""];
const VALUES: [&str; 4] = ["x", "y", "xy", ""];

fn words(random: &mut Random, of: &[&str], uri: bool) -> String {
    match random.below(if uri { 3 } else { 4 }) {
        0 => format!("{{exact: \"{}\"}}", random.one(of)),
        1 => format!("{{prefix: \"{}\"}}", random.one(&["/a", "/", "x", "/api"])),
        2 => format!("{{regex: \"{}\"}}", random.one(&["/a.*", "x|y", ".*", "/(a|b)", "[a-z]+"])),
        _ => "{}".to_owned(),
    }
}

fn item(random: &mut Random) -> String {
    let mut fields = Vec::new();
    if random.some(2) {
        fields.push(format!("uri: {}", words(random, &PATHS[..7], true)));
        if random.some(3) {
            fields.push("ignoreUriCase: true".to_owned());
        }
    }
    if random.some(4) {
        fields.push(format!("method: {{exact: {}}}", random.one(&["GET", "POST"])));
    }
    if random.some(3) {
        fields.push(format!("headers: {{x-user: {}}}", words(random, &VALUES[..3], false)));
    }
    if random.some(6) {
        fields.push(format!("withoutHeaders: {{x-other: {}}}", words(random, &VALUES[..3], false)));
    }
    if random.some(5) {
        fields.push(format!("queryParams: {{k: {}}}", words(random, &VALUES[..3], false)));
    }
    if random.some(8) {
        fields.push(format!("authority: {{prefix: {}}}", random.one(&NAMES)));
    }
    if random.some(8) {
        fields.push(format!("sourceLabels: {{app: {}}}", random.one(&NAMES)));
    }
    if random.some(10) {
        fields.push(format!("port: {}", random.one(&["80", "81"])));
    }
    format!("{{{}}}", fields.join(", "))
}

fn destination(random: &mut Random) -> String {
    let host = if random.some(12) { "nobody" } else { random.one(&NAMES) };
    let subset = ["", ", subset: v1", ", subset: v2", ", subset: v3"][random.below(4)];
    format!("{{destination: {{host: {host}{subset}, port: {{number: 80}}}}, weight: {}}}", random.below(4) * 25 + 1)
}

fn rule(random: &mut Random) -> String {
    let items: Vec<String> = (0..random.below(3)).map(|_| item(random)).collect();
    let matches = if items.is_empty() { String::new() } else { format!("match: [{}], ", items.join(", ")) };
    let action = match random.below(12) {
        0 => "redirect: {uri: /elsewhere}".to_owned(),
        1 => "directResponse: {status: 403}".to_owned(),
        _ => {
            let destinations: Vec<String> = (0..=random.below(3)).map(|_| destination(random)).collect();
            format!("route: [{}]", destinations.join(", "))
        }
    };
    let timeout = if random.some(6) { ", timeout: 3s" } else { "" };
    let fault = if random.some(8) { ", fault: {abort: {httpStatus: 500, percentage: {value: 50}}}" } else { "" };
    let fault = if action.starts_with("route") { fault } else { "" };
    let timeout = if action.starts_with("route") { timeout } else { "" };
    format!("{{{matches}{action}{timeout}{fault}}}")
}

/// Three services in a namespace, and one of them in another; rules and policies for some.
fn mesh(random: &mut Random) -> String {
    let mut text = String::from(
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {weir.mesh/mode: enabled}}\n",
    );
    let mut put = |part: String| text.push_str(&part);
    for (number, name) in NAMES.iter().enumerate() {
        let port = random.one(&["http", "http", "http", "web", "tcp", "grpc"]);
        let headless = if random.some(8) { "None".to_owned() } else { format!("10.96.0.{}", number + 1) };
        put(format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{clusterIP: \"{headless}\", selector: {{app: {name}}}, ports: [{{name: {port}, port: 80}}]}}\n"
        ));
        for pod in 0..random.below(4) {
            let version = random.one(&["v1", "v1", "v2"]);
            let ready = random.one(&["True", "True", "True", "False"]);
            put(format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}-{pod}, namespace: shop, labels: {{app: {name}, version: {version}}}}}\nspec: {{}}\nstatus: {{podIP: 10.0.{number}.{}, phase: Running, conditions: [{{type: Ready, status: \"{ready}\"}}]}}\n",
                pod + 1
            ));
        }
        if !random.some(3) {
            let policy =
                ["", "trafficPolicy: {loadBalancer: {simple: RANDOM}}, ", "trafficPolicy: {tls: {mode: SIMPLE}}, "]
                    [random.below(12).min(2).saturating_sub(usize::from(random.some(2)))];
            put(format!(
                "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{host: {name}, {policy}subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}\n"
            ));
        }
        if !random.some(4) {
            let count = if random.some(5) { 20 + random.below(30) } else { 1 + random.below(5) };
            let mut rules: Vec<String> = (0..count).map(|_| rule(random)).collect();
            if random.some(2) {
                let destination = destination(random);
                rules.push(format!("{{route: [{destination}]}}"));
            }
            let host = if random.some(10) { "'*.example.com'" } else { name };
            put(format!(
                "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{hosts: [{host}], http: [{}]}}\n",
                rules.join(", ")
            ));
        }
    }
    if random.some(6) {
        put("---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: closed, namespace: shop}\nspec: {selector: {matchLabels: {app: c}}, action: ALLOW}\n".to_owned());
    }
    text
}

fn question(random: &mut Random) -> Question {
    let host = match random.below(14) {
        0 => "a.shop",
        1 => "b.shop.svc.cluster.local",
        2 => "10.96.0.3",
        3 => "nobody",
        4 => "10.0.0.1",
        _ => random.one(&NAMES),
    };
    let query = ["", "?k=x", "?k=y&k=x", "?k", "?j=x"][random.below(5)];
    let port = if random.some(10) { ":81" } else { "" };
    let scheme = if random.some(20) { "https" } else { "http" };
    let path = PATHS[random.below(7)];
    let url = format!("{scheme}://{host}{port}{path}{query}");
    let mut headers = Vec::new();
    for name in ["x-user", "x-user", "x-other"] {
        if random.some(3) {
            headers.push(format!("{name}: {}", random.one(&VALUES)));
        }
    }
    if random.some(6) {
        headers.push(format!("host: {}", random.one(&["b", "c.shop", "x.example.com", "nobody.example"])));
    }
    let labels = if random.some(2) { "" } else { "app=a" };
    let from = From::client(&format!("shop/{labels}"), "shop").expect("labels");
    let method = random.one(&["GET", "POST"]);
    Question::new(from, method, &url, &headers, Some(random.next()), random.some(30)).expect("a request")
}

fn in_force(text: &str) -> (Snapshot, Compiled) {
    let mut store = Store::new();
    store.set_file("mesh.yaml", text);
    let (snapshot, _) = store.assemble();
    let compiled = compile(&snapshot, &CompileOptions::default());
    (snapshot, compiled)
}

/// What the decision is by itself, in the words of an explanation: the route with its place, and the destination.
fn decided(compiled: &Compiled, question: &Question, address: std::net::SocketAddr, view: u32) -> (String, String) {
    let program = &compiled.program;
    let port = program.port_of(view, address).expect("it is one of the mesh");
    let source = Source { namespace: "shop", view };
    let request = view_of(question, "http");
    let at = |route: &crate::program::Route| route.at.as_ref().map(ToString::to_string).unwrap_or_default();
    match decide(program, port, &source, &request, question.roll.expect("given")) {
        RouteDecision::NoRoute => ("404".to_owned(), String::new()),
        RouteDecision::Forward { route: None, .. } => {
            ("forward default ".to_owned(), program.cluster(program.port(port).plain).name.to_string())
        }
        RouteDecision::Forward { route: Some(route), destination, .. } => {
            let destination = destination.map(|one| one.name.to_string()).unwrap_or_default();
            (format!("forward {} {}", route.name, at(route)), destination)
        }
        RouteDecision::Redirect { route, .. } => (format!("redirect {} {}", route.name, at(route)), String::new()),
        RouteDecision::Respond { route, .. } => (format!("respond {} {}", route.name, at(route)), String::new()),
    }
}

#[test]
fn what_is_explained_is_what_is_decided() {
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for seed in 1..=MESHES {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let text = mesh(&mut random);
        let (snapshot, compiled) = in_force(&text);
        let options = CompileOptions::default();
        let mesh = Mesh::new(&snapshot, &options, &compiled.program, &compiled.plan, &compiled.views, &[]);
        let mut explainer = Explainer::new(&mesh);
        for _ in 0..REQUESTS {
            let question = question(&mut random);
            let told = explainer.explain(&question).expect("there is such a client");
            *seen.entry(told.outcome.way.clone()).or_default() += 1;
            let Some(address) = told.dialled.address.as_ref().and_then(|address| address.parse().ok()) else {
                continue;
            };
            let view = told.client.view;
            if told.hosts.is_empty() {
                continue;
            }
            let (route, destination) = decided(&compiled, &question, address, view);
            let shown = told.route.as_ref().map_or_else(
                || "404".to_owned(),
                |route| {
                    let at = route.origin.as_ref().and_then(|origin| origin.at.clone()).unwrap_or_default();
                    format!("{} {} {at}", route.action, route.name)
                },
            );
            assert_eq!(shown, route, "seed {seed}: {question:?} in {text}");
            let chosen =
                told.destinations.iter().find(|one| one.chosen).map(|one| one.name.clone()).unwrap_or_default();
            assert_eq!(chosen, destination, "seed {seed}: {question:?} in {text}");
            // The rules that were tried one by one lead to the same.
            let taken = told.rules.last().filter(|rule| rule.takes);
            let taken = taken.map(|rule| rule.origin.as_ref().and_then(|origin| origin.at.clone()));
            let expected = told.route.as_ref().map(|route| route.origin.as_ref().and_then(|origin| origin.at.clone()));
            if !told.rules.is_empty() {
                assert_eq!(taken, expected, "seed {seed}: {question:?} in {text}");
                *seen.entry(if taken.is_some() { "taken" } else { "404" }.to_owned()).or_default() += 1;
            }
            assert!(told.rules.iter().rev().skip(1).all(|rule| !rule.takes), "only the last one takes it");
            if told.outcome.way == "proxy" && told.outcome.status.is_none() {
                let (chosen, alive) = (told.destinations.iter().find(|one| one.chosen), told.outcome.answered > 0.0);
                assert_eq!(chosen.is_some_and(|one| one.dead.is_none()), alive, "seed {seed}: {question:?} in {text}");
            }
        }
        kernel_and_explanation_agree(&mut explainer, &compiled, seed, &mut seen);
    }
    for (what, least) in [
        ("proxy", 20_000),
        ("balance", 3_000),
        ("reject", 3_000),
        ("pass", 3_000),
        ("taken", 30_000),
        ("404", 1_000),
        ("slots", 50),
    ] {
        assert!(seen.get(what).is_some_and(|count| *count >= least), "{what}: {seen:?}");
    }
}

/// Of what the kernel balances, the destinations are its slots.
fn kernel_and_explanation_agree(
    explainer: &mut Explainer<'_>,
    compiled: &Compiled,
    seed: u64,
    seen: &mut std::collections::BTreeMap<String, usize>,
) {
    for (key, entry) in
        compiled.plan.services.iter().filter(|(key, entry)| key.view == 0 && entry.verdict == Verdict::Balance)
    {
        let url = format!("http://{}:{}/", key.address.expect("an address"), key.port);
        let from = From::client("shop/", "shop").expect("a namespace");
        let question = Question::new(from, "GET", &url, &[], None, false).expect("a request");
        let told = explainer.explain(&question).expect("there is such a client");
        let shown: Vec<(u32, Vec<String>)> = told
            .destinations
            .iter()
            .map(|one| {
                let ready = one.endpoints.iter().filter(|endpoint| endpoint.ready);
                (one.weight, ready.map(|endpoint| endpoint.address.clone()).collect())
            })
            .collect();
        let slots: Vec<(u32, Vec<String>)> = entry
            .slots
            .iter()
            .map(|group| (group.weight, group.endpoints.iter().map(ToString::to_string).collect()))
            .collect();
        assert_eq!(shown, slots, "seed {seed}: {key:?}");
        *seen.entry("slots".to_owned()).or_default() += 1;
    }
}

#[test]
fn gateways_are_explained_as_they_are_decided() {
    let mut routed = 0;
    for seed in 1..=20_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut text = mesh(&mut random);
        let rules: Vec<String> = (0..=random.below(20)).map(|_| rule(&mut random)).collect();
        write!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: public, namespace: shop}}\nspec: {{selector: {{istio: ingressgateway}}, servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['*.example.com']}}]}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: outside, namespace: shop}}\nspec: {{hosts: [x.example.com], gateways: [public], http: [{}]}}\n",
            rules.join(", ")
        )
        .expect("a string takes everything");
        let (snapshot, compiled) = in_force(&text);
        let options = CompileOptions::default();
        let mesh = Mesh::new(&snapshot, &options, &compiled.program, &compiled.plan, &compiled.views, &[]);
        let mut explainer = Explainer::new(&mesh);
        for _ in 0..100 {
            let from = From::gateway("shop/public", "shop", None).expect("a name");
            let inside = question(&mut random);
            let url = format!("http://x.example.com{}", inside.path);
            let mut asked =
                Question::new(from, inside.method.as_str(), &url, &[], inside.roll, false).expect("a request");
            for name in ["x-user", "x-other"] {
                for value in inside.headers.get_all(name) {
                    asked.headers.append(name, value.clone());
                }
            }
            let told = explainer.explain(&asked).expect("there is such a gateway");
            let listener = compiled.program.listener(None, 80).expect("it is bound");
            let request = view_of(&asked, "http");
            let decision = decide_gateway(
                &compiled.program,
                listener,
                Connection::default(),
                Some(&request),
                asked.roll.expect("given"),
            );
            let GatewayDecision::Routed(_, decision) = decision else { panic!("{decision:?} in {text}") };
            let expected = match decision {
                RouteDecision::NoRoute => None,
                RouteDecision::Forward { route, .. } => route.and_then(|route| route.at.as_ref()),
                RouteDecision::Redirect { route, .. } | RouteDecision::Respond { route, .. } => route.at.as_ref(),
            };
            let shown = told.route.as_ref().and_then(|route| route.origin.as_ref()?.at.clone());
            assert_eq!(shown, expected.map(ToString::to_string), "seed {seed}: {asked:?} in {text}");
            routed += usize::from(shown.is_some());
        }
    }
    assert!(routed > 1_000, "{routed}");
}

/// The canary of many a text: the pods of version 1 have no label that says so.
const CANARY: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.mesh/mode: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {replicas: 2, template: {metadata: {labels: {app: web}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v2, namespace: shop}
spec: {template: {metadata: {labels: {app: web, version: v2}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /beta}, headers: {x-user: {exact: jason}}}]
    route: [{destination: {host: web, subset: v3}}]
  - timeout: 3s
    route: [{destination: {host: web, subset: v1}, weight: 90}, {destination: {host: web, subset: v2}, weight: 10}]
";

fn asked(text: &str, from: &str, url: &str, headers: &[&str]) -> Explanation {
    let mut store = Store::new();
    store.set_file("mesh.yaml", text);
    let (mut snapshot, _) = store.assemble();
    let assumptions = assume::cluster(&mut snapshot);
    let from = From::client(from, "shop").expect("a client");
    if let From::Labels { namespace, labels } = &from {
        assume::client(&mut snapshot, namespace, labels);
    }
    let options = CompileOptions::default();
    let compiled = compile(&snapshot, &options);
    let findings = &compiled.findings;
    let mut mesh = Mesh::new(&snapshot, &options, &compiled.program, &compiled.plan, &compiled.views, findings);
    mesh.assumptions = assumptions;
    let headers: Vec<String> = headers.iter().map(|&header| header.to_owned()).collect();
    let question = Question::new(from, "GET", url, &headers, None, false).expect("a request");
    Explainer::new(&mesh).explain(&question).expect("there is such a client")
}

#[test]
fn an_empty_subset_says_which_label_is_missing() {
    let told = asked(CANARY, "web", "http://web/", &[]);
    assert_eq!(told.client.name, "pod shop/web-assumed-1");
    assert_eq!((&*told.outcome.way, told.outcome.answered), ("proxy", 10.0), "{:?}", told.outcome);
    let [v1, v2] = &*told.destinations else { panic!("two destinations") };
    let dead = v1.dead.as_ref().expect("nobody is behind it");
    assert_eq!((dead.status, dead.flag.as_deref()), (Some(503), Some("UH")));
    assert_eq!(dead.why, "no ready endpoint of web.shop.svc.cluster.local has the label version=v1");
    let subset = v1.subset.as_ref().expect("it is one");
    assert_eq!(subset.origin.as_ref().and_then(|origin| origin.at.as_deref()), Some("mesh.yaml:27:5"));
    let lacking: Vec<(&str, Option<&str>)> =
        subset.lacking.iter().map(|one| (&*one.pod, one.labels["version"].as_deref())).collect();
    let wanted = [("shop/web-assumed-1", None), ("shop/web-assumed-2", None), ("shop/web-v2-assumed-1", Some("v2"))];
    assert_eq!(lacking, wanted);
    assert!(v2.dead.is_none() && v2.endpoints.len() == 1 && (v2.share - 10.0).abs() < 0.001);
    assert_eq!(told.assumptions.len(), 2);
    assert!(told.findings.iter().any(|finding| finding.contains("IST0173")), "{:?}", told.findings);
}

#[test]
fn a_rule_says_of_each_condition_what_it_found() {
    let told = asked(CANARY, "web", "http://web/beta/x?y", &["x-user: ann"]);
    let conditions: Vec<(&str, &str, Option<&str>, bool)> = told.rules[0].items[0]
        .conditions
        .iter()
        .map(|one| (&*one.on, &*one.wanted, one.found.as_deref(), one.fits))
        .collect();
    let wanted =
        [("path", "prefix /beta", Some("/beta/x"), true), ("header x-user", "exact jason", Some("ann"), false)];
    assert_eq!(conditions, wanted);
    assert_eq!(told.rules.iter().map(|rule| rule.takes).collect::<Vec<_>>(), [false, true]);
    let settings = &told.route.as_ref().expect("there is one").settings;
    let timeout = settings.iter().find(|setting| setting.field == "timeout").expect("it is given");
    assert_eq!(timeout.value, "3s");
    assert_eq!(timeout.instead.is_some(), told.not_enforced.iter().any(|one| one.field == "timeout"));
    let retries = settings.iter().find(|setting| setting.field == "retries").expect("there are some always");
    assert_eq!(retries.value, "2 on reset-before-request,connect-failure,refused-stream");
    assert_eq!(retries.origin, None, "nobody wrote it");
}

#[test]
fn a_rewrite_says_what_becomes_of_the_path() {
    let rewritten = |path: &str| {
        let text = CANARY.replace("  - timeout: 3s\n", "  - match: [{uri: {prefix: /v2}}]\n    rewrite: {uri: /}\n");
        let told = asked(&text, "web", &format!("http://web{path}"), &[]);
        told.route.and_then(|route| route.rewritten)
    };
    assert_eq!(rewritten("/v2/x").as_deref(), Some("//x"));
    assert_eq!(rewritten("/v2foo?q").as_deref(), Some("/foo"));
    assert_eq!(rewritten("/other"), None, "no rule takes it");
}

#[test]
fn a_subset_that_nobody_defines_is_503_nc() {
    let told = asked(CANARY, "web", "http://web/beta", &["x-user: jason"]);
    assert_eq!(
        (told.outcome.answered, told.outcome.status, told.outcome.flag.as_deref()),
        (0.0, Some(503), Some("NC"))
    );
    let dead = told.destinations[0].dead.as_ref().expect("nobody is behind it");
    assert_eq!(dead.why, "no DestinationRule defines subset v3 of web.shop.svc.cluster.local");
}

#[test]
fn who_does_not_take_part_passes_as_without_weir() {
    let told = asked(&CANARY.replace("enabled", "disabled"), "web", "http://web", &[]);
    assert!(!told.client.takes_part);
    assert_eq!((&*told.outcome.way, told.outcome.answered), ("pass", 100.0));
}

#[test]
fn names_are_resolved_as_in_a_pod() {
    let address = |from: &str, host: &str| asked(CANARY, from, &format!("http://{host}"), &[]).dialled.address;
    let web = Some("240.0.0.1:80".to_owned());
    for host in ["web", "WEB", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "web.shop.svc.cluster.local."]
    {
        assert_eq!(address("shop/", host), web, "{host}");
    }
    assert_eq!(address("other/", "web"), None);
    assert_eq!(address("other/", "web.shop"), web);
    assert_eq!(address("shop/", "web."), None, "nothing is added to a name that ends");
    let told = asked(CANARY, "shop/", "http://web:81", &[]);
    assert_eq!((&*told.outcome.way, told.outcome.answered), ("pass", 0.0), "{}", told.outcome.summary);
    let told = asked(CANARY, "shop/", "http://example.com", &[]);
    assert_eq!((&*told.outcome.way, told.outcome.answered), ("pass", 100.0), "{}", told.outcome.summary);
}

#[test]
fn what_protects_is_told_and_refuses() {
    let policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: closed, namespace: shop}\nspec: {selector: {matchLabels: {app: web}}}\n";
    let told = asked(&format!("{CANARY}{policy}"), "shop/", "http://web", &[]);
    assert_eq!((&*told.outcome.way, told.outcome.answered, told.policy.allowed), ("reject", 0.0, false));
    assert_eq!(told.policy.origin.expect("somebody did").object, "AuthorizationPolicy shop/closed");
}

#[test]
fn rules_for_others_say_for_whom() {
    let vs = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: outside, namespace: shop}\nspec: {hosts: [web], gateways: [public], http: [{route: [{destination: {host: web}}]}]}\n";
    let only = CANARY.replace("match: [{uri", "match: [{sourceLabels: {app: other}}, {uri");
    let told = asked(&format!("{only}{vs}"), "shop/app=web", "http://web", &[]);
    let why: Vec<&str> = told.left_out.iter().map(|one| &*one.why).collect();
    let wanted =
        ["`sourceLabels`: it is for clients with app=other", "it is for public alone, and not for clients in the mesh"];
    assert_eq!(why, wanted);
    let told = asked(&only, "shop/app=other", "http://web", &[]);
    assert!(told.left_out.is_empty() && told.destinations[0].name.contains("|v3|"), "{told:?}");
}
