//! AuthorizationPolicy: whom it selects, and what its rules say of sources, operations and conditions.

use super::at::{At, Report};
use super::common;
use super::names::is_subnet;

const DRY_RUN: &str = "istio.io/dry-run";

const SOURCE: &[&str] = &[
    "principals",
    "notPrincipals",
    "requestPrincipals",
    "notRequestPrincipals",
    "namespaces",
    "notNamespaces",
    "serviceAccounts",
    "notServiceAccounts",
    "trustDomains",
    "notTrustDomains",
    "ipBlocks",
    "notIpBlocks",
    "remoteIpBlocks",
    "notRemoteIpBlocks",
];
/// Of a source, what only HTTP tells; the rest is known of every connection.
const SOURCE_HTTP: &[&str] = &["requestPrincipals", "notRequestPrincipals"];
const SOURCE_ADDRESSES: &[&str] = &["ipBlocks", "notIpBlocks", "remoteIpBlocks", "notRemoteIpBlocks"];
const OPERATION: &[&str] = &["hosts", "notHosts", "ports", "notPorts", "methods", "notMethods", "paths", "notPaths"];
/// Identities that an external authorizer is not given: a CUSTOM rule cannot ask for them.
const NOT_FOR_CUSTOM: &[&str] = &[
    "principals",
    "notPrincipals",
    "requestPrincipals",
    "notRequestPrincipals",
    "namespaces",
    "notNamespaces",
    "serviceAccounts",
    "notServiceAccounts",
];

/// What `when[].key` may be, and how its values look.
const KEYS: &[(&str, Values)] = &[
    ("source.ip", Values::Addresses),
    ("remote.ip", Values::Addresses),
    ("source.namespace", Values::Any),
    ("source.principal", Values::Any),
    ("source.serviceAccount", Values::Any),
    ("source.trustDomain", Values::Any),
    ("request.auth.principal", Values::Any),
    ("request.auth.audiences", Values::Any),
    ("request.auth.presenter", Values::Any),
    ("destination.ip", Values::Addresses),
    ("destination.port", Values::Ports),
    ("connection.sni", Values::Any),
];
/// Keys with a name in brackets after them.
const KEYED: &[&str] = &["request.headers", "request.auth.claims", "experimental.envoy.filters."];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    Any,
    Addresses,
    Ports,
}

pub(super) fn rules(report: &mut Report<'_>, root: &At<'_>, spec: Option<&At<'_>>) {
    let action = match spec.map_or("", |spec| spec.text("action")) {
        "" => "ALLOW",
        given => given,
    };
    dry_run(report, root, action);
    let Some(spec) = spec else {
        return;
    };
    common::selector_or_targets(report, spec);
    let rules = spec.items("rules");
    match action {
        "CUSTOM" if spec.get("provider").is_some_and(|provider| !provider.text("name").is_empty()) => {}
        "CUSTOM" => {
            report.field(spec, "provider.name", "must be given for CUSTOM");
        }
        _ if spec.has("provider") => {
            report.field(spec, "provider", format!("is for CUSTOM only, not for {action}"));
        }
        _ => {}
    }
    if matches!(action, "DENY" | "CUSTOM") && spec.items("rules").is_empty() {
        let message = format!("{action} without rules does nothing");
        report.field(spec, "rules", message).help = Some("write `rules: [{}]` for every request".to_owned());
    }
    for rule in &rules {
        self::rule(report, rule, action);
    }
}

/// The annotation by which a policy is tried without being in force. No other kind takes it.
pub(super) fn no_dry_run(report: &mut Report<'_>, root: &At<'_>) {
    if let Some(annotation) = annotation(root, DRY_RUN) {
        report.error(&annotation, "is for AuthorizationPolicies only");
    }
}

