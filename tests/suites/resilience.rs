//! The agent may die: connections balanced in the kernel never notice; a proxied service falls back to the weights of
//! its rule within half a second, without the pods that the proxy had ejected, and one whose connections are to be
//! encrypted refuses; a restart is back in under a second; a polite end fails nothing.

use std::io::{ErrorKind, Read};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weir_tests::canary::{HTTP_PORT, TCP_PORT, subsets};
use weir_tests::load::Attempt;
use weir_tests::manifests::Service;
use weir_tests::mesh::PodSpec;
use weir_tests::require::Need;
use weir_tests::{Agent, Canary, HttpLoad, LiveLoad, Report, eventually, load, monotonic_ns, proved, require};

/// The heartbeat's timeout: how long a hung agent may still be taken for alive.
const FALLBACK_WITHIN: Duration = Duration::from_millis(500);
/// A restart adopts the pins and serves within this.
const RESTART_WITHIN: Duration = Duration::from_secs(1);
/// How long an agent stays dead or hung.
const AWAY: Duration = Duration::from_millis(1200);
/// New connections a second of the probing load, each on a thread of its own whose next turn comes a second later …
const PROBES: u64 = 200;
/// … so that one that hangs has failed before, and the others go on as evenly as they began.
const PROBE_TIMEOUT: Duration = Duration::from_millis(900);

fn scene() -> Result<(Canary, Agent)> {
    let scene = Canary::new(true)?;
    // v2 at weight 0: whatever happens, it must get nothing.
    scene.split_http(100, 0)?;
    scene.split_tcp(90, 10)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    agent.await_verdict(TCP_PORT, "balance")?;
    Ok((scene, agent))
}

fn http(scene: &Canary) -> HttpLoad {
    HttpLoad::new(scene.http.at(80)).host("service-b")
}

/// A new connection every 5 ms, whatever becomes of the others.
fn probes(scene: &Canary) -> Result<LiveLoad> {
    let mut probes =
        http(scene).fresh().connections(PROBES).pace(1).timeout(PROBE_TIMEOUT).trace().start(scene.client())?;
    // Until each thread has had its first turn.
    ticks(&mut probes, 12)?;
    Ok(probes)
}

/// The report, and its attempts beside it: they would be pages in a message.
fn untraced(load: LiveLoad) -> Result<(Report, Vec<Attempt>)> {
    let mut report = load.stop()?;
    let trace = std::mem::take(&mut report.trace);
    ensure!(trace.len() as u64 == report.answered + report.failed, "{} attempts: {report:?}", trace.len());
    Ok((report, trace))
}

/// Times in ms after `since`, for messages.
fn after(since: u64, attempts: &[Attempt]) -> Vec<(i64, i64)> {
    let ms = |at: u64| (at as i64 - since as i64) / 1_000_000;
    attempts.iter().map(|a| (ms(a.began), ms(a.ended))).collect()
}

/// Every failed attempt was begun before `until` and over after `from`: it met the agent that went away between the two.
fn failed_only_in_flight(trace: &[Attempt], from: u64, until: u64) -> Result<u64> {
    let failed: Vec<Attempt> = trace.iter().filter(|a| a.failed).copied().collect();
    let wrong: Vec<Attempt> = failed.iter().filter(|a| a.began >= until || a.ended < from).copied().collect();
    ensure!(wrong.is_empty(), "failed without having been in flight, ms after: {:?}", after(from, &wrong));
    Ok(failed.len() as u64)
}

/// The first attempt of those begun after `gone` that was answered before `back`: no proxy was there, so it took the
/// fallback slots. How long after `since` it was begun, and answered.
fn first_fallback(trace: &[Attempt], since: u64, gone: u64, back: u64) -> Result<(Duration, Duration)> {
    let mut answered = trace.iter().filter(|a| !a.failed && a.began >= gone && a.ended <= back);
    let first = answered.by_ref().min_by_key(|a| a.ended).context("no connection took the fallback slots")?;
    Ok((Duration::from_nanos(first.began - since), Duration::from_nanos(first.ended - since)))
}

/// Waits until the proxy has accepted a connection of those that are tried all the time.
fn proxied_again(agent: &Agent, accepted: f64) -> Result<()> {
    eventually("the proxy has connections again", Duration::from_secs(5), || {
        Ok((agent.accepted()? > accepted).then_some(()))
    })?;
    Ok(())
}

