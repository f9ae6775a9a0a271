//! `cargo xtask demo`: a canary from nothing to 50/50 on this machine, with network namespaces for pods, and a check
//! of every number that it shows. Everything that it makes is gone when it ends, also by Ctrl-C or when
//! the terminal is closed; `--keep` leaves it up
//! and says how to look around, `--end` takes that down.

pub(crate) mod screen;
mod steps;

use anyhow::{Result, bail};
use weir_tests::mesh;

use crate::{ground, packages};
use screen::Screen;
use steps::Demo;

/// The demo's mesh, instance and namespace prefix. One demo at a time, so that `--end` knows what to end.
const NAME: &str = "weir-demo";

/// How to run it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave everything up at the end, and say how to look around
    #[arg(long)]
    keep: bool,
    /// Take down what --keep left
    #[arg(long, conflicts_with_all = ["keep", "requests"])]
    end: bool,
    /// Requests (and TCP connections) for each split that is shown
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(200..=1_000_000))]
    requests: u64,
    /// Take the programs as they are
    #[arg(long)]
    no_build: bool,
}

/// Runs the demo.
///
/// # Errors
/// When a step does not hold its bound, or the machine lacks something.
pub(crate) fn run(args: &Args) -> Result<()> {
    ground::require_root("demo")?;
    if args.end {
        mesh::demolish(NAME);
        return Ok(());
    }
    if mesh::exists(NAME) {
        bail!("a demo is up already: `cargo xtask demo --end` takes it down");
    }
    let mut screen = Screen::new();
    if !args.no_build {
        screen.say("Building the kernel programs, the agent and the demo's clients.")?;
    }
    ground::prepare(packages::DEMO, args.no_build)?;
    let mut demo = Demo::new(NAME, args.keep, args.requests, screen)?;
    demo.play()?;
    if args.keep { demo.leave_up() } else { Ok(()) }
}
