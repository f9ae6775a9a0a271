//! Compiling a large cluster, and then the change of one object in it as the agent has it compiled. Called by `main`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_mesh::compile::{CompileOptions, Compiled, Compiler, InForce};
use weir_mesh::crd::Object;
use weir_mesh::finding::Finding;
use weir_mesh::plan::KernelPlan;
use weir_mesh::program::Program;
use weir_mesh::snapshot::Snapshot;
use weir_mesh::store::Change;

use crate::clock::Stopwatch;
use crate::heap;
use crate::population::{self, Population};
use crate::table::{Table, mib, ms, row};

/// What is promised for 10,000 services with 50,000 endpoints.
const COMPILE_WITHIN: Duration = Duration::from_secs(2);
/// Of a compilation: program, plan, and what is needed on the way. The objects are there before it.
const HEAP_BELOW: usize = 100 << 20;
/// Of the change of one object, be it an endpoint or a rule.
const CHANGE_WITHIN: Duration = Duration::from_millis(10);

/// Compilations of everything; the median counts.
const COMPILATIONS: usize = 5;
const ENDPOINT_CHANGES: usize = 50;
const RULE_CHANGES: usize = 50;

pub(crate) fn measure(table: &mut Table, population: &Population) -> Result<()> {
    let Population { services, endpoints, virtual_services } = *population;
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
        most = most.max(heap::peak() - before);
        black_box(compiled);
    }
    times.sort();
    table.time(&format!("compiling all of it, {virtual_services} VirtualServices"), share(&times, 50), COMPILE_WITHIN);
    table.bytes("  highest heap beside the objects", most, HEAP_BELOW);
    row("  and with them", &mib(objects + most));

    let before = heap::now();
    let mut compiler = Compiler::default();
    let compiled = compiler.compile(&snapshot, &options, &Program::default(), &KernelPlan::default());
    row("  program, plan and what later changes need", &mib(heap::now() - before));
    let mut state = State { compiler, options, compiled };
    changes(table, "endpoint", ENDPOINT_CHANGES, |number| {
        let service = services * number / ENDPOINT_CHANGES;
        let object = population::object(&population.slice(service, false), "EndpointSlice", service);
        state.change(&mut snapshot, object.context("the bench's own object is refused")?)
    })?;
    if virtual_services > 0 {
        changes(table, "VirtualService", RULE_CHANGES, |number| {
            let service = virtual_services * number / RULE_CHANGES;
            let text = population::virtual_service(service, 10 + number);
            let object = population::object(&text, "VirtualService", service);
            state.change(&mut snapshot, object.context("the bench's own object is refused")?)
        })?;
    }
    Ok(())
}

/// Of times in order.
fn share(times: &[Duration], percent: usize) -> Duration {
    times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}

fn changes(
    table: &mut Table,
    what: &str,
    count: usize,
    mut change: impl FnMut(usize) -> Result<(Duration, bool)>,
) -> Result<()> {
    let (mut times, mut alone) = (Vec::new(), 0);
    for number in 0..count {
        let (took, was_alone) = change(number)?;
        alone += usize::from(was_alone);
        times.push(took);
    }
    times.sort();
    for percent in [50, 99] {
        let name = format!("change of one {what}, p{percent} ({alone} of {count} compiled alone)");
        table.time(&name, share(&times, percent), CHANGE_WITHIN);
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
    /// Brings a changed object into force. How long that took, and whether it was compiled without everything else.
    fn change(&mut self, snapshot: &mut Snapshot, object: Object) -> Result<(Duration, bool)> {
        let started = Stopwatch::start();
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
            return Ok((started.elapsed(), false));
        };
        ensure!(!delta.services.is_empty(), "no entry of the kernel is another: nothing was measured");
        self.compiled.program = delta.program;
        for (key, entry) in delta.services {
            self.compiled.plan.services.insert(key, Arc::clone(&entry));
        }
        if let Some(findings) = delta.findings {
            self.compiled.findings = findings;
        }
        Ok((started.elapsed(), true))
    }
}