/// New connections while no proxy is alive: none fails, both pods of v1 get some, v2 gets none.
fn falls_back(scene: &Canary) -> Result<()> {
    let started = Instant::now();
    let fallen = http(scene).requests(200).fresh().run(scene.client())?;
    ensure!(fallen.failed == 0 && fallen.version("v1") == 200, "without a proxy: {fallen:?}");
    ensure!(fallen.by_pod.len() == 2, "both pods of v1: {fallen:?}");
    ensure!(started.elapsed() < Duration::from_secs(2), "200 connections took {:?}", started.elapsed());
    Ok(())
}

fn no_v2(report: &Report) -> Result<()> {
    ensure!(report.version("v2") == 0, "the version at weight 0 got {}: {report:?}", report.version("v2"));
    Ok(())
}

fn ticks(load: &mut LiveLoad, count: u32) -> Result<()> {
    (0..count).try_for_each(|_| load.tick().map(drop))
}

#[test]
fn a_killed_agent_is_not_missed() -> Result<()> {
    if !require("a_killed_agent_is_not_missed", &[Need::Agent]) {
        return Ok(());
    }
    let (scene, mut agent) = scene()?;
    let mut kept = http(&scene).connections(4).pace(100).trace().start(scene.client())?;
    let mut tcp = load::tcp_live(scene.client(), scene.tcp.at(9000), 1)?;
    ticks(&mut kept, 3)?;
    ticks(&mut tcp, 3)?;
    let probes = probes(&scene)?;

    let killed = monotonic_ns();
    agent.process().kill();
    // Its listeners went before it could be reaped: what begins from here on meets nobody.
    let dead = monotonic_ns();
    std::thread::sleep(AWAY);
    falls_back(&scene)?;

    let spawned = monotonic_ns();
    let restarted = Instant::now();
    let mut agent = Agent::spawn(&scene.mesh)?;
    let ready = agent.await_ready(Duration::from_secs(10))?;
    proxied_again(&agent, 0.0)?;
    let back = restarted.elapsed();
    std::thread::sleep(AWAY);

    let ((kept, kept_trace), (probed, trace), tcp) = (untraced(kept)?, untraced(probes)?, tcp.stop()?);
    ensure!(tcp.failed == 0 && tcp.answered > 0, "the kernel's connections noticed: {tcp:?}");
    no_v2(&kept)?;
    no_v2(&probed)?;
    // Four connections: at most one request was in flight on each when the process died.
    let in_flight = failed_only_in_flight(&kept_trace, killed, dead)?;
    ensure!(in_flight <= 4, "more failed than was in flight: {kept:?}");
    let fresh_in_flight = failed_only_in_flight(&trace, killed, dead)?;
    let (_, took) = first_fallback(&trace, killed, dead, spawned)?;
    ensure!(took < FALLBACK_WITHIN, "the fallback took {took:?}");
    ensure!(back < RESTART_WITHIN, "back after {back:?}, ready after {ready:?}");
    proved!("killed: first connection on the fallback slots answered after {took:?}; back after {back:?}");
    proved!("failed: {in_flight} of {} kept, {fresh_in_flight} of {} fresh", kept.answered, trace.len());
    Ok(())
}

#[test]
fn a_hung_agent_is_left_within_half_a_second() -> Result<()> {
    if !require("a_hung_agent_is_left_within_half_a_second", &[Need::Agent]) {
        return Ok(());
    }
    let (scene, mut agent) = scene()?;
    let mut tcp = load::tcp_live(scene.client(), scene.tcp.at(9000), 1)?;
    tcp.tick()?;
    let probes = probes(&scene)?;

    let signalled = monotonic_ns();
    agent.process().signal(libc::SIGSTOP)?;
    agent.process().await_stopped(FALLBACK_WITHIN)?;
    let stopped = monotonic_ns();
    std::thread::sleep(AWAY);
    falls_back(&scene)?;
    let resumed = monotonic_ns();
    agent.process().signal(libc::SIGCONT)?;
    proxied_again(&agent, agent.accepted()?)?;
    std::thread::sleep(AWAY);

    let ((probed, trace), tcp) = (untraced(probes)?, tcp.stop()?);
    ensure!(tcp.failed == 0 && tcp.answered > 0, "the kernel's connections noticed: {tcp:?}");
    no_v2(&probed)?;
    // The promise: whatever begins half a second after the last sign of life does not wait for the hung one.
    let left = signalled + FALLBACK_WITHIN.as_nanos() as u64;
    let hung = failed_only_in_flight(&trace, signalled, left)?;
    let tried = trace.iter().filter(|a| a.began >= left && a.ended <= resumed).count();
    ensure!(tried > 50, "only {tried} connections were tried while the agent hung");
    let (began, answered) = first_fallback(&trace, signalled, stopped, resumed)?;
    proved!("hung: first connection on the fallback slots begun after {began:?}, answered after {answered:?}");
    proved!("{hung} of {} waited for the hung agent, none of the {tried} begun after half a second", trace.len());
    Ok(())
}

