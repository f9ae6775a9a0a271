//! For whom a DestinationRule is, and what its policy does: who balances how, who waits how long for a connection, and
//! what is in force in part.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weir_tests::require::Need;
use weir_tests::{HttpLoad, PodSpec, Process, Service, eventually, load, proved, require};

use super::stage::{SUBSETS, Stage, V1, destination, object};

const NEEDS: &[Need] = &[Need::Agent, Need::Program("curl")];

/// A policy that is seen from outside: a user stays with one pod.
const STICKS: &str = "trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}";
/// And one with which nobody does.
const RANDOM: &str = "trafficPolicy: {loadBalancer: {simple: RANDOM}}";

/// A DestinationRule in a namespace.
fn rule(namespace: &str, name: &str, spec: &str) -> String {
    let names = format!("{{name: {name}, namespace: {namespace}}}");
    object("DestinationRule", spec).replace("{name: service-b, namespace: default}", &names)
}

/// Two pods of other sorts: one with a label, one in another namespace.
fn with_other_clients(rules: &str) -> Result<Stage> {
    let stage = Stage::furnished(rules, |scene| {
        scene.mesh.add_pod(PodSpec::new("gold").label("tier", "gold"))?;
        scene.mesh.add_pod(PodSpec::new("partner").namespace("partner").label("tier", "gold"))?;
        scene.manifests.namespaces(&[("default", true), ("partner", true)])
    })?;
    for pod in ["gold", "partner"] {
        stage.agent.await_enrolled(&stage.scene.mesh.pod(pod).key(), true)?;
    }
    Ok(stage)
}

/// Whether a user in this pod stays with one pod of service-b.
fn sticks(stage: &Stage, pod: &str) -> Result<bool> {
    let load = HttpLoad::new(stage.scene.http.at(80)).host("service-b.default").header("x-user: ann");
    let report = load.fresh().requests(60).connections(2).run(stage.scene.mesh.pod(pod))?;
    ensure!(report.failed == 0 && report.status(200) == 60, "{pod}: {report:?}");
    ensure!(matches!(report.by_pod.len(), 1 | 3), "{pod}: {report:?}");
    Ok(report.by_pod.len() == 1)
}

/// The same for all three clients.
fn who_sticks(stage: &Stage) -> Result<Vec<&'static str>> {
    let pods = ["client", "gold", "partner"].map(|pod| sticks(stage, pod).map(|sticks| sticks.then_some(pod)));
    pods.into_iter().filter_map(Result::transpose).collect()
}

#[test]
fn the_clients_own_rule_comes_first_even_by_a_wildcard() -> Result<()> {
    if !require("the_clients_own_rule_comes_first_even_by_a_wildcard", NEEDS) {
        return Ok(());
    }
    let owners = rule("default", "owners", &format!("host: service-b, {RANDOM}, {SUBSETS}"));
    let own = |host: &str| rule("partner", "own", &format!("host: '{host}', {STICKS}"));
    let stage = with_other_clients(&owners)?;
    ensure!(who_sticks(&stage)?.is_empty(), "by the owner's rule nobody does: {:?}", who_sticks(&stage)?);
    for host in ["*.cluster.local", "service-b.default.svc.cluster.local", "*.default.svc.cluster.local"] {
        stage.rules(&(owners.clone() + &own(host)))?;
        ensure!(who_sticks(&stage)? == ["partner"], "{host}: {:?}", who_sticks(&stage)?);
        stage.rules(&owners)?;
    }
    // It hides the whole of the owner's rule, the subsets too.
    let to_v1 = object("VirtualService", &format!("hosts: [service-b], http: [{{{V1}}}]"));
    stage.rules(&(owners.clone() + &to_v1))?;
    let asked = |pod: &str| stage.curl_in(pod, "http://service-b.default/", &[]);
    ensure!(asked("partner")?.header("x-version") == Some("v1"), "{:?}", asked("partner")?);
    stage.rules(&(owners + &own("*.cluster.local") + &to_v1))?;
    let (client, partner) = (asked("client")?, asked("partner")?);
    ensure!((client.status, client.header("x-version")) == (200, Some("v1")), "{client:?}");
    ensure!(partner.status == 503, "its own rule has no subsets: {partner:?}");
    Ok(())
}

