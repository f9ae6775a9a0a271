//! `weir validate`: what is wrong with manifests by themselves, before anybody applies them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use weir_mesh::finding::{Finding, Severity};
use weir_mesh::validate;

use super::{Colour, manifests, output};

const ACCEPTED: u8 = 0;
const REJECTED: u8 = 1;
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
    let (code, text) = check(args, Colour::Auto.is_on())?;
    output::print(&text)?;
    Ok(ExitCode::from(code))
}

fn check(args: &Args, colours: bool) -> Result<(u8, String)> {
    let mut findings = Vec::new();
    let mut unreadable = Vec::new();
    let mut empty = true;
    manifests::each(&args.files, |manifest| match manifest.text {
        Ok(text) => {
            empty &= text.trim().is_empty();
            findings.append(&mut validate::text(&manifest.file, &text).findings);
        }
        Err(why) => unreadable.push(format!("{}: {why}", manifest.file)),
    });
    let text = match args.output {
        Output::Text => findings.iter().map(|finding| line(finding, colours) + "\n").collect(),
        Output::Json => {
            let entries: Vec<Entry<'_>> = findings.iter().map(Entry::of).collect();
            serde_json::to_string_pretty(&entries)? + "\n"
        }
    };
    for problem in &unreadable {
        super::say_error(&anyhow::anyhow!("{problem}"));
    }
    if empty && unreadable.is_empty() {
        // A wrong path, or a command before a pipe that failed, must not look like manifests without a fault.
        let names: Vec<String> = args.files.iter().map(|file| file.display().to_string()).collect();
        super::say_error(&anyhow::anyhow!("{}: there is no manifest (.yaml, .yml, .json)", names.join(", ")));
    }
    let code = match (unreadable.is_empty(), validate::has_error(&findings)) {
        (false, _) => UNREADABLE,
        (true, true) => REJECTED,
        (true, false) => ACCEPTED,
    };
    Ok((code, text))
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
    let plain = output::plain;
    let mut text = String::new();
    let mut put = |part: std::fmt::Arguments<'_>| text.write_fmt(part).expect("a string takes everything");
    if let Some(at) = &finding.at {
        put(format_args!("{}: ", plain(&at.to_string())));
    }
    put(format_args!("{start}{} [{}]{end}", finding.severity, finding.code));
    if let Some(object) = &finding.object {
        put(format_args!(" ({})", plain(&object.to_string())));
    }
    put(format_args!(": {}", plain(&finding.message)));
    if let Some(help) = &finding.help {
        put(format_args!("; {}", plain(help)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: x}\nspec: {host: a}\n";

    fn outcome(files: &[&std::path::Path], output: Output) -> (u8, String) {
        let args = Args { files: files.iter().map(|file| (*file).to_owned()).collect(), output };
        check(&args, false).expect("it can be written down")
    }

    #[test]
    fn a_directory_is_read_to_its_end_and_every_reason_is_one_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("deeper")).expect("a directory");
        std::fs::write(at("good.yaml"), GOOD).expect("written");
        assert_eq!(outcome(&[directory.path()], Output::Text), (ACCEPTED, String::new()));

        std::fs::write(at("deeper/bad.yml"), GOOD.replace("host: a", "host: a_b, hots: 1")).expect("written");
        std::fs::write(at("warned.json"), r#"{"apiVersion": "networking.istio.io/v1", "kind": "Gateway"}"#)
            .expect("written");
        std::fs::write(at(".hidden.yaml"), "[").expect("written");
        std::fs::write(at("notes.txt"), "[").expect("written");
        let (code, said) = outcome(&[directory.path()], Output::Text);
        let bad = at("deeper/bad.yml");
        let wanted = [
            format!(
                "{}:4:14: Error [IST0106] (DestinationRule default/x): `spec.host`: `a_b` is no host name: `a_b` is no DNS label",
                bad.display()
            ),
            format!(
                "{}:4:19: Error [IST0106] (DestinationRule default/x): `spec.hots`: there is no such field; did you mean spec.host?",
                bad.display()
            ),
            format!("{}:1:1: Error [IST0106]: `metadata`: must be given", at("warned.json").display()),
            format!("{}:1:1: Error [IST0106]: `spec`: must be given", at("warned.json").display()),
        ];
        assert_eq!(said.lines().collect::<Vec<_>>(), wanted, "{said}");
        assert_eq!(code, REJECTED);
    }

    #[test]
    fn what_cannot_be_read_is_no_verdict() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = directory.path().join("missing.yaml");
        assert_eq!(outcome(&[&missing], Output::Text).0, UNREADABLE);
        let binary = directory.path().join("binary.yaml");
        std::fs::write(&binary, [0xff, 0xfe, 0]).expect("written");
        assert_eq!(outcome(&[&binary], Output::Text).0, UNREADABLE);
    }

    #[test]
    fn json_holds_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("a.yaml");
        std::fs::write(&file, GOOD.replace("host: a", "hots: a")).expect("written");
        let (code, said) = outcome(&[&file], Output::Json);
        let entries: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(code, REJECTED);
        assert_eq!(entries[1]["origin"], "DestinationRule default/x");
        assert_eq!(entries[1]["level"], "Error");
        assert_eq!(entries[1]["help"], "did you mean spec.host?");
        assert_eq!(entries[1]["reference"], format!("{}:4:8", file.display()));
    }
}
