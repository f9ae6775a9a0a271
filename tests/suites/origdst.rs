//! The original destination is right for every connection: 40,000 from 8 threads to 16 addresses, through one
//! listener per family.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use weir_tests::canary::virtual_service;
use weir_tests::require::Need;
use weir_tests::{Agent, Manifests, Mesh, PodSpec, Service, load, proved, require};

const SERVICES: u8 = 8;
const CONNECTIONS: u64 = 40_000;
const THREADS: &str = "8";

#[test]
fn forty_thousand_connections_keep_their_destination() -> Result<()> {
    if !require("forty_thousand_connections_keep_their_destination", &[Need::Agent]) {
        return Ok(());
    }
    let mut mesh = Mesh::new()?;
    mesh.add_pod(PodSpec::new("client"))?;
    let manifests = Manifests::of(&mesh);
    let mut arguments: Vec<String> = vec!["destination".into()];
    let mut rules = String::new();
    for n in 1..=SERVICES {
        let name = format!("service-{n}");
        // The origin answers with its service's name, where other suites have a version.
        mesh.add_pod(PodSpec::new(&name).label("app", &name).label("version", &name))?;
        mesh.serve(&name, "--http 8080")?;
        let service = Service::new(&name, n).port("http", 80, "8080");
        manifests.service(&service)?;
        let routes = format!("  http:\n  - route:\n    - destination: {{host: {name}}}\n");
        write!(rules, "---\n{}", virtual_service(&name, &routes))?;
        arguments.extend([format!("{}={name}", service.at(80)), format!("{}={name}", service.at6(80))]);
    }
    manifests.write("rules.yaml", &rules)?;
    manifests.namespaces(&[("default", true)])?;
    manifests.pods(&mesh)?;
    let agent = Agent::start(&mesh)?;
    for n in 1..=SERVICES {
        agent.await_verdict(&format!("default/service-{n}:80"), "proxy")?;
    }
    // A Host that nobody knows: only the original destination can tell where the request goes.
    arguments.extend(["--host", "nobody.example", "--connections", THREADS].map(String::from));
    arguments.extend(["--requests".into(), CONNECTIONS.to_string()]);
    let report = load::client(mesh.pod("client"), &arguments)?;
    ensure!(report.failed == 0 && report.answered == CONNECTIONS, "{report:?}");
    for n in 1..=SERVICES {
        let answered = report.version(&format!("service-{n}"));
        ensure!(answered == CONNECTIONS / u64::from(SERVICES), "service-{n} answered {answered}");
    }
    // Some may have met an agent that was kept off the CPU for half a second.
    let (accepted, asked) = (agent.accepted()?, CONNECTIONS as f64);
    let whole = accepted + agent.fallen_back()? as f64;
    ensure!(accepted > 0.9 * asked && whole >= asked, "{accepted} of {whole} came to the proxy");
    proved!("{CONNECTIONS} connections in {:.1} s, every destination right", report.seconds);
    Ok(())
}
