//! The targets whose input is a text: `compile`, `analyze` and `schema`. Each demands what must hold whatever the text
//! says. Called by [`crate::Target`].

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderValue, Method};
use weir_mesh::analysis::{self, Options, Sources, analyze, catalog};
use weir_mesh::compile::{CompileOptions, Compiled, compile};
use weir_mesh::crd::{self, Kind};
use weir_mesh::program::{PortId, Program};
use weir_mesh::request::{RequestView, Source};
use weir_mesh::route::{self, RouteDecision};
use weir_mesh::schema;
use weir_mesh::store::Store;
use weir_mesh::validate;

use crate::features::Features;

/// What the text meets: two services with their pods, one of them enrolled.
const MESH: &str = include_str!("matching/mesh.yaml");
const ENROLLED: &str = "apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.mesh/mode: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}, annotations: {weir.mesh/netns: /run/netns/client}}
status: {phase: Running, podIPs: [{ip: 10.0.0.9}, {ip: 'fd00::9'}]}
";
/// Both, read once.
static READ: LazyLock<Store> = LazyLock::new(|| {
    let mut store = Store::new();
    store.set_file("mesh.yaml", MESH);
    store.set_file("enrolled.yaml", ENROLLED);
    store
});
/// A document that nobody can read, and that does not tell what it is about.
const UNREADABLE: &str = "{";
/// 1 January 2030.
const NOW: u64 = 1_893_456_000;
/// Service ports that are asked, at most: an input may have thousands.
const MAX_PORTS: usize = 64;

/// Text → store → compile → decide.
///
/// # Panics
/// When something does not hold.
pub fn run_compile(input: &[u8], features: &mut Features) {
    let text = String::from_utf8_lossy(input);
    let mut store = READ.clone();
    store.set_file("input.yaml", &text);
    let (snapshot, findings) = store.assemble();
    let compiled = compile(&snapshot, &CompileOptions::default());
    for finding in findings.iter().chain(&compiled.findings) {
        features.finding(finding);
    }
    for entry in compiled.plan.services.values() {
        let words = entry.why.split(' ').filter(|word| word.bytes().all(|b| b.is_ascii_lowercase())).take(6);
        features.add(&(
            entry.verdict,
            words.collect::<Vec<_>>(),
            entry.slots.len().min(4),
            entry.fallback.len().min(4),
        ));
    }
    decide(&compiled.program, features);

    let options = CompileOptions { views: compiled.views.clone(), ..CompileOptions::default() };
    same(&compiled, &compile(&snapshot, &options), "compiled again");
    store.set_file("input.yaml", UNREADABLE);
    let (kept, _) = store.assemble();
    if compiled.plan.services.len() < MAX_PORTS {
        same(&compiled, &compile(&kept, &options), "the last good version of an unreadable file");
    }
}

fn same(one: &Compiled, other: &Compiled, what: &str) {
    assert!(one.plan == other.plan, "{what}: another plan\n{:#?}\n{:#?}", one.plan, other.plan);
    assert!(one.findings == other.findings, "{what}: other findings\n{:#?}\n{:#?}", one.findings, other.findings);
    assert!(one.program.clusters == other.program.clusters, "{what}: other clusters");
}

/// Asks every service port in many ways: nothing that it names may be outside of the tables.
fn decide(program: &Program, features: &mut Features) {
    let mut headers = HeaderMap::new();
    headers.append("x-user", HeaderValue::from_static("a"));
    headers.append("x-user", HeaderValue::from_bytes(b"\xff\xfe").expect("opaque bytes are allowed"));
    for (id, port) in (0..).map(PortId).zip(program.ports.iter()).take(MAX_PORTS) {
        program.cluster(port.plain);
        for (authority, path, namespace) in [
            ("a", "/", "shop"),
            ("", "/v2/a", "default"),
            (&*port.host, "/V2", "shop"),
            ("b.shop.svc.cluster.local.:80", "*", "shop"),
            ("[::1]:80", "/%2e", ""),
            ("x.example.com", "/", "shop"),
        ] {
            let request = RequestView {
                method: &Method::GET,
                scheme: "http",
                authority,
                path,
                query: Some("a=b"),
                headers: &headers,
            };
            for view in [0, 1] {
                let source = Source { namespace, view };
                match route::decide(program, id, &source, &request, u64::MAX / 2) {
                    RouteDecision::NoRoute => features.add(&"no route"),
                    RouteDecision::Redirect { .. } => features.add(&"redirect"),
                    RouteDecision::Respond { .. } => features.add(&"respond"),
                    RouteDecision::Forward { route, destination, .. } => {
                        let cluster = destination.and_then(|d| d.cluster).map(|id| program.cluster(id));
                        features.add(&(
                            route.is_some(),
                            destination.is_some(),
                            cluster.map(|c| c.endpoints4.len().min(3)),
                        ));
                    }
                }
            }
        }
        let dialled = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
        let layer4 = [
            route::decide_tcp(program, id, dialled, 7),
            route::decide_tls(program, id, "A.example.com", dialled, 7),
            route::decide_http2(program, id, 7),
        ];
        for chosen in layer4.into_iter().flatten() {
            let _within = chosen.cluster.map(|id| program.cluster(id));
        }
    }
}

/// Text → analysis.
///
/// # Panics
/// When something does not hold.
pub fn run_analyze(input: &[u8], features: &mut Features) {
    let text = String::from_utf8_lossy(input);
    let find = || {
        let mut sources = Sources::new(Options { now: NOW, ..analysis::Options::default() });
        sources.add_file("input.yaml", &text);
        analyze(&mut sources)
    };
    let findings = find();
    let lines = text.lines().count() as u32 + 1;
    for finding in &findings {
        features.finding(finding);
        assert!(catalog::all().any(|entry| entry.code == finding.code), "{} is not in the catalog", finding.code);
        let line = finding.at.as_ref().map_or(0, |at| at.line);
        assert!(line <= lines, "line {line} of {lines}: {finding}");
    }
    assert!(findings == find(), "other findings for the same text");
}

/// Text → validation of each object, as its author and as the agent has it done.
///
/// # Panics
/// When something does not hold.
pub fn run_schema(input: &[u8], features: &mut Features) {
    let text = String::from_utf8_lossy(input);
    let file: Arc<str> = "input.yaml".into();
    for finding in &validate::text(&file, &text).findings {
        features.finding(finding);
    }
    let Ok(Some(node)) = crd::parse(&text, 0) else { return };
    let Ok(header) = crd::header(&node, None) else { return };
    let findings = validate::object(&node, &header, None);
    // Of each of three sorts 200 at most, and what the rules of the kind tell.
    let bound = 3 * schema::MAX_FAULTS + text.len();
    assert!(findings.len() <= bound, "{} findings", findings.len());
    let decoded = (header.kind == Kind::Known).then(|| validate::decode(&node, &header, None));
    if !validate::has_error(&findings) {
        features.add(&("accepted", &*header.object.kind));
        assert!(!matches!(decoded, Some(Err(_))), "accepted before it is applied, and refused after: {decoded:?}");
    }
    if let Some(message) = schema::message_of(&header.api_version, &header.object.kind) {
        let once = schema::canonical(&node, message);
        let twice = schema::canonical(&once, message);
        assert_eq!(format!("{once:?}"), format!("{twice:?}"), "canonical names are canonical");
        let unknown = |faults: &[schema::Fault]| {
            faults.iter().filter(|fault| fault.problem == schema::Problem::SnakeCase).count()
        };
        assert_eq!(unknown(&schema::check(&once, message)), 0, "no snake_case is left");
    }
}
