//! HTTP routes of a VirtualService: what they match, what they do with it, and which of that exclude each other.

use super::at::{At, Report};
use super::common::{self, Matching, percentage, port, regex, string_match};
use super::names::is_header_name;
use super::virtual_service::{destination, destinations, is_claim, matched_port, source_namespace};

/// The largest body of a direct response, and the one from which on it is worth a warning: all of it is held by every
/// proxy.
const MAX_BODY: usize = 1 << 20;
const LARGE_BODY: usize = 100 << 10;

/// Conditions for a retry, beside HTTP status codes.
const RETRY_ON: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

const GRPC_STATUS: &[&str] = &[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];

/// Whose route it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It says itself what is done.
    Own,
    /// It leaves that to another VirtualService.
    Root,
    /// It is one of a VirtualService that others delegate to.
    Delegate,
}

pub(super) fn rules(report: &mut Report<'_>, route: &At<'_>, role: Role) {
    exclusions(report, route, role);
    let items = route.items("match");
    for item in &items {
        conditions(report, item);
    }
    common::header_operations(report, route);
    destinations(report, route);
    redirect(report, route, &items);
    direct_response(report, route);
    rewrite(report, route);
    authority_once(report, route);
    retries(report, route);
    fault(report, route);
    mirrors(report, route);
    cors(report, route);
}

fn exclusions(report: &mut Report<'_>, route: &At<'_>, role: Role) {
    let actions: Vec<&str> = route
        .given(&["route", "redirect", "directResponse"])
        .into_iter()
        .filter(|action| *action != "route" || !route.items("route").is_empty())
        .collect();
    match role {
        Role::Root => {
            for action in actions {
                report.field(route, action, "a route that delegates does nothing itself");
            }
            return;
        }
        Role::Delegate if route.has("delegate") => {
            report.field(route, "delegate", "a VirtualService that others delegate to cannot delegate itself");
        }
        Role::Delegate | Role::Own => {}
    }
    match actions.as_slice() {
        [] if role == Role::Own => {
            report.error(route, "one of route, redirect, directResponse and delegate must be given");
        }
        [] => {
            report.error(route, "one of route, redirect and directResponse must be given");
        }
        ["route"] => {}
        [only] => {
            for field in route.given(&["fault", "rewrite"]) {
                report.field(route, field, format!("cannot be given together with {only}"));
            }
        }
        several => {
            report.error(route, format!("only one of {} may be given", several.join(" and ")));
        }
    }
}

fn conditions(report: &mut Report<'_>, item: &At<'_>) {
    for (field, matching) in [
        ("uri", Matching::Path),
        ("scheme", Matching::Plain),
        ("method", Matching::Plain),
        ("authority", Matching::Plain),
    ] {
        if let Some(value) = item.get(field) {
            string_match(report, &value, matching);
        }
    }
    for field in ["headers", "withoutHeaders"] {
        for (name, value) in item.entries(field) {
            if !is_header_name(name) && !is_claim(name) {
                report.error(&value, format!("`{name}` is no name of a header"));
            }
            string_match(report, &value, Matching::Presence);
        }
    }
    for (_, value) in item.entries("queryParams") {
        string_match(report, &value, Matching::Presence);
    }
    matched_port(report, item);
    common::labels(report, item, "sourceLabels");
    common::gateways(report, item);
    source_namespace(report, item);
}

