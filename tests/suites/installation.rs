//! An agent that is a pod of the installation, with the rights that the manifests give it and no others: what it tells
//! of its node's pods, when it takes its pins away at its end, and what becomes of it when others do.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::canary::HTTP_PORT;
use weir_tests::mesh::binary;
use weir_tests::process::{Place, Process};
use weir_tests::require::{Need, wish_kubectl};
use weir_tests::{Agent, ApiServer, Canary, HttpLoad, Mesh, PodSpec, eventually, proved, require};

const ACCOUNT: &str = "system:serviceaccount:weir-system:weir";
/// The agent's pod, as the DaemonSet's controller makes it.
const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: weir-x\n  namespace: weir-system\n  ownerReferences:\n  - \
                   {apiVersion: apps/v1, kind: DaemonSet, name: weir, uid: '1', controller: true}\nspec: {containers: \
                   [{name: agent, image: weir}]}\n";
/// Generous for a machine of two busy cores.
const SOON: Duration = Duration::from_secs(20);

/// A cluster with the installation in it, its canary, and a pod in a sandbox that no agent can serve.
struct Scene {
    /// Before the mesh, so that its processes end first.
    _sandbox: Process,
    api: ApiServer,
    canary: Canary,
    kubeconfig: PathBuf,
}

impl Scene {
    fn new() -> Result<Self> {
        let mut canary = Canary::new(false)?;
        let uid = "0b6f7a5e-6c1c-4a33-9a39-0242ac120099";
        canary.mesh.add_pod(PodSpec::new("sandboxed").label("weir.mesh/mode", "enabled").uid(uid))?;
        canary.manifests.pods(&canary.mesh)?;
        canary.split_http(100, 0)?;
        let api = ApiServer::builder().rbac().inside(&canary.mesh.node().netns).start()?;
        api.install_istio_crds()?;
        api.apply_directory(canary.manifests.directory())?;
        let pod = canary.mesh.pod("sandboxed");
        let mut command = Command::new("sleep");
        // What gVisor's own process is called.
        command.arg0("runsc-sandbox").arg("600");
        let place = Place { outlives: true, ..pod.sandbox(&pod.place.netns)? };
        let log = canary.mesh.log("sandbox");
        let mut sandbox = canary.mesh.node().netns.run(|| Process::spawn(&place, command, &log))??;
        sandbox.end_with_us();
        let kubeconfig = api.kubeconfig_for(ACCOUNT)?;
        let scene = Self { _sandbox: sandbox, api, canary, kubeconfig };
        scene.install()?;
        Ok(scene)
    }

    /// `kubectl apply -k`
    fn install(&self) -> Result<()> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/daemonset");
        let rendered = Command::new("kubectl").arg("kustomize").arg(directory).output()?;
        ensure!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
        self.api.apply(&String::from_utf8(rendered.stdout)?)?;
        self.api.apply(POD)?;
        Ok(())
    }

    /// The agent as the DaemonSet's pod.
    fn spawn(&self) -> Result<Agent> {
        Agent::spawn_on_with(&self.canary.mesh, &self.kubeconfig, |command| {
            command.envs([("POD_NAMESPACE", "weir-system"), ("POD_NAME", "weir-x"), ("SERVICE_ACCOUNT", "weir")]);
        })
    }

    /// The same, once it has made itself acquainted.
    fn start(&self) -> Result<Agent> {
        self.api.reset_counters()?;
        let mut agent = self.spawn()?;
        agent.await_ready(SOON)?;
        agent.await_verdict(HTTP_PORT, "proxy")?;
        eventually("it has looked at its pod and watches its account", SOON, || {
            let recent = self.api.counters()?.recent;
            let asked = |what: &str| recent.iter().any(|line| line.contains(what));
            Ok((asked("/pods/weir-x") && asked("/serviceaccounts")).then_some(()))
        })?;
        Ok(agent)
    }

    fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/weir").join(self.canary.mesh.name())
    }

    fn take_rights(&self) -> Result<()> {
        self.api.delete("clusterrolebindings.rbac.authorization.k8s.io", "", "weir-agent")?;
        self.api.delete("rolebindings.rbac.authorization.k8s.io", "weir-system", "weir-agent")?;
        Ok(())
    }
}

