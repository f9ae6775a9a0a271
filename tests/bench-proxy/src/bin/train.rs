//! Has a proxy that was built to record what it executes do what proxies do. Started by `cargo xtask train`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use weir_bench_proxy::training;

#[derive(Debug, Parser)]
struct Arguments {
    /// weir's proxy, instrumented
    #[arg(long)]
    proxy: PathBuf,
    /// Where it puts its records, and what it is started with
    #[arg(long)]
    output: PathBuf,
}

#[expect(clippy::print_stderr, reason = "a command line tool: its output is for people")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = training::run(&arguments.proxy, &arguments.output) {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
