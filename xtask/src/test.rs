//! `cargo xtask test`: everything that can be tested on this machine, one suite after the other, and what was skipped
//! and why. Run by people and by `.ci/run`; where `CI=true`, a skipped kernel test is a failure.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use weir_tests::LONG;
use weir_tests::require::{REQUIRED, SKIPPED, SKIPS_FILE};

use crate::{packages, workspace};

/// The profile of everything that is run.
pub(crate) const PROFILE: &str = "quick";

/// Which suites.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these suites: unit, abi, cost, or a file of tests/suites or agent/tests without .rs
    suites: Vec<String>,
    /// Take the programs as they are
    #[arg(long)]
    no_build: bool,
    /// Minutes where seconds do otherwise: 100 changes a second for a minute, a million racing GETs, an API
    /// server that is away for ten
    #[arg(long)]
    long: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// One line of the table at the end.
struct Row {
    name: String,
    counts: Counts,
    took: Duration,
}

/// Builds and tests.
///
/// # Errors
/// When something does not build, a test fails, or a kernel test is skipped in CI.
pub(crate) fn run(args: &Args) -> Result<()> {
    let suites = suites()?;
    let known: Vec<&str> = suites.iter().map(|(name, _)| &**name).collect();
    if let Some(unknown) = args.suites.iter().find(|name| !known.contains(&&***name)) {
        bail!("no suite `{unknown}`; there are: {}", known.join(" "));
    }
    packages::install(packages::SUITES)?;
    if !args.no_build {
        build()?;
    }
    let skips = env::temp_dir().join(format!("weir-skips-{}", std::process::id()));
    let mut rows = Vec::new();
    let mut skipped = Vec::new();
    for (name, arguments) in suites {
        if !args.suites.is_empty() && !args.suites.contains(&name) {
            continue;
        }
        let _none = fs::remove_file(&skips);
        let started = Instant::now();
        let mut counts = cargo_test(&arguments, &skips, args.long)?;
        let said = fs::read_to_string(&skips).unwrap_or_default();
        // A skipped test returns early, which the test runner counts as passed.
        counts.skipped += said.lines().count() as u64;
        counts.passed = counts.passed.saturating_sub(said.lines().count() as u64);
        skipped.extend(said.lines().map(str::to_owned));
        rows.push(Row { name, counts, took: started.elapsed() });
    }
    let _none = fs::remove_file(&skips);
    report(&rows, &skipped)
}

fn report(rows: &[Row], skipped: &[String]) -> Result<()> {
    let mut out = io::stdout().lock();
    let mut total = Counts::default();
    writeln!(out, "\n{:<12} {:>7} {:>7} {:>8} {:>9}", "suite", "passed", "failed", "skipped", "seconds")?;
    for row in rows {
        let c = row.counts;
        let seconds = row.took.as_secs_f64();
        writeln!(out, "{:<12} {:>7} {:>7} {:>8} {seconds:>9.1}", row.name, c.passed, c.failed, c.skipped)?;
        total.passed += c.passed;
        total.failed += c.failed;
        total.skipped += c.skipped;
    }
    for line in skipped {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{total}")?;
    if total.failed > 0 {
        bail!("{} failed", total.failed);
    }
    let must = skipped.iter().filter(|line| line.starts_with(SKIPPED)).count();
    if must > 0 && in_ci() {
        bail!("{must} skipped, which CI does not allow");
    }
    Ok(())
}

fn in_ci() -> bool {
    env::var("CI").as_deref() == Ok("true")
}

/// Unit tests first (they are quick), then each suite of the agent's, of `tests/suites` and of the proxy's bench by name.
///
/// No packages are named but the one that is no default member: with other packages cargo chooses other features, and
/// builds every dependency once more.
fn suites() -> Result<Vec<(String, Vec<String>)>> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut suites = vec![("unit".to_owned(), words("--lib --bins")), ("abi".to_owned(), words("-p weir-ebpf --lib"))];
    let mut all = names("agent/tests")?;
    // Of the same name in both: one suite, which cargo finds in both.
    all.extend(names("tests/suites")?);
    all.extend(names("tests/bench-proxy/tests")?);
    // One kernel and two cores for everybody: tests that measure time must not share them.
    suites.extend(all.into_iter().map(|name| {
        let arguments = words(&format!("--test {name} -- --test-threads=1 --nocapture"));
        (name, arguments)
    }));
    Ok(suites)
}

