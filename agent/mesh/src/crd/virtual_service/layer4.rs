//! Entries of `tls[]` and `tcp[]`.

use std::sync::Arc;

use super::http::{RouteDestination, destinations};
use super::matches::{SourceMatch, note_conditions};
use super::{all, matched_port, texts};
use crate::crd::Notes;
use crate::crd::fields::{Fault, Fields};
use crate::crd::node::Mark;
use crate::program::Subnet;

/// One entry of `tcp[]`.
#[derive(Clone, Debug)]
pub struct TcpRoute {
    /// Where it stands.
    pub mark: Mark,
    /// Alternatives; empty = takes everything.
    pub items: Box<[Layer4Match]>,
    /// Where it goes.
    pub destinations: Box<[RouteDestination]>,
}

/// One entry of `tls[]`.
#[derive(Clone, Debug)]
pub struct TlsRoute {
    /// Where it stands.
    pub mark: Mark,
    /// Alternatives.
    pub items: Box<[TlsMatchItem]>,
    /// Where it goes.
    pub destinations: Box<[RouteDestination]>,
}

/// One item of `tls[].match[]`.
#[derive(Clone, Debug)]
pub struct TlsMatchItem {
    /// In lower case; `*.example.com` takes what ends in `.example.com`.
    pub sni_hosts: Box<[Arc<str>]>,
    /// All else.
    pub conditions: Layer4Match,
}

/// The conditions on a connection.
#[derive(Clone, Debug, Default)]
pub struct Layer4Match {
    /// The dialled port.
    pub port: Option<u16>,
    /// Overrides the VirtualService's gateways for this item; empty = does not.
    pub gateways: Box<[Arc<str>]>,
    /// The dialled addresses; empty = all.
    pub subnets: Box<[Subnet]>,
    /// Which clients.
    pub source: Option<Box<SourceMatch>>,
    /// It has a condition that nobody can evaluate, so it takes nothing.
    pub never: bool,
}

impl Layer4Match {
    fn decode(mut fields: Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let port = matched_port(&mut fields)?;
        let gateways = texts(&mut fields, "gateways")?;
        let source = SourceMatch::decode(&mut fields)?;
        let path = fields.path_of("destinationSubnets");
        let subnets = fields.texts("destinationSubnets")?.into_iter().map(|(text, mark)| {
            let message = || format!("`{text}` must be an address, or a range such as 10.0.0.0/8");
            Subnet::parse(text).ok_or_else(|| Fault::new(mark, path.clone(), message()))
        });
        let subnets = subnets.collect::<Result<_, _>>()?;
        Ok(Self { port, gateways, subnets, source, never: note_conditions(&fields, notes) })
    }

    /// The condition on clients. An item that names gateways is for whoever comes through them.
    pub fn source_in_force(&self) -> Option<&SourceMatch> {
        self.source.as_deref().filter(|_| self.gateways.is_empty())
    }
}

impl TcpRoute {
    pub(super) fn decode(mut fields: Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let items = all(fields.maps("match")?, |item| Layer4Match::decode(item, notes))?;
        let destinations = layer4_destinations(&mut fields, notes)?;
        Ok(Self { mark: fields.mark, items, destinations })
    }
}

impl TlsRoute {
    pub(super) fn decode(mut fields: Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let items = all(fields.maps("match")?, |mut item| {
            let hosts = item.texts("sniHosts")?.into_iter();
            let sni_hosts: Box<[Arc<str>]> = hosts.map(|(host, _)| host.to_ascii_lowercase().into()).collect();
            if sni_hosts.is_empty() {
                return Err(Fault::new(item.mark, item.path_of("sniHosts"), "must name at least one host"));
            }
            Ok(TlsMatchItem { sni_hosts, conditions: Layer4Match::decode(item, notes)? })
        })?;
        let destinations = layer4_destinations(&mut fields, notes)?;
        Ok(Self { mark: fields.mark, items, destinations })
    }
}

fn layer4_destinations(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Box<[RouteDestination]>, Fault> {
    let destinations = destinations(fields, notes)?;
    if destinations.is_empty() {
        return Err(Fault::new(fields.mark, fields.path_of("route"), "must have a destination"));
    }
    Ok(destinations)
}
