//! From a request to a destination: host, then the first rule that matches, then the weights.
//! `decide` is total, allocates nothing for ordinary requests, and depends on its arguments alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::matching::{HttpMatch, RuleIndex};
use crate::program::{Action, Chance, DirectResponse, PortId, Program, Redirect, Route, WeightedCluster};
use crate::request::{RequestView, Source};

/// RFC 1035: a host name is at most 253 characters; a longer Host header matches nothing.
const MAX_HOST: usize = 255;

/// Names → index into [`HostTable::hosts`].
pub type Names = HashMap<Box<str>, u32, RandomState>;

/// The hosts that can be asked for on one port number: of everybody, or what a view has otherwise.
#[derive(Clone, Debug, Default)]
pub struct HostTable {
    /// All virtual hosts.
    pub hosts: Box<[Arc<VirtualHost>]>,
    /// `svc.ns`, `svc.ns.svc`, the FQDN, its trailing-dot form, and addresses, in lower case → index into `hosts`.
    pub names: Arc<Names>,
    /// Client namespace → bare service name → index: `svc` means the client's own namespace.
    pub short_names: Arc<HashMap<Box<str>, Names, RandomState>>,
    /// `.example.com` → index, longest first: `*.example.com` does not take `example.com`.
    pub suffixes: Arc<[(Box<str>, u32)]>,
}

/// One host and its rules.
#[derive(Debug, Default, PartialEq)]
pub struct VirtualHost {
    /// The FQDN.
    pub host: Box<str>,
    /// A headless service, whose pods have names of their own below its own: `web-0.web.shop`.
    pub headless: bool,
    /// In order; the first that matches wins. A host with rules of which none matches answers 404 (NR).
    pub rules: Box<[Rule]>,
    /// Of the rules, where there are many.
    index: Option<Box<RuleIndex>>,
}

impl VirtualHost {
    /// A host with these rules.
    pub fn new(host: Box<str>, rules: Vec<Rule>) -> Self {
        Self { host, headless: false, index: RuleIndex::new(&rules), rules: rules.into() }
    }

    /// The first rule that takes the request, and which of its items did; `None` for a rule without items.
    pub fn find(&self, request: &RequestView<'_>) -> Option<Taken<'_>> {
        match &self.index {
            Some(index) => index.find(&self.rules, request),
            None => self.rules.iter().find_map(|rule| Some((rule, rule.takes(request)?))),
        }
    }
}

/// One entry of `http[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

    /// The item that takes the request; within `Some(None)` the rule has none, and takes everything.
    pub fn takes(&self, request: &RequestView<'_>) -> Option<Option<&HttpMatch>> {
        if self.matches.is_empty() {
            return Some(None);
        }
        self.matches.iter().find(|one| one.matches(request)).map(Some)
    }
}

impl HostTable {
    /// The index of a name that is nobody's for the clients of this table.
    pub const NOBODY: u32 = u32::MAX;

    /// The virtual host that `authority` (port and case as sent) names for a client in `namespace`.
    pub fn find(&self, namespace: &str, authority: &str) -> Option<&Arc<VirtualHost>> {
        find(&[self], namespace, authority, &mut Unobserved)
    }

    /// The index that a whole name has.
    fn exact(&self, namespace: &str, host: &str) -> Option<u32> {
        self.names.get(host).or_else(|| self.short_names.get(namespace)?.get(host)).copied()
    }
}

