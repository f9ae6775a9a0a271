//! `cargo xtask …`: what cargo itself does not do for this workspace.

mod demo;
mod test;
mod tidy;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "weir's build, demo and test commands")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show a canary on this machine, step by step, and check every number
    Demo(demo::Args),
    /// Build and run every suite, one after the other
    Test(test::Args),
    /// Check the direction of imports, the purity of the core and the shape of files
    Tidy(tidy::Args),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Tidy(args) => tidy::run(&args),
    }
}

/// The workspace's directory.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}
