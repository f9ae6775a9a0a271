//! What this version's data path does not do of the users' words, field by field, how bad it is to go without, and what
//! happens instead. Each object is told once; routes carry what of it concerns them. Called by `lint` and `routes`.

use super::Findings;
use crate::crd::{Action, Blocks, DestinationRule, HttpRoute, Mark, Metadata, TrafficPolicy, VirtualService};
use crate::finding::{Severity, code};
use crate::program::{ClientTls, ConnectionPool, Feature, Features, LoadBalancer, LoadBalancing};

/// What is not done of a block: how bad that is, the field below the block, and what happens instead.
pub(crate) type Undone = (Severity, &'static str, &'static str);

/// How bad it is to go without a feature of a route, and what happens instead; `None`: it is in force.
pub(crate) fn instead(feature: Feature) -> Option<(Severity, &'static str)> {
    match feature {
        Feature::Redirect
        | Feature::DirectResponse
        | Feature::Rewrite
        | Feature::Headers
        | Feature::DestinationHeaders => None,
        Feature::Abort => Some((Severity::Error, "no request is aborted: all of them are forwarded")),
        Feature::Delay => Some((Severity::Warning, "no request is delayed")),
        Feature::Timeout => Some((Severity::Warning, "requests wait as long as the client does")),
        Feature::Retries => Some((Severity::Warning, "a failed request is not repeated")),
        Feature::Mirror => Some((Severity::Warning, "nothing is mirrored")),
        Feature::Cors => Some((Severity::Warning, "the application answers preflight requests")),
    }
}

/// What a rule asks for that is not in force, and where.
fn asked_for(route: &HttpRoute) -> Vec<(Feature, Mark, String)> {
    let mut asked = Vec::new();
    let mut ask = |feature: Feature, mark: Mark| asked.push((feature, mark, feature.as_str().to_owned()));
    match &route.action {
        Action::Forward(_) | Action::Delegate(_) => {}
        Action::Redirect(redirect) => ask(Feature::Redirect, redirect.mark),
        Action::DirectResponse(response) => ask(Feature::DirectResponse, response.mark),
    }
    if let Some(settings) = &route.settings {
        let fault = settings.fault.as_ref();
        let given = [
            (Feature::Rewrite, settings.rewrite.as_ref().map(|rewrite| rewrite.mark)),
            (Feature::Timeout, settings.timeout.as_ref().map(|timeout| timeout.mark)),
            // None at all is what the data path does.
            (Feature::Retries, settings.retries.as_ref().filter(|retries| retries.attempts > 0).map(|one| one.mark)),
            (Feature::Delay, fault.filter(|fault| fault.delay.is_some()).map(|fault| fault.mark)),
            (Feature::Abort, fault.filter(|fault| fault.abort.is_some()).map(|fault| fault.mark)),
            (Feature::Mirror, settings.mirrors.first().map(|mirror| mirror.destination.mark)),
            (Feature::Cors, settings.cors.as_ref().map(|cors| cors.mark)),
            (Feature::Headers, settings.headers.as_ref().map(|headers| headers.mark)),
        ];
        given.into_iter().filter_map(|(feature, mark)| Some((feature, mark?))).for_each(|(f, mark)| ask(f, mark));
    }
    for (position, destination) in route.forwards_to().iter().enumerate() {
        if let Some(headers) = &destination.headers {
            asked.push((Feature::DestinationHeaders, headers.mark, format!("route[{position}].headers")));
        }
    }
    asked.retain(|(feature, ..)| instead(*feature).is_some());
    asked
}

/// What of a rule is not in force.
pub(super) fn unenforced(route: &HttpRoute) -> Features {
    asked_for(route).into_iter().map(|(feature, ..)| feature).collect()
}

fn tell(meta: &Metadata, severity: Severity, mark: Mark, path: &str, instead: &str, findings: &mut Findings) {
    let message = format!("`{path}` is not supported yet: {instead}");
    findings.push(severity, code::NOT_SUPPORTED, meta, mark, message);
}

/// Tells what of a VirtualService is not in force.
pub(super) fn virtual_service(vs: &VirtualService, findings: &mut Findings) {
    for (position, route) in vs.http.iter().enumerate() {
        for (feature, mark, field) in asked_for(route) {
            let Some((severity, mut instead)) = instead(feature) else { continue };
            let mut field = field;
            if feature == Feature::Retries && *vs.meta.object.kind == *"HTTPRoute" {
                // All that such a rule can ask for of them.
                (field, instead) = ("timeouts.backendRequest".to_owned(), "a try lasts as long as the client waits");
            }
            // Rules of the Gateway API are in another order here than they were written.
            let path = match &*vs.meta.object.kind {
                "VirtualService" => format!("spec.http[{position}].{field}"),
                _ => format!("{field} (rule {})", route.name),
            };
            tell(&vs.meta, severity, mark, &path, instead, findings);
        }
    }
    if let Some(route) = vs.tls.first() {
        let instead = "TLS connections go to the service that was dialled";
        tell(&vs.meta, Severity::Error, route.mark, "spec.tls", instead, findings);
    }
}

