//! What a rule answers or changes: redirects, direct responses, rewrites, headers, CORS.

use anyhow::{Result, ensure};
use weir_tests::require::Need;
use weir_tests::{Service, require};

use super::pip;
use super::stage::{SUBSETS, Stage, V1, V2, http, object};

const NEEDS: &[Need] = &[Need::Agent, Need::Program("curl")];

#[test]
fn redirects_and_direct_responses_are_the_rules_own() -> Result<()> {
    if !require("redirects_and_direct_responses_are_the_rules_own", NEEDS) {
        return Ok(());
    }
    let stage = Stage::new(&http(&format!(
        "{{match: [{{uri: {{prefix: /old}}}}], redirect: {{uri: /new, authority: 'service-b:80', redirectCode: 308}}}}, \
         {{match: [{{uri: {{prefix: /tls}}}}], redirect: {{scheme: https}}}}, \
         {{match: [{{uri: {{prefix: /teapot}}}}], directResponse: {{status: 418, body: {{string: short and stout}}}}}}, \
         {{match: [{{uri: {{prefix: /bytes}}}}], directResponse: {{status: 503, body: {{bytes: aGVsbG8=}}}}}}, \
         {{{V1}}}"
    )))?;
    let moved = stage.curl("/old/x?q=1", &[])?;
    ensure!((moved.status, moved.header("location")) == (308, Some("http://service-b:80/new?q=1")), "{moved:?}");
    let resolve = format!("service-b:80:{}", stage.scene.http.ipv4());
    let told = ["-sL", "-o", "/dev/null", "-w", "%{http_code} %{url_effective}", "--resolve", &resolve];
    let followed = stage.run("client", "curl", &[&told[..], &["http://service-b/old"]].concat())?;
    ensure!(followed == "200 http://service-b:80/new", "{followed}");
    let secure = stage.curl("/tls/x", &[])?;
    ensure!((secure.status, secure.header("location")) == (301, Some("https://service-b/tls/x")), "{secure:?}");
    let teapot = stage.curl("/teapot", &[])?;
    ensure!((teapot.status, &*teapot.body) == (418, "short and stout"), "{teapot:?}");
    let bytes = stage.curl("/bytes", &[])?;
    ensure!((bytes.status, &*bytes.body) == (503, "hello"), "{bytes:?}");
    ensure!(stage.version("/", &[])? == "v1", "everything else goes on");
    Ok(())
}

#[test]
fn a_redirect_has_the_path_scheme_and_port_that_its_rule_says() -> Result<()> {
    if !require("a_redirect_has_the_path_scheme_and_port_that_its_rule_says", NEEDS) {
        return Ok(());
    }
    let rule =
        |path: &str, redirect: &str| format!("{{match: [{{uri: {{prefix: {path}}}}}], redirect: {{{redirect}}}}}, ");
    let rules = [
        rule("/old/", "prefixRewrite: /new/"),
        rule("/tls", "scheme: https"),
        rule("/port", "port: 9443"),
        rule("/both", "scheme: https, port: 9443"),
        rule("/own", "scheme: https, port: 443"),
        rule("/asked", "authority: other.example, derivePort: FROM_REQUEST_PORT"),
        rule("/usual", "derivePort: FROM_PROTOCOL_DEFAULT"),
        format!("{{{V1}}}"),
    ];
    let stage = Stage::furnished(&http(&rules.concat()), |scene| {
        let service = Service::new("service-b", 2).port("http-web", 80, "80").port("http-alt", 8080, "80");
        scene.manifests.service(&service)
    })?;
    stage.agent.await_verdict("default/service-b:8080", "proxy")?;
    for (port, path, location) in [
        (80, "/old/x?q=1", "http://service-b/new/x?q=1"),
        (8080, "/old/x", "http://service-b:8080/new/x"),
        (80, "/tls/x", "https://service-b/tls/x"),
        (8080, "/tls", "https://service-b/tls"),
        (80, "/port", "http://service-b:9443/port"),
        (8080, "/port", "http://service-b:9443/port"),
        (80, "/both", "https://service-b:9443/both"),
        (80, "/own", "https://service-b/own"),
        (80, "/asked", "http://other.example/asked"),
        (8080, "/asked", "http://other.example:8080/asked"),
        (8080, "/usual", "http://service-b/usual"),
    ] {
        let authority = if port == 80 { "service-b".to_owned() } else { format!("service-b:{port}") };
        let moved = stage.curl_in("client", &format!("http://{authority}{path}"), &[])?;
        ensure!((moved.status, moved.header("location")) == (301, Some(location)), "{authority}{path}: {moved:?}");
    }
    // curl goes there by itself.
    let resolve = format!("service-b:8080:{}", stage.scene.http.ipv4());
    let told = ["-sL", "-w", "%{http_code} %{url_effective}", "-o", "/dev/null", "--resolve", &resolve];
    let followed = stage.run("client", "curl", &[&told[..], &["http://service-b:8080/old/x"]].concat())?;
    ensure!(followed == "200 http://service-b:8080/new/x", "{followed}");
    Ok(())
}

