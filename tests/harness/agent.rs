//! The agent under test, as a process: started, asked, signalled. Used by the suites and by `cargo xtask demo`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::eventually;
use crate::mesh::{Mesh, NODE_NAME, binary};
use crate::netns::NetNs;
use crate::process::{Place, Process};
use crate::wire::{self, Otherwise};

/// The admin port inside the node's namespace.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15_000);
/// An admin question is answered from memory; a slower answer is a hang.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Loading programs, making listeners, reading a directory: generous for a machine of two busy cores.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// A line of the access log is written within some 50 ms of its request's end.
const LOGGED_WITHIN: Duration = Duration::from_secs(5);
/// Batches of connections until one comes through the proxy whole: a machine that holds the agent up in each is broken.
const BATCHES: usize = 4;

/// The agent of a mesh. Killed when dropped; its pins stay until the mesh goes.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    netns: NetNs,
    log: PathBuf,
    access_log: PathBuf,
}

impl Agent {
    /// Starts `weir run` on the manifests of `mesh` and waits until its first plan is in force.
    ///
    /// # Errors
    /// When it does not start, ends, or does not become ready.
    pub fn start(mesh: &Mesh) -> Result<Self> {
        let mut agent = Self::spawn(mesh)?;
        agent.await_ready(READY_WITHIN)?;
        Ok(agent)
    }

