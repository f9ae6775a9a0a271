//! `weir-scale`: the agent in front of a large cluster. The API server is a process of its own with as many objects as
//! asked for; the agent runs in a cgroup and a network namespace of its own. Measures the time to ready, memory, CPU and
//! what the API server sends, then changes one endpoint at a time. Started by `cargo xtask bench scale`.

mod cost;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use weir_tests::apiserver::Population;
use weir_tests::{Agent, ApiServer, Mesh, interrupt};

use cost::{Cost, Memory};

/// A cluster of any size that fits into memory is read within this time, or something is wrong.
const READY_WITHIN: Duration = Duration::from_mins(5);
/// The agent finishes what follows a configuration (its status, what it gives back to the kernel) before it is looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// How long it is watched doing nothing.
const IDLE: Duration = Duration::from_secs(5);
/// A change that has not come through by then was lost.
const CHANGE_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at the generation: often enough for milliseconds, seldom enough not to be what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Between two changes, so that they are never taken as one.
const BREATH: Duration = Duration::from_millis(40);
/// The threads on which a change costs: those that read the watch and that bring it into force.
const AT_WORK: [&str; 2] = ["weir-watch", "weir-apply"];
const SLICES: &str = "endpointslices.discovery.k8s.io";
const RULES: &str = "virtualservices.networking.istio.io";
/// Rules change seldom, and each change takes a compilation of everything.
const RULE_CHANGES: u64 = 10;
const MIB: f64 = 1024.0 * 1024.0;

fn main() -> Result<()> {
    interrupt::install();
    let (population, changes) = arguments(std::env::args().skip(1))?;
    let mesh = Mesh::new()?;
    let api = ApiServer::builder().inside(&mesh.node().netns).spawn()?;
    api.install_istio_crds()?;
    let stored = api.populate(&population)?;
    let mut out = io::stdout();
    writeln!(
        out,
        "{} services, {} endpoints, {} pods, {} VirtualServices, {} namespaces: {:.1} MiB of JSON",
        population.services,
        population.endpoints,
        population.pods,
        population.virtual_services,
        population.namespaces,
        stored as f64 / MIB
    )?;

    api.reset_counters()?;
    let mut agent = Agent::spawn_on(&mesh, &api.kubeconfig())?;
    let ready = agent.await_ready(READY_WITHIN)?;
    let cost = Cost::of(agent.pid())?;
    row(&mut out, "ready after", &format!("{:.2} s", ready.as_secs_f64()))?;
    row(&mut out, "CPU until ready", &format!("{:.2} s", cost.total().as_secs_f64()))?;
    let counters = api.counters()?;
    row(&mut out, "bytes from the API server", &format!("{:.1} MiB", counters.bytes("", "") as f64 / MIB))?;
    let mut by_resource: Vec<(&str, u64)> =
        counters.counts.iter().filter(|c| c.bytes > 0).map(|c| (&*c.resource, c.bytes)).collect();
    by_resource.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    for (resource, bytes) in by_resource.iter().take(6) {
        row(&mut out, &format!("  {resource}"), &format!("{:.1} MiB", *bytes as f64 / MIB))?;
    }

    std::thread::sleep(SETTLE);
    memory(&mut out, "", &agent)?;
    let before = Cost::of(agent.pid())?;
    std::thread::sleep(IDLE);
    let idle = Cost::of(agent.pid())?.since(&before);
    row(
        &mut out,
        "CPU of doing nothing",
        &format!("{:.2} %", 100.0 * idle.total().as_secs_f64() / IDLE.as_secs_f64()),
    )?;

    let sent = api.counters()?.bytes("watch", "");
    let took_each = |took: &mut Vec<Duration>, spent: &Cost, what: &str, out: &mut io::Stdout| -> Result<()> {
        took.sort();
        let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0;
        let number = took.len() as f64;
        row(out, what, &took.len().to_string())?;
        row(out, "  in force after, p50", &format!("{:.1} ms", at(0.5)))?;
        row(out, "  in force after, p99", &format!("{:.1} ms", at(0.99)))?;
        for thread in AT_WORK {
            let each = spent.thread(thread).as_secs_f64() * 1000.0 / number;
            row(out, &format!("  CPU of each, {thread}"), &format!("{each:.2} ms"))?;
        }
        Ok(())
    };
    let before = Cost::of(agent.pid())?;
    let mut took = Vec::new();
    for number in 0..changes {
        interrupt::check()?;
        let service = number * population.services / changes;
        took.push(change(&api, &agent, &population, service).with_context(|| format!("endpoint change {number}"))?);
        std::thread::sleep(BREATH);
    }
    let spent = Cost::of(agent.pid())?.since(&before);
    took_each(&mut took, &spent, "endpoint changes", &mut out)?;
    let sent = (api.counters()?.bytes("watch", "") - sent) / changes;
    row(&mut out, "  bytes of each", &sent.to_string())?;
    if population.virtual_services > 0 {
        let before = Cost::of(agent.pid())?;
        let mut took = Vec::new();
        for number in 0..RULE_CHANGES {
            interrupt::check()?;
            took.push(change_rule(&api, &agent, &population, number % population.virtual_services)?);
            std::thread::sleep(BREATH);
        }
        let spent = Cost::of(agent.pid())?.since(&before);
        took_each(&mut took, &spent, "changes of a VirtualService", &mut out)?;
    }
    std::thread::sleep(SETTLE);
    memory(&mut out, " after the changes", &agent)?;
    Ok(())
}

