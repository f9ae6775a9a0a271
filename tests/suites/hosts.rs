//! Which host and which route: every form of a service's name, matches on headers and paths, and the three ways to
//! answer when there is nowhere to go.

use std::process::Command;

use anyhow::{Result, ensure};
use weir_tests::canary::{HTTP_PORT, split, subsets, virtual_service};
use weir_tests::require::Need;
use weir_tests::{Agent, Canary, HttpLoad, process, require};

fn rules(scene: &Canary, rules: &str) -> Result<()> {
    let yaml = format!("{}---\n{}", subsets("service-b"), virtual_service("service-b", rules));
    scene.manifests.write("rules.yaml", &yaml)
}

#[test]
fn every_form_of_the_name_takes_the_same_rules() -> Result<()> {
    if !require("every_form_of_the_name_takes_the_same_rules", &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    rules(&scene, &format!("  http:\n  - route:\n{}", split("service-b", 80, 0, 100)))?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    let address = scene.http.ipv4().to_string();
    let names = [
        "service-b",
        "service-b:80",
        "service-b.default",
        "service-b.default.svc",
        "service-b.default.svc.cluster.local",
        "SERVICE-B.default.svc.cluster.local:80",
        address.as_str(),
    ];
    for name in names {
        let report = HttpLoad::new(scene.http.at(80)).host(name).requests(20).run(scene.client())?;
        ensure!(report.version("v2") == 20, "{name}: {report:?}");
    }
    // A real client, in both families.
    for target in [scene.http.at(80), scene.http.at6(80)] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "5", "-H", "Host: service-b", &format!("http://{target}/")]);
        let answer = process::output(&scene.client().place, curl)?;
        ensure!(answer.starts_with("v2 "), "curl got {answer:?}");
    }
    Ok(())
}

#[test]
fn the_first_rule_that_matches_wins() -> Result<()> {
    if !require("the_first_rule_that_matches_wins", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    let v1 = format!("route:\n{}", split("service-b", 80, 100, 0));
    let v2 = format!("    route:\n{}", split("service-b", 80, 0, 100));
    rules(
        &scene,
        &format!(
            "  http:\n  - match: [{{headers: {{x-tester: {{exact: \"yes\"}}}}}}]\n{v2}  \
             - match: [{{uri: {{prefix: /new}}}}]\n{v2}  - match: [{{uri: {{exact: /only}}}}]\n{v2}  - {v1}"
        ),
    )?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    let at = || HttpLoad::new(scene.http.at(80)).host("service-b").requests(10);
    let cases = [
        ("no match", at(), "v1"),
        ("header", at().header("x-tester: yes"), "v2"),
        ("header name in other case", at().header("X-Tester: yes"), "v2"),
        ("other value", at().header("x-tester: yes!"), "v1"),
        ("prefix", at().path("/new/things"), "v2"),
        ("plain string prefix", at().path("/newer"), "v2"),
        ("exact", at().path("/only"), "v2"),
        ("exact with a query", at().path("/only?x=1"), "v2"),
        ("longer than exact", at().path("/only/"), "v1"),
    ];
    for (case, load, version) in cases {
        let report = load.run(scene.client())?;
        ensure!(report.version(version) == 10, "{case}: {report:?}");
    }
    Ok(())
}

#[test]
fn nowhere_to_go_is_answered_with_the_reason() -> Result<()> {
    if !require("nowhere_to_go_is_answered_with_the_reason", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    let one = |path: &str, subset: &str| {
        format!(
            "  - match: [{{uri: {{prefix: {path}}}}}]\n    route:\n    \
             - destination: {{host: service-b, subset: {subset}, port: {{number: 80}}}}\n"
        )
    };
    let yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: service-b, namespace: default}}\n\
         spec:\n  host: service-b\n  subsets:\n  - {{name: v1, labels: {{version: v1}}}}\n  \
         - {{name: empty, labels: {{version: v9}}}}\n---\n{}",
        virtual_service(
            "service-b",
            &format!("  http:\n{}{}{}", one("/v1", "v1"), one("/empty", "empty"), one("/unknown", "nobody")),
        )
    );
    scene.manifests.write("rules.yaml", &yaml)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    let at =
        |path: &str| HttpLoad::new(scene.http.at(80)).host("service-b").path(path).requests(10).run(scene.client());
    let flagged = |flag: &str| agent.metric("weir_proxy_ended_total", &format!("\"{flag}\""));
    for (path, status, flag) in [("/none", 404, "NR"), ("/unknown", 503, "NC"), ("/empty", 503, "UH")] {
        let before = flagged(flag)?;
        let report = at(path)?;
        ensure!(report.status(status) == 10 && report.failed == 0, "{path}: {report:?}");
        let counted = flagged(flag)? - before;
        ensure!((counted - 10.0).abs() < 0.5, "{flag} is counted {counted} times");
        agent.logged(flag, 10)?;
    }
    ensure!(at("/v1")?.version("v1") == 10, "{:?}", at("/v1")?);
    let findings = agent.findings()?;
    ensure!(findings.iter().any(|f| f.contains("nobody")), "the unknown subset is reported: {findings:?}");
    ensure!(findings.iter().any(|f| f.contains("empty")), "the subset without pods is reported: {findings:?}");
    Ok(())
}

#[test]
fn what_a_rule_does_itself_reaches_a_real_client() -> Result<()> {
    if !require("what_a_rule_does_itself_reaches_a_real_client", &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    let to_v2 = split("service-b", 80, 0, 100);
    rules(
        &scene,
        &format!(
            "  http:\n  \
             - match: [{{uri: {{prefix: /old}}}}]\n    redirect: {{uri: /new, redirectCode: 302}}\n  \
             - match: [{{uri: {{exact: /gone}}}}]\n    directResponse: {{status: 410, body: {{string: gone}}}}\n  \
             - match: [{{uri: {{prefix: /broken}}}}]\n    fault: {{abort: {{httpStatus: 418, percentage: {{value: 100}}}}}}\n    route:\n{to_v2}  \
             - headers: {{response: {{set: {{x-rule: \"yes\"}}}}}}\n    timeout: 5s\n    retries: {{attempts: 2, retryOn: 5xx}}\n    route:\n{to_v2}"
        ),
    )?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    let ask = |path: &str| -> Result<String> {
        let mut curl = Command::new("curl");
        let url = format!("http://{}{path}", scene.http.at(80));
        let shown = "%{http_code} %{redirect_url} %header{x-rule} ";
        curl.args(["-sS", "--max-time", "5", "-H", "Host: service-b", "-w", shown, &url]);
        process::output(&scene.client().place, curl)
    };
    let redirected = ask("/old?x=1")?;
    ensure!(redirected.trim_end() == "302 http://service-b/new?x=1", "{redirected:?}");
    ensure!(ask("/gone")?.trim_end() == "gone410", "a direct response");
    ensure!(ask("/broken")?.trim_end() == "fault filter abort418", "an abort");
    let forwarded = ask("/")?;
    ensure!(forwarded.starts_with("v2 ") && forwarded.contains("200  yes"), "{forwarded:?}");
    Ok(())
}
