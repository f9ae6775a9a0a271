//! Circuit breakers and outlier detection as the users' manifests have them: what is refused while too much is under
//! way, and which pod is left out, for how long.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weir_tests::require::Need;
use weir_tests::{HttpLoad, PodSpec, process, proved, require};

use super::stage::{Stage, destination, more_pods, object};

/// Connects of several requests fall together sooner or later; so many rounds of 20 requests are later.
const ROUNDS: u32 = 300;

#[test]
fn four_connections_and_twenty_requests_overflow_a_breaker_of_one() -> Result<()> {
    let name = "four_connections_and_twenty_requests_overflow_a_breaker_of_one";
    if !require(name, &[Need::Agent, Need::Program("curl"), Need::Program("wrk")]) {
        return Ok(());
    }
    let breaker = "connectionPool: {http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}";
    let stage = Stage::new(&destination(breaker))?;
    stage.agent.await_verdict("default/service-b:80", "proxy")?;
    let (mut answered, mut refused, mut rounds) = (0, 0, 0);
    while refused == 0 {
        ensure!(rounds < ROUNDS, "{rounds} rounds, and never were two connects under way at a time");
        let report = stage.load().requests(20).connections(4).run(stage.client())?;
        let (ok, overflow) = (report.status(200), report.status(503));
        ensure!(report.failed == 0 && ok > 0 && ok + overflow == 20, "{report:?}");
        (answered, refused, rounds) = (answered + ok, refused + overflow, rounds + 1);
    }
    // Many more at a time leave some for curl to see.
    let mut wrk = Command::new("wrk");
    wrk.args(["-t2", "-c32", "-d2s", "-H", "Host: service-b", &format!("http://{}/", stage.scene.http.at(80))]);
    let load = std::thread::spawn({
        let place = stage.client().place.clone();
        move || process::output(&place, wrk)
    });
    let seen = (0..2000).find_map(|_| stage.curl("/seen", &[]).ok().filter(|answer| answer.status == 503));
    let said = load.join().ok().context("wrk's thread")??;
    let seen = seen.context("curl never saw a 503")?;
    ensure!(seen.header("x-envoy-overloaded") == Some("true"), "{seen:?}");
    let refused_wrk: u64 = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: ")?.parse().ok())
        .with_context(|| format!("wrk saw nothing refused: {said}"))?;
    ensure!(!said.contains("Socket errors"), "{said}");
    let flagged = stage.agent.metric("istio_requests_total", "response_flags=\"UO\"")?;
    ensure!(flagged as u64 > refused + refused_wrk, "{flagged} are flagged UO, wrk alone saw {refused_wrk}");
    let lines = stage.agent.logged(" 503 UO ", 1)?;
    ensure!(lines[0].contains("upstream_reset_before_response_started{overflow}"), "{lines:?}");
    proved!(
        "4 connections, 20 requests: {answered} answered, {refused} refused after {rounds} rounds; wrk: {refused_wrk} refused"
    );
    Ok(())
}

#[test]
fn a_third_connection_is_refused_and_requests_wait_for_one_of_two() -> Result<()> {
    let name = "a_third_connection_is_refused_and_requests_wait_for_one_of_two";
    if !require(name, &[Need::Agent, Need::Program("python3")]) {
        return Ok(());
    }
    let limit = "trafficPolicy: {connectionPool: {tcp: {maxConnections: 2}}}";
    let rules = destination("connectionPool: {tcp: {maxConnections: 2}}")
        + &object("DestinationRule", &format!("host: service-b-raw, {limit}"))
            .replace("name: service-b,", "name: service-b-raw,");
    let stage = Stage::furnished(&rules, |scene| {
        // Undeclared, so that its policy is the proxy's to keep.
        let raw = weir_tests::Service::new("service-b-raw", 4).selects("service-b").port("", 7000, "9000");
        scene.manifests.service(&raw)
    })?;
    stage.agent.await_verdict("default/service-b-raw:7000", "proxy")?;
    let began = Instant::now();
    let report = stage.load().path("/sleep/50").requests(20).connections(10).run(stage.client())?;
    ensure!(report.failed == 0 && report.status(200) == 20, "they wait for each other: {report:?}");
    ensure!(began.elapsed() >= Duration::from_millis(500), "twenty of 50 ms on two connections: {:?}", began.elapsed());
    let said = stage.python(THREE, &["10.96.0.4", "7000"])?;
    ensure!(said.trim() == "kept kept refused kept", "{said}");
    stage.agent.logged(" UO ", 1)?;
    Ok(())
}

