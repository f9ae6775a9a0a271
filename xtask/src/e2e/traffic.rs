//! Opt-in, the canary, its shift, and opt-out, with requests counted. Steps of `e2e`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use weir_tests::Report;

use super::kubectl::{Kubectl, NAMESPACE};
use super::{Args, ROLLOUT, Run, manifest};

/// Requests of a measured split.
const REQUESTS: u64 = 2000;
/// Standard deviations that a share may be off: one run in 15,000 fails by chance.
const SIGMAS: f64 = 4.0;
/// From a label or an edit to the decision, with kubectl and the client in between.
const IN_FORCE: Duration = Duration::from_secs(10);
/// Requests that see which way is in force.
const SAMPLE: &str = "60";
/// The users' canary.
const CANARY: &str = "deploy/examples/canary/04-canary.yaml";

impl Run {
    /// As many requests as make a share, from the client of every node, one after the other.
    fn split(&self, arguments: &[&str]) -> Result<Report> {
        let clients = self.clients()?;
        let requests = (REQUESTS / clients.len().max(1) as u64).to_string();
        let mut total = Report::default();
        for client in clients {
            let mut command = arguments.to_vec();
            command.extend(["--requests", &requests, "--connections", "4", "--fresh"]);
            let report = self.kubectl.client(&client, &command)?;
            total.answered += report.answered;
            total.failed += report.failed;
            for (table, more) in [
                (&mut total.by_version, report.by_version),
                (&mut total.by_pod, report.by_pod),
                (&mut total.errors, report.errors),
            ] {
                for (name, count) in more {
                    *table.entry(name).or_default() += count;
                }
            }
        }
        Ok(total)
    }

    /// The share of v1 must be `expected` percent, as far as chance allows.
    fn check_split(&mut self, report: &Report, expected: f64, how: &str) -> Result<()> {
        let share = report.share("v1");
        let deviation = (expected * (100.0 - expected) / report.answered.max(1) as f64).sqrt();
        let allowed = (SIGMAS * deviation).max(0.1);
        self.screen.bars(&report.by_version, &format!("{} answered, {} failed", report.answered, report.failed))?;
        self.screen.settle();
        let text = format!("{how}: v1 {share:.1} %, expected {expected:.1} ± {allowed:.1}, 0 of {}", report.answered);
        self.check(report.failed == 0 && (share - expected).abs() <= allowed, &format!("{text} failed"))
    }

