//! Pods that nobody describes but by their UID: the agent finds kubepods, the pod's cgroup in it, the namespace of its
//! sandbox and the addresses inside, and follows them.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::canary::{BACKENDS, HTTP_PORT};
use weir_tests::netns::NetNs;
use weir_tests::process::{Place, Process};
use weir_tests::require::Need;
use weir_tests::{Agent, ApiServer, Canary, HttpLoad, Pod, PodSpec, proved, require};

/// From the start of the sandbox's process to the map entry: the median, which includes the process's own way into its
/// cgroup and namespace; and every pod, on a machine that is busy.
const ENROLLED_WITHIN: Duration = Duration::from_millis(20);
const AT_ONCE: Duration = Duration::from_millis(500);
const PODS: usize = 20;
const READY_WITHIN: Duration = Duration::from_secs(15);
/// Longer than an agent that has taken over waits for pods that are nowhere (10 s).
const LATE: Duration = Duration::from_secs(12);
/// SYS_PTRACE and SYS_ADMIN: the DaemonSet's.
const CAPABILITIES: [libc::c_ulong; 2] = [19, 21];
/// The last one that any kernel knows by now, with room to spare.
const LAST_CAPABILITY: libc::c_ulong = 63;

/// The canary's scene at 100 to 0, with a relay for those who take no part, and `jobs` pods that have not begun.
fn scene(jobs: usize) -> Result<Canary> {
    let mut scene = Canary::new(false)?;
    scene.mesh.relay(scene.http.at(80), &BACKENDS.map(|(pod, _)| scene.mesh.pod(pod).at(80)))?;
    for number in 0..jobs {
        let uid = format!("d4daf794-e023-45e0-b7f0-{number:012x}");
        let spec = PodSpec::new(&format!("job-{number}")).label("weir.mesh/mode", "enabled").uid(&uid);
        scene.mesh.add_pod(spec)?;
        scene.mesh.pod_mut(&format!("job-{number}")).ready = false;
    }
    scene.manifests.pods(&scene.mesh)?;
    scene.split_http(100, 0)?;
    Ok(scene)
}

/// The process of a pod's sandbox, in a namespace. As with a runtime's, it comes from the node's.
fn pause(scene: &Canary, pod: &Pod, netns: &NetNs) -> Result<Process> {
    let mut command = Command::new("sleep");
    command.arg("100");
    // The thread that starts it ends at once.
    let place = Place { outlives: true, ..pod.sandbox(netns)? };
    let mut process = scene.mesh.node().netns.run(|| Process::spawn(&place, command, &scene.mesh.log("pause")))??;
    process.end_with_us();
    Ok(process)
}

/// What the agent has logged, one record a line.
fn records(agent: &Agent) -> Vec<Value> {
    agent.log_text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// When the agent has enrolled a pod, as seconds of the day.
fn enrolled_at(records: &[Value], pod: &str) -> Result<f64> {
    let record = records.iter().find(|r| r["fields"]["message"] == "enrolled" && r["fields"]["pod"] == pod);
    let time = record.and_then(|r| r["timestamp"].as_str()).with_context(|| format!("{pod} is not in the log"))?;
    let time = time.split_once('T').and_then(|(_, rest)| rest.split_once('Z')).context("a time of the day")?.0;
    time.split(':').try_fold(0.0, |sum, part| Ok(sum * 60.0 + part.parse::<f64>()?))
}

fn time_of_day() -> Result<f64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64() % 86_400.0)
}

#[test]
fn a_pod_is_enrolled_before_its_first_container() -> Result<()> {
    if !require("a_pod_is_enrolled_before_its_first_container", &[Need::Agent]) {
        return Ok(());
    }
    let scene = scene(PODS)?;
    let mut agent = Agent::spawn_with(&scene.mesh, |command| {
        command.arg("--log-json");
    })?;
    agent.await_ready(READY_WITHIN)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    let kubepods = scene.mesh.kubepods();
    let attached = records(&agent).into_iter().find(|r| r["fields"]["message"] == "kernel programs are in place");
    let attached = attached.context("the log says where the hooks are")?;
    ensure!(attached["fields"]["cgroup"].as_str() == kubepods.to_str(), "{attached}");
    let mut running = Vec::new();
    let mut started = Vec::new();
    for number in 0..PODS {
        let name = format!("job-{number}");
        let pod = scene.mesh.pod(&name);
        started.push(time_of_day()?);
        running.push(pause(&scene, pod, &pod.place.netns)?);
        let took = agent.await_enrolled(&pod.key(), true)?;
        ensure!(took < AT_ONCE, "{name} took {took:?}");
        // Its very first connections: all by the rule.
        let report = HttpLoad::new(scene.http.at(80)).requests(6).fresh().run(pod)?;
        ensure!(report.failed == 0 && report.version("v1") == 6, "{name}: {report:?}\n{}", agent.log_text());
    }
    let records = records(&agent);
    let took = started.iter().enumerate().map(|(number, at)| {
        let took = enrolled_at(&records, &format!("default/job-{number}"))? - at;
        // Midnight.
        Ok(Duration::from_secs_f64(if took < 0.0 { took + 86_400.0 } else { took }))
    });
    let mut took = took.collect::<Result<Vec<_>>>()?;
    took.sort_unstable();
    proved!(
        "from the sandbox's process to the entry: p50 {:?}, the slowest of {PODS} {:?}",
        took[PODS / 2],
        took[PODS - 1]
    );
    ensure!(took[PODS / 2] < ENROLLED_WITHIN, "{took:?}");
    // Those of a pod, or some, may have met an agent that was kept off the CPU for half a second.
    let (accepted, asked) = (agent.accepted()?, 6.0 * PODS as f64);
    let whole = accepted + agent.fallen_back()? as f64;
    ensure!(accepted > 0.9 * asked && (whole - asked).abs() < 0.5, "{accepted} of {whole} came to the proxy");
    Ok(())
}

