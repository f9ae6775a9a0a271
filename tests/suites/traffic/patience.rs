//! Timeouts, retries, faults and mirrors: what a request waits for, what is tried again, what fails on purpose.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weir_tests::require::Need;
use weir_tests::{eventually, proved, require};

use super::stage::{Stage, V1, http, http_with, more_pods};

const NEEDS: &[Need] = &[Need::Agent, Need::Program("curl")];
/// Standard deviations that a share may be off: one run in 1.7 million fails by chance.
const SIGMAS: f64 = 5.0;

/// What a share of so many may be off, in percent.
fn tolerance(percent: f64, of: u64) -> f64 {
    SIGMAS * (percent * (100.0 - percent) / of as f64).sqrt()
}

#[test]
fn a_request_waits_as_long_as_its_rule_says() -> Result<()> {
    if !require("a_request_waits_as_long_as_its_rule_says", NEEDS) {
        return Ok(());
    }
    let stage = Stage::new(&http(&format!(
        "{{match: [{{uri: {{prefix: /sleep/8}}}}], timeout: 300ms, {V1}}}, \
         {{match: [{{uri: {{prefix: /sleep/9}}}}], timeout: 8s, retries: {{attempts: 3, perTryTimeout: 200ms, retryOn: 5xx}}, {V1}}}, {{{V1}}}"
    )))?;
    let began = Instant::now();
    let late = stage.curl("/sleep/8000", &[])?;
    let took = began.elapsed();
    ensure!((late.status, &*late.body) == (504, "upstream request timeout"), "{late:?}");
    // Before the pod would have answered, however busy this machine is.
    ensure!((Duration::from_millis(300)..Duration::from_secs(8)).contains(&took), "{took:?}");
    let line = stage.logged("/sleep/8000")?;
    ensure!(line.contains(" 504 UT "), "{line}");
    let began = Instant::now();
    let late = stage.curl("/sleep/9000", &[])?;
    let took = began.elapsed();
    ensure!(late.status == 504, "{late:?}");
    // Four tries of 200 ms with some tens of milliseconds in between; it was the last one's time that was over.
    ensure!(took >= Duration::from_millis(800), "four tries took {took:?}");
    let line = stage.logged("/sleep/9000")?;
    ensure!(line.contains(" 504 UT,URX upstream_per_try_timeout "), "{line}");
    ensure!(stage.version("/sleep/400", &[])? == "v1", "what has no timeout waits");
    Ok(())
}

#[test]
fn retries_hide_a_pod_that_fails() -> Result<()> {
    if !require("retries_hide_a_pod_that_fails", NEEDS) {
        return Ok(());
    }
    let to_all = "route: [{destination: {host: service-b}}]";
    let stage = Stage::furnished(&http(&format!("{{{to_all}}}")), |scene| {
        more_pods(&mut scene.mesh, &["b-broken"], "v3", "--status=503")
    })?;
    let plain = stage.load().requests(400).connections(4).run(stage.client())?;
    ensure!(plain.failed == 0 && plain.status(503) > 0, "what was seen is not repeated by itself: {plain:?}");
    stage.rules(&http(&format!("{{retries: {{attempts: 3, retryOn: 5xx}}, {to_all}}}")))?;
    let before = stage.served("b-broken")?;
    let hidden = stage.load().requests(1000).connections(4).run(stage.client())?;
    ensure!(hidden.failed == 0 && hidden.status(200) == 1000, "{hidden:?}");
    let tried = stage.served("b-broken")? - before;
    ensure!(tried > 50, "the broken pod was asked {tried} times");
    // The codes of the rule, and no others.
    stage.rules(&http(&format!("{{retries: {{attempts: 3, retryOn: 'gateway-error,503'}}, {to_all}}}")))?;
    ensure!(stage.load().requests(200).run(stage.client())?.status(200) == 200, "by its code");
    stage.rules(&http(&format!("{{retries: {{attempts: 3, retryOn: '500,connect-failure'}}, {to_all}}}")))?;
    ensure!(stage.load().requests(400).run(stage.client())?.status(503) > 0, "503 is none of these");
    proved!(
        "1,000 requests answered with 200 while a pod answered {tried} with 503; without retries {} of 400 failed",
        plain.status(503)
    );
    Ok(())
}

