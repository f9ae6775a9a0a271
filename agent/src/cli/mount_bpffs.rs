//! `weir mount-bpffs`: the DaemonSet's init container. It alone is privileged: only a privileged container may pass a
//! mount on to the node, and pins in a mount of the agent's own would vanish with the agent.

use anyhow::Result;

use crate::{config, datapath};

#[expect(clippy::print_stdout, reason = "the command's output")]
pub(super) fn run() -> Result<()> {
    datapath::ensure_bpffs(config::BPFFS.as_ref())?;
    println!("a bpffs is mounted at {}", config::BPFFS);
    Ok(())
}
