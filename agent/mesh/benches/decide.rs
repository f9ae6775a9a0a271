//! Measures the core by itself: decisions on a host with many rules, a compilation of a large mesh, and the change of one
//! VirtualService in it. Times, bytes and allocations. Started by `cargo xtask bench decide`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::hint::black_box;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use weir_mesh::compile::{CompileOptions, Compiled, Compiler, InForce, compile};
use weir_mesh::crd::{Object, decode, header, parse};
use weir_mesh::plan::KernelPlan;
use weir_mesh::program::{PortId, Program};
use weir_mesh::request::{RequestView, Source};
use weir_mesh::route::{RouteDecision, decide};
use weir_mesh::snapshot::Snapshot;
use weir_mesh::store::Change;

/// Rules on the host that decisions are made for.
const RULES: usize = 1_000;
/// Decisions of each kind.
const DECISIONS: u32 = 200_000;
/// The large mesh.
const SERVICES: usize = 10_000;
const ENDPOINTS_OF_EACH: usize = 5;
const VIRTUAL_SERVICES: usize = 5_000;
const NAMESPACES: usize = 100;
/// Changes of a VirtualService.
const CHANGES: usize = 50;
const MIB: f64 = 1024.0 * 1024.0;

/// Counts what is allocated.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system allocator's; the counters change nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promise about `layout` is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `pointer` came from `alloc` above, so from the system allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> io::Result<()> {
    let mut out = io::stdout();
    decisions(&mut out)?;
    mesh(&mut out)
}

fn objects(text: &str) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let documents = text.split("---\n").filter(|document| !document.trim().is_empty());
    documents.for_each(|document| snapshot.replace(object(document)));
    snapshot
}

fn object(text: &str) -> Object {
    let node = parse(text, 0).expect("YAML").expect("a document");
    let header = header(&node, None).expect("a header");
    decode(&node, &header, None).expect("valid").object
}

fn service(namespace: usize, number: usize) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: n{namespace}}}\nspec: {{clusterIP: 10.{}.{}.{}, selector: {{app: s{number}}}, ports: [{{name: http, port: 80}}, {{name: tcp-x, port: 81}}]}}\n",
        96 + number / 62_500,
        number / 250 % 250,
        number % 250 + 1
    )
}

fn slice(namespace: usize, number: usize) -> String {
    let mut endpoints = String::new();
    for n in 0..ENDPOINTS_OF_EACH {
        let at = number * ENDPOINTS_OF_EACH + n;
        let ip = format!("10.{}.{}.{}", at / 62_500, at / 250 % 250, at % 250 + 1);
        let _ = write!(endpoints, "{{addresses: [{ip}], targetRef: {{kind: Pod, name: s{number}-{n}}}}}, ");
    }
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s{number}-0, namespace: n{namespace}, labels: {{kubernetes.io/service-name: s{number}}}}}\naddressType: IPv4\nports: [{{name: http, port: 80}}, {{name: tcp-x, port: 81}}]\nendpoints: [{endpoints}]\n"
    )
}

fn rule(kind: &str, namespace: usize, number: usize, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: s{number}, namespace: n{namespace}}}\nspec: {spec}\n"
    )
}

/// `NAME: value`, with a unit.
fn row(out: &mut impl io::Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "{name:<58}{value:>14}")
}

/// The match of the rule of this number.
type Item = fn(usize) -> String;

/// A host with rules of one kind, and the request that the last of them takes.
fn decisions(out: &mut impl io::Write) -> io::Result<()> {
    let to = "route: [{destination: {host: s0}, weight: 9}, {destination: {host: s1}, weight: 1}]";
    let kinds: [(&str, Item, &str, Option<&str>); 5] = [
        ("uri.exact", |n| format!("{{uri: {{exact: /path/{n}}}}}"), "/path/999", None),
        ("uri.prefix", |n| format!("{{uri: {{prefix: /path/{n}/}}}}"), "/path/999/x", None),
        ("uri.prefix, the catch-all", |n| format!("{{uri: {{prefix: /path/{n}/}}}}"), "/elsewhere", None),
        (
            "uri.exact and a header",
            |n| format!("{{uri: {{exact: /path/{n}}}, headers: {{x-user: {{exact: u}}}}}}"),
            "/path/999",
            Some("u"),
        ),
        (
            "a header alone, which no index helps",
            |n| format!("{{headers: {{x-user: {{exact: u{n}}}}}}}"),
            "/",
            Some("u999"),
        ),
    ];
    for (kind, item, path, user) in kinds {
        let rules: Vec<String> = (0..RULES).map(|n| format!("{{match: [{}], {to}}}", item(n))).collect();
        let spec = format!("{{hosts: [s0], http: [{}, {{{to}}}]}}", rules.join(", "));
        let text = [service(0, 0), service(0, 1), slice(0, 0), slice(0, 1), rule("VirtualService", 0, 0, &spec)];
        let program = compile(&objects(&text.concat()), &CompileOptions::default()).program;
        let port: PortId = program.port_of(0, ([10, 96, 0, 1], 80).into()).expect("a service");
        let sent = user.map(|user| (HeaderName::from_static("x-user"), HeaderValue::from_static(user)));
        let headers: HeaderMap = sent.into_iter().collect();
        let request = RequestView {
            method: &Method::GET,
            scheme: "http",
            authority: "s0.n0.svc.cluster.local",
            path,
            query: None,
            headers: &headers,
        };
        let source = Source { namespace: "n0", view: 0 };
        let one = |roll: u64| {
            let decision = decide(black_box(&program), port, &source, black_box(&request), roll);
            assert!(matches!(black_box(decision), RouteDecision::Forward { destination: Some(_), .. }), "it is routed");
        };
        one(0);
        let (before, began) = (ALLOCATIONS.load(Relaxed), Instant::now());
        (0..DECISIONS).for_each(|n| one(u64::from(n) << 40));
        let (took, allocations) = (began.elapsed(), ALLOCATIONS.load(Relaxed) - before);
        let each = took.as_nanos() as f64 / f64::from(DECISIONS);
        row(out, &format!("decide, {RULES} rules: {kind}"), &format!("{each:.0} ns"))?;
        row(out, "  allocations of each", &format!("{:.1}", allocations as f64 / f64::from(DECISIONS)))?;
    }
    Ok(())
}