fn redirect(report: &mut Report<'_>, route: &At<'_>, items: &[At<'_>]) {
    let Some(redirect) = route.get("redirect") else {
        return;
    };
    let text = |key| !redirect.text(key).is_empty();
    if !["uri", "prefixRewrite", "authority", "scheme"].into_iter().any(text)
        && redirect.given(&["port", "derivePort"]).is_empty()
    {
        report.error(&redirect, "one of uri, prefixRewrite, authority, scheme, port and derivePort must be given");
    }
    if text("uri") && text("prefixRewrite") {
        report.error(&redirect, "only one of uri and prefixRewrite may be given");
    }
    if text("prefixRewrite") {
        for item in items {
            if item.get("uri").is_none_or(|uri| !uri.has("prefix")) {
                report.field(
                    &redirect,
                    "prefixRewrite",
                    "replaces the prefix that `uri` matched: every match needs `uri.prefix`",
                );
            }
        }
    }
    if let Some(code) = redirect.int("redirectCode")
        && code != 0
        && !(300..=399).contains(&code)
    {
        report.field(&redirect, "redirectCode", format!("must be between 300 and 399, is {code}"));
    }
    if let Some(scheme) = redirect.get("scheme")
        && !matches!(scheme.str(), "" | "http" | "https")
    {
        report.error(&scheme, format!("`{}` must be http or https", scheme.str()));
    }
    if redirect.int("port") != Some(0) {
        port(report, &redirect, "port");
    }
}

fn direct_response(report: &mut Report<'_>, route: &At<'_>) {
    let Some(response) = route.get("directResponse") else {
        return;
    };
    status(report, &response, "status");
    let Some(body) = response.get("body") else {
        return;
    };
    // Bytes are written in base64, four letters for three of them.
    let size = body.text("string").len().max(body.text("bytes").len() / 4 * 3);
    if size > MAX_BODY {
        report.error(&body, format!("must not have more than {MAX_BODY} bytes, has {size}"));
    } else if size > LARGE_BODY {
        report.warn(&body, format!("has {size} bytes, all of which every proxy holds"));
    }
}

/// 600 is let through, as Istio does.
fn status(report: &mut Report<'_>, map: &At<'_>, key: &str) {
    if let Some(status) = map.int(key)
        && !(200..=600).contains(&status)
    {
        report.field(map, key, format!("must be an HTTP status between 200 and 599, is {status}"));
    }
}

fn rewrite(report: &mut Report<'_>, route: &At<'_>) {
    let Some(rewrite) = route.get("rewrite") else {
        return;
    };
    let uri = !rewrite.text("uri").is_empty();
    let by_regex = rewrite.get("uriRegexRewrite");
    if uri && by_regex.is_some() {
        report.error(&rewrite, "only one of uri and uriRegexRewrite may be given");
    }
    if !uri && by_regex.is_none() && rewrite.text("authority").is_empty() {
        report.error(&rewrite, "one of uri, uriRegexRewrite and authority must be given, and not be empty");
    }
    if let Some(by_regex) = by_regex {
        match by_regex.get("match") {
            Some(pattern) => regex(report, &pattern),
            None => {
                report.field(&by_regex, "match", "must be given");
            }
        }
        if by_regex.text("rewrite").is_empty() {
            report.field(&by_regex, "rewrite", "must be given");
        }
    }
}

fn authority_once(report: &mut Report<'_>, route: &At<'_>) {
    let rewritten = route.get("rewrite").is_some_and(|rewrite| !rewrite.text("authority").is_empty());
    let mut places = usize::from(rewritten);
    if let Some(request) = route.get("headers").and_then(|headers| headers.get("request")) {
        for (name, value) in request.entries("set").into_iter().chain(request.entries("add")) {
            places += usize::from(common::is_authority(name));
            if places > 1 && common::is_authority(name) {
                report.error(&value, "the authority is set already");
            }
        }
    }
}

fn retries(report: &mut Report<'_>, route: &At<'_>) {
    let Some(retries) = route.get("retries") else {
        return;
    };
    common::counts(report, &retries, &["attempts"]);
    if retries.int("attempts").unwrap_or(0) == 0 {
        let others: Vec<&str> = retries
            .given(&["perTryTimeout", "retryOn", "retryRemoteLocalities", "backoff"])
            .into_iter()
            .filter(|field| *field != "retryOn" || !retries.text("retryOn").is_empty())
            .collect();
        if !others.is_empty() {
            let message = format!("nothing is retried without attempts, so {} cannot be given", others.join(", "));
            report.field(&retries, "attempts", message).help = Some("write how many, such as `attempts: 2`".to_owned());
        }
    }
    let Some(on) = retries.get("retryOn").filter(|on| !on.str().is_empty()) else {
        return;
    };
    for condition in on.str().split(',') {
        if !RETRY_ON.contains(&condition) && !is_http_status(condition) {
            let finding = report.error(&on, format!("`{condition}` is no condition to retry on"));
            finding.help = if RETRY_ON.contains(&condition.trim()) {
                Some("leave out the blanks".to_owned())
            } else {
                crate::schema::nearest(condition.trim(), RETRY_ON.iter().copied())
                    .map(|near| format!("did you mean {near}?"))
            };
        }
    }
}

/// A status code that has a name.
fn is_http_status(text: &str) -> bool {
    text.parse::<u16>()
        .ok()
        .and_then(|code| http::StatusCode::from_u16(code).ok())
        .is_some_and(|code| code.canonical_reason().is_some())
}

fn fault(report: &mut Report<'_>, route: &At<'_>) {
    let Some(fault) = route.get("fault") else {
        return;
    };
    let (abort, delay) = (fault.get("abort"), fault.get("delay"));
    if abort.is_none() && delay.is_none() {
        report.error(&fault, "one of abort and delay must be given");
    }
    if let Some(abort) = abort {
        percentage(report, &abort, "percentage", false);
        status(report, &abort, "httpStatus");
        if let Some(name) = abort.get("grpcStatus")
            && !GRPC_STATUS.contains(&name.str())
        {
            let help = crate::schema::nearest(name.str(), GRPC_STATUS.iter().copied());
            report.error(&name, format!("`{}` is no name of a gRPC status, such as NOT_FOUND", name.str())).help =
                help.map(|near| format!("did you mean {near}?"));
        }
        if abort.has("http2Error") {
            report.field(&abort, "http2Error", "no proxy can do that: use httpStatus or grpcStatus");
        }
        if abort.given(&["httpStatus", "grpcStatus", "http2Error"]).is_empty() {
            report.warn(&abort, "without httpStatus or grpcStatus nothing is aborted");
        }
    }
    if let Some(delay) = delay {
        percentage(report, &delay, "percentage", false);
        if delay.has("exponentialDelay") {
            report.field(&delay, "exponentialDelay", "no proxy can do that: use fixedDelay");
        }
        if delay.has("percent") {
            let at = delay.get("percent").expect("it is there");
            report.warn(&at, "is outdated").help = Some("write `percentage: {value: …}`".to_owned());
        }
    }
}

fn mirrors(report: &mut Report<'_>, route: &At<'_>) {
    let mirrors = route.items("mirrors");
    if route.has("mirror") && !mirrors.is_empty() {
        report.field(route, "mirrors", "cannot be given together with mirror");
    }
    if let Some(mirror) = route.get("mirror") {
        destination(report, &mirror);
    }
    percentage(report, route, "mirrorPercentage", true);
    if let Some(percent) = route.get("mirrorPercent") {
        common::percent(report, route, "mirrorPercent");
        report.warn(&percent, "is outdated").help = Some("write `mirrorPercentage: {value: …}`".to_owned());
    }
    for mirror in &mirrors {
        if let Some(to) = mirror.get("destination") {
            destination(report, &to);
        }
        percentage(report, mirror, "percentage", true);
    }
}

fn cors(report: &mut Report<'_>, route: &At<'_>) {
    let Some(policy) = route.get("corsPolicy") else {
        return;
    };
    for origin in policy.items("allowOrigins") {
        match origin.given(&["exact", "prefix", "regex"]).first() {
            Some(key) if !origin.text(key).is_empty() => string_match(report, &origin, Matching::Plain),
            _ => {
                report.error(&origin, "one of exact, prefix and regex must be given, and not be empty");
            }
        }
    }
    if policy.has("allowOrigin") {
        let at = policy.get("allowOrigin").expect("it is there");
        report.warn(&at, "is outdated").help = Some("write allowOrigins with `- exact: …`".to_owned());
    }
    for method in policy.items("allowMethods") {
        if !METHODS.contains(&method.str()) {
            let help = crate::schema::nearest(method.str(), METHODS.iter().copied());
            report.error(&method, format!("`{}` is no HTTP method", method.str())).help =
                help.map(|near| format!("did you mean {near}?"));
        }
    }
    common::header_names(report, &policy, "allowHeaders");
    common::header_names(report, &policy, "exposeHeaders");
    if let Some(age) = policy.get("maxAge")
        && crate::schema::parse_duration(age.str()).is_some_and(|age| age.subsec_nanos() > 0)
    {
        report.error(&age, "must be whole seconds");
    }
}
