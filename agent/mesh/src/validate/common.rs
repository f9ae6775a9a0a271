//! Rules that several kinds share.

use std::collections::BTreeSet;

use super::at::{At, Report};
use super::names::{fqdn, is_header_name, is_label, is_label_key, is_label_value, is_subnet, wildcard_domain};
use crate::crd::check_regex;

/// Ports, which the schema knows as 32 bits only.
pub(super) fn port(report: &mut Report<'_>, map: &At<'_>, key: &str) {
    if let Some(number) = map.int(key)
        && !(1..=65535).contains(&number)
    {
        report.field(map, key, format!("must be between 1 and 65535, is {number}"));
    }
}

/// A percentage in whole numbers.
pub(super) fn percent(report: &mut Report<'_>, map: &At<'_>, key: &str) {
    if let Some(value) = map.int(key)
        && !(0..=100).contains(&value)
    {
        report.field(map, key, format!("must be between 0 and 100, is {value}"));
    }
}

/// `{value: …}` with a resolution of a millionth. `zero_or_more` allows any small value.
pub(super) fn percentage(report: &mut Report<'_>, map: &At<'_>, key: &str, zero_or_more: bool) {
    let Some(value) = map.get(key).and_then(|p| p.float("value").map(|value| (p, value))) else {
        return;
    };
    let (at, value) = value;
    if !(0.0..=100.0).contains(&value) || !zero_or_more && value > 0.0 && value < 0.0001 {
        let least = if zero_or_more { "between 0 and 100" } else { "0, or between 0.0001 and 100" };
        report.field(&at, "value", format!("must be {least}, is {value}"));
    }
}

/// Counts that must not be negative.
pub(super) fn counts(report: &mut Report<'_>, map: &At<'_>, keys: &[&str]) {
    for key in keys {
        if let Some(value) = map.int(key)
            && value < 0
        {
            report.field(map, key, format!("must not be negative, is {value}"));
        }
    }
}

/// A host, with a `*` as its first label or without.
pub(super) fn wildcard_host(report: &mut Report<'_>, at: &At<'_>) {
    if let Err(why) = wildcard_domain(at.str()) {
        report.error(at, why);
    }
}

/// Labels of pods.
pub(super) fn labels(report: &mut Report<'_>, map: &At<'_>, key: &str) {
    for (name, value) in map.entries(key) {
        if !is_label_key(name) {
            report.error(&value, "is no key of a label");
        }
        if !is_label_value(value.str()) {
            report.error(&value, format!("`{}` is no value of a label", value.str()));
        }
    }
}

/// A selector whose labels are in `key`. One without labels selects everything, which is worth a warning.
pub(super) fn selector(report: &mut Report<'_>, spec: &At<'_>, field: &str, key: &str) {
    let Some(selector) = spec.get(field) else {
        return;
    };
    let labels = selector.entries(key);
    if labels.is_empty() {
        report.warn(&selector, "selects every workload, as it has no labels");
    }
    for (name, value) in labels {
        if name.is_empty() {
            report.error(&value, "the key of a label must not be empty");
        }
        if name.contains('*') || value.str().contains('*') {
            report.error(&value, "a selector takes no `*`");
        }
    }
}

/// What `exportTo` may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Export {
    /// Namespaces, `.` or `*`.
    Any,
    /// `~`, nobody, as well.
    OrNobody,
    /// The object's own namespace only, because it has a selector.
    OwnOnly,
}

