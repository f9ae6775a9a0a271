//! Which requests a VirtualService is for: those for its hosts, not those of gateways; and how the access log names what
//! has taken them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use weir_tests::require::Need;
use weir_tests::{PodSpec, require};

use super::stage::{Answer, Stage, V1, V2, destination, http, object};

const NEEDS: &[Need] = &[Need::Agent, Need::Program("curl")];

/// A request for `host` to service-b's address.
fn ask(stage: &Stage, pod: &str, host: &str) -> Result<Answer> {
    let (header, url) = (format!("Host: {host}"), format!("http://{}/", stage.scene.http.ipv4()));
    stage.curl_in(pod, &url, &["-H", &header])
}

#[test]
fn a_host_is_known_by_all_of_its_names_and_by_short_ones_where_they_are_short_for_it() -> Result<()> {
    let name = "a_host_is_known_by_all_of_its_names_and_by_short_ones_where_they_are_short_for_it";
    if !require(name, NEEDS) {
        return Ok(());
    }
    let others = [("wide", "'*.example'", V2), ("wild", "'*.shop.example'", V1), ("exact", "eu.shop.example", V2)];
    let others = others.map(|(name, host, to)| {
        object("VirtualService", &format!("hosts: [{host}], http: [{{{to}}}]"))
            .replace("name: service-b,", &format!("name: {name},"))
    });
    let stage = Stage::furnished(&(http(&format!("{{{V2}}}")) + &others.concat()), |scene| {
        scene.mesh.add_pod(PodSpec::new("partner").namespace("partner"))?;
        scene.manifests.namespaces(&[("default", true), ("partner", true)])
    })?;
    stage.agent.await_enrolled("partner/partner", true)?;
    let address = stage.scene.http.ipv4().to_string();
    // A pod of either version answers what no rule is for, so twenty answers of one are the rule's.
    let version = |pod: &str, host: &str| -> Result<BTreeSet<String>> {
        let answers = (0..20).map(|_| ask(&stage, pod, host)).collect::<Result<Vec<_>>>()?;
        let told = |answer: &Answer| match answer.status {
            200 => answer.header("x-version").unwrap_or_default().to_owned(),
            status => status.to_string(),
        };
        Ok(answers.iter().map(told).collect())
    };
    for (pod, host, met) in [
        ("client", "service-b", "v2"),
        ("client", "SERVICE-B:80", "v2"),
        ("client", "service-b.default", "v2"),
        ("client", "service-b.default.svc", "v2"),
        ("client", "service-b.default.svc.cluster.local", "v2"),
        ("client", "service-b.default.svc.cluster.local.:80", "v2"),
        ("client", &address, "v2"),
        ("client", "eu.shop.example", "v2"),
        ("client", "us.shop.example", "v1"),
        ("client", "us.example", "v2"),
        ("client", "another.name", "v1 v2"),
        ("partner", "service-b.default", "v2"),
        // Short for a service of its own namespace, which has none of that name: no rule's, but where it dialled.
        ("partner", "service-b", "v1 v2"),
    ] {
        let found = version(pod, host)?;
        ensure!(found.iter().map(String::as_str).eq(met.split(' ')), "{pod} asks {host}: {found:?}");
    }
    Ok(())
}

#[test]
fn rules_for_gateways_alone_change_nothing_between_pods() -> Result<()> {
    if !require("rules_for_gateways_alone_change_nothing_between_pods", NEEDS) {
        return Ok(());
    }
    let rules = |gateways: &str| {
        object("VirtualService", &format!("hosts: [service-b], gateways: [{gateways}], http: [{{{V2}}}]"))
            + &destination("")
    };
    let stage = Stage::new(&rules("edge"))?;
    let met = || -> Result<BTreeSet<String>> {
        // The kernel chooses by connection.
        let report = stage.load().fresh().requests(100).run(stage.client())?;
        ensure!(report.failed == 0 && report.status(200) == 100, "{report:?}");
        Ok(report.by_version.into_keys().collect())
    };
    stage.agent.await_verdict("default/service-b:80", "balance")?;
    ensure!(met()? == ["v1".to_owned(), "v2".to_owned()].into(), "{:?}", met()?);
    let told = stage.agent.findings()?;
    ensure!(told.iter().any(|line| line.contains("gateways")), "it is told that nothing opens a port: {told:?}");
    for gateways in ["edge, mesh", "mesh"] {
        stage.rules(&rules(gateways))?;
        stage.agent.await_verdict("default/service-b:80", "proxy")?;
        ensure!(met()? == ["v2".to_owned()].into(), "{gateways}: {:?}", met()?);
    }
    Ok(())
}

#[test]
fn the_access_log_names_the_rule_and_the_match_that_took_a_request() -> Result<()> {
    if !require("the_access_log_names_the_rule_and_the_match_that_took_a_request", NEEDS) {
        return Ok(());
    }
    let stage = Stage::new(&http(&format!(
        "{{name: canary, match: [{{name: by-path, uri: {{prefix: /one}}}}, {{uri: {{prefix: /two}}}}], {V2}}}, \
         {{match: [{{name: alone, uri: {{prefix: /three}}}}], {V2}}}, {{name: stable, {V1}}}"
    )))?;
    for (path, version, route) in [
        ("/one", "v2", "canary.by-path"),
        ("/two", "v2", "canary"),
        ("/three", "v2", "alone"),
        ("/four", "v1", "stable"),
    ] {
        ensure!(stage.version(path, &[])? == version, "{path}");
        let line = stage.logged(path)?;
        ensure!(line.ends_with(&format!(" {route}")), "{path} was taken by {route}: {line}");
    }
    Ok(())
}
