//! Network namespaces by name, and `ip` to furnish them. Used by [`crate::mesh`].

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::{io, thread};

use anyhow::{Context, Result, anyhow, bail};

/// Where `ip netns` keeps its names.
pub const DIRECTORY: &str = "/run/netns";

/// A named network namespace. Cheap to clone; [`remove`] ends the name.
#[derive(Clone, Debug)]
pub struct NetNs {
    name: Arc<str>,
    file: Arc<File>,
}

impl NetNs {
    /// Makes a namespace with its loopback up.
    ///
    /// # Errors
    /// When `ip` is missing or says no.
    pub fn create(name: &str) -> Result<Self> {
        ip("", &format!("netns add {name}"))?;
        let made = Self::open(name)?;
        made.ip("link set lo up")?;
        Ok(made)
    }

    /// One that is there already.
    ///
    /// # Errors
    /// When it is not.
    pub fn open(name: &str) -> Result<Self> {
        let file = File::open(format!("{DIRECTORY}/{name}")).with_context(|| format!("opening namespace {name}"))?;
        Ok(Self { name: name.into(), file: Arc::new(file) })
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `/run/netns/NAME`.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(DIRECTORY).join(&*self.name)
    }

    /// The open namespace, for setns(2).
    pub fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Runs lines of `ip` inside, as one batch.
    ///
    /// # Errors
    /// When one of the lines fails.
    pub fn ip(&self, lines: &str) -> Result<()> {
        ip(&self.name, lines)
    }

    /// Runs `work` inside, on a thread of its own.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // SAFETY: the descriptor is open; setns changes this thread only, and the thread ends with the work.
                if unsafe { libc::setns(self.fd(), libc::CLONE_NEWNET) } != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(work())
            });
            inside.join().map_err(|_| anyhow!("work inside namespace {} panicked", self.name))?.map_err(Into::into)
        })
    }

    /// Sets `/proc/sys/net/…` entries inside.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                fs::write(format!("/proc/sys/net/{key}"), value).with_context(|| format!("setting net/{key}"))?;
            }
            Ok(())
        })?
    }
}

/// Ends a namespace's name; the namespace goes with its last process and descriptor.
pub fn remove(name: &str) {
    let _gone = ip("", &format!("netns del {name}"));
}

/// Names that begin with `prefix`.
pub fn names(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return Vec::new();
    };
    entries.flatten().filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.starts_with(prefix)).collect()
}

fn ip(namespace: &str, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if !namespace.is_empty() {
        command.args(["-n", namespace]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting ip (Debian package iproute2)")?;
    child.stdin.take().context("ip has a standard input")?.write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip -n {namespace:?}: {}\n{lines}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