/// The suites of a directory: files, and directories with a main.rs.
fn names(directory: &str) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(workspace::root().join(directory)).with_context(|| directory.to_owned())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").exists() {
            names.extend(path.file_stem().and_then(|n| n.to_str()).map(str::to_owned));
        }
    }
    Ok(names)
}

/// Builds the kernel programs and every binary that the suites and the demo start.
///
/// # Errors
/// When something does not build.
pub(crate) fn build() -> Result<()> {
    // As a command of its own: the object must be there before the agent, which embeds it, is built.
    let own = env::current_exe().context("finding this program")?;
    workspace::succeed(Command::new(&own).arg("build-ebpf"))?;
    workspace::succeed(Command::new(&own).args(["build-ebpf", "--debug"]))?;
    let mut cargo = Command::new(env!("CARGO"));
    workspace::succeed(cargo.args(["build", "--locked", "--profile", PROFILE, "--bins"]))
}

/// Runs `cargo test` with what it prints passed on, and adds up its results. Ending badly without a failed test (it
/// did not compile, or it crashed) is one failure.
fn cargo_test(arguments: &[String], skips: &Path, long: bool) -> Result<Counts> {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(workspace::root())
        .args(["test", "--locked", "--no-fail-fast", "--profile", PROFILE])
        .args(arguments);
    command.env(SKIPS_FILE, skips).stdout(Stdio::piped());
    if in_ci() {
        command.env(REQUIRED, "1");
    }
    if long {
        command.env(LONG, "1");
    }
    let mut child = command.spawn().context("starting cargo test")?;
    let mut counts = Counts::default();
    let stdout = BufReader::new(child.stdout.take().context("standard output is piped")?);
    for line in stdout.lines() {
        let line = line?;
        if let Some(result) = result_line(&line) {
            counts.passed += result.passed;
            counts.failed += result.failed;
        }
        writeln!(io::stdout(), "{line}")?;
    }
    if !child.wait()?.success() && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

/// `test result: ok. 3 passed; 1 failed; 2 ignored; …`. Ignored ones are the other processes of a test, which starts them
/// itself; what is skipped is in the file that skipping tests write.
fn result_line(line: &str) -> Option<Counts> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |what: &str| {
        let part = rest.split(';').find(|p| p.trim_end().ends_with(what))?;
        part.trim().split(' ').next()?.parse().ok()
    };
    Some(Counts { passed: number("passed")?, failed: number("failed")?, skipped: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_the_runners_line() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        let counts = result_line(line).expect("a result line");
        assert_eq!((counts.passed, counts.failed, counts.skipped), (12, 3, 0));
        assert!(result_line("running 3 tests").is_none());
    }

    #[test]
    fn every_file_of_suites_is_a_suite_that_cargo_knows() {
        let cargo = fs::read_to_string(workspace::root().join("tests/Cargo.toml")).expect("the tests' Cargo.toml");
        let own = names("agent/tests").expect("agent/tests can be read");
        let others = names("tests/suites").expect("tests/suites can be read");
        for name in &others {
            let known = [format!("suites/{name}.rs"), format!("suites/{name}/main.rs")];
            assert!(known.iter().any(|path| cargo.contains(path)), "{name} is not in tests/Cargo.toml");
        }
        let found = suites().expect("both can be read");
        let costs = names("tests/bench-proxy/tests").expect("the bench's tests can be read");
        let others: BTreeSet<String> = others.union(&costs).cloned().collect();
        assert!(found.len() == 2 + own.union(&others).count() && own.contains("datapath") && others.contains("canary"));
        for (name, arguments) in &found[2..] {
            assert!(own.contains(name) || others.contains(name));
            assert!(arguments.contains(&"--test-threads=1".to_owned()));
        }
    }
}
