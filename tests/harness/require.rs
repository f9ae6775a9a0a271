//! What a suite needs of the machine. A suite that cannot run says so, in one line that `cargo xtask test` sums up;
//! where skipping is not allowed (`WEIR_REQUIRE_KERNEL=1`, as in CI) it fails instead.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{cgroup, mesh};

/// The file to which skipped tests are appended, one line each.
pub const SKIPS_FILE: &str = "WEIR_SKIPS";
/// The oldest kubectl whose kustomize and `--subresource` the suites can use.
const KUBECTL_MINOR: u32 = 27;
/// How the line of a test begins that should have run.
pub const SKIPPED: &str = "SKIPPED";
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
            Self::Program(name) => program(name).is_none().then(|| format!("{name} is not installed")),
        }
    }
}

/// `PATH`, and after it where administrators' programs are: `su` and many services leave those out.
pub fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    for directory in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
        if !env::split_paths(&path).any(|d| d == Path::new(directory)) {
            path.push(if path.is_empty() { "" } else { ":" });
            path.push(directory);
        }
    }
    path
}

/// Where a program of the machine is, by [`search_path`].
pub fn program(name: &str) -> Option<PathBuf> {
    found_in(&search_path(), name)
}

fn found_in(path: &OsStr, name: &str) -> Option<PathBuf> {
    let runs = |p: &PathBuf| fs::metadata(p).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    env::split_paths(path).map(|d| d.join(name)).find(runs)
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
    assert!(env::var(REQUIRED).as_deref() != Ok("1"), "{test} must not be skipped here: {reason}");
    note(&format!("{SKIPPED} {test}: {reason}\n"));
}

/// Whether there is a kubectl that is new enough, which not every distribution's package is. If not, the test is
/// reported and should return; that is no failure anywhere.
pub fn wish_kubectl(test: &str) -> bool {
    let minor = kubectl_minor();
    let there = minor.is_some_and(|minor| minor >= KUBECTL_MINOR);
    if !there {
        let found = minor.map_or_else(|| "none".to_owned(), |minor| format!("1.{minor}"));
        leave_out(test, &format!("needs kubectl 1.{KUBECTL_MINOR} or newer, found {found}"));
    }
    there
}

/// Reports `test` as left out for want of what no machine must have, which is no failure anywhere.
pub fn leave_out(test: &str, reason: &str) {
    note(&format!("LEFT OUT {test}: {reason}\n"));
}

/// The minor version of the kubectl of this machine.
fn kubectl_minor() -> Option<u32> {
    let output = Command::new(program("kubectl")?).args(["version", "--client", "-o", "json"]).output().ok()?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    // Some builds say "32+".
    version["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse().ok()
}

fn note(line: &str) {
    let _closed = io::stderr().write_all(line.as_bytes());
    if let Some(file) = env::var_os(SKIPS_FILE)
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(file)
    {
        let _full = file.write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_administrators_have_in_their_path_is_found() {
        let path = search_path();
        let directories: Vec<PathBuf> = env::split_paths(&path).collect();
        for sbin in ["/usr/local/sbin", "/usr/sbin", "/sbin"] {
            assert_eq!(directories.iter().filter(|d| **d == Path::new(sbin)).count(), 1, "{path:?}");
        }
    }

    #[test]
    fn a_program_is_a_file_that_can_be_run() {
        let directory = env::temp_dir().join(format!("weir-require-{}", std::process::id()));
        fs::create_dir_all(directory.join("a-directory")).expect("a directory of our own");
        let file = directory.join("a-program");
        fs::write(&file, "").expect("a file");
        let path = directory.as_os_str();
        assert_eq!(found_in(path, "a-program"), None, "not executable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("our own file");
        assert_eq!(found_in(path, "a-program"), Some(file));
        assert_eq!(found_in(path, "a-directory"), None);
        fs::remove_dir_all(&directory).expect("it is ours");
    }
}