#[test]
fn pins_outlive_the_agent_unless_the_installation_is_removed() -> Result<()> {
    let name = "pins_outlive_the_agent_unless_the_installation_is_removed";
    if !require(name, &[Need::Agent]) || !wish_kubectl(name) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let mut agent = scene.start()?;
    let took = agent.terminate()?;
    ensure!(scene.pins().exists(), "the DaemonSet is there, and will make another pod: {}", agent.log_text());
    ensure!(took < Duration::from_secs(10), "{took:?}");

    // Roles that are replaced, at the worst moment.
    let mut agent = scene.start()?;
    scene.take_rights()?;
    agent.terminate()?;
    ensure!(scene.pins().exists(), "being refused is no answer: {}", agent.log_text());
    ensure!(agent.log_text().contains("cannot tell whether weir is still installed"), "{}", agent.log_text());
    scene.install()?;

    // `kubectl delete -k`, as an agent sees it: its account and its rights go before its SIGTERM comes.
    let mut agent = scene.start()?;
    scene.api.delete("serviceaccounts", "weir-system", "weir")?;
    scene.take_rights()?;
    let token = scene.kubeconfig.file_name().and_then(|name| name.to_str()).context("a token")?;
    scene.api.remove_user(token)?;
    scene.api.delete("daemonsets.apps", "weir-system", "weir")?;
    let took = agent.terminate()?;
    ensure!(!scene.pins().exists(), "the account was deleted, and no other agent will come: {}", agent.log_text());
    proved!("refused everything after the removal, the agent took its pins away {took:?} after SIGTERM");
    Ok(())
}

