//! What people write first, and write wrong first: for each of `manifests/` what `weir validate`, `weir analyze` and `weir
//! explain` say of it, with the place and what to write instead. No root needed.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

mod described;
mod edge;
mod load;
mod services;

/// Finds nothing that a file is refused for.
const ACCEPTED: i32 = 0;
const REFUSED: i32 = 1;

/// The output and the exit code of one call, made where the manifests are.
fn weir(arguments: &[&str], input: &str) -> (String, i32) {
    let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/manifests");
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(arguments).current_dir(manifests).env_remove("KUBECONFIG");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    // One that does not read it may be gone.
    let _gone = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

/// That nothing refuses them.
fn accepts(files: &[&str]) {
    for file in files {
        assert_eq!(weir(&["validate", file], ""), (String::new(), ACCEPTED), "{file}");
    }
}

/// The reasons for which a file is refused.
fn refuses(file: &str) -> Vec<String> {
    let (reasons, code) = weir(&["validate", file], "");
    assert_eq!(code, REFUSED, "{reasons}");
    reasons.lines().map(str::to_owned).collect()
}

/// Findings as `CODE LEVEL OBJECT FILE:LINE:COLUMN: MESSAGE`, but for those that say what this version does not do.
fn analyze(files: &[&str]) -> Vec<String> {
    analyze_with(files, "")
}

/// The same, where `-` is this text.
fn analyze_with(files: &[&str], input: &str) -> Vec<String> {
    let mut found = all_findings(files, input);
    found.retain(|finding| !finding.starts_with("WEIR0002") && !finding.starts_with("WEIR0003"));
    found
}

fn all_findings(files: &[&str], input: &str) -> Vec<String> {
    let (said, _) = weir(&[&["analyze", "-o", "json"], files].concat(), input);
    let records: Vec<Value> = serde_json::from_str(&said).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let told = |record: &Value| {
        let [code, level, origin, place, message] =
            ["code", "level", "origin", "reference", "message"].map(|key| text(&record[key]));
        format!("{code} {level} {origin} {place}:{}: {message}", record["column"])
    };
    records.iter().map(told).collect()
}

/// That there are as many findings, each beginning so.
fn assert_found(found: &[String], beginnings: &[&str]) {
    let all_begin = found.iter().zip(beginnings).all(|(found, beginning)| found.starts_with(beginning));
    assert!(all_begin && found.len() == beginnings.len(), "{found:#?}\n{beginnings:#?}");
}

/// What becomes of a request.
struct Told {
    said: String,
    answered: bool,
}

/// Asks for a URL, with arguments besides: from whom, with which headers.
fn explain(files: &[&str], who: &[&str], url: &str) -> Told {
    let files: Vec<&str> = files.iter().flat_map(|file| ["-f", file]).collect();
    let (said, code) = weir(&[&["explain", "--color", "never"], who, &[url], &files[..]].concat(), "");
    Told { said, answered: code == 0 }
}

impl Told {
    /// That each of these is somewhere in it.
    fn has(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(self.said.contains(part), "no {part:?} in\n{}", self.said);
        }
        self
    }

    /// That it ends so: the verdict.
    fn ends(&self, verdict: &str, answered: bool) {
        let last = self.said.lines().last().unwrap_or_default();
        // Of a Gateway whose ports nobody opens that is said behind it.
        assert!(last.starts_with(verdict), "{}", self.said);
        assert_eq!(self.answered, answered, "{}", self.said);
    }
}
