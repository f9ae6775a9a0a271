//! VirtualService: its hosts and gateways, and its TLS and TCP routes. HTTP routes are [`super::http_route`]'s.

use std::collections::BTreeSet;

use super::at::{At, Report};
use super::common::{self, Export, port};
use super::http_route::{self, Role};
use super::names::{hosts_overlap, is_ip, is_label, is_subnet, is_within, wildcard_domain};

/// Hosts that a message names, at most.
const MAX_NAMED: usize = 10;

/// Istio's names for the header matches that look at a JWT.
const JWT_CLAIMS: &str = "@request.auth.claims";

pub(super) fn rules(report: &mut Report<'_>, spec: &At<'_>) {
    let hosts = spec.items("hosts");
    let gateways = spec.items("gateways");
    let at_gateway = !gateways.is_empty() && gateways.iter().all(|gateway| gateway.str() != "mesh");
    let delegate = hosts.is_empty();
    if delegate {
        for field in ["gateways", "tls", "tcp"] {
            if !spec.items(field).is_empty() {
                let message = "a VirtualService without hosts is one that others delegate to: it has http routes only";
                report.field(spec, field, message);
            }
        }
    }
    common::gateways(report, spec);
    common::export_to(report, spec, Export::Any);
    check_hosts(report, spec, &hosts, at_gateway);

    let http = spec.items("http");
    let tls = spec.items("tls");
    let tcp = spec.items("tcp");
    if http.is_empty() && tls.is_empty() && tcp.is_empty() {
        report.error(spec, "one of http, tls and tcp must be given");
    }
    for route in &http {
        let role = match (delegate, route.has("delegate")) {
            (true, _) => Role::Delegate,
            (false, true) => Role::Root,
            (false, false) => Role::Own,
        };
        http_route::rules(report, route, role);
        if !at_gateway {
            claims_need_a_gateway(report, route);
        }
    }
    let mut names = Hosts::default();
    for host in &hosts {
        names.add(host.str());
    }
    for route in &tls {
        tls_route(report, route, &names, at_gateway);
    }
    for route in &tcp {
        for item in route.items("match") {
            connection_match(report, &item);
        }
        if route.items("route").is_empty() {
            report.field(route, "route", "must have a destination");
        }
        destinations(report, route);
    }
}

fn check_hosts(report: &mut Report<'_>, spec: &At<'_>, hosts: &[At<'_>], at_gateway: bool) {
    let by_sni = spec.items("tls").iter().flat_map(|route| route.items("match")).any(|m| m.has("sniHosts"));
    let mut good: Vec<&At<'_>> = Vec::new();
    for host in hosts {
        let name = host.str();
        if let Err(why) = domain(name, at_gateway && by_sni) {
            if is_ip(name) {
                good.push(host);
            } else {
                report.error(host, why);
            }
        } else if name == "*" && !at_gateway {
            report.error(host, "`*` is for gateways only").help =
                Some("name the hosts, or name a gateway and not `mesh` in spec.gateways".to_owned());
        } else {
            good.push(host);
        }
    }
    let mut before = Hosts::default();
    for host in good {
        let name = host.str();
        if let Some(other) = before.overlapping(name) {
            let message = if other == name {
                format!("`{name}` is there twice")
            } else {
                format!("`{other}` and `{name}` overlap")
            };
            report.error(host, message);
        }
        before.add(name);
    }
}

/// Hosts that can be asked for one that overlaps; only those with a `*` are looked through.
#[derive(Debug, Default)]
struct Hosts<'n> {
    exact: BTreeSet<&'n str>,
    wild: BTreeSet<&'n str>,
}

impl<'n> Hosts<'n> {
    fn add(&mut self, host: &'n str) {
        if host.starts_with('*') {
            self.wild.insert(host)
        } else {
            self.exact.insert(host)
        };
    }

    fn overlapping(&self, host: &str) -> Option<&'n str> {
        if let Some(same) = self.exact.get(host) {
            return Some(same);
        }
        let wild = self.wild.iter().find(|wild| hosts_overlap(wild, host));
        let all =
            || host.starts_with('*').then(|| self.exact.iter().find(|exact| hosts_overlap(exact, host))).flatten();
        wild.or_else(all).copied()
    }

    /// True when `host` is one of those that they name.
    fn hold(&self, host: &str) -> bool {
        self.exact.contains(host) || self.wild.iter().any(|wild| is_within(host, wild))
    }
}

/// A host name, `outbound_.PORT_.SUBSET_.HOST` of TLS that is passed through included.
fn domain(name: &str, by_sni: bool) -> Result<(), String> {
    if by_sni && let Some(rest) = name.strip_prefix("outbound_.") {
        return if rest.starts_with(|c: char| c.is_ascii_digit()) && name.len() <= 255 {
            Ok(())
        } else {
            Err(format!("`{name}` must be outbound_.PORT_.SUBSET_.HOST"))
        };
    }
    wildcard_domain(name)
}

