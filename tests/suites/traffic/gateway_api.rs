//! The Gateway API's rules for services: HTTPRoute's matches, weights, filters and timeouts.

use anyhow::{Result, ensure};
use weir_tests::require::Need;
use weir_tests::{Service, eventually, require};

use super::stage::Stage;

/// Routes for service-b; its versions are services of their own.
fn route(rules: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: service-b, namespace: default}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: service-b, port: 80}}], rules: [{rules}]}}\n"
    )
}

fn to(name: &str) -> String {
    format!("backendRefs: [{{name: {name}, port: 80}}]")
}

fn stage(rules: &str) -> Result<Stage> {
    Stage::furnished(&route(rules), |scene| {
        for (version, host) in [("v1", 11), ("v2", 12)] {
            let mut service = Service::new(&format!("only-{version}"), host).port("http", 80, "80");
            service.selector = vec![("app".into(), "service-b".into()), ("version".into(), version.into())];
            scene.manifests.service(&service)?;
        }
        Ok(())
    })
}

#[test]
fn a_route_for_a_service_chooses_by_what_a_request_says() -> Result<()> {
    if !require("a_route_for_a_service_chooses_by_what_a_request_says", &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    let (v1, v2) = (to("only-v1"), to("only-v2"));
    let matches = "{path: {type: Exact, value: /exact}}, {path: {type: PathPrefix, value: /v2}}, \
                   {headers: [{name: x-tier, value: gold}]}, \
                   {headers: [{name: x-tier, type: RegularExpression, value: 'p.*'}]}, {queryParams: [{name: canary, value: '1'}]}, \
                   {method: DELETE}";
    let stage = stage(&format!("{{name: canary, matches: [{matches}], {v2}}}, {{{v1}}}"))?;
    stage.agent.await_verdict("default/service-b:80", "proxy")?;
    for (path, arguments, version) in [
        ("/", &[][..], "v1"),
        ("/exact", &[], "v2"),
        ("/exactly", &[], "v1"),
        ("/v2", &[], "v2"),
        ("/v2/x", &[], "v2"),
        ("/v2x", &[], "v1"),
        ("/", &["-H", "x-tier: gold"], "v2"),
        ("/", &["-H", "x-tier: platinum"], "v2"),
        ("/", &["-H", "x-tier: silver"], "v1"),
        ("/?canary=1", &[], "v2"),
        ("/", &["-X", "DELETE"], "v2"),
    ] {
        let met = stage.version(path, arguments)?;
        ensure!(met == version, "{path} {arguments:?} met {met}, not {version}");
    }
    stage
        .rules(&route("{backendRefs: [{name: only-v1, port: 80, weight: 3}, {name: only-v2, port: 80, weight: 1}]}"))?;
    let report = stage.load().requests(4000).connections(8).run(stage.client())?;
    // Four standard deviations at 25 %.
    ensure!(report.failed == 0 && (report.share("v2") - 25.0).abs() < 2.8, "{report:?}");
    Ok(())
}

#[test]
fn filters_and_timeouts_of_a_route_are_in_force() -> Result<()> {
    if !require("filters_and_timeouts_of_a_route_are_in_force", &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    let (v1, prefix) =
        (to("only-v1"), |path: &str| format!("matches: [{{path: {{type: PathPrefix, value: {path}}}}}]"));
    let modify = "{set: [{name: x-set, value: new}], add: [{name: x-added, value: more}], remove: [x-secret]}";
    let redirect = "{scheme: https, hostname: other.example, port: 8443, statusCode: 302, \
                    path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}";
    let rewrite = "{hostname: people.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /echo}}";
    let rules = [
        format!("{{{}, filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]}}", prefix("/old")),
        format!("{{{}, filters: [{{type: URLRewrite, urlRewrite: {rewrite}}}], {v1}}}", prefix("/users")),
        format!("{{{}, timeouts: {{request: 300ms}}, {v1}}}", prefix("/sleep")),
        format!(
            "{{{}, filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: only-v2, port: 80}}}}}}], {v1}}}",
            prefix("/copied")
        ),
        format!(
            "{{filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {modify}}}, \
             {{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-by, value: weir}}], remove: [x-pod]}}}}], {v1}}}"
        ),
    ];
    let stage = stage(&rules.join(", "))?;
    stage.agent.await_verdict("default/service-b:80", "proxy")?;
    let moved = stage.curl("/old/x", &[])?;
    ensure!((moved.status, moved.header("location")) == (302, Some("https://other.example:8443/new/x")), "{moved:?}");
    let people = stage.curl("/users/ann", &[])?;
    ensure!(people.body.starts_with("GET /echo/ann HTTP/1.1\nhost: people.example\n"), "{people:?}");
    ensure!(stage.curl("/sleep/2000", &[])?.status == 504, "its time is over");
    let before = stage.served("b-v2-0")?;
    let copied = stage.load().path("/copied").requests(50).run(stage.client())?;
    ensure!(copied.failed == 0 && copied.version("v1") == 50, "{copied:?}");
    eventually("all copies arrive", std::time::Duration::from_secs(5), || {
        Ok((stage.served("b-v2-0")? - before == 50).then_some(()))
    })?;
    let changed = stage.curl("/echo", &["-H", "x-set: old", "-H", "x-secret: 1"])?;
    let seen = |line: &str| changed.body.lines().any(|l| l == line);
    ensure!(seen("x-set: new") && seen("x-added: more") && !changed.body.contains("x-secret"), "{changed:?}");
    ensure!(changed.header("x-by") == Some("weir") && changed.header("x-pod").is_none(), "{changed:?}");
    Ok(())
}
