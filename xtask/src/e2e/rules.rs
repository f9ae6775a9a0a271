//! What rules ask of the proxy, on a real cluster: an ejection, a fault, copies, cookies, a circuit breaker, regions.
//! Steps of `e2e`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weir_tests::Report;

use super::kubectl::Kubectl;
use super::{Args, ROLLOUT, Run, image, manifest};

/// Requests of a measured share: at 20 % four standard deviations are 3.6 points.
const REQUESTS: u64 = 2000;
/// See above, and for 50 %.
const TOLERANCE: f64 = 4.5;
/// Of `orders-ejection.yaml`.
const ERRORS: u64 = 7;
const AWAY: Duration = Duration::from_secs(5);
/// What a command in a pod may take.
const KUBECTL: Duration = Duration::from_secs(3);
/// From an apply to the decision, with kubectl in between.
const IN_FORCE: Duration = Duration::from_secs(10);
/// Rounds of the circuit breaker after which connects should have fallen together.
const ROUNDS: u32 = 50;
/// The label by which Kubernetes knows a node's region.
const REGION: &str = "topology.kubernetes.io/region";
/// How regions begin that nodes are lent.
const LENT: &str = "weir-e2e-";

impl Run {
    /// Requests for a service of ours from the first client.
    fn ask(&self, service: &str, arguments: &[&str]) -> Result<Report> {
        self.ask_from(&self.client()?, service, arguments)
    }

    fn ask_from(&self, client: &str, service: &str, arguments: &[&str]) -> Result<Report> {
        let found = self.kubectl.json(&["get", "service", service])?;
        let address = found["spec"]["clusterIP"].as_str().with_context(|| format!("{service} has no clusterIP"))?;
        let target = if address.contains(':') { format!("[{address}]:80") } else { format!("{address}:80") };
        self.kubectl.client(client, &[&["http", &target, "--host", service], arguments].concat())
    }

    /// Applies rules for orders, and waits until `seen` holds of requests of that kind.
    fn apply_rules(&self, file: &str, arguments: &[&str], seen: impl Fn(&Report) -> bool) -> Result<()> {
        self.kubectl.apply(&manifest(file, &[])?)?;
        let arguments = [arguments, &["--requests", "40"]].concat();
        let look = || Ok(seen(&self.ask("orders", &arguments)?).then_some(()));
        Kubectl::until(&format!("{file} is in force"), IN_FORCE, look)?;
        Ok(())
    }

    fn roll_out(&self, deployments: &[&str]) -> Result<()> {
        let timeout = format!("--timeout={}s", ROLLOUT.as_secs());
        for name in deployments {
            self.kubectl.run(&["rollout", "status", &format!("deployment/{name}"), &timeout])?;
        }
        Ok(())
    }
}

fn status(report: &Report, status: u16) -> u64 {
    report.by_status.get(&status.to_string()).copied().unwrap_or_default()
}

/// The pods of the steps that follow.
pub(super) fn orders(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("orders: two pods that serve, and one that always fails", "what the steps that follow play with")?;
    run.kubectl.apply(&manifest("tests/e2e/orders.yaml", &[("IMAGE", &image::pods())])?)?;
    run.roll_out(&["orders-good", "orders-bad", "audit"])
}

/// A failing pod leaves after seven errors, and for longer each time.
pub(super) fn ejection(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("A pod fails seven times", "it is left out for 5 s, then for 10, and nobody else fails")?;
    // Without the rule a connection has one pod; with it each request is sent by itself. None of these is an error.
    run.apply_rules("tests/e2e/orders-ejection.yaml", &["--path", "/status/200"], |seen| seen.by_pod.len() > 1)?;
    let errors = |run: &Run, requests: &str| -> Result<u64> {
        let report = run.ask("orders", &["--requests", requests])?;
        ensure!(report.failed == 0, "{report:?}");
        Ok(status(&report, 500))
    };
    let mut failed = errors(run, "200")?;
    for round in 1..=2_u32 {
        let left = Instant::now();
        run.check(failed == ERRORS, &format!("round {round}: left out after {failed} errors"))?;
        let back = || Ok(Some(errors(run, "10")?).filter(|seen| *seen > 0));
        let (seen, _) = Kubectl::until("it comes back", AWAY * (round + 3), back)?;
        let away = left.elapsed();
        let due = AWAY * round;
        // kubectl takes its time: it was left out some time before that was known, and is seen some time after it is back.
        let holds = (due.saturating_sub(KUBECTL)..due + KUBECTL).contains(&away);
        run.check(holds, &format!("round {round}: away for {:.1} s", away.as_secs_f64()))?;
        failed = seen + errors(run, "200")?;
    }
    Ok(())
}

