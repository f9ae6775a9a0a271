//! What the agent says about itself: its log, and where access log lines go.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

/// Access log lines that may wait for their writer: a tenth of a second at full speed. Above it they are dropped and
/// counted, since a slow disk must not slow requests.
const ACCESS_LOG_QUEUE: usize = 8192;

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

/// Starts the writer of the access log; `None` when it is off.
///
/// # Errors
/// When the file cannot be opened.
pub fn access_log(to: Option<&Path>) -> Result<Option<mpsc::Sender<String>>> {
    let Some(path) = to else { return Ok(None) };
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("access log {}", path.display()))?;
    let (sender, receiver) = mpsc::channel(ACCESS_LOG_QUEUE);
    std::thread::Builder::new().name("weir-access-log".into()).spawn(|| write_lines(receiver, file))?;
    Ok(Some(sender))
}

/// One write for all lines that wait.
fn write_lines(mut lines: mpsc::Receiver<String>, mut out: File) {
    let mut batch = Vec::new();
    while lines.blocking_recv_many(&mut batch, 256) > 0 {
        let text = batch.concat();
        if let Err(error) = out.write_all(text.as_bytes()) {
            tracing::error!(%error, lines = batch.len(), "access log lines are lost");
        }
        batch.clear();
    }
}
