//! Byte for byte: bodies of every size and framing through the proxy, half-closed TCP through kernel and proxy, and a
//! port whose name and target are no protocol's.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use weir_tests::canary::{HTTP_PORT, TCP_PORT, virtual_service};
use weir_tests::require::Need;
use weir_tests::{
    Agent, Canary, HttpLoad, Manifests, Mesh, PodSpec, Service, load, manifests, process, proved, require,
};

const MEBIBYTE: u64 = 1 << 20;

#[test]
fn ten_thousand_bodies_come_back_as_they_went() -> Result<()> {
    if !require("ten_thousand_bodies_come_back_as_they_went", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    scene.split_http(50, 50)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    for (target, requests) in [(scene.http.at(80), 9000), (scene.http.at6(80), 1000)] {
        let load = HttpLoad::new(target).host("service-b").requests(requests).connections(8).bodies(MEBIBYTE);
        let report = load.run(scene.client())?;
        ensure!(report.failed == 0 && report.status(200) == requests, "{report:?}");
    }
    Ok(())
}

#[test]
fn a_half_closed_connection_loses_no_byte() -> Result<()> {
    if !require("a_half_closed_connection_loses_no_byte", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    // Undeclared ports under an HTTP rule, in front of origins that do not speak HTTP: what turns out not to be HTTP
    // passes through the proxy as TCP. One origin waits for the client, the other speaks first.
    let waits = Service::new("waits", 4).selects("service-b").port("", 7000, "9000");
    let speaks = Service::new("speaks", 5).selects("service-b").port("", 7001, "9001");
    for service in [&waits, &speaks] {
        let name = &service.name;
        scene.manifests.service(service)?;
        let rule = virtual_service(name, &format!("  http:\n  - route: [{{destination: {{host: {name}}}}}]\n"));
        scene.manifests.write(&format!("rule-{name}.yaml"), &rule)?;
    }
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(TCP_PORT, "balance")?;
    agent.await_verdict("default/waits:7000", "proxy")?;
    agent.await_verdict("default/speaks:7001", "proxy")?;
    let half_close = |mode: &str, target: SocketAddr, count: u64| -> Result<()> {
        let (to, requests, limit) = (target.to_string(), count.to_string(), MEBIBYTE.to_string());
        let arguments = [mode, &to, "--requests", &requests, "--connections", "8", "--bodies", &limit];
        let report = load::client(scene.client(), &arguments.map(String::from))?;
        ensure!(report.failed == 0 && report.answered == count, "{mode} {target}: {report:?}");
        Ok(())
    };
    let before = agent.accepted()?;
    half_close("half-close", scene.tcp.at(9000), 200)?;
    half_close("half-close", scene.tcp.at6(9000), 200)?;
    ensure!((agent.accepted()? - before).abs() < 0.5, "declared TCP came through the proxy");
    let ((), through) = agent.by_the_proxy(|| {
        half_close("half-close", waits.at(7000), 200)?;
        half_close("half-close", waits.at6(7000), 200)?;
        // The client says nothing before it has heard who answers: detection must not wait for ever.
        half_close("listen-first", speaks.at(7001), 20)
    })?;
    ensure!((through - 420.0).abs() < 0.5, "{through} connections came through the proxy, not 420");
    Ok(())
}

#[test]
fn a_named_target_port_resolves_per_pod() -> Result<()> {
    if !require("a_named_target_port_resolves_per_pod", &[Need::Agent]) {
        return Ok(());
    }
    let mut mesh = Mesh::new()?;
    mesh.add_pod(PodSpec::new("client").namespace("shop"))?;
    for (version, port) in [("v1", 8080), ("v2", 8081)] {
        let pod = format!("app-1-{version}");
        let spec = PodSpec::new(&pod).namespace("shop").label("app", "app-1").label("version", version);
        mesh.add_pod(spec.port("apache", port))?;
        mesh.serve(&pod, &format!("--http {port}"))?;
    }
    let files = Manifests::of(&mesh);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/named-port/app-1.yaml");
    let yaml = fs::read_to_string(&example).with_context(|| format!("reading {}", example.display()))?;
    files.write("app-1.yaml", &manifests::admit(&yaml, 7))?;
    files.pods(&mesh)?;
    let agent = Agent::start(&mesh)?;
    agent.await_verdict("shop/app-1:80", "proxy")?;
    let target = Service::new("app-1", 7).at(80);
    for host in ["app-1", "app-1.shop.svc.cluster.local"] {
        let report = HttpLoad::new(target).host(host).requests(4000).connections(8).run(mesh.pod("client"))?;
        ensure!(report.failed == 0 && report.status(200) == 4000, "{host}: {report:?}");
        // Five standard deviations.
        ensure!((report.share("v1") - 90.0).abs() <= 2.5, "{host}: {report:?}");
    }
    Ok(())
}

#[test]
fn wrk_sees_no_error() -> Result<()> {
    if !require("wrk_sees_no_error", &[Need::Agent, Need::Program("wrk")]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    scene.split_http(90, 10)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c16", "-d3s", "-H", "Host: service-b", &format!("http://{}/", scene.http.at(80))]);
    let said = process::output(&scene.client().place, wrk)?;
    ensure!(said.contains("Requests/sec"), "{said}");
    ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    proved!("{}", said.lines().find(|l| l.contains("Requests/sec")).unwrap_or_default());
    Ok(())
}