#[test]
fn a_polite_end_fails_nothing() -> Result<()> {
    if !require("a_polite_end_fails_nothing", &[Need::Agent]) {
        return Ok(());
    }
    let (scene, mut agent) = scene()?;
    let mut kept = http(&scene).connections(4).pace(100).start(scene.client())?;
    let slow = http(&scene).path("/sleep/700").connections(2).start(scene.client())?;
    let fresh = http(&scene).fresh().pace(100).connections(2).start(scene.client())?;
    ticks(&mut kept, 3)?;
    let took = agent.terminate()?;
    ticks(&mut kept, 5)?;
    let mut again = Agent::start(&scene.mesh)?;
    ticks(&mut kept, 5)?;
    for (what, load) in [("kept", kept), ("slow", slow), ("fresh", fresh)] {
        let report = load.stop()?;
        ensure!(report.failed == 0 && report.answered > 0, "{what} connections: {report:?}");
        no_v2(&report)?;
        proved!("{what}: {} answered, {} sent again on another connection", report.answered, report.resent);
    }
    proved!("the agent drained in {took:?}");
    again.terminate()?;
    Ok(())
}

/// Waits until one more agent's programs are in force, and says when that was seen.
fn another_in_force(agent: &Agent, before: usize) -> Result<u64> {
    let at = eventually("the successor's programs are in force", Duration::from_secs(10), || {
        Ok((in_force(agent) > before).then(monotonic_ns))
    })?;
    Ok(at.0)
}

/// How often programs were put in force. All agents of a mesh write one log.
fn in_force(agent: &Agent) -> usize {
    agent.log_text().matches("kernel programs are in place").count()
}

#[test]
fn a_successor_that_dies_is_succeeded_by_its_predecessor() -> Result<()> {
    if !require("a_successor_that_dies_is_succeeded_by_its_predecessor", &[Need::Agent]) {
        return Ok(());
    }
    for wait in [0, 100, 1000].map(Duration::from_millis) {
        let (scene, mut old) = scene()?;
        let probes = probes(&scene)?;
        let mut tcp = load::tcp_live(scene.client(), scene.tcp.at(9000), 1)?;
        tcp.tick()?;
        let before = in_force(&old);
        let mut successor = Agent::spawn(&scene.mesh)?;
        let took_over = another_in_force(&old, before)?;
        std::thread::sleep(wait);
        let killed = monotonic_ns();
        successor.process().kill();
        let dead = monotonic_ns();
        let again = another_in_force(&old, before + 1)?;
        old.await_ready(Duration::from_secs(5))?;
        old.await_enrolled("default/client", true)?;
        std::thread::sleep(AWAY);
        // It writes the maps and serves: by the proxy, and by the kernel, what is said from now on.
        proxied_again(&old, old.accepted()?)?;
        let ((probed, trace), tcp) = (untraced(probes)?, tcp.stop()?);
        scene.split_http(0, 100)?;
        scene.split_tcp(0, 100)?;
        eventually("the new weights are in force", Duration::from_secs(5), || {
            let http = http(&scene).requests(20).fresh().run(scene.client())?;
            Ok((http.failed == 0 && http.version("v2") == 20).then_some(()))
        })?;
        old.await_verdict(TCP_PORT, "balance")?;
        let balanced = old.counter(TCP_PORT, "balanced")?;
        let mut tcp_after = load::tcp_live(scene.client(), scene.tcp.at(9000), 1)?;
        tcp_after.tick()?;
        ensure!(tcp_after.stop()?.failed == 0 && old.counter(TCP_PORT, "balanced")? > balanced, "by the kernel");

        ensure!(tcp.failed == 0 && tcp.answered > 0, "the kernel's connections noticed: {tcp:?}");
        no_v2(&probed)?;
        let in_flight = failed_only_in_flight(&trace, killed, dead)?;
        let ms = |from: u64, to: u64| (to - from) / 1_000_000;
        proved!(
            "killed {} ms after it took over: taken back {} ms later; {in_flight} of {} new connections failed, all in \
             flight",
            ms(took_over, killed),
            ms(killed, again),
            trace.len()
        );
        ensure!(ms(killed, again) < 2_500, "two and a half seconds at most: {} ms", ms(killed, again));
        // The next successor takes over as if nothing had been.
        let mut next = Agent::spawn(&scene.mesh)?;
        another_in_force(&old, before + 2)?;
        old.terminate()?;
        next.await_ready(Duration::from_secs(10))?;
        proxied(&scene, &next)?;
    }
    Ok(())
}

