//! `cargo xtask …`: what the project needs beyond `cargo build`. One command, one file; each has a `run`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool: its output is for people")]

mod bench;
mod build_ebpf;
mod demo;
mod e2e;
mod fuzz;
mod ground;
mod image;
mod packages;
mod soak;
mod test;
mod tidy;
mod training;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "weir's own build commands", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, and print a table
    Bench(bench::Args),
    /// Build the kernel programs into target/bpf, which the agent's build embeds
    BuildEbpf(build_ebpf::Options),
    /// Show a canary on this machine, step by step, and check every number
    Demo(demo::Args),
    /// Install weir in a real cluster, and check what its users came for
    E2e(e2e::Args),
    /// Feed the pure core with inputs that nobody would write
    Fuzz(fuzz::Args),
    /// Make the container images, as tars that a node can import
    Image(image::Args),
    /// Run a canary under load for minutes or days, with everything changing around it
    Soak(soak::Args),
    /// Build and run every suite, one after the other
    Test(test::Args),
    /// Check the direction of imports, the purity of the core and the shape of files
    Tidy(tidy::Args),
    /// Record what the proxy executes, for the builds that are released; they do it by themselves when it is due
    Train,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::BuildEbpf(options) => build_ebpf::run(&options),
        Command::Demo(args) => demo::run(&args),
        Command::E2e(args) => e2e::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Tidy(args) => tidy::run(&args),
        Command::Train => training::run(),
    };
    if let Err(error) = result {
        // Not by returning it: with RUST_BACKTRACE set, that prints a page of frames over the commands to run.
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