/// `exportTo`: no entry twice, nothing beside `*` or `~`.
pub(super) fn export_to(report: &mut Report<'_>, spec: &At<'_>, export: Export) {
    let own = report.namespace();
    let entries = spec.items("exportTo");
    let mut seen = BTreeSet::new();
    for entry in &entries {
        let written = entry.str();
        let name = if written == "." { own } else { written };
        if !seen.insert(name) {
            report.error(entry, format!("`{written}` is there twice"));
            continue;
        }
        match written {
            "*" | "." => {}
            "~" if export == Export::OrNobody => {}
            "~" => {
                report.error(entry, "only a ServiceEntry can be exported to nobody");
            }
            _ if is_label(written) => {}
            _ => {
                report.error(entry, format!("`{written}` must be `.`, `*` or a namespace"));
            }
        }
        if export == Export::OwnOnly && name != own {
            report.error(entry, "a rule with a workloadSelector is for its own namespace only: `.`");
        }
    }
    if entries.len() > 1
        && let Some(alone) = entries.iter().find(|e| matches!(e.str(), "*" | "~"))
    {
        report.error(alone, format!("`{}` must be the only entry", alone.str()));
    }
}

/// Names of gateways: `mesh`, `name` or `namespace/name`.
pub(super) fn gateways(report: &mut Report<'_>, map: &At<'_>) {
    for gateway in map.items("gateways") {
        let name = gateway.str();
        match name.split_once('/') {
            Some((namespace, name)) => {
                for part in [namespace, name] {
                    if !is_label(part) {
                        let message = format!("`{}`: `{part}` is no name; it must be `namespace/name`", gateway.str());
                        report.error(&gateway, message);
                    }
                }
            }
            None => {
                if let Err(why) = fqdn(name) {
                    report.error(&gateway, why);
                } else if let Some((name, rest)) = name.split_once('.') {
                    let namespace = rest.split('.').next().unwrap_or(rest);
                    report.warn(&gateway, "this way to name a gateway is outdated").help =
                        Some(format!("write `{namespace}/{name}`"));
                }
            }
        }
    }
}

/// `{exact | prefix | regex}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matching {
    /// An empty prefix matches everything, which is allowed for paths only.
    Path,
    /// `regex: "*"` says that it is there at all.
    Presence,
    Plain,
}

/// A string match; `value` is where it stands.
pub(super) fn string_match(report: &mut Report<'_>, value: &At<'_>, matching: Matching) {
    if let Some(prefix) = value.get("prefix")
        && prefix.str().is_empty()
        && matching != Matching::Path
    {
        report.error(&prefix, "must not be empty");
    }
    if let Some(pattern) = value.get("regex")
        && !(matching == Matching::Presence && pattern.str() == "*")
    {
        regex(report, &pattern);
    }
}

/// A regular expression of at most 1024 bytes.
pub(super) fn regex(report: &mut Report<'_>, at: &At<'_>) {
    if at.str().is_empty() {
        report.error(at, "must not be empty");
    } else if let Err(why) = check_regex(at.str()) {
        report.error(at, why);
    }
}

/// Whether a header is one of a request that is being set or added, for which the authority is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    SetOrAdd,
    Other,
}

/// `headers`: what is set, added and removed in requests and responses.
pub(super) fn header_operations(report: &mut Report<'_>, map: &At<'_>) {
    let Some(headers) = map.get("headers") else {
        return;
    };
    for side in ["request", "response"] {
        let Some(operations) = headers.get(side) else {
            continue;
        };
        let operation = if side == "request" { Operation::SetOrAdd } else { Operation::Other };
        for (name, value) in operations.entries("set").into_iter().chain(operations.entries("add")) {
            header_to_change(report, &value, name, operation);
            if let Err(why) = header_format(value.str()) {
                report.error(&value, why);
            }
        }
        for name in operations.items("remove") {
            header_to_change(report, &name, name.str(), Operation::Other);
        }
    }
}

fn header_to_change(report: &mut Report<'_>, at: &At<'_>, name: &str, operation: Operation) {
    let authority = is_authority(name);
    if name.is_empty() {
        report.error(at, "the name of a header must not be empty");
    } else if name.starts_with(':') && !(authority && operation == Operation::SetOrAdd) {
        report.error(at, format!("`{name}` cannot be changed: it begins with `:`"));
    } else if authority && operation == Operation::Other {
        report.error(at, "the Host header can only be set in requests");
    }
}

/// The header that names the host.
pub(super) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

