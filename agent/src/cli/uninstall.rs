//! `weir uninstall`: removes what an instance left in the kernel. Not under a live agent, unless forced.

use anyhow::Result;

use super::output;
use crate::{config, datapath};

/// Arguments of `weir uninstall`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The instance whose pins are removed
    #[arg(long, default_value = config::DEFAULT_INSTANCE)]
    instance: String,
    /// Remove them under an agent that is alive, too: it ends with an error, and the next one attaches anew
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    config::check_instance(&args.instance)?;
    if datapath::uninstall(&args.instance, config::BPFFS.as_ref(), args.force)? {
        output::print(&format!("removed the programs, links and maps of instance {}\n", args.instance))
    } else {
        output::print(&format!("instance {} has left nothing here\n", args.instance))
    }
}
