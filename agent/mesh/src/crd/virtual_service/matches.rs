//! Items of `http[].match[]`.

use std::sync::Arc;

use ::http::HeaderName;

use super::{matched_port, texts};
use crate::crd::Notes;
use crate::crd::fields::{Fault, Fields};
use crate::crd::meta::{Labels, labels};
use crate::crd::node::{Mark, Value};
use crate::crd::regex::full_regex;
use crate::finding::Severity;
use crate::matching::{HeaderMatch, HttpMatch, MoreConditions, QueryMatch, StringMatch};

/// One item of `http[].match[]`.
#[derive(Clone, Debug)]
pub struct HttpMatchItem {
    /// Where it stands.
    pub mark: Mark,
    /// `name`, or empty.
    pub name: Arc<str>,
    /// What is looked at in each request.
    pub conditions: HttpMatch,
    /// The dialled port.
    pub port: Option<u16>,
    /// Overrides the VirtualService's gateways for this item; empty = does not.
    pub gateways: Box<[Arc<str>]>,
    /// Which clients.
    pub source: Option<Box<SourceMatch>>,
    /// It has a condition that nobody can evaluate, so it takes nothing.
    pub never: bool,
}

/// `sourceLabels` and `sourceNamespace`: which clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceMatch {
    /// All of these are among the client's.
    pub labels: Labels,
    /// The client's namespace; `None` = any.
    pub namespace: Option<Arc<str>>,
}

impl SourceMatch {
    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Option<Box<Self>>, Fault> {
        let labels = labels(fields, "sourceLabels")?;
        let namespace = fields.text("sourceNamespace")?.filter(|name| !name.is_empty()).map(Arc::from);
        let source = Self { labels, namespace };
        Ok((source != Self::default()).then(|| Box::new(source)))
    }
}

impl HttpMatchItem {
    pub(super) fn decode(mut fields: Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let name = fields.text("name")?.unwrap_or_default().into();
        let ignore_case = fields.boolean("ignoreUriCase")?.unwrap_or(false);
        let uri = string_match(&mut fields, "uri", true)?.map(|uri| if ignore_case { without_case(uri) } else { uri });
        let method = string_match(&mut fields, "method", false)?;
        let mut claims = false;
        let headers = headers(&mut fields, "headers", notes, &mut claims)?;
        let more = MoreConditions {
            scheme: string_match(&mut fields, "scheme", false)?,
            authority: string_match(&mut fields, "authority", false)?,
            without_headers: self::headers(&mut fields, "withoutHeaders", notes, &mut claims)?,
            query_params: query_params(&mut fields)?,
        };
        let more = (more != MoreConditions::default()).then(|| Box::new(more));
        let port = matched_port(&mut fields)?;
        let gateways = texts(&mut fields, "gateways")?;
        let source = SourceMatch::decode(&mut fields)?;
        // A name for statistics that Envoy alone keeps.
        fields.entry("statPrefix");
        let never = note_conditions(&fields, notes) || claims;
        let conditions = HttpMatch { uri, method, headers, more };
        Ok(Self { mark: fields.mark, name, conditions, port, gateways, source, never })
    }

    /// The condition on clients. An item that names gateways is for whoever comes through them.
    pub fn source_in_force(&self) -> Option<&SourceMatch> {
        self.source.as_deref().filter(|_| self.gateways.is_empty())
    }

    /// True when it takes every request of every client in the mesh.
    pub fn takes_everything(&self) -> bool {
        !self.never
            && self.port.is_none()
            && self.gateways.is_empty()
            && self.source.is_none()
            && self.conditions.is_catch_all()
    }
}

/// True when conditions are left that nobody can evaluate. What they restrict must not match without them.
pub(super) fn note_conditions(fields: &Fields<'_>, notes: &mut Notes<'_>) -> bool {
    let mut never = false;
    for entry in fields.rest() {
        never = true;
        note_never(notes, entry.mark, &fields.path_of(&entry.key));
    }
    never
}