fn dry_run(report: &mut Report<'_>, root: &At<'_>, action: &str) {
    let Some(annotation) = annotation(root, DRY_RUN) else {
        return;
    };
    if !matches!(action, "ALLOW" | "DENY") {
        report.error(&annotation, format!("is for ALLOW and DENY only, not for {action}"));
    } else if !matches!(
        annotation.str(),
        "1" | "t" | "T" | "TRUE" | "true" | "True" | "0" | "f" | "F" | "FALSE" | "false" | "False"
    ) {
        report.error(&annotation, format!("`{}` must be \"true\" or \"false\"", annotation.str()));
    }
}

fn annotation<'n>(root: &At<'n>, name: &str) -> Option<At<'n>> {
    let annotations = root.get("metadata")?.entries("annotations");
    annotations.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn rule(report: &mut Report<'_>, rule: &At<'_>, action: &str) {
    for side in ["from", "to"] {
        if rule.get(side).is_some_and(|list| list.is_empty()) {
            report.field(rule, side, "must not be empty").help = Some("leave it out".to_owned());
        }
    }
    let (from, to) = (rule.items("from"), rule.items("to"));
    let mut beyond_http = (false, false);
    for item in &from {
        let Some(source) = item.get("source") else {
            report.field(item, "source", "must be given");
            continue;
        };
        self::source(report, &source, action);
        beyond_http.0 |= SOURCE.iter().any(|field| !SOURCE_HTTP.contains(field) && source.has(field));
    }
    for item in &to {
        let Some(operation) = item.get("operation") else {
            report.field(item, "operation", "must be given");
            continue;
        };
        self::operation(report, &operation);
        beyond_http.1 |= operation.has("ports") || operation.has("notPorts");
    }
    for condition in rule.items("when") {
        self::condition(report, &condition, action);
    }
    let only_http = !from.is_empty() && to.is_empty() && !beyond_http.0 || !to.is_empty() && !beyond_http.1;
    if action == "DENY" && only_http {
        report.warn(rule, "asks for nothing but HTTP, so on ports that are not HTTP it denies every connection").help =
            Some("name the ports that it is for in to[].operation.ports".to_owned());
    }
}

fn source(report: &mut Report<'_>, source: &At<'_>, action: &str) {
    if SOURCE.iter().all(|field| source.items(field).is_empty()) {
        report.error(source, "must not be empty");
    }
    no_empty_values(report, source, SOURCE);
    for field in SOURCE_ADDRESSES {
        common::subnets(report, source, field);
    }
    let accounts = source.given(&["serviceAccounts", "notServiceAccounts"]);
    let others = source.given(&["principals", "notPrincipals", "namespaces", "notNamespaces"]);
    if let (Some(account), false) = (accounts.first(), others.is_empty()) {
        report.field(source, account, format!("cannot be given together with {}", others.join(" and ")));
    }
    for field in accounts {
        for account in source.items(field) {
            service_account(report, &account);
        }
    }
    if action == "CUSTOM" {
        for field in source.given(NOT_FOR_CUSTOM) {
            report.field(source, field, "cannot be asked for by a CUSTOM rule");
        }
    }
}

/// `[namespace/]name`.
fn service_account(report: &mut Report<'_>, at: &At<'_>) {
    let text = at.str();
    if text.contains('*') {
        report.error(at, format!("`{text}`: a service account takes no `*`"));
    } else if text.split('/').count() > 2 || text.split('/').any(str::is_empty) && !text.is_empty() {
        report.error(at, format!("`{text}` must be `name` or `namespace/name`"));
    }
}

fn operation(report: &mut Report<'_>, operation: &At<'_>) {
    if OPERATION.iter().all(|field| operation.items(field).is_empty()) {
        report.error(operation, "must not be empty");
    }
    no_empty_values(report, operation, OPERATION);
    for field in ["ports", "notPorts"] {
        for port in operation.items(field) {
            port_text(report, &port);
        }
    }
    for field in ["paths", "notPaths"] {
        for path in operation.items(field) {
            path_template(report, &path);
        }
    }
}

