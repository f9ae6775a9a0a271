//! A policy of a DestinationRule at each level where it can stand, side by side: a host for each level, and the same
//! check of all four at once. A level that is not looked at would have no policy at all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use weir_tests::require::Need;
use weir_tests::{Canary, HttpLoad, PodSpec, Report, Service, eventually, proved, require};

use super::stage::{Answer, Stage, object};

/// A host for each level: the rule's, a port's, a subset's, a port's of a subset.
const HOSTS: [&str; 4] = ["of-rule", "of-port", "of-subset", "of-subset-port"];
/// The number of the first host's address.
const FIRST: u8 = 20;
/// The port of the first host's pods. Each host has one of its own, so that what is ejected for one is not for another.
const PORT: u16 = 8081;
/// The label that the pods of all of them have.
const APP: &str = "levels";

/// One of them.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    pub(crate) name: &'static str,
    address: SocketAddr,
}

impl Host {
    /// HTTP load for it.
    pub(crate) fn load(self) -> HttpLoad {
        HttpLoad::new(self.address).host(self.name)
    }

    fn curl(self, stage: &Stage, path: &str) -> Result<Answer> {
        let host = format!("Host: {}", self.name);
        stage.curl_in("client", &format!("http://{}{path}", self.address), &["-H", &host])
    }
}

/// The rules of the four hosts: each has this policy at its level and nothing elsewhere. Requests go to a subset of all
/// pods, once.
pub(crate) fn rules(policy: &str) -> String {
    let own = |settings: &str| format!(", trafficPolicy: {{{settings}}}");
    let of_port = format!("portLevelSettings: [{{port: {{number: 80}}, {policy}}}]");
    let (policy, port, none) = (own(policy), own(&of_port), String::new());
    let levels = [(&policy, &none), (&port, &none), (&none, &policy), (&none, &port)];
    let rule = |(host, (whole, subset)): (&str, (&String, &String))| {
        let subsets = format!("subsets: [{{name: all, labels: {{app: {APP}}}{subset}}}]");
        let route = format!("{{retries: {{attempts: 0}}, route: [{{destination: {{host: {host}, subset: all}}}}]}}");
        let objects = object("VirtualService", &format!("hosts: [{host}], http: [{route}]"))
            + &object("DestinationRule", &format!("host: {host}{whole}, {subsets}"));
        objects.replace("{name: service-b, ", &format!("{{name: {host}, "))
    };
    HOSTS.into_iter().zip(levels).map(rule).collect()
}

/// A pod of all four, which answers on a port for each with these arguments of its origin beside.
pub(crate) fn add_pod(scene: &mut Canary, name: &str, labels: &[(&str, &str)], arguments: &str) -> Result<()> {
    let spec = PodSpec::new(name).label("app", APP);
    scene.mesh.add_pod(labels.iter().fold(spec, |spec, (key, value)| spec.label(key, value)))?;
    let ports: Vec<String> = (PORT..).take(HOSTS.len()).map(|port| format!("--http {port}")).collect();
    scene.mesh.serve(name, &format!("{} {arguments}", ports.join(" ")))
}

/// The stage with these rules and what `furnish` adds.
pub(crate) fn stage(rules: &str, furnish: impl FnOnce(&mut Canary) -> Result<()>) -> Result<Stage> {
    stage_on(rules, |position| PORT + position, furnish)
}

fn stage_on(rules: &str, port: impl Fn(u16) -> u16, furnish: impl FnOnce(&mut Canary) -> Result<()>) -> Result<Stage> {
    let stage = Stage::furnished(rules, |scene| {
        furnish(scene)?;
        for (host, position) in HOSTS.into_iter().zip(0_u8..) {
            let target = port(position.into()).to_string();
            let service = Service::new(host, FIRST + position).selects(APP).port("http", 80, &target);
            scene.manifests.service(&service)?;
        }
        Ok(())
    })?;
    for host in HOSTS {
        stage.agent.await_verdict(&format!("default/{host}:80"), "proxy")?;
    }
    Ok(stage)
}

/// Checks all four at once, and gives what was found, by the host.
pub(crate) fn at_each_level<T: Send>(check: impl Fn(Host) -> Result<T> + Sync) -> Result<BTreeMap<&'static str, T>> {
    let hosts = HOSTS.into_iter().zip(FIRST..);
    let hosts = hosts.map(|(name, number)| Host { name, address: ([10, 96, 0, number], 80).into() });
    let check = &check;
    std::thread::scope(|scope| {
        let checks: Vec<_> = hosts.map(|host| (host.name, scope.spawn(move || check(host)))).collect();
        let found = checks.into_iter().map(|(name, check)| {
            let found = check.join().map_err(|_| anyhow!("the check panicked"))?;
            Ok((name, found.with_context(|| name.to_owned())?))
        });
        found.collect()
    })
}

