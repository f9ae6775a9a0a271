//! Circuit breakers and outlier detection as the users' manifests have them: what is refused while too much is under
//! way, and which pod is left out, for how long.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weir_tests::require::Need;
use weir_tests::{HttpLoad, PodSpec, process, proved, require};

use super::levels::{self, Host};
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
    // What the kernel balances itself knows no limits.
    let (took, accepted) = stage.agent.by_the_proxy(|| {
        let began = Instant::now();
        let report = stage.load().path("/sleep/50").requests(20).connections(10).run(stage.client())?;
        ensure!(report.failed == 0 && report.status(200) == 20, "they wait for each other: {report:?}");
        Ok(began.elapsed())
    })?;
    ensure!(took >= Duration::from_millis(500), "twenty of 50 ms on two connections: {took:?}");
    ensure!(accepted > 0.5, "the proxy has seen none of them");
    let (said, _) = stage.agent.by_the_proxy(|| stage.python(THREE, &["10.96.0.4", "7000"]))?;
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
    let rule = "loadBalancer: {simple: ROUND_ROBIN}, \
                outlierDetection: {consecutive5xxErrors: 7, interval: 5m, baseEjectionTime: 600ms}";
    let stage =
        Stage::furnished(&destination(rule), |scene| more_pods(&mut scene.mesh, &["b-bad"], "v3", "--status=500"))?;
    stage.agent.await_verdict("default/service-b:80", "proxy")?;
    let ask = |requests| -> Result<(u64, Moment)> {
        let (report, asked) = Moment::of(|| stage.load().requests(requests).run(stage.client()))?;
        ensure!(report.failed == 0 && report.status(200) + report.status(500) == requests, "{report:?}");
        Ok((report.status(500), asked))
    };
    let mut away = Vec::new();
    let mut left: Option<Moment> = None;
    for round in 1..=3_u32 {
        // By turns, eight requests meet all four pods that are in use.
        let (mut errors, mut met) = ask(8)?;
        let mut missing = left.map_or(met.from, |left| left.to);
        while errors == 0 {
            ensure!(left.is_none_or(|left| left.to.elapsed() < PATIENCE), "round {round}: it does not come back");
            missing = met.from;
            (errors, met) = ask(8)?;
        }
        if let Some(left) = left {
            away.push(Away { least: missing.saturating_duration_since(left.to), most: met.to - left.from });
        }
        let mut tries = 0;
        while errors < 7 {
            ensure!(tries < 100, "round {round}: left out after {errors} errors");
            let (more, asked) = ask(8)?;
            (errors, met, tries) = (errors + more, asked, tries + 1);
        }
        ensure!(errors == 7, "round {round}: {errors} errors");
        left = Some(met);
    }
    for (round, away) in (1..).zip(&away) {
        ensure!(away.is(base * round), "{away:?} in round {round}");
    }
    proved!("left out after 7 errors each time, away for {away:?}");
    Ok(())
}

/// What does not happen within this does not happen at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// The proxy's clock for ejections may be behind by a turn of its timers.
const COARSE: Duration = Duration::from_millis(50);

/// Between when something has happened.
#[derive(Clone, Copy, Debug)]
struct Moment {
    from: Instant,
    to: Instant,
}

impl Moment {
    /// That of an act.
    fn of<T>(act: impl FnOnce() -> Result<T>) -> Result<(T, Self)> {
        let from = Instant::now();
        let done = act()?;
        Ok((done, Self { from, to: Instant::now() }))
    }
}

/// How long a pod was away: both bounds are of what was seen, so they hold on a machine that is busy too, and are some
/// milliseconds apart on one that is not.
#[derive(Clone, Copy, Debug)]
struct Away {
    least: Duration,
    most: Duration,
}

impl Away {
    fn is(&self, time: Duration) -> bool {
        self.least <= time + COARSE && self.most + COARSE >= time
    }
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

/// How long a pod is left out that fails as often as it takes: once, and once more, and then after a quiet time.
fn times_away(stage: &Stage, host: Host, quiet: Duration) -> Result<Vec<Away>> {
    let ask = |path: &str| -> Result<(bool, Moment)> {
        let (report, asked) = Moment::of(|| host.load().path(path).requests(8).run(stage.client()))?;
        ensure!(report.failed == 0 && report.answered == 8, "{report:?}");
        Ok((report.by_pod.contains_key("bad"), asked))
    };
    let mut away = Vec::new();
    for round in 0..3 {
        if round == 2 {
            std::thread::sleep(quiet);
        }
        let (mut asked, mut left) = (0, None);
        // It alone fails; what it says of /status/200 is no error.
        let mut missing = loop {
            let (met, moment) = ask("/")?;
            if !met {
                break moment.from;
            }
            ensure!(asked < 100, "round {round}: it is asked still");
            (asked, left) = (asked + 1, Some(moment));
        };
        let left = left.with_context(|| format!("round {round}: nobody asked it"))?;
        let back = loop {
            let (met, moment) = ask("/status/200")?;
            if met {
                break moment.to;
            }
            ensure!(left.to.elapsed() < PATIENCE, "round {round}: it does not come back");
            missing = moment.from;
            std::thread::sleep(Duration::from_millis(10));
        };
        away.push(Away { least: missing.saturating_duration_since(left.to), most: back - left.from });
    }
    Ok(away)
}

#[test]
fn a_quiet_interval_makes_the_next_time_shorter() -> Result<()> {
    if !require("a_quiet_interval_makes_the_next_time_shorter", &[Need::Agent]) {
        return Ok(());
    }
    let base = Duration::from_millis(800);
    for (interval, last) in [("300ms", 1), ("5m", 3)] {
        let policy = format!(
            "loadBalancer: {{simple: ROUND_ROBIN}}, \
             outlierDetection: {{consecutive5xxErrors: 2, interval: {interval}, baseEjectionTime: 800ms}}"
        );
        let stage = levels::stage(&levels::rules(&policy), |scene| {
            levels::add_pod(scene, "good", &[], "")?;
            levels::add_pod(scene, "bad", &[], "--status=500")
        })?;
        let away = levels::at_each_level(|host| times_away(&stage, host, Duration::from_secs(2)))?;
        for (host, away) in &away {
            ensure!(away[0].is(base) && away[2].is(base * last), "{host}, intervals of {interval}: {away:?}");
        }
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
