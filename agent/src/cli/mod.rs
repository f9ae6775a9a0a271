//! The command line: what was typed, turned into calls. The only module that prints to standard output.

mod run;
mod status;
mod uninstall;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// weir: a service mesh for Kubernetes without sidecars.
#[derive(Debug, Parser)]
#[command(name = "weir", version, about, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node agent: steer the sockets of opted-in pods, and serve what needs layer 7
    Run(run::Args),
    /// Show the verdict of every service port, and why it is not a shorter way
    Status(status::Args),
    /// Remove an instance's programs, links and maps from this node
    Uninstall(uninstall::Args),
    /// Print the version, the kernel ABI and whether the kernel programs are built in
    Version,
}

/// Parses the arguments and runs the command: 0 done, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Status(args) => status::run(&args),
        Command::Uninstall(args) => uninstall::run(&args),
        Command::Version => {
            version();
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command line's last word on a failure")]
fn say_error(error: &anyhow::Error) {
    eprintln!("weir: {error:#}");
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn version() {
    let object = |o: Option<&[u8]>| o.map_or_else(|| "not built in".to_owned(), |o| format!("{} KiB", o.len() / 1024));
    println!(
        "weir {}\nkernel ABI {} (hash {:08x})\nkernel programs: {}\nkernel programs with log: {}",
        env!("CARGO_PKG_VERSION"),
        weir_ebpf::ABI_VERSION,
        weir_ebpf::maps::abi_hash(),
        object(crate::datapath::object::normal()),
        object(crate::datapath::object::debug()),
    );
}
