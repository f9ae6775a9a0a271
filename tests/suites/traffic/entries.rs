//! Hosts that no Service stands for: ServiceEntries, their endpoints and WorkloadEntries, met as clients meet them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use weir_tests::require::Need;
use weir_tests::{Canary, HttpLoad, PodSpec, Report, load, require};

use super::stage::{Stage, V1, destination, object};

const NEEDS: &[Need] = &[Need::Agent, Need::Program("curl")];

/// The address of the entries.
const DB: &str = "10.99.0.1";
/// Their ports; the second endpoint listens elsewhere.
const PORTS: &str = "ports: [{number: 5000, name: tcp-db, protocol: TCP, targetPort: 9100}, \
                     {number: 80, name: http-web, protocol: HTTP}]";
const ELSEWHERE: &str = "ports: {tcp-db: 9200, http-web: 8081}";

fn db(port: u16) -> SocketAddr {
    SocketAddr::new(DB.parse().expect("an address"), port)
}

/// An object of a namespace.
fn named(namespace: &str, name: &str, object: &str) -> String {
    object.replace("{name: service-b, namespace: default}", &format!("{{name: {name}, namespace: {namespace}}}"))
}

/// The entry for db.example.com with these fields beside its ports.
fn entry(fields: &str) -> String {
    let spec = format!("hosts: [db.example.com], addresses: [{DB}], {PORTS}, {fields}");
    named("default", "db", &object("ServiceEntry", &spec))
}

/// Rules for its requests, and subsets of its endpoints.
fn with_rules(rules: &str) -> String {
    let subsets = "subsets: [{name: v2, labels: {version: v2}}]";
    named("default", "db", &object("VirtualService", &format!("hosts: [db.example.com], http: [{rules}]")))
        + &named("default", "db", &object("DestinationRule", &format!("host: db.example.com, {subsets}")))
}

const TO_DB: &str = "route: [{destination: {host: db.example.com}}]";

/// Servers that no Service selects: two that entries name, and one that nothing names, in another namespace.
fn servers(scene: &mut Canary) -> Result<()> {
    scene.mesh.add_pod(PodSpec::new("vm-1").label("version", "v1").label("app", "vm"))?;
    scene.mesh.add_pod(PodSpec::new("vm-2").label("version", "v2"))?;
    scene.mesh.add_pod(PodSpec::new("outside").namespace("elsewhere").label("version", "v9"))?;
    scene.mesh.add_pod(PodSpec::new("partner").namespace("partner"))?;
    scene.mesh.serve("vm-1", "--http 80 --tcp 9100")?;
    scene.mesh.serve("vm-2", "--http 8081 --tcp 9200")?;
    scene.mesh.serve("outside", "--http 80 --tcp 9100")?;
    scene.manifests.namespaces(&[("default", true), ("partner", true)])
}

/// The scene with these servers, and with rules that name the addresses of the first two.
fn stage(rules: impl FnOnce(&str, &str) -> String, more: impl FnOnce(&mut Canary) -> Result<()>) -> Result<Stage> {
    // The rules name addresses that are known once the pods are there.
    let stage = Stage::furnished("", |scene| {
        servers(scene)?;
        more(scene)
    })?;
    let [one, two] = ["vm-1", "vm-2"].map(|pod| stage.scene.mesh.pod(pod).ipv4.to_string());
    stage.agent.await_enrolled("partner/partner", true)?;
    stage.rules(&rules(&one, &two))?;
    Ok(stage)
}

/// STATIC endpoints with weights.
fn weighted(one: &str, two: &str, weights: [u32; 2]) -> String {
    entry(&format!(
        "resolution: STATIC, endpoints: [{{address: {one}, weight: {}, labels: {{version: v1}}}}, \
         {{address: {two}, weight: {}, {ELSEWHERE}, labels: {{version: v2}}}}]",
        weights[0], weights[1]
    ))
}

/// Requests for the entry's host, each on a connection of its own or not.
fn requests(stage: &Stage, fresh: bool) -> Result<Report> {
    let load = HttpLoad::new(db(80)).host("db.example.com").requests(400).connections(4);
    let load = if fresh { load.fresh() } else { load };
    let report = load.run(stage.client())?;
    ensure!(report.failed == 0 && report.status(200) == 400, "{report:?}");
    Ok(report)
}