#[test]
fn a_sandbox_is_followed_to_its_end() -> Result<()> {
    if !require("a_sandbox_is_followed_to_its_end", &[Need::Agent]) {
        return Ok(());
    }
    let mut scene = scene(1)?;
    let mut agent = Agent::start(&scene.mesh)?;
    let cookie = |agent: &Agent| -> Result<(u64, String)> {
        let status = agent.status()?;
        let pod = status["pods"].as_array().and_then(|pods| pods.iter().find(|p| p["pod"] == "default/job-0"));
        let pod = pod.context("it is not enrolled")?;
        Ok((pod["netns_cookie"].as_u64().context("a cookie")?, pod["addresses"].to_string()))
    };
    // The runtime's helper, which never leaves the node's namespace.
    let node = scene.mesh.node().netns.clone();
    let helper = pause(&scene, scene.mesh.pod("job-0"), &node)?;
    std::thread::sleep(AT_ONCE);
    ensure!(cookie(&agent).is_err(), "it has no namespace");
    drop(helper);

    let first = scene.mesh.pod("job-0").place.netns.clone();
    let sandbox = pause(&scene, scene.mesh.pod("job-0"), &first)?;
    agent.await_enrolled("default/job-0", true)?;
    let (before, addresses) = cookie(&agent)?;
    ensure!(addresses == r#"["10.244.0.14","fd00:10:244::e"]"#, "read inside: {addresses}");
    // What the kubelet reports later changes nothing.
    scene.mesh.pod_mut("job-0").ready = true;
    scene.manifests.pods(&scene.mesh)?;

    // A new agent finds it before it is ready, so that no connection passes by.
    agent.process().kill();
    let mut agent = Agent::start(&scene.mesh)?;
    ensure!(cookie(&agent)? == (before, addresses), "the new agent");

    drop(sandbox);
    let took = agent.await_enrolled("default/job-0", false)?;
    ensure!(took < AT_ONCE, "the release took {took:?}");
    let second = NetNs::create(&format!("{}-again", scene.mesh.name()))?;
    second.ip("link add eth0 type veth peer name peer0\naddr add 10.244.0.99/32 dev eth0\n")?;
    let again = pause(&scene, scene.mesh.pod("job-0"), &second)?;
    let took = agent.await_enrolled("default/job-0", true)?;
    ensure!(took < AT_ONCE, "the new sandbox took {took:?}");
    let (after, addresses) = cookie(&agent)?;
    ensure!(after != before && addresses == r#"["10.244.0.99"]"#, "{before} {after} {addresses}");
    drop(again);
    agent.await_enrolled("default/job-0", false)?;
    agent.terminate()?;
    Ok(())
}

#[test]
fn a_pod_that_a_new_agent_has_not_found_yet_keeps_its_entry() -> Result<()> {
    if !require("a_pod_that_a_new_agent_has_not_found_yet_keeps_its_entry", &[Need::Agent]) {
        return Ok(());
    }
    keeps_its_entry(|scene| Agent::start(&scene.mesh))
}

#[test]
fn an_agent_that_learns_its_mesh_late_looks_for_its_pods_as_long() -> Result<()> {
    if !require("an_agent_that_learns_its_mesh_late_looks_for_its_pods_as_long", &[Need::Agent]) {
        return Ok(());
    }
    let mut server = None;
    keeps_its_entry(|scene| {
        let api = ApiServer::builder().inside(&scene.mesh.node().netns).start()?;
        api.install_istio_crds()?;
        api.apply_directory(scene.manifests.directory())?;
        api.faults().refuse_connections()?;
        let mut agent = Agent::spawn_on(&scene.mesh, &api.kubeconfig())?;
        // The log is the former agent's too.
        let begun = |agent: &Agent| agent.log_text().matches("first configuration in force").count();
        // All the time that an agent has to find its pods.
        std::thread::sleep(LATE);
        ensure!(begun(&agent) == 1, "nobody has told it");
        api.resume()?;
        agent.await_ready(READY_WITHIN)?;
        server = Some(api);
        Ok(agent)
    })
}

/// A pod that was enrolled is still to be found when `restart` has started another agent.
fn keeps_its_entry(restart: impl FnOnce(&Canary) -> Result<Agent>) -> Result<()> {
    let mut scene = scene(1)?;
    let mut agent = Agent::start(&scene.mesh)?;
    let netns = scene.mesh.pod("job-0").place.netns.clone();
    let sandbox = pause(&scene, scene.mesh.pod("job-0"), &netns)?;
    agent.await_enrolled("default/job-0", true)?;
    agent.process().kill();
    // All that is seen of the pod is a helper in the node's namespace; its own processes are too deep to be looked at.
    let node = scene.mesh.node().netns.clone();
    let helper = pause(&scene, scene.mesh.pod("job-0"), &node)?;
    drop(sandbox);
    let deep = scene.mesh.pod("job-0").place.cgroup.join("made/by-the-app");
    weir_tests::cgroup::create(&deep)?;
    let shallow = std::mem::replace(&mut scene.mesh.pod_mut("job-0").place.cgroup, deep);
    let mut agent = restart(&scene)?;
    ensure!(agent.await_enrolled("default/job-0", false).is_ok(), "it is still starting");
    // The weights of the rule, without a proxy: by the former agent's entry.
    let report = HttpLoad::new(scene.http.at(80)).requests(60).fresh().run(scene.mesh.pod("job-0"))?;
    ensure!(report.failed == 0 && report.version("v1") == 60, "{report:?}");
    ensure!(agent.accepted()? < 0.5, "no proxy has it yet");
    scene.mesh.pod_mut("job-0").place.cgroup = shallow;
    drop(helper);
    let sandbox = pause(&scene, scene.mesh.pod("job-0"), &netns)?;
    agent.await_enrolled("default/job-0", true)?;
    let load = HttpLoad::new(scene.http.at(80)).requests(6).fresh();
    let (report, accepted) = agent.by_the_proxy(|| load.run(scene.mesh.pod("job-0")))?;
    ensure!(report.failed == 0 && accepted > 5.5, "{accepted}, {report:?}");
    drop(sandbox);
    agent.await_enrolled("default/job-0", false)?;
    agent.terminate()?;
    Ok(())
}

/// Has an agent start on a node that is itself a container: of the cgroup tree it sees only what is below `root`, at
/// `mount`. It has the DaemonSet's capabilities.
fn on_nested_node(command: &mut Command, root: &Path, mount: &Path) -> Result<()> {
    let door = weir_tests::cgroup::door(root)?;
    let target = CString::new(mount.as_os_str().as_encoded_bytes())?;
    command.arg("--cgroup-root").arg(mount);
    // SAFETY: between fork and exec only system calls on what the closure owns; no allocation.
    unsafe {
        command.pre_exec(move || {
            let none = c"none".as_ptr();
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let done = libc::write(door.as_raw_fd(), c"0".as_ptr().cast(), 1) == 1
                && libc::unshare(libc::CLONE_NEWCGROUP | libc::CLONE_NEWNS) == 0
                && libc::mount(none, c"/".as_ptr(), ptr::null(), private, ptr::null()) == 0
                && libc::mount(none, target.as_ptr(), c"cgroup2".as_ptr(), 0, ptr::null()) == 0;
            if !done {
                return Err(io::Error::last_os_error());
            }
            for capability in (0..=LAST_CAPABILITY).filter(|c| !CAPABILITIES.contains(c)) {
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            Ok(())
        });
    }
    Ok(())
}

#[test]
fn on_a_node_in_a_container_a_pod_is_told_from_others_in_its_namespace() -> Result<()> {
    if !require("on_a_node_in_a_container_a_pod_is_told_from_others_in_its_namespace", &[Need::Agent]) {
        return Ok(());
    }
    let mut scene = scene(1)?;
    let mount = scene.mesh.scratch().join("cgroup");
    std::fs::create_dir(&mount)?;
    let mut nested = Ok(());
    let mut agent =
        Agent::spawn_with(&scene.mesh, |command| nested = on_nested_node(command, scene.mesh.cgroup(), &mount))?;
    nested?;
    agent.await_ready(READY_WITHIN)?;
    let netns = scene.mesh.pod("job-0").place.netns.clone();
    let _sandbox = pause(&scene, scene.mesh.pod("job-0"), &netns)?;
    agent.await_enrolled("default/job-0", true)?;
    ensure!(!agent.log_text().contains("cannot be told"), "{}", agent.log_text());
    let load = HttpLoad::new(scene.http.at(80)).requests(60).fresh();
    let (report, accepted) = agent.by_the_proxy(|| load.run(scene.mesh.pod("job-0")))?;
    ensure!(report.failed == 0 && report.version("v1") == 60 && accepted > 59.5, "the pod: {accepted}, {report:?}");
    let before = agent.accepted()?;
    // Something of the node's in the pod's namespace, such as a CNI's helper.
    let stranger = scene.mesh.cgroup().join("stranger");
    weir_tests::cgroup::create(&stranger)?;
    scene.mesh.pod_mut("job-0").place.cgroup = stranger;
    let report = load.run(scene.mesh.pod("job-0"))?;
    ensure!(report.failed == 0 && report.version("v2") > 0, "it takes no part: {report:?}");
    let accepted = agent.accepted()? - before;
    ensure!(accepted < 0.5, "the proxy has accepted {accepted}");
    agent.terminate()?;
    Ok(())
}
