//! The canary: a split by weight over HTTP and over plain TCP, in both families; a change of weights under load that
//! fails no request and is in force at once; a file that breaks and harms nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::canary::{HTTP_PORT, TCP_PORT, http_split, subsets};
use weir_tests::require::Need;
use weir_tests::{Agent, Canary, HttpLoad, Process, Report, eventually, load, monotonic_ns, proved, require};

/// Requests of a measured split: at 90 % their standard deviation is 0.47 points …
const REQUESTS: u64 = 4000;
/// … so that this is 5.3 of them, and chance fails one run in some 600,000.
const TOLERANCE: f64 = 2.5;
/// At 50 % the deviation is larger: this many requests bring it down to 0.5 points.
const AT_HALF: u64 = 10_000;
/// How soon an edit must be in force.
const IN_FORCE: Duration = Duration::from_millis(100);
/// Everything here takes milliseconds; this is for a machine that is busy with something else.
const SOON: Duration = Duration::from_secs(5);

fn split_is(report: &Report, v1: f64) -> Result<()> {
    ensure!(report.failed == 0 && report.answered == REQUESTS, "{report:?}");
    ensure!((report.share("v1") - v1).abs() <= TOLERANCE, "v1 got {:.1} %: {report:?}", report.share("v1"));
    ensure!((report.share("v2") - (100.0 - v1)).abs() <= TOLERANCE, "{report:?}");
    Ok(())
}

