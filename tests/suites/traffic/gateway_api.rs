//! The Gateway API's rules for services: HTTPRoute's matches, weights, filters and timeouts.

use std::time::{Duration, Instant};

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
    for (path, arguments, name) in
        [("/named", &["-X", "DELETE"][..], "default.service-b.canary"), ("/unnamed", &[], "default.service-b.1")]
    {
        stage.version(path, arguments)?;
        let line = stage.logged(path)?;
        ensure!(line.ends_with(&format!(" {name}")), "the rule has a name: {line}");
    }
    stage
        .rules(&route("{backendRefs: [{name: only-v1, port: 80, weight: 3}, {name: only-v2, port: 80, weight: 1}]}"))?;
    let report = stage.load().requests(4000).connections(8).run(stage.client())?;
    // Five standard deviations at 25 %.
    ensure!(report.failed == 0 && (report.share("v2") - 25.0).abs() < 3.5, "{report:?}");
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
    eventually("all copies arrive", Duration::from_secs(5), || {
        Ok((stage.served("b-v2-0")? - before == 50).then_some(()))
    })?;
    let changed = stage.curl("/echo", &["-H", "x-set: old", "-H", "x-secret: 1"])?;
    let seen = |line: &str| changed.body.lines().any(|l| l == line);
    ensure!(seen("x-set: new") && seen("x-added: more") && !changed.body.contains("x-secret"), "{changed:?}");
    ensure!(changed.header("x-by") == Some("weir") && changed.header("x-pod").is_none(), "{changed:?}");
    Ok(())
}

