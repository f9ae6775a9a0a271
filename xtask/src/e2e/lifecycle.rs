//! Pods of all kinds from their first breath, and what of Kubernetes must go on working. Steps of `e2e`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::Report;

use super::kubectl::Kubectl;
use super::{Args, Run, image, manifest};

/// Jobs of a few requests; their image is on the node.
const JOBS: Duration = Duration::from_mins(1);
/// A CronJob of every minute is created up to a minute before its first turn.
const CRON: Duration = Duration::from_secs(100);

/// A pod's first request is steered already, whatever kind of container sends it.
pub(super) fn pods(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("Jobs, init containers, native sidecars, a CronJob", "a pod's very first request follows the rule")?;
    run.weights(100, 0)?;
    run.await_all_v1()?;
    let jobs = ["first-request", "init-container", "native-sidecar"];
    for job in jobs {
        run.kubectl.run(&["delete", "job", job, "--ignore-not-found"])?;
    }
    let text = manifest("tests/e2e/lifecycle.yaml", &[("IMAGE", &image::pods()), ("SERVICE", &run.service)])?;
    run.kubectl.apply(&text)?;
    for job in jobs {
        let pod = finished(run, job, JOBS)?;
        judge(run, job, &pod, "main")?;
        if job == "init-container" {
            judge(run, job, &pod, "first")?;
        }
    }
    let pod = finished(run, "cron", CRON)?;
    judge(run, "cron", &pod, "main")?;
    run.kubectl.run(&["delete", "cronjob", "cron"])?;
    Ok(())
}

/// The pod of a job, once it has ended.
pub(super) fn finished(run: &Run, app: &str, within: Duration) -> Result<String> {
    let label = format!("app={app}");
    let look = || {
        let pods = run.kubectl.json(&["get", "pods", "-l", &label])?;
        let ended = pods["items"].as_array().into_iter().flatten().find(|pod| {
            let phase = &pod["status"]["phase"];
            phase == "Succeeded" || phase == "Failed"
        });
        Ok(ended.and_then(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned))
    };
    Ok(Kubectl::until(&format!("a pod of {app} ends"), within, look)?.0)
}

/// The count that a client container left in its log.
pub(super) fn logged(run: &Run, pod: &str, container: &str) -> Result<Report> {
    let log = run.kubectl.run(&["logs", pod, "-c", container])?;
    Report::parse(log.lines().last().with_context(|| format!("{pod} logged nothing"))?)
}

fn judge(run: &mut Run, what: &str, pod: &str, container: &str) -> Result<()> {
    let report = logged(run, pod, container)?;
    let text = format!(
        "{what} ({container}): {} answered, {} failed, {} by v2 {:?}",
        report.answered,
        report.failed,
        report.version("v2"),
        report.errors
    );
    run.check(report.answered == 40 && report.failed == 0 && report.version("v2") == 0, &text)
}

/// A pod that another mesh captures is refused, and the user is told.
pub(super) fn other_mesh(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("A pod with another mesh's sidecar", "it is refused, and an Event says so")?;
    run.kubectl.apply(&manifest("tests/e2e/other-mesh.yaml", &[("IMAGE", &image::pods())])?)?;
    let field = "involvedObject.name=other-mesh";
    let told = Kubectl::until("an Event about it", Duration::from_secs(30), || {
        let events = run.kubectl.json(&["get", "events", "--field-selector", field])?;
        let ours = events["items"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|event| event["message"].as_str().is_some_and(|message| message.contains("another mesh")));
        Ok(ours.and_then(|event| event["message"].as_str()).map(str::to_owned))
    });
    match told {
        Ok((message, _)) => run.check(true, &message)?,
        Err(error) => run.check(false, &format!("{error:#}"))?,
    }
    run.kubectl.run(&["wait", "--for=condition=Ready", "pod/other-mesh", "--timeout=60s"])?;
    let report = run.kubectl.client("other-mesh", &["http", &run.service, "--requests", "60", "--fresh"]);
    run.kubectl.run(&["delete", "pod", "other-mesh", "--wait=false"])?;
    let report = report?;
    run.check(
        report.version("v2") > 0 && report.failed == 0,
        &format!("its requests are kube-proxy's: {} of 60 to v2, which has weight 0", report.version("v2")),
    )
}

