//! Weights, subsets and endpoints change a hundred times a second, and no request notices.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weir_tests::canary::http_split;
use weir_tests::require::Need;
use weir_tests::{length, proved, require};

use super::stage::{SUBSETS, Stage, more_pods, object};

/// Changes a second.
const RATE: u32 = 100;

#[test]
fn a_hundred_changes_a_second_fail_no_request() -> Result<()> {
    if !require("a_hundred_changes_a_second_fail_no_request", &[Need::Agent]) {
        return Ok(());
    }
    let seconds = length(5, 60_u32);
    let mut stage = Stage::furnished(&subsets(0), |scene| more_pods(&mut scene.mesh, &["b-v2-1"], "v2", ""))?;
    stage.scene.manifests.write("split.yaml", &http_split(50, 50))?;
    stage.agent.await_verdict("default/service-b:80", "proxy")?;
    let kept = stage.load().connections(4).pace(500).start(stage.client())?;
    let fresh = stage.load().fresh().connections(2).pace(100).start(stage.client())?;
    let posts = stage.load().bodies(20_000).connections(2).pace(100).start(stage.client())?;
    let generation = |stage: &Stage| stage.agent.status()?["generation"].as_u64().context("a generation");
    let before = generation(&stage)?;
    let began = Instant::now();
    for n in 0..seconds * RATE {
        std::thread::sleep((began + n * Duration::from_secs(1) / RATE).saturating_duration_since(Instant::now()));
        match n % 3 {
            0 => stage.scene.manifests.write("split.yaml", &http_split(n % 101, 100 - n % 101))?,
            1 => stage.scene.manifests.write("rules.yaml", &subsets(n))?,
            _ => {
                // Never all pods of a version at a time.
                let pods = ["b-v1-0", "b-v1-1", "b-v2-0", "b-v2-1"];
                for (position, pod) in pods.iter().enumerate() {
                    stage.scene.mesh.pod_mut(pod).ready = position != n as usize / 3 % 5;
                }
                stage.scene.manifests.pods(&stage.scene.mesh)?;
            }
        }
    }
    let (changes, took) = (seconds * RATE, began.elapsed());
    let mut requests = 0;
    for load in [kept, fresh, posts] {
        let report = load.stop()?;
        ensure!(report.failed == 0 && report.resent == 0 && report.by_status.keys().eq(["200"]), "{report:?}");
        ensure!(report.by_pod.len() == 4, "all pods take part: {:?}", report.by_pod);
        requests += report.answered;
    }
    let compiled = generation(&stage)? - before;
    // Changes that come together are compiled together.
    ensure!(compiled > u64::from(changes / 10), "{compiled} compilations of {changes} changes");
    proved!("{changes} changes in {took:.1?}, compiled {compiled} times: {requests} requests, none failed");
    Ok(())
}

/// The subsets by one label or another, with one balancer or another.
fn subsets(n: u32) -> String {
    let balancer = ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"][n as usize / 3 % 3];
    let labels =
        if n.is_multiple_of(2) { SUBSETS.to_owned() } else { SUBSETS.replace("version: v1", "app: service-b") };
    object(
        "DestinationRule",
        &format!("host: service-b, trafficPolicy: {{loadBalancer: {{simple: {balancer}}}}}, {labels}"),
    )
}
