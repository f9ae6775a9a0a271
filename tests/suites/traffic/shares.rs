//! How exact a small share is, and who moves when pods come and go.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use weir_tests::require::Need;
use weir_tests::{Report, proved, require};

use super::stage::{SUBSETS, Stage, destination, http, more_pods, object};

/// Of so many fair rolls at 1 % the share has a standard deviation of 0.02 points: 0.1 is five of them.
const ROLLS: u64 = 250_000;
const USERS: u64 = 1000;
const REQUESTS: u64 = 100_000;

#[test]
fn one_percent_is_one_percent() -> Result<()> {
    if !require("one_percent_is_one_percent", &[Need::Agent]) {
        return Ok(());
    }
    let split = "{route: [{destination: {host: service-b, subset: v1}, weight: 99}, \
                 {destination: {host: service-b, subset: v2}, weight: 1}]}";
    let stage = Stage::new(&http(split))?;
    let report = stage.load().requests(ROLLS).connections(8).run(stage.client())?;
    ensure!(report.failed == 0 && report.status(200) == ROLLS, "{report:?}");
    let share = report.share("v2");
    ensure!((share - 1.0).abs() <= 0.1, "{share} %");
    proved!("1 % of {ROLLS} requests: {share:.3} %, in {:.1} s", report.seconds);
    Ok(())
}

/// Pods of service-b beside the scene's three.
const MORE: [&str; 5] = ["b-v1-2", "b-v1-3", "b-v1-4", "b-v1-5", "b-v1-6"];

/// A thousand users, each known by this header.
fn by_user(stage: &Stage, header: &str, requests: u64) -> Result<Report> {
    let load = stage.load().users(USERS).header(header).requests(requests).connections(8);
    let report = load.run(stage.client())?;
    ensure!(report.failed == 0 && report.status(200) == requests, "{report:?}");
    ensure!(report.by_user.len() as u64 == USERS.min(requests), "{} users", report.by_user.len());
    Ok(report)
}

/// Users whose pod is another one, of those whose pod was not `gone`.
fn moved(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>, gone: &str) -> usize {
    before.iter().filter(|(user, pod)| *pod != gone && after.get(*user) != Some(pod)).count()
}

#[test]
fn users_stay_where_they_are_and_only_those_of_a_lost_pod_move() -> Result<()> {
    if !require("users_stay_where_they_are_and_only_those_of_a_lost_pod_move", &[Need::Agent]) {
        return Ok(());
    }
    let lost = "b-v1-1";
    for (what, hash, header, percent) in [
        (
            "ring hash by header",
            "httpHeaderName: x-user, ringHash: {minimumRingSize: 2048}",
            "x-user: user-{user}",
            0.0,
        ),
        (
            "Maglev by cookie",
            "httpCookie: {name: user}, maglev: {tableSize: 65537}",
            "cookie: a=b; user=user-{user}",
            2.0,
        ),
    ] {
        let rules = destination(&format!("loadBalancer: {{consistentHash: {{{hash}}}}}"));
        let mut stage = Stage::furnished(&rules, |scene| more_pods(&mut scene.mesh, &MORE, "v1", ""))?;
        stage.agent.await_verdict("default/service-b:80", "proxy")?;
        let before = by_user(&stage, header, REQUESTS)?;
        ensure!(before.moved == 0, "{what}: {} of {REQUESTS} were answered by another pod", before.moved);
        ensure!(before.by_pod.len() == 8, "{what}: {:?}", before.by_pod);
        stage.scene.mesh.pod_mut(lost).ready = false;
        stage.in_force(|| stage.scene.manifests.pods(&stage.scene.mesh))?;
        let after = by_user(&stage, header, REQUESTS / 10)?;
        ensure!(after.moved == 0 && !after.by_pod.contains_key(lost), "{what}: {:?}", after.by_pod);
        let others = before.by_user.values().filter(|pod| *pod != lost).count();
        let moved = moved(&before.by_user, &after.by_user, lost);
        ensure!(moved as f64 <= percent / 100.0 * others as f64, "{what}: {moved} of {others} others moved");
        stage.scene.mesh.pod_mut(lost).ready = true;
        stage.in_force(|| stage.scene.manifests.pods(&stage.scene.mesh))?;
        let again = by_user(&stage, header, REQUESTS / 10)?;
        ensure!(again.by_user == before.by_user, "{what}: with the pod back, everybody is where they were");
        proved!(
            "{what}: {REQUESTS} requests of {USERS} users, none on another pod; a pod leaves: {moved} of {others} others move"
        );
    }
    Ok(())
}