fn canary(number: usize, weight: usize) -> String {
    let spec = format!(
        "{{hosts: [s{number}], http: [{{match: [{{uri: {{prefix: /v2}}}}], route: [{{destination: {{host: s{number}, subset: v2, port: {{number: 80}}}}}}]}}, {{route: [{{destination: {{host: s{number}, subset: v1, port: {{number: 80}}}}, weight: {weight}}}, {{destination: {{host: s{number}, subset: v2, port: {{number: 80}}}}, weight: {}}}]}}]}}",
        100 - weight
    );
    rule("VirtualService", number % NAMESPACES, number, &spec)
}

fn mesh(out: &mut impl io::Write) -> io::Result<()> {
    let mut text = String::new();
    for number in 0..SERVICES {
        text.push_str(&service(number % NAMESPACES, number));
        text.push_str(&slice(number % NAMESPACES, number));
        for n in 0..ENDPOINTS_OF_EACH {
            let at = number * ENDPOINTS_OF_EACH + n;
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: s{number}-{n}, namespace: n{}, labels: {{app: s{number}, version: v{}}}}}\nspec: {{nodeName: node-{}}}\nstatus: {{phase: Running, podIPs: [{{ip: 10.{}.{}.{}}}]}}\n",
                number % NAMESPACES,
                n % 2 + 1,
                at % 500,
                at / 62_500,
                at / 250 % 250,
                at % 250 + 1
            );
        }
        if number < VIRTUAL_SERVICES {
            let subsets = "subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]";
            text.push_str(&rule(
                "DestinationRule",
                number % NAMESPACES,
                number,
                &format!("{{host: s{number}, {subsets}}}"),
            ));
            text.push_str(&canary(number, 90));
        }
    }
    let mut snapshot = objects(&text);
    drop(text);
    let mut options = CompileOptions { node: Some("node-1".into()), ..CompileOptions::default() };
    let mut compiler = Compiler::default();
    let (before, began) = (BYTES.load(Relaxed), Instant::now());
    let compiled = compiler.compile(&snapshot, &options, &Program::default(), &KernelPlan::default());
    let took = began.elapsed();
    let held = BYTES.load(Relaxed).saturating_sub(before) as f64 / MIB;
    let endpoints = SERVICES * ENDPOINTS_OF_EACH;
    let size = format!("{SERVICES} services, {endpoints} endpoints, {VIRTUAL_SERVICES} VirtualServices");
    row(out, &size, "")?;
    row(out, "  compiled in", &format!("{:.0} ms", took.as_secs_f64() * 1e3))?;
    row(out, "  program, plan and what later changes need", &format!("{held:.1} MiB"))?;
    options.views = compiled.views.clone();
    let mut took = changes(&mut snapshot, &mut compiler, compiled, &mut options);
    took.sort();
    let at = |share: usize| format!("{:.2} ms", took[(took.len() - 1) * share / 100].as_secs_f64() * 1e3);
    row(out, "  change of one VirtualService, p50", &at(50))?;
    row(out, "  change of one VirtualService, p99", &at(99))
}

/// Changes the weights of one VirtualService after another; how long each took.
fn changes(
    snapshot: &mut Snapshot,
    compiler: &mut Compiler,
    mut compiled: Compiled,
    options: &mut CompileOptions,
) -> Vec<Duration> {
    let change = |n: usize| {
        let number = n * VIRTUAL_SERVICES / CHANGES;
        let now = object(canary(number, 10 + n % 80).trim_start_matches("---\n"));
        let object = now.meta().object.clone();
        let change = Change { before: snapshot.get(&object), object };
        snapshot.replace(now);
        options.generation += 1;
        let held = InForce { program: &compiled.program, plan: &compiled.plan, findings: &compiled.findings };
        let began = Instant::now();
        let delta = compiler.update(snapshot, &[change], held, options).expect("an update is enough");
        let took = began.elapsed();
        assert!(!delta.services.is_empty(), "the fallback has other weights");
        compiled.program = delta.program;
        compiled.plan.services.extend(delta.services);
        compiled.findings = delta.findings.unwrap_or(std::mem::take(&mut compiled.findings));
        took
    };
    (0..CHANGES).map(change).collect()
}
