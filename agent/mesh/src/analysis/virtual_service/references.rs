//! The hosts, ports and subsets that rules send to.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::super::findings::Findings;
use super::super::input::{Destination, Input, NETWORKING, VirtualService};
use super::super::tree::Tree;
use crate::finding::code;

/// The subsets that DestinationRules define, by host.
pub(super) struct Subsets<'s> {
    exact: HashMap<Arc<str>, BTreeSet<&'s str>>,
    /// `*.example.com` as `.example.com`.
    suffixes: Vec<(Box<str>, BTreeSet<&'s str>)>,
}

impl<'s> Subsets<'s> {
    pub(super) fn new(input: &Input<'s>) -> Self {
        let mut subsets = Self { exact: HashMap::new(), suffixes: Vec::new() };
        for rule in &input.destination_rules {
            let names = rule.subsets.iter().map(|subset| subset.text_at("name"));
            match rule.host.strip_prefix('*') {
                Some(suffix) => subsets.suffixes.push((suffix.into(), names.collect())),
                None => subsets.exact.entry(Arc::clone(&rule.host)).or_default().extend(names),
            }
        }
        subsets
    }

    fn of(&self, host: &str) -> BTreeSet<&'s str> {
        let wide = self.suffixes.iter().filter(|(suffix, _)| host.ends_with(&**suffix)).map(|(_, names)| names);
        self.exact.get(host).into_iter().chain(wide).flatten().copied().collect()
    }
}

pub(super) fn destinations(vs: &VirtualService<'_>, input: &Input<'_>, subsets: &Subsets<'_>, findings: &mut Findings) {
    let seen_in = vs.seen_in();
    for to in vs.destinations.iter().filter(|to| !to.host.is_empty()) {
        let fqdn = input.expand(to.host, vs.namespace());
        let what = if to.is_mirror { "the copies" } else { "its requests" };
        match input.hosts.find(&fqdn, vs.namespace(), &seen_in) {
            None if input.sources.is_read("Service") => unknown_host(vs, to, &fqdn, what, input, findings),
            None => {}
            Some(found) => ports(vs, to, &found.ports, what, findings),
        }
        if to.subset.is_empty() {
            continue;
        }
        let known = subsets.of(&fqdn);
        if !known.contains(to.subset) {
            let help = if known.is_empty() {
                format!("a DestinationRule for {fqdn} must define it under `subsets`")
            } else {
                format!("the DestinationRules for {fqdn} define {}", known.into_iter().collect::<Vec<_>>().join(", "))
            };
            findings.add(
                code::REFERENCE,
                vs.resource,
                to.mark,
                format!(
                    "{}+subset in destinationrule not found: \"{}+{}\"; {what} ({}) are refused with 503",
                    if to.is_mirror { "mirror" } else { "host" },
                    to.host,
                    to.subset,
                    to.path
                ),
                &help,
            );
        }
    }
}

/// The VirtualServices that rules are delegated to.
pub(super) fn delegates(vs: &VirtualService<'_>, input: &Input<'_>, findings: &mut Findings) {
    for (i, rule) in vs.http.iter().enumerate() {
        let Some(delegate) = rule.at("delegate") else { continue };
        let namespace = Some(delegate.text_at("namespace")).filter(|name| !name.is_empty()).unwrap_or(vs.namespace());
        let name = delegate.text_at("name");
        if input.find(NETWORKING, "VirtualService", namespace, name).is_none() {
            findings.add(
                code::REFERENCE,
                vs.resource,
                rule.mark_of("delegate.name"),
                format!("delegate not found: \"{namespace}/{name}\"; http[{i}] has no rules, so its requests get 404"),
                "make a VirtualService of this name, without hosts and gateways",
            );
        }
    }
}

fn unknown_host(
    vs: &VirtualService<'_>,
    to: &Destination<'_>,
    fqdn: &str,
    what: &str,
    input: &Input<'_>,
    findings: &mut Findings,
) {
    let domain = &input.sources.options().compile.cluster_domain;
    let hidden = !input.hosts.exact(fqdn).is_empty();
    let why = if hidden { " for this namespace (its exportTo)" } else { "" };
    let field = if to.is_mirror { "mirror host" } else { "host" };
    findings.add(
        code::REFERENCE,
        vs.resource,
        to.mark,
        format!(
            "{field} not found: \"{}\"; {fqdn} is no service here{why}, so {what} ({}) are refused with 503",
            to.host, to.path
        ),
        &input.hosts.suggestion(to.host, vs.namespace(), domain).unwrap_or_default(),
    );
}

fn ports(vs: &VirtualService<'_>, to: &Destination<'_>, ports: &[i64], what: &str, findings: &mut Findings) {
    let listed = || ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !to.has_port {
        if ports.len() > 1 {
            findings.add(
                code::PORT_MISSING,
                vs.resource,
                to.mark,
                format!("{} has the ports {} and none is named: {what} ({}) go to the port that the client dialled, where there is one", to.host, listed(), to.path),
                "add port.number to the destination",
            );
        }
    } else if let Some(port) = to.port
        && !ports.contains(&port)
    {
        findings.add(
            code::REFERENCE,
            vs.resource,
            to.mark,
            format!("host:port not found: \"{}:{port}\"; {what} ({}) are refused with 503", to.host, to.path),
            &if ports.is_empty() { String::new() } else { format!("the ports of {} are {}", to.host, listed()) },
        );
    }
}
