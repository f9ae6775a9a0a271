//! From HTTP rules to [`Rule`]s, as the clients of one view have them.

use std::sync::Arc;

use super::delegate::{Delegations, Entry};
use super::destinations::Router;
use super::hosts::{Hosts, Layer, Layers};
use super::registry::Registry;
use super::visibility::{Client, expand};
use super::{Findings, gateways};
use crate::crd::rate_limit::{Limit, Limits, RATE_LIMIT};
use crate::crd::{self, HttpMatchItem, HttpRoute, HttpSettings, VirtualService, is_for_mesh};
use crate::program::{Action, Mirror, RateLimit, Route, RouteSettings, WeightedCluster};
use crate::route::Rule;

/// The HTTP rules of a host on one port.
pub(super) struct HttpRules<'s> {
    /// The one that takes everything, if any, is the last.
    pub(super) rules: Vec<Rule>,
    /// The oldest VirtualService that they are from.
    pub(super) because: &'s VirtualService,
    /// Where each rule is from, by its position in `rules`: the VirtualService and the position in its `http`.
    pub(super) origins: Vec<(&'s VirtualService, usize)>,
}

impl HttpRules<'_> {
    /// Where connections go when nobody looks at their requests.
    pub(super) fn catch_all(&self) -> Option<&[WeightedCluster]> {
        self.rules.last().filter(|rule| rule.is_catch_all()).map(|rule| &*rule.route.destinations)
    }
}

