//! What this version's data path does not do of the users' words, field by field, how bad it is to go without, and what
//! happens instead. Each object is told once. Called by `lint`.

use super::Findings;
use crate::crd::{Blocks, DestinationRule, Mark, Metadata, TrafficPolicy};
use crate::finding::{Severity, code};
use crate::program::{ClientTls, ConnectionPool, LoadBalancing};

/// What is not done of a block: how bad that is, the field below the block, and what happens instead.
pub(crate) type Undone = (Severity, &'static str, &'static str);

fn tell(meta: &Metadata, severity: Severity, mark: Mark, path: &str, instead: &str, findings: &mut Findings) {
    let message = format!("`{path}` is not supported yet: {instead}");
    findings.push(severity, code::NOT_SUPPORTED, meta, mark, message);
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
    if let Some(asked) = &blocks.tls {
        tell(asked.mark, tls(asked));
    }
    told
}

/// Of `loadBalancer`.
pub(crate) fn load_balancer(balancer: &LoadBalancing) -> Vec<Undone> {
    let mut undone = Vec::new();
    if balancer.is_zone_aware() {
        let alike = "endpoints of every locality are used alike";
        undone.push((Severity::Error, "loadBalancer.zoneAwareLbSetting", alike));
    }
    undone
}

/// Of `connectionPool`.
pub(crate) fn connection_pool(pool: &ConnectionPool) -> Vec<Undone> {
    let Some(http) = &pool.http else {
        return Vec::new();
    };
    let as_it_is = "HTTP/2 connections are passed on as they are";
    let given = [
        (
            "connectionPool.http.h2UpgradePolicy: UPGRADE",
            http.upgrade == Some(true),
            "HTTP/1.1 is passed on as HTTP/1.1",
        ),
        ("connectionPool.http.maxConcurrentStreams", http.max_concurrent_streams.is_some(), as_it_is),
        ("connectionPool.http.http2KeepAlive", http.keepalive.is_some(), as_it_is),
    ];
    let given = given.into_iter().filter(|(_, given, _)| *given);
    given.map(|(field, _, instead)| (Severity::Warning, field, instead)).collect()
}

/// Of `tls`.
pub(crate) fn tls(tls: &ClientTls) -> Vec<Undone> {
    if !tls.is_refused() {
        Vec::new()
    } else if tls.has_credential() {
        vec![(Severity::Error, "tls.credentialName", "no Secret is read: connections that it is for are refused")]
    } else {
        let instead = "connections that it is for are refused, as they would not be encrypted";
        vec![(Severity::Error, "tls", instead)]
    }
}
