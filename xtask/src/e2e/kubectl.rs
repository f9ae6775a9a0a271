//! kubectl, as a user would call it, and the load that runs inside a pod through it. Used by the steps of `e2e`.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use weir_tests::Report;

/// Where everything of a run lives.
pub(super) const NAMESPACE: &str = "weir-e2e";
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(200);

/// How the cluster is reached.
#[derive(Clone, Debug)]
pub(super) struct Kubectl {
    pub(super) kubeconfig: Option<PathBuf>,
    pub(super) context: Option<String>,
}

impl Kubectl {
    /// `kubectl` with these arguments, in the run's namespace.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare();
        command.args(["--namespace", NAMESPACE]).args(arguments);
        command
    }

    fn bare(&self) -> Command {
        let mut command = Command::new("kubectl");
        if let Some(file) = &self.kubeconfig {
            command.arg("--kubeconfig").arg(file);
        }
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command
    }

    /// Runs it and gives what it printed.
    ///
    /// # Errors
    /// With what it said when it fails.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String> {
        Self::output(self.command(arguments), arguments)
    }

    /// The same outside of the run's namespace: what weir itself is installed with.
    pub(super) fn outside(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.bare();
        command.args(arguments);
        Self::output(command, arguments)
    }

    fn output(mut command: Command, arguments: &[&str]) -> Result<String> {
        let output = command.stdin(Stdio::null()).output().context("kubectl (kubernetes-client)")?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same, with `-o json`.
    pub(super) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut arguments = arguments.to_vec();
        arguments.extend(["-o", "json"]);
        Ok(serde_json::from_str(&self.run(&arguments)?)?)
    }

    /// `kubectl apply -f -`
    pub(super) fn apply(&self, manifests: &str) -> Result<()> {
        let mut child = self
            .command(&["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("a pipe to kubectl")?.write_all(manifests.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Looks until there is something, and says how long it took.
    ///
    /// # Errors
    /// When time is up, with what was awaited.
    pub(super) fn until<T>(
        what: &str,
        within: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<(T, Duration)> {
        let started = Instant::now();
        let mut last = String::new();
        while started.elapsed() < within {
            weir_tests::interrupt::check()?;
            match look() {
                Ok(Some(found)) => return Ok((found, started.elapsed())),
                Ok(None) => {}
                // A cluster in change refuses now and then.
                Err(error) => last = format!(": {error:#}"),
            }
            std::thread::sleep(LOOK);
        }
        bail!("{what}: not within {} s{last}", within.as_secs())
    }

    /// The names of the running pods with this label, in order.
    pub(super) fn pods(&self, label: &str) -> Result<Vec<String>> {
        let pods = self.json(&["get", "pods", "-l", label])?;
        let running = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null());
        Ok(running.filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect())
    }

    /// The client inside a pod, to its end.
    pub(super) fn client(&self, pod: &str, arguments: &[&str]) -> Result<Report> {
        let mut command = vec!["exec", pod, "--", "/weir-client"];
        command.extend(arguments);
        let said = self.run(&command)?;
        Report::parse(said.lines().last().context("the client said nothing")?)
    }

    /// The client inside a pod, until it is told to stop.
    pub(super) fn load(&self, pod: &str, arguments: &[&str]) -> Result<Load> {
        let mut command = vec!["exec", "-i", pod, "--", "/weir-client"];
        command.extend(arguments);
        command.push("--live");
        let mut child =
            self.command(&command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let input = child.stdin.take().context("a pipe to the client")?;
        let output = BufReader::new(child.stdout.take().context("a pipe from the client")?);
        let last = Arc::new(Mutex::new(String::new()));
        let newest = Arc::clone(&last);
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(std::result::Result::ok) {
                *newest.lock().unwrap_or_else(PoisonError::into_inner) = line;
            }
        });
        Ok(Load { child, input: Some(input), last, reader: Some(reader) })
    }
}

/// Load that goes on.
#[derive(Debug)]
pub(super) struct Load {
    child: Child,
    input: Option<ChildStdin>,
    last: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Load {
    /// What it has counted so far.
    pub(super) fn now(&self) -> Result<Report> {
        let line = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if line.is_empty() { Ok(Report::default()) } else { Report::parse(&line) }
    }

    /// Ends it and gives the whole count.
    pub(super) fn stop(mut self) -> Result<Report> {
        drop(self.input.take());
        let status = self.child.wait()?;
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| anyhow::anyhow!("the reader of the load panicked"))?;
        }
        ensure!(status.success(), "the load in the pod ended with {status}");
        self.now()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.input.take());
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
