//! What the agent says about itself: its log, and where access log lines go.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

/// What may wait for the writer of the access log, in pieces of some 32 KiB: together 4 MiB, or half a second at full speed. Only
/// lines with texts of many KiB make longer ones. Above it lines are dropped and counted, since a slow disk must not slow requests.
const ACCESS_LOG_QUEUE: usize = 128;
/// How long the agent's end waits for what is still to be written: as much as may wait takes a disk a tenth of it.
const ACCESS_LOG_ENDS_WITHIN: Duration = Duration::from_secs(1);
/// How often it looks.
const ACCESS_LOG_POLL: Duration = Duration::from_millis(2);

/// Environment variable that sets the level, in `tracing`'s filter syntax.
pub const LOG_VARIABLE: &str = "WEIR_LOG";

/// aya reports every map and relocation at debug: noise while looking for one's own records.
const DEFAULT_FILTER: &str = "info,aya=warn,aya_obj=warn";

/// The records of the kernel programs, which are all at debug. Their crate's binary has our name, and this module.
const KERNEL_RECORDS: &str = "weir::programs=debug";

/// Sends the log to standard error, the kernel programs' records with it when they were asked for. A second call does
/// nothing (tests start several agents in one process).
pub fn init_logging(json: bool, kernel_log: bool) {
    let filter = EnvFilter::new(filter(std::env::var(LOG_VARIABLE).ok(), kernel_log));
    // Colours are for people: in a file or a container's log they are noise.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
}

/// The user's filter, else the default; a user who asks for the kernel's log need not know its target.
fn filter(users: Option<String>, kernel_log: bool) -> String {
    let valid = users.filter(|text| EnvFilter::try_new(text).is_ok());
    let mut filter = valid.unwrap_or_else(|| DEFAULT_FILTER.to_owned());
    if kernel_log {
        // First, so that the user's own word on this target wins.
        filter = format!("{KERNEL_RECORDS},{filter}");
    }
    filter
}

/// The thread that writes the access log.
#[derive(Debug)]
pub struct AccessLog {
    writer: JoinHandle<()>,
}

impl AccessLog {
    /// Waits until everything is written, but not for a disk that hangs. Senders must be gone.
    pub fn finish(self) {
        let started = Instant::now();
        while !self.writer.is_finished() {
            if started.elapsed() > ACCESS_LOG_ENDS_WITHIN {
                tracing::error!(within = ?ACCESS_LOG_ENDS_WITHIN, "the access log is not done: its last lines may be lost");
                return;
            }
            std::thread::sleep(ACCESS_LOG_POLL);
        }
    }
}

/// Starts the writer of the access log. The sender takes whole lines, any number at once.
///
/// # Errors
/// When the file cannot be opened.
pub fn access_log(path: &Path) -> Result<(mpsc::Sender<String>, AccessLog)> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("access log {}", path.display()))?;
    let (sender, receiver) = mpsc::channel(ACCESS_LOG_QUEUE);
    let writer = std::thread::Builder::new().name("weir-access-log".into()).spawn(|| write(receiver, file))?;
    Ok((sender, AccessLog { writer }))
}

fn write(mut waiting: mpsc::Receiver<String>, mut out: File) {
    while let Some(lines) = waiting.blocking_recv() {
        if let Err(error) = out.write_all(lines.as_bytes()) {
            tracing::error!(%error, lines = lines.lines().count(), "access log lines are lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_written_when_it_has_finished() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        std::fs::write(&path, "before\n").unwrap();
        let (sender, log) = access_log(&path).unwrap();
        (0..100).for_each(|n| sender.try_send(format!("{n}\nagain\n")).unwrap());
        drop(sender);
        log.finish();
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written.lines().count(), 201);
        assert!(written.starts_with("before\n0\nagain\n1\n") && written.ends_with("99\nagain\n"));
    }
}
