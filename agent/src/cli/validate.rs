//! `weir validate`: what is wrong with manifests by themselves, before anybody applies them.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use weir_mesh::finding::{Finding, Severity};
use weir_mesh::validate;

use super::manifests;

/// Something could not be read, so nothing is known of it.
const UNREADABLE: u8 = 2;

/// Arguments of `weir validate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Manifests: files, directories with everything below them, or - for standard input
    #[arg(required = true, value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// How to print what is wrong
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// A finding, as `--output json` prints it.
#[derive(Debug, Serialize)]
struct Entry<'f> {
    code: &'f str,
    level: String,
    /// `VirtualService shop/web`
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// `file:line:column`
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    message: &'f str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'f str>,
}

/// 0 accepted, 1 rejected, 2 something cannot be read.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let mut findings = Vec::new();
    let mut unreadable = Vec::new();
    manifests::each(&args.files, |manifest| match manifest.text {
        Ok(text) => findings.append(&mut validate::text(&manifest.file, &text).findings),
        Err(why) => unreadable.push(format!("{}: {why}", manifest.file)),
    });
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Text => {
            let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            for finding in &findings {
                writeln!(out, "{}", line(finding, colours)).context("cannot print")?;
            }
        }
        Output::Json => {
            let entries: Vec<Entry<'_>> = findings.iter().map(Entry::of).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&entries)?).context("cannot print")?;
        }
    }
    for problem in &unreadable {
        super::say_error(&anyhow::anyhow!("{problem}"));
    }
    Ok(if !unreadable.is_empty() {
        ExitCode::from(UNREADABLE)
    } else if validate::has_error(&findings) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

impl<'f> Entry<'f> {
    fn of(finding: &'f Finding) -> Self {
        Self {
            code: finding.code,
            level: finding.severity.to_string(),
            origin: finding.object.as_ref().map(ToString::to_string),
            reference: finding.at.as_ref().map(ToString::to_string),
            message: &finding.message,
            help: finding.help.as_deref(),
        }
    }
}

/// `file:line:column: Error [IST0106] (Kind ns/name): path: message; help`
fn line(finding: &Finding, colours: bool) -> String {
    let (start, end) = match (colours, finding.severity) {
        (false, _) => ("", ""),
        (true, Severity::Error) => ("\x1b[1;31m", "\x1b[0m"),
        (true, Severity::Warning) => ("\x1b[1;33m", "\x1b[0m"),
        (true, Severity::Info) => ("\x1b[1;36m", "\x1b[0m"),
    };
    let mut text = String::new();
    let mut put = |part: std::fmt::Arguments<'_>| text.write_fmt(part).expect("a string takes everything");
    if let Some(at) = &finding.at {
        put(format_args!("{at}: "));
    }
    put(format_args!("{start}{} [{}]{end}", finding.severity, finding.code));
    if let Some(object) = &finding.object {
        put(format_args!(" ({object})"));
    }
    put(format_args!(": {}", finding.message));
    if let Some(help) = &finding.help {
        put(format_args!("; {help}"));
    }
    // A user's text may hold a line's end: a reason is one line.
    text.replace(['\n', '\r'], " ")
}
