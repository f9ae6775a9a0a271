//! What the kernel part costs a request on a connection that is open: no program runs. The kernel counts the runs.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::require::Need;
use weir_tests::{Report, proved, require};

use super::stage::{Stage, http};

/// Whether the kernel counts the runs of its programs, which takes some time of each.
const COUNTING: &str = "/proc/sys/kernel/bpf_stats_enabled";
const CONNECTIONS: u64 = 32;
/// Requests over as many connections, few and many.
const FEW: u64 = 2_000;
const MANY: u64 = 20_000;
/// How many more runs the many may bring: upstream connections that are made meanwhile, and probes. A program that ran
/// for each request would bring 18,000.
const MORE: u64 = 500;

/// Counting, until dropped.
struct Counting(String);

impl Counting {
    fn on() -> Result<Self> {
        let before = fs::read_to_string(COUNTING)?;
        fs::write(COUNTING, "1")?;
        Ok(Self(before))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _as_it_was = fs::write(COUNTING, &self.0);
    }
}

#[test]
fn kernel_programs_run_for_connections_and_not_for_requests() -> Result<()> {
    let name = "kernel_programs_run_for_connections_and_not_for_requests";
    if !require(name, &[Need::Agent, Need::Program("bpftool")]) {
        return Ok(());
    }
    let [v1, v2] = ["v1", "v2"].map(|subset| format!("destination: {{host: service-b, subset: {subset}}}"));
    let stage = Stage::new(&http(&format!("{{route: [{{{v1}, weight: 90}}, {{{v2}, weight: 10}}]}}")))?;
    stage.agent.await_verdict("default/service-b:80", "proxy")?;
    let _counting = Counting::on()?;
    let ask = |requests: u64| -> Result<u64> {
        let before = runs()?;
        let report: Report = stage.load().requests(requests).connections(CONNECTIONS).run(stage.client())?;
        ensure!(report.failed == 0 && report.status(200) == requests, "{report:?}");
        runs()?.checked_sub(before).context("programs went meanwhile")
    };
    // Connections to pods are open then.
    ask(FEW)?;
    let (few, many) = (ask(FEW)?, ask(MANY)?);
    ensure!(few >= CONNECTIONS, "{few} runs for {CONNECTIONS} connections: they were not steered");
    ensure!(many <= few + MORE, "{few} runs with {FEW} requests over {CONNECTIONS} connections, {many} with {MANY}");
    proved!("{CONNECTIONS} connections: {few} runs of kernel programs with {FEW} requests, {many} with {MANY}");
    Ok(())
}

/// How often all of weir's programs have run.
fn runs() -> Result<u64> {
    let output = Command::new("bpftool").args(["--json", "prog", "show"]).output().context("starting bpftool")?;
    ensure!(output.status.success(), "bpftool: {}", String::from_utf8_lossy(&output.stderr));
    let programs: Value = serde_json::from_slice(&output.stdout).context("bpftool's answer")?;
    let programs = programs.as_array().context("a list")?;
    let ours = programs.iter().filter(|p| p["name"].as_str().is_some_and(|name| name.starts_with("weir_")));
    Ok(ours.filter_map(|program| program["run_cnt"].as_u64()).sum())
}