/// New connections take the proxy of this agent, which is in charge.
fn proxied(scene: &Canary, agent: &Agent) -> Result<()> {
    let load = http(scene).requests(20).fresh();
    let (report, accepted) = agent.by_the_proxy(|| load.run(scene.client()))?;
    ensure!(report.failed == 0 && accepted > 19.0, "{accepted}, {report:?}");
    Ok(())
}

#[test]
fn an_agent_does_not_end_before_its_successor_serves() -> Result<()> {
    if !require("an_agent_does_not_end_before_its_successor_serves", &[Need::Agent]) {
        return Ok(());
    }
    let (scene, mut old) = scene()?;
    let before = in_force(&old);
    // Nobody answers there: it never knows its mesh.
    let kubeconfig = scene.mesh.manifests_dir().join("../nowhere.kubeconfig");
    std::fs::write(&kubeconfig, NOWHERE)?;
    let mut lost = Agent::spawn_on(&scene.mesh, &kubeconfig)?;
    eventually("the older one lets go of its endpoints", Duration::from_secs(10), || {
        Ok(old.log_text().contains("another agent has taken over").then_some(()))
    })?;
    old.process().signal(libc::SIGTERM)?;
    std::thread::sleep(AWAY);
    ensure!(old.process().ended()?.is_none(), "nobody else serves");
    ensure!(in_force(&old) == before, "who knows no mesh takes nothing over");
    let lines = old.access_log().lines().count();
    let report = http(&scene).requests(20).fresh().run(scene.client())?;
    ensure!(report.failed == 0 && report.version("v1") == 20, "{report:?}");
    eventually("the proxy has served them", Duration::from_secs(2), || {
        Ok((old.access_log().lines().count() >= lines + 20).then_some(()))
    })?;

    lost.process().kill();
    let mut next = Agent::spawn(&scene.mesh)?;
    next.await_ready(Duration::from_secs(10))?;
    let ended = old.process().wait(Duration::from_secs(10))?;
    ensure!(ended.success(), "{ended}\n{}", old.log_text());
    proxied(&scene, &next)
}

/// A cluster whose API server is a port where nobody listens.
const NOWHERE: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "a",
    "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}], "users": [{"name": "a", "user": {}}],
    "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:9"}}]}"#;

#[test]
fn an_ejected_pod_gets_nothing_while_the_agent_is_dead() -> Result<()> {
    if !require("an_ejected_pod_gets_nothing_while_the_agent_is_dead", &[Need::Agent]) {
        return Ok(());
    }
    let mut scene = Canary::new(true)?;
    // A third pod of v1, which has a third of the fallback slots.
    let bad = PodSpec::new("b-v1-bad").label("app", "service-b").label("version", "v1").port("", 80);
    scene.mesh.add_pod(bad)?;
    scene.mesh.serve("b-v1-bad", "--http 80 --status=500")?;
    scene.manifests.pods(&scene.mesh)?;
    scene.split_http(100, 0)?;
    let detection =
        "outlierDetection: {consecutive5xxErrors: 3, interval: 5m, baseEjectionTime: 5m, maxEjectionPercent: 50}";
    let ruled = format!("{}  trafficPolicy: {{{detection}}}\n", subsets("service-b"));
    scene.manifests.edit("canary.yaml", &subsets("service-b"), &ruled)?;
    let mut agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    let ask = |requests| http(&scene).requests(requests).fresh().run(scene.client());
    let (asked, _) = eventually("the failing pod is ejected", Duration::from_secs(5), || {
        let report = ask(60)?;
        ensure!(report.failed == 0, "{report:?}");
        Ok((report.status(500) == 0).then_some(report))
    })?;
    ensure!(asked.version("v1") == 60 && asked.by_pod.len() == 2, "{asked:?}");

    agent.process().kill();
    std::thread::sleep(AWAY);
    let fallen = ask(300)?;
    ensure!(fallen.failed == 0 && fallen.status(200) == 300, "without a proxy: {fallen:?}");
    ensure!(fallen.by_pod.len() == 2 && fallen.version("v1") == 300, "both others, and no one else: {fallen:?}");

    let mut again = Agent::start(&scene.mesh)?;
    // The kernel's counts outlive agents.
    let avoided = again.metric("weir_kernel_connects_total", "\"ejected_avoided\"")?;
    ensure!(avoided > 50.0, "the ejected pod had slots, of which {avoided} were drawn");
    proxied(&scene, &again)?;
    let after = ask(60)?;
    ensure!(after.status(200) == 60, "it stays ejected over the restart: {after:?}");
    proved!("300 connections without an agent, {avoided} of them drew the ejected pod's slots, none reached it");
    again.terminate()?;
    Ok(())
}