/// Tells what of a DestinationRule is not in force.
pub(super) fn destination_rule(rule: &DestinationRule, findings: &mut Findings) {
    let subsets = rule.subsets.iter().enumerate().filter_map(|(position, subset)| {
        Some((format!("spec.subsets[{position}].trafficPolicy"), subset.policy.as_deref()?))
    });
    let common = rule.policy.as_deref().map(|policy| ("spec.trafficPolicy".to_owned(), policy));
    for (path, policy) in common.into_iter().chain(subsets) {
        traffic_policy(rule, &path, policy, findings);
    }
}

fn traffic_policy(rule: &DestinationRule, path: &str, policy: &TrafficPolicy, findings: &mut Findings) {
    let mut told = blocks(path, &policy.blocks);
    for (position, settings) in policy.ports.iter().enumerate() {
        told.extend(blocks(&format!("{path}.portLevelSettings[{position}]"), &settings.blocks));
    }
    let mut tell_of = |mark: Option<Mark>, field: &str, severity: Severity, instead: &'static str| {
        told.extend(mark.map(|mark| (severity, mark, format!("{path}.{field}"), instead)));
    };
    let tunnel = policy.tunnel.as_ref().map(|tunnel| tunnel.mark);
    tell_of(tunnel, "tunnel", Severity::Error, "connections are not tunnelled");
    let proxy_protocol = policy.proxy_protocol.as_ref().map(|version| version.mark);
    tell_of(proxy_protocol, "proxyProtocol", Severity::Error, "no PROXY header is sent");
    let budget = policy.retry_budget.as_ref().map(|budget| budget.mark);
    tell_of(budget, "retryBudget", Severity::Warning, "retries have no budget");
    for (severity, mark, path, instead) in told {
        tell(&rule.meta, severity, mark, &path, instead, findings);
    }
}

fn blocks(path: &str, blocks: &Blocks) -> Vec<(Severity, Mark, String, &'static str)> {
    let mut told = Vec::new();
    let mut tell = |mark: Mark, undone: Vec<Undone>| {
        told.extend(
            undone.into_iter().map(|(severity, field, instead)| (severity, mark, format!("{path}.{field}"), instead)),
        );
    };
    if let Some(balancer) = &blocks.load_balancer {
        tell(balancer.mark, load_balancer(balancer));
    }
    if let Some(pool) = &blocks.connection_pool {
        tell(pool.mark, connection_pool(pool));
    }
    if let Some(outlier) = &blocks.outlier_detection {
        tell(outlier.mark, outlier_detection());
    }
    if let Some(asked) = &blocks.tls {
        tell(asked.mark, tls(asked));
    }
    told
}

/// Of `loadBalancer`.
pub(crate) fn load_balancer(balancer: &LoadBalancing) -> Vec<Undone> {
    let mut undone = Vec::new();
    if balancer.simple == LoadBalancer::Passthrough {
        let instead = "requests go to the endpoint with fewer active requests (LEAST_REQUEST)";
        undone.push((Severity::Error, "loadBalancer.simple: PASSTHROUGH", instead));
    }
    if balancer.hash.is_some() {
        let instead = "clients do not stick to an endpoint (LEAST_REQUEST)";
        undone.push((Severity::Error, "loadBalancer.consistentHash", instead));
    }
    let alike = "endpoints of every locality are used alike";
    if balancer.locality.as_ref().is_some_and(|locality| locality.enabled != Some(false)) {
        undone.push((Severity::Error, "loadBalancer.localityLbSetting", alike));
    }
    if balancer.zone_aware.as_ref().is_some_and(|zones| zones.enabled != Some(false)) {
        undone.push((Severity::Error, "loadBalancer.zoneAwareLbSetting", alike));
    }
    if balancer.warmup.is_some() {
        undone.push((Severity::Warning, "loadBalancer.warmup", "new endpoints get their full share at once"));
    }
    undone
}

/// Of `connectionPool`.
pub(crate) fn connection_pool(pool: &ConnectionPool) -> Vec<Undone> {
    let given = [
        ("connectionPool.tcp.maxConnections", pool.max_connections.is_some()),
        ("connectionPool.tcp.maxConnectionDuration", pool.max_connection_duration.is_some()),
        ("connectionPool.tcp.idleTimeout", pool.tcp_idle_timeout.is_some()),
        ("connectionPool.tcp.tcpKeepalive", pool.keepalive.is_some()),
    ];
    let given = given.into_iter().filter(|(_, given)| *given);
    let mut undone: Vec<Undone> = given.map(|(field, _)| (Severity::Warning, field, "it is not in force")).collect();
    if pool.http.is_some() {
        undone.push((Severity::Warning, "connectionPool.http", "no limit of it is in force"));
    }
    undone
}

/// Of `outlierDetection`.
pub(crate) fn outlier_detection() -> Vec<Undone> {
    vec![(Severity::Warning, "outlierDetection", "no endpoint is ejected")]
}

/// Of `tls`.
pub(crate) fn tls(tls: &ClientTls) -> Vec<Undone> {
    let instead = "connections that it is for are refused, as they would not be encrypted";
    if tls.encrypts() { vec![(Severity::Error, "tls", instead)] } else { Vec::new() }
}