/// What is looked for among the hosts of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// The name as a whole.
    Name(&'a str),
    /// The headless service that the name is a pod of.
    PodOf(&'a str),
    /// The longest suffix with rules: `.example.com` of `*.example.com`.
    Suffix(&'a str),
}

/// Sees a decision while it is made, and changes nothing of it. What nobody overrides costs nothing.
pub trait Observer<'p> {
    /// A host was looked for: found, or not.
    fn looked_up(&mut self, _for_what: Lookup<'_>, _found: Option<&'p VirtualHost>) {}

    /// The rules of a host have been tried; `taken` is the one that takes the request, and its item.
    fn tried(&mut self, _host: &'p VirtualHost, _request: &RequestView<'_>, _taken: Option<Taken<'p>>) {}
}

/// A rule that takes a request, and which of its items did; `None` for a rule without items.
pub type Taken<'p> = (&'p Rule, Option<&'p HttpMatch>);

/// Nobody looks.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl Observer<'_> for Unobserved {}

/// The virtual host that `authority` names for a client in `namespace`, in tables of which each hides what it has of
/// the next.
fn find<'t>(
    tables: &[&'t HostTable],
    namespace: &str,
    authority: &str,
    observer: &mut impl Observer<'t>,
) -> Option<&'t Arc<VirtualHost>> {
    let (bare, _) = split_port(authority);
    let mut buffer = [0_u8; MAX_HOST];
    let lower = buffer.get_mut(..bare.len())?;
    lower.copy_from_slice(bare.as_bytes());
    lower.make_ascii_lowercase();
    let host = std::str::from_utf8(lower).ok()?;
    let host_at = |table: &&'t HostTable, index: u32| table.hosts.get(index as usize);
    let exact = |host: &str| {
        let (table, index) = tables.iter().find_map(|table| Some((table, table.exact(namespace, host)?)))?;
        host_at(table, index)
    };
    let found = exact(host);
    observer.looked_up(Lookup::Name(host), found.map(|host| &**host));
    if found.is_some() {
        return found;
    }
    let longest = tables.iter().enumerate().filter_map(|(position, table)| {
        let hidden =
            |suffix: &str| tables[..position].iter().any(|t| t.suffixes.iter().any(|(own, _)| **own == *suffix));
        let fits = |(suffix, index): &&(Box<str>, u32)| *index != HostTable::NOBODY && host.ends_with(&**suffix);
        let (suffix, index) = table.suffixes.iter().filter(fits).find(|(suffix, _)| !hidden(suffix))?;
        Some((suffix.len(), table, *index))
    });
    let suffix = longest.reduce(|best, next| if next.0 > best.0 { next } else { best });
    // A pod's name is one label below its service's; only that same suffix, written out, is as specific.
    let above = host.split_once('.').map(|(_, above)| above);
    let above = above.filter(|above| suffix.is_none_or(|(written, ..)| written <= above.len()));
    if let Some(above) = above {
        let found = exact(above).filter(|found| found.headless);
        observer.looked_up(Lookup::PodOf(above), found.map(|host| &**host));
        if found.is_some() {
            return found;
        }
    }
    let (length, table, index) = suffix?;
    let found = host_at(table, index);
    observer.looked_up(Lookup::Suffix(&host[host.len() - length..]), found.map(|host| &**host));
    found
}

/// `host:port` → `host` and the port; `[::1]:80` → `::1` and 80.
pub(crate) fn split_port(authority: &str) -> (&str, Option<u16>) {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').unwrap_or((rest, ""));
        return (host, after.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match authority.rsplit_once(':') {
        // More than one colon without brackets is a bare IPv6 address.
        Some((host, port)) if !host.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, port.parse().ok())
        }
        _ => (authority, None),
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
        /// The item that matched; `None` = the rule has none.
        matched: Option<&'p HttpMatch>,
    },
    /// The client is sent elsewhere.
    Redirect {
        /// The route that matched.
        route: &'p Route,
        /// Where to.
        redirect: &'p Redirect,
        /// The item that matched; `None` = the rule has none.
        matched: Option<&'p HttpMatch>,
    },
    /// The proxy answers itself.
    Respond {
        /// The route that matched.
        route: &'p Route,
        /// With what.
        response: &'p DirectResponse,
    },
    /// The host has rules and none matches: 404 NR.
    NoRoute,
}

/// The host that a request is for, as the clients of a view have it on a port.
pub fn host<'p>(program: &'p Program, port: PortId, source: &Source<'_>, authority: &str) -> Option<&'p VirtualHost> {
    host_observed(program, port, source, authority, &mut Unobserved)
}

