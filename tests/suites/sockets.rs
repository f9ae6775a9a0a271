//! What an application sees of its own socket: its pod's address, the address that it dialled, the truth after it
//! connects again; and a socket bound to a device still works.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::canary::HTTP_PORT;
use weir_tests::mesh::binary;
use weir_tests::require::Need;
use weir_tests::{Agent, Canary, HttpLoad, eventually, process, require};

fn check(scene: &Canary, six: bool) -> Result<()> {
    let (client, backend) = (scene.client(), scene.mesh.pod("b-v2-0"));
    let (service, other) =
        if six { (scene.http.at6(80), backend.at6(80)) } else { (scene.http.at(80), backend.at(80)) };
    let (service, other) = (service.to_string(), other.to_string());
    let mut command = Command::new(binary("weir-client"));
    command.args(["sockets", &service, &other]);
    let said = process::output(&client.place, command)?;
    let seen: Value = serde_json::from_str(said.trim()).with_context(|| format!("the client said {said:?}"))?;

    let [v4, v6] = client.addresses().map(|a| a.to_string());
    let own = if six { v6.as_str() } else { v4.as_str() };
    for case in ["plain", "device", "refused_then_service"] {
        let s = &seen[case];
        ensure!(s["status"] == 200, "{case}: {s}");
        ensure!(s["local"] == *own, "{case}: the local address is the pod's: {s}");
        ensure!(s["peer"] == *service, "{case}: getpeername is what was dialled: {s}");
    }
    let origin_saw = seen["plain"]["seen_by_origin"].as_str().unwrap_or_default();
    ensure!(origin_saw.contains(own), "the origin sees the client pod's address: {origin_saw}");
    let dissolved = &seen["dissolved"];
    ensure!(dissolved["first_peer"] == *service, "{dissolved}");
    ensure!(dissolved["peer"] == *other && dissolved["pod"] == "b-v2-0", "the second peer is the truth: {dissolved}");
    ensure!(dissolved["local"] == *own, "{dissolved}");
    if !six {
        let mapped = &seen["mapped"];
        ensure!(mapped["status"] == 200, "{mapped}");
        ensure!(mapped["peer"] == format!("[::ffff:{}]:80", scene.http.ipv4()), "{mapped}");
        ensure!(mapped["local"] == format!("::ffff:{v4}"), "{mapped}");
    }
    Ok(())
}

#[test]
fn a_proxied_socket_tells_the_truth() -> Result<()> {
    if !require("a_proxied_socket_tells_the_truth", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    scene.split_http(100, 0)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    check(&scene, false)?;
    check(&scene, true)
}

#[test]
fn a_balanced_socket_tells_the_truth() -> Result<()> {
    if !require("a_balanced_socket_tells_the_truth", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    let agent = Agent::start(&scene.mesh)?;
    agent.await_verdict(HTTP_PORT, "balance")?;
    check(&scene, false)?;
    check(&scene, true)
}

#[test]
fn the_kernel_tells_of_its_verdicts_when_asked() -> Result<()> {
    if !require("the_kernel_tells_of_its_verdicts_when_asked", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    let mut agent = Agent::spawn_with(&scene.mesh, |command| {
        command.arg("--kernel-log");
    })?;
    agent.await_ready(Duration::from_secs(15))?;
    agent.await_verdict(HTTP_PORT, "balance")?;
    agent.await_enrolled("default/client", true)?;
    HttpLoad::new(scene.http.at(80)).requests(1).fresh().run(scene.client())?;
    let dialled = scene.http.ipv4().to_string();
    let told = eventually("a record of the verdict in the agent's log", Duration::from_secs(2), || {
        let log = agent.log_text();
        Ok(log.lines().any(|line| line.contains("weir::programs") && line.contains(&dialled)).then_some(()))
    });
    ensure!(told.is_ok(), "{}", agent.log_text());
    Ok(())
}