/// Two connections that stay, a third, and another once one of them has ended.
const THREE: &str = r#"
import socket, sys, time
def dial():
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)
    try:
        s.sendall(b"\x00hello\n")
        return (s, "kept") if s.recv(100) else (s, "refused")
    except ConnectionError:
        return s, "refused"
first, second, third = dial(), dial(), dial()
first[0].close()
for _ in range(100):
    fourth = dial()
    if fourth[1] == "kept":
        break
    time.sleep(0.02)
print(first[1], second[1], third[1], fourth[1])
"#;

#[test]
fn a_failing_pod_is_left_out_after_seven_errors_and_longer_each_time() -> Result<()> {
    if !require("a_failing_pod_is_left_out_after_seven_errors_and_longer_each_time", &[Need::Agent]) {
        return Ok(());
    }
    let base = Duration::from_millis(600);
    // The users' rule, with a time that a test can wait for.
    let rule = "outlierDetection: {consecutive5xxErrors: 7, interval: 5m, baseEjectionTime: 600ms}";
    let stage =
        Stage::furnished(&destination(rule), |scene| more_pods(&mut scene.mesh, &["b-bad"], "v3", "--status=500"))?;
    stage.agent.await_verdict("default/service-b:80", "proxy")?;
    let ask = |requests| -> Result<u64> {
        let report = stage.load().requests(requests).run(stage.client())?;
        ensure!(report.failed == 0 && report.status(200) + report.status(500) == requests, "{report:?}");
        Ok(report.status(500))
    };
    let mut away = Vec::new();
    let mut last_error = Instant::now();
    for round in 1..=3_u32 {
        let mut errors = 0;
        while errors == 0 {
            ensure!(last_error.elapsed() < base * (round + 3), "round {round}: it does not come back");
            errors = ask(5)?;
        }
        if round > 1 {
            away.push(last_error.elapsed());
        }
        let mut tries = 0;
        while errors < 7 {
            ensure!(tries < 100, "round {round}: left out after {errors} errors");
            (errors, tries) = (errors + ask(5)?, tries + 1);
        }
        last_error = Instant::now();
        ensure!(errors == 7, "round {round}: {errors} errors");
        ensure!(ask(60)? == 0, "round {round}: it is asked still");
    }
    for (round, away) in (1..).zip(&away) {
        ensure!(*away >= base * round && *away < base * round + base / 2, "away for {away:?} in round {round}");
    }
    proved!("left out after 7 errors each time, away for {away:?}");
    Ok(())
}

#[test]
fn two_pods_of_five_that_fail_leave_and_all_others_serve() -> Result<()> {
    if !require("two_pods_of_five_that_fail_leave_and_all_others_serve", &[Need::Agent]) {
        return Ok(());
    }
    let rule =
        "outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 1m, maxEjectionPercent: 50}";
    let stage = Stage::furnished(&destination(rule), |scene| {
        more_pods(&mut scene.mesh, &["b-bad-0"], "v3", "--status=502")?;
        // Nobody listens in this one.
        scene.mesh.add_pod(PodSpec::new("b-bad-1").label("app", "service-b").port("", 80)).map(drop)
    })?;
    stage.agent.await_verdict("default/service-b:80", "proxy")?;
    let load = || HttpLoad::new(stage.scene.http.at(80)).host("service-b").connections(4);
    let first = load().requests(400).run(stage.client())?;
    let then = load().requests(2000).run(stage.client())?;
    ensure!(first.failed == 0 && then.failed == 0, "{first:?} {then:?}");
    ensure!(then.status(200) == 2000, "both have left: {then:?}");
    ensure!(then.by_pod.len() == 3, "{then:?}");
    Ok(())
}

