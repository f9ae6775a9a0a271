//! VirtualService: hosts, HTTP rules with their matches and weights, TCP routes.

use std::sync::Arc;

use http::HeaderName;

use super::Notes;
use super::fields::{Fault, Fields};
use super::meta::Metadata;
use super::node::{Mark, Value};
use super::regex::full_regex;
use crate::finding::Severity;
use crate::matching::{HeaderMatch, HttpMatch, StringMatch};

/// A weight is an int32 in Istio's schema.
const MAX_WEIGHT: i64 = i32::MAX as i64;

/// A VirtualService.
#[derive(Clone, Debug)]
pub struct VirtualService {
    /// Name, age.
    pub meta: Metadata,
    /// `spec.hosts` in lower case, as written.
    pub hosts: Vec<(Arc<str>, Mark)>,
    /// `spec.gateways`; empty = the mesh.
    pub gateways: Vec<Arc<str>>,
    /// `spec.exportTo`; empty = everybody.
    pub export_to: Vec<Arc<str>>,
    /// `spec.http`
    pub http: Vec<HttpRoute>,
    /// `spec.tcp`
    pub tcp: Vec<TcpRoute>,
}

/// One entry of `http[]`.
#[derive(Clone, Debug)]
pub struct HttpRoute {
    /// Where it stands.
    pub mark: Mark,
    /// `name`, or empty.
    pub name: Arc<str>,
    /// Alternatives; empty = takes everything.
    pub items: Vec<HttpMatchItem>,
    /// What is done with what it takes.
    pub action: Action,
}

/// What an HTTP rule does.
#[derive(Clone, Debug)]
pub enum Action {
    /// `route`
    Forward(Vec<RouteDestination>),
    /// The field that says so is not supported yet; such a request is answered with an error, not sent elsewhere.
    Unsupported(&'static str),
}

/// One item of `http[].match[]`.
#[derive(Clone, Debug)]
pub struct HttpMatchItem {
    /// `name`, or empty.
    pub name: Arc<str>,
    /// What is looked at in each request.
    pub conditions: HttpMatch,
    /// The dialled port.
    pub port: Option<u16>,
    /// Overrides the VirtualService's gateways for this item; empty = does not.
    pub gateways: Vec<Arc<str>>,
    /// It has a condition that this version cannot evaluate, so it takes nothing.
    pub never: bool,
}

/// One entry of `tcp[]`.
#[derive(Clone, Debug)]
pub struct TcpRoute {
    /// Where it stands.
    pub mark: Mark,
    /// Alternatives; empty = takes everything.
    pub items: Vec<TcpMatchItem>,
    /// Where it goes.
    pub destinations: Vec<RouteDestination>,
}

/// One item of `tcp[].match[]`.
#[derive(Clone, Debug)]
pub struct TcpMatchItem {
    /// The dialled port.
    pub port: Option<u16>,
    /// As in [`HttpMatchItem::gateways`].
    pub gateways: Vec<Arc<str>>,
    /// As in [`HttpMatchItem::never`].
    pub never: bool,
}

/// A weighted destination.
#[derive(Clone, Debug)]
pub struct RouteDestination {
    /// Where it stands.
    pub mark: Mark,
    /// As written, in lower case.
    pub host: Arc<str>,
    /// Empty = the plain service.
    pub subset: Arc<str>,
    /// `port.number`
    pub port: Option<u16>,
    /// `weight`; `None` when not given.
    pub weight: Option<u32>,
}

impl VirtualService {
    pub(super) fn decode(meta: Metadata, root: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let mut spec = root.required_map("spec")?;
        let gateways = texts(&mut spec, "gateways")?;
        let in_mesh = gateways.is_empty() || gateways.iter().any(|g| &**g == "mesh");
        let hosts = hosts(&mut spec, in_mesh)?;
        let export_to = texts(&mut spec, "exportTo")?;
        let http =
            spec.maps("http")?.into_iter().map(|f| HttpRoute::decode(f, notes)).collect::<Result<Vec<_>, _>>()?;
        let tcp = spec.maps("tcp")?.into_iter().map(|f| TcpRoute::decode(f, notes)).collect::<Result<Vec<_>, _>>()?;
        let tls = spec.entry("tls");
        if let Some(tls) = tls {
            let instead = "TLS connections go to the service that was dialled";
            notes.unsupported(Severity::Error, tls.mark, &spec.path_of("tls"), instead);
        }
        if http.is_empty() && tcp.is_empty() && tls.is_none() {
            return Err(Fault::new(spec.mark, "spec", "one of `http`, `tcp` and `tls` must be given"));
        }
        note_rest(&spec, notes, &[]);
        Ok(Self { meta, hosts, gateways, export_to, http, tcp })
    }