#[test]
fn a_rule_is_for_those_whom_it_is_exported_to_and_whom_it_selects() -> Result<()> {
    if !require("a_rule_is_for_those_whom_it_is_exported_to_and_whom_it_selects", NEEDS) {
        return Ok(());
    }
    let exported = |to: &str| rule("default", "b", &format!("host: service-b, exportTo: [{to}], {STICKS}"));
    let stage = with_other_clients(&exported("'*'"))?;
    ensure!(who_sticks(&stage)? == ["client", "gold", "partner"], "{:?}", who_sticks(&stage)?);
    for (to, whom) in [("'.'", &["client", "gold"][..]), ("partner", &["partner"]), ("nobody", &[])] {
        stage.rules(&exported(to))?;
        let found = who_sticks(&stage)?;
        ensure!(found == whom, "exported to {to}: {found:?}");
    }
    let selector = "workloadSelector: {matchLabels: {tier: gold}}";
    let all = rule("default", "all", &format!("host: service-b, {RANDOM}"));
    stage.rules(&(rule("default", "own", &format!("host: service-b, {selector}, {STICKS}")) + &all))?;
    let found = who_sticks(&stage)?;
    // A pod with that label in another namespace is not selected.
    ensure!(found == ["gold"], "{found:?}");
    Ok(())
}

/// Who answers requests one after another, on a connection.
fn sequence(stage: &Stage, requests: usize) -> Result<Vec<String>> {
    let url = format!("http://{}/", stage.scene.http.ipv4());
    let mut arguments = vec!["-s", "-H", "Host: service-b"];
    for _ in 0..requests {
        arguments.push(&url);
    }
    let said = stage.run("client", "curl", &arguments)?;
    let pods: Vec<String> = said.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect();
    ensure!(pods.len() == requests, "{said}");
    Ok(pods)
}

#[test]
fn requests_are_balanced_as_a_rule_says_and_connections_in_the_kernel_by_chance() -> Result<()> {
    let name = "requests_are_balanced_as_a_rule_says_and_connections_in_the_kernel_by_chance";
    if !require(name, NEEDS) {
        return Ok(());
    }
    let rules = |simple: &str| {
        let balancer = format!("trafficPolicy: {{loadBalancer: {{simple: {simple}}}}}");
        destination(&format!("loadBalancer: {{simple: {simple}}}"))
            + &rule("default", "tcp", &format!("host: service-b-tcp, {balancer}"))
    };
    let stage = Stage::furnished(&rules("ROUND_ROBIN"), |scene| {
        let behind = scene.mesh.pod("b-v2-0").at(80);
        scene.mesh.relay(scene.http.at(80), &[behind])
    })?;
    stage.agent.await_verdict("default/service-b:80", "proxy")?;
    stage.agent.await_verdict("default/service-b-tcp:9000", "balance")?;
    let in_turn = |pods: &[String]| pods.windows(4).all(|four| four[0] == four[3] && four[0] != four[1]);
    let pods = sequence(&stage, 30)?;
    ensure!(in_turn(&pods), "one after another: {pods:?}");
    stage.rules(&rules("RANDOM"))?;
    let pods = sequence(&stage, 60)?;
    ensure!(!in_turn(&pods) && pods.iter().collect::<BTreeSet<_>>().len() == 3, "by chance: {pods:?}");
    // Whoever is passed through gets to where it dialled: what stands there sends everybody to one pod.
    stage.rules(&rules("PASSTHROUGH"))?;
    let pods: BTreeSet<String> = sequence(&stage, 12)?.into_iter().collect();
    ensure!(pods == ["b-v2-0".to_owned()].into(), "{pods:?}");
    // The kernel's own way: at random whatever is said, and it is told so.
    for simple in ["ROUND_ROBIN", "LEAST_REQUEST"] {
        stage.rules(&rules(simple))?;
        let before = stage.agent.counter("default/service-b-tcp:9000", "balanced")?;
        let report = load::tcp(stage.client(), stage.scene.tcp.at(9000), 300, 1)?;
        ensure!(report.failed == 0 && report.by_pod.len() == 3, "{report:?}");
        ensure!(report.by_pod.values().all(|count| (50..=150).contains(count)), "{report:?}");
        ensure!(stage.agent.counter("default/service-b-tcp:9000", "balanced")? - before == 300, "in the kernel");
        let told = stage.agent.findings()?;
        let line = format!("{simple} is not kept");
        ensure!(told.iter().any(|t| t.contains("service-b-tcp") && t.contains(&line)), "{told:?}");
    }
    Ok(())
}

/// A server that takes its time for each request.
const SLOW: &str = r#"
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Slow(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(0.1)
        self.send_response(200)
        self.send_header("x-pod", "b-slow")
        self.send_header("x-version", "v3")
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("0.0.0.0", 80), Slow).serve_forever()
"#;