    /// Until the clients of all nodes see that v1 has everything.
    pub(super) fn await_all_v1(&self) -> Result<Duration> {
        let all_v1 = || {
            for client in self.clients()? {
                let report = self.kubectl.client(&client, &["http", &self.service, "--requests", SAMPLE, "--fresh"])?;
                if report.failed > 0 || report.version("v1") != report.answered {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        };
        Ok(Kubectl::until("every request goes to v1", IN_FORCE, all_v1)?.1)
    }

    /// Until service-b has had this many ready endpoints for `steady`. After an outage Kubernetes takes the nodes for
    /// lost, some time after the API server is back, and with them all their endpoints until the kubelets report.
    pub(super) fn await_endpoints(&self, count: usize, steady: Duration) -> Result<Duration> {
        let mut since = None;
        let look = || {
            let slices = self.kubectl.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=service-b"])?;
            let ready = slices["items"]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
                .filter(|endpoint| endpoint["conditions"]["ready"] == true)
                .count();
            if ready != count {
                since = None;
            }
            Ok((ready == count && since.get_or_insert_with(Instant::now).elapsed() >= steady).then_some(()))
        };
        Ok(Kubectl::until("all endpoints are ready", ROLLOUT, look)?.1)
    }

    /// The users' canary with these weights.
    pub(super) fn weights(&self, v1: u32, v2: u32) -> Result<()> {
        let first = format!("weight: FIRST{v1}");
        let second = format!("weight: {v2}");
        // In two steps, since one new weight may look like the other old one.
        let text = manifest(CANARY, &[("weight: 90", &first), ("weight: 10", &second), ("FIRST", "")])?;
        self.kubectl.apply(&text)
    }
}

/// Spread by pod count.
pub(super) fn before(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("Before opt-in", "who does not take part is not touched: the spread is kube-proxy's, by pod count")?;
    run.weights(90, 10)?;
    // kube-proxy follows the endpoints within a second or two.
    std::thread::sleep(Duration::from_secs(3));
    let report = run.split(&["http", &run.service])?;
    run.check_split(&report, 50.0, "one pod each")
}

/// The label, and the wait until it is in force, counted from requests.
pub(super) fn opt_in(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("The namespace opts in", "running pods, no restart: the label is all")?;
    run.weights(100, 0)?;
    let pods = || run.kubectl.json(&["get", "pods", "-o", "json"]).map(|p| restarts(&p));
    let before = pods()?;
    run.kubectl.run(&["label", "namespace", NAMESPACE, "weir.mesh/mode=enabled", "--overwrite"])?;
    let took = run.await_all_v1()?;
    let same = pods()? == before;
    run.check(true, &format!("in force on every node after {:.1} s, kubectl included", took.as_secs_f64()))?;
    run.check(same, "no pod was restarted or replaced")
}

fn restarts(pods: &serde_json::Value) -> Vec<String> {
    let items = pods["items"].as_array().into_iter().flatten();
    items.map(|p| format!("{} {}", p["metadata"]["uid"], p["status"]["containerStatuses"][0]["restartCount"])).collect()
}

/// 90/10.
pub(super) fn canary(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("The canary", "90 % to v1, 10 % to v2, whatever the number of pods")?;
    run.weights(90, 10)?;
    std::thread::sleep(Duration::from_secs(1));
    let report = run.split(&["http", &run.service])?;
    run.check_split(&report, 90.0, "HTTP")
}

/// 90/10 to 50/50 while 200 requests a second flow.
pub(super) fn shift(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("The shift to 50/50 under 200 requests a second", "a change of weights fails no request")?;
    let client = run.client()?;
    let load = run.kubectl.load(&client, &["http", &run.service, "--fresh", "--pace", "100", "--connections", "2"])?;
    std::thread::sleep(Duration::from_secs(3));
    run.weights(50, 50)?;
    std::thread::sleep(Duration::from_secs(1));
    let middle = load.now()?;
    std::thread::sleep(Duration::from_secs(8));
    let report = load.stop()?;
    run.check(
        report.failed == 0 && report.answered > 1500,
        &format!("{} requests, {} failed {:?}", report.answered, report.failed, report.errors),
    )?;
    let after = report.since(&middle);
    run.check_split(&after, 50.0, "after the shift")
}

/// Three pods of v1, still by weight.
pub(super) fn scale(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("v1 is scaled from 1 to 3 pods during the split", "the share is the rule's, not the pod count's")?;
    run.weights(90, 10)?;
    let client = run.client()?;
    let load = run.kubectl.load(&client, &["http", &run.service, "--fresh", "--pace", "100", "--connections", "2"])?;
    run.kubectl.run(&["scale", "deployment/service-b-v1", "--replicas=3"])?;
    run.kubectl.run(&["rollout", "status", "deployment/service-b-v1", "--timeout=60s"])?;
    std::thread::sleep(Duration::from_secs(1));
    let during = load.stop()?;
    run.check(during.failed == 0, &format!("{} requests meanwhile, {} failed", during.answered, during.failed))?;
    let report = run.split(&["http", &run.service])?;
    run.check_split(&report, 90.0, "with 3 pods of v1")?;
    let pods = report.by_pod.keys().filter(|name| name.contains("-v1-")).count();
    run.check(pods == 3, &format!("{pods} pods of v1 answer"))
}

/// The same split for bytes, in the kernel.
pub(super) fn tcp(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("The split of a TCP service", "the kernel does it by itself")?;
    run.kubectl.apply(&manifest("deploy/examples/canary/05-tcp-canary.yaml", &[])?)?;
    let service = run.kubectl.json(&["get", "service", "service-b-tcp"])?;
    let address = service["spec"]["clusterIP"].as_str().context("service-b-tcp has no clusterIP")?;
    let port = service["spec"]["ports"][0]["port"].as_u64().context("service-b-tcp has no port")?;
    let target = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
    std::thread::sleep(Duration::from_secs(2));
    let report = run.split(&["tcp", &target])?;
    run.check_split(&report, 90.0, "TCP")
}

/// Back to kube-proxy's spread, under load.
pub(super) fn opt_out(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("The namespace opts out", "running pods, no restart, no failed request")?;
    let client = run.client()?;
    let load = run.kubectl.load(&client, &["http", &run.service, "--fresh", "--pace", "100", "--connections", "2"])?;
    std::thread::sleep(Duration::from_secs(1));
    run.kubectl.run(&["label", "namespace", NAMESPACE, "weir.mesh/mode-"])?;
    std::thread::sleep(Duration::from_secs(3));
    let during = load.stop()?;
    run.await_endpoints(4, Duration::from_secs(3))?;
    let text = format!("{} requests meanwhile, {} failed {:?}", during.answered, during.failed, during.errors);
    run.check(during.failed == 0 && during.answered > 0, &text)?;
    let report = run.split(&["http", &run.service])?;
    run.check_split(&report, 75.0, "three pods of v1 to one of v2")
}
