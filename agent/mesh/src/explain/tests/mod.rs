//! What is explained is what is decided, over generated meshes.

use std::fmt::Write as _;

mod cases;

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
