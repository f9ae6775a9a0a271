//! `headers` of a rule and of its destination: what is set, added and taken away of a request and of its response.
//! First the rule's changes, then the destination's. Called by `handler`.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, Version};
use weir_mesh::program::{HeaderChanges, HeaderOperations};

use super::body::Body;
use super::format::expand;
use super::plan::Plan;
use super::worker::Connection;

/// The changes that a plan asks for, in order.
fn operations<'p>(plan: &Plan<'p>) -> impl Iterator<Item = &'p HeaderOperations> + use<'p> {
    let of_rule = plan.settings().and_then(|settings| settings.headers.as_deref());
    let of_destination = plan.destination.and_then(|destination| destination.headers.as_deref());
    of_rule.into_iter().chain(of_destination)
}

/// Changes the request's headers.
pub(crate) fn of_request(plan: &Plan<'_>, connection: &Connection, request: &mut Request<Body>) {
    for operations in operations(plan) {
        let changes = &operations.request;
        let asked = uses_formats(changes).then(|| Asked::of(connection, request));
        let facts = Facts { plan, asked: asked.as_ref(), response: None, upstream: None };
        if let Some(host) = changes.authority.as_ref().and_then(|host| facts.value(host)) {
            request.headers_mut().insert(header::HOST, host);
        }
        change(request.headers_mut(), changes, &facts);
    }
}

/// Lets a client without a cookie come back to the endpoint that it was sent to, where a destination sticks to cookies.
pub(crate) fn remember<B>(plan: &Plan<'_>, response: &mut Response<B>) {
    let made = plan.affinity.and_then(|affinity| affinity.cookie?.header());
    if let Some(cookie) = made {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

/// What the changes of a response need to know of its request.
#[derive(Debug)]
pub(crate) struct Kept<'p> {
    plan: Plan<'p>,
    asked: Option<Asked>,
}

impl<'p> Kept<'p> {
    /// `None` where the response stays as it is.
    pub(crate) fn of(plan: &Plan<'p>, connection: &Connection, request: &Request<Body>) -> Option<Self> {
        let mut operations = operations(plan).peekable();
        operations.peek()?;
        let formats = operations.any(|operations| uses_formats(&operations.response));
        Some(Self { plan: *plan, asked: formats.then(|| Asked::of(connection, request)) })
    }

    /// Changes the response's headers.
    pub(crate) fn apply(&self, response: &mut Response<Body>, upstream: Option<SocketAddr>) {
        for operations in operations(&self.plan) {
            let changes = &operations.response;
            let before = uses_formats(changes).then(|| response.headers().clone());
            let facts = Facts { plan: &self.plan, asked: self.asked.as_ref(), response: before.as_ref(), upstream };
            change(response.headers_mut(), changes, &facts);
        }
    }
}

/// Taken away first, so that what is both removed and set is there.
fn change(headers: &mut HeaderMap, changes: &HeaderChanges, facts: &Facts<'_, '_>) {
    for name in changes.remove.iter().filter(|name| is_free(name)) {
        headers.remove(name);
    }
    for (name, value) in changes.set.iter().filter(|(name, _)| is_free(name)) {
        if let Some(value) = facts.value(value) {
            headers.insert(name, value);
        }
    }
    for (name, value) in changes.add.iter().filter(|(name, _)| is_free(name)) {
        if let Some(value) = facts.value(value) {
            headers.append(name, value);
        }
    }
}

/// Framing and what belongs to one hop are ours, and the host has a field of its own.
fn is_free(name: &HeaderName) -> bool {
    const OURS: [HeaderName; 6] = [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::HOST,
    ];
    !OURS.contains(name)
}

fn uses_formats(changes: &HeaderChanges) -> bool {
    let values = changes.set.iter().chain(&changes.add).map(|(_, value)| value).chain(&changes.authority);
    values.into_iter().any(|value| value.as_bytes().contains(&b'%'))
}

/// The request, as formats ask for it.
#[derive(Debug)]
struct Asked {
    method: Method,
    path: Box<str>,
    version: Version,
    headers: HeaderMap,
    peer: SocketAddr,
    dialled: SocketAddr,
}

impl Asked {
    fn of(connection: &Connection, request: &Request<Body>) -> Self {
        Self {
            method: request.method().clone(),
            path: request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).into(),
            version: request.version(),
            headers: request.headers().clone(),
            peer: connection.peer,
            dialled: connection.destination,
        }
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            ":method" => Some(self.method.as_str().into()),
            ":path" => Some((*self.path).into()),
            ":scheme" => Some("http".into()),
            ":authority" => text(&self.headers, "host"),
            name => text(&self.headers, name),
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<Cow<'h, str>> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
}

/// What formats stand for.
struct Facts<'f, 'p> {
    plan: &'f Plan<'p>,
    asked: Option<&'f Asked>,
    response: Option<&'f HeaderMap>,
    upstream: Option<SocketAddr>,
}

impl Facts<'_, '_> {
    /// The value with its formats replaced. `None`: they came to nothing, and then there is no such header.
    fn value(&self, value: &HeaderValue) -> Option<HeaderValue> {
        if !value.as_bytes().contains(&b'%') {
            return Some(value.clone());
        }
        let expanded = expand(value.as_bytes(), |name, argument| self.lookup(name, argument));
        // What a request says can hold no line feed: it was a header itself.
        HeaderValue::from_bytes(&expanded).ok().filter(|value| !value.is_empty())
    }

    fn lookup(&self, name: &str, argument: Option<&str>) -> Option<Cow<'_, str>> {
        let asked = self.asked?;
        Some(match name {
            "REQ" => return either(argument?, |name| asked.header(name)),
            "RESP" => return either(argument?, |name| text(self.response?, name)),
            "PROTOCOL" => if asked.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" }.into(),
            "DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => asked.peer.to_string().into(),
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
                asked.peer.ip().to_string().into()
            }
            "DOWNSTREAM_REMOTE_PORT" | "DOWNSTREAM_DIRECT_REMOTE_PORT" => asked.peer.port().to_string().into(),
            "DOWNSTREAM_LOCAL_ADDRESS" => asked.dialled.to_string().into(),
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => asked.dialled.ip().to_string().into(),
            "DOWNSTREAM_LOCAL_PORT" => asked.dialled.port().to_string().into(),
            "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => self.upstream?.to_string().into(),
            "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => self.upstream?.ip().to_string().into(),
            "UPSTREAM_REMOTE_PORT" => self.upstream?.port().to_string().into(),
            "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => self.plan.destination?.name.to_string().into(),
            "ROUTE_NAME" => self.plan.route?.name.to_string().into(),
            _ => return None,
        })
    }
}

/// `NAME?OTHER`: the first of them that is there.
fn either<'v>(names: &str, find: impl Fn(&str) -> Option<Cow<'v, str>>) -> Option<Cow<'v, str>> {
    names.split('?').find_map(|name| find(&name.to_ascii_lowercase()))
}
