//! Load from inside a pod: runs `weir-client` and reads its report. Used by the suites and by `cargo xtask demo`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::mesh::{Pod, binary};
use crate::process::{self, Process};

/// A client that was told to stop finishes its requests within its own timeout of 10 s.
const CLIENT_END: Duration = Duration::from_secs(15);

/// What a run of the client counted.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Complete answers, whatever their status.
    pub answered: u64,
    /// Requests or connections that failed: refused, reset, cut short, timed out, or with wrong bytes.
    pub failed: u64,
    /// Requests sent again because a kept connection had been closed before the first byte of an answer.
    pub resent: u64,
    /// Answers by the origin's version.
    pub by_version: BTreeMap<String, u64>,
    /// Answers by the origin's pod.
    pub by_pod: BTreeMap<String, u64>,
    /// By user: the pod that answered first; with [`HttpLoad::users`], and only when the load has ended.
    pub by_user: BTreeMap<String, String>,
    /// Answers to a user from another pod than that.
    pub moved: u64,
    /// Answers by HTTP status.
    pub by_status: BTreeMap<String, u64>,
    /// Failures by what they were.
    pub errors: BTreeMap<String, u64>,
    /// CLOCK_MONOTONIC ns of the first 32 failures.
    pub failed_at: Vec<u64>,
    /// By version: CLOCK_MONOTONIC ns of the first answer's arrival.
    pub first_answer: BTreeMap<String, u64>,
    /// By version: CLOCK_MONOTONIC ns of the last start of a request that it answered.
    pub last_start: BTreeMap<String, u64>,
    /// How long it ran.
    pub seconds: f64,
    /// Every attempt, in the order of their ends; with [`HttpLoad::trace`], and only when the load has ended.
    pub trace: Vec<Attempt>,
}

/// One request of a traced load. Times are CLOCK_MONOTONIC ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Before its connect (of a fresh connection) or its first byte.
    pub began: u64,
    /// When its answer was complete, or it failed.
    pub ended: u64,
    /// No complete answer.
    pub failed: bool,
}

impl Attempt {
    fn parse(value: &Value) -> Option<Self> {
        Some(Self { began: value[0].as_u64()?, ended: value[1].as_u64()?, failed: value[2].as_bool()? })
    }
}

impl Report {
    /// Reads a line of the client.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn parse(line: &str) -> Result<Self> {
        let v: Value = serde_json::from_str(line).with_context(|| format!("the client said {line:?}"))?;
        let number = |key: &str| v[key].as_u64().unwrap_or_default();
        let table = |key: &str| -> BTreeMap<String, u64> {
            let entries = v[key].as_object().into_iter().flatten();
            entries.filter_map(|(k, n)| Some((k.clone(), n.as_u64()?))).collect()
        };
        let users = v["by_user"].as_object().into_iter().flatten();
        Ok(Self {
            answered: number("answered"),
            failed: number("failed"),
            resent: number("resent"),
            by_version: table("by_version"),
            by_pod: table("by_pod"),
            by_user: users.filter_map(|(k, pod)| Some((k.clone(), pod.as_str()?.to_owned()))).collect(),
            moved: number("moved"),
            by_status: table("by_status"),
            errors: table("errors"),
            failed_at: v["failed_at"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect(),
            first_answer: table("first_answer"),
            last_start: table("last_start"),
            seconds: v["seconds"].as_f64().unwrap_or_default(),
            trace: v["trace"].as_array().into_iter().flatten().filter_map(Attempt::parse).collect(),
        })
    }

    /// The share of a version among the answers that had one, in percent.
    pub fn share(&self, version: &str) -> f64 {
        let total: u64 = self.by_version.values().sum();
        100.0 * self.version(version) as f64 / total.max(1) as f64
    }

    /// Answers of a version.
    pub fn version(&self, version: &str) -> u64 {
        self.by_version.get(version).copied().unwrap_or_default()
    }

    /// Answers with a status.
    pub fn status(&self, status: u16) -> u64 {
        self.by_status.get(&status.to_string()).copied().unwrap_or_default()
    }

    /// What came after `earlier`, of the plain counts.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let minus = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>| {
            now.iter().map(|(k, n)| (k.clone(), n - then.get(k).copied().unwrap_or_default())).collect()
        };
        Self {
            answered: self.answered - earlier.answered,
            failed: self.failed - earlier.failed,
            resent: self.resent - earlier.resent,
            by_version: minus(&self.by_version, &earlier.by_version),
            by_pod: minus(&self.by_pod, &earlier.by_pod),
            by_user: BTreeMap::new(),
            moved: self.moved - earlier.moved,
            by_status: minus(&self.by_status, &earlier.by_status),
            errors: minus(&self.errors, &earlier.errors),
            failed_at: Vec::new(),
            first_answer: BTreeMap::new(),
            last_start: BTreeMap::new(),
            seconds: self.seconds - earlier.seconds,
            trace: Vec::new(),
        }
    }
}

/// HTTP load.
#[derive(Clone, Debug)]
pub struct HttpLoad {
    arguments: Vec<String>,
}

impl HttpLoad {
    /// GET / to `target` over one kept connection, with the address as Host.
    pub fn new(target: SocketAddr) -> Self {
        Self { arguments: vec!["http".into(), target.to_string()] }
    }

    fn with(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.arguments.push(key.into());
        self.arguments.push(value.to_string());
        self
    }

    /// The Host header.
    #[must_use]
    pub fn host(self, host: &str) -> Self {
        self.with("--host", host)
    }