/// Who answers a connection to a port of the entry, of many.
fn connections(stage: &Stage, pod: &str, target: SocketAddr) -> Result<BTreeSet<String>> {
    let report = load::tcp(stage.scene.mesh.pod(pod), target, 40, 2)?;
    ensure!(report.failed == 0, "{pod} to {target}: {report:?}");
    Ok(report.by_pod.into_keys().collect())
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Six standard deviations of a quarter of 400.
const ALLOWED: f64 = 13.0;

#[test]
fn static_endpoints_get_by_weight_at_their_own_ports() -> Result<()> {
    if !require("static_endpoints_get_by_weight_at_their_own_ports", NEEDS) {
        return Ok(());
    }
    let stage = stage(|one, two| weighted(one, two, [3, 1]), |_| Ok(()))?;
    let [one, two] = ["vm-1", "vm-2"].map(|pod| stage.scene.mesh.pod(pod).ipv4.to_string());
    for (weights, share) in [([3, 1], 25.0), ([1, 3], 75.0)] {
        if weights != [3, 1] {
            stage.rules(&weighted(&one, &two, weights))?;
        }
        for port in [80, 5000] {
            stage.agent.await_verdict(&format!("default/db.example.com:{port}"), "balance")?;
        }
        let report = load::tcp(stage.client(), db(5000), 400, 4)?;
        ensure!(report.failed == 0 && (report.share("v2") - share).abs() < ALLOWED, "{weights:?}: {report:?}");
        let report = requests(&stage, true)?;
        ensure!((report.share("v2") - share).abs() < ALLOWED, "in the kernel {weights:?}: {report:?}");
        // The same of requests, where a rule looks at them.
        stage.rules(&(weighted(&one, &two, weights) + &with_rules(&format!("{{{TO_DB}}}"))))?;
        stage.agent.await_verdict("default/db.example.com:80", "proxy")?;
        let report = requests(&stage, false)?;
        ensure!((report.share("v2") - share).abs() < ALLOWED, "in the proxy {weights:?}: {report:?}");
        stage.rules(&weighted(&one, &two, weights))?;
    }
    Ok(())
}

#[test]
fn rules_and_subsets_hold_for_the_hosts_of_an_entry() -> Result<()> {
    if !require("rules_and_subsets_hold_for_the_hosts_of_an_entry", NEEDS) {
        return Ok(());
    }
    let v2 = "route: [{destination: {host: db.example.com, subset: v2}}]";
    let rules = with_rules(&format!("{{match: [{{uri: {{prefix: /v2}}}}], {v2}}}, {{timeout: 5s, {TO_DB}}}"));
    let stage = stage(|one, two| weighted(one, two, [1, 1]) + &rules, |_| Ok(()))?;
    stage.agent.await_verdict("default/db.example.com:80", "proxy")?;
    let met = |path: &str, host: &str| -> Result<BTreeSet<String>> {
        let (url, header) = (format!("http://{DB}{path}"), format!("Host: {host}"));
        let answers = (0..16).map(|_| stage.curl_in("client", &url, &["-H", &header])).collect::<Result<Vec<_>>>()?;
        Ok(answers.iter().map(|a| a.header("x-pod").map_or_else(|| a.status.to_string(), str::to_owned)).collect())
    };
    for (path, host, pods) in [
        ("/v2/x", "db.example.com", &["vm-2"][..]),
        ("/v2/x", "DB.example.com:80", &["vm-2"]),
        ("/", "db.example.com", &["vm-1", "vm-2"]),
        // No rule is for another name, at the same address.
        ("/v2/x", "other.example.com", &["vm-1", "vm-2"]),
    ] {
        let found = met(path, host)?;
        ensure!(found == names(pods), "{path} of {host}: {found:?}");
    }
    Ok(())
}

#[test]
fn selected_pods_and_workload_entries_are_endpoints_of_an_entry() -> Result<()> {
    if !require("selected_pods_and_workload_entries_are_endpoints_of_an_entry", NEEDS) {
        return Ok(());
    }
    let rules = |one: &str, two: &str, weight: u32, labels: &str| {
        let selects = entry("location: MESH_INTERNAL, resolution: STATIC, workloadSelector: {labels: {app: vm}}");
        let workload = format!("address: {two}, labels: {{{labels}}}, {ELSEWHERE}, weight: {weight}");
        let foreign = format!("address: {one}, labels: {{app: vm}}, ports: {{tcp-db: 9999, http-web: 9999}}");
        selects
            + &named("default", "vm-2", &object("WorkloadEntry", &workload))
            + &named("partner", "vm-3", &object("WorkloadEntry", &foreign))
    };
    let stage = stage(|one, two| rules(one, two, 3, "app: vm"), |_| Ok(()))?;
    let [one, two] = ["vm-1", "vm-2"].map(|pod| stage.scene.mesh.pod(pod).ipv4.to_string());
    stage.agent.await_verdict("default/db.example.com:5000", "balance")?;
    for (weight, share) in [(3, 75.0), (1, 50.0)] {
        if weight != 3 {
            stage.rules(&rules(&one, &two, weight, "app: vm"))?;
        }
        let report = load::tcp(stage.client(), db(5000), 400, 4)?;
        // Six standard deviations of a half. Nothing listens at the port that the other namespace's workload has.
        ensure!(report.failed == 0 && (report.share("v2") - share).abs() < 15.0, "{weight}: {report:?}");
        let report = requests(&stage, true)?;
        ensure!((report.share("v2") - share).abs() < 15.0, "{weight}: {report:?}");
    }
    stage.rules(&rules(&one, &two, 1, "app: other"))?;
    let found = connections(&stage, "client", db(5000))?;
    ensure!(found == names(&["vm-1"]), "without the label it is none: {found:?}");
    Ok(())
}

#[test]
fn endpoints_of_the_clients_locality_come_first() -> Result<()> {
    if !require("endpoints_of_the_clients_locality_come_first", NEEDS) {
        return Ok(());
    }
    let policy = |policy: &str| {
        let rule = format!("host: db.example.com, trafficPolicy: {{{policy}}}");
        named("default", "db", &object("DestinationRule", &rule))
    };
    let ejects = policy("outlierDetection: {consecutive5xxErrors: 3, baseEjectionTime: 10m, maxEjectionPercent: 100}");
    let of_entry = |one: &str, two: &str, places: [&str; 2]| {
        entry(&format!(
            "resolution: STATIC, endpoints: [{{address: {one}, locality: {}}}, \
             {{address: {two}, locality: {}, {ELSEWHERE}}}]",
            places[0], places[1]
        ))
    };
    let of_workloads = |one: &str, two: &str, places: [&str; 2]| {
        let workload = |name: &str, address: &str, place: &str, more: &str| {
            let spec = format!("address: {address}, labels: {{app: far}}, locality: {place}{more}");
            named("default", name, &object("WorkloadEntry", &spec))
        };
        entry("resolution: STATIC, workloadSelector: {labels: {app: far}}")
            + &workload("w-1", one, places[0], "")
            + &workload("w-2", two, places[1], &format!(", {ELSEWHERE}"))
    };
    let at_home = |scene: &mut Canary| {
        scene.mesh.pod_mut("client").spec.labels.insert("istio-locality".into(), "eu.a".into());
        Ok(())
    };
    let stage =
        stage(|one, two| of_entry(one, two, ["eu/a", "us/x"]) + &policy("loadBalancer: {simple: RANDOM}"), at_home)?;
    let [one, two] = ["vm-1", "vm-2"].map(|pod| stage.scene.mesh.pod(pod).ipv4.to_string());
    let met = || -> Result<BTreeSet<String>> { Ok(requests(&stage, false)?.by_pod.into_keys().collect()) };
    ensure!(met()? == names(&["vm-1", "vm-2"]), "nothing asks for localities: {:?}", met()?);
    for (places, near) in [(["eu/a", "us/x"], "vm-1"), (["us/x", "eu/a/7"], "vm-2"), (["us/x", "eu/b"], "vm-2")] {
        for rules in [of_entry(&one, &two, places), of_workloads(&one, &two, places)] {
            stage.rules(&(rules.clone() + &ejects))?;
            let found = met()?;
            ensure!(found == names(&[near]), "{places:?}: {found:?} of {rules}");
        }
    }
    Ok(())
}

#[test]
fn an_entry_is_for_those_whom_it_is_exported_to() -> Result<()> {
    if !require("an_entry_is_for_those_whom_it_is_exported_to", NEEDS) {
        return Ok(());
    }
    let rules = |to: &str, one: &str, two: &str| {
        weighted(one, two, [1, 1]).replace("hosts:", &format!("exportTo: [{to}], hosts:"))
    };
    let stage = stage(
        |one, two| rules("'*'", one, two),
        |scene| {
            let behind = scene.mesh.pod("outside").at(9100);
            scene.mesh.relay(db(5000), &[behind])
        },
    )?;
    let [one, two] = ["vm-1", "vm-2"].map(|pod| stage.scene.mesh.pod(pod).ipv4.to_string());
    let (inside, outside) = (names(&["vm-1", "vm-2"]), names(&["outside"]));
    for (to, client, partner) in [
        ("'*'", &inside, &inside),
        ("'.'", &inside, &outside),
        ("partner", &outside, &inside),
        ("'.', partner", &inside, &inside),
        ("nobody", &outside, &outside),
    ] {
        if to != "'*'" {
            stage.rules(&rules(to, &one, &two))?;
        }
        let found = [connections(&stage, "client", db(5000))?, connections(&stage, "partner", db(5000))?];
        ensure!([&found[0], &found[1]] == [client, partner], "exported to {to}: {found:?}");
    }
    Ok(())
}

#[test]
fn what_an_entry_cannot_resolve_passes_as_without_it() -> Result<()> {
    if !require("what_an_entry_cannot_resolve_passes_as_without_it", NEEDS) {
        return Ok(());
    }
    let range: SocketAddr = "10.98.0.5:5000".parse()?;
    let stage = stage(
        |one, two| weighted(one, two, [1, 1]),
        |scene| {
            let behind = [9100, 80].map(|port| scene.mesh.pod("outside").at(port));
            scene.mesh.relay(db(5000), &behind[..1])?;
            scene.mesh.relay(db(80), &behind[1..])?;
            scene.mesh.relay(range, &behind[..1])
        },
    )?;
    let [one, two] = ["vm-1", "vm-2"].map(|pod| stage.scene.mesh.pod(pod).ipv4.to_string());
    let (inside, outside) = (names(&["vm-1", "vm-2"]), names(&["outside"]));
    let told = |line: &str| -> Result<()> {
        let findings = stage.agent.findings()?;
        ensure!(findings.iter().any(|finding| finding.contains(line)), "{line}: {findings:?}");
        Ok(())
    };
    let fixed = weighted(&one, &two, [1, 1]);
    ensure!(connections(&stage, "client", db(5000))? == inside, "STATIC is in force");
    // A range beside the address, and names in the place of the one.
    stage.rules(&fixed.replace(&format!("[{DB}]"), &format!("[{DB}, 10.98.0.0/24]")))?;
    ensure!(connections(&stage, "client", db(5000))? == inside, "the address is in force");
    ensure!(connections(&stage, "client", range)? == outside, "the range is not");
    told("connections to the range 10.98.0.0/24 pass as without weir")?;
    stage.rules(&fixed.replace("[db.example.com]", "['*.example.com']"))?;
    ensure!(connections(&stage, "client", db(5000))? == outside, "many hosts are none");
    told("*.example.com")?;
    // An endpoint that is a path gets nothing.
    stage.rules(
        &entry(&format!("resolution: STATIC, endpoints: [{{address: {one}}}, {{address: 'unix:///run/db'}}]"))
            .replace(PORTS, "ports: [{number: 5000, name: tcp-db, protocol: TCP, targetPort: 9100}]"),
    )?;
    ensure!(connections(&stage, "client", db(5000))? == names(&["vm-1"]), "all of it goes to the address");
    for resolution in ["DNS", "NONE", "DNS_ROUND_ROBIN"] {
        let unresolved = if resolution == "NONE" {
            entry("resolution: NONE")
        } else {
            entry(&format!("resolution: {resolution}, endpoints: [{{address: {one}}}]"))
        };
        stage.rules(&unresolved)?;
        ensure!(connections(&stage, "client", db(5000))? == outside, "{resolution} passes");
        told(&format!("resolution: {resolution}"))?;
        // What rules send there finds nobody.
        let to_db = format!("{{match: [{{uri: {{prefix: /db}}}}], {TO_DB}}}, {{{V1}}}");
        let rules = object("VirtualService", &format!("hosts: [service-b], http: [{to_db}]")) + &destination("");
        stage.rules(&(unresolved.clone() + &rules))?;
        ensure!(stage.curl("/db", &[])?.status == 503 && stage.version("/", &[])? == "v1", "{resolution}");
        // Where encryption is asked for, nothing passes in plain text.
        let tls = "host: db.example.com, trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true}}";
        stage.rules(&(unresolved + &named("default", "db", &object("DestinationRule", tls))))?;
        let report = load::tcp(stage.client(), db(5000), 10, 1)?;
        ensure!(report.failed == 10, "{resolution} with TLS: {report:?}");
    }
    Ok(())
}
