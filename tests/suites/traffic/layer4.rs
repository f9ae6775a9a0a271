//! Connections that are no HTTP: TLS that passes through by name, plain TCP with half-closes, servers that speak first.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use weir_tests::canary::virtual_service;
use weir_tests::require::Need;
use weir_tests::{PodSpec, Process, Service, eventually, load, process, require};

use super::stage::{SUBSETS, Stage, destination, object};

/// A shop and a till behind one address, and whatever has no rule at the address itself.
const BY_NAME: &str = "  tls:
  - match: [{sniHosts: [shop.example, '*.shop.example']}]
    route: [{destination: {host: service-b, subset: v1, port: {number: 443}}}]
  - match: [{sniHosts: [till.example]}]
    route: [{destination: {host: service-b, subset: v2, port: {number: 443}}}]
";

#[test]
fn tls_passes_through_to_the_pod_that_its_name_says() -> Result<()> {
    let name = "tls_passes_through_to_the_pod_that_its_name_says";
    if !require(name, &[Need::Agent, Need::Program("curl"), Need::Program("openssl")]) {
        return Ok(());
    }
    let rules = virtual_service("service-b", BY_NAME)
        .replace("[service-b]", "[service-b, shop.example, '*.shop.example', till.example]");
    let stage = Stage::furnished(&(rules + "---\n" + &destination("")), |scene| {
        let service = Service::new("service-b", 2).port("http-web", 80, "80").port("tls-shop", 443, "8443");
        scene.manifests.service(&service)
    })?;
    let mut servers = Vec::new();
    for pod in ["b-v1-0", "b-v1-1", "b-v2-0"] {
        servers.push(tls_server(&stage, pod)?);
    }
    stage.agent.await_verdict("default/service-b:443", "proxy")?;
    for (sni, version) in [("shop.example", "v1"), ("a.shop.example", "v1"), ("till.example", "v2")] {
        let shown = subject(&stage, sni)?;
        ensure!(shown.starts_with(&format!("b-{version}-")), "{sni}: the certificate of {shown}");
        let resolve = format!("{sni}:443:{}", stage.scene.http.ipv4());
        let url = format!("https://{sni}/");
        let page = stage.run("client", "curl", &["-sk", "--max-time", "10", "--resolve", &resolve, &url])?;
        ensure!(page.contains("s_server"), "{sni}: {page}");
    }
    // A name without a rule, and no name at all: the service that was dialled, whatever pod that is.
    for sni in ["other.example", ""] {
        let shown = subject(&stage, sni)?;
        ensure!(shown.starts_with("b-v"), "{sni:?}: {shown}");
    }
    stage.agent.logged("till.example", 1)?;
    Ok(())
}

/// A server in a pod whose certificate has the pod's name.
fn tls_server(stage: &Stage, pod: &str) -> Result<Process> {
    let [key, certificate, log] =
        ["key.pem", "certificate.pem", "log"].map(|what| stage.scene.mesh.log(&format!("{pod}-{what}")));
    let pod = stage.scene.mesh.pod(pod);
    let mut make = Command::new("openssl");
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    make.args(["-subj", &format!("/CN={}", pod.spec.name), "-keyout"]).arg(&key).arg("-out").arg(&certificate);
    process::output(&pod.place, make)?;
    let mut server = Command::new("openssl");
    server.args(["s_server", "-accept", "8443", "-www", "-key"]).arg(&key).arg("-cert").arg(&certificate);
    let process = Process::spawn(&pod.place, server, &log)?;
    eventually("the server listens", std::time::Duration::from_secs(10), || {
        Ok(std::fs::read_to_string(&log)?.contains("ACCEPT").then_some(()))
    })?;
    Ok(process)
}

/// Whose certificate a client sees that asks for this name.
fn subject(stage: &Stage, sni: &str) -> Result<String> {
    subject_from(stage, "client", sni)
}

/// The same for a client in another pod.
fn subject_from(stage: &Stage, pod: &str, sni: &str) -> Result<String> {
    let target = format!("{}:443", stage.scene.http.ipv4());
    let name = if sni.is_empty() { vec!["-noservername"] } else { vec!["-servername", sni] };
    let said = stage.run(pod, "openssl", &[&["s_client", "-connect", &target], &name[..]].concat())?;
    let subject = said.lines().find_map(|line| line.trim().strip_prefix("subject="));
    let subject = subject.with_context(|| format!("no certificate: {said}"))?;
    Ok(subject.rsplit('=').next().unwrap_or_default().trim().to_owned())
}

#[test]
fn plain_connections_keep_their_halves_and_their_order_of_speaking() -> Result<()> {
    let name = "plain_connections_keep_their_halves_and_their_order_of_speaking";
    if !require(name, &[Need::Agent, Need::Program("socat")]) {
        return Ok(());
    }
    let rule =
        |name: &str| virtual_service(name, &format!("  http:\n  - route: [{{destination: {{host: {name}}}}}]\n"));
    let stage = Stage::furnished(&format!("{}---\n{}", rule("waits"), rule("speaks")), |scene| {
        scene.manifests.service(&Service::new("waits", 4).selects("service-b").port("", 7000, "9000"))?;
        scene.manifests.service(&Service::new("speaks", 5).selects("service-b").port("", 7001, "9001"))
    })?;
    stage.agent.await_verdict("default/waits:7000", "proxy")?;
    stage.agent.await_verdict("default/speaks:7001", "proxy")?;
    // The kernel's own way, and the proxy's for what turns out not to be HTTP.
    for target in ["10.96.0.3:9000", "10.96.0.4:7000"] {
        // socat passes on the end of its input, and waits for the rest of the answer.
        let script = format!("head -c 300000 /dev/zero | tr '\\0' x | socat -t 10 - TCP:{target} | tail -n +2 | wc -c");
        let said = stage.run("client", "sh", &["-c", &script])?;
        ensure!(said.trim() == "300000", "{target}: {said} bytes came back");
    }
    let said = stage.run("client", "sh", &["-c", "sleep 3 | socat -t 1 - TCP:10.96.0.5:7001"])?;
    ensure!(said.starts_with("v1 b-v1-") || said.starts_with("v2 b-v2-"), "who speaks first is heard: {said:?}");
    Ok(())
}

