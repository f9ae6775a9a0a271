//! VirtualService: hosts, and rules for HTTP, TLS and TCP. The typed words of the users; what they come to is
//! `compile`'s.
//!
//! - `http`: entries of `http[]` and what they do
//! - `matches`: items of `http[].match[]`
//! - `settings`: timeouts, retries, faults, mirrors, CORS
//! - `rewrite`: rewrites, redirects and direct responses
//! - `headers`: changes of headers
//! - `layer4`: entries of `tls[]` and `tcp[]`

use std::sync::Arc;

use super::Notes;
use super::fields::{Fault, Fields};
use super::meta::Metadata;
use super::node::Mark;
use super::regex::shared_regexes;
use crate::matching::Pattern;

mod headers;
mod http;
mod layer4;
mod matches;
mod regexes;
mod rewrite;
mod settings;

pub use http::{Action, Delegate, HttpRoute, HttpSettings, Mirror, RouteDestination};
pub use layer4::{Layer4Match, TcpRoute, TlsMatchItem, TlsRoute};
pub use matches::{HttpMatchItem, SourceMatch};

/// A host in lower case, and where it stands.
type Host = (Arc<str>, Mark);

/// A VirtualService.
#[derive(Clone, Debug)]
pub struct VirtualService {
    /// Name, age.
    pub meta: Metadata,
    /// `spec.hosts` in lower case, as written. Empty for one that others delegate to.
    pub hosts: Box<[(Arc<str>, Mark)]>,
    /// `spec.gateways`; empty = the mesh.
    pub gateways: Box<[Arc<str>]>,
    /// `spec.exportTo`; empty = everybody.
    pub export_to: Box<[Arc<str>]>,
    /// `spec.http`
    pub http: Box<[HttpRoute]>,
    /// `spec.tls`
    pub tls: Box<[TlsRoute]>,
    /// `spec.tcp`
    pub tcp: Box<[TcpRoute]>,
    /// The regular expressions of its HTTP rules, each once.
    pub regexes: Box<[Pattern]>,
}

impl VirtualService {
    pub(super) fn decode(meta: Metadata, root: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let mut spec = root.required_map("spec")?;
        let gateways = texts(&mut spec, "gateways")?;
        let in_mesh = is_for_mesh(&gateways);
        let hosts = hosts(&mut spec, in_mesh)?;
        let export_to = texts(&mut spec, "exportTo")?;
        let http = all(spec.maps("http")?, |fields| HttpRoute::decode(fields, notes))?;
        let tls = all(spec.maps("tls")?, |fields| TlsRoute::decode(fields, notes))?;
        let tcp = all(spec.maps("tcp")?, |fields| TcpRoute::decode(fields, notes))?;
        if http.is_empty() && tcp.is_empty() && tls.is_empty() {
            return Err(Fault::new(spec.mark, "spec", "one of `http`, `tcp` and `tls` must be given"));
        }
        let mut decoded = Self { meta, hosts, gateways, export_to, http, tls, tcp, regexes: Box::default() };
        let regexes = shared_regexes(|share| decoded.each_regex(share));
        decoded.regexes = regexes.map_err(|why| Fault::new(spec.mark, "spec.http", why))?;
        Ok(decoded)
    }

    /// True when it is for clients in the mesh, and not for gateways alone.
    pub fn in_mesh(&self) -> bool {
        is_for_mesh(&self.gateways)
    }

    /// True when others may delegate to it, and it is for nobody by itself.
    pub fn is_delegate(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Everywhere that its own rules send, mirrors included.
    pub fn destinations(&self) -> impl Iterator<Item = &RouteDestination> {
        let http = self.http.iter().flat_map(HttpRoute::all_destinations);
        let tls = self.tls.iter().flat_map(|route| &route.destinations);
        http.chain(tls).chain(self.tcp.iter().flat_map(|route| &route.destinations))
    }

    /// To whom it delegates.
    pub fn delegates(&self) -> impl Iterator<Item = &Delegate> {
        self.http.iter().filter_map(|route| match &route.action {
            Action::Delegate(delegate) => Some(&**delegate),
            _ => None,
        })
    }

    /// The conditions on clients of its items.
    pub fn sources(&self) -> impl Iterator<Item = &SourceMatch> {
        let http = self.http.iter().flat_map(|route| &route.items).filter_map(HttpMatchItem::source_in_force);
        let tls = self.tls.iter().flat_map(|route| &route.items).map(|item| &item.conditions);
        let tcp = self.tcp.iter().flat_map(|route| &route.items);
        http.chain(tls.chain(tcp).filter_map(Layer4Match::source_in_force))
    }
}

/// `mesh` is implied only where no gateway is given.
pub(crate) fn is_for_mesh(gateways: &[Arc<str>]) -> bool {
    gateways.is_empty() || gateways.iter().any(|gateway| &**gateway == "mesh")
}

fn all<'n, T>(maps: Vec<Fields<'n>>, decode: impl FnMut(Fields<'n>) -> Result<T, Fault>) -> Result<Box<[T]>, Fault> {
    maps.into_iter().map(decode).collect()
}

fn hosts(spec: &mut Fields<'_>, in_mesh: bool) -> Result<Box<[Host]>, Fault> {
    let mut hosts: Vec<Host> = Vec::new();
    for (host, mark) in spec.texts("hosts")? {
        let host = host.to_ascii_lowercase();
        let path = spec.path_of("hosts");
        if host == "*" {
            if in_mesh {
                return Err(Fault::new(mark, path, "`*` is allowed only where `gateways` does not hold `mesh`"));
            }
        } else if !is_host(&host) {
            return Err(Fault::new(mark, path, format!("`{host}` is no host name")));
        }
        if hosts.iter().any(|(other, _)| **other == *host) {
            return Err(Fault::new(mark, path, format!("`{host}` is given twice")));
        }
        hosts.push((host.into(), mark));
    }
    Ok(hosts.into())
}

/// A DNS name, its first label with a `*` before it or not, or an IP address.
pub(super) fn is_host(name: &str) -> bool {
    let name = name.strip_prefix('*').map_or(name, |rest| rest.trim_start_matches(['.', '-']));
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            // `outbound_` is the first label of TLS that is passed through from gateway to gateway.
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    (name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(label))
        || name.parse::<std::net::IpAddr>().is_ok()
}

fn texts(fields: &mut Fields<'_>, key: &str) -> Result<Box<[Arc<str>]>, Fault> {
    Ok(fields.texts(key)?.into_iter().map(|(text, _)| Arc::from(text)).collect())
}

/// 0 is as if it were not there.
fn matched_port(fields: &mut Fields<'_>) -> Result<Option<u16>, Fault> {
    Ok(fields.integer("port", 0..=65535)?.filter(|port| *port != 0).map(|port| port as u16))
}