fn good(report: Report, requests: u64) -> Result<Report> {
    ensure!(report.failed == 0 && report.status(200) == requests, "{report:?}");
    Ok(report)
}

/// Users of which each has a pod, and requests of each.
const USERS: u64 = 300;
const PODS: [&str; 4] = ["pod-0", "pod-1", "pod-2", "pod-3"];

#[test]
fn clients_stick_by_the_same_table() -> Result<()> {
    if !require("clients_stick_by_the_same_table", &[Need::Agent]) {
        return Ok(());
    }
    let hash = |spec: &str| rules(&format!("loadBalancer: {{consistentHash: {{{spec}}}}}"));
    // The same endpoints for all, so that the same table is made of them.
    let stage = stage_on(
        &hash("useSourceIp: true"),
        |_| PORT,
        |scene| PODS.iter().try_for_each(|name| add_pod(scene, name, &[], "")),
    )?;
    let met = at_each_level(|host| {
        let report = good(host.load().fresh().requests(60).connections(4).run(stage.client())?, 60)?;
        ensure!(report.by_pod.len() == 1, "one address has one pod: {report:?}");
        Ok(report.by_pod)
    })?;
    ensure!(met.values().all(|pods| *pods == met["of-rule"]), "{met:?}");
    let mut tables = Vec::new();
    for size in [
        "ringHash: {minimumRingSize: 16}",
        "ringHash: {minimumRingSize: 4096}",
        "minimumRingSize: 64",
        "maglev: {tableSize: 11}",
        "maglev: {tableSize: 1009}",
    ] {
        stage.rules(&hash(&format!("httpHeaderName: x-user, {size}")))?;
        let by_user = at_each_level(|host| {
            let load = host.load().users(USERS).header("x-user: user-{user}").connections(4);
            let report = good(load.requests(4 * USERS).run(stage.client())?, 4 * USERS)?;
            ensure!(report.moved == 0 && report.by_user.len() as u64 == USERS, "{size}: {} moved", report.moved);
            Ok(report.by_user)
        })?;
        let table = &by_user["of-rule"];
        for (host, other) in &by_user {
            let others = table.iter().filter(|(user, pod)| other.get(*user) != Some(pod)).count();
            ensure!(others == 0, "{size}: {others} of {USERS} users have another pod at {host}");
        }
        tables.push((size, table.clone()));
    }
    // What was compared are tables of these sizes, and not one that all have.
    for (position, (size, table)) in tables.iter().enumerate() {
        let same = tables[..position].iter().find(|(_, other)| other == table);
        ensure!(same.is_none(), "{size} makes the same table as {same:?}");
    }
    Ok(())
}