#[test]
fn rewrites_and_headers_change_what_the_other_side_sees() -> Result<()> {
    if !require("rewrites_and_headers_change_what_the_other_side_sees", NEEDS) {
        return Ok(());
    }
    let stage = Stage::new(&http(&format!(
        "{{match: [{{uri: {{prefix: /v2}}}}], rewrite: {{uri: /echo}}, {V2}}}, \
         {{match: [{{uri: {{prefix: /users/}}}}], rewrite: {{authority: people.example, \
           uriRegexRewrite: {{match: '^/users/([^/]+)/(.*)$', rewrite: '/echo/\\2/of/\\1'}}}}, {V2}}}, \
         {{headers: {{request: {{set: {{x-set: new, x-path: '%PROTOCOL%'}}, add: {{x-added: more}}, remove: [x-secret]}}, \
           response: {{set: {{x-version: hidden}}, remove: [x-pod], add: {{x-by: weir}}}}}}, \
           route: [{{destination: {{host: service-b, subset: v1}}, headers: {{request: {{add: {{x-added: most}}}}}}}}]}}"
    )))?;
    let first = |body: &str| body.lines().next().unwrap_or_default().to_owned();
    // Istio replaces the prefix as it stands there, slashes and all.
    for (path, seen) in [("/v2", "/echo"), ("/v2/x?q=1", "/echo/x?q=1"), ("/v2more", "/echomore")] {
        let answer = stage.curl(path, &[])?;
        ensure!(first(&answer.body) == format!("GET {seen} HTTP/1.1"), "{path}: {answer:?}");
        ensure!(stage.logged(path)?.contains(&format!("\"GET {path} HTTP/1.1\" 200")), "the log names what was asked");
    }
    let people = stage.curl("/users/ann/cart", &[])?;
    ensure!(first(&people.body) == "GET /echo/cart/of/ann HTTP/1.1", "{people:?}");
    ensure!(people.body.lines().any(|line| line == "host: people.example"), "{people:?}");
    let changed = stage.curl("/echo", &["-H", "x-set: old", "-H", "x-secret: 1", "-H", "x-added: some"])?;
    let seen: Vec<&str> = changed.body.lines().collect();
    ensure!(seen.contains(&"x-set: new") && !changed.body.contains("x-secret"), "{changed:?}");
    let added: Vec<&&str> = seen.iter().filter(|line| line.starts_with("x-added: ")).collect();
    ensure!(
        added == [&"x-added: some", &"x-added: more", &"x-added: most"]
            || added == [&"x-added: some", &"x-added: most", &"x-added: more"],
        "{changed:?}"
    );
    ensure!(changed.header("x-version") == Some("hidden") && changed.header("x-pod").is_none(), "{changed:?}");
    ensure!(changed.header("x-by") == Some("weir"), "{changed:?}");
    Ok(())
}

