//! weir's proxy beside Envoy, HAProxy and nginx: the same routes, one core each, in turns. Started by
//! `cargo xtask bench proxy`, which installs and builds what this needs.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use weir_bench_proxy::peers::Subject;
use weir_bench_proxy::{cases, cost, features, machine, process, report, rounds};
use weir_tests::interrupt;

/// Descriptors: HAProxy wants 2.5 for each of the connections that it is allowed, and some more.
const DESCRIPTORS: u64 = 15_000;

/// The cases of weir alone: what a request costs, and what each feature adds.
const COST: &str = "cost";
const FEATURES: &str = "features";

#[derive(Debug, Parser)]
struct Arguments {
    /// Only these cases; of weir alone are `cost`, what can be counted, and `features`, what each
    /// of them adds
    cases: Vec<String>,
    /// Rounds of each case
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of each round
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only these subjects; the first of them is no base unless it is Envoy
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<String>,
    /// Where reports go
    #[arg(long)]
    output: PathBuf,
    /// The page that gets the report as a section, in place of the one that it has; drawings go into a directory beside it
    #[arg(long)]
    docs: Option<PathBuf>,
    /// The report says that weir was built by a record of what it executes
    #[arg(long)]
    trained: bool,
    /// The program Envoy
    #[arg(long)]
    envoy: PathBuf,
}

#[expect(clippy::print_stderr, reason = "a command line tool: its output is for people")]
fn main() -> ExitCode {
    // Not by returning it: with RUST_BACKTRACE set, that prints a page of frames over the words.
    if let Err(error) = run(&Arguments::parse()) {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(arguments: &Arguments) -> Result<()> {
    interrupt::install();
    process::raise_descriptors(DESCRIPTORS)?;
    process::prefer_us();
    let subjects = subjects(&arguments.subjects)?;
    let chosen = chosen(&arguments.cases)?;
    let own = std::env::current_exe()?;
    let directory = arguments.output.join("run");
    std::fs::create_dir_all(&directory)?;
    let options = rounds::Options {
        rounds: arguments.rounds,
        duration: Duration::from_secs_f64(arguments.seconds),
        subjects,
        // Absolute: nginx takes relative ones for parts of its own directory.
        directory: directory.canonicalize()?,
        binaries: own.parent().context("a directory")?.to_path_buf(),
        envoy: arguments.envoy.clone(),
    };
    let mut out = std::io::stdout();
    let mut measured = report::Report {
        machine: machine::Machine::this(&options.envoy),
        trained: arguments.trained,
        rounds: options.rounds,
        seconds: arguments.seconds,
        outcomes: Vec::new(),
        cost: None,
        features: Vec::new(),
    };
    let wanted = |case: &str| arguments.cases.is_empty() || arguments.cases.iter().any(|name| name == case);
    for case in chosen {
        let outcome = rounds::measure(case, &options)?;
        writeln!(out, "{}", report::table(&outcome))?;
        measured.outcomes.push(outcome);
    }
    if wanted(COST) {
        let subject = options.binaries.join("weir-proxy");
        let cost = cost::Cost::measure(&subject, &options.directory.join(COST))?;
        writeln!(out, "{}", report::cost(&cost))?;
        measured.cost = Some(cost);
    }
    if wanted(FEATURES) {
        // One that is measured is told at once: all of them take minutes.
        let told = |cost: &_| drop(writeln!(std::io::stderr(), "{}", report::feature_line(cost, None)));
        measured.features = features::measure(&options, told)?;
        writeln!(out, "{}", report::features(&measured.features))?;
    }
    std::fs::write(arguments.output.join("proxy.json"), serde_json::to_string_pretty(&measured)?)?;
    let page = arguments.docs.clone().unwrap_or_else(|| arguments.output.join(report::PAGE));
    let before = if arguments.docs.is_some() { std::fs::read_to_string(&page)? } else { String::new() };
    for (name, text) in measured.files(&before) {
        let path = page.with_file_name(name);
        std::fs::create_dir_all(path.parent().context("a directory")?)?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    writeln!(out, "written: {}", page.display())?;
    Ok(())
}

fn subjects(names: &[String]) -> Result<Vec<Subject>> {
    if let Some(unknown) = names.iter().find(|name| Subject::ALL.iter().all(|subject| subject.name() != *name)) {
        bail!("no subject `{unknown}`; there are: {}", Subject::ALL.map(Subject::name).join(" "));
    }
    Ok(Subject::ALL.into_iter().filter(|s| names.is_empty() || names.iter().any(|name| name == s.name())).collect())
}

fn chosen(names: &[String]) -> Result<Vec<&'static cases::Case>> {
    let known = || cases::ALL.iter().map(|case| case.name).chain([COST, FEATURES]).collect::<Vec<_>>();
    if let Some(unknown) = names.iter().find(|name| !known().contains(&name.as_str())) {
        bail!("no case `{unknown}`; there are: {}", known().join(" "));
    }
    Ok(cases::ALL.iter().filter(|case| names.is_empty() || names.iter().any(|name| name == case.name)).collect())
}
