//! Findings as text for people, and as the records that `istioctl analyze` prints.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::Serialize;
use weir_mesh::analysis::catalog;
use weir_mesh::finding::{Finding, Severity};
use weir_mesh::source::Location;

use super::Report;
use crate::cli::output::plain;

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const BLUE: &str = "\x1b[34m";
/// Of a longer line only the part around the place is shown.
const MAX_LINE: usize = 160;

/// A finding as `istioctl` prints it; the fields after `message` are ours.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    documentation_url: Option<String>,
    level: String,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    origin: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

/// All findings.
pub(super) fn records(report: &Report) -> Vec<Record> {
    let record = |finding: &Finding| Record {
        code: finding.code,
        documentation_url: catalog::url(finding.code),
        level: finding.severity.to_string(),
        message: finding.message.clone(),
        origin: origin(report, finding),
        reference: finding.at.as_ref().map(reference).unwrap_or_default(),
        column: finding.at.as_ref().map(|at| at.column).filter(|column| *column > 0),
        help: finding.help.clone(),
    };
    report.findings.iter().map(record).collect()
}

pub(super) fn origin(report: &Report, finding: &Finding) -> String {
    finding.object.as_ref().map(|object| report.sources.shown(object)).unwrap_or_default()
}

/// `file.yaml:12`
fn reference(at: &Location) -> String {
    if at.line > 0 { format!("{}:{}", at.file, at.line) } else { at.file.to_string() }
}

/// One finding after the other, each with the line that it is about. Writing to a String cannot fail.
pub(super) fn text(report: &Report, colours: bool) -> String {
    let paint = |code: &'static str| if colours { code } else { "" };
    let mut out = String::new();
    let mut lines = Lines::default();
    for finding in &report.findings {
        let colour = match finding.severity {
            Severity::Error => RED,
            Severity::Warning => YELLOW,
            Severity::Info => BLUE,
        };
        let place: Vec<String> = [origin(report, finding), finding.at.as_ref().map(reference).unwrap_or_default()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        let place = if place.is_empty() { String::new() } else { format!(" ({})", plain(&place.join(" "))) };
        let _ = writeln!(
            out,
            "{}{}{}{} [{}]{}{place} {}",
            paint(BOLD),
            paint(colour),
            finding.severity,
            paint(RESET),
            finding.code,
            paint(RESET),
            plain(&finding.message)
        );
        if let Some(quote) = finding.at.as_ref().and_then(|at| lines.quote(report, at)) {
            let (number, line, caret) = quote;
            let _ = writeln!(out, "{}{number:>6} |{} {line}", paint(DIM), paint(RESET));
            let _ = writeln!(out, "{}       |{} {}{caret}^{}", paint(DIM), paint(RESET), paint(colour), paint(RESET));
        }
        if let Some(help) = &finding.help {
            let _ = writeln!(out, "       {}= help:{} {}", paint(BOLD), paint(RESET), plain(help));
        }
    }
    let _ = writeln!(out, "{}", summary(report));
    out
}

/// The lines of the files that findings are about, found once a file: a long file has as many findings as lines.
#[derive(Default)]
struct Lines<'r>(HashMap<&'r str, Vec<&'r str>>);

impl<'r> Lines<'r> {
    /// The line's number, the line, and what is before the caret.
    fn quote(&mut self, report: &'r Report, at: &Location) -> Option<(u32, String, String)> {
        let (file, text) = report.texts.get_key_value(&*at.file)?;
        let lines = self.0.entry(file).or_insert_with(|| text.lines().collect());
        let line: Vec<char> = lines.get(at.line.checked_sub(1)? as usize)?.chars().collect();
        let before = ((at.column.max(1) - 1) as usize).min(line.len());
        let from = before.saturating_sub(MAX_LINE / 2);
        // As wide as it is: what would steer the terminal is left out, or the caret would not fit.
        let seen = |c: &char| {
            if *c == '\t' || *plain(c.encode_utf8(&mut [0; 4])) == *c.encode_utf8(&mut [0; 4]) { *c } else { '·' }
        };
        let shown: String = line.iter().skip(from).take(MAX_LINE).map(seen).collect();
        // A tab moves the caret as far as it moves the text.
        let caret = line[from..before].iter().map(|c| if *c == '\t' { '\t' } else { ' ' }).collect();
        Some((at.line, shown, caret))
    }
}

fn summary(report: &Report) -> String {
    let count = |severity: Severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let kinds = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Info, "note")];
    let counted: Vec<String> = kinds
        .into_iter()
        .map(|(severity, name)| (count(severity), name))
        .filter(|(n, _)| *n > 0)
        .map(|(n, name)| format!("{n} {name}{}", if n == 1 { "" } else { "s" }))
        .collect();
    let objects = report.sources.len();
    let objects = format!("{objects} object{}", if objects == 1 { "" } else { "s" });
    let mut said = if counted.is_empty() {
        format!("Nothing found in {objects}.")
    } else {
        format!("{} in {objects}. `weir analyze --list-analyzers` explains the codes.", counted.join(", "))
    };
    if report.lacks_services {
        said.push_str("\nNo Service is among them: with --kubernetes the rest is looked for in a cluster.");
    }
    said
}

