//! From TLS and TCP rules to [`TlsRule`]s and [`TcpRule`]s, as the clients of one view have them.

use std::net::IpAddr;

use super::destinations::Router;
use super::hosts::Layer;
use super::routes::comes_through;
use super::visibility::Client;
use crate::crd::{Layer4Match, VirtualService};
use crate::program::{TcpRule, TlsRule, WeightedCluster};

/// The TCP rules of a host on one port. Not empty.
pub(super) struct TcpRules<'s> {
    /// In order; if one takes every address, it is the last.
    pub(super) rules: Vec<TcpRule>,
    /// The VirtualService that the first is from.
    pub(super) because: &'s VirtualService,
}

/// The TLS rules of a host on one port. Not empty.
pub(super) struct TlsRules<'s> {
    /// In order.
    pub(super) rules: Vec<TlsRule>,
    /// The VirtualService that the first is from.
    pub(super) because: &'s VirtualService,
}

impl TlsRules<'_> {
    /// Where connections go, whatever name they ask for.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &[WeightedCluster]> {
        self.rules.iter().map(|rule| &*rule.destinations)
    }
}

impl TcpRules<'_> {
    /// Where connections to an address go; `None` = to the plain service.
    pub(super) fn toward(&self, dialled: IpAddr) -> Option<&[WeightedCluster]> {
        self.rules.iter().find(|rule| rule.takes(dialled)).map(|rule| &*rule.destinations)
    }

    /// Whether none is left to the plain service.
    pub(super) fn takes_everything(&self) -> bool {
        self.rules.last().is_some_and(|rule| rule.subnets.is_empty())
    }

    /// Where connections go, whatever they dial.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &[WeightedCluster]> {
        self.rules.iter().map(|rule| &*rule.destinations)
    }
}

impl<'s> Router<'_, 's, '_> {
    /// The TCP rules of the first layer that has one for the dialled port and these clients.
    pub(super) fn tcp_in(&mut self, layers: &[Layer<'s>], port: u16) -> Option<TcpRules<'s>> {
        layers.iter().find_map(|layer| self.tcp(&layer.rules, port))
    }

    /// The TLS rules of the first layer that has one for the dialled port and these clients, in order.
    pub(super) fn tls_in(&mut self, layers: &[Layer<'s>], port: u16) -> Option<TlsRules<'s>> {
        layers.iter().find_map(|layer| self.tls(&layer.rules, port))
    }

    /// The TCP rules of `rules` on the dialled port. `None`: none of them is for this port and these clients.
    pub(super) fn tcp(&mut self, rules: &[&'s VirtualService], port: u16) -> Option<TcpRules<'s>> {
        let mut because = None;
        let mut compiled: Vec<TcpRule> = Vec::new();
        for vs in rules {
            for route in &vs.tcp {
                let (client, gateway) = (self.client, self.gateway);
                let items: Vec<_> =
                    route.items.iter().filter(|item| survives(item, vs, port, client, gateway)).collect();
                if !route.items.is_empty() && items.is_empty() {
                    continue;
                }
                because.get_or_insert(*vs);
                let everywhere = items.iter().any(|item| item.subnets.is_empty()) || route.items.is_empty();
                let subnets = items.iter().flat_map(|item| &item.subnets).copied();
                let subnets = if everywhere { Box::default() } else { subnets.collect() };
                compiled.push(TcpRule { subnets, destinations: self.destinations(vs, &route.destinations, port) });
                if everywhere {
                    return because.map(|because| TcpRules { rules: compiled, because });
                }
            }
        }
        because.map(|because| TcpRules { rules: compiled, because })
    }

    /// The TLS rules of `rules` on the dialled port. `None`: none of them is for this port and these clients.
    pub(super) fn tls(&mut self, rules: &[&'s VirtualService], port: u16) -> Option<TlsRules<'s>> {
        let mut because = None;
        let mut compiled = Vec::new();
        for vs in rules {
            for route in &vs.tls {
                let (client, gateway) = (self.client, self.gateway);
                let items: Vec<_> =
                    route.items.iter().filter(|i| survives(&i.conditions, vs, port, client, gateway)).collect();
                if items.is_empty() {
                    continue;
                }
                because.get_or_insert(*vs);
                let destinations = self.destinations(vs, &route.destinations, port);
                compiled.extend(items.into_iter().map(|item| TlsRule {
                    sni_hosts: item.sni_hosts.clone(),
                    subnets: item.conditions.subnets.clone(),
                    destinations: destinations.clone(),
                }));
            }
        }
        because.map(|because| TlsRules { rules: compiled, because })
    }
}

/// Whether one of these has a TCP or TLS rule for this port and these clients of the mesh.
pub(super) fn any_for(rules: &[&VirtualService], client: &Client, port: u16) -> bool {
    let fits = |item: &Layer4Match, vs: &VirtualService| survives(item, vs, port, client, None);
    rules.iter().any(|vs| {
        vs.tcp.iter().any(|route| route.items.is_empty() || route.items.iter().any(|item| fits(item, vs)))
            || vs.tls.iter().flat_map(|route| &route.items).any(|item| fits(&item.conditions, vs))
    })
}

/// Whether an item is for this port, this way in and these clients.
fn survives(item: &Layer4Match, vs: &VirtualService, port: u16, client: &Client, gateway: Option<&str>) -> bool {
    !item.never
        && comes_through(&item.gateways, gateway, vs)
        && item.port.is_none_or(|wanted| wanted == port)
        && item.source_in_force().is_none_or(|source| client.fits(source))
}
