//! Clients and servers from PyPI, in a virtual environment below `target`, made once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use weir_tests::require;

use super::stage::target;

/// What is installed, as pip names it.
const PACKAGES: [&str; 3] = ["grpcio==1.76.0", "requests==2.32.5", "websockets==15.0.1"];

/// The environment's Python. `None`, and `test` reported as left out, where PyPI cannot be reached.
pub(crate) fn python(test: &str) -> Result<Option<PathBuf>> {
    let place = target()?.join("traffic-python");
    let python = place.join("bin/python3");
    if installed(&python) {
        return Ok(Some(python));
    }
    let made = succeed(Command::new("python3").args(["-m", "venv"]).arg(&place)).and_then(|()| {
        succeed(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(PACKAGES),
        )
    });
    if let Err(error) = made {
        require::leave_out(test, &format!("{error:#}"));
        return Ok(None);
    }
    ensure!(installed(&python), "pip has not installed {PACKAGES:?}");
    Ok(Some(python))
}

fn installed(python: &Path) -> bool {
    python.exists() && succeed(Command::new(python).args(["-c", "import grpc, requests, websockets"])).is_ok()
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {}", command.get_program().display()))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
