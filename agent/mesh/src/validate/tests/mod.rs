//! The rules, one small object each: accepted, or refused with the path that is at fault.

use super::*;

mod gateway_api;
mod networking;
mod objects;
mod properties;
mod security;
mod virtual_service;

const NETWORKING: &str = "networking.istio.io/v1";
const SECURITY: &str = "security.istio.io/v1";

/// What is said of an object of this kind and spec, one line each, Errors with `!` before the path and Warnings
/// with `?`.
fn said(api_version: &str, kind: &str, spec: &str) -> Vec<String> {
    let text =
        format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\nspec: {spec}\n");
    lines(&text)
}

fn lines(text: &str) -> Vec<String> {
    let checked = super::text(&"f.yaml".into(), text);
    checked
        .findings
        .iter()
        .map(|finding| {
            let sign = if finding.severity == Severity::Error { '!' } else { '?' };
            let help = finding.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
            format!("{sign}{}{help}", finding.message).replace('`', "")
        })
        .collect()
}

/// Each spec, and what its only finding begins with; an empty text for a spec that is accepted without a word.
fn table(api_version: &str, kind: &str, rows: &[(&str, &str)]) {
    for (spec, wanted) in rows {
        let found = said(api_version, kind, spec);
        if wanted.is_empty() {
            assert_eq!(found, [""; 0], "{kind} {spec}");
        } else {
            assert!(
                found.len() == 1 && found[0].starts_with(wanted),
                "{kind} {spec}\n wanted {wanted}\n found {found:#?}"
            );
        }
    }
}
