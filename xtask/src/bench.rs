//! `cargo xtask bench`: measurements, as tables. Each is a program of the tests, which this builds and starts.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use weir_tests::{interrupt, mesh};

use crate::test::PROFILE;
use crate::{ground, packages, training, workspace};

/// Which measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The pure core alone: deciding among many routes, compiling a large cluster, and the change of one object; fails when
    /// a goal is missed
    Core(Core),
    /// A large cluster, through the tests' API server: time to ready, memory, CPU, bytes, and single endpoint changes
    Scale(Scale),
    /// The node's proxy beside Envoy, HAProxy and nginx: CPU per request, throughput, times, memory
    Proxy(Proxy),
}

#[derive(Debug, clap::Args)]
struct Core {
    /// Services, each with two ports
    #[arg(long, default_value_t = 10_000)]
    services: u64,
    /// Endpoints, spread evenly over the services
    #[arg(long, default_value_t = 50_000)]
    endpoints: u64,
    /// VirtualServices, each with a DestinationRule
    #[arg(long, default_value_t = 5_000)]
    virtual_services: u64,
    /// Routes on one host, to decide among
    #[arg(long, default_value_t = 1_000)]
    routes: u64,
    /// Take the program as it is
    #[arg(long)]
    no_build: bool,
}

#[derive(Debug, clap::Args)]
struct Scale {
    /// Services, each with two ports
    #[arg(long, default_value_t = 10_000)]
    services: u64,
    /// Endpoints, spread evenly over the services
    #[arg(long, default_value_t = 50_000)]
    endpoints: u64,
    /// Pods; those beyond the endpoints belong to no service
    #[arg(long, default_value_t = 100_000)]
    pods: u64,
    /// VirtualServices, each with a DestinationRule
    #[arg(long, default_value_t = 5_000)]
    virtual_services: u64,
    /// Endpoints that are changed, one at a time
    #[arg(long, default_value_t = 200)]
    changes: u64,
    /// Take the programs as they are
    #[arg(long)]
    no_build: bool,
}

#[derive(Debug, clap::Args)]
struct Proxy {
    /// Only these cases: keepalive, routes, large, fresh, rate-8000, rate-1000, bulk, idle, burst; `cost`, what can be counted
    /// of a request; `features`, what each feature adds to it
    cases: Vec<String>,
    /// Rounds of each case
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of each round
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only these subjects, separated by commas
    #[arg(long)]
    subjects: Option<String>,
    /// Put it into docs/benchmarks.md, with its drawings; of programs that were just built as they are shipped
    #[arg(long, conflicts_with_all = ["untrained", "no_build"])]
    docs: bool,
    /// weir without a training run before it (see `cargo xtask train`)
    #[arg(long)]
    untrained: bool,
    /// Take the programs as they are
    #[arg(long)]
    no_build: bool,
}

/// Measures.
///
/// # Errors
/// When something does not build or run.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Core(core) => run_core(core),
        What::Scale(scale) => run_scale(scale),
        What::Proxy(proxy) => run_proxy(proxy),
    }
}

fn run_core(core: &Core) -> Result<()> {
    if !core.no_build {
        build(PROFILE, "weir-bench")?;
    }
    let mut command = Command::new(target()?.join(PROFILE).join("weir-bench-core"));
    for (name, number) in [
        ("services", core.services),
        ("endpoints", core.endpoints),
        ("virtual-services", core.virtual_services),
        ("routes", core.routes),
    ] {
        command.arg(format!("--{name}={number}"));
    }
    workspace::succeed(&mut command)
}

/// The directory of what is built: this program is `target/debug/xtask`.
fn target() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.ancestors().nth(2).context("this program is in target/debug")?.to_owned())
}

fn build(profile: &str, package: &str) -> Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace::root()).args(["build", "--locked", "--profile", profile, "-p", package, "--bins"]);
    workspace::succeed(&mut cargo)
}

fn run_proxy(proxy: &Proxy) -> Result<()> {
    ground::require_root("bench proxy")?;
    packages::require_all(packages::PROXIES)?;
    // The proxy is measured as it is shipped, since its peers are.
    let training = if proxy.no_build { None } else { training::due(training::RELEASE, proxy.untrained)? };
    let (mut cargo, built) = training::cargo(training::RELEASE, training.as_deref())?;
    if !proxy.no_build {
        workspace::succeed(cargo.args(["-p", "weir-bench-proxy", "--bins"]))?;
    }
    interrupt::install();
    let mut command = Command::new(built.join("weir-bench-proxy"));
    command.args(&proxy.cases).arg("--output").arg(workspace::target().join("bench"));
    command.arg("--envoy").arg(packages::envoy(&workspace::target().join("tools"))?);
    command.arg(format!("--rounds={}", proxy.rounds)).arg(format!("--seconds={}", proxy.seconds));
    command.args(training.is_some().then_some("--trained"));
    command.args(proxy.subjects.iter().map(|subjects| format!("--subjects={subjects}")));
    if proxy.docs {
        command.arg("--docs").arg(workspace::root().join("docs/benchmarks.md"));
    }
    // It has a session of its own, which a terminal's Ctrl-C does not reach.
    let mut child = command.spawn().context("starting weir-bench-proxy")?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if interrupt::check().is_err() {
            // SAFETY: it is our child and has not been reaped, so the id is its own.
            unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
            break child.wait()?;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    if !status.success() {
        bail!("weir-bench-proxy: {status}");
    }
    Ok(())
}

fn run_scale(scale: &Scale) -> Result<()> {
    ground::require_root("bench scale")?;
    ground::prepare(packages::MESH, scale.no_build)?;
    let mut command = Command::new(mesh::binary("weir-scale"));
    for (name, number) in [
        ("services", scale.services),
        ("endpoints", scale.endpoints),
        ("pods", scale.pods),
        ("virtual-services", scale.virtual_services),
        ("changes", scale.changes),
    ] {
        command.arg(format!("--{name}={number}"));
    }
    workspace::succeed(&mut command)
}