    /// Starts `weir run` and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mesh: &Mesh) -> Result<Self> {
        Self::spawn_with(mesh, |_| ())
    }

    /// Starts `weir run` with more arguments, or fewer rights, and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_with(mesh: &Mesh, adjust: impl FnOnce(&mut Command)) -> Result<Self> {
        let directory = mesh.manifests_dir();
        Self::spawn_from(mesh, [OsStr::new("--manifests"), directory.as_os_str()], adjust)
    }

    /// Starts `weir run` on an API server, which the kubeconfig tells how to reach from the node's namespace, and does
    /// not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_on(mesh: &Mesh, kubeconfig: &Path) -> Result<Self> {
        Self::spawn_on_with(mesh, kubeconfig, |_| ())
    }

    /// The same with more arguments, or another environment.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_on_with(mesh: &Mesh, kubeconfig: &Path, adjust: impl FnOnce(&mut Command)) -> Result<Self> {
        let source = [OsStr::new("--kubernetes"), OsStr::new("--kubeconfig"), kubeconfig.as_os_str()];
        Self::spawn_from(mesh, source, adjust)
    }

    fn spawn_from<const N: usize>(mesh: &Mesh, source: [&OsStr; N], adjust: impl FnOnce(&mut Command)) -> Result<Self> {
        let place: &Place = mesh.agent_place();
        let access_log = mesh.log("access");
        let mut command = Command::new(binary("weir"));
        command
            .arg("run")
            .args(source)
            .args(["--instance", mesh.name(), "--node", NODE_NAME])
            .args(["--admin", &ADMIN.to_string()])
            .arg("--access-log")
            .arg(&access_log);
        // With a kubelet's cgroup the agent must find it by itself.
        if !mesh.kubepods().exists() {
            command.arg("--cgroup").arg(mesh.cgroup());
        }
        adjust(&mut command);
        let log = mesh.log("agent");
        let process = Process::spawn(place, command, &log)?;
        Ok(Self { process, netns: place.netns.clone(), log, access_log })
    }

    /// Waits for `/readyz`, and says how long it took.
    ///
    /// # Errors
    /// When the agent ends or time is up; the error has the end of its log.
    pub fn await_ready(&mut self, within: Duration) -> Result<Duration> {
        let netns = self.netns.clone();
        let ready = eventually("the agent is ready", within, || {
            if let Some(status) = self.process.ended()? {
                return Ok(Some(Err(status)));
            }
            Ok((get(&netns, "/readyz")?.0 == 200).then_some(Ok(())))
        });
        match ready {
            Ok((Ok(()), took)) => Ok(took),
            Ok((Err(status), _)) => bail!("the agent ended: {status}\n{}", self.log_text()),
            Err(e) => bail!("{e:#}\n{}", self.log_text()),
        }
    }

    /// What `/readyz` says.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn is_ready(&self) -> Result<bool> {
        Ok(get(&self.netns, "/readyz")?.0 == 200)
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The process itself: to signal it, to wait for its end, to keep it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has logged.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The access log so far.
    pub fn access_log(&self) -> String {
        std::fs::read_to_string(&self.access_log).unwrap_or_default()
    }

    /// The lines of the access log with `text`, once there are so many: they are written some at a time.
    ///
    /// # Errors
    /// When there are less after a while.
    pub fn logged(&self, text: &str, least: usize) -> Result<Vec<String>> {
        let what = format!("{least} lines of the access log with {text:?}");
        let look = || {
            let log = self.access_log();
            let lines: Vec<String> = log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect();
            Ok((lines.len() >= least).then_some(lines))
        };
        Ok(eventually(&what, LOGGED_WITHIN, look)?.0)
    }

    /// The file of the access log.
    pub fn access_log_path(&self) -> &Path {
        &self.access_log
    }

    /// `/status` as JSON.
    ///
    /// # Errors
    /// When the agent does not answer 200 with JSON.
    pub fn status(&self) -> Result<Value> {
        let (status, body) = get(&self.netns, "/status")?;
        if status != 200 {
            bail!("/status answers {status}: {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("/status is no JSON: {body}"))
    }

    /// The answer of `/explain` to this query, as JSON.
    ///
    /// # Errors
    /// When the agent does not answer 200 with JSON.
    pub fn explain(&self, query: &str) -> Result<Value> {
        let (status, body) = get(&self.netns, &format!("/explain?{query}"))?;
        if status != 200 {
            bail!("/explain answers {status}: {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("/explain is no JSON: {body}"))
    }

    /// The line of a service port (`default/service-b:80`) in `/status`.
    ///
    /// # Errors
    /// When the agent does not answer, or knows no such service port.
    pub fn service(&self, name: &str) -> Result<Value> {
        let status = self.status()?;
        let services = status["services"].as_array().context("/status has no services")?;
        let found = services.iter().find(|s| s["service"] == name);
        found.cloned().with_context(|| format!("{name} is not in /status"))
    }

    /// A counter of a service port, such as `balanced`; all of its addresses together.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn counter(&self, name: &str, counter: &str) -> Result<u64> {
        self.service(name)?["counters"][counter].as_u64().with_context(|| format!("{name} has no counter {counter}"))
    }

    /// Waits until a service port has that verdict.
    ///
    /// # Errors
    /// When it does not come.
    pub fn await_verdict(&self, service: &str, verdict: &str) -> Result<()> {
        eventually(&format!("{service} has verdict {verdict}"), Duration::from_secs(5), || {
            let line = self.service(service)?;
            if line["verdict"] == verdict { Ok(Some(())) } else { bail!("it is {line}") }
        })?;
        Ok(())
    }

    /// Waits until a pod (`default/client`) takes part, or no longer does.
    ///
    /// # Errors
    /// When it does not come.
    pub fn await_enrolled(&self, pod: &str, enrolled: bool) -> Result<Duration> {
        let what = format!("{pod} enrolled: {enrolled}");
        let ((), took) = eventually(&what, Duration::from_secs(5), || {
            let status = self.status()?;
            let there = status["pods"].as_array().is_some_and(|p| p.iter().any(|p| p["pod"] == pod));
            Ok((there == enrolled).then_some(()))
        })?;
        Ok(took)
    }

    /// The findings, as lines of text.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn findings(&self) -> Result<Vec<String>> {
        let status = self.status()?;
        let findings = status["findings"].as_array().context("/status has no findings")?;
        Ok(findings.iter().map(|f| f.as_str().map_or_else(|| f.to_string(), str::to_owned)).collect())
    }

    /// `/metrics`: the sum of a metric over its labels, of the lines that contain `having`. Absent = 0.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn metric(&self, name: &str, having: &str) -> Result<f64> {
        let (status, body) = get(&self.netns, "/metrics")?;
        if status != 200 {
            bail!("/metrics answers {status}");
        }
        Ok(sum_metric(&body, name, having))
    }

    /// Every metric that changed between two texts of `/metrics` would be a page; the proxy's own accept counter is
    /// what tells whether a connection came through the proxy.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn accepted(&self) -> Result<f64> {
        self.metric("weir_proxy_connections_accepted_total", "")
    }

    /// Connections that the kernel balanced itself where they were the proxy's, because the agent seemed dead or the
    /// socket could not go there.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn fallen_back(&self) -> Result<u64> {
        let status = self.status()?;
        let services = status["services"].as_array().context("/status has no services")?;
        // Each address of a service has a row, and each row the counters of all of them.
        let counters: BTreeMap<String, Option<u64>> = services
            .iter()
            .map(|service| (service["service"].to_string(), service["counters"]["fallback"].as_u64()))
            .collect();
        counters.into_values().sum::<Option<u64>>().context("a service has no counter fallback")
    }

    /// Asks, and asks again where some of it fell back: an agent that is kept off the CPU for half a second seems dead,
    /// which hides one batch; a fault that stays hides each. Gives the answer, and how many connections the proxy accepted for it.
    ///
    /// # Errors
    /// When no batch comes through whole, or asking fails.
    pub fn by_the_proxy<T>(&self, mut ask: impl FnMut() -> Result<T>) -> Result<(T, f64)> {
        let mut fell_back = 0;
        for _ in 0..BATCHES {
            let (before, accepted) = (self.fallen_back()?, self.accepted()?);
            let answer = ask()?;
            fell_back = self.fallen_back()?.saturating_sub(before);
            if fell_back == 0 {
                return Ok((answer, self.accepted()? - accepted));
            }
        }
        bail!("of each of {BATCHES} batches some fell back, {fell_back} of the last: {}", self.log_text())
    }

    /// Tells it to end, waits, and gives the time it took.
    ///
    /// # Errors
    /// When it does not end in 30 s, or not with success.
    pub fn terminate(&mut self) -> Result<Duration> {
        let started = std::time::Instant::now();
        self.process.signal(libc::SIGTERM)?;
        let status = self.process.wait(Duration::from_secs(30))?;
        if !status.success() {
            bail!("after SIGTERM the agent ended with {status}\n{}", self.log_text());
        }
        Ok(started.elapsed())
    }
}