#[test]
fn a_page_of_another_origin_is_answered_as_the_policy_says() -> Result<()> {
    if !require("a_page_of_another_origin_is_answered_as_the_policy_says", NEEDS) {
        return Ok(());
    }
    let stage = Stage::new(&http(&format!(
        "{{corsPolicy: {{allowOrigins: [{{exact: 'https://shop.example'}}, {{regex: 'https://.*\\.shop\\.example'}}], \
         allowMethods: [GET, PUT], allowHeaders: [x-token], exposeHeaders: [x-pod], maxAge: 10m, allowCredentials: true}}, {V1}}}"
    )))?;
    let preflight = |origin: &str| {
        let origin = format!("Origin: {origin}");
        stage.curl("/", &["-X", "OPTIONS", "-H", &origin, "-H", "Access-Control-Request-Method: PUT"])
    };
    let before = stage.served("b-v1-0")? + stage.served("b-v1-1")?;
    let told = preflight("https://shop.example")?;
    ensure!(told.status == 200 && told.header("access-control-max-age") == Some("600"), "{told:?}");
    ensure!(told.header("access-control-allow-methods") == Some("GET,PUT"), "{told:?}");
    ensure!(told.header("access-control-allow-headers") == Some("x-token"), "{told:?}");
    ensure!(preflight("https://eu.shop.example")?.header("access-control-allow-origin").is_some(), "by expression");
    let after = stage.served("b-v1-0")? + stage.served("b-v1-1")?;
    ensure!(after == before, "pods have seen {} preflights", after - before);
    let page = stage.curl("/", &["-H", "Origin: https://shop.example"])?;
    ensure!(page.header("access-control-allow-origin") == Some("https://shop.example"), "{page:?}");
    ensure!(page.header("access-control-allow-credentials") == Some("true"), "{page:?}");
    ensure!(page.header("access-control-expose-headers") == Some("x-pod"), "{page:?}");
    let other = stage.curl("/", &["-H", "Origin: https://evil.example"])?;
    ensure!(other.status == 200 && other.header("access-control-allow-origin").is_none(), "{other:?}");
    Ok(())
}

/// A session that follows redirects, keeps cookies and its connection, as most Python programs have one.
const SESSION: &str = r#"
import requests, sys
base, host = sys.argv[1], {"Host": "service-b"}
with requests.Session() as session:
    session.headers.update(host)
    pods = set()
    for n in range(50):
        answer = session.get(base + "/", timeout=5)
        answer.raise_for_status()
        pods.add(answer.headers["x-pod"])
    assert "user" in session.cookies, session.cookies
    moved = session.get(base + "/old", timeout=5)
    assert [r.status_code for r in moved.history] == [301], moved.history
    assert moved.url.endswith("/new"), moved.url
    def pieces():
        for n in range(100):
            yield b"%d," % n * n
    sent = b"".join(pieces())
    back = session.post(base + "/", data=pieces(), headers={"x-reply": "chunked"}, timeout=5)
    assert back.content == sent, (len(back.content), len(sent))
    print(" ".join(sorted(pods)))
"#;

#[test]
fn a_python_session_sticks_follows_and_streams() -> Result<()> {
    let name = "a_python_session_sticks_follows_and_streams";
    if !require(name, &[Need::Agent, Need::Program("python3")]) {
        return Ok(());
    }
    let Some(python) = pip::python(name)? else {
        return Ok(());
    };
    let rules = "{match: [{uri: {exact: /old}}], redirect: {uri: /new, authority: 10.96.0.2}}, \
                 {route: [{destination: {host: service-b}}]}";
    let cookie = format!(
        "host: service-b, trafficPolicy: {{loadBalancer: {{consistentHash: {{httpCookie: {{name: user, path: /, ttl: 1h}}}}}}}}, {SUBSETS}"
    );
    let stage = Stage::new(
        &(object("VirtualService", &format!("hosts: [service-b], http: [{rules}]"))
            + &object("DestinationRule", &cookie)),
    )?;
    let base = format!("http://{}", stage.scene.http.ipv4());
    let pods = stage.run("client", &python, &["-c", SESSION, &base])?;
    let pods: Vec<&str> = pods.split_whitespace().collect();
    ensure!(pods.len() == 1, "one session, one pod: {pods:?}");
    stage.agent.logged("python-requests", 1)?;
    Ok(())
}