#[test]
fn http_is_split_90_10_in_both_families() -> Result<()> {
    if !require("http_is_split_90_10_in_both_families", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    scene.split_http(90, 10)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    for target in [scene.http.at(80), scene.http.at6(80)] {
        let kept = HttpLoad::new(target).requests(REQUESTS).connections(8).run(scene.client())?;
        split_is(&kept, 90.0)?;
        ensure!(kept.by_pod.len() == 3, "every pod takes part: {kept:?}");
        let fresh = HttpLoad::new(target).requests(REQUESTS).connections(8).fresh();
        let (fresh, accepted) = agent.by_the_proxy(|| fresh.run(scene.client()))?;
        split_is(&fresh, 90.0)?;
        ensure!(accepted >= REQUESTS as f64, "{REQUESTS} connections came through the proxy, it counts {accepted}");
    }
    Ok(())
}

#[test]
fn what_the_agent_explains_is_what_requests_get() -> Result<()> {
    if !require("what_the_agent_explains_is_what_requests_get", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    scene.split_http(100, 0)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    agent.await_enrolled("default/client", true)?;
    let told = agent.explain("from=client&url=http://service-b/&header=x-user:+jo")?;
    ensure!(told["client"]["takes_part"] == true && told["outcome"]["way"] == "proxy", "{told:#}");
    ensure!(told["kernel"]["verdict"] == "proxy" && told["rules"][0]["takes"] == true, "{told:#}");
    let destinations = told["destinations"].as_array().cloned().unwrap_or_default();
    ensure!(destinations.len() == 2 && destinations[0]["share"] == 100.0, "{told:#}");
    let names = |one: &serde_json::Value| {
        let endpoints = one["endpoints"].as_array().cloned().unwrap_or_default();
        let pods = endpoints.iter().filter_map(|endpoint| endpoint["pod"].as_str()?.strip_prefix("default/"));
        pods.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let report = HttpLoad::new(scene.http.at(80)).requests(200).fresh().run(scene.client())?;
    let answered: BTreeSet<String> = report.by_pod.keys().cloned().collect();
    ensure!(report.failed == 0 && answered == names(&destinations[0]), "{report:?} but {told:#}");
    ensure!(agent.explain("from=nobody&url=http://service-b/").is_err(), "there is no such pod");
    ensure!(agent.explain("from=client&url=").is_err(), "that is no URL");
    let told = agent.explain("from=client&url=http://service-b:81/")?;
    ensure!(told["outcome"]["way"] == "pass", "no port of the mesh: {told:#}");
    Ok(())
}

#[test]
fn a_shift_under_load_fails_nothing() -> Result<()> {
    if !require("a_shift_under_load_fails_nothing", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    scene.split_http(90, 10)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    let mut live = HttpLoad::new(scene.http.at(80)).connections(4).start(scene.client())?;
    let mut before = live.tick()?;
    while before.answered < AT_HALF {
        before = live.tick()?;
    }
    scene.split_http(50, 50)?;
    // What was counted while the edit came into force belongs to neither side.
    let (_, start) = (live.tick()?, live.tick()?);
    let mut after = live.tick()?;
    while after.since(&start).answered < AT_HALF {
        after = live.tick()?;
    }
    let whole = live.stop()?;
    ensure!(whole.failed == 0 && whole.resent == 0 && whole.by_status.keys().eq(["200"]), "{whole:?}");
    ensure!((before.share("v1") - 90.0).abs() <= TOLERANCE, "before: {before:?}");
    let after = after.since(&start);
    ensure!((after.share("v1") - 50.0).abs() <= TOLERANCE, "after: {after:?}");
    Ok(())
}

#[test]
fn an_edit_is_in_force_within_100_ms() -> Result<()> {
    if !require("an_edit_is_in_force_within_100_ms", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    scene.split_http(100, 0)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    // All of one version to all of the other: the last request that the old one answered tells when the old weights were
    // last used. A pace leaves the machine idle enough that the time is weir's, not the scheduler's, which can still take
    // as long by itself: so two of three.
    let mut took = Vec::new();
    for (old, new, weights) in [("v1", "v2", (0, 100)), ("v2", "v1", (100, 0)), ("v1", "v2", (0, 100))] {
        let mut live = HttpLoad::new(scene.http.at(80)).connections(2).pace(200).start(scene.client())?;
        live.until(SOON, |report| report.version(old) > 20)?;
        scene.split_http(weights.0, weights.1)?;
        let edited = monotonic_ns();
        live.until(SOON, |report| report.version(new) > 20)?;
        // Long enough to see who still goes by the old weights, or goes back to them.
        std::thread::sleep(3 * IN_FORCE);
        let report = live.stop()?;
        ensure!(report.failed == 0, "{report:?}");
        let since_edit = |table: &BTreeMap<String, u64>, version: &str| {
            Duration::from_nanos(table.get(version).copied().unwrap_or(u64::MAX).saturating_sub(edited))
        };
        took.push(since_edit(&report.first_answer, new).max(since_edit(&report.last_start, old)));
    }
    took.sort_unstable();
    ensure!(took[1] < IN_FORCE && took[2] < 10 * IN_FORCE, "{took:?}");
    proved!("from an edit to the first answer of the new version and the last request of the old: {took:?}");
    Ok(())
}

#[test]
fn tcp_is_split_in_the_kernel_without_a_proxy_hop() -> Result<()> {
    if !require("tcp_is_split_in_the_kernel_without_a_proxy_hop", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    scene.split_tcp(90, 10)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(TCP_PORT, "balance")?;
    for target in [scene.tcp.at(9000), scene.tcp.at6(9000)] {
        let (accepted, balanced) = (agent.accepted()?, agent.counter(TCP_PORT, "balanced")?);
        let report = load::tcp(scene.client(), target, REQUESTS, 8)?;
        split_is(&report, 90.0)?;
        ensure!((agent.accepted()? - accepted).abs() < 0.5, "the proxy accepted a connection");
        let now = agent.counter(TCP_PORT, "balanced")?;
        ensure!(now - balanced == REQUESTS, "the kernel counts {} balanced connections", now - balanced);
    }
    Ok(())
}

#[test]
fn a_balanced_connection_costs_the_agent_no_system_call() -> Result<()> {
    let name = "a_balanced_connection_costs_the_agent_no_system_call";
    if !require(name, &[Need::Agent, Need::Program("strace")]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    scene.split_http(100, 0)?;
    scene.split_tcp(90, 10)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(TCP_PORT, "balance")?;
    let (trace, log) = (scene.mesh.log("strace"), scene.mesh.log("strace-says"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=accept4,accept,connect,socket,sendto,recvfrom,splice,setns", "-o"]).arg(&trace);
    strace.args(["-p", &agent.pid().to_string()]);
    let mut strace = Process::spawn(scene.mesh.node(), strace, &log)?;
    let text = |file: &Path| std::fs::read_to_string(file).unwrap_or_default();
    eventually("strace is attached", Duration::from_secs(5), || Ok(text(&log).contains("attached").then_some(())))?;
    let calls = || text(&trace).lines().filter(|l| l.contains('(')).count();
    let report = load::tcp(scene.client(), scene.tcp.at(9000), 500, 4)?;
    ensure!(report.failed == 0 && report.answered == 500, "{report:?}");
    ensure!(calls() == 0, "{} calls for 500 balanced connections:\n{}", calls(), text(&trace));
    // The same eyes do see a proxied one.
    HttpLoad::new(scene.http.at(80)).fresh().run(scene.client())?;
    eventually("strace sees a proxied connection", Duration::from_secs(5), || Ok((calls() > 0).then_some(())))?;
    strace.signal(libc::SIGINT)?;
    strace.wait(Duration::from_secs(5))?;
    Ok(())
}

/// The findings that are no mere advice: that belongs to the rules when they are whole, too.
fn faults(agent: &Agent) -> Result<Vec<String>> {
    Ok(agent.findings()?.into_iter().filter(|f| !f.starts_with("Info ")).collect())
}

#[test]
fn a_broken_file_is_named_with_its_line_and_changes_nothing_else() -> Result<()> {
    if !require("a_broken_file_is_named_with_its_line_and_changes_nothing_else", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    scene.split_http(90, 10)?;
    scene.split_tcp(100, 0)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    let reported = |part: &str| {
        eventually(&format!("{part} is in the findings"), Duration::from_secs(5), || {
            let findings = faults(&agent)?;
            if findings.iter().any(|f| f.contains(part)) { Ok(Some(())) } else { anyhow::bail!("{findings:?}") }
        })
    };
    // Line 7 hangs a mapping under a scalar.
    let broken = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: broken\nspec:\n  \
                  host: service-a\n    outlierDetection:\n      consecutive5xxErrors: 7\n";
    scene.manifests.write("broken.yaml", broken)?;
    reported("/broken.yaml:7")?;
    split_is(&HttpLoad::new(scene.http.at(80)).requests(REQUESTS).connections(4).run(scene.client())?, 90.0)?;

    // The file of the rules itself breaks: its last good version stays in force.
    scene
        .manifests
        .write("canary.yaml", &format!("{}---\n{}\n\tnot yaml", subsets("service-b"), http_split(0, 100)))?;
    reported("/canary.yaml:")?;
    split_is(&HttpLoad::new(scene.http.at(80)).requests(REQUESTS).connections(4).run(scene.client())?, 90.0)?;
    let tcp = load::tcp(scene.client(), scene.tcp.at(9000), 200, 4)?;
    ensure!(tcp.version("v1") == 200, "{tcp:?}");

    scene.split_http(0, 100)?;
    scene.manifests.remove("broken.yaml")?;
    eventually("mended files leave no finding", Duration::from_secs(5), || {
        let broken = |f: &String| f.contains("/broken.yaml") || f.contains("/canary.yaml:");
        let left: Vec<String> = faults(&agent)?.into_iter().filter(broken).collect();
        if left.is_empty() { Ok(Some(())) } else { anyhow::bail!("{left:?}") }
    })?;
    eventually("the mended rules are in force", Duration::from_secs(5), || {
        let report = HttpLoad::new(scene.http.at(80)).requests(100).connections(4).run(scene.client())?;
        Ok((report.version("v2") == 100).then_some(()))
    })?;
    Ok(())
}
