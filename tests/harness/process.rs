//! Processes inside a pod: network namespace and cgroup are entered between fork and exec. Used by [`crate::mesh`],
//! [`crate::agent`] and [`crate::load`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cgroup;
use crate::netns::NetNs;

/// How much of a log is shown when a test fails.
const LOG_TAIL_LINES: usize = 60;

/// Where a process runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its network namespace.
    pub netns: NetNs,
    /// Its v2 cgroup.
    pub cgroup: PathBuf,
    /// False: it dies with the thread that started it, however that ends. True: it may outlive us (a kept demo).
    pub outlives: bool,
}

impl Place {
    /// Has `command` enter this place before it executes.
    ///
    /// # Errors
    /// When the cgroup is not there.
    pub fn prepare(&self, command: &mut Command) -> Result<()> {
        let door: File = cgroup::door(&self.cgroup)?;
        let (netns, outlives) = (self.netns.clone(), self.outlives);
        command.process_group(0);
        // SAFETY: between fork and exec only system calls on descriptors that the closure owns; no allocation.
        unsafe {
            command.pre_exec(move || {
                if libc::write(door.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1
                    || libc::setns(netns.fd(), libc::CLONE_NEWNET) != 0
                    || (!outlives && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0)
                {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        Ok(())
    }
}

/// A running process that is killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: Option<PathBuf>,
    keep: bool,
}

impl Process {
    /// Starts `command` in `place`, with standard output and error going to the file `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(place: &Place, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log).with_context(|| format!("{}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut process = Self::start(place, command)?;
        process.log = Some(log.to_path_buf());
        Ok(process)
    }

    /// Starts `command` in `place` with its standard input and output in our hands.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn piped(place: &Place, mut command: Command) -> Result<(Self, ChildStdin, ChildStdout)> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Self::start(place, command)?;
        let input = process.child.stdin.take().context("standard input is piped")?;
        let output = process.child.stdout.take().context("standard output is piped")?;
        Ok((process, input, output))
    }

    fn start(place: &Place, mut command: Command) -> Result<Self> {
        place.prepare(&mut command)?;
        let child = command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self { child, log: None, keep: place.outlives })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a signal (`libc::SIG…`).
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        // SAFETY: plain kill(2) of a child that has not been reaped.
        if unsafe { libc::kill(self.pid(), signal) } != 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("signal {signal} to {}", self.pid()));
        }
        Ok(())
    }

    /// Waits until every thread has stopped after a SIGSTOP, which the signal itself does not do.
    ///
    /// # Errors
    /// When one still runs after that time, or the process is gone.
    pub fn await_stopped(&self, within: Duration) -> Result<()> {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid()));
        let started = Instant::now();
        loop {
            let mut running = 0;
            for task in fs::read_dir(&tasks).with_context(|| format!("reading {}", tasks.display()))? {
                let status = fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
                // The state follows the name, which is in parentheses and may hold any of them.
                running += i32::from(!status.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')));
            }
            if running == 0 {
                return Ok(());
            }
            if started.elapsed() > within {
                bail!("{running} threads of {} run {within:?} after SIGSTOP", self.pid());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end within the time.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if started.elapsed() > within {
                bail!("process {} did not end within {within:?}", self.pid());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }

    /// Kills it when dropped, wherever it was placed.
    pub fn end_with_us(&mut self) {
        self.keep = false;
    }

    /// Leaves it running when dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(log) = &self.log
        {
            show_tail(log);
        }
        if !self.keep {
            self.kill();
        }
    }
}

/// Prints the end of a log to standard error: a failed test must show what its processes said.
pub fn show_tail(log: &Path) {
    let Ok(text) = fs::read_to_string(log) else {
        return;
    };
    if text.trim().is_empty() {
        return;
    }
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
    let _closed = writeln!(io::stderr(), "--- end of {}\n{tail}\n---", log.display());
}

/// Runs `command` in `place` to its end and gives its standard output.
///
/// # Errors
/// When it cannot be started or fails; the error has what it said.
pub fn output(place: &Place, mut command: Command) -> Result<String> {
    place.prepare(&mut command)?;
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
