//! `weir-bench-core`: CPU time and memory of the pure core alone, on one thread: compiling a large cluster, the change of one
//! object in it, and deciding among many routes. With `--check` it fails where a figure is worse than what is promised.
//! Started by `cargo xtask bench core`.

mod clock;
mod heap;
mod population;

use std::hint::black_box;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::{HeaderMap, HeaderValue, Method};
use weir_mesh::compile::{CompileOptions, Compiled, Compiler, InForce, compile};
use weir_mesh::crd::Object;
use weir_mesh::finding::Finding;
use weir_mesh::plan::KernelPlan;
use weir_mesh::program::{PortId, Program};
use weir_mesh::request::{RequestView, Source};
use weir_mesh::route::{RouteDecision, decide};
use weir_mesh::snapshot::Snapshot;
use weir_mesh::store::{Change, Store};

use clock::Stopwatch;
use population::Population;

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

/// What is promised for 10,000 services with 50,000 endpoints, and for 1,000 routes on a host.
const COMPILE_WITHIN: Duration = Duration::from_secs(2);
/// Of a compilation: program, plan, and what is needed on the way. The objects are there before it.
const HEAP_BELOW: usize = 100 << 20;
const RULE_WITHIN: Duration = Duration::from_millis(10);
const ENDPOINT_WITHIN: Duration = Duration::from_millis(10);
const DECIDE_WITHIN: Duration = Duration::from_micros(1);

/// Compilations of everything; the median counts.
const COMPILATIONS: usize = 5;
const ENDPOINT_CHANGES: usize = 40;
const RULE_CHANGES: usize = 10;
/// Decisions of each sort: long enough that the clock does not count.
const DECISIONS: u32 = 20_000;
const MIB: f64 = (1 << 20) as f64;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _closed = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The table, and whether every figure is as promised.
struct Table {
    check: bool,
    broken: Vec<String>,
}

impl Table {
    fn bound<T: PartialOrd + Copy>(&mut self, what: &str, value: T, bound: T, show: impl Fn(T) -> String) {
        let kept = value < bound;
        let _closed = writeln!(
            io::stdout(),
            "{what:<56} {:>12}   {} {}",
            show(value),
            if kept { "<" } else { "NOT <" },
            show(bound)
        );
        if !kept {
            self.broken.push(what.to_owned());
        }
    }
}

/// A figure that nothing is promised of.
fn row(what: &str, value: &str) {
    let _closed = writeln!(io::stdout(), "{what:<56} {value:>12}");
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn ns(time: Duration) -> String {
    format!("{} ns", time.as_nanos())
}

fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn run() -> Result<bool> {
    let mut population = Population { services: 10_000, endpoints: 50_000, virtual_services: 5_000 };
    let mut routes = 1_000;
    let mut table = Table { check: false, broken: Vec::new() };
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
        if name == "--check" {
            table.check = true;
            continue;
        }
        let number: usize = value.parse().with_context(|| format!("{name} takes a number, not {value:?}"))?;
        match name {
            "--services" => population.services = number,
            "--endpoints" => population.endpoints = number,
            "--virtual-services" => population.virtual_services = number,
            "--routes" => routes = number,
            _ => anyhow::bail!("unknown argument {name:?}"),
        }
    }
    ensure!((1..=62_500).contains(&population.services), "1 to 62,500 services: each has an address of 10.96.0.0/16");
    ensure!(population.endpoints >= population.services, "every service has an endpoint");
    ensure!(population.virtual_services <= population.services, "a VirtualService is for a service");
    ensure!(routes > 0, "at least one route");
    deciding(&mut table, routes)?;
    compiling(&mut table, &population)?;
    if table.check && !table.broken.is_empty() {
        let _closed = writeln!(io::stderr(), "worse than promised: {}", table.broken.join("; "));
        return Ok(false);
    }
    Ok(true)
}

/// The `uri` of a match, by the number of its route.
type Uri = fn(usize) -> String;

fn deciding(table: &mut Table, routes: usize) -> Result<()> {
    let sorts: [(&str, Uri, bool); 3] = [
        ("by exact path", |n| format!("{{exact: /shop/{n:04}}}"), true),
        ("by prefix", |n| format!("{{prefix: /shop/{n:04}}}"), true),
        // Each is a program of its own, and no order among them is known: told, and not promised.
        ("by regular expression", |n| format!("{{regex: '/shop/{n:04}(/.*)?'}}"), false),
    ];
    for (sort, uri, promised) in sorts {
        let program = program_of(&population::routes(routes, uri));
        for (place, number) in [("first", 0), ("last", routes - 1), ("none", routes)] {
            let (took, allocations) = time_decisions(&program, number, number < routes)?;
            let what = format!("decide, {routes} routes {sort}, {place} one taken");
            if promised {
                table.bound(&what, took, DECIDE_WITHIN, ns);
            } else {
                row(&what, &ns(took));
            }
            table.bound(&format!("  allocations in {DECISIONS} decisions"), allocations, 1, |count| count.to_string());
        }
    }
    Ok(())
}

fn program_of(store: &Store) -> Program {
    compile(&store.snapshot(), &CompileOptions::default()).program
}

