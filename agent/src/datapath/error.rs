//! What can go wrong between the agent and the kernel, in words that say what to do.

use std::io;
use std::path::PathBuf;

use crate::cgroup::CgroupError;

/// Errors of [`super::Datapath`].
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// This binary was built without the kernel programs.
    #[error("this binary has no kernel programs inside: run `cargo xtask build-ebpf` and build it again")]
    NoObject,
    /// This binary was built without the programs that log.
    #[error(
        "this binary has no kernel programs inside that log: run `cargo xtask build-ebpf --debug` and build it again, or \
         run without --kernel-log"
    )]
    NoDebugObject,
    /// The embedded object is not one of ours.
    #[error("the kernel programs inside this binary cannot be read: {0}")]
    BadObject(String),
    /// A capability is missing.
    #[error("not permitted to {what}: needs {capability}")]
    NotPermitted {
        /// What was tried.
        what: &'static str,
        /// `CAP_*`, for people to put into a manifest.
        capability: &'static str,
    },
    /// The name cannot be a directory of bpffs.
    #[error("instance name {0:?} is not 1 to 31 of a-z, 0-9 and '-', or is the reserved word \"maps\"")]
    BadInstance(String),
    /// The pins are of another build.
    #[error(
        "the pinned map {map} does not fit this version of weir ({difference}): run `weir uninstall`, which detaches \
         the old programs, and start the agent again"
    )]
    AbiMismatch {
        /// Name of the map.
        map: &'static str,
        /// What differs.
        difference: String,
    },
    /// The kernel does not accept a program.
    #[error("the kernel's verifier rejects {program}: {line}")]
    Verifier {
        /// Name of the program.
        program: &'static str,
        /// The line of its log that says why.
        line: String,
    },
    /// No cgroup tree to attach to.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Another agent of the instance is updating.
    #[error("another agent of instance {0} holds the datapath's lock")]
    Locked(String),
    /// Another agent has taken the instance over, or it was uninstalled.
    #[error("another agent has taken this instance over, or it was uninstalled: this one must not write any more")]
    Superseded,
    /// What this agent had in the kernel is gone.
    #[error(
        "the instance was removed meanwhile (`weir uninstall`, or an agent that was told to): start the agent again"
    )]
    Removed,
    /// Who removes the instance would take the programs away from a live agent.
    #[error(
        "an agent of instance {0} is alive: delete its DaemonSet (`kubectl delete -k`), or send SIGTERM to `weir run`, and \
         try again; `--force` removes everything under it, and it ends with an error"
    )]
    InUse(String),
    /// Every heartbeat of `weir_meta` is of a live agent.
    #[error("as many agents of this instance are alive as weir_meta has heartbeats for")]
    TooManyAgents,
    /// The host's own namespace cannot take part.
    #[error("network namespace {0} is the node's own: it cannot be enrolled")]
    HostNamespace(u64),
    /// A map operation failed.
    #[error("cannot {what} {map}: {error}")]
    Map {
        /// "read", "write", …
        what: &'static str,
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// A file, pin or mount operation failed.
    #[error("cannot {what} {}: {error}", path.display())]
    Io {
        /// "open", "pin", …
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

pub(super) const BPF_CAPABILITIES: &str = "CAP_BPF and CAP_NET_ADMIN";

impl DatapathError {
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { what, path, error }
    }

    pub(super) fn map(what: &'static str, map: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |error| Self::Map { what, map, error: map_errno(error) }
    }
}

/// The errno inside of aya's error; a missing key becomes `NotFound`.
pub(super) fn map_errno(error: aya::maps::MapError) -> io::Error {
    use aya::maps::MapError;
    match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::IoError(error) => error,
        MapError::KeyNotFound | MapError::ElementNotFound => io::ErrorKind::NotFound.into(),
        other => io::Error::other(other),
    }
}

/// aya's errors of loading the whole object: which of ours each is.
pub(super) fn from_load(error: aya::EbpfError) -> DatapathError {
    use aya::EbpfError;
    use aya::maps::MapError;
    match error {
        EbpfError::MapError(
            MapError::CreateError { io_error, .. } | MapError::SyscallError(aya::sys::SyscallError { io_error, .. }),
        ) if io_error.kind() == io::ErrorKind::PermissionDenied => {
            DatapathError::NotPermitted { what: "create BPF maps", capability: BPF_CAPABILITIES }
        }
        other => DatapathError::BadObject(chain(&other)),
    }
}

/// aya's errors of loading one program.
pub(super) fn from_program(program: &'static str, error: aya::programs::ProgramError) -> DatapathError {
    use aya::programs::ProgramError;
    match error {
        ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EPERM) => {
            DatapathError::NotPermitted { what: "load BPF programs", capability: BPF_CAPABILITIES }
        }
        ProgramError::LoadError { io_error, verifier_log } => {
            let line = useful_line(&verifier_log.to_string()).map_or_else(|| io_error.to_string(), str::to_owned);
            DatapathError::Verifier { program, line }
        }
        other => DatapathError::BadObject(format!("{program}: {}", chain(&other))),
    }
}

/// The verifier ends its log with statistics; the reason is the last line before them.
fn useful_line(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["verification time", "stack depth", "processed "];
    log.lines().map(str::trim).rfind(|line| !line.is_empty() && !STATISTICS.iter().any(|s| line.starts_with(s)))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_reason_is_found_before_its_statistics() {
        let log = "0: (b7) r0 = 1\ninvalid bpf_context access off=4 size=4\nverification time 91 usec\n\
                   stack depth 0+0\nprocessed 3 insns (limit 1000000)\n";
        assert_eq!(useful_line(log), Some("invalid bpf_context access off=4 size=4"));
        assert_eq!(useful_line("processed 0 insns"), None);
    }
}