/// What the cluster does by itself goes on.
pub(super) fn cluster(run: &mut Run, _args: &Args) -> Result<()> {
    run.step(
        "Probes, DNS, pod addresses, headless services, NodePort, exec, logs, port-forward",
        "what the cluster does by itself goes on in an enrolled namespace",
    )?;
    let pods = run.kubectl.json(&["get", "pods", "-l", "app=service-b"])?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let steady = pods.iter().all(|pod| {
        let container = &pod["status"]["containerStatuses"][0];
        container["ready"] == true && container["restartCount"] == 0
    });
    run.check(steady && !pods.is_empty(), &format!("{} pods ready by their probes, none restarted", pods.len()))?;
    let client = run.client()?;
    let found =
        run.kubectl.run(&["exec", &client, "--", "/weir-client", "resolve", "service-b.weir-e2e.svc.cluster.local"]);
    match found {
        Ok(found) => {
            run.check(run.service.starts_with(found.trim()), &format!("DNS: service-b is {}", found.trim()))?;
        }
        Err(error) => run.check(false, &format!("DNS: {error:#}"))?,
    }
    let address = pods.first().and_then(|pod| pod["status"]["podIP"].as_str()).context("a pod without an address")?;
    let host = |address: &str| if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let direct =
        run.kubectl.client(&client, &["http", &format!("{}:80", host(address)), "--requests", "20", "--fresh"])?;
    run.check(direct.by_pod.len() == 1 && direct.failed == 0, &format!("a pod by its address: {:?}", direct.by_pod))?;
    headless(run, &client, &pods)?;
    let nodes = run.kubectl.json(&["get", "nodes"])?;
    let service = run.kubectl.json(&["get", "service", "service-b-node"])?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("no nodePort")?;
    for node in nodes["items"].as_array().into_iter().flatten() {
        let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
        let internal = addresses.iter().find(|a| a["type"] == "InternalIP").and_then(|a| a["address"].as_str());
        let target = format!("{}:{port}", host(internal.context("a node without an address")?));
        let report = run.kubectl.client(&client, &["http", &target, "--requests", "20", "--fresh"])?;
        run.check(report.answered == 20 && report.failed == 0, &format!("NodePort {target}: {:?}", report.by_version))?;
    }
    let v1 = run.kubectl.pods("app=service-b,version=v1")?;
    let name = v1.first().context("no pod of v1")?.clone();
    let answer = port_forward(run, &name)?;
    run.check(answer.contains(" 200 ") && answer.contains(&name), &format!("port-forward to {name}"))
}

/// The name of a headless service is an address of one of its pods, and who dials that gets that pod.
fn headless(run: &mut Run, client: &str, pods: &[serde_json::Value]) -> Result<()> {
    let name = "service-b-pods.weir-e2e.svc.cluster.local";
    let found = run.kubectl.run(&["exec", client, "--", "/weir-client", "resolve", name])?;
    let found = found.trim();
    let named = pods.iter().find(|pod| pod["status"]["podIP"].as_str() == Some(found));
    let pod = named.and_then(|pod| pod["metadata"]["name"].as_str()).unwrap_or_default().to_owned();
    let target = format!("{found}:80");
    let report = run.kubectl.client(client, &["http", &target, "--host", name, "--requests", "20", "--fresh"])?;
    let right = report.failed == 0 && report.by_pod.len() == 1 && report.by_pod.contains_key(&pod);
    run.check(right, &format!("headless: {found} is {pod}, and answers as itself: {:?}", report.by_pod))
}

/// One GET through `kubectl port-forward`.
fn port_forward(run: &Run, pod: &str) -> Result<String> {
    let mut child = run
        .kubectl
        .command(&["port-forward", &format!("pod/{pod}"), ":80"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let answer = (|| {
        let mut line = String::new();
        // Held to the end: kubectl has more to say, and does not survive a closed pipe.
        let mut said = BufReader::new(child.stdout.take().context("a pipe")?);
        said.read_line(&mut line)?;
        let port = line.split(" -> ").next().and_then(|l| l.rsplit(':').next()).context("no port")?.trim().to_owned();
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).with_context(|| line.clone())?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")?;
        let (mut answer, mut part) = (String::new(), [0; 1024]);
        while !answer.contains(&format!("v1 {pod}")) {
            let read = stream.read(&mut part).with_context(|| format!("after {answer:?}"))?;
            ensure!(read > 0, "it ended after {answer:?}");
            answer.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        anyhow::Ok(answer)
    })();
    child.kill()?;
    child.wait()?;
    answer
}