    /// True when it is for clients in the mesh, and not for gateways alone.
    pub fn in_mesh(&self) -> bool {
        self.gateways.is_empty() || self.gateways.iter().any(|g| &**g == "mesh")
    }
}

fn hosts(spec: &mut Fields<'_>, in_mesh: bool) -> Result<Vec<(Arc<str>, Mark)>, Fault> {
    let mut hosts: Vec<(Arc<str>, Mark)> = Vec::new();
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
    // Without hosts it is one that others delegate to.
    Ok(hosts)
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

/// A field of an HTTP rule that is not supported yet: how bad it is to go without, and what happens.
const HTTP_UNSUPPORTED: &[(&str, Severity, &str)] = &[
    ("rewrite", Severity::Error, "requests are forwarded with the path and host that the client sent"),
    ("timeout", Severity::Warning, "requests wait as long as the client does"),
    ("retries", Severity::Warning, "a failed request is not repeated"),
    ("mirror", Severity::Warning, "nothing is mirrored"),
    ("mirrors", Severity::Warning, "nothing is mirrored"),
    ("mirrorPercent", Severity::Warning, "nothing is mirrored"),
    ("mirror_percent", Severity::Warning, "nothing is mirrored"),
    ("mirrorPercentage", Severity::Warning, "nothing is mirrored"),
    ("headers", Severity::Warning, "headers are forwarded as they are"),
    ("corsPolicy", Severity::Warning, "the application answers preflight requests"),
];

impl HttpRoute {
    fn decode(mut fields: Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let name = fields.text("name")?.unwrap_or_default().into();
        let items = fields
            .maps("match")?
            .into_iter()
            .map(|item| HttpMatchItem::decode(item, notes))
            .collect::<Result<Vec<_>, _>>()?;
        let destinations = destinations(&mut fields, notes)?;
        let mut action = (!destinations.is_empty()).then_some(Action::Forward(destinations));
        for field in ["redirect", "directResponse", "delegate"] {
            let Some(entry) = fields.entry(field) else {
                continue;
            };
            if action.is_some() {
                let message = "excludes `route` and every other of redirect, directResponse and delegate";
                return Err(Fault::new(entry.mark, fields.path_of(field), message));
            }
            let instead = "requests that this rule takes are answered with 503";
            notes.unsupported(Severity::Error, entry.mark, &fields.path_of(field), instead);
            action = Some(Action::Unsupported(field));
        }
        let Some(action) = action else {
            return Err(Fault::new(
                fields.mark,
                fields.path.clone(),
                "one of `route`, `redirect` and `directResponse` must be given",
            ));
        };
        fault_injection(&mut fields, notes)?;
        note_rest(&fields, notes, HTTP_UNSUPPORTED);
        Ok(Self { mark: fields.mark, name, items, action })
    }
}

fn fault_injection(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<(), Fault> {
    let Some(fault) = fields.map("fault")? else {
        return Ok(());
    };
    note_rest(
        &fault,
        notes,
        &[
            ("abort", Severity::Error, "no request is aborted: all of them are forwarded"),
            ("delay", Severity::Warning, "no request is delayed"),
        ],
    );
    Ok(())
}

impl HttpMatchItem {
    fn decode(mut fields: Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let name = fields.text("name")?.unwrap_or_default().into();
        let ignore_case = fields.boolean("ignoreUriCase")?.unwrap_or(false);
        let uri = string_match(&mut fields, "uri", true)?.map(|uri| if ignore_case { without_case(uri) } else { uri });
        let method = string_match(&mut fields, "method", false)?;
        let (headers, claims) = headers(&mut fields, notes)?;
        let port = matched_port(&mut fields)?;
        let gateways = texts(&mut fields, "gateways")?;
        // A name for statistics that Envoy alone keeps.
        fields.entry("statPrefix");
        let never = note_conditions(&fields, notes) || claims;
        Ok(Self { name, conditions: HttpMatch { uri, method, headers: headers.into() }, port, gateways, never })
    }
}

/// 0 is as if it were not there.
fn matched_port(fields: &mut Fields<'_>) -> Result<Option<u16>, Fault> {
    Ok(fields.integer("port", 0..=65535)?.filter(|port| *port != 0).map(|port| port as u16))
}

/// True when conditions are left that nobody can evaluate. What they restrict must not match without them.
fn note_conditions(fields: &Fields<'_>, notes: &mut Notes<'_>) -> bool {
    let mut never = false;
    for entry in fields.rest() {
        never = true;
        let instead = "this match takes nothing, so that it does not take more than was meant";
        notes.unsupported(Severity::Error, entry.mark, &fields.path_of(&entry.key), instead);
    }
    never
}

/// With true when claims of a token are asked for, which nobody can evaluate.
fn headers(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<(Vec<HeaderMatch>, bool), Fault> {
    let Some(mut map) = fields.map("headers")? else {
        return Ok((Vec::new(), false));
    };
    let mut headers = Vec::new();
    let mut claims = false;
    for entry in map.entries() {
        let key = &*entry.key;
        // Istio's own words for parts of the request that are no headers: ignored there, so ignored here.
        if matches!(key, "uri" | "scheme" | "method" | "authority") {
            continue;
        }
        if key.starts_with('@') {
            claims = true;
            let instead = "this match takes nothing, so that it does not take more than was meant";
            notes.unsupported(Severity::Error, entry.mark, &map.path_of(key), instead);
            continue;
        }
        let name = HeaderName::from_bytes(key.as_bytes())
            .map_err(|_| Fault::new(entry.mark, map.path_of(key), "is no header name"))?;
        let empty =
            matches!(&entry.node.value, Value::Map(m) if m.is_empty()) || matches!(entry.node.value, Value::Null);
        let value = if empty {
            StringMatch::Present
        } else {
            string_match(&mut map, key, false)?.unwrap_or(StringMatch::Present)
        };
        headers.push(HeaderMatch { name, value });
    }
    Ok((headers, claims))
}

/// `{exact: …}`, `{prefix: …}` or `{regex: …}`.
fn string_match(fields: &mut Fields<'_>, key: &str, empty_prefix: bool) -> Result<Option<StringMatch>, Fault> {
    let Some(node) = fields.node(key) else {
        return Ok(None);
    };
    let mut given = Fields::of(node, fields.path_of(key))?;
    // Nothing is asked for.
    if given.entries().is_empty() {
        return Ok(None);
    }
    let exact = given.text("exact")?.map(|s| StringMatch::Exact(s.into()));
    let prefix = match given.text("prefix")? {
        Some("") if !empty_prefix => {
            return Err(Fault::new(node.mark, given.path_of("prefix"), "must not be empty"));
        }
        other => other.map(|s| StringMatch::Prefix(s.into())),
    };
    let regex = match given.text("regex")? {
        // Istio's spelling of "there at all".
        Some("*") => Some(StringMatch::Present),
        Some(pattern) => {
            let regex = full_regex(pattern).map_err(|why| Fault::new(node.mark, given.path_of("regex"), why))?;
            Some(StringMatch::Regex(regex))
        }
        None => None,
    };
    let unknown = given.rest().next().is_some();
    let mut kinds = [exact, prefix, regex].into_iter().flatten();
    match (kinds.next(), kinds.next(), unknown) {
        (Some(only), None, false) => Ok(Some(only)),
        _ => Err(Fault::new(node.mark, given.path.clone(), "must have one of `exact`, `prefix` and `regex`")),
    }
}

/// `ignoreUriCase` applies to exact and prefix, not to regex.
fn without_case(uri: StringMatch) -> StringMatch {
    match uri {
        StringMatch::Exact(s) => StringMatch::ExactIgnoreCase(s.to_ascii_lowercase().into()),
        StringMatch::Prefix(s) => StringMatch::PrefixIgnoreCase(s.to_ascii_lowercase().into()),
        other => other,
    }
}

impl TcpRoute {
    fn decode(mut fields: Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let mut items = Vec::new();
        for mut item in fields.maps("match")? {
            let port = matched_port(&mut item)?;
            let gateways = texts(&mut item, "gateways")?;
            items.push(TcpMatchItem { port, gateways, never: note_conditions(&item, notes) });
        }
        let destinations = destinations(&mut fields, notes)?;
        if destinations.is_empty() {
            return Err(Fault::new(fields.mark, fields.path_of("route"), "must have a destination"));
        }
        note_rest(&fields, notes, &[]);
        Ok(Self { mark: fields.mark, items, destinations })
    }
}

fn destinations(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Vec<RouteDestination>, Fault> {
    let mut destinations = Vec::new();
    for mut route in fields.maps("route")? {
        let mut target = route.required_map("destination")?;
        let host = target.required_text("host")?.to_ascii_lowercase();
        if !is_host(&host) {
            return Err(Fault::new(target.mark, target.path_of("host"), format!("`{host}` is no host name")));
        }
        let port = match target.map("port")? {
            Some(mut port) => port.port("number")?,
            None => None,
        };
        destinations.push(RouteDestination {
            mark: target.mark,
            host: host.into(),
            subset: target.text("subset")?.unwrap_or_default().into(),
            port,
            weight: route.integer("weight", 0..=MAX_WEIGHT)?.map(|w| w as u32),
        });
        note_rest(&target, notes, &[]);
        note_rest(&route, notes, &[("headers", Severity::Warning, "headers are forwarded as they are")]);
    }
    if destinations.len() > 1 && destinations.iter().all(|d| d.weight.unwrap_or(0) == 0) {
        return Err(Fault::new(
            fields.mark,
            fields.path_of("route"),
            "all weights are 0: nothing could be sent anywhere",
        ));
    }
    Ok(destinations)
}

fn texts(fields: &mut Fields<'_>, key: &str) -> Result<Vec<Arc<str>>, Fault> {
    Ok(fields.texts(key)?.into_iter().map(|(text, _)| Arc::from(text)).collect())
}

/// Notes the fields of `known` that are there.
pub(super) fn note_rest(fields: &Fields<'_>, notes: &mut Notes<'_>, known: &[(&str, Severity, &str)]) {
    for entry in fields.rest() {
        let path = fields.path_of(&entry.key);
        // That there is no such field is told by the schema.
        if let Some((_, severity, instead)) = known.iter().find(|(key, ..)| *key == &*entry.key) {
            notes.unsupported(*severity, entry.mark, &path, instead);
        }
    }
}