#[test]
fn backends_have_filters_of_their_own_and_paths_are_replaced_whole() -> Result<()> {
    let name = "backends_have_filters_of_their_own_and_paths_are_replaced_whole";
    if !require(name, &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    let modify = |of: &str, changes: &str| {
        let (kind, field) = (format!("{of}HeaderModifier"), format!("{}HeaderModifier", of.to_lowercase()));
        format!("{{type: {kind}, {field}: {{{changes}}}}}")
    };
    let own =
        |version: &str, filters: &str| format!("{{name: only-{version}, port: 80, weight: 1, filters: [{filters}]}}");
    let of_request =
        modify("Request", "set: [{name: x-who, value: one}], add: [{name: x-more, value: '1'}], remove: [x-secret]");
    let of_response =
        modify("Response", "set: [{name: x-who, value: two}], add: [{name: x-more, value: '2'}], remove: [x-pod]");
    let whole = |path: &str| format!("path: {{type: ReplaceFullPath, replaceFullPath: {path}}}");
    let exact = |path: &str| format!("matches: [{{path: {{type: Exact, value: {path}}}}}]");
    let sorcery = "{group: example.com, kind: Sorcery, name: some}";
    let rules = [
        format!(
            "{{{}, filters: [{{type: RequestRedirect, requestRedirect: {{{}}}}}]}}",
            exact("/moved"),
            whole("/there")
        ),
        format!(
            "{{{}, filters: [{{type: URLRewrite, urlRewrite: {{{}}}}}], {}}}",
            exact("/deep/er"),
            whole("/echo/at/all"),
            to("only-v1")
        ),
        format!(
            "{{{}, filters: [{{type: ExtensionRef, extensionRef: {sorcery}}}], {}}}",
            exact("/unknown"),
            to("only-v1")
        ),
        format!("{{backendRefs: [{}, {}]}}", own("v1", &of_request), own("v2", &of_response)),
    ];
    let stage = stage(&rules.join(", "))?;
    stage.agent.await_verdict("default/service-b:80", "proxy")?;
    let mut met = [0, 0];
    for _ in 0..30 {
        let answer = stage.curl("/echo", &["-H", "x-who: curl", "-H", "x-secret: 1"])?;
        let seen = |line: &str| answer.body.lines().any(|own| own == line);
        let answered = |name: &str| answer.header(name);
        let first = seen("x-who: one") && seen("x-more: 1") && !seen("x-secret: 1") && answered("x-pod").is_some();
        let second = answered("x-who") == Some("two") && answered("x-more") == Some("2") && answered("x-pod").is_none();
        let plain = seen("x-who: curl") && seen("x-secret: 1");
        match answered("x-version") {
            Some("v1") => ensure!(first && !second && !plain, "{answer:?}"),
            _ => ensure!(second && !first && plain, "{answer:?}"),
        }
        met[usize::from(second)] += 1;
    }
    ensure!(met[0] > 0 && met[1] > 0, "{met:?}");
    let moved = stage.curl("/moved?q=1", &[])?;
    ensure!(moved.status == 302 && moved.header("location").is_some_and(|to| to.ends_with("/there?q=1")), "{moved:?}");
    let deep = stage.curl("/deep/er?q=1", &[])?;
    ensure!(deep.body.starts_with("GET /echo/at/all?q=1 HTTP/1.1"), "{deep:?}");
    ensure!(stage.curl("/unknown", &[])?.status == 500, "a rule is not followed without its filter");
    Ok(())
}

#[test]
fn copies_are_made_of_the_share_that_a_mirror_says() -> Result<()> {
    if !require("copies_are_made_of_the_share_that_a_mirror_says", &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    // Five standard deviations of the copies of so many requests at a half are 112.
    let requests = 2000;
    let stage = stage("")?;
    let full = "backendRef: {group: '', kind: Service, name: only-v2, namespace: default, port: 80}";
    for (mirror, percent) in [
        (full.to_owned(), 100),
        (format!("{full}, percent: 25"), 25),
        (format!("{full}, percent: 0"), 0),
        (format!("{full}, fraction: {{numerator: 1, denominator: 4}}"), 25),
        (format!("{full}, fraction: {{numerator: 40}}"), 40),
        ("backendRef: {name: only-v2, port: 80}, percent: 50".to_owned(), 50),
        // What cannot be sent to gets nothing, and nobody notices.
        (full.replace("kind: Service", "kind: Bucket").replace("group: ''", "group: example.com"), 0),
        (full.replace("namespace: default", "namespace: partner"), 0),
        (full.replace("port: 80", "port: 81"), 0),
        (full.replace("only-v2", "nobody"), 0),
    ] {
        let filter = format!("{{type: RequestMirror, requestMirror: {{{mirror}}}}}");
        stage.rules(&route(&format!("{{filters: [{filter}], {}}}", to("only-v1"))))?;
        let before = stage.served("b-v2-0")?;
        let report = stage.load().requests(requests).connections(4).run(stage.client())?;
        ensure!(report.failed == 0 && report.version("v1") == requests, "{mirror}: {report:?}");
        let (wanted, slack) = (requests * percent / 100, if percent % 100 == 0 { 0 } else { 115 });
        let mut copies = stage.served("b-v2-0")? - before;
        // Nobody waits for copies: the last ones are under way until there are enough and their number stays.
        eventually("the copies have arrived", Duration::from_secs(10), || {
            std::thread::sleep(Duration::from_millis(100));
            let last = std::mem::replace(&mut copies, stage.served("b-v2-0")? - before);
            Ok((copies == last && copies + slack >= wanted).then_some(()))
        })?;
        ensure!(copies.abs_diff(wanted) <= slack, "{mirror}: {copies} copies of {requests}");
    }
    Ok(())
}

#[test]
fn a_request_and_each_of_its_tries_have_a_time_of_their_own() -> Result<()> {
    if !require("a_request_and_each_of_its_tries_have_a_time_of_their_own", &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    let stage = stage("")?;
    // Which of the two it was that ended, and where nothing did, how long the pod took.
    let (whole, one) = ("response_timeout", "upstream_per_try_timeout");
    for (timeouts, sleep, ended) in [
        ("request: 300ms", 9001, Some(whole)),
        ("request: 8s, backendRequest: 300ms", 9002, Some(one)),
        ("request: 300ms, backendRequest: 200ms", 9003, Some(one)),
        ("backendRequest: 300ms", 9004, Some(one)),
        ("request: 5s, backendRequest: 2s", 500, None),
        ("request: 0s, backendRequest: 0s", 1700, None),
    ] {
        stage.rules(&route(&format!("{{timeouts: {{{timeouts}}}, {}}}", to("only-v1"))))?;
        let (path, asked) = (format!("/sleep/{sleep}"), Instant::now());
        let answer = stage.curl(&path, &[])?;
        let took = asked.elapsed();
        let expected = if ended.is_some() { 504 } else { 200 };
        ensure!(answer.status == expected, "{timeouts}: {} after {took:?}", answer.status);
        let in_time = took < Duration::from_millis(sleep) || ended.is_none();
        ensure!(in_time && took >= Duration::from_millis(200), "{timeouts}: after {took:?}");
        let line = stage.logged(&path)?;
        ensure!(ended.is_none_or(|ended| line.contains(ended)), "{timeouts}: {line}");
    }
    Ok(())
}