/// GET on the admin port: status and body.
fn get(netns: &NetNs, path: &str) -> Result<(u16, String)> {
    netns.run(|| {
        let mut stream = TcpStream::connect_timeout(&ADMIN, ADMIN_TIMEOUT).context("connecting to the admin port")?;
        stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")?;
        let mut peer = BufReader::new(stream);
        let head = wire::read_head(&mut peer)?.context("no answer on the admin port")?;
        let body = wire::read_body(&mut peer, &head, Otherwise::Close)?;
        Ok((head.status()?, String::from_utf8_lossy(&body).into_owned()))
    })?
}

fn sum_metric(text: &str, name: &str, having: &str) -> f64 {
    text.lines()
        .filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && l.contains(having))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Shares in percent, for messages: `v1 90.2 %, v2 9.8 %`.
pub fn shares(by: &BTreeMap<String, u64>) -> String {
    let total: u64 = by.values().sum();
    let mut text = String::new();
    for (name, count) in by {
        let separator = if text.is_empty() { "" } else { ", " };
        let share = 100.0 * *count as f64 / total.max(1) as f64;
        let _infallible = write!(text, "{separator}{name} {share:.1} % ({count})");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_labels_and_not_over_longer_names() {
        let text = "# TYPE a counter\na{flag=\"-\"} 3\na{flag=\"NR\"} 4\na_total 100\nab 7\n";
        assert!((sum_metric(text, "a", "") - 7.0).abs() < 1e-9);
        assert!((sum_metric(text, "a", "NR") - 4.0).abs() < 1e-9);
        assert!((sum_metric(text, "a_total", "") - 100.0).abs() < 1e-9);
    }
}
