//! What a rule and a traffic policy say, setting by setting, in users' words: with the defaults that hold where nothing is
//! written, and with what this version does instead. Used by [`super`].

use std::fmt::Write as _;
use std::time::Duration;

use http::HeaderMap;

use super::model::{Origin, Setting};
use super::trace::text;
use crate::compile::enforced::{self, Undone};
use crate::compile::verdict;
use crate::crd::rate_limit::RATE_LIMIT;
use crate::program::{
    Abort, Action, Block, ClusterPolicy, ConnectionPool, CorsPolicy, HashKey, HashTable, HeaderChanges, HttpPool,
    LoadBalancing, OutlierDetection, RateLimit, RedirectPath, RedirectPort, RetryPolicy, Rewrite, Route, Share,
    UriRewrite,
};

/// Of a copy the suffix is expected that older versions of Istio added.
const HOST_OF_COPY: &str = "by the Host that the destination is asked by, without `-shadow`";

/// A fault strikes before the request is on its way.
const BEFORE_RETRIES: &str = "before timeout and retries, which do not see it";

/// Seconds and parts of them, as Istio writes durations.
fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1_000) { format!("{}s", millis / 1_000) } else { format!("{millis}ms") }
}

fn limited(limit: &RateLimit) -> String {
    let whose = if limit.per_source { "of each pod" } else { "of all pods of the node" };
    format!("{} in {} {whose}, {} at once", limit.requests, duration(limit.per), limit.burst)
}

fn percent(share: Share) -> String {
    format!("{}%", f64::from(share.millionths()) / 10_000.0)
}

/// Everything that a rule says beside its destinations.
pub fn of_route(route: &Route) -> Vec<Setting> {
    let origin = route.object.as_ref().map(|object| Origin::new(object, route.at.as_ref()));
    let mut settings = Vec::new();
    let mut say = |field: &str, value: String| {
        settings.push(Setting { field: field.to_owned(), value, origin: origin.clone(), instead: None });
    };
    match &route.action {
        Action::Forward => {}
        Action::Redirect(redirect) => {
            let mut value = redirect.code.to_string();
            let mut add = |what: &str, to: &str| {
                // Writing to a string cannot fail.
                let _ = write!(value, ", {what} {to}");
            };
            redirect.scheme.iter().for_each(|scheme| add("scheme", scheme));
            redirect.authority.iter().for_each(|host| add("authority", host));
            match &redirect.path {
                RedirectPath::Kept => {}
                RedirectPath::Whole(path) => add("uri", path),
                RedirectPath::Prefix(path) => add("prefix", path),
            }
            match redirect.port {
                RedirectPort::Unset => {}
                RedirectPort::Number(port) => add("port", &port.to_string()),
                RedirectPort::OfProtocol => add("port", "of the protocol"),
                RedirectPort::OfRequest => add("port", "of the request"),
            }
            say("redirect", value);
        }
        Action::Respond(response) => {
            let value = format!("{}, {} bytes", response.status, response.body.len());
            say("directResponse", value);
        }
    }
    let Some(given) = route.settings.as_deref() else {
        settings.extend(defaults(route, true, true));
        return settings;
    };
    given.rewrite.iter().for_each(|rewrite| say("rewrite", rewritten(rewrite)));
    if let Some(timeout) = given.timeout {
        say("timeout", duration(timeout));
    }
    given.retries.iter().for_each(|retries| say("retries", retried(retries)));
    if let Some(fault) = &given.fault {
        if let Some((delay, share)) = fault.delay {
            say("fault.delay", format!("{} for {}, {BEFORE_RETRIES}", duration(delay), percent(share)));
        }
        if let Some((abort, share)) = fault.abort {
            let with = match abort {
                Abort::Http(status) => format!("HTTP {status}"),
                Abort::Grpc(status) => format!("gRPC {status}"),
            };
            say("fault.abort", format!("{with} for {}, {BEFORE_RETRIES}", percent(share)));
        }
    }
    for mirror in &given.mirrors {
        let name = &mirror.destination.name;
        let value = match percent(mirror.share) {
            share if mirror.share == Share::NONE => format!("no copy is sent: {share} to {name}"),
            share => format!("{name} of {share}, {HOST_OF_COPY}"),
        };
        say("mirror", value);
    }
    given.cors.iter().for_each(|cors| say("corsPolicy", allowed(cors)));
    given.rate_limit.iter().for_each(|limit| say(RATE_LIMIT, limited(limit)));
    if let Some(headers) = &given.headers {
        for (field, changes) in [("headers.request", &headers.request), ("headers.response", &headers.response)] {
            for value in changed(changes) {
                say(field, value);
            }
        }
    }
    settings.extend(defaults(route, given.timeout.is_none(), given.retries.is_none()));
    settings
}