#[test]
fn a_pod_that_only_its_node_can_refuse_gets_an_event() -> Result<()> {
    let name = "a_pod_that_only_its_node_can_refuse_gets_an_event";
    if !require(name, &[Need::Agent]) || !wish_kubectl(name) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let mut agent = scene.start()?;
    let events = || -> Result<Vec<Value>> {
        let all = scene.api.list("events")?;
        Ok(all.into_iter().filter(|event| event["involvedObject"]["name"] == "sandboxed").collect())
    };
    let (event, _) = eventually("an Event about the pod", SOON, || Ok(events()?.into_iter().next()))?;
    ensure!(event["message"].as_str().is_some_and(|note| note.contains("gVisor")), "{event}");
    ensure!(event["reason"] == "NotEnrolled" && event["involvedObject"]["kind"] == "Pod", "{event}");
    ensure!(event["metadata"]["namespace"] == "default", "{event}");
    // Another agent on the node finds that it has been told.
    agent.terminate()?;
    let mut agent = scene.start()?;
    eventually("it is refused again", SOON, || {
        let problems = agent.status()?["problems"].to_string();
        Ok(problems.contains("gVisor").then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(8));
    ensure!(events()?.len() == 1, "{:#?}", events()?);
    agent.terminate()?;
    Ok(())
}

/// `weir uninstall` for the instance of a mesh: whether it succeeded, and what it said.
fn uninstall(mesh: &Mesh, arguments: &[&str]) -> Result<(bool, String)> {
    let output =
        Command::new(binary("weir")).args(["uninstall", "--instance", mesh.name()]).args(arguments).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn an_instance_is_removed_under_a_live_agent_only_by_force_and_the_agent_ends() -> Result<()> {
    if !require("an_instance_is_removed_under_a_live_agent_only_by_force_and_the_agent_ends", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    scene.split_http(100, 0)?;
    let mut agent = Agent::start(&scene.mesh)?;
    agent.await_enrolled("default/client", true)?;
    let pins = Path::new("/sys/fs/bpf/weir").join(scene.mesh.name());
    let (done, said) = uninstall(&scene.mesh, &[])?;
    ensure!(!done && said.contains("is alive") && said.contains("--force"), "{said}");
    ensure!(pins.exists() && agent.process().ended()?.is_none(), "nothing has happened");

    // What is in flight keeps it from ending at once.
    let slow = HttpLoad::new(scene.http.at(80)).host("service-b").path("/sleep/5000").connections(2);
    let mut slow = slow.start(scene.client())?;
    eventually("the proxy has them", SOON, || Ok((agent.accepted()? > 1.5).then_some(())))?;
    let (done, said) = uninstall(&scene.mesh, &["--force"])?;
    ensure!(done && !pins.exists(), "{said}");
    let ((), noticed) = eventually("it says so, and is not ready", SOON, || {
        let status = agent.status()?;
        let problem = status["problems"].to_string().contains("the instance was removed");
        Ok((problem && !agent.is_ready()?).then_some(()))
    })?;
    slow.tick()?;
    let ended = agent.process().wait(SOON)?;
    ensure!(!ended.success(), "a restart is what it needs: {ended}");
    ensure!(agent.log_text().contains("the instance was removed under this agent"), "{}", agent.log_text());
    drop(slow);

    let mut agent = Agent::start(&scene.mesh)?;
    agent.await_enrolled("default/client", true)?;
    let load = HttpLoad::new(scene.http.at(80)).requests(20).fresh();
    let (report, accepted) = agent.by_the_proxy(|| load.run(scene.client()))?;
    ensure!(report.failed == 0 && accepted > 19.0, "{accepted}, {report:?}");
    agent.terminate()?;
    let (done, said) = uninstall(&scene.mesh, &[])?;
    ensure!(done && !pins.exists(), "it has ended: {said}");
    proved!("removed by force: not ready {noticed:?} later, ended with {ended}; the next one attached");
    Ok(())
}

#[test]
fn an_agent_that_has_not_begun_ends_when_its_instance_is_removed() -> Result<()> {
    if !require("an_agent_that_has_not_begun_ends_when_its_instance_is_removed", &[Need::Agent]) {
        return Ok(());
    }
    let scene = Canary::new(true)?;
    let api = ApiServer::builder().inside(&scene.mesh.node().netns).start()?;
    api.faults().refuse_connections()?;
    let mut agent = Agent::spawn_on(&scene.mesh, &api.kubeconfig())?;
    eventually("it is designated", SOON, || Ok(agent.log_text().contains("programs are loaded").then_some(())))?;
    let (done, said) = uninstall(&scene.mesh, &["--force"])?;
    ensure!(done, "{said}");
    let ended = agent.process().wait(SOON)?;
    ensure!(!ended.success() && agent.log_text().contains("the instance was removed"), "{ended}\n{}", agent.log_text());
    Ok(())
}

#[test]
fn a_daemon_set_that_is_deleted_and_applied_at_once_is_there() -> Result<()> {
    let name = "a_daemon_set_that_is_deleted_and_applied_at_once_is_there";
    if !require(name, &[Need::Agent]) || !wish_kubectl(name) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let mut restarts = 0;
    for wait in [0, 30, 100, 200, 300].map(Duration::from_millis) {
        let mut old = scene.start()?;
        scene.api.delete("daemonsets.apps", "weir-system", "weir")?;
        old.process().signal(libc::SIGTERM)?;
        std::thread::sleep(wait);
        let mut new = scene.spawn()?;
        let ended = old.process().wait(SOON)?;
        ensure!(ended.success(), "{ended}\n{}", old.log_text());
        scene.install()?;
        // As a kubelet would: an agent that was too late to be seen, and too early to make it anew, is started again.
        if new.await_ready(SOON).is_err() {
            ensure!(new.process().ended()?.is_some_and(|status| !status.success()), "it hangs: {}", new.log_text());
            restarts += 1;
            new = scene.spawn()?;
            new.await_ready(SOON)?;
        }
        // What would have been removed under it would have been noticed by now.
        std::thread::sleep(Duration::from_millis(500));
        ensure!(new.is_ready()? && new.process().ended()?.is_none(), "{}", new.log_text());
        let hook = scene.pins().join("maps/../links/weir_connect4");
        ensure!(hook.exists(), "nothing is attached: {}", new.log_text());
        new.terminate()?;
        ensure!(scene.pins().exists(), "it is installed: {}", new.log_text());
    }
    proved!("deleted and applied at once: the next agent served every time, {restarts} were started twice");
    Ok(())
}

/// Whether a process catches SIGTERM.
fn catches_sigterm(pid: i32) -> Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).context("no SigCgt")?;
    Ok(u64::from_str_radix(mask.trim(), 16)? & 1 << (libc::SIGTERM - 1) != 0)
}

#[test]
fn an_agent_that_is_told_to_end_while_it_starts_takes_its_pins_away() -> Result<()> {
    let name = "an_agent_that_is_told_to_end_while_it_starts_takes_its_pins_away";
    if !require(name, &[Need::Agent]) || !wish_kubectl(name) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let mut former = scene.start()?;
    former.terminate()?;
    ensure!(scene.pins().exists(), "{}", former.log_text());
    scene.api.delete("daemonsets.apps", "weir-system", "weir")?;
    let loaded = |agent: &Agent| agent.log_text().matches("kernel programs are loaded").count();
    let before = loaded(&former);
    let started = Instant::now();
    let mut early = scene.spawn()?;
    while !catches_sigterm(early.pid())? {
        ensure!(started.elapsed() < SOON && loaded(&early) == before, "it starts without catching SIGTERM");
        std::thread::sleep(Duration::from_millis(1));
    }
    let caught = started.elapsed();
    early.terminate()?;
    ensure!(!scene.pins().exists(), "{}", early.log_text());
    proved!("SIGTERM {caught:?} after its start: the agent drained, asked, and took its pins away");
    Ok(())
}