/// A share of the requests fails on purpose.
pub(super) fn fault(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("A fault for a fifth of the requests", "one in five fails as the rule says, and nothing else does")?;
    run.apply_rules("tests/e2e/orders-rules.yaml", &["--path", "/faulty"], |seen| status(seen, 555) > 0)?;
    let report =
        run.ask("orders", &["--path", "/faulty", "--requests", &REQUESTS.to_string(), "--connections", "4"])?;
    let share = 100.0 * status(&report, 555) as f64 / REQUESTS as f64;
    let whole = report.failed == 0 && status(&report, 555) + status(&report, 200) == REQUESTS;
    run.check(whole && (share - 20.0).abs() < TOLERANCE, &format!("{share:.1} % were answered with 555"))?;
    let others = run.ask("orders", &["--requests", "200"])?;
    run.check(status(&others, 200) == 200, "requests for another path are not touched")
}

/// Copies of half of the requests.
pub(super) fn mirror(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("A mirror for half of the requests", "audit gets its copies, and nobody notices")?;
    let pod = run.kubectl.pods("app=audit")?.pop().context("no pod of audit is running")?;
    let path = format!("/api/v1/namespaces/{}/pods/{pod}:80/proxy/served", super::NAMESPACE);
    let served = |run: &Run| -> Result<u64> { Ok(run.kubectl.outside(&["get", "--raw", &path])?.trim().parse()?) };
    let before = served(run)?;
    let report =
        run.ask("orders", &["--path", "/copied", "--requests", &REQUESTS.to_string(), "--connections", "4"])?;
    // Nobody waits for copies: the last ones are under way until their number stays.
    let mut copies = 0;
    let look = || {
        let last = std::mem::replace(&mut copies, served(run)? - before);
        Ok((copies > 0 && copies == last).then_some(copies))
    };
    let (copies, _) = Kubectl::until("the copies have arrived", IN_FORCE, look)?;
    let share = 100.0 * copies as f64 / REQUESTS as f64;
    let whole = report.failed == 0 && status(&report, 200) == REQUESTS && report.version("audit") == 0;
    run.check(whole && (share - 50.0).abs() < TOLERANCE, &format!("audit got {share:.1} % of {REQUESTS} requests"))
}

/// Cookies choose the version, and the pod.
pub(super) fn cookie(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("Cookies", "premium users get the version of their own, and each user stays on a pod")?;
    let premium = run.ask("orders", &["--header", "cookie: a=b; tier=premium", "--requests", "100"])?;
    run.check(premium.version("bad") == 100, &format!("premium users: {:?}", premium.by_version))?;
    let users = ["--users", "100", "--header", "cookie: user=user-{user}", "--requests", "2000", "--connections", "4"];
    let report = run.ask("orders", &users)?;
    let stays = report.failed == 0 && report.moved == 0 && report.by_pod.len() == 2;
    run.check(stays, &format!("100 users, {} answers from another pod: {:?}", report.moved, report.by_pod))
}

/// The users' circuit breaker.
pub(super) fn breaker(run: &mut Run, _args: &Args) -> Result<()> {
    run.step(
        "A circuit breaker: four connections, twenty requests",
        "some are answered, the rest are refused at once",
    )?;
    // It takes the place of the rule that keeps a user on a pod.
    let user = ["--header", "cookie: user=one"];
    run.apply_rules("tests/e2e/orders-breaker.yaml", &user, |seen| seen.by_pod.len() > 1)?;
    let (mut answered, mut refused, mut rounds) = (0, 0, 0);
    while refused == 0 && rounds < ROUNDS {
        let report = run.ask("orders", &["--requests", "20", "--connections", "4"])?;
        let (ok, overflow) = (status(&report, 200), status(&report, 503));
        ensure!(report.failed == 0 && ok > 0 && ok + overflow == 20, "{report:?}");
        (answered, refused, rounds) = (answered + ok, refused + overflow, rounds + 1);
    }
    run.check(refused > 0, &format!("{answered} answered, {refused} refused in {rounds} rounds of 20"))
}

/// Requests stay in their region, in shares or until it is empty.
pub(super) fn regions(run: &mut Run, _args: &Args) -> Result<()> {
    let nodes = run.kubectl.json(&["get", "pods", "-l", "app=client"])?;
    let mut clients: Vec<(String, String)> = Vec::new();
    for pod in nodes["items"].as_array().into_iter().flatten() {
        let (name, node) = (&pod["metadata"]["name"], &pod["spec"]["nodeName"]);
        if let (Some(name), Some(node)) = (name.as_str(), node.as_str()) {
            clients.push((node.to_owned(), name.to_owned()));
        }
    }
    clients.sort();
    let [first, second, ..] = clients.as_slice() else {
        return run.say("\nOne node only: regions are left out.");
    };
    run.step("Two regions", "a share of the requests leaves its region, then none, then all when it is empty")?;
    let mut lent = Lent { kubectl: run.kubectl.clone(), nodes: Vec::new() };
    let outcome = lent.region_of(&first.0, "first").and_then(|here| {
        let there = lent.region_of(&second.0, "second")?;
        if here == there {
            return run.say("Both nodes are in one region: left out.");
        }
        shift(run, (first, &here), (second, &there))
    });
    match (outcome, lent.take_back()) {
        (Err(error), Err(left)) => Err(error.context(format!("{left:#}"))),
        (outcome, left) => outcome.and(left),
    }
}

