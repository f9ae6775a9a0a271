//! An upstream that closes its kept connections when it suits nobody: what may be sent again is, and what may have been
//! processed is not.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::canary::virtual_service;
use weir_tests::require::Need;
use weir_tests::{HttpLoad, Service, length, proved, require};

use super::stage::Stage;

/// service-b's pods at their port for this.
fn stage() -> Result<(Stage, Service)> {
    let closing = Service::new("closing", 4).selects("service-b").port("http", 80, "81");
    let rule = virtual_service("closing", "  http:\n  - route: [{destination: {host: closing}}]\n");
    let stage = Stage::furnished(&rule, |scene| {
        scene.mesh.serve("b-v1-0", "--closing 81")?;
        scene.mesh.serve("b-v2-0", "--closing 81")?;
        scene.mesh.pod_mut("b-v1-1").ready = false;
        scene.manifests.service(&closing)
    })?;
    stage.agent.await_verdict("default/closing:80", "proxy")?;
    Ok((stage, closing))
}

/// What the pods have seen, all together.
fn seen(stage: &Stage) -> Result<Value> {
    let mut total = serde_json::json!({"gets": 0, "posts": 0, "twice": 0, "connections": 0, "closed": [0, 0, 0, 0, 0]});
    for pod in ["b-v1-0", "b-v2-0"] {
        let at = stage.scene.mesh.pod(pod).at(81);
        let report: Value = serde_json::from_str(&stage.curl_in("client", &format!("http://{at}/report"), &[])?.body)?;
        for key in ["gets", "posts", "twice", "connections"] {
            total[key] = (total[key].as_u64().unwrap_or(0) + report[key].as_u64().context("a count")?).into();
        }
        for way in 0..5 {
            let closed =
                total["closed"][way].as_u64().unwrap_or(0) + report["closed"][way].as_u64().context("a count")?;
            total["closed"][way] = closed.into();
        }
    }
    Ok(total)
}

#[test]
fn connections_that_close_at_any_moment_fail_no_get() -> Result<()> {
    if !require("connections_that_close_at_any_moment_fail_no_get", &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    let (stage, closing) = stage()?;
    let gets = length(20_000, 1_000_000);
    let load = HttpLoad::new(closing.at(80)).host("closing").requests(gets).connections(8);
    let report = load.run(stage.client())?;
    ensure!(report.failed == 0 && report.resent == 0 && report.status(200) == gets, "{report:?}");
    let seen = seen(&stage)?;
    ensure!(seen["closed"].as_array().is_some_and(|ways| ways.iter().all(|n| n.as_u64() > Some(100))), "{seen}");
    proved!("{gets} GETs in {:.1} s, none failed; the pods saw {seen}", report.seconds);
    Ok(())
}

#[test]
fn a_post_is_never_processed_twice() -> Result<()> {
    if !require("a_post_is_never_processed_twice", &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    let (stage, closing) = stage()?;
    let posts = length(20_000, 200_000);
    let load = HttpLoad::new(closing.at(80)).host("closing").requests(posts).connections(8);
    let report = load.bodies(100).header("x-id: post-{n}").run(stage.client())?;
    let (ok, cut) = (report.status(200), report.status(503));
    ensure!(report.failed == 0 && report.resent == 0 && ok + cut == posts, "{report:?}");
    let seen = seen(&stage)?;
    let count = |key: &str| seen[key].as_u64().context("a count");
    ensure!(count("twice")? == 0, "processed twice: {seen}");
    // Whatever was answered was processed, and what was processed without an answer was told as failed.
    let read = seen["closed"][3].as_u64().context("a count")?;
    ensure!(count("posts")? == ok + read, "{ok} answered, {read} read and not answered: {seen}");
    let closed = stage.agent.metric("istio_requests_total", "response_flags=\"UC\"")?;
    ensure!(closed as u64 == cut && cut >= read, "{cut} answered with 503, of which {closed} are flagged UC: {seen}");
    // A connection closed before the request is written costs a request nothing.
    let ways: u64 = seen["closed"].as_array().into_iter().flatten().filter_map(Value::as_u64).sum();
    ensure!(cut < ways, "{cut} failed of {ways} closed connections");
    proved!("{posts} POSTs: {ok} answered, {cut} told as failed (503 UC), of {ways} connections closed; none twice");
    Ok(())
}