/// What holds where a rule that forwards says nothing.
fn defaults(route: &Route, timeout: bool, retries: bool) -> Vec<Setting> {
    let default = |field: &str, value: String| Setting { field: field.to_owned(), value, origin: None, instead: None };
    let forwards = matches!(route.action, Action::Forward);
    let timeout = (forwards && timeout).then(|| default("timeout", "none".to_owned()));
    let retries = (forwards && retries).then(|| default("retries", retried(&RetryPolicy::none_given())));
    timeout.into_iter().chain(retries).collect()
}

fn rewritten(rewrite: &Rewrite) -> String {
    let uri = rewrite.uri.as_ref().map(|uri| match uri {
        UriRewrite::Text(to) => format!("uri {to}"),
        UriRewrite::Regex(pattern, _) => format!("what fits {} in the path", pattern.as_str()),
    });
    let host = rewrite.authority.as_ref().map(|host| format!("authority {host}"));
    uri.into_iter().chain(host).collect::<Vec<_>>().join(", ")
}

fn retried(retries: &RetryPolicy) -> String {
    if retries.attempts == 0 {
        return "none".to_owned();
    }
    let statuses = retries.statuses.iter().map(ToString::to_string);
    let on: Vec<String> = retries.on.tokens().map(str::to_owned).chain(statuses).collect();
    let per_try = retries.per_try_timeout.map(|limit| format!(", {} each", duration(limit))).unwrap_or_default();
    let unavailable = if retries.repeats_answer(503, &HeaderMap::new()) { "" } else { ", not on an answer of 503" };
    format!("{} on {}{per_try}{unavailable}", retries.attempts, on.join(","))
}

fn allowed(cors: &CorsPolicy) -> String {
    let origins: Vec<String> = cors.allow_origins.iter().map(text).collect();
    format!("origins {}", origins.join(", "))
}

pub(super) fn changed(changes: &HeaderChanges) -> Vec<String> {
    let value = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let set = changes.set.iter().map(|(name, to)| format!("set {name}: {}", value(to)));
    let add = changes.add.iter().map(|(name, to)| format!("add {name}: {}", value(to)));
    let host = changes.authority.iter().map(|to| format!("set host: {}", value(to)));
    let remove = changes.remove.iter().map(|name| format!("remove {name}"));
    host.chain(set).chain(add).chain(remove).collect()
}

/// How a cluster's endpoints are chosen and connected to. `by_kernel`: by the kernel, for each connection.
pub fn of_cluster(policy: &ClusterPolicy, by_kernel: bool, headless: bool) -> Vec<Setting> {
    let mut settings = Vec::new();
    let lost: Vec<String> =
        if by_kernel { verdict::unkept(policy, headless).map(|(_, lost)| lost).collect() } else { Vec::new() };
    let lost_of = |field: &str| lost.iter().find(|lost| lost.contains(field)).cloned();
    let default = |field: &str, value: String, instead: Option<String>| Setting {
        field: field.to_owned(),
        value,
        origin: None,
        instead,
    };
    match &policy.load_balancer {
        Some(block) => {
            let kernel = lost.iter().find(|lost| !lost.starts_with("connectTimeout")).cloned();
            let instead = joined(&enforced::load_balancer(&block.value)).or(kernel);
            settings.push(setting(block, "loadBalancer", balanced(&block.value), instead));
        }
        None if by_kernel => settings.push(default("loadBalancer", "at random".to_owned(), None)),
        None => settings.push(default("loadBalancer", "LEAST_REQUEST".to_owned(), None)),
    }
    if let Some(pool) = &policy.connection_pool {
        if let Some(timeout) = pool.value.connect_timeout {
            let field = "connectionPool.tcp.connectTimeout";
            settings.push(setting(pool, field, duration(timeout), lost_of("connectTimeout")));
        }
        for (field, value) in pooled(&pool.value) {
            settings.push(setting(pool, field, value, None));
        }
        for (_, field, instead) in enforced::connection_pool(&pool.value) {
            settings.push(setting(pool, field, "given".to_owned(), Some(instead.to_owned())));
        }
    }
    let has_timeout = policy.connection_pool.as_ref().is_some_and(|pool| pool.value.connect_timeout.is_some());
    if !has_timeout && !by_kernel {
        let value = duration(ClusterPolicy::CONNECT_TIMEOUT);
        settings.push(default("connectionPool.tcp.connectTimeout", value, None));
    }
    if let Some(outlier) = &policy.outlier_detection {
        settings.push(setting(outlier, "outlierDetection", ejected(&outlier.value), None));
    }
    if let Some(tls) = &policy.tls {
        let value = match &*tls.value.mode {
            _ if tls.value.is_originated() => tls.value.to_string(),
            "" => "mode not given".to_owned(),
            mode => mode.to_owned(),
        };
        settings.push(setting(tls, "tls", value, joined(&enforced::tls(&tls.value))));
    }
    if let Some(tunnel) = &policy.tunnel {
        let instead = Some("connections are not tunnelled".to_owned());
        settings.push(setting(tunnel, "tunnel", format!("{}:{}", tunnel.value.host, tunnel.value.port), instead));
    }
    if let Some(version) = &policy.proxy_protocol {
        let instead = Some("no PROXY header is sent".to_owned());
        settings.push(setting(version, "proxyProtocol", format!("V{}", version.value), instead));
    }
    if let Some(budget) = &policy.retry_budget {
        settings.push(setting(budget, "retryBudget", percent(budget.value.share), None));
    }
    settings
}