/// Header values are formats: `%NAME%` and `%NAME(arguments):length%` are replaced, `%%` is a percent sign.
fn header_format(value: &str) -> Result<(), String> {
    if value.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
        return Err("a header's value must not hold control characters".to_owned());
    }
    let open = |rest: &str| format!("`%` at `%{rest}` begins no `%NAME%`; write `%%` for a percent sign");
    let mut rest = value;
    while let Some(start) = rest.find('%') {
        let after = &rest[start + 1..];
        if let Some(literal) = after.strip_prefix('%') {
            rest = literal;
            continue;
        }
        let name = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
        let mut tail = &after[name..];
        if name == 0 {
            return Err(open(after));
        }
        if tail.starts_with('(') {
            let close = closing(tail).ok_or_else(|| open(after))?;
            tail = &tail[close + 1..];
        }
        if let Some(length) = tail.strip_prefix(':') {
            tail = length.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        rest = tail.strip_prefix('%').ok_or_else(|| open(after))?;
    }
    Ok(())
}

/// The parenthesis that closes the first one; those in quotes do not count.
fn closing(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut depth = 0_usize;
    for (index, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// Names of headers in a list; `*` where all may be meant.
pub(super) fn header_names(report: &mut Report<'_>, map: &At<'_>, key: &str) {
    for name in map.items(key) {
        if name.str() != "*" && !is_header_name(name.str()) {
            report.error(&name, format!("`{}` is no name of a header", name.str()));
        }
    }
}

/// Addresses or ranges in a list.
pub(super) fn subnets(report: &mut Report<'_>, map: &At<'_>, key: &str) {
    for subnet in map.items(key) {
        if !subnet.str().is_empty() && !is_subnet(subnet.str()) {
            report.error(&subnet, format!("`{}` must be an IP address or a range such as 10.0.0.0/8", subnet.str()));
        }
    }
}

/// A selector, or targets, and not both; each target one that a policy can be attached to.
pub(super) fn selector_or_targets(report: &mut Report<'_>, spec: &At<'_>) {
    let given = spec.given(&["selector", "targetRef", "targetRefs"]);
    if given.len() > 1 {
        report.error(spec, format!("only one of {} may be given", given.join(" and ")));
    }
    selector(report, spec, "selector", "matchLabels");
    for target in spec.get("targetRef").into_iter().chain(spec.items("targetRefs")) {
        if target.text("name").is_empty() {
            report.field(&target, "name", "must be given");
        }
        if !target.text("namespace").is_empty() {
            report.field(&target, "namespace", "a policy is attached to targets of its own namespace only").help =
                Some("leave it out".to_owned());
        }
        let (group, kind) = (target.text("group"), target.text("kind"));
        let known = matches!(
            (group, kind),
            ("" | "core", "Service")
                | ("networking.istio.io", "ServiceEntry")
                | ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
        );
        if !known {
            let help = match kind {
                "ServiceEntry" => Some("group: networking.istio.io"),
                "Gateway" | "GatewayClass" => Some("group: gateway.networking.k8s.io"),
                "Service" => Some("group: \"\""),
                _ => None,
            };
            let what = if group.is_empty() { kind.to_owned() } else { format!("{kind} of {group}") };
            let message =
                format!("must be a Service, a ServiceEntry, a Gateway or a GatewayClass, and {what} is none of them");
            report.error(&target, message).help = help.map(|help| format!("write {help}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::header_format;

    #[test]
    fn formats_of_header_values() {
        for value in
            ["", "a b", "%HOSTNAME%", "100%%", "a %REQ(x-y):10% b", "%START_TIME(%Y-%m)%", "%M([\"a\", \")\"])%"]
        {
            assert_eq!(header_format(value), Ok(()), "{value}");
        }
        for value in ["abc%123", "100%", "%START_TIME%%", "%REQ(a%", "% %", "a\u{1}"] {
            assert!(header_format(value).is_err(), "{value}");
        }
    }
}
