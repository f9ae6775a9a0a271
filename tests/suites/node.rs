//! The agent as the DaemonSet runs it on a node: with its capabilities and no more, beside its predecessor during an
//! upgrade, and with nothing open on the node's address but metrics.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weir_tests::canary::{HTTP_PORT, TCP_PORT};
use weir_tests::process::{self, Place};
use weir_tests::require::Need;
use weir_tests::{Agent, Canary, HttpLoad, eventually, load, proved, require};

/// The DaemonSet's capabilities, by the kernel's numbers; the suite `deploy` holds the manifest to their names.
const SYS_PTRACE: u64 = 19;
const SYS_ADMIN: u64 = 21;
/// The last one that any kernel knows by now, with room to spare: dropping an unknown one is an error that is ignored.
const LAST: u64 = 63;

/// Where the DaemonSet's agents serve metrics: every address of either family, which `ss` writes as a star.
const METRICS: &str = "[::]:15020";
const METRICS_OPEN: &str = "*:15020";
/// Generous for a machine of two busy cores.
const READY: Duration = Duration::from_secs(15);

/// Has the command start with these capabilities and no way to others.
fn limit(command: &mut Command, kept: Vec<u64>) {
    // SAFETY: between fork and exec only system calls; the closure owns its numbers.
    unsafe {
        command.pre_exec(move || {
            for capability in (0..=LAST).filter(|c| !kept.contains(c)) {
                // What exec gives to root is what the bounding set leaves.
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            Ok(())
        });
    }
}

fn canary() -> Result<Canary> {
    let scene = Canary::new(true)?;
    scene.split_http(90, 10)?;
    scene.split_tcp(90, 10)?;
    Ok(scene)
}

/// Everything that an agent does on a node without the API server: enrols, balances, proxies.
fn works(scene: &Canary, agent: &mut Agent) -> Result<()> {
    agent.await_ready(READY)?;
    agent.await_verdict(HTTP_PORT, "proxy")?;
    agent.await_verdict(TCP_PORT, "balance")?;
    agent.await_enrolled("default/client", true)?;
    let load = HttpLoad::new(scene.http.at(80)).requests(200).fresh();
    let (report, accepted) = agent.by_the_proxy(|| load.run(scene.client()))?;
    ensure!(report.failed == 0 && report.version("v2") < 60, "{report:?}");
    ensure!(accepted > 199.0, "it went past the proxy");
    let mut tcp = load::tcp_live(scene.client(), scene.tcp.at(9000), 1)?;
    tcp.tick()?;
    ensure!(tcp.stop()?.failed == 0, "balanced by the kernel");
    Ok(())
}

fn effective(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:")).context("no CapEff")?;
    Ok(u64::from_str_radix(line.trim(), 16)?)
}

#[test]
fn the_daemon_sets_capabilities_are_enough_and_needed() -> Result<()> {
    if !require("the_daemon_sets_capabilities_are_enough_and_needed", &[Need::Agent]) {
        return Ok(());
    }
    let scene = canary()?;
    let mut agent = Agent::spawn_with(&scene.mesh, |command| limit(command, vec![SYS_ADMIN, SYS_PTRACE]))?;
    works(&scene, &mut agent)?;
    let has = effective(agent.pid())?;
    ensure!(has == 1 << SYS_ADMIN | 1 << SYS_PTRACE, "it has {has:#x}");
    agent.terminate()?;
    let mut poor = Agent::spawn_with(&scene.mesh, |command| limit(command, vec![SYS_PTRACE]))?;
    ensure!(
        poor.await_ready(Duration::from_secs(5)).is_err(),
        "it runs without SYS_ADMIN: then it needs no such thing"
    );
    let log = poor.log_text();
    ensure!(log.contains("CAP_"), "it does not say which capability it lacks: {log}");

    // What enrolment opens of a pod whose processes run as somebody else.
    let mut sleeper = Command::new("sleep").arg("60").uid(65_534).gid(65_534).spawn()?;
    let open = |kept: Vec<u64>| {
        let mut command = Command::new("stat");
        command.args(["-L", &format!("/proc/{}/ns/net", sleeper.id())]);
        limit(&mut command, kept);
        Ok::<_, anyhow::Error>(command.output()?.status.success())
    };
    let (with, without) = (open(vec![SYS_ADMIN, SYS_PTRACE]), open(vec![SYS_ADMIN]));
    sleeper.kill()?;
    sleeper.wait()?;
    ensure!(with? && !without?, "SYS_PTRACE is what opens another user's namespace");
    Ok(())
}

/// One GET from inside a namespace: the whole answer.
fn get(place: &Place, address: SocketAddr, path: &str) -> Result<String> {
    place.netns.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?
}

/// The listening TCP sockets of a namespace that are not on loopback, as `ADDRESS:PORT`.
fn open_ports(place: &Place) -> Result<Vec<String>> {
    let mut command = Command::new("ss");
    command.args(["-Hltn"]);
    let listening = process::output(place, command)?;
    let locals = listening.lines().filter_map(|line| line.split_whitespace().nth(3));
    Ok(locals.filter(|l| !l.starts_with("127.") && !l.starts_with("[::1]")).map(str::to_owned).collect())
}

fn with_metrics(command: &mut Command) {
    command.args(["--metrics", METRICS]);
}

#[test]
fn the_nodes_address_has_metrics_and_nothing_else() -> Result<()> {
    if !require("the_nodes_address_has_metrics_and_nothing_else", &[Need::Agent, Need::Program("ss")]) {
        return Ok(());
    }
    let scene = canary()?;
    let before = open_ports(scene.mesh.node())?;
    let mut agent = Agent::spawn_with(&scene.mesh, with_metrics)?;
    agent.await_ready(READY)?;
    let open: Vec<String> = open_ports(scene.mesh.node())?.into_iter().filter(|l| !before.contains(l)).collect();
    ensure!(open == [METRICS_OPEN], "the agent listens on {open:?}");
    // As a pod sees it: the node's address is the gateway of its default route.
    let mut route = Command::new("ip");
    route.args(["-4", "route", "show", "default"]);
    let routes = process::output(&scene.client().place, route)?;
    let node: IpAddr = routes.split_whitespace().nth(2).context("no default route")?.parse()?;
    let pod = &scene.client().place;
    let metrics = get(pod, SocketAddr::new(node, 15_020), "/stats/prometheus")?;
    ensure!(metrics.contains("weir_kernel_connects_total"), "{metrics}");
    let of_ipv6 = get(scene.mesh.node(), SocketAddr::from((Ipv6Addr::LOCALHOST, 15_020)), "/stats/prometheus")?;
    ensure!(of_ipv6.contains("weir_kernel_connects_total"), "{of_ipv6}");
    for path in ["/status", "/readyz", "/healthz", "/"] {
        let answer = get(pod, SocketAddr::new(node, 15_020), path)?;
        ensure!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    ensure!(get(pod, SocketAddr::new(node, 15_000), "/status").is_err(), "a pod reaches the admin endpoint");
    Ok(())
}

#[test]
fn a_successor_takes_the_endpoints_over_before_it_is_ready() -> Result<()> {
    if !require("a_successor_takes_the_endpoints_over_before_it_is_ready", &[Need::Agent]) {
        return Ok(());
    }
    let scene = canary()?;
    let mut old = Agent::spawn_with(&scene.mesh, with_metrics)?;
    old.await_ready(READY)?;
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let started = Instant::now();
    let mut new = Agent::spawn_with(&scene.mesh, with_metrics)?;
    // Both write one log; the older one says when it lets go, and from then on only the younger one can answer.
    eventually("the older one lets go", READY, || {
        Ok(new.log_text().contains("another agent has taken over").then_some(()))
    })?;
    new.await_ready(READY)?;
    let took = started.elapsed();
    ensure!(old.process().ended()?.is_none(), "the older one is stopped only when the younger one is ready");
    let metrics = get(scene.mesh.node(), loopback(15_020), "/metrics")?;
    ensure!(metrics.contains("weir_kernel_connects_total"), "{metrics}");
    new.await_enrolled("default/client", true)?;
    old.terminate()?;
    for port in [15_000, 15_020] {
        let answer = get(scene.mesh.node(), loopback(port), "/metrics")?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "port {port} after the older one's end: {answer}");
    }
    works(&scene, &mut new)?;
    ensure!(took < Duration::from_secs(5), "the younger one was ready after {took:?}");
    proved!("from the start of the younger agent to its readiness: {took:?}");
    Ok(())
}
