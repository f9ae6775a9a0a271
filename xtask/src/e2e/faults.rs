//! An upgrade of the DaemonSet, the API server's absence, and what is left after the removal. Steps of `e2e`.

use std::time::Duration;

use anyhow::Result;

use super::kubectl::Kubectl;
use super::{Args, ROLLOUT, Run, image, lifecycle, manifest, shell};

/// Requests a second of the load in `tests/e2e/outage.yaml`.
const PACE: u64 = 200;

/// How long endpoints must stay ready after an outage before they are taken to be.
const STEADY: Duration = Duration::from_secs(20);

/// Every agent is replaced while requests flow.
pub(super) fn upgrade(run: &mut Run, _args: &Args) -> Result<()> {
    run.step(
        "An upgrade of the DaemonSet under 200 requests a second",
        "the new agent takes over, the old one drains",
    )?;
    run.weights(100, 0)?;
    run.await_all_v1()?;
    let client = run.client()?;
    let load = run.kubectl.load(&client, &["http", &run.service, "--fresh", "--pace", "100", "--connections", "2"])?;
    std::thread::sleep(Duration::from_secs(2));
    run.kubectl.outside(&["-n", "weir-system", "rollout", "restart", "daemonset/weir"])?;
    let timeout = format!("--timeout={}s", ROLLOUT.as_secs());
    run.kubectl.outside(&["-n", "weir-system", "rollout", "status", "daemonset/weir", &timeout])?;
    std::thread::sleep(Duration::from_secs(2));
    let report = load.stop()?;
    let text = format!(
        "{} requests, {} failed, {} by v2, which has weight 0 {:?}",
        report.answered,
        report.failed,
        report.version("v2"),
        report.errors
    );
    run.check(report.failed == 0 && report.version("v2") == 0 && report.answered > 500, &text)
}

/// The API server goes and comes back while requests flow.
pub(super) fn outage(run: &mut Run, args: &Args) -> Result<()> {
    let (Some(stop), Some(start)) = (&args.api_stop, &args.api_start) else {
        return run.say("\nNo --api-stop and --api-start: the API server's outage is left out.");
    };
    run.step(
        &format!("The API server is away for {} s under {PACE} requests a second", args.outage),
        "what was in force stays in force",
    )?;
    run.weights(100, 0)?;
    run.await_all_v1()?;
    run.kubectl.run(&["delete", "job", "outage", "--ignore-not-found"])?;
    // Load before and after, too.
    let requests = ((args.outage + 20) * PACE).to_string();
    let words = [("IMAGE", &*image::pods()), ("SERVICE", &run.service), ("REQUESTS", &requests)];
    run.kubectl.apply(&manifest("tests/e2e/outage.yaml", &words)?)?;
    Kubectl::until("the load runs", Duration::from_secs(30), || {
        Ok((!run.kubectl.pods("app=outage")?.is_empty()).then_some(()))
    })?;
    shell(stop)?;
    std::thread::sleep(Duration::from_secs(args.outage));
    shell(start)?;
    Kubectl::until("the API server answers", Duration::from_mins(1), || {
        run.kubectl.run(&["get", "--raw", "/readyz"]).map(Some)
    })?;
    let pod = lifecycle::finished(run, "outage", Duration::from_secs(60 + args.outage))?;
    let report = lifecycle::logged(run, &pod, "main")?;
    let text = format!(
        "{} requests, {} failed, {} by v2, which has weight 0 {:?}",
        report.answered,
        report.failed,
        report.version("v2"),
        report.errors
    );
    run.check(report.failed == 0 && report.version("v2") == 0 && report.answered > 0, &text)?;
    let took = run.await_endpoints(4, STEADY)?;
    run.say(&format!("Kubernetes took all pods for ready again, and for good, after {:.0} s", took.as_secs_f64()))?;
    run.weights(0, 100)?;
    let client = run.client()?;
    let ((), took) = Kubectl::until("a change after the outage is in force", Duration::from_secs(30), || {
        let report = run.kubectl.client(&client, &["http", &run.service, "--requests", "40", "--fresh"])?;
        Ok((report.version("v2") == 40).then_some(()))
    })?;
    run.check(true, &format!("a change after it is in force after {:.1} s", took.as_secs_f64()))
}

/// A pod on every node looks for pins.
pub(super) fn nodes_are_clean(run: &mut Run, _args: &Args) -> Result<()> {
    let text = manifest("tests/e2e/clean.yaml", &[("IMAGE", &image::agent()), ("PODS", &image::pods())])?;
    run.kubectl.apply(&text)?;
    run.kubectl.run(&["rollout", "status", "daemonset/clean", "--timeout=60s"])?;
    for pod in run.kubectl.pods("app=clean")? {
        let said = run.kubectl.run(&["logs", &pod, "-c", "look"])?;
        run.check(said.contains("has left nothing here"), &format!("{pod}: {}", said.trim()))?;
    }
    Ok(())
}
