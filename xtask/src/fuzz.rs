//! `cargo xtask fuzz`: inputs that nobody would write, one target after the other on one thread. What fails in the pure
//! core is put into `tests/fuzz/corpus/TARGET`, which the unit tests replay; the proxy's reader of responses is a test of
//! its own, which is run for longer, and says which case failed.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Which targets, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this one
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// For each target
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// The same seed and the same corpus make the same inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Take the program as it is
    #[arg(long)]
    no_build: bool,
}

const TARGETS: [&str; 5] = ["compile", "matching", "analyze", "schema", WIRE];
/// The proxy's reader of responses.
const WIRE: &str = "wire";
/// The agent's unit test that has it.
const WIRE_TEST: &str = "proxy::upstream::wire::differential::what_we_take_hyper_takes_alike_and_not_a_byte_more";

/// As fast as that makes it, and with the checks of a debug build: an overflow is a fault too.
const OPTIMISED: &str = "profile.dev.opt-level=2";

/// Builds and fuzzes.
///
/// # Errors
/// When it does not build, or a target failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !args.no_build {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(workspace::root()).args(["build", "--locked", "-p", "weir-fuzz", "--config", OPTIMISED]);
        let status = cargo.status().context("starting cargo")?;
        if !status.success() {
            bail!("{cargo:?}: {status}");
        }
    }
    // This program is target/debug/xtask, and the fuzzer is beside it.
    let program = std::env::current_exe()?.with_file_name("weir-fuzz");
    let mut failed = Vec::new();
    for target in TARGETS.into_iter().filter(|target| args.target.as_deref().is_none_or(|only| only == *target)) {
        let fuzzed = if target == WIRE {
            wire(args)
        } else {
            let mut fuzzer = Command::new(&program);
            fuzzer.arg(target).arg(format!("--minutes={}", args.minutes)).arg(format!("--seed={}", args.seed));
            workspace::succeed(&mut fuzzer)
        };
        if let Err(error) = fuzzed {
            eprintln!("{error:#}");
            failed.push(target);
        }
    }
    if !failed.is_empty() {
        bail!("faults in {}: see tests/fuzz/corpus, and above", failed.join(", "));
    }
    Ok(())
}

/// Runs the agent's unit test for so long.
///
/// # Errors
/// When it does not build, it fails, or there is no such test: cargo calls it a success to have run none.
fn wire(args: &Args) -> Result<()> {
    let test = |more: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(workspace::root()).args(["test", "--locked", "--profile", crate::test::PROFILE]);
        cargo.args(["-p", "weir", "--lib", "--", "--exact", WIRE_TEST]).args(more);
        cargo
    };
    let mut list = test(&["--list"]);
    let found = list.stderr(Stdio::inherit()).output().with_context(|| format!("starting {list:?}"))?;
    if !found.status.success() {
        bail!("{list:?}: {}", found.status);
    }
    if !String::from_utf8_lossy(&found.stdout).lines().any(|line| line == format!("{WIRE_TEST}: test")) {
        bail!("the agent has no test {WIRE_TEST}");
    }
    let mut fuzzer = test(&[]);
    fuzzer.env("WEIR_FUZZ_MINUTES", args.minutes.to_string()).env("WEIR_FUZZ_SEED", args.seed.to_string());
    workspace::succeed(&mut fuzzer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_of_the_wire_is_there() {
        let (_, name) = WIRE_TEST.rsplit_once("::").expect("a path");
        let source = workspace::root().join("agent/src/proxy/upstream/wire/differential/mod.rs");
        let source = std::fs::read_to_string(source).expect("the module of the test");
        assert!(source.contains(&format!("fn {name}()")), "{name}");
    }
}