fn claims_need_a_gateway(report: &mut Report<'_>, route: &At<'_>) {
    for item in route.items("match") {
        for field in ["headers", "withoutHeaders"] {
            for (name, at) in item.entries(field) {
                if is_claim(name) {
                    report.error(&at, "claims of a token can be looked at by gateways only, and `mesh` is none");
                }
            }
        }
    }
}

/// `@request.auth.claims.NAME`, or with `[NAME]` once or several times.
pub(super) fn is_claim(header: &str) -> bool {
    match header.strip_prefix(JWT_CLAIMS) {
        Some(rest) => {
            rest.strip_prefix('.').is_some_and(|name| !name.is_empty())
                || rest.starts_with('[') && rest.ends_with(']') && !rest.contains("[]")
        }
        None => false,
    }
}

fn tls_route(report: &mut Report<'_>, route: &At<'_>, hosts: &Hosts<'_>, at_gateway: bool) {
    let items = route.items("match");
    if items.is_empty() && route.has("match") {
        report.field(route, "match", "must not be empty");
    }
    for item in &items {
        let names = item.items("sniHosts");
        if names.is_empty() && item.has("sniHosts") {
            report.field(item, "sniHosts", "must name a host");
        }
        for name in names {
            sni(report, &name, hosts, at_gateway);
        }
        connection_match(report, item);
    }
    if route.items("route").is_empty() {
        report.field(route, "route", "must have a destination");
    }
    destinations(report, route);
}

fn sni(report: &mut Report<'_>, name: &At<'_>, hosts: &Hosts<'_>, at_gateway: bool) {
    if let Err(why) = domain(name.str(), at_gateway) {
        if is_ip(name.str()) {
            report.warn(name, "clients do not send an IP address as the server name of TLS");
        } else {
            report.error(name, why);
        }
    } else if !hosts.hold(name.str()) {
        let known: Vec<&str> = hosts.exact.iter().chain(&hosts.wild).copied().take(MAX_NAMED).collect();
        report.error(name, format!("`{}` is not one of spec.hosts ({})", name.str(), known.join(", ")));
    }
}

/// What `tls[].match[]` and `tcp[].match[]` have in common.
fn connection_match(report: &mut Report<'_>, item: &At<'_>) {
    for subnet in item.items("destinationSubnets").iter().filter(|subnet| subnet.str().is_empty()) {
        report.error(subnet, "must not be empty");
    }
    common::subnets(report, item, "destinationSubnets");
    if let Some(source) = item.get("sourceSubnet").filter(|source| !source.str().is_empty())
        && !is_subnet(source.str())
    {
        report.error(&source, format!("`{}` must be an IP address or a range", source.str()));
    }
    matched_port(report, item);
    common::labels(report, item, "sourceLabels");
    common::gateways(report, item);
    source_namespace(report, item);
}

/// A port of a match: 0 is as if it were not there.
pub(super) fn matched_port(report: &mut Report<'_>, item: &At<'_>) {
    if item.int("port") != Some(0) {
        port(report, item, "port");
    }
}

pub(super) fn source_namespace(report: &mut Report<'_>, item: &At<'_>) {
    if let Some(namespace) = item.get("sourceNamespace")
        && !namespace.str().is_empty()
        && !is_label(namespace.str())
    {
        report.error(&namespace, format!("`{}` is no name of a namespace", namespace.str()));
    }
}

/// The weighted destinations of a route of any sort.
pub(super) fn destinations(report: &mut Report<'_>, route: &At<'_>) {
    let destinations = route.items("route");
    let mut total = 0_i64;
    for item in &destinations {
        if let Some(destination) = item.get("destination") {
            self::destination(report, &destination);
        }
        common::counts(report, item, &["weight"]);
        common::header_operations(report, item);
        // A weight that cannot be is told of by itself.
        let weight = if item.has("weight") { item.int("weight").filter(|w| *w >= 0).unwrap_or(1) } else { 0 };
        total = total.saturating_add(weight);
    }
    if destinations.len() > 1 && total == 0 {
        report.field(route, "route", "the weights add up to 0: nothing could be sent anywhere").help =
            Some("give every destination its `weight`".to_owned());
    }
}

/// Host, subset and port of a destination.
pub(super) fn destination(report: &mut Report<'_>, destination: &At<'_>) {
    if let Some(host) = destination.get("host") {
        if host.str() == "*" {
            report.error(&host, "must name one host");
        } else {
            common::wildcard_host(report, &host);
        }
    }
    if let Some(subset) = destination.get("subset").filter(|subset| !subset.str().is_empty())
        && !is_label(subset.str())
    {
        report.error(&subset, format!("`{}` is no name of a subset: letters, digits and `-`", subset.str()));
    }
    if let Some(selector) = destination.get("port") {
        if selector.has("number") {
            port(report, &selector, "number");
        } else {
            report.field(&selector, "number", "must be given");
        }
    }
}