fn host_observed<'p>(
    program: &'p Program,
    port: PortId,
    source: &Source<'_>,
    authority: &str,
    observer: &mut impl Observer<'p>,
) -> Option<&'p VirtualHost> {
    let port = program.port(port);
    let common = &*program.host_tables[port.hosts.index()];
    let overlay = if source.view == 0 { None } else { program.overlays.get(&(source.view, port.number)) };
    let found = match overlay {
        Some(own) => find(&[&program.host_tables[own.index()], common], source.namespace, authority, observer),
        None => find(&[common], source.namespace, authority, observer),
    };
    found.map(|host| &**host)
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
    decide_observed(program, port, source, request, roll, &mut Unobserved)
}

/// [`decide`], while somebody looks.
pub fn decide_observed<'p>(
    program: &'p Program,
    port: PortId,
    source: &Source<'_>,
    request: &RequestView<'_>,
    roll: u64,
    observer: &mut impl Observer<'p>,
) -> RouteDecision<'p> {
    let Some(host) = host_observed(program, port, source, request.authority, observer) else {
        return RouteDecision::Forward { route: None, destination: None, matched: None };
    };
    decide_for(host, request, roll, observer)
}

/// What becomes of a request for a host: the first rule that fits wins, the roll picks among its weights.
pub fn decide_for<'p>(
    host: &'p VirtualHost,
    request: &RequestView<'_>,
    roll: u64,
    observer: &mut impl Observer<'p>,
) -> RouteDecision<'p> {
    let taken = host.find(request);
    observer.tried(host, request, taken);
    let Some((rule, matched)) = taken else {
        return RouteDecision::NoRoute;
    };
    let route = &rule.route;
    match &route.action {
        Action::Forward => {
            let destination = choose(&route.destinations, Chance::Destination.of(roll));
            RouteDecision::Forward { route: Some(route), destination, matched }
        }
        Action::Redirect(redirect) => RouteDecision::Redirect { route, redirect, matched },
        Action::Respond(response) => RouteDecision::Respond { route, response },
    }
}

/// Where a connection to `dialled` goes whose bytes are not HTTP. `None`: nowhere (no destination at all).
pub fn decide_tcp(program: &Program, port: PortId, dialled: IpAddr, roll: u64) -> Option<&WeightedCluster> {
    choose(tcp_destinations(program, port, dialled), roll)
}

/// Where connections to `dialled` go whose bytes are not HTTP, by weight.
pub fn tcp_destinations(program: &Program, port: PortId, dialled: IpAddr) -> &[WeightedCluster] {
    let rule = program.port(port).tcp.iter().find(|rule| rule.takes(dialled));
    rule.map(|rule| &*rule.destinations).unwrap_or_default()
}

/// Where a TLS connection to `dialled` with this SNI goes: by the first TLS rule that takes it, else as other bytes do.
pub fn decide_tls<'p>(
    program: &'p Program,
    port: PortId,
    sni: &str,
    dialled: IpAddr,
    roll: u64,
) -> Option<&'p WeightedCluster> {
    choose(tls_destinations(program, port, sni, dialled), roll)
}

/// Where TLS connections to `dialled` with this SNI go, by weight.
pub fn tls_destinations<'p>(program: &'p Program, port: PortId, sni: &str, dialled: IpAddr) -> &'p [WeightedCluster] {
    match program.port(port).tls.iter().find(|rule| rule.takes(sni, dialled)) {
        Some(rule) => &rule.destinations,
        None => tcp_destinations(program, port, dialled),
    }
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
            assert_eq!(split_port(authority).0, host, "{authority}");
        }
    }

    fn destination(weight: u32) -> WeightedCluster {
        WeightedCluster::new(None, weight, weight.to_string().into())
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
        let canary = [destination(99), destination(1)];
        let rolls = (0..100_000).map(|n| crate::balance::mix(n, 9));
        let hits = rolls.filter(|roll| choose(&canary, *roll) == Some(&canary[1])).count();
        assert!((900..=1_100).contains(&hits), "1 % within a tenth of a point: {hits} of 100,000");
        assert!(choose(&[destination(0), destination(0)], 7).is_none());
        assert_eq!(choose(&[destination(0)], u64::MAX).map(|d| d.weight), Some(0), "a single weight is ignored");
        assert!(choose(&[], 1).is_none());
    }
}