#[test]
fn a_user_stays_in_the_canary_while_its_weight_stays() -> Result<()> {
    if !require("a_user_stays_in_the_canary_while_its_weight_stays", &[Need::Agent]) {
        return Ok(());
    }
    let rules = |v1: u32, v2: u32, more: &str| {
        let route = format!(
            "{{{more} route: [{{destination: {{host: service-b, subset: v1}}, weight: {v1}}}, \
             {{destination: {{host: service-b, subset: v2}}, weight: {v2}}}]}}"
        );
        let hash = "trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}";
        object("VirtualService", &format!("hosts: [service-b], http: [{route}]"))
            + &object("DestinationRule", &format!("host: service-b, {hash}, {SUBSETS}"))
    };
    let mut stage = Stage::furnished(&rules(80, 20, ""), |scene| more_pods(&mut scene.mesh, &MORE, "v1", ""))?;
    stage.agent.await_verdict("default/service-b:80", "proxy")?;
    let header = "x-user: user-{user}";
    let in_canary = |report: &Report| -> Vec<String> {
        report.by_user.iter().filter(|(_, pod)| pod.starts_with("b-v2")).map(|(user, _)| user.clone()).collect()
    };
    let before = in_canary(&by_user(&stage, header, 20_000)?);
    ensure!((140..=260).contains(&before.len()), "{} of 1,000 users at 20 %", before.len());
    // Something else changes: a timeout, and a pod of the other version.
    stage.rules(&rules(80, 20, "timeout: 5s,"))?;
    stage.scene.mesh.pod_mut("b-v1-2").ready = false;
    stage.in_force(|| stage.scene.manifests.pods(&stage.scene.mesh))?;
    ensure!(in_canary(&by_user(&stage, header, 5000)?) == before, "the canary's users are who they were");
    stage.rules(&rules(70, 30, ""))?;
    let more = in_canary(&by_user(&stage, header, 5000)?);
    let left = before.iter().find(|user| !more.contains(user));
    ensure!(left.is_none() && more.len() > before.len(), "{left:?} left the canary when it grew");
    let one = before.first().context("the canary has users")?;
    proved!(
        "{} of {USERS} users in the canary at 20 %, the same after other changes, all of them still at 30 % (user {one})",
        before.len()
    );
    Ok(())
}

#[test]
fn the_most_specific_balancer_is_in_force() -> Result<()> {
    if !require("the_most_specific_balancer_is_in_force", &[Need::Agent]) {
        return Ok(());
    }
    let hash = "loadBalancer: {consistentHash: {httpHeaderName: x-user}}";
    let random = "loadBalancer: {simple: RANDOM}";
    let ports = |balancer: &str| format!("portLevelSettings: [{{port: {{number: 80}}, {balancer}}}]");
    let rules = |policy: &str, subset: &str| {
        let subset = if subset.is_empty() { String::new() } else { format!(", trafficPolicy: {{{subset}}}") };
        let subsets = format!("subsets: [{{name: v1, labels: {{version: v1}}{subset}}}]");
        object("VirtualService", "hosts: [service-b], http: [{route: [{destination: {host: service-b, subset: v1}}]}]")
            + &object("DestinationRule", &format!("host: service-b, trafficPolicy: {{{policy}}}, {subsets}"))
    };
    let stage = Stage::furnished(&rules(hash, ""), |scene| more_pods(&mut scene.mesh, &MORE, "v1", ""))?;
    stage.agent.await_verdict("default/service-b:80", "proxy")?;
    for (policy, subset, sticks) in [
        (random.to_owned(), String::new(), false),
        (random.to_owned(), hash.to_owned(), true),
        (hash.to_owned(), random.to_owned(), false),
        (format!("{random}, {}", ports(hash)), String::new(), true),
        (format!("{hash}, {}", ports(random)), String::new(), false),
        (random.to_owned(), format!("{random}, {}", ports(hash)), true),
        (hash.to_owned(), format!("{hash}, {}", ports("loadBalancer: {simple: ROUND_ROBIN}")), false),
    ] {
        stage.rules(&rules(&policy, &subset))?;
        let report = by_user(&stage, "x-user: user-{user}", 4000)?;
        ensure!((report.moved == 0) == sticks, "{policy} and {subset}: {} moved", report.moved);
        ensure!(report.by_pod.len() == 7, "{:?}", report.by_pod);
    }
    Ok(())
}
