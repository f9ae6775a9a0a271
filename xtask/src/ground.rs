//! What must hold before a mesh of network namespaces is made: root, the machine's programs, our own. Used by `demo` and
//! `soak`.

use anyhow::{Result, bail};
use weir_tests::{interrupt, mesh};

use crate::packages::{self, Package};
use crate::test;

/// Whether we are root.
///
/// # Errors
/// When we are not; the error says what to do.
pub(crate) fn require_root(command: &str) -> Result<()> {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        bail!("network namespaces and eBPF need root: sudo -E cargo xtask {command}");
    }
    Ok(())
}

/// Installs packages, builds (unless told not to), says where the built programs are, and from now on takes signals as
/// a wish to end.
///
/// # Errors
/// When a program is missing or something does not build.
pub(crate) fn prepare(packages: &[Package], no_build: bool) -> Result<()> {
    packages::require_all(packages)?;
    if !no_build {
        test::build()?;
    }
    // This program is target/debug/xtask; what it starts is beside it, in the profile that was just built.
    let own = std::env::current_exe()?;
    if let Some(target) = own.ancestors().nth(2) {
        mesh::take_binaries_from(target.join(test::PROFILE));
    }
    interrupt::install();
    Ok(())
}