#[test]
fn zones_and_upgrades_are_told_of_and_change_nothing() -> Result<()> {
    if !require("zones_and_upgrades_are_told_of_and_change_nothing", &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    let zones = |zones: &str| {
        rules(&format!(
            "loadBalancer: {{zoneAwareLbSetting: {{{zones}}}}}, outlierDetection: {{consecutive5xxErrors: 5}}"
        ))
    };
    let stage = stage(&zones("enabled: true"), |scene| {
        scene.mesh.pod_mut("client").spec.labels.insert("istio-locality".into(), "eu.a".into());
        let places = PODS.into_iter().zip(["eu.a", "eu.b", "us.x"]);
        places.into_iter().try_for_each(|(name, place)| add_pod(scene, name, &[("istio-locality", place)], ""))
    })?;
    let told = |host: Host, what: &str| -> Result<bool> {
        let findings = stage.agent.findings()?;
        let whose = format!("DestinationRule default/{})", host.name);
        Ok(findings.iter().any(|finding| finding.contains(&whose) && finding.contains(what)))
    };
    for (setting, pods) in [("enabled: true", 3), ("enabled: false", 1)] {
        if pods == 1 {
            stage.rules(&zones(setting))?;
        }
        at_each_level(|host| {
            let report = good(host.load().requests(120).run(stage.client())?, 120)?;
            ensure!(report.by_pod.len() == pods && report.by_pod.contains_key(PODS[0]), "{setting}: {report:?}");
            let alike = "endpoints of every locality are used alike";
            ensure!(told(host, alike)? == (pods == 3), "{setting}: {:?}", stage.agent.findings()?);
            Ok(())
        })?;
    }
    for (policy, is_told) in [("UPGRADE", true), ("DO_NOT_UPGRADE", false)] {
        let upgrade = rules(&format!("connectionPool: {{http: {{h2UpgradePolicy: {policy}}}}}"));
        stage.scene.manifests.write("rules.yaml", &upgrade)?;
        at_each_level(|host| {
            eventually(&format!("{policy} is told of: {is_told}"), Duration::from_secs(10), || {
                Ok((told(host, "HTTP/1.1 is passed on as HTTP/1.1")? == is_told).then_some(()))
            })?;
            let seen = host.curl(&stage, "/echo")?;
            ensure!(seen.status == 200 && seen.body.starts_with("GET /echo HTTP/1.1\n"), "{policy}: {seen:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_new_pod_warms_up_for_the_older_name_of_the_duration() -> Result<()> {
    if !require("a_new_pod_warms_up_for_the_older_name_of_the_duration", &[Need::Agent]) {
        return Ok(());
    }
    let warm = |seconds: u32| rules(&format!("loadBalancer: {{simple: ROUND_ROBIN, warmupDurationSecs: {seconds}s}}"));
    let mut stage = stage(&warm(600), |scene| PODS[..2].iter().try_for_each(|name| add_pod(scene, name, &[], "")))?;
    let shares = |stage: &Stage, pod: &str| {
        at_each_level(|host| {
            let report = good(host.load().requests(400).connections(4).run(stage.client())?, 400)?;
            Ok(report.by_pod.get(pod).copied().unwrap_or_default())
        })
    };
    let old = shares(&stage, PODS[1])?;
    ensure!(old.values().all(|hits| (140..=260).contains(hits)), "those that were there are warm: {old:?} of 400");
    add_pod(&mut stage.scene, "cold", &[], "")?;
    stage.in_force(|| stage.scene.manifests.pods(&stage.scene.mesh))?;
    let cold = shares(&stage, "cold")?;
    // A tenth of the others' weight is 19 of 400; a third would be 133.
    ensure!(cold.values().all(|hits| (1..=60).contains(hits)), "it is cold: {cold:?} of 400");
    // It has been there for longer than this.
    std::thread::sleep(Duration::from_secs(1));
    stage.rules(&warm(1))?;
    let after = shares(&stage, "cold")?;
    ensure!(after.values().all(|hits| (90..=180).contains(hits)), "one of three: {after:?} of 400");
    Ok(())
}

/// So many requests, of which each second one is the bad pod's as long as it is in use.
const ASKED: u64 = 60;
/// How long it is left out; Istio's default is 30 s, which is longer than what is waited.
const BASE: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn what_counts_ejects_after_so_many_and_for_so_long() -> Result<()> {
    if !require("what_counts_ejects_after_so_many_and_for_so_long", &[Need::Agent]) {
        return Ok(());
    }
    for (what, status, errors) in [
        ("consecutive5xxErrors: 7", 500, 7),
        ("consecutiveGatewayErrors: 4, consecutive5xxErrors: 0", 502, 4),
        ("consecutiveErrors: 3", 502, 3),
        ("consecutive5xxErrors: 6, outlierDetectionHttpErrorCodes: [429]", 429, 6),
    ] {
        let detection = format!("outlierDetection: {{{what}, interval: 5m, baseEjectionTime: {}ms}}", BASE.as_millis());
        let policy = format!("loadBalancer: {{simple: ROUND_ROBIN}}, {detection}");
        let stage = stage(&rules(&policy), |scene| {
            add_pod(scene, "good", &[], "")?;
            add_pod(scene, "bad", &[], &format!("--status={status}"))
        })?;
        let away = at_each_level(|host| {
            let began = Instant::now();
            // Over one connection, so that one worker counts them one after another.
            let report = host.load().requests(ASKED).run(stage.client())?;
            let (failed, took) = (report.status(status), began.elapsed());
            ensure!(report.failed == 0 && report.status(200) == ASKED - failed, "{what}: {report:?}");
            // More only where this machine stood still for so long that it was back meanwhile.
            ensure!(failed == errors || failed > errors && took >= BASE, "{what}: {report:?} in {took:?}");
            let is_back = || {
                let report = good(host.load().path("/status/200").requests(6).run(stage.client())?, 6)?;
                Ok(report.by_pod.contains_key("bad").then_some(()))
            };
            eventually("it is asked again", PATIENCE, is_back)?;
            // From before it was ejected until after it was back: never shorter, however slow this machine is.
            let away = began.elapsed();
            ensure!(away >= BASE, "{what}: back after {away:?}");
            Ok(away)
        })?;
        proved!("{what}: {errors} errors, then away for {away:?}");
    }
    Ok(())
}