/// How long pods are left out that fail as often as it takes: once, and once more, and then after a quiet time.
fn times_away(stage: &Stage, quiet: Duration) -> Result<Vec<Duration>> {
    let ask = |path: &str| -> Result<bool> {
        let report = stage.load().path(path).requests(8).run(stage.client())?;
        ensure!(report.failed == 0 && report.answered == 8, "{report:?}");
        Ok(report.by_pod.contains_key("b-bad"))
    };
    let mut away = Vec::new();
    for round in 0..3 {
        let (mut asked, mut gone) = (0, Instant::now());
        if round == 2 {
            std::thread::sleep(quiet);
        }
        // It alone fails; what it says of /status/200 is no error.
        while ask("/")? {
            ensure!(asked < 100, "round {round}: it is asked still");
            (asked, gone) = (asked + 1, Instant::now());
        }
        ensure!(asked > 0, "round {round}: nobody asked it");
        while !ask("/status/200")? {
            ensure!(gone.elapsed() < Duration::from_secs(10), "round {round}: it does not come back");
            std::thread::sleep(Duration::from_millis(10));
        }
        away.push(gone.elapsed());
    }
    Ok(away)
}

#[test]
fn a_quiet_interval_makes_the_next_time_shorter() -> Result<()> {
    if !require("a_quiet_interval_makes_the_next_time_shorter", &[Need::Agent]) {
        return Ok(());
    }
    let base = Duration::from_millis(800);
    for (interval, quiet_rounds) in [("300ms", true), ("5m", false)] {
        let rule = format!(
            "loadBalancer: {{simple: ROUND_ROBIN}}, \
             outlierDetection: {{consecutive5xxErrors: 2, interval: {interval}, baseEjectionTime: 800ms}}"
        );
        let stage = Stage::furnished(&destination(&rule), |scene| {
            more_pods(&mut scene.mesh, &["b-bad"], "v3", "--status=500")
        })?;
        stage.agent.await_verdict("default/service-b:80", "proxy")?;
        let away = times_away(&stage, Duration::from_secs(2))?;
        let near = |away: Duration, times: u32| away + base / 2 > base * times && away < base * times + base / 2;
        let last = if quiet_rounds { 1 } else { 3 };
        ensure!(near(away[0], 1) && near(away[2], last), "intervals of {interval}: away for {away:?}");
        proved!("intervals of {interval}: left out for {away:?}, the last time after 2 s without an error");
    }
    Ok(())
}

#[test]
fn the_codes_of_a_rule_count_in_the_place_of_5xx() -> Result<()> {
    if !require("the_codes_of_a_rule_count_in_the_place_of_5xx", &[Need::Agent]) {
        return Ok(());
    }
    let rules = |codes: &str| {
        let more = "interval: 5m, baseEjectionTime: 10m, maxEjectionPercent: 100";
        destination(&format!("outlierDetection: {{consecutive5xxErrors: 3, {codes}{more}}}"))
    };
    for (codes, left, stays) in [("outlierDetectionHttpErrorCodes: [429], ", 429, 500), ("", 500, 429)] {
        let stage = Stage::furnished(&rules(codes), |scene| {
            more_pods(&mut scene.mesh, &["b-429"], "v3", "--status=429")?;
            more_pods(&mut scene.mesh, &["b-500"], "v3", "--status=500")
        })?;
        stage.agent.await_verdict("default/service-b:80", "proxy")?;
        let (first, then) =
            (stage.load().requests(200).run(stage.client())?, stage.load().requests(400).run(stage.client())?);
        ensure!(first.failed == 0 && then.failed == 0, "{first:?} {then:?}");
        // Each as often as it takes, and with two workers at most once more.
        ensure!((3..=4).contains(&first.status(left)), "{codes:?}: {first:?}");
        ensure!(then.status(left) == 0 && then.status(stays) > 40, "{codes:?}: {then:?}");
    }
    Ok(())
}