fn no_empty_values(report: &mut Report<'_>, map: &At<'_>, fields: &[&str]) {
    for field in fields {
        for value in map.items(field).iter().filter(|value| value.str().is_empty() && value.node().text().is_some()) {
            report.error(value, "must not be empty");
        }
    }
}

fn port_text(report: &mut Report<'_>, at: &At<'_>) {
    let digits = at.str().bytes().all(|b| b.is_ascii_digit());
    let is_port = digits && at.str().parse::<u32>().is_ok_and(|port| port <= 65535);
    // That it must not be empty is told with all other values.
    if !is_port && !at.str().is_empty() {
        report.error(at, format!("`{}` must be a port, such as \"8080\"", at.str()));
    }
}

/// `{*}` stands for one part of a path, `{**}` for the rest of it; beside them nothing else may be a placeholder.
fn path_template(report: &mut Report<'_>, at: &At<'_>) {
    let path = at.str();
    if !path.contains("{*}") && !path.contains("{**}") {
        return;
    }
    let bare = path.replace("{**}", "\u{1}").replace("{*}", "\u{1}");
    if bare.contains(['*', '{', '}']) {
        report.error(at, format!("`{path}`: a template knows `{{*}}` and `{{**}}`, each a whole part of the path, and no other placeholder"));
    } else if bare.split('/').any(|part| part.contains('\u{1}') && part.len() > 1) {
        report.error(at, format!("`{path}`: `{{*}}` and `{{**}}` must be whole parts of the path"));
    }
}

fn condition(report: &mut Report<'_>, condition: &At<'_>, action: &str) {
    let key = condition.text("key");
    if key.is_empty() {
        if condition.has("key") {
            report.field(condition, "key", "must not be empty");
        }
        return;
    }
    let (values, not) = (condition.items("values"), condition.items("notValues"));
    if values.is_empty() && not.is_empty() {
        report.error(condition, "one of values and notValues must be given");
    }
    no_empty_values(report, condition, &["values", "notValues"]);
    if action == "CUSTOM"
        && (key.starts_with("request.auth.")
            || matches!(key, "source.namespace" | "source.principal" | "source.serviceAccount"))
    {
        report.field(condition, "key", format!("`{key}` cannot be asked for by a CUSTOM rule"));
    }
    let known = KEYS.iter().find(|(name, _)| *name == key).map(|(_, values)| *values);
    let Some(kind) = known.or_else(|| keyed(key)) else {
        unknown_key(report, condition, key);
        return;
    };
    for value in values.iter().chain(&not).filter(|value| !value.str().is_empty()) {
        match kind {
            Values::Addresses if !is_subnet(value.str()) => {
                report.error(value, format!("`{}` must be an IP address or a range such as 10.0.0.0/8", value.str()));
            }
            Values::Ports => port_text(report, value),
            Values::Any | Values::Addresses => {}
        }
    }
}

/// `request.headers[name]`
fn keyed(key: &str) -> Option<Values> {
    let rest = KEYED.iter().find_map(|name| key.strip_prefix(name))?;
    let (_, name) = rest.split_once('[')?;
    (name.len() > 1 && name.ends_with(']')).then_some(Values::Any)
}

fn unknown_key(report: &mut Report<'_>, condition: &At<'_>, key: &str) {
    if let Some(name) = KEYED.iter().find(|name| key.starts_with(**name)) {
        report.field(condition, "key", format!("`{key}` needs a name in brackets")).help =
            Some(format!("write `{}[name]`", name.trim_end_matches('.')));
        return;
    }
    let help = match key {
        "destination.namespace" => Some("the policy's own namespace is what it is for".to_owned()),
        _ if key.starts_with("destination.labels") => Some("use spec.selector".to_owned()),
        _ => {
            crate::schema::nearest(key, KEYS.iter().map(|(name, _)| *name)).map(|near| format!("did you mean {near}?"))
        }
    };
    report.field(condition, "key", format!("`{key}` is no attribute of a connection or request")).help = help;
}
