//! `cargo xtask bench`: measurements, as tables. Each is a program of the tests, which this builds and starts.

use std::process::Command;

use anyhow::{Context, Result, bail};
use weir_tests::mesh;

use crate::{ground, packages};

/// Which measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A large cluster, through the tests' API server: time to ready, memory, CPU, bytes, and single endpoint changes
    Scale(Scale),
    /// The core by itself: decisions with a thousand rules, a compilation of a large mesh, the change of one rule in it
    Decide,
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

/// Measures.
///
/// # Errors
/// When something does not build or run.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Scale(scale) => run_scale(scale),
        What::Decide => run_decide(),
    }
}

fn run_decide() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["bench", "--quiet", "--package", "weir-mesh", "--bench", "decide", "--profile", "quick"]);
    let status = command.status().context("starting cargo bench")?;
    if !status.success() {
        bail!("cargo bench: {status}");
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
    let status = command.status().with_context(|| format!("starting {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{}: {status}", command.get_program().display());
    }
    Ok(())
}
