//! The agent on an API server, with real traffic: a change is in force in a moment, an API server that is away fails no
//! request, and nothing is taken away by an agent that has not read everything yet.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::apiserver::Fault;
use weir_tests::canary::{BACKENDS, HTTP_PORT, TCP_PORT, http_split, subsets, virtual_service};
use weir_tests::process::{Place, Process};
use weir_tests::require::Need;
use weir_tests::{
    Agent, ApiServer, Canary, HttpLoad, Pod, PodSpec, eventually, length, load, monotonic_ns, proved, require,
};

/// From the API server's acceptance to the last request that goes by the old rule, on a small cluster.
const IN_FORCE: Duration = Duration::from_millis(50);
/// With a hundred changes a second.
const IN_FORCE_BUSY: Duration = Duration::from_millis(500);
/// Generous for a machine of two busy cores.
const SOON: Duration = Duration::from_secs(15);
/// How long the API server is away: longer than a watch lasts, and than any token or connection is kept.
fn away() -> Duration {
    length(Duration::from_secs(8), Duration::from_mins(10))
}

/// The canary in an API server, and a pod that calls it, known by its UID alone.
struct Scene {
    // Ends before the namespaces go.
    api: ApiServer,
    sandbox: Process,
    canary: Canary,
}

impl Scene {
    fn new(v1: u32, v2: u32) -> Result<Self> {
        let mut canary = Canary::new(false)?;
        canary.mesh.relay(canary.http.at(80), &BACKENDS.map(|(pod, _)| canary.mesh.pod(pod).at(80)))?;
        let uid = "0b6f7a5e-6c1c-4a33-9a39-0242ac120002";
        canary.mesh.add_pod(PodSpec::new("caller").label("weir.mesh/mode", "enabled").uid(uid))?;
        canary.manifests.pods(&canary.mesh)?;
        canary.split_http(v1, v2)?;
        canary.split_tcp(v1, v2)?;
        let api = ApiServer::builder().inside(&canary.mesh.node().netns).start()?;
        api.install_istio_crds()?;
        api.apply_directory(canary.manifests.directory())?;
        let caller = canary.mesh.pod("caller");
        let mut command = Command::new("sleep");
        command.arg("3600");
        let place = Place { outlives: true, ..caller.sandbox(&caller.place.netns)? };
        let log = canary.mesh.log("pause");
        let mut sandbox = canary.mesh.node().netns.run(|| Process::spawn(&place, command, &log))??;
        sandbox.end_with_us();
        Ok(Self { api, sandbox, canary })
    }

    fn spawn(&self) -> Result<Agent> {
        Agent::spawn_on(&self.canary.mesh, &self.api.kubeconfig())
    }

    fn start(&self) -> Result<Agent> {
        let mut agent = self.spawn()?;
        agent.await_ready(SOON)?;
        agent.await_verdict(HTTP_PORT, "proxy")?;
        agent.await_verdict(TCP_PORT, "balance")?;
        agent.await_enrolled("default/caller", true)?;
        Ok(agent)
    }

    fn caller(&self) -> &Pod {
        self.canary.mesh.pod("caller")
    }

    fn split(&self, v1: u32, v2: u32) -> Result<u64> {
        self.api.apply(&format!("{}---\n{}", subsets("service-b"), http_split(v1, v2)))
    }

    fn http(&self) -> HttpLoad {
        HttpLoad::new(self.canary.http.at(80)).host("service-b")
    }
}

fn source(agent: &Agent) -> Result<Value> {
    Ok(agent.status()?["source"].clone())
}