/// Every code with what it means.
pub(super) fn codes() -> String {
    let mut out = String::new();
    for entry in catalog::all() {
        let _ = writeln!(out, "{:<9} {:<8} {}", entry.code, entry.severity.to_string(), entry.title);
    }
    let _ = writeln!(out, "\nIstio's codes that nothing here is told of by:");
    for (codes, why) in catalog::markdown::NOT_HERE {
        let _ = writeln!(out, "{codes}: {why}");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::analyze::sarif;
    use weir_mesh::analysis::Sources;
    use weir_mesh::finding::code;
    use weir_mesh::source::ObjectRef;

    /// A file of so many lines with a finding on each.
    fn report(lines: u32) -> Report {
        let (file, object) = (
            "web.yaml",
            ObjectRef {
                kind: "VirtualService".into(),
                group: "networking.istio.io".into(),
                namespace: "shop".into(),
                name: "web".into(),
            },
        );
        let finding = |line| Finding {
            severity: Severity::Info,
            code: code::LONE_WEIGHT,
            object: Some(object.clone()),
            at: Some(Location { file: file.into(), line, column: 3 }),
            message: "a message".to_owned(),
            help: None,
        };
        let lines_of_text: Vec<String> = (1..=lines).map(|line| format!("- line {line} of the file")).collect();
        Report {
            sources: Sources::default(),
            findings: (1..=lines).map(finding).collect(),
            texts: [(file.to_owned(), lines_of_text.join("\n"))].into(),
            notes: Vec::new(),
            lacks_services: false,
        }
    }

    /// CPU time of this thread: the machine may be busy with others.
    fn cpu_time() -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is valid for writes; the clock exists on every Linux.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    /// The least of several runs.
    fn least(mut work: impl FnMut() -> usize) -> Duration {
        let run = |_| {
            let before = cpu_time();
            assert!(work() > 0);
            cpu_time().saturating_sub(before)
        };
        (0..5).map(run).min().unwrap()
    }

    #[test]
    fn each_finding_quotes_its_line() {
        let shown = text(&report(3), false);
        assert!(shown.contains("     2 | - line 2 of the file\n       |   ^\n"), "{shown}");
    }

    #[test]
    fn eight_times_the_findings_of_a_file_take_eight_times_the_work() {
        type Print = fn(&Report) -> usize;
        let prints: [(&str, Print); 3] = [
            ("text", |report| text(report, false).len()),
            ("JSON", |report| serde_json::to_string_pretty(&records(report)).unwrap().len()),
            ("SARIF", |report| sarif::log(report).to_string().len()),
        ];
        let (few, many) = (report(1_000), report(8_000));
        for (name, print) in prints {
            let (few, many) = (least(|| print(&few)), least(|| print(&many)));
            // Work that grew with the square would be 64 times as much.
            assert!(many <= few * 24, "{name}: {many:?} for 8,000 findings, {few:?} for 1,000");
        }
    }
}
