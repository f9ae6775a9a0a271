//! The agent may die: connections balanced in the kernel never notice; a proxied service falls back to the weights of
//! its rule within half a second; a restart is back in under a second; a polite end fails nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weir_tests::canary::{HTTP_PORT, TCP_PORT};
use weir_tests::require::Need;
use weir_tests::{Agent, Canary, HttpLoad, LiveLoad, Report, eventually, load, require};

/// The heartbeat's timeout: how long a hung agent may still be taken for alive.
const FALLBACK_WITHIN: Duration = Duration::from_millis(500);
/// And what the harness itself needs to see it on two busy cores.
const SLACK: Duration = Duration::from_millis(250);
/// A restart adopts the pins and serves within this.
const RESTART_WITHIN: Duration = Duration::from_secs(1);

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

/// Waits until a new connection is answered, and gives the time since `since`.
fn answered_again(scene: &Canary, since: Instant) -> Result<Duration> {
    eventually("a new connection is answered", Duration::from_secs(5), || {
        Ok((http(scene).fresh().run(scene.client())?.answered == 1).then_some(()))
    })?;
    Ok(since.elapsed())
}

/// Waits until a new connection goes through the proxy, not past it.
fn proxied_again(scene: &Canary, agent: &Agent) -> Result<()> {
    let accepted = agent.accepted()?;
    eventually("the proxy has connections again", Duration::from_secs(5), || {
        http(scene).fresh().run(scene.client())?;
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
    let mut kept = http(&scene).connections(4).pace(100).start(scene.client())?;
    let mut tcp = load::tcp_live(scene.client(), scene.tcp.at(9000), 1)?;
    ticks(&mut kept, 3)?;
    ticks(&mut tcp, 3)?;

    agent.process().kill();
    let took = answered_again(&scene, Instant::now())?;
    ensure!(took < FALLBACK_WITHIN + SLACK, "the fallback took {took:?}");
    falls_back(&scene)?;

    let restarted = Instant::now();
    let mut agent = Agent::spawn(&scene.mesh)?;
    let ready = agent.await_ready(Duration::from_secs(10))?;
    proxied_again(&scene, &agent)?;
    let back = restarted.elapsed();
    ensure!(back < RESTART_WITHIN + SLACK, "back after {back:?}, ready after {ready:?}");

    let (kept, tcp) = (kept.stop()?, tcp.stop()?);
    ensure!(tcp.failed == 0 && tcp.answered > 0, "the kernel's connections noticed: {tcp:?}");
    no_v2(&kept)?;
    // Four connections: at most one request was in flight on each when the process died.
    ensure!(kept.failed <= 4, "more failed than was in flight: {kept:?}");
    println!("killed: fallback after {took:?}, back after {back:?}, {} of {} failed", kept.failed, kept.answered);
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
    agent.process().signal(libc::SIGSTOP)?;
    std::thread::sleep(FALLBACK_WITHIN);
    falls_back(&scene)?;
    agent.process().signal(libc::SIGCONT)?;
    proxied_again(&scene, &agent)?;
    let tcp = tcp.stop()?;
    ensure!(tcp.failed == 0 && tcp.answered > 0, "the kernel's connections noticed: {tcp:?}");
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
        println!("{what}: {} answered, {} sent again on another connection", report.answered, report.resent);
    }
    println!("the agent drained in {took:?}");
    again.terminate()?;
    Ok(())
}