#[test]
fn a_change_is_in_force_in_a_moment() -> Result<()> {
    if !require("a_change_is_in_force_in_a_moment", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Scene::new(100, 0)?;
    let mut agent = scene.start()?;
    let mut took = Vec::new();
    for round in 0..10 {
        let (old, new) = if round % 2 == 0 { ("v1", (0, 100)) } else { ("v2", (100, 0)) };
        let mut load = scene.http().connections(4).pace(250).start(scene.caller())?;
        load.until(SOON, |report| report.version(old) > 0)?;
        let changed = monotonic_ns();
        scene.split(new.0, new.1)?;
        load.until(SOON, |report| report.by_version.len() == 2)?;
        // Long enough to see who still goes by the old rule: four times what is allowed.
        std::thread::sleep(Duration::from_millis(200));
        let report = load.stop()?;
        ensure!(report.failed == 0 && report.by_version.len() == 2, "{report:?}");
        took.push(Duration::from_nanos(report.last_start[old].saturating_sub(changed)));
    }
    took.sort_unstable();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    proved!(
        "from the API server's acceptance to the last request by the old rule: p50 {median:?}, slowest {slowest:?}"
    );
    ensure!(median < IN_FORCE, "{took:?}");
    agent.terminate()?;
    Ok(())
}

#[test]
fn a_hundred_changes_a_second_end_with_the_last_in_force() -> Result<()> {
    if !require("a_hundred_changes_a_second_end_with_the_last_in_force", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Scene::new(100, 0)?;
    let mut agent = scene.start()?;
    let load = scene.http().connections(4).pace(100).start(scene.caller())?;
    let begun = Instant::now();
    let count = length(1000, 6000_u32);
    for n in 1..=count {
        std::thread::sleep((begun + n * Duration::from_millis(10)).saturating_duration_since(Instant::now()));
        // Never all to one version, but at the end.
        if n < count {
            scene.split(10 + n % 80, 90 - n % 80)?
        } else {
            scene.split(0, 100)?
        };
    }
    let last = monotonic_ns();
    let pace = begun.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    let report = load.stop()?;
    let took = Duration::from_nanos(report.last_start["v1"].saturating_sub(last));
    ensure!(report.failed == 0, "{report:?}");
    let applied = agent.status()?["generation"].as_u64().context("a generation")?;
    proved!(
        "{count} changes in {pace:?}, {applied} compilations, the last in force after {took:?}, {} requests",
        report.answered
    );
    ensure!(took < IN_FORCE_BUSY && pace < count * Duration::from_millis(14), "{took:?} {pace:?}");
    agent.terminate()?;
    Ok(())
}

#[test]
fn an_api_server_that_is_away_fails_nothing() -> Result<()> {
    if !require("an_api_server_that_is_away_fails_nothing", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Scene::new(90, 10)?;
    let mut agent = scene.start()?;
    let http = scene.http().fresh().connections(20).pace(10).start(scene.caller())?;
    let tcp = load::tcp_paced(scene.caller(), scene.canary.tcp.at(9000), 2, 50)?;
    scene.api.reset_counters()?;
    scene.api.stop()?;
    eventually("it is known to be away", SOON, || Ok(source(&agent)?["away_since"].is_u64().then_some(())))?;
    std::thread::sleep(away());
    agent.await_ready(Duration::from_secs(1)).context("it serves what it knows, and stays ready")?;
    // What changes meanwhile is there at once afterwards, without everything being listed again.
    scene.split(0, 100)?;
    scene.api.resume()?;
    let back = Instant::now();
    eventually("it is known to be back", Duration::from_secs(40), || {
        Ok(source(&agent)?["away_since"].is_null().then_some(()))
    })?;
    let back = back.elapsed();
    // The watches come back one after the other, and the last one's event is compiled a moment later.
    eventually("what changed meanwhile is in force", Duration::from_secs(3), || {
        let report = scene.http().requests(50).run(scene.caller())?;
        if report.version("v2") == 50 { Ok(Some(())) } else { anyhow::bail!("{report:?}") }
    })?;
    let (http, tcp) = (http.stop()?, tcp.stop()?);
    ensure!(http.failed == 0 && tcp.failed == 0, "{http:?} {tcp:?}");
    let counters = scene.api.counters()?;
    ensure!(counters.requests("list", "") == 0, "{:?}", counters.recent);
    ensure!(!counters.recent.iter().any(|line| line.contains("sendInitialEvents")), "{:?}", counters.recent);
    let log = agent.log_text();
    let said = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    ensure!(said("does not answer") == 1 && said("answers again") == 1, "{log}");
    proved!(
        "away for {:?}: {} requests and {} connections, none failed; back after {back:?}, by {} watches and no list",
        away(),
        http.answered,
        tcp.answered,
        counters.requests("watch", "")
    );
    agent.terminate()?;
    Ok(())
}

#[test]
fn an_agent_that_has_not_read_everything_takes_nothing_away() -> Result<()> {
    if !require("an_agent_that_has_not_read_everything_takes_nothing_away", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Scene::new(100, 0)?;
    let mut first = scene.start()?;
    let tcp = load::tcp_paced(scene.caller(), scene.canary.tcp.at(9000), 2, 50)?;
    first.process().kill();
    // Everything but the endpoints and the rules can be read.
    for resource in ["pods", "virtualservices.networking.istio.io"] {
        scene.api.faults().inject(Fault::answer(503).resource(resource))?;
    }
    let mut second = scene.spawn()?;
    eventually("what is missing is told", SOON, || {
        let problems = source(&second)?["problems"].to_string();
        Ok(problems.contains("not read yet: pods, virtualservices").then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(second.await_ready(Duration::from_millis(100)).is_err(), "it must not call itself ready");
    let report = scene.http().fresh().requests(100).run(scene.caller())?;
    ensure!(report.failed == 0 && report.version("v1") == 100, "the fallback of the former agent: {report:?}");
    scene.api.faults().clear()?;
    second.await_ready(SOON + SOON)?;
    let tcp = tcp.stop()?;
    ensure!(tcp.failed == 0 && tcp.version("v2") == 0, "{tcp:?}");
    proved!("{} connections by what the killed agent had left, none failed", tcp.answered);
    let (report, accepted) = second.by_the_proxy(|| scene.http().fresh().requests(50).run(scene.caller()))?;
    ensure!(report.failed == 0 && report.version("v1") == 50 && accepted > 49.0, "{accepted}, {report:?}");
    second.terminate()?;
    drop(scene.sandbox);
    Ok(())
}

#[test]
fn a_missing_file_is_told_when_a_changed_rule_comes_to_need_it_and_not_any_more_when_none_does() -> Result<()> {
    let name = "a_missing_file_is_told_when_a_changed_rule_comes_to_need_it_and_not_any_more_when_none_does";
    if !require(name, &[Need::Agent]) {
        return Ok(());
    }
    let scene = Scene::new(100, 0)?;
    let missing = "/etc/weir/tls/default/missing.pem";
    let encrypted = format!("trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: {missing}}}}}");
    scene.api.apply(&subsets("service-b").replace("{version: v2}", &format!("{{version: v2}}, {encrypted}")))?;
    let lead_to = |version: &str| {
        let route = format!("  http:\n  - route: [{{destination: {{host: service-b, subset: {version}}}}}]\n");
        scene.api.apply(&virtual_service("service-b", &route))
    };
    lead_to("v1")?;
    let mut agent = Agent::spawn_on_with(&scene.canary.mesh, &scene.api.kubeconfig(), |command| {
        command.env("WEIR_LOG", "info,weir=debug");
    })?;
    agent.await_ready(SOON)?;
    agent.await_enrolled("default/caller", true)?;
    let told = || Ok::<_, anyhow::Error>(agent.findings()?.iter().any(|finding| finding.contains(missing)));
    // What each way of compiling logs at its end: the short one, and the whole.
    let ways = || ["updated", "in force"].map(|word| agent.log_text().matches(&format!(" {word} generation=")).count());
    ensure!(!told()?, "nothing leads to the subset yet");
    for (version, is_told) in [("v2", true), ("v1", false), ("v2", true)] {
        // What the change before has brought about is over.
        eventually("nothing is compiled", SOON, || {
            let one = ways();
            std::thread::sleep(Duration::from_millis(300));
            Ok((ways() == one).then_some(()))
        })?;
        let before = ways();
        lead_to(version)?;
        eventually(&format!("what {version} needs is told: {is_told}"), SOON, || {
            Ok((told()? == is_told).then_some(()))
        })?;
        // The finding is there a moment before the line that says so.
        eventually("by the short way", SOON, || {
            let after = ways();
            ensure!(!is_told || after[1] == before[1], "not by the whole one: {before:?} {after:?}");
            Ok((!is_told || after[0] > before[0]).then_some(()))
        })?;
        let report = scene.http().requests(10).fresh().run(scene.caller())?;
        let status = if is_told { 503 } else { 200 };
        ensure!(report.failed == 0 && report.status(status) == 10, "{version}: {report:?}");
    }
    agent.terminate()?;
    Ok(())
}