/// What is in force of a connection pool, but for its timeout. Counts are those of the node.
fn pooled(pool: &ConnectionPool) -> Vec<(&'static str, String)> {
    let http = pool.http.as_ref();
    let count = |count: u32| format!("{count} on this node");
    let of_http = |field: fn(&HttpPool) -> Option<u32>| http.and_then(field);
    let keepalive = |(probes, time, interval): (Option<u32>, Option<Duration>, Option<Duration>)| {
        let given = [
            probes.map(|probes| format!("{probes} probes")),
            time.map(|time| format!("after {}", duration(time))),
            interval.map(|interval| format!("every {}", duration(interval))),
        ];
        given.into_iter().flatten().collect::<Vec<_>>().join(", ")
    };
    let fields = [
        ("connectionPool.tcp.maxConnections", pool.max_connections.map(count)),
        ("connectionPool.tcp.maxConnectionDuration", pool.max_connection_duration.map(duration)),
        ("connectionPool.tcp.idleTimeout", pool.tcp_idle_timeout.map(duration)),
        ("connectionPool.tcp.tcpKeepalive", pool.keepalive.map(keepalive)),
        ("connectionPool.http.http1MaxPendingRequests", of_http(|http| http.max_pending_requests).map(count)),
        ("connectionPool.http.http2MaxRequests", of_http(|http| http.max_requests).map(count)),
        ("connectionPool.http.maxRetries", of_http(|http| http.max_retries).map(count)),
        (
            "connectionPool.http.maxRequestsPerConnection",
            of_http(|http| http.max_requests_per_connection).map(|count| count.to_string()),
        ),
        ("connectionPool.http.idleTimeout", http.and_then(|http| http.idle_timeout).map(duration)),
    ];
    fields.into_iter().filter_map(|(field, value)| Some((field, value?))).collect()
}

fn joined(undone: &[Undone]) -> Option<String> {
    let texts: Vec<&str> = undone.iter().map(|(_, _, instead)| *instead).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

fn setting<T>(block: &Block<T>, field: &str, value: String, instead: Option<String>) -> Setting {
    let origin = Some(Origin::new(&block.origin.object, block.origin.at.as_ref()));
    Setting { field: field.to_owned(), value, origin, instead }
}

fn balanced(balancing: &LoadBalancing) -> String {
    let Some(hash) = &balancing.hash else {
        return balancing.simple.as_str().to_owned();
    };
    let key = match &hash.key {
        HashKey::Header(name) => format!("header {name}"),
        HashKey::Cookie(cookie) => format!("cookie {}", cookie.name),
        HashKey::SourceIp => "the client's address".to_owned(),
        HashKey::QueryParameter(name) => format!("query parameter {name}"),
    };
    let table = match hash.table {
        HashTable::Ring(size) => format!("ring of at least {size}"),
        HashTable::Maglev(size) => format!("Maglev table of {size}"),
    };
    format!("consistentHash on {key} ({table})")
}

fn ejected(outlier: &OutlierDetection) -> String {
    let mut counted = Vec::new();
    if outlier.consecutive_5xx_errors > 0 {
        counted.push(format!("{} consecutive 5xx", outlier.consecutive_5xx_errors));
    }
    if outlier.consecutive_gateway_errors > 0 {
        counted.push(format!("{} consecutive gateway errors", outlier.consecutive_gateway_errors));
    }
    format!(
        "{}: ejected for {} × times ejected, at most {}% of the endpoints and one always, looked at every {}",
        if counted.is_empty() { "nothing is counted".to_owned() } else { counted.join(" or ") },
        duration(outlier.base_ejection_time),
        outlier.max_ejection_percent,
        duration(outlier.interval),
    )
}
