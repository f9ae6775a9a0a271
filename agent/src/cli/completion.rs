//! `weir completion`: a script for the shell that completes commands and flags.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, output};

/// Arguments of `weir completion`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which shell; for bash: `source <(weir completion bash)`
    #[arg(value_parser = clap::builder::EnumValueParser::<Shell>::new())]
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "weir", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
