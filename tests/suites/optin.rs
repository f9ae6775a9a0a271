//! Opting in: who does not take part is not touched at all; labels of namespace and pod take effect at once.

use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::canary::{BACKENDS, HTTP_PORT};
use weir_tests::require::Need;
use weir_tests::{Agent, Canary, HttpLoad, PodSpec, monotonic_ns, proved, require};

/// From the renamed file to the map entry, with the poll of `/status` in between.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Gives service-b's addresses what kube-proxy gives them: a relay that spreads by pod count.
fn relays(scene: &mut Canary) -> Result<()> {
    let four = BACKENDS.map(|(pod, _)| scene.mesh.pod(pod).at(80));
    let six = BACKENDS.map(|(pod, _)| scene.mesh.pod(pod).at6(80));
    scene.mesh.relay(scene.http.at(80), &four)?;
    scene.mesh.relay(scene.http.at6(80), &six)
}

#[test]
fn a_pod_that_does_not_take_part_is_not_touched() -> Result<()> {
    if !require("a_pod_that_does_not_take_part_is_not_touched", &[Need::Agent]) {
        return Ok(());
    }
    let mut scene = Canary::new(false)?;
    relays(&mut scene)?;
    scene.mesh.add_pod(PodSpec::new("insider").label("app", "insider").label("weir.mesh/mode", "enabled"))?;
    scene.manifests.pods(&scene.mesh)?;
    scene.split_http(100, 0)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    agent.await_enrolled("default/insider", true)?;
    let mut insiders = 0.0;
    for target in [scene.http.at(80), scene.http.at6(80)] {
        let outside = HttpLoad::new(target).requests(300).connections(3).fresh().run(scene.client())?;
        ensure!(outside.failed == 0 && outside.version("v2") == 100, "by pod count: {outside:?}");
        ensure!((agent.accepted()? - insiders).abs() < 0.5, "the proxy accepted {}", agent.accepted()?);
        let load = HttpLoad::new(target).requests(300).connections(3).fresh();
        let (inside, accepted) = agent.by_the_proxy(|| load.run(scene.mesh.pod("insider")))?;
        ensure!(inside.failed == 0 && inside.version("v1") == 300, "by the rule: {inside:?}");
        ensure!((accepted - 300.0).abs() < 0.5, "the proxy accepted {accepted} connections, not the insider's 300");
        insiders = agent.accepted()?;
    }
    Ok(())
}

#[test]
fn labels_enrol_and_release_at_once() -> Result<()> {
    if !require("labels_enrol_and_release_at_once", &[Need::Agent]) {
        return Ok(());
    }
    let mut scene = Canary::new(false)?;
    relays(&mut scene)?;
    scene.split_http(100, 0)?;
    let agent = Agent::start(&scene.mesh)?;
    let split = |scene: &Canary| HttpLoad::new(scene.http.at(80)).requests(90).fresh().run(scene.client());
    let by_count = |scene: &Canary, when: &str| {
        let report = split(scene)?;
        ensure!(report.failed == 0 && report.version("v2") == 30, "{when}: {report:?}");
        Ok(())
    };
    let by_rule = |scene: &Canary, when: &str| {
        let report = split(scene)?;
        ensure!(report.failed == 0 && report.version("v1") == 90, "{when}: {report:?}");
        Ok(())
    };
    by_count(&scene, "before")?;

    scene.manifests.namespaces(&[("default", true)])?;
    let took = agent.await_enrolled("default/client", true)?;
    ensure!(took < AT_ONCE, "enrolling took {took:?}");
    by_rule(&scene, "the namespace is labelled")?;

    // The pod's own label wins over its namespace's.
    scene.mesh.pod_mut("client").spec.labels.insert("weir.mesh/mode".into(), "disabled".into());
    scene.manifests.pods(&scene.mesh)?;
    let took = agent.await_enrolled("default/client", false)?;
    ensure!(took < AT_ONCE, "releasing took {took:?}");
    by_count(&scene, "the pod opted out")?;

    // In and out by the pod alone, under load: neither way fails a request.
    scene.manifests.namespaces(&[("default", false)])?;
    let mut live = HttpLoad::new(scene.http.at(80)).connections(2).fresh().pace(200).start(scene.client())?;
    for enabled in [true, false, true] {
        live.tick()?;
        let mode = if enabled { "enabled" } else { "disabled" };
        scene.mesh.pod_mut("client").spec.labels.insert("weir.mesh/mode".into(), mode.into());
        scene.manifests.pods(&scene.mesh)?;
        agent.await_enrolled("default/client", enabled)?;
    }
    by_rule(&scene, "the pod opted in")?;
    let report = live.stop()?;
    ensure!(report.failed == 0 && report.answered > 50, "{report:?}");
    Ok(())
}

#[test]
fn a_connection_in_progress_stays_as_it_is() -> Result<()> {
    if !require("a_connection_in_progress_stays_as_it_is", &[Need::Agent]) {
        return Ok(());
    }
    let mut scene = Canary::new(false)?;
    relays(&mut scene)?;
    scene.split_http(50, 50)?;
    let agent = Agent::start(&scene.mesh)?;
    let mut before = HttpLoad::new(scene.http.at(80)).connections(2).pace(100).start(scene.client())?;
    before.tick()?;
    scene.manifests.namespaces(&[("default", true)])?;
    agent.await_enrolled("default/client", true)?;
    let mut during = HttpLoad::new(scene.http.at(80)).connections(2).pace(100).start(scene.client())?;
    (0..2).try_for_each(|_| before.tick().and(during.tick()).map(drop))?;
    scene.manifests.namespaces(&[("default", false)])?;
    agent.await_enrolled("default/client", false)?;
    (0..2).try_for_each(|_| before.tick().and(during.tick()).map(drop))?;
    for (when, load) in [("before opt-in", before), ("while enrolled", during)] {
        let report = load.stop()?;
        ensure!(report.failed == 0, "made {when}: {report:?}");
        proved!("made {when}: {} answered, {} sent again", report.answered, report.resent);
    }
    Ok(())
}

/// A pod that is opted out and in again at once keeps its listeners: nobody who waits in them is reset.
#[test]
fn flapping_labels_fail_no_request() -> Result<()> {
    if !require("flapping_labels_fail_no_request", &[Need::Agent]) {
        return Ok(());
    }
    let mut scene = Canary::new(false)?;
    relays(&mut scene)?;
    scene.split_http(100, 0)?;
    let agent = Agent::start(&scene.mesh)?;
    let mut live = HttpLoad::new(scene.http.at(80)).connections(2).fresh().pace(200).start(scene.client())?;
    let mut enabled_at = Vec::new();
    for change in 0..60 {
        let enabled = change % 2 == 0;
        live.tick()?;
        if enabled {
            enabled_at.push(monotonic_ns());
        }
        let mode = if enabled { "enabled" } else { "disabled" };
        scene.mesh.pod_mut("client").spec.labels.insert("weir.mesh/mode".into(), mode.into());
        scene.manifests.pods(&scene.mesh)?;
        agent.await_enrolled("default/client", enabled)?;
    }
    let report = live.stop()?;
    let since_enabled = |at: &u64| enabled_at.iter().rev().find(|enabled| *enabled < at).map(|e| (at - e) / 1_000_000);
    let late: Vec<_> = report.failed_at.iter().map(since_enabled).collect();
    ensure!(report.failed == 0 && report.answered > 500, "failed, in ms after an opt-in: {late:?}; {report:?}");
    proved!("30 opt-ins within the linger of the opt-out before: {} answered, 0 failed", report.answered);
    Ok(())
}
