//! `weir mount-bpffs`: the DaemonSet's init container. It alone is privileged: only a privileged container may pass a
//! mount on to the node, and pins in a mount of the agent's own would vanish with the agent.

use anyhow::Result;

use super::output;
use crate::{config, datapath};

pub(super) fn run() -> Result<()> {
    datapath::ensure_bpffs(config::BPFFS.as_ref())?;
    output::print(&format!("a bpffs is mounted at {}\n", config::BPFFS))
}
