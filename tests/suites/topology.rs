//! The harness proves itself, without weir: pods reach each other in both families, processes are where they should
//! be, the relay spreads by pod count, and nothing is left behind.

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
