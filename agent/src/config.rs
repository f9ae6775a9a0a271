//! What the agent was told, checked, and every default with its reason. Made by `cli`, read by `app`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_mesh::program::Share;

use crate::cluster::Access;
use crate::cluster::own::OwnPod;

/// The instance of a node that runs one agent.
pub const DEFAULT_INSTANCE: &str = "default";
/// Istio's admin port, so that habits and scripts carry over.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:15000";
/// The port of [`DEFAULT_ADMIN`], which is asked through the API server.
pub const ADMIN_PORT: u16 = 15000;
/// The agent is a guest on the node: two workers carry about 100,000 requests a second.
pub const DEFAULT_WORKERS: usize = 2;
/// More threads than CPUs of a large node only add memory.
pub const MAX_WORKERS: usize = 256;
/// Below Kubernetes' terminationGracePeriodSeconds of 30 s, so that the agent ends by itself.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(20);
/// Istio's outbound port; another one is taken where an application has it.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where files for TLS are mounted, by namespace.
pub const DEFAULT_TLS_FILES: &str = "/etc/weir/tls";
/// Where the kernel's pins live.
pub const BPFFS: &str = "/sys/fs/bpf";

/// [`DEFAULT_WORKERS`], or fewer on a smaller machine.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(DEFAULT_WORKERS)
}

/// How a line of the access log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Istio's default.
    #[default]
    Text,
    /// An object a line, with Istio's keys, and `verdict` and `source`.
    Json,
}

/// Istio's share of the requests that are traced, in percent.
pub const DEFAULT_TRACE_SAMPLING: f64 = 1.0;

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The directory of manifests to watch.
    Manifests(PathBuf),
    /// An API server.
    Kubernetes(Access),
}

/// The agent's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where objects come from.
    pub source: Source,
    /// Name of the instance.
    pub instance: String,
    /// Where the connect hooks attach; `None` = found.
    pub cgroup: Option<PathBuf>,
    /// Where the host's cgroup trees are mounted; `None` = found.
    pub cgroup_root: Option<PathBuf>,
    /// Proxy workers.
    pub workers: usize,
    /// The admin endpoint.
    pub admin: SocketAddr,
    /// Where metrics, and nothing else, are served to others than this node; `None` = nowhere.
    pub metrics: Option<SocketAddr>,
    /// The cluster whose installation this agent is a part of; `None` = none.
    pub cluster: Option<Access>,
    /// Which pod of that installation this process is; `None` = it was started by hand.
    pub own: Option<OwnPod>,
    /// Whether the elected agent creates the CRDs that are absent.
    pub create_crds: bool,
    /// The file that access log lines are appended to; `None` = off, Istio's default.
    pub access_log: Option<PathBuf>,
    /// How they are written.
    pub log_format: LogFormat,
    /// Where spans go, and which share of the requests; `None` = tracing is off.
    pub tracing: Option<(String, Share)>,
    /// With an API server: where files for TLS are, in a subdirectory for each namespace whose rules may name them.
    pub tls_files: PathBuf,
    /// This node's name.
    pub node: Option<String>,
    /// How long requests in flight may take after SIGTERM.
    pub drain: Duration,
    /// Whether Istio's opt-in labels count.
    pub accept_istio_labels: bool,
    /// Whether the debug object is loaded.
    pub kernel_log: bool,
}

/// An instance names a directory of pins and a cgroup.
///
/// # Errors
/// When the name has other characters than `a-z`, `0-9` and `-`, not 1 to 31 of them, or is `maps`.
pub fn check_instance(name: &str) -> Result<()> {
    ensure!(
        (1..=31).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
        "{name:?}: an instance name is 1 to 31 of a-z, 0-9 and -"
    );
    // In the directory of the instances it is the link to the active maps, and in each of them the maps themselves.
    ensure!(name != "maps", "{name:?}: no name for an instance, the pinned maps are called so");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_names_cannot_leave_their_directory() {
        for good in ["default", "node-1", "a"] {
            assert!(check_instance(good).is_ok(), "{good}");
        }
        for bad in ["", "..", "a/b", "A", "a.b", "maps", &"x".repeat(32)] {
            assert!(check_instance(bad).is_err(), "{bad}");
        }
    }
}
