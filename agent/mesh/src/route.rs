//! From a request to a destination: host, then the first rule that matches, then the weights.
//! `decide` is total, allocates nothing for ordinary requests, and depends on its arguments alone.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::matching::HttpMatch;
use crate::program::{PortId, Program, Route, WeightedCluster};
use crate::request::{RequestView, Source};

/// RFC 1035: a host name is at most 253 characters; a longer Host header matches nothing.
const MAX_HOST: usize = 255;

/// The hosts that can be asked for on one port number.
#[derive(Debug, Default)]
pub struct HostTable {
    /// All virtual hosts.
    pub hosts: Box<[VirtualHost]>,
    /// `svc.ns`, `svc.ns.svc`, the FQDN, its trailing-dot form, and addresses, in lower case → index into `hosts`.
    pub names: HashMap<Box<str>, u32, RandomState>,
    /// Client namespace → bare service name → index: `svc` means the client's own namespace.
    pub short_names: HashMap<Box<str>, HashMap<Box<str>, u32, RandomState>, RandomState>,
    /// `.example.com` → index, longest first: `*.example.com` does not take `example.com`.
    pub suffixes: Box<[(Box<str>, u32)]>,
}

/// One host and its rules.
#[derive(Debug)]
pub struct VirtualHost {
    /// The FQDN.
    pub host: Box<str>,
    /// A headless service, whose pods have names of their own below its own: `web-0.web.shop`.
    pub headless: bool,
    /// In order; the first that matches wins. A host with rules of which none matches answers 404 (NR).
    pub rules: Box<[Rule]>,
}

/// One entry of `http[]`.
#[derive(Debug)]
pub struct Rule {
    /// Alternatives; empty = takes everything.
    pub matches: Box<[HttpMatch]>,
    /// What it does.
    pub route: Route,
}

impl Rule {
    /// True when it takes every request.
    pub fn is_catch_all(&self) -> bool {
        self.matches.is_empty() || self.matches.iter().any(HttpMatch::is_catch_all)
    }

    fn takes(&self, request: &RequestView<'_>) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|one| one.matches(request))
    }
}

impl HostTable {
    /// The virtual host that `authority` (port and case as sent) names for a client in `namespace`.
    pub fn find(&self, namespace: &str, authority: &str) -> Option<&VirtualHost> {
        let bare = strip_port(authority);
        let mut buffer = [0_u8; MAX_HOST];
        let lower = buffer.get_mut(..bare.len())?;
        lower.copy_from_slice(bare.as_bytes());
        lower.make_ascii_lowercase();
        let host = std::str::from_utf8(lower).ok()?;
        let exact = |host: &str| self.names.get(host).or_else(|| self.short_names.get(namespace)?.get(host)).copied();
        let index = exact(host).or_else(|| {
            let suffix = self.suffixes.iter().find(|(suffix, _)| host.ends_with(&**suffix));
            // A pod's name is one label below its service's; only that same suffix, written out, is as specific.
            let (_, above) = host.split_once('.')?;
            let of_pod = || exact(above).filter(|index| self.hosts.get(*index as usize).is_some_and(|h| h.headless));
            let (written, index) = suffix.map_or((0, None), |(suffix, index)| (suffix.len(), Some(*index)));
            if written > above.len() { index } else { of_pod().or(index) }
        })?;
        self.hosts.get(index as usize)
    }
}

/// `host:port` → `host`; `[::1]:80` → `::1`.
fn strip_port(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match authority.rsplit_once(':') {
        // More than one colon without brackets is a bare IPv6 address.
        Some((host, port)) if !host.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// What is to become of a request.
#[derive(Debug)]
pub enum RouteDecision<'p> {
    /// To this destination. A destination without a cluster is 503 NC.
    Forward {
        /// The route that matched; `None` = the plain service, for a host that has no rules here.
        route: Option<&'p Route>,
        /// What the weights chose; `None` = the plain cluster of the dialled port.
        destination: Option<&'p WeightedCluster>,
    },
    /// The host has rules and none matches: 404 NR.
    NoRoute,
}

/// The dialled port selects the hosts, the Host header one of them, the first rule that fits wins, the roll picks
/// among its weights. A host that nobody here knows goes to the plain service that was dialled.
pub fn decide<'p>(
    program: &'p Program,
    port: PortId,
    source: &Source<'_>,
    request: &RequestView<'_>,
    roll: u64,
) -> RouteDecision<'p> {
    let table = &program.host_tables[program.port(port).hosts.index()];
    let Some(host) = table.find(source.namespace, request.authority) else {
        return RouteDecision::Forward { route: None, destination: None };
    };
    match host.rules.iter().find(|rule| rule.takes(request)) {
        Some(rule) => {
            RouteDecision::Forward { route: Some(&rule.route), destination: choose(&rule.route.destinations, roll) }
        }
        None => RouteDecision::NoRoute,
    }
}

/// Where a connection goes whose bytes are not HTTP. `None`: nowhere (no destination at all).
pub fn decide_tcp(program: &Program, port: PortId, roll: u64) -> Option<&WeightedCluster> {
    choose(&program.port(port).tcp, roll)
}

/// Where a connection goes that carries HTTP/2, whose requests nobody tells apart. `None`: it is refused.
pub fn decide_http2(program: &Program, port: PortId, roll: u64) -> Option<&WeightedCluster> {
    choose(&program.port(port).http2, roll)
}

/// The destination that a uniformly random `roll` picks; weights of 0 get nothing, a single one gets everything.
pub fn choose(destinations: &[WeightedCluster], roll: u64) -> Option<&WeightedCluster> {
    if let [only] = destinations {
        return Some(only);
    }
    let total: u64 = destinations.iter().map(|d| u64::from(d.weight)).sum();
    if total == 0 {
        return None;
    }
    // Multiply-shift keeps the bias below 2^-32 for any sum of weights.
    let mut left = ((u128::from(roll) * u128::from(total)) >> 64) as u64;
    destinations.iter().find(|d| {
        let weight = u64::from(d.weight);
        let hit = left < weight;
        left = left.saturating_sub(weight);
        hit
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_brackets_are_stripped_from_the_authority() {
        for (authority, host) in [
            ("service-b", "service-b"),
            ("service-b:80", "service-b"),
            ("[fd00::1]:80", "fd00::1"),
            ("[fd00::1]", "fd00::1"),
            ("fd00::1", "fd00::1"),
            ("10.0.0.1:8080", "10.0.0.1"),
            ("", ""),
            ("a:b", "a:b"),
        ] {
            assert_eq!(strip_port(authority), host, "{authority}");
        }
    }

    fn destination(weight: u32) -> WeightedCluster {
        WeightedCluster { cluster: None, weight, name: weight.to_string().into() }
    }

    #[test]
    fn weights_are_shares_and_zero_gets_nothing() {
        let destinations = [destination(90), destination(0), destination(10)];
        let steps = 10_000_u64;
        let mut hits = [0_u32; 3];
        for i in 0..steps {
            let chosen =
                choose(&destinations, i * (u64::MAX / steps) + u64::MAX / steps / 2).expect("weights are not all zero");
            hits[destinations.iter().position(|d| d == chosen).expect("from the list")] += 1;
        }
        assert_eq!(hits, [9000, 0, 1000]);
        assert!(choose(&[destination(0), destination(0)], 7).is_none());
        assert_eq!(choose(&[destination(0)], u64::MAX).map(|d| d.weight), Some(0), "a single weight is ignored");
        assert!(choose(&[], 1).is_none());
    }
}