/// The first byte of each connection that came since this was asked last; `None` for one without any.
fn first_bytes(listener: &TcpListener) -> Result<Vec<Option<u8>>> {
    let mut bytes = Vec::new();
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(bytes),
            Err(error) => return Err(error.into()),
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(FALLBACK_WITHIN))?;
        let mut first = [0];
        bytes.push(matches!(stream.read(&mut first), Ok(1)).then_some(first[0]));
    }
}

/// What each record of a TLS handshake begins with; no request does.
const HANDSHAKE: u8 = 22;

#[test]
fn what_is_to_be_encrypted_is_refused_while_the_agent_is_dead() -> Result<()> {
    if !require("what_is_to_be_encrypted_is_refused_while_the_agent_is_dead", &[Need::Agent]) {
        return Ok(());
    }
    let mut scene = Canary::new(true)?;
    scene.mesh.add_pod(PodSpec::new("sealed").label("app", "sealed").port("", 8443))?;
    // It answers nothing: what it is told is looked at afterwards.
    let listener = scene.mesh.pod("sealed").place.netns.run(|| TcpListener::bind("[::]:8443"))??;
    listener.set_nonblocking(true)?;
    let sealed = Service::new("sealed", 9).port("http", 80, "8443").port("tcp", 9000, "8443");
    scene.manifests.pods(&scene.mesh)?;
    scene.manifests.service(&sealed)?;
    let policy = "tls: {mode: SIMPLE, insecureSkipVerify: true}, connectionPool: {tcp: {connectTimeout: 200ms}}";
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: sealed, namespace: default}}\n\
         spec: {{host: sealed, trafficPolicy: {{{policy}}}}}\n"
    );
    scene.manifests.write("sealed.yaml", &rule)?;
    let started = || -> Result<Agent> {
        let agent = Agent::start(&scene.mesh)?;
        agent.await_verdict("default/sealed:80", "proxy")?;
        agent.await_verdict("default/sealed:9000", "proxy")?;
        Ok(agent)
    };
    // The agent alone: a handshake is begun, and comes to nothing.
    let encrypts = || -> Result<()> {
        let report = HttpLoad::new(sealed.at(80)).host("sealed").requests(10).connections(10).fresh();
        let report = report.run(scene.client())?;
        ensure!(report.status(503) == 10, "{report:?}");
        let bytes = first_bytes(&listener)?;
        ensure!(bytes.len() >= 10 && bytes.iter().all(|byte| *byte == Some(HANDSHAKE)), "{bytes:?}");
        Ok(())
    };
    let refuses = |when: &str| -> Result<()> {
        for target in [sealed.at(80), sealed.at6(80), sealed.at(9000), sealed.at6(9000)] {
            let report = HttpLoad::new(target).host("sealed").requests(50).fresh().run(scene.client())?;
            let refused: u64 = report.errors.iter().filter(|(why, _)| why.contains("refused")).map(|(_, n)| n).sum();
            ensure!(report.answered == 0 && refused == 50, "{when}, {target}: {report:?}");
        }
        let bytes = first_bytes(&listener)?;
        ensure!(bytes.is_empty(), "{when}: {bytes:?}");
        Ok(())
    };
    let mut agent = started()?;
    encrypts()?;
    agent.process().kill();
    refuses("when it had just died")?;
    std::thread::sleep(AWAY);
    refuses("when it was known to be dead")?;
    let mut agent = started()?;
    let counted = agent.metric("weir_kernel_connects_total", "\"fallback_refused\"")?;
    ensure!(counted >= 200.0, "{counted} were refused for want of a fallback");
    encrypts()?;
    proved!("400 connections refused, {counted} of them by the kernel; none reached the pod");
    agent.terminate()?;
    Ok(())
}