/// Nodes that were lent a region. It is taken back when this is dropped at the latest, whatever has failed before.
struct Lent {
    kubectl: Kubectl,
    nodes: Vec<String>,
}

impl Lent {
    /// The region of a node; one that has none, or what a run that was killed has left there, is lent one.
    fn region_of(&mut self, node: &str, otherwise: &str) -> Result<String> {
        let found = self.kubectl.json(&["get", "node", node])?;
        if let Some(region) = found["metadata"]["labels"][REGION].as_str().filter(|own| !own.starts_with(LENT)) {
            return Ok(region.to_owned());
        }
        let lent = format!("{LENT}{otherwise}");
        // First, since a command that fails or is interrupted may have had its effect.
        self.nodes.push(node.to_owned());
        self.kubectl.outside(&["label", "--overwrite", "node", node, &format!("{REGION}={lent}")])?;
        Ok(lent)
    }

    /// Tries every node, whatever becomes of the others, and after Ctrl-C, too.
    fn take_back(&mut self) -> Result<()> {
        let mut failed = Vec::new();
        for node in std::mem::take(&mut self.nodes) {
            if let Err(error) = self.kubectl.outside(&["label", "node", &node, &format!("{REGION}-")]) {
                failed.push(format!("{error:#}"));
                self.nodes.push(node);
            }
        }
        ensure!(failed.is_empty(), "nodes keep the region that they were lent: {}", failed.join("; "));
        Ok(())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Once more; that it failed before has been told.
        let _left = self.take_back();
    }
}

/// Node and client, with their region.
type Side<'a> = (&'a (String, String), &'a str);

fn shift(run: &mut Run, (first, here): Side<'_>, (second, there): Side<'_>) -> Result<()> {
    let words = [("IMAGE", &*image::pods()), ("FIRST", &first.0), ("SECOND", &second.0)];
    run.kubectl.apply(&manifest("tests/e2e/regions.yaml", &words)?)?;
    run.roll_out(&["regional-first", "regional-second"])?;
    let regions = [("THERE", there), ("HERE", here)];
    run.kubectl.apply(&manifest("tests/e2e/regions-distribute.yaml", &regions)?)?;
    // Of 200 requests some 100 leave before the shares are in force, and some 40 from then on.
    let look = || {
        let seen = run.ask_from(&first.1, "regional", &["--requests", "200"])?;
        Ok((seen.failed == 0 && seen.version("second") < 70).then_some(()))
    };
    Kubectl::until("the shares are in force", IN_FORCE, look)?;
    let many = ["--requests", &REQUESTS.to_string(), "--connections", "4"];
    let report = run.ask_from(&first.1, "regional", &many)?;
    let share = 100.0 * report.version("second") as f64 / REQUESTS as f64;
    let holds = report.failed == 0 && (share - 20.0).abs() < TOLERANCE;
    run.check(holds, &format!("{share:.1} % of the requests of {here} were answered in {there}"))?;
    run.kubectl.apply(&manifest("tests/e2e/regions-failover.yaml", &regions)?)?;
    let look = || {
        let seen = run.ask_from(&first.1, "regional", &["--requests", "40"])?;
        Ok((seen.failed == 0 && seen.version("first") == 40).then_some(()))
    };
    Kubectl::until("the region is kept to", IN_FORCE, look)?;
    let report = run.ask_from(&first.1, "regional", &many)?;
    run.check(report.version("first") == REQUESTS, &format!("in their own region: {:?}", report.by_version))?;
    let load = ["--requests", "400", "--pace", "20", "--connections", "2"];
    run.kubectl.run(&["scale", "deployment/regional-first", "--replicas=0"])?;
    let look = || {
        let seen = run.ask_from(&first.1, "regional", &["--requests", "40"])?;
        Ok((seen.failed == 0 && seen.version("second") == 40).then_some(()))
    };
    let ((), took) = Kubectl::until("the other region has everything", Duration::from_secs(30), look)?;
    let report = run.ask_from(&first.1, "regional", &load)?;
    let holds = report.failed == 0 && report.version("second") == 400;
    run.check(holds, &format!("their region is empty: {there} has everything after {:.1} s", took.as_secs_f64()))
}
