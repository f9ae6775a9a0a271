//! `cargo xtask …`: what the project needs beyond `cargo build`. One command, one file; each has a `run`.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool: its output is for people"
)]

mod build_ebpf;
mod workspace;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "weir's own build commands",
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the kernel programs into target/bpf, which the agent's build embeds
    BuildEbpf(build_ebpf::Options),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::BuildEbpf(options) => build_ebpf::run(&options),
    }
}