#[test]
fn faults_delay_and_abort_their_share() -> Result<()> {
    if !require("faults_delay_and_abort_their_share", NEEDS) {
        return Ok(());
    }
    let stage = Stage::new(&http(&format!(
        "{{match: [{{uri: {{prefix: /slow}}}}], fault: {{delay: {{fixedDelay: 400ms, percentage: {{value: 100}}}}}}, {V1}}}, \
         {{match: [{{uri: {{prefix: /some}}}}], fault: {{abort: {{httpStatus: 555, percentage: {{value: 20}}}}}}, {V1}}}, \
         {{match: [{{uri: {{prefix: /both}}}}], fault: {{delay: {{fixedDelay: 200ms, percentage: {{value: 100}}}}, \
           abort: {{httpStatus: 429, percentage: {{value: 100}}}}}}, {V1}}}, {{{V1}}}"
    )))?;
    for (path, at_least, status, flag) in [("/slow", 400, 200, "DI"), ("/both", 200, 429, "DI,FI")] {
        let began = Instant::now();
        let answer = stage.curl(path, &[])?;
        let took = began.elapsed();
        ensure!(answer.status == status && took >= Duration::from_millis(at_least), "{path}: {took:?} {answer:?}");
        let line = stage.logged(path)?;
        ensure!(line.contains(&format!(" {status} {flag} ")), "{line}");
    }
    let report = stage.load().path("/some").requests(4000).connections(8).run(stage.client())?;
    let share = 100.0 * report.status(555) as f64 / 4000.0;
    ensure!(report.failed == 0 && report.status(200) + report.status(555) == 4000, "{report:?}");
    ensure!((share - 20.0).abs() <= tolerance(20.0, 4000), "{share} %");
    // One that this machine does not hold up is enough: delayed are all or none.
    let quick = (0..5).find_map(|_| {
        let began = Instant::now();
        let met = stage.version("/", &[]);
        (met.is_err() || began.elapsed() < Duration::from_millis(400)).then_some(met)
    });
    ensure!(quick.context("others are delayed too")?? == "v1", "others are not touched");
    Ok(())
}

#[test]
fn a_mirror_gets_its_share_of_copies_and_nobody_notices() -> Result<()> {
    if !require("a_mirror_gets_its_share_of_copies_and_nobody_notices", NEEDS) {
        return Ok(());
    }
    let mirrors = "mirrors: [{destination: {host: service-b, subset: v2}, percentage: {value: 30}}]";
    let stage = Stage::new(&http(&format!("{{{V1}, {mirrors}}}")))?;
    let before = stage.served("b-v2-0")?;
    let report = stage.load().requests(3000).connections(4).bodies(2000).run(stage.client())?;
    ensure!(report.failed == 0 && report.status(200) == 3000 && report.version("v1") == 3000, "{report:?}");
    let allowed = tolerance(30.0, 3000) * 30.0;
    // Copies go out beside the requests, and may arrive after them.
    let (seen, _) = eventually("the copies have arrived", Duration::from_secs(5), || {
        let seen = stage.served("b-v2-0")? - before;
        Ok((seen as f64 >= 900.0 - allowed).then_some(seen))
    })?;
    ensure!(seen as f64 <= 900.0 + allowed, "{seen} copies of 3,000 at 30 %");
    // A mirror that is slow or broken is nobody's trouble.
    stage.rules(&http_with(&format!("{{{V1}, mirror: {{host: nobody}}, mirrorPercentage: {{value: 100}}}}"), ""))?;
    let report = stage.load().requests(500).connections(4).run(stage.client())?;
    ensure!(report.failed == 0 && report.version("v1") == 500, "{report:?}");
    Ok(())
}
