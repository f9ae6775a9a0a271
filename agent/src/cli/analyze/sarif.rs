//! Findings as SARIF 2.1.0, which code hosts and editors show beside the lines.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use weir_mesh::analysis::catalog;
use weir_mesh::finding::{Finding, Severity};

use super::{Report, render};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The log of one run.
pub(super) fn log(report: &Report) -> Value {
    let rules: Vec<Value> = catalog::all().map(rule).collect();
    let indexes: HashMap<&str, usize> = catalog::all().enumerate().map(|(index, entry)| (entry.code, index)).collect();
    let results: Vec<Value> = report.findings.iter().map(|finding| result(report, finding, &indexes)).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "weir", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(entry: &catalog::Entry) -> Value {
    let mut rule = json!({
        "id": entry.code,
        "name": entry.name,
        "shortDescription": { "text": entry.title },
        "fullDescription": { "text": entry.effect },
        "help": { "text": entry.fix },
        "defaultConfiguration": { "level": level(entry.severity) },
    });
    if let Some(url) = catalog::url(entry.code) {
        rule["helpUri"] = url.into();
    }
    rule
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}

fn result(report: &Report, finding: &Finding, indexes: &HashMap<&str, usize>) -> Value {
    let text = match &finding.help {
        Some(help) => format!("{} ({help})", finding.message),
        None => finding.message.clone(),
    };
    let mut result = json!({
        "ruleId": finding.code,
        "level": level(finding.severity),
        "message": { "text": text },
    });
    if let Some(index) = indexes.get(finding.code) {
        result["ruleIndex"] = (*index).into();
    }
    let mut location = json!({});
    if let Some(at) = &finding.at {
        location["physicalLocation"] = json!({ "artifactLocation": { "uri": uri(&at.file) } });
        if at.line > 0 {
            let mut region = json!({ "startLine": at.line });
            if at.column > 0 {
                region["startColumn"] = at.column.into();
            }
            location["physicalLocation"]["region"] = region;
        }
    }
    let origin = render::origin(report, finding);
    if !origin.is_empty() {
        location["logicalLocations"] = json!([{ "fullyQualifiedName": origin, "kind": "resource" }]);
    }
    result["locations"] = json!([location]);
    result
}

/// A path as a reference: what has a meaning in one is escaped. Writing to a String cannot fail.
fn uri(path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path);
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    if path.starts_with('/') { format!("file://{uri}") } else { uri }
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn paths_become_references() {
        assert_eq!(uri("./a b/c.yaml"), "a%20b/c.yaml");
        assert_eq!(uri("/etc/x#1.yaml"), "file:///etc/x%231.yaml");
    }
}