fn time_decisions(program: &Program, number: usize, found: bool) -> Result<(Duration, usize)> {
    let port = program.port_of(0, ([10, 96, 0, 1], 80).into()).context("the service has an address")?;
    let mut headers = HeaderMap::new();
    for (name, value) in [("host", "a"), ("user-agent", "bench"), ("accept", "*/*"), ("x-request-id", "1")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let path = format!("/shop/{number:04}");
    let request = RequestView {
        method: &Method::GET,
        scheme: "http",
        authority: "a.shop.svc.cluster.local:80",
        path: &path,
        query: None,
        headers: &headers,
    };
    // What is made at first use, such as the caches of regular expressions, is not a decision's.
    let forwarded = matches!(one(program, port, &request, 1), RouteDecision::Forward { route: Some(_), .. });
    ensure!(forwarded == found, "{path} is taken by another route than was meant");
    let (before, started) = (heap::count(), Stopwatch::start());
    for roll in 0..DECISIONS {
        black_box(one(program, port, &request, u64::from(roll) << 32));
    }
    Ok((started.elapsed() / DECISIONS, heap::count() - before))
}

fn one<'p>(program: &'p Program, port: PortId, request: &RequestView<'_>, roll: u64) -> RouteDecision<'p> {
    decide(black_box(program), port, &Source { namespace: "shop", view: 0 }, black_box(request), roll)
}

fn compiling(table: &mut Table, population: &Population) -> Result<()> {
    let Population { services, endpoints, virtual_services } = population;
    let empty = heap::now();
    let started = Stopwatch::start();
    let store = population.read();
    let (mut snapshot, findings) = store.assemble();
    ensure!(findings.is_empty(), "the bench's own objects are refused: {:?}", findings.first());
    drop(store);
    row(&format!("reading {services} services, {endpoints} endpoints"), &ms(started.elapsed()));
    let objects = heap::now() - empty;
    row("  objects on the heap", &mib(objects));

    let options = CompileOptions::default();
    let (mut times, mut most) = (Vec::new(), 0);
    for _ in 0..COMPILATIONS {
        heap::forget_peak();
        let before = heap::now();
        let started = Stopwatch::start();
        let compiled = Compiler::default().compile(&snapshot, &options, &Program::default(), &KernelPlan::default());
        times.push(started.elapsed());
        most = heap::peak() - before;
        black_box(compiled);
    }
    let whole = format!("compiling all of it, {virtual_services} VirtualServices");
    table.bound(&whole, median(times), COMPILE_WITHIN, ms);
    table.bound("  highest heap beside the objects", most, HEAP_BELOW, mib);
    row("  and with them", &mib(objects + most));

    let before = heap::now();
    let mut compiler = Compiler::default();
    let compiled = compiler.compile(&snapshot, &options, &Program::default(), &KernelPlan::default());
    row("  program, plan and what later changes need", &mib(heap::now() - before));
    let mut state = State { compiler, options, compiled };
    let mut change = |kind: &'static str, count: usize, of: &dyn Fn(usize) -> (usize, String)| -> Result<_> {
        let (mut times, mut alone) = (Vec::new(), 0);
        for number in 0..count {
            let (service, text) = of(number);
            let object = population::object(&text, kind, service).context("the bench's own object is refused")?;
            let started = Stopwatch::start();
            alone += usize::from(state.change(&mut snapshot, object)?);
            times.push(started.elapsed());
        }
        let how = if alone == count { "alone" } else { "with everything" };
        Ok((median(times), how))
    };
    let (took, how) = change("EndpointSlice", ENDPOINT_CHANGES, &|number| {
        let service = services * number / ENDPOINT_CHANGES;
        (service, population.slice(service, false))
    })?;
    table.bound(&format!("change of one endpoint, compiled {how}"), took, ENDPOINT_WITHIN, ms);
    if *virtual_services > 0 {
        let (took, how) = change("VirtualService", RULE_CHANGES, &|number| {
            let service = virtual_services * number / RULE_CHANGES;
            (service, population::virtual_service(service, 50))
        })?;
        table.bound(&format!("change of one VirtualService, compiled {how}"), took, RULE_WITHIN, ms);
    }
    Ok(())
}

/// What is in force, as the agent has it.
struct State {
    compiler: Compiler,
    options: CompileOptions,
    compiled: Compiled,
}

impl State {
    /// Brings a changed object into force; whether it was compiled without everything else.
    fn change(&mut self, snapshot: &mut Snapshot, object: Object) -> Result<bool> {
        let named = object.meta().object.clone();
        let before = snapshot.get(&named);
        ensure!(before.is_some(), "{named} is not there yet");
        snapshot.replace(object);
        let change = Change { object: named, before };
        self.options.generation += 1;
        self.options.views = self.compiled.views.clone();
        let findings: &[Finding] = &self.compiled.findings;
        let in_force = InForce { program: &self.compiled.program, plan: &self.compiled.plan, findings };
        let Some(delta) = self.compiler.update(snapshot, &[change], in_force, &self.options) else {
            let Compiled { program, plan, .. } = &self.compiled;
            self.compiled = self.compiler.compile(snapshot, &self.options, program, plan);
            return Ok(false);
        };
        self.compiled.program = delta.program;
        for (key, entry) in delta.services {
            self.compiled.plan.services.insert(key, Arc::clone(&entry));
        }
        if let Some(findings) = delta.findings {
            self.compiled.findings = findings;
        }
        Ok(true)
    }
}