impl<'s> Router<'_, 's, '_> {
    /// The HTTP rules of the first layer that has one for the dialled port and these clients.
    pub(super) fn http_in(&mut self, layers: &[Layer<'s>], port: u16) -> Option<HttpRules<'s>> {
        layers.iter().find_map(|layer| self.http(&layer.rules, port))
    }

    /// The HTTP rules of `rules` on the dialled port. `None`: none of them is for this port and these clients, so the
    /// plain service is.
    pub(super) fn http(&mut self, rules: &[&'s VirtualService], port: u16) -> Option<HttpRules<'s>> {
        let mut because = None;
        let mut compiled = Vec::new();
        let delegations = self.delegations;
        for vs in rules {
            for entry in delegations.entries(vs) {
                let Some(items) = surviving(&entry, port, self.client, self.gateway) else {
                    continue;
                };
                because.get_or_insert(*vs);
                let mut of_route = Vec::new();
                self.rule(&entry, &items, port, &mut of_route);
                compiled.extend(of_route.into_iter().map(|rule| (rule, (entry.vs, entry.position))));
            }
        }
        let because = because?;
        if rules.len() > 1 {
            // One object's "everything else" must not hide the rules of the next.
            compiled.sort_by_key(|(rule, _)| rule.is_catch_all());
        }
        if let Some(last) = compiled.iter().position(|(rule, _)| rule.is_catch_all()) {
            compiled.truncate(last + 1);
        }
        let (rules, origins) = compiled.into_iter().unzip();
        Some(HttpRules { rules, because, origins })
    }

    fn rule(&mut self, entry: &Entry<'_>, items: &[&HttpMatchItem], port: u16, compiled: &mut Vec<Rule>) {
        let (vs, route) = (entry.vs, &*entry.route);
        let nowhere = |what: &str| [WeightedCluster::new(None, 1, what.into())].into();
        let (action, destinations) = match &route.action {
            crd::Action::Forward(destinations) => (Action::Forward, self.destinations(vs, destinations, port)),
            crd::Action::Redirect(redirect) => (Action::Redirect(Arc::clone(redirect)), nowhere("redirect")),
            crd::Action::DirectResponse(response) => (Action::Respond(Arc::clone(response)), nowhere("directResponse")),
            // Nothing that delegates is left when rules are compiled.
            crd::Action::Delegate(_) => return,
        };
        let settings = route.settings.as_ref().map(|settings| self.settings_of(vs, settings, port));
        let settings = match rate_limit(vs, &route.name, entry.position) {
            None => settings,
            limit => Some(RouteSettings { rate_limit: limit.map(Arc::new), ..settings.unwrap_or_default() }),
        };
        let settings = settings.map(Arc::new);
        let make = |name: Arc<str>| Route {
            name,
            object: Some(vs.meta.object.clone()),
            at: vs.meta.place(route.mark),
            action: action.clone(),
            destinations: destinations.clone(),
            settings: settings.clone(),
        };
        if route.items.is_empty() {
            compiled.push(Rule { matches: [].into(), route: make(route_name(&route.name, "")) });
            return;
        }
        let usable = items.iter().filter(|item| !item.never);
        if items.iter().any(|item| !item.name.is_empty()) {
            // The name of the item that matched is part of the route's.
            compiled.extend(usable.map(|item| Rule {
                matches: [item.conditions.clone()].into(),
                route: make(route_name(&route.name, &item.name)),
            }));
            return;
        }
        let matches: Box<[_]> = usable.map(|item| item.conditions.clone()).collect();
        // Without any alternative left a rule takes nothing, and not everything.
        if !matches.is_empty() {
            compiled.push(Rule { matches, route: make(route_name(&route.name, "")) });
        }
    }

    fn settings_of(&mut self, vs: &VirtualService, given: &HttpSettings, port: u16) -> RouteSettings {
        let mirror = |mirror: &crd::Mirror| Mirror {
            destination: self.destination(vs, &mirror.destination, port, super::destinations::COPIES),
            share: mirror.share,
        };
        RouteSettings {
            mirrors: given.mirrors.iter().map(mirror).collect(),
            rewrite: given.rewrite.as_deref().cloned(),
            timeout: given.timeout.map(|timeout| *timeout),
            retries: given.retries.as_deref().cloned(),
            fault: given.fault.as_deref().cloned(),
            cors: given.cors.as_deref().cloned(),
            headers: given.headers.as_deref().cloned(),
            rate_limit: None,
        }
    }
}

/// What the annotation says of a rule. One that cannot be read is told of elsewhere, and limits nothing.
fn rate_limit(vs: &VirtualService, rule: &str, position: usize) -> Option<RateLimit> {
    let Limit { requests, per, burst, per_source } = *Limits::parse(vs.meta.annotation(RATE_LIMIT)?).ok()?.of(rule)?;
    let (namespace, name) = (vs.meta.namespace(), vs.meta.name());
    // A name stays where a position may move.
    let id =
        if rule.is_empty() { format!("{namespace}/{name}/{position}") } else { format!("{namespace}/{name}/{rule}") };
    Some(RateLimit { id: id.into(), requests, per, burst, per_source })
}

fn route_name(route: &str, item: &str) -> Arc<str> {
    match (route, item) {
        ("", "") => "default".into(),
        (name, "") | ("", name) => name.into(),
        (route, item) => format!("{route}.{item}").into(),
    }
}

/// Whether an item that is for these gateways is for those who come this way. A VirtualService that is looked at is
/// bound already.
pub(super) fn comes_through(gateways: &[Arc<str>], gateway: Option<&str>, vs: &VirtualService) -> bool {
    match gateway {
        None => is_for_mesh(gateways),
        Some(own) => gateways.is_empty() || gateways.iter().any(|name| gateways::full_name(name, &vs.meta) == *own),
    }
}

/// The items of a route that are for this port, this way in and these clients; `None` when it has items and none is.
fn surviving<'r>(
    entry: &'r Entry<'_>,
    port: u16,
    client: &Client,
    gateway: Option<&str>,
) -> Option<Vec<&'r HttpMatchItem>> {
    let route: &HttpRoute = &entry.route;
    let items: Vec<&HttpMatchItem> = route
        .items
        .iter()
        .filter(|item| {
            comes_through(&item.gateways, gateway, entry.vs) && item.port.is_none_or(|wanted| wanted == port)
        })
        .filter(|item| item.source_in_force().is_none_or(|source| client.fits(source)))
        .collect();
    (route.items.is_empty() || !items.is_empty()).then_some(items)
}

/// Whether one of these has an HTTP rule for this port and these clients of the mesh.
pub(super) fn any_for(rules: &[&VirtualService], delegations: &Delegations<'_>, client: &Client, port: u16) -> bool {
    rules.iter().any(|vs| delegations.entries(vs).any(|entry| surviving(&entry, port, client, None).is_some()))
}

/// The services that the rules of some layers may send to.
pub(super) fn targets<'r, 's>(
    layers: &'r [Layer<'s>],
    delegations: &'r Delegations<'s>,
    registry: &'r Registry<'_>,
    cluster_domain: &'r str,
) -> impl Iterator<Item = usize> + 'r {
    layers.iter().flat_map(|layer| &layer.rules).flat_map(move |vs| {
        let layer4 =
            vs.tls.iter().map(|route| &route.destinations).chain(vs.tcp.iter().map(|route| &route.destinations));
        let mut hosts: Vec<Arc<str>> = Vec::new();
        let mut send = |vs: &VirtualService, host: &str| hosts.push(expand(host, vs.meta.namespace(), cluster_domain));
        layer4.flatten().for_each(|destination| send(vs, &destination.host));
        for entry in delegations.entries(vs) {
            entry.route.all_destinations().for_each(|destination| send(entry.vs, &destination.host));
        }
        hosts.into_iter().filter_map(|host| registry.find(&host))
    })
}

/// The rules of every service in one view.
pub(super) fn rules_of<'s>(
    hosts: &Hosts<'s>,
    registry: &Registry<'s>,
    client: &Client,
    findings: &mut Findings,
) -> Vec<Layers<'s>> {
    registry.services.iter().map(|service| hosts.resolve(client, &service.fqdn, findings)).collect()
}