    /// The path.
    #[must_use]
    pub fn path(self, path: &str) -> Self {
        self.with("--path", path)
    }

    /// A header, `name: value`. In it, `{n}` is the number of the request, `{user}` that of its user.
    #[must_use]
    pub fn header(self, header: &str) -> Self {
        self.with("--header", header)
    }

    /// Requests are of so many users in turn.
    #[must_use]
    pub fn users(self, users: u64) -> Self {
        self.with("--users", users)
    }

    /// How many requests (all connections together).
    #[must_use]
    pub fn requests(self, requests: u64) -> Self {
        self.with("--requests", requests)
    }

    /// How many connections at once.
    #[must_use]
    pub fn connections(self, connections: u64) -> Self {
        self.with("--connections", connections)
    }

    /// A new connection for each request.
    #[must_use]
    pub fn fresh(mut self) -> Self {
        self.arguments.push("--fresh".into());
        self
    }

    /// At most that many requests a second on each connection.
    #[must_use]
    pub fn pace(self, per_second: u64) -> Self {
        self.with("--pace", per_second)
    }

    /// Connects, reads and writes that take longer have failed.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with("--timeout", timeout.as_millis())
    }

    /// Keeps the times of every attempt for [`Report::trace`].
    #[must_use]
    pub fn trace(mut self) -> Self {
        self.arguments.push("--trace".into());
        self
    }

    /// POST with random bodies up to so many bytes, which must come back unchanged.
    #[must_use]
    pub fn bodies(self, up_to: u64) -> Self {
        self.with("--bodies", up_to)
    }

    /// Runs it in `pod` to its end.
    ///
    /// # Errors
    /// When the client itself fails; failed requests are in the report.
    pub fn run(&self, pod: &Pod) -> Result<Report> {
        client(pod, &self.arguments)
    }

    /// Starts it in `pod`; it runs until its requests are done, or [`LiveLoad::stop`].
    ///
    /// # Errors
    /// When the client cannot be started.
    pub fn start(&self, pod: &Pod) -> Result<LiveLoad> {
        LiveLoad::start(pod, &self.arguments)
    }
}

/// TCP connections: `count` in all, `threads` at once, each says a line and reads who answered.
///
/// # Errors
/// When the client itself fails; failed connections are in the report.
pub fn tcp(pod: &Pod, target: SocketAddr, count: u64, threads: u64) -> Result<Report> {
    client(pod, &tcp_arguments(target, count, threads))
}

/// The same, until it is stopped.
///
/// # Errors
/// When the client cannot be started.
pub fn tcp_live(pod: &Pod, target: SocketAddr, threads: u64) -> Result<LiveLoad> {
    LiveLoad::start(pod, &tcp_arguments(target, 0, threads))
}

/// The same, at most so many connections a second on each thread.
///
/// # Errors
/// When the client cannot be started.
pub fn tcp_paced(pod: &Pod, target: SocketAddr, threads: u64, per_second: u64) -> Result<LiveLoad> {
    let mut arguments = tcp_arguments(target, 0, threads);
    arguments.extend(["--pace".into(), per_second.to_string()]);
    LiveLoad::start(pod, &arguments)
}

fn tcp_arguments(target: SocketAddr, count: u64, threads: u64) -> Vec<String> {
    let (count, threads) = (count.to_string(), threads.to_string());
    ["tcp", &target.to_string(), "--requests", &count, "--connections", &threads].map(String::from).to_vec()
}

/// Runs the client in `pod` with arguments of its own and reads its last line as a report.
///
/// # Errors
/// When the client fails.
pub fn client(pod: &Pod, arguments: &[String]) -> Result<Report> {
    let mut command = Command::new(binary("weir-client"));
    command.args(arguments);
    let output = process::output(&pod.place, command)?;
    Report::parse(output.lines().next_back().context("the client said nothing")?)
}

/// A client that runs until it is told to stop.
#[derive(Debug)]
pub struct LiveLoad {
    process: Process,
    stop: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
    last: Report,
}

impl LiveLoad {
    fn start(pod: &Pod, arguments: &[String]) -> Result<Self> {
        let mut command = Command::new(binary("weir-client"));
        command.args(arguments).arg("--live");
        let (process, input, output) = Process::piped(&pod.place, command)?;
        Ok(Self { process, stop: Some(input), lines: BufReader::new(output), last: Report::default() })
    }

    /// The next count since the start; one comes every 100 ms, the last one when all requests are done.
    ///
    /// # Errors
    /// When the client has ended.
    pub fn tick(&mut self) -> Result<Report> {
        crate::interrupt::check()?;
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        self.last = Report::parse(line.trim_end())?;
        Ok(self.last.clone())
    }

    /// Counts until `seen` says so of what has come since the start.
    ///
    /// # Errors
    /// When that does not come, or the client has ended.
    pub fn until(&mut self, within: Duration, seen: impl Fn(&Report) -> bool) -> Result<()> {
        let started = Instant::now();
        while !seen(&self.tick()?) {
            anyhow::ensure!(started.elapsed() < within, "not within {within:?}: {:?}", self.last);
        }
        Ok(())
    }

    /// Ends it and gives the whole count.
    ///
    /// # Errors
    /// When the client fails.
    pub fn stop(mut self) -> Result<Report> {
        drop(self.stop.take());
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest)?;
        let status = self.process.wait(CLIENT_END)?;
        anyhow::ensure!(status.success(), "the client ended with {status}");
        rest.lines().next_back().map_or(Ok(self.last), Report::parse)
    }
}
