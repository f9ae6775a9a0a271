//! What a suite needs of the machine. A suite that cannot run says so, in one line that `cargo xtask test` sums up;
//! where skipping is not allowed (`WEIR_REQUIRE_KERNEL=1`, as in CI) it fails instead.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{cgroup, mesh};

/// The file to which skipped tests are appended, one line each.
pub const SKIPS_FILE: &str = "WEIR_SKIPS";
/// Set to 1 where a skipped kernel test is a failure.
pub const REQUIRED: &str = "WEIR_REQUIRE_KERNEL";

/// What a test can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Root, network namespaces, cgroup v2.
    Namespaces,
    /// The binary `weir` with a kernel that takes its programs, and [`Need::Namespaces`].
    Agent,
    /// A program of the machine.
    Program(&'static str),
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Self::Namespaces => {
                // SAFETY: geteuid has no preconditions.
                if unsafe { libc::geteuid() } != 0 {
                    return Some("needs root".into());
                }
                Self::Program("ip").missing().or_else(|| cgroup::root().err().map(|e| e.to_string()))
            }
            Self::Agent => Self::Namespaces.missing().or_else(|| {
                let weir = mesh::binary("weir");
                if !weir.exists() {
                    return Some(format!("no {}: `cargo xtask test` builds it", weir.display()));
                }
                (!Path::new("/sys/kernel/btf/vmlinux").exists()).then(|| "the kernel has no BTF".into())
            }),
            Self::Program(name) => {
                let found = Command::new("sh")
                    .args(["-c", "command -v \"$0\"", name])
                    .stdout(Stdio::null())
                    .status()
                    .is_ok_and(|s| s.success());
                (!found).then(|| format!("{name} is not installed"))
            }
        }
    }
}

/// Whether `test` can run here. If not, it has been reported as skipped and the test should return.
///
/// # Panics
/// When something is missing and `WEIR_REQUIRE_KERNEL=1`.
pub fn require(test: &str, needs: &[Need]) -> bool {
    let Some(reason) = needs.iter().find_map(|n| n.missing()) else {
        return true;
    };
    skip(test, &reason);
    false
}

/// Reports `test` as skipped, for tests that find out for themselves what they lack.
///
/// # Panics
/// When `WEIR_REQUIRE_KERNEL=1`.
pub fn skip(test: &str, reason: &str) {
    assert!(std::env::var(REQUIRED).as_deref() != Ok("1"), "{test} must not be skipped here: {reason}");
    let line = format!("SKIPPED {test}: {reason}\n");
    let _closed = io::stderr().write_all(line.as_bytes());
    if let Some(file) = std::env::var_os(SKIPS_FILE)
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(file)
    {
        let _full = file.write_all(line.as_bytes());
    }
}
