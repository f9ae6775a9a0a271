//! The command line: what was typed, turned into calls. The only module that prints to standard output.

mod analyze;
mod completion;
mod crds;
mod diff;
mod explain;
mod manifests;
mod mount_bpffs;
mod output;
mod run;
mod status;
mod uninstall;
mod validate;

use std::ffi::OsStr;
use std::future::Future;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::cluster::Access;

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
    /// Tell what is wrong with manifests by themselves: fields, values, and the rules of each kind
    Validate(validate::Args),
    /// Look for mistakes in manifests, or in what a cluster holds
    Analyze(analyze::Args),
    /// Tell why a request goes where it goes: every rule that is tried, weights, endpoints, settings, policies
    Explain(explain::Args),
    /// Tell what would change in force: routes, weights, settings, policies, verdicts, findings
    Diff(diff::Args),
    /// Create the CustomResourceDefinitions of Istio's kinds that a cluster lacks, or print them
    Crds(crds::Args),
    /// Remove an instance's programs, links and maps from this node
    Uninstall(uninstall::Args),
    /// Mount a bpffs on this node unless there is one (the DaemonSet's first step)
    MountBpffs,
    /// Print a shell's completion script
    Completion(completion::Args),
    /// Print the version, the kernel ABI and whether the kernel programs are built in
    Version,
}

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

impl Colour {
    fn is_on(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }
}

/// How to reach a cluster, on every command that can.
#[derive(Debug, Default, clap::Args)]
struct ClusterArgs {
    /// Kubeconfig file [default: KUBECONFIG, ~/.kube/config, or the pod's own account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterArgs {
    fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }

    /// Somebody said which cluster.
    fn is_given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }
}

/// Parses the arguments and runs the command: 0 done, 1 failed, 2 wrong usage or nothing that can be read, 79 `analyze` found something.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let parsed = command(arguments.first().map(AsRef::as_ref)).try_get_matches_from(arguments);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Analyze(args) => return analyze::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Validate(args) => {
            return validate::run(&args).unwrap_or_else(|error| {
                say_error(&error);
                ExitCode::FAILURE
            });
        }
        Command::Explain(args) => return explain::run(&args),
        Command::Diff(args) => return diff::run(&args),
        Command::Crds(args) => crds::run(&args),
        Command::Uninstall(args) => uninstall::run(&args),
        Command::MountBpffs => mount_bpffs::run(),
        Command::Completion(args) => completion::run(&args),
        Command::Version => version(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// The command line under the name that it was called by: as `kubectl-weir` it is a plugin, and its help says
/// `kubectl weir`.
fn command(called: Option<&OsStr>) -> clap::Command {
    let name = called.and_then(|path| Path::new(path).file_name()).unwrap_or_default();
    if name == "kubectl-weir" { Cli::command().bin_name("kubectl weir") } else { Cli::command() }
}

/// Runs what talks to a cluster.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start a runtime")?.block_on(work)
}

#[expect(clippy::print_stderr, reason = "the command line's last word on a failure")]
fn say_error(error: &anyhow::Error) {
    eprintln!("weir: {}", output::plain(&format!("{error:#}")));
}

fn version() -> Result<()> {
    let object = |o: Option<&[u8]>| o.map_or_else(|| "not built in".to_owned(), |o| format!("{} KiB", o.len() / 1024));
    output::print(&format!(
        "weir {}\nkernel ABI {} (hash {:08x})\nkernel programs: {}\nkernel programs with log: {}\n",
        env!("CARGO_PKG_VERSION"),
        weir_ebpf::ABI_VERSION,
        weir_ebpf::maps::abi_hash(),
        object(crate::datapath::object::normal()),
        object(crate::datapath::object::debug()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_says_the_name_that_was_typed() {
        let usage = |called: &str| {
            let error = command(Some(called.as_ref())).try_get_matches_from([called, "status", "--no-such"]);
            error.expect_err("no such flag").to_string()
        };
        assert!(usage("/usr/local/bin/kubectl-weir").contains("Usage: kubectl weir status"));
        assert!(usage("weir").contains("Usage: weir status"));
    }
}
