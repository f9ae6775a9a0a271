//! The Gateway API: what its definitions say beyond types of Gateways and of the four sorts of routes.

use std::collections::BTreeSet;

use super::at::{At, Report};
use super::names::is_ip;

/// Filters by their type, and the field that each has to itself.
const HTTP_FILTERS: &[(&str, &str)] = &[
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestMirror", "requestMirror"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("ExtensionRef", "extensionRef"),
    ("CORS", "cors"),
    ("ExternalAuth", "externalAuth"),
];
/// Filters of which a rule may have several.
const REPEATABLE: &[&str] = &["RequestMirror", "ExtensionRef", "ExternalAuth"];
/// What a path must not hold when it is compared as it is written.
const NOT_IN_PATHS: &[&str] = &["//", "/./", "/../", "%2f", "%2F", "#"];
/// How a path must not end then.
const NOT_AT_ENDS: &[&str] = &["/..", "/."];
/// Parents of a route, as the definitions of the kinds have it.
const MAX_PARENTS: usize = 32;
/// Together, the matches of all rules of an HTTPRoute.
const MAX_MATCHES: usize = 128;

pub(super) fn gateway(report: &mut Report<'_>, spec: &At<'_>) {
    if spec.has("gatewayClassName") && spec.text("gatewayClassName").is_empty() {
        report.field(spec, "gatewayClassName", "must not be empty");
    }
    let listeners = spec.items("listeners");
    let key = |l: &At<'_>| (l.int("port"), l.text("protocol").to_owned(), l.text("hostname").to_owned());
    let mut seen = BTreeSet::new();
    for listener in &listeners {
        if !seen.insert(key(listener)) {
            report.error(listener, "another listener has the same port, protocol and hostname");
        }
        self::listener(report, listener);
    }
    for address in spec.items("addresses") {
        if matches!(address.text("type"), "" | "IPAddress") && address.has("value") && !is_ip(address.text("value")) {
            report.field(&address, "value", format!("`{}` is no IP address", address.text("value")));
        }
    }
}

fn listener(report: &mut Report<'_>, listener: &At<'_>) {
    let protocol = listener.text("protocol");
    let tls = listener.get("tls");
    match (protocol, &tls) {
        ("HTTP" | "TCP" | "UDP", Some(tls)) => {
            report.error(tls, format!("cannot be given for {protocol}"));
        }
        ("HTTPS", Some(tls)) if !matches!(tls.text("mode"), "" | "Terminate") => {
            report.field(tls, "mode", "must be Terminate for HTTPS");
        }
        ("TLS", None) => {
            report.field(listener, "tls", "must be given for TLS");
        }
        _ => {}
    }
    if let Some(tls) = &tls
        && matches!(tls.text("mode"), "" | "Terminate")
        && tls.items("certificateRefs").is_empty()
        && tls.entries("options").is_empty()
    {
        report.field(tls, "certificateRefs", "must be given where TLS ends");
    }
    if matches!(protocol, "TCP" | "UDP") && !listener.text("hostname").is_empty() {
        report.field(listener, "hostname", format!("cannot be given for {protocol}"));
    }
}

/// What all routes have: where they are attached, and where they lead.
fn route(report: &mut Report<'_>, spec: &At<'_>) {
    let parents = spec.items("parentRefs");
    let name = |p: &At<'_>| ["group", "kind", "namespace", "name"].map(|key| p.text(key).to_owned());
    let part = |p: &At<'_>| (p.text("sectionName").to_owned(), p.int("port"));
    for (index, parent) in parents.iter().enumerate().take(MAX_PARENTS) {
        for other in parents[..index].iter().filter(|other| name(other) == name(parent)) {
            let (one, two) = (part(other), part(parent));
            if one == two {
                report.error(parent, "the same parent is there twice");
            } else if one == (String::new(), None) || two == (String::new(), None) {
                report.error(parent, "the same parent is there as a whole and in part: each needs sectionName or port");
            }
        }
    }
    for host in spec.items("hostnames") {
        if is_ip(host.str()) {
            report.error(&host, "must be a name, not an address");
        }
    }
    for rule in spec.items("rules") {
        for backend in rule.items("backendRefs") {
            backend_port(report, &backend);
        }
    }
}

/// A Service is reached by a port.
fn backend_port(report: &mut Report<'_>, backend: &At<'_>) {
    let service = backend.text("group").is_empty() && matches!(backend.text("kind"), "" | "Service");
    if service && !backend.has("port") {
        report.field(backend, "port", "must be given for a Service");
    }
}

pub(super) fn stream_route(report: &mut Report<'_>, spec: &At<'_>) {
    route(report, spec);
}

pub(super) fn http_route(report: &mut Report<'_>, spec: &At<'_>) {
    route(report, spec);
    let rules = spec.items("rules");
    let matches: usize = rules.iter().map(|rule| rule.items("matches").len()).sum();
    if matches > MAX_MATCHES {
        report.field(spec, "rules", format!("must have at most {MAX_MATCHES} matches together, have {matches}"));
    }
    for rule in &rules {
        for item in rule.items("matches") {
            http_match(report, &item);
        }
        http_rule(report, rule);
    }
}

