//! Where things are, and running other programs without what cargo put into our environment. Used by every command.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The workspace's root. Read when we run, because a shared CARGO_TARGET_DIR may hold a binary of another checkout.
pub(crate) fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    own.parent().map_or(own.clone(), Path::to_path_buf)
}

/// `target` below the root, whatever CARGO_TARGET_DIR says: the agent's build looks for the kernel programs there, and
/// one path holds for every way of building.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// Runs a command in the root to its end.
///
/// # Errors
/// When it does not start, or fails.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command.current_dir(root()).status().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// The hash of what `paths` hold, files and directories below the root, without directories called as one of `beside`:
/// the same for the same sources, wherever they are.
///
/// # Errors
/// When one cannot be read.
pub(crate) fn hash(paths: &[&str], beside: &[&str]) -> Result<u64> {
    let root = root();
    let mut files = Vec::new();
    for path in paths {
        collect(root.join(path), beside, &mut files)?;
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.strip_prefix(&root).unwrap_or(&file).hash(&mut hasher);
        fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn collect(path: PathBuf, beside: &[&str], files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path);
        return Ok(());
    }
    for entry in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
        let entry = entry?;
        if !beside.iter().any(|name| entry.file_name() == *name) {
            collect(entry.path(), beside, files)?;
        }
    }
    Ok(())
}

/// A command that knows nothing of the cargo and the toolchain that started us: neither their compiler, nor their
/// flags, nor their libraries.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_outer_cargo) {
            command.env_remove(name);
        }
    }
    command
}

fn is_of_outer_cargo(name: &str) -> bool {
    // Where the registry is and how to reach it stays as the user said.
    let kept = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_TERM_"];
    let whole = ["RUSTFLAGS", "RUSTDOCFLAGS", "RUSTUP_TOOLCHAIN", "RUST_RECURSION_COUNT", "LD_LIBRARY_PATH"];
    let begins = ["CARGO", "RUSTC", "RUSTDOC"];
    !kept.iter().any(|k| name.starts_with(k))
        && (whole.contains(&name) || begins.iter().any(|begin| name.starts_with(begin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_outer_cargo_sets_is_told_from_what_a_user_sets() {
        for name in ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_TARGET_DIR", "RUSTC", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN"] {
            assert!(is_of_outer_cargo(name), "{name} must not reach another toolchain");
        }
        for name in ["CARGO_HOME", "CARGO_HTTP_PROXY", "CARGO_NET_OFFLINE", "RUSTUP_HOME", "PATH", "HTTPS_PROXY"] {
            assert!(!is_of_outer_cargo(name), "{name} is the user's");
        }
    }
}
