//! The harness proves itself, without weir: pods reach each other in both families, processes are where they should
//! be, the relay spreads by pod count, nothing is left behind, and the client does see what is wrong.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use weir_tests::require::Need;
use weir_tests::{HttpLoad, Mesh, PodSpec, Service, load, mesh, netns, process, require};

#[test]
fn pods_reach_each_other_and_leave_nothing_behind() -> Result<()> {
    if !require("pods_reach_each_other_and_leave_nothing_behind", &[Need::Namespaces]) {
        return Ok(());
    }
    let name;
    {
        let mut mesh = Mesh::new()?;
        name = mesh.name().to_owned();
        mesh.add_pod(PodSpec::new("client"))?;
        for (pod, version) in [("v1-a", "v1"), ("v1-b", "v1"), ("v2-a", "v2")] {
            mesh.add_pod(PodSpec::new(pod).label("app", "service-b").label("version", version))?;
            mesh.serve(pod, "--http 80 --tcp 9000")?;
        }
        let client = mesh.pod("client").clone();
        for target in [mesh.pod("v2-a").at(80), mesh.pod("v2-a").at6(80)] {
            let report = HttpLoad::new(target).requests(200).connections(4).bodies(100_000).run(&client)?;
            ensure!(report.answered == 200 && report.failed == 0, "{target}: {report:?}");
            ensure!(report.by_pod.get("v2-a") == Some(&200), "{report:?}");
        }
        let report = load::tcp(&client, mesh.pod("v1-a").at(9000), 100, 4)?;
        ensure!(report.version("v1") == 100, "{report:?}");

        let cgroup = process::output(&client.place, {
            let mut cat = Command::new("cat");
            cat.arg("/proc/self/cgroup");
            cat
        })?;
        ensure!(cgroup.lines().any(|l| l == format!("0::/{name}/pods/client")), "{cgroup}");

        let service = Service::new("service-b", 2);
        for (address, six) in [(service.at(80), false), (service.at6(80), true)] {
            let pods: Vec<_> = ["v1-a", "v1-b", "v2-a"]
                .iter()
                .map(|p| if six { mesh.pod(p).at6(80) } else { mesh.pod(p).at(80) })
                .collect();
            mesh.relay(address, &pods)?;
            let report = HttpLoad::new(address).requests(300).connections(3).fresh().run(&client)?;
            ensure!(report.failed == 0 && report.version("v1") == 200 && report.version("v2") == 100, "{report:?}");
        }
    }
    ensure!(netns::names(&name).is_empty(), "namespaces are left");
    ensure!(!weir_tests::cgroup::root()?.join(&name).exists(), "cgroups are left");
    ensure!(!mesh::exists(&name) && fs::metadata(std::env::temp_dir().join(&name)).is_err(), "files are left");
    Ok(())
}

#[test]
fn the_client_sees_what_is_wrong() -> Result<()> {
    if !require("the_client_sees_what_is_wrong", &[Need::Namespaces]) {
        return Ok(());
    }
    let mut mesh = Mesh::new()?;
    mesh.add_pod(PodSpec::new("client"))?;
    mesh.add_pod(PodSpec::new("server").label("version", "v1"))?;
    mesh.serve("server", "--http 80 --tcp 9000 --tcp-first 9001")?;
    let (client, server) = (mesh.pod("client").clone(), mesh.pod("server").clone());
    let run =
        |arguments: &[&str]| load::client(&client, &arguments.iter().map(ToString::to_string).collect::<Vec<_>>());
    for (mode, port) in [("half-close", 9000), ("listen-first", 9001)] {
        let report = run(&[mode, &server.at6(port).to_string(), "--requests", "20", "--bodies", "300000"])?;
        ensure!(report.answered == 20 && report.version("v1") == 20, "{mode}: {report:?}");
    }
    let (right, wrong) = (format!("{}=v1", server.at(80)), format!("{}=v2", server.at(80)));
    let report = run(&["destination", &right, &wrong, "--requests", "10", "--connections", "2"])?;
    ensure!(report.answered == 5 && report.failed == 5, "every second answer is the wrong one's: {report:?}");
    // Not an echo: the greeting comes first, so no body can be the one that was sent.
    let report = HttpLoad::new(server.at(9001)).requests(3).bodies(1000).run(&client)?;
    ensure!(report.answered == 0 && report.failed == 3, "{report:?}");
    let report = HttpLoad::new(server.at(81)).requests(3).run(&client)?;
    ensure!(report.failed == 3, "nobody listens there: {report:?}");

    let mut live = HttpLoad::new(server.at(80)).connections(2).pace(100).start(&client)?;
    live.tick()?;
    mesh.stop_origins();
    (0..3).try_for_each(|_| live.tick().map(drop))?;
    let report = live.stop()?;
    ensure!(report.version("v1") > 0 && report.failed > 0, "the origin went away under load: {report:?}");
    Ok(())
}