fn http_match(report: &mut Report<'_>, item: &At<'_>) {
    let Some(path) = item.get("path") else {
        return;
    };
    let value = path.text("value");
    if !matches!(path.text("type"), "" | "Exact" | "PathPrefix") || !path.has("value") {
        return;
    }
    if !value.starts_with('/') {
        report.field(&path, "value", format!("`{value}` must begin with `/`"));
    }
    let bad = NOT_IN_PATHS.iter().find(|part| value.contains(**part));
    if let Some(part) = bad.or_else(|| NOT_AT_ENDS.iter().find(|part| value.ends_with(**part))) {
        report.field(&path, "value", format!("`{value}` must not hold `{part}`"));
    }
}

fn http_rule(report: &mut Report<'_>, rule: &At<'_>) {
    let filters = rule.items("filters");
    let redirects = filters.iter().any(|filter| filter.has("requestRedirect"));
    if redirects && !rule.items("backendRefs").is_empty() {
        report.field(rule, "backendRefs", "cannot be given together with a RequestRedirect");
    }
    self::filters(report, &filters, HTTP_FILTERS);
    for backend in rule.items("backendRefs") {
        self::filters(report, &backend.items("filters"), HTTP_FILTERS);
    }
    let one_prefix = rule.items("matches").len() == 1
        && rule.items("matches")[0].get("path").is_some_and(|path| matches!(path.text("type"), "" | "PathPrefix"));
    for filter in &filters {
        for field in ["requestRedirect", "urlRewrite"] {
            if let Some(path) = filter.get(field).and_then(|change| change.get("path")) {
                path_change(report, &path, one_prefix);
            }
        }
    }
    if let Some(timeouts) = rule.get("timeouts") {
        let duration = |key| crate::schema::parse_duration(timeouts.text(key)).filter(|d| !d.is_zero());
        if let (Some(whole), Some(backend)) = (duration("request"), duration("backendRequest"))
            && backend > whole
        {
            report.field(&timeouts, "backendRequest", "must not be longer than request");
        }
    }
}

fn path_change(report: &mut Report<'_>, path: &At<'_>, one_prefix: bool) {
    for (sort, field) in [("ReplaceFullPath", "replaceFullPath"), ("ReplacePrefixMatch", "replacePrefixMatch")] {
        match (path.text("type") == sort, path.has(field)) {
            (true, false) => {
                report.field(path, field, format!("must be given for {sort}"));
            }
            (false, true) => {
                report.field(path, field, format!("is for {sort} only"));
            }
            (true, true) if sort == "ReplacePrefixMatch" && !one_prefix => {
                report.field(path, field, "needs exactly one match in the rule, and that a PathPrefix");
            }
            _ => {}
        }
    }
}

/// Every filter has the field of its type and no other, and most may be there once.
fn filters(report: &mut Report<'_>, filters: &[At<'_>], known: &[(&str, &str)]) {
    let mut seen: Vec<&str> = Vec::new();
    for filter in filters {
        let sort = filter.text("type");
        for (name, field) in known {
            if *name == sort && !filter.has(field) {
                report.field(filter, field, format!("must be given for {sort}"));
            } else if *name != sort && filter.has(field) {
                report.field(filter, field, format!("is for {name} only, not for {sort}"));
            }
        }
        if seen.contains(&sort) && !REPEATABLE.contains(&sort) {
            report.error(filter, format!("{sort} is there twice"));
        }
        if seen.contains(&"RequestRedirect") && sort == "URLRewrite"
            || seen.contains(&"URLRewrite") && sort == "RequestRedirect"
        {
            report.error(filter, "a rule either redirects or rewrites");
        }
        seen.push(sort);
        if let Some(mirror) = filter.get("requestMirror") {
            if mirror.has("percent") && mirror.has("fraction") {
                report.error(&mirror, "only one of percent and fraction may be given");
            }
            if let Some(fraction) = mirror.get("fraction")
                && fraction.int("numerator").unwrap_or(0) > fraction.int("denominator").unwrap_or(100)
            {
                report.error(&fraction, "must not be more than a whole");
            }
            if let Some(backend) = mirror.get("backendRef") {
                backend_port(report, &backend);
            }
        }
    }
}

pub(super) fn grpc_route(report: &mut Report<'_>, spec: &At<'_>) {
    route(report, spec);
    for rule in spec.items("rules") {
        for item in rule.items("matches") {
            let Some(method) = item.get("method") else {
                continue;
            };
            if method.text("service").is_empty() && method.text("method").is_empty() {
                report.error(&method, "one of service and method must be given");
            }
            if !matches!(method.text("type"), "" | "Exact") {
                continue;
            }
            for field in ["service", "method"] {
                let name = method.text(field);
                let part = |part: &str| {
                    part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                };
                let good = if field == "service" { name.split('.').all(part) } else { part(name) };
                if !name.is_empty() && !good {
                    report.field(&method, field, format!("`{name}` is no name of a gRPC {field}"));
                }
            }
        }
        let known: Vec<(&str, &str)> = HTTP_FILTERS
            .iter()
            .copied()
            .filter(|(sort, _)| !matches!(*sort, "RequestRedirect" | "URLRewrite" | "CORS" | "ExternalAuth"))
            .collect();
        filters(report, &rule.items("filters"), &known);
        for backend in rule.items("backendRefs") {
            filters(report, &backend.items("filters"), &known);
        }
    }
}

pub(super) fn reference_grant(report: &mut Report<'_>, spec: &At<'_>) {
    for side in ["from", "to"] {
        if spec.get(side).is_some_and(|list| list.is_empty()) {
            report.field(spec, side, "must not be empty");
        }
    }
}
