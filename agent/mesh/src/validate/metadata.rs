//! `metadata` of every kind that is checked: names and labels as every API server asks for them.

use super::at::{At, Report};
use super::names::{is_label_key, is_label_value};

/// Bytes of a namespace, which is one label of a DNS name.
const MAX_LABEL: usize = 63;

pub(super) fn rules(report: &mut Report<'_>, root: &At<'_>) {
    let Some(metadata) = root.get("metadata") else {
        return;
    };
    let name = metadata.text("name");
    if !name.is_empty() && !is_name(name) {
        let message =
            format!("`{name}` is no name: small letters, digits, `-` and `.`, with a letter or digit at each end");
        report.field(&metadata, "name", message);
    }
    let namespace = metadata.text("namespace");
    if !namespace.is_empty() && !is_namespace(namespace) {
        let message = format!(
            "`{namespace}` is no namespace: up to {MAX_LABEL} small letters, digits and `-`, with a letter or digit at each end"
        );
        report.field(&metadata, "namespace", message);
    }
    for (key, value) in metadata.entries("labels") {
        if !is_label_key(key) {
            report.error(&value, "is no key of a label");
        } else if !is_label_value(value.str()) {
            report.error(&value, format!("`{}` is no value of a label", value.str()));
        }
    }
}

fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        let ends = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        ends(part.as_bytes().first())
            && ends(part.as_bytes().last())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(part)
}

fn is_namespace(name: &str) -> bool {
    name.len() <= MAX_LABEL && !name.contains('.') && is_name(name)
}