#[test]
fn tcp_rules_choose_their_clients_ports_and_addresses() -> Result<()> {
    if !require("tcp_rules_choose_their_clients_ports_and_addresses", &[Need::Agent]) {
        return Ok(());
    }
    let to = |subset: &str| {
        format!("route: [{{destination: {{host: service-b-tcp, subset: {subset}, port: {{number: 9000}}}}}}]")
    };
    let rules = |condition: &str| {
        let tcp = format!("tcp: [{{match: [{{{condition}}}], {}}}, {{{}}}]", to("v2"), to("v1"));
        object("VirtualService", &format!("hosts: [service-b-tcp], {tcp}"))
            + &object("DestinationRule", &format!("host: service-b-tcp, {SUBSETS}"))
    };
    let stage = Stage::furnished(&rules("sourceLabels: {app: web}"), |scene| {
        scene.mesh.add_pod(PodSpec::new("web").label("app", "web"))?;
        scene.mesh.add_pod(PodSpec::new("partner").namespace("partner"))?;
        scene.manifests.namespaces(&[("default", true), ("partner", true)])
    })?;
    let clients = ["client", "web", "partner"];
    for pod in clients {
        stage.agent.await_enrolled(&stage.scene.mesh.pod(pod).key(), true)?;
    }
    for (condition, met) in [
        ("sourceLabels: {app: web}", ["v1", "v2", "v1"]),
        ("sourceNamespace: partner", ["v1", "v1", "v2"]),
        ("port: 9000, gateways: [mesh]", ["v2", "v2", "v2"]),
        ("port: 9001", ["v1", "v1", "v1"]),
        ("destinationSubnets: [10.96.0.0/24]", ["v2", "v2", "v2"]),
        ("destinationSubnets: [10.97.0.0/24]", ["v1", "v1", "v1"]),
    ] {
        stage.scene.manifests.write("rules.yaml", &rules(condition))?;
        eventually(&format!("{condition} is in force"), std::time::Duration::from_secs(10), || {
            for (pod, version) in clients.iter().zip(met) {
                let report = load::tcp(stage.scene.mesh.pod(pod), stage.scene.tcp.at(9000), 20, 2)?;
                ensure!(report.failed == 0 && report.version(version) == 20, "{pod}: {report:?}");
            }
            Ok(Some(()))
        })?;
    }
    Ok(())
}

#[test]
fn tls_rules_choose_their_clients_ports_and_addresses() -> Result<()> {
    let name = "tls_rules_choose_their_clients_ports_and_addresses";
    if !require(name, &[Need::Agent, Need::Program("openssl")]) {
        return Ok(());
    }
    let to = |subset: &str| {
        format!("route: [{{destination: {{host: service-b, subset: {subset}, port: {{number: 443}}}}}}]")
    };
    let rules = |condition: &str| {
        let taken = format!("{{match: [{{sniHosts: [shop.example], {condition}}}], {}}}", to("v2"));
        let others = format!("{{match: [{{sniHosts: [shop.example]}}], {}}}", to("v1"));
        object("VirtualService", &format!("hosts: [service-b, shop.example], tls: [{taken}, {others}]"))
            + &destination("")
    };
    let first = "sourceLabels: {app: web}";
    let stage = Stage::furnished(&rules(first), |scene| {
        scene.mesh.add_pod(PodSpec::new("web").label("app", "web"))?;
        scene.mesh.add_pod(PodSpec::new("partner").namespace("partner"))?;
        scene.manifests.namespaces(&[("default", true), ("partner", true)])?;
        let service = Service::new("service-b", 2).port("http-web", 80, "80").port("tls-shop", 443, "8443");
        scene.manifests.service(&service)
    })?;
    let _servers =
        ["b-v1-0", "b-v1-1", "b-v2-0"].map(|pod| tls_server(&stage, pod)).into_iter().collect::<Result<Vec<_>>>()?;
    stage.agent.await_verdict("default/service-b:443", "proxy")?;
    let clients = ["client", "web", "partner"];
    for pod in clients {
        stage.agent.await_enrolled(&stage.scene.mesh.pod(pod).key(), true)?;
    }
    for (condition, met) in [
        (first, ["v1", "v2", "v1"]),
        ("sourceNamespace: partner", ["v1", "v1", "v2"]),
        ("port: 443, gateways: [mesh]", ["v2", "v2", "v2"]),
        ("port: 80", ["v1", "v1", "v1"]),
        ("gateways: [edge]", ["v1", "v1", "v1"]),
        ("destinationSubnets: [10.96.0.0/24]", ["v2", "v2", "v2"]),
        ("destinationSubnets: [10.97.0.0/24]", ["v1", "v1", "v1"]),
    ] {
        stage.scene.manifests.write("rules.yaml", &rules(condition))?;
        eventually(&format!("{condition} is in force"), std::time::Duration::from_secs(10), || {
            for (pod, version) in clients.iter().zip(met) {
                // Once could be by chance.
                for _ in 0..3 {
                    let shown = subject_from(&stage, pod, "shop.example")?;
                    ensure!(shown.starts_with(&format!("b-{version}-")), "{pod}: the certificate of {shown}");
                }
            }
            Ok(Some(()))
        })?;
    }
    Ok(())
}