pub(super) fn note_never(notes: &mut Notes<'_>, mark: Mark, path: &str) {
    let instead = "this match takes nothing, so that it does not take more than was meant";
    notes.unsupported(Severity::Error, mark, path, instead);
}

fn headers(
    fields: &mut Fields<'_>,
    key: &str,
    notes: &mut Notes<'_>,
    claims: &mut bool,
) -> Result<Box<[HeaderMatch]>, Fault> {
    let Some(mut map) = fields.map(key)? else {
        return Ok(Box::default());
    };
    let mut headers = Vec::new();
    for entry in map.entries() {
        let key = &*entry.key;
        // Istio's own words for parts of the request that are no headers: ignored there, so ignored here.
        if matches!(key, "uri" | "scheme" | "method" | "authority") {
            continue;
        }
        // A claim of a token, which only a gateway has looked at.
        if key.starts_with('@') {
            *claims = true;
            note_never(notes, entry.mark, &map.path_of(key));
            continue;
        }
        let name = HeaderName::from_bytes(key.as_bytes())
            .map_err(|_| Fault::new(entry.mark, map.path_of(key), "is no header name"))?;
        headers.push(HeaderMatch { name, value: present_or(&mut map, key, &entry.node.value)? });
    }
    Ok(headers.into())
}

fn query_params(fields: &mut Fields<'_>) -> Result<Box<[QueryMatch]>, Fault> {
    let Some(mut map) = fields.map("queryParams")? else {
        return Ok(Box::default());
    };
    let entries = map.entries();
    let decode = |entry: &crate::crd::node::Entry| {
        let value = present_or(&mut map, &entry.key, &entry.node.value)?;
        Ok(QueryMatch { name: entry.key.clone(), value })
    };
    entries.iter().map(decode).collect()
}

/// `{}` asks for presence alone.
fn present_or(map: &mut Fields<'_>, key: &str, value: &Value) -> Result<StringMatch, Fault> {
    let empty = matches!(value, Value::Map(m) if m.is_empty()) || matches!(value, Value::Null);
    if empty {
        return Ok(StringMatch::Present);
    }
    Ok(string_match(map, key, false)?.unwrap_or(StringMatch::Present))
}

/// `{exact: …}`, `{prefix: …}` or `{regex: …}`.
pub(super) fn string_match(
    fields: &mut Fields<'_>,
    key: &str,
    empty_prefix: bool,
) -> Result<Option<StringMatch>, Fault> {
    let Some(node) = fields.node(key) else {
        return Ok(None);
    };
    let mut given = Fields::of(node, fields.path_of(key))?;
    // Nothing is asked for.
    if given.entries().is_empty() {
        return Ok(None);
    }
    one_match(&mut given, empty_prefix).map(Some)
}

/// One of `exact`, `prefix` and `regex`.
pub(super) fn one_match(given: &mut Fields<'_>, empty_prefix: bool) -> Result<StringMatch, Fault> {
    let mark = given.mark;
    let exact = given.text("exact")?.map(|s| StringMatch::Exact(s.into()));
    let prefix = match given.text("prefix")? {
        Some("") if !empty_prefix => {
            return Err(Fault::new(mark, given.path_of("prefix"), "must not be empty"));
        }
        other => other.map(|s| StringMatch::Prefix(s.into())),
    };
    let regex = match given.text("regex")? {
        // Istio's spelling of "there at all".
        Some("*") => Some(StringMatch::Present),
        Some(pattern) => {
            let regex = full_regex(pattern).map_err(|why| Fault::new(mark, given.path_of("regex"), why))?;
            Some(StringMatch::Regex(regex))
        }
        None => None,
    };
    let unknown = given.rest().next().is_some();
    let mut kinds = [exact, prefix, regex].into_iter().flatten();
    match (kinds.next(), kinds.next(), unknown) {
        (Some(only), None, false) => Ok(only),
        _ => Err(Fault::new(mark, given.path.clone(), "must have one of `exact`, `prefix` and `regex`")),
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