#[test]
fn a_slow_pod_gets_fewer_requests_where_those_under_way_count() -> Result<()> {
    let name = "a_slow_pod_gets_fewer_requests_where_those_under_way_count";
    if !require(name, &[Need::Agent, Need::Program("python3")]) {
        return Ok(());
    }
    let rule = |simple: &str| destination(&format!("loadBalancer: {{simple: {simple}}}"));
    let stage = Stage::furnished(&rule("LEAST_REQUEST"), |scene| {
        let pod = PodSpec::new("b-slow").label("app", "service-b").label("version", "v3").port("", 80);
        scene.mesh.add_pod(pod).map(drop)
    })?;
    let slow = stage.scene.mesh.pod("b-slow");
    let mut server = Command::new("python3");
    server.args(["-c", SLOW]);
    let _server = Process::spawn(&slow.place, server, &stage.scene.mesh.log("slow"))?;
    eventually("the slow one answers", Duration::from_secs(10), || {
        Ok((stage.curl_in("client", &format!("http://{}/", slow.at(80)), &[])?.status == 200).then_some(()))
    })?;
    stage.agent.await_verdict("default/service-b:80", "proxy")?;
    let met = |simple: &str| -> Result<u64> {
        let report = stage.load().requests(400).connections(8).run(stage.client())?;
        ensure!(report.failed == 0 && report.status(200) == 400, "{simple}: {report:?}");
        Ok(report.by_pod.get("b-slow").copied().unwrap_or_default())
    };
    let least = met("LEAST_REQUEST")?;
    stage.rules(&rule("RANDOM"))?;
    let random = met("RANDOM")?;
    // A quarter by chance, six standard deviations down.
    ensure!(random > 48 && least < random / 2, "the slow one got {least} of 400, and by chance {random}");
    proved!("a pod that takes 100 ms gets {least} of 400 requests with LEAST_REQUEST, {random} with RANDOM");
    Ok(())
}

/// Asks for the first connection to a socket, and how long it takes until that is given up.
const DIAL: &str = r#"
import socket, sys, time
began = time.monotonic()
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
    print("connected")
except TimeoutError:
    print(int(1000 * (time.monotonic() - began)))
"#;

#[test]
fn a_connect_is_given_up_when_the_rule_says_so_and_in_the_kernel_when_the_client_does() -> Result<()> {
    let name = "a_connect_is_given_up_when_the_rule_says_so_and_in_the_kernel_when_the_client_does";
    if !require(name, &[Need::Agent, Need::Program("curl"), Need::Program("python3")]) {
        return Ok(());
    }
    let tcp = |ms: u32| format!("connectionPool: {{tcp: {{connectTimeout: {ms}ms}}}}");
    let port = |ms: u32| format!("portLevelSettings: [{{port: {{number: 80}}, {}}}]", tcp(ms));
    let rules = |policy: &str, subset: &str| {
        let subset = if subset.is_empty() { String::new() } else { format!(", trafficPolicy: {{{subset}}}") };
        let subsets = format!("subsets: [{{name: all, labels: {{app: silent}}{subset}}}]");
        let to = "destination: {host: silent, subset: all, port: {number: 80}}";
        object("VirtualService", &format!("hosts: [silent], http: [{{retries: {{attempts: 0}}, route: [{{{to}}}]}}]"))
            + &object("DestinationRule", &format!("host: silent, trafficPolicy: {{{policy}}}, {subsets}"))
    };
    let stage = Stage::furnished(&rules(&tcp(300), ""), |scene| {
        // Whoever asks it for a connection hears nothing.
        let pod = scene.mesh.add_pod(PodSpec::new("silent").label("app", "silent"))?;
        pod.place.netns.ip("route add blackhole 10.244.0.0/24\n")?;
        scene.manifests.service(&Service::new("silent", 4).port("http-web", 80, "80").port("tcp-plain", 9000, "9000"))
    })?;
    stage.agent.await_verdict("default/silent:80", "proxy")?;
    stage.agent.await_verdict("default/silent:9000", "balance")?;
    for (policy, subset, ms) in [
        (tcp(300), String::new(), 300),
        (tcp(1200), String::new(), 1200),
        (tcp(5000), tcp(300), 300),
        (format!("{}, {}", tcp(5000), port(400)), String::new(), 400),
        (tcp(5000), format!("{}, {}", tcp(4000), port(500)), 500),
    ] {
        if ms != 300 || !subset.is_empty() {
            stage.rules(&rules(&policy, &subset))?;
        }
        let began = Instant::now();
        let answer = stage.curl_in("client", "http://10.96.0.4/", &["-H", "Host: silent"])?;
        let took = began.elapsed();
        ensure!(answer.status == 503, "{policy} and {subset}: {answer:?}");
        // What other levels say is 4 s and more.
        let allowed = Duration::from_millis(ms)..Duration::from_millis(3900);
        ensure!(allowed.contains(&took), "{policy} and {subset}: given up after {took:?}");
    }
    stage.rules(&rules(&tcp(300), ""))?;
    let said = stage.python(DIAL, &["10.96.0.4", "9000", "1.2"])?;
    let took: u64 = said.trim().parse().with_context(|| format!("the client said {said:?}"))?;
    ensure!(took >= 1200, "the client's own 1.2 s, and it took {took} ms");
    let told = stage.agent.findings()?;
    ensure!(told.iter().any(|line| line.contains("connectTimeout is not in force")), "{told:?}");
    Ok(())
}