/// Takes an endpoint of a service out or back, and waits until that is in force; how long that took.
fn change(api: &ApiServer, agent: &Agent, population: &Population, service: u64) -> Result<Duration> {
    let (namespace, name) = (population.namespace(service), format!("service-{service}-0"));
    let mut slice = api.get(SLICES, &namespace, &name)?.context("the service has a slice")?;
    let ready = &mut slice["endpoints"][0]["conditions"]["ready"];
    let before = ready.as_bool().context("the endpoint has a readiness")?;
    *ready = Value::Bool(!before);
    put(api, agent, slice, "discovery.k8s.io/v1", "EndpointSlice")
}

/// Changes the weights of a VirtualService, and waits likewise.
fn change_rule(api: &ApiServer, agent: &Agent, population: &Population, service: u64) -> Result<Duration> {
    let (namespace, name) = (population.namespace(service), format!("service-{service}"));
    let mut rule = api.get(RULES, &namespace, &name)?.context("the service has a VirtualService")?;
    let route = rule["spec"]["http"][1]["route"].as_array_mut().context("its second rule has destinations")?;
    let weights = [route[1]["weight"].clone(), route[0]["weight"].clone()];
    for (destination, weight) in route.iter_mut().zip(weights) {
        destination["weight"] = weight;
    }
    put(api, agent, rule, "networking.istio.io/v1", "VirtualService")
}

/// Stores an object, and waits until the agent says that the change is in force; how long that took.
fn put(api: &ApiServer, agent: &Agent, mut object: Value, version: &str, kind: &str) -> Result<Duration> {
    // The store holds objects without what their place says.
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    let text = object.to_string();
    let generation = agent.metric("weir_config_generation", "")?;
    let started = Instant::now();
    api.apply(&text)?;
    loop {
        if agent.metric("weir_config_generation", "")? > generation {
            return Ok(started.elapsed());
        }
        ensure!(started.elapsed() < CHANGE_WITHIN, "not in force within {CHANGE_WITHIN:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

fn memory(out: &mut impl Write, when: &str, agent: &Agent) -> Result<()> {
    let memory = Memory::of(agent.pid())?;
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    row(out, &format!("RSS{when}"), &mib(memory.rss))?;
    row(out, &format!("PSS{when}"), &mib(memory.pss))?;
    row(out, &format!("  of it anonymous{when}"), &mib(memory.anonymous))?;
    row(out, &format!("highest RSS{when}"), &mib(memory.peak))
}

fn row(out: &mut impl Write, what: &str, value: &str) -> Result<()> {
    writeln!(out, "{what:<38} {value:>12}")?;
    Ok(())
}

fn arguments(given: impl Iterator<Item = String>) -> Result<(Population, u64)> {
    let (mut population, mut changes) = (Population::LARGE, 200);
    for argument in given {
        let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
        let number = value.parse::<u64>().with_context(|| format!("{name} takes a number, not {value:?}"))?;
        match name {
            "--services" => population.services = number,
            "--endpoints" => population.endpoints = number,
            "--pods" => population.pods = number,
            "--virtual-services" => population.virtual_services = number,
            "--changes" => changes = number,
            _ => bail!(
                "unknown argument {name:?}; there are --services=N --endpoints=N --pods=N --virtual-services=N --changes=N"
            ),
        }
    }
    ensure!(changes > 0, "at least one change");
    ensure!(population.endpoints >= population.services, "every service has an endpoint");
    ensure!(population.pods >= population.endpoints, "every endpoint is a pod");
    ensure!(population.virtual_services <= population.services, "a VirtualService is for a service");
    Ok((population, changes))
}
