//! Virtual hosts of the HTTP servers that share a chain: each host that a server and a VirtualService have in common,
//! with the rules of all VirtualServices for it in the order of their age, those that take everything last.

use std::cmp::Reverse;
use std::sync::Arc;

use super::super::destinations::Router;
use super::super::registry::Map;
use super::{Bindings, Bound, names};
use crate::crd::{ServerHost, ServerProtocol, VirtualService};
use crate::program::{GatewayHost, Handler, HttpHandler};
use crate::route::{Rule, VirtualHost};

/// Takes every host where no VirtualService is for any.
const BLACKHOLE: &str = "blackhole";

/// A virtual host that is being filled.
struct Filling<'s> {
    host: Arc<str>,
    /// Of the first server for it.
    port: u16,
    requires_tls: bool,
    rules: Vec<(Rule, &'s VirtualService)>,
}

/// What the servers lead to; there is at least one, and they are of one chain.
pub(super) fn handler<'s>(servers: &[Bound<'_>], bindings: &Bindings<'s>, router: &mut Router<'_, 's, '_>) -> Handler {
    let mut hosts: Vec<Filling<'s>> = Vec::new();
    let mut index: Map<Arc<str>, usize> = Map::default();
    for bound in servers {
        let port = bound.server.port;
        let redirects = bound.server.redirects();
        let mut at = |host: &Arc<str>, hosts: &mut Vec<Filling<'s>>| {
            *index.entry(Arc::clone(host)).or_insert_with(|| {
                hosts.push(Filling { host: Arc::clone(host), port, requires_tls: false, rules: Vec::new() });
                hosts.len() - 1
            })
        };
        for vs in bindings.of(bound.gateway) {
            let served = names::served(bound.server, vs);
            if served.is_empty() {
                continue;
            }
            let rules = rules_of(vs, bound, router);
            for host in served {
                let at = at(host, &mut hosts);
                let filling = &mut hosts[at];
                filling.requires_tls |= redirects;
                // Through several Gateways the same rules come once.
                let known = |rule: &Rule| filling.rules.iter().any(|(own, of)| std::ptr::eq(*of, vs) && own == rule);
                let new: Vec<Rule> = rules.iter().filter(|rule| !known(rule)).cloned().collect();
                filling.rules.extend(new.into_iter().map(|rule| (rule, vs)));
            }
        }
        for host in bound.server.hosts.iter().filter(|host| redirects || is_isolated(bound, host, servers)) {
            let at = at(&host.name, &mut hosts);
            hosts[at].requires_tls |= redirects;
        }
    }
    if hosts.is_empty() {
        let port = servers.first().map_or(0, |bound| bound.server.port);
        let nothing = VirtualHost::new("*".into(), Vec::new());
        let name = format!("{BLACKHOLE}:{port}").into();
        let hosts = [GatewayHost { name, requires_tls: false, host: nothing }].into();
        let suffixes = [("".into(), 0)].into();
        return Handler::Http(HttpHandler { name: route_name(servers), hosts, suffixes, ..HttpHandler::default() });
    }
    Handler::Http(finish(route_name(servers), hosts))
}

/// Whether a less specific listener of the same Gateway of the Gateway API would get the requests for a host of this one,
/// where this one has no rules for it: they are nobody's.
fn is_isolated(bound: &Bound<'_>, host: &ServerHost, servers: &[Bound<'_>]) -> bool {
    let of_one = |other: &&Bound<'_>| {
        let (meta, own) = (&other.gateway.meta, &bound.gateway.meta);
        let gateway = |name: &str| name.split_once('~').map(|(gateway, _)| gateway.to_owned());
        meta.namespace() == own.namespace()
            && gateway(own.name()).is_some_and(|name| gateway(meta.name()).is_some_and(|other| other == name))
    };
    let others = servers.iter().filter(of_one).flat_map(|other| &other.server.hosts);
    others.into_iter().any(|other| other.name != host.name && names::within(&host.name, &other.name))
}

fn finish(name: Box<str>, hosts: Vec<Filling<'_>>) -> HttpHandler {
    let mut handler = HttpHandler { name, ..HttpHandler::default() };
    let mut suffixes = Vec::new();
    let mut finished = Vec::with_capacity(hosts.len());
    for (index, filling) in (0_u32..).zip(hosts) {
        match filling.host.strip_prefix('*') {
            Some(suffix) => suffixes.push((suffix.into(), index)),
            None => drop(handler.names.insert((&*filling.host).into(), index)),
        }
        let mut rules: Vec<Rule> = filling.rules.into_iter().map(|(rule, _)| rule).collect();
        rules.sort_by_key(Rule::is_catch_all);
        if let Some(last) = rules.iter().position(Rule::is_catch_all) {
            rules.truncate(last + 1);
        }
        finished.push(GatewayHost {
            name: format!("{}:{}", filling.host, filling.port).into(),
            requires_tls: filling.requires_tls,
            host: VirtualHost::new((&*filling.host).into(), rules),
        });
    }
    suffixes.sort_by_key(|(suffix, _): &(Box<str>, u32)| Reverse(suffix.len()));
    handler.suffixes = suffixes.into();
    handler.hosts = finished.into();
    handler
}

fn rules_of<'s>(vs: &'s VirtualService, bound: &Bound<'_>, router: &mut Router<'_, 's, '_>) -> Vec<Rule> {
    let gateway = bound.name();
    let mut router = router.through(&gateway);
    router.http(&[vs], bound.server.port).map(|http| http.rules).unwrap_or_default()
}

/// Envoy's name of a route configuration.
fn route_name(servers: &[Bound<'_>]) -> Box<str> {
    let Some(first) = servers.first() else {
        return Box::default();
    };
    let (server, meta) = (first.server, &first.gateway.meta);
    let bind = if server.bind.is_empty() { String::new() } else { format!(".{}", server.bind) };
    match server.protocol {
        ServerProtocol::Http => format!("http.{}{bind}", first.port).into(),
        _ => format!("https.{}.{}.{}.{}{bind}", server.port, server.port_name, meta.name(), meta.namespace()).into(),
    }
}
