//! What a rule of an HTTPRoute or a GRPCRoute matches.

use http::HeaderName;

use super::{Arc, Fault, Fields};
use crate::crd::regex::full_regex;
use crate::matching::{Pattern, StringMatch};

/// One item of `matches[]`: all that is given must fit.
#[derive(Clone, Debug, Default)]
pub struct RouteMatch {
    /// `path`, or the path of a gRPC method.
    pub path: PathMatch,
    /// `method` of an HTTPRoute.
    pub method: Option<Arc<str>>,
    /// `headers`
    pub headers: Box<[(HeaderName, StringMatch)]>,
    /// `queryParams`
    pub query: Box<[RouteMatchText]>,
}

/// A query parameter and its value.
#[derive(Clone, Debug)]
pub struct RouteMatchText {
    /// As it is sent.
    pub name: Arc<str>,
    /// `Exact` or `RegularExpression`.
    pub value: StringMatch,
}

/// A condition on the path.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// `Exact`
    Exact(Arc<str>),
    /// `PathPrefix`, by whole segments; without a trailing slash, so that empty is every path.
    Segments(Arc<str>),
    /// `RegularExpression`
    Regex(StringMatch, usize),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Segments(Arc::default())
    }
}

impl RouteMatch {
    pub(super) fn http(mut fields: Fields<'_>) -> Result<Self, Fault> {
        let path = match fields.map("path")? {
            None => PathMatch::default(),
            Some(mut path) => {
                let value = path.text("value")?.unwrap_or("/");
                match path.text("type")?.unwrap_or("PathPrefix") {
                    "Exact" => PathMatch::Exact(value.into()),
                    "RegularExpression" => PathMatch::Regex(regex(&path, value)?, value.len()),
                    _ => PathMatch::Segments(value.trim_end_matches('/').into()),
                }
            }
        };
        let method = fields.text("method")?.map(Arc::from);
        let mut query = Vec::new();
        for mut one in fields.maps("queryParams")? {
            let value = value(&mut one)?;
            query.push(RouteMatchText { name: one.required_text("name")?.into(), value });
        }
        Ok(Self { path, method, headers: headers(&mut fields)?, query: query.into() })
    }

    /// A gRPC method is the path `/service/method`.
    pub(super) fn grpc(mut fields: Fields<'_>) -> Result<Self, Fault> {
        let path = match fields.map("method")? {
            None => PathMatch::default(),
            Some(mut method) => {
                let service = method.text("service")?.unwrap_or_default();
                let name = method.text("method")?.unwrap_or_default();
                let by_regex = method.text("type")? == Some("RegularExpression");
                match (by_regex, service, name) {
                    (_, "", "") => PathMatch::default(),
                    (true, service, name) => {
                        let any = |text: &str| if text.is_empty() { "[^/]+".to_owned() } else { format!("(?:{text})") };
                        let pattern = format!("/{}/{}", any(service), any(name));
                        PathMatch::Regex(regex(&method, &pattern)?, pattern.len())
                    }
                    (false, service, "") => PathMatch::Segments(format!("/{service}").into()),
                    (false, "", name) => {
                        let pattern = format!("/[^/]+/{}", ::regex::escape(name));
                        PathMatch::Regex(regex(&method, &pattern)?, pattern.len())
                    }
                    (false, service, name) => PathMatch::Exact(format!("/{service}/{name}").into()),
                }
            }
        };
        Ok(Self { path, method: None, headers: headers(&mut fields)?, query: Box::default() })
    }
}

impl RouteMatch {
    pub(super) fn each_regex(&mut self, see: &mut dyn FnMut(&mut Pattern)) {
        let path = match &mut self.path {
            PathMatch::Regex(value, _) => Some(value),
            PathMatch::Exact(_) | PathMatch::Segments(_) => None,
        };
        let headers = self.headers.iter_mut().map(|(_, value)| value);
        let query = self.query.iter_mut().map(|one| &mut one.value);
        path.into_iter().chain(headers).chain(query).filter_map(StringMatch::regex_mut).for_each(see);
    }
}

fn regex(fields: &Fields<'_>, pattern: &str) -> Result<StringMatch, Fault> {
    let regex = full_regex(pattern).map_err(|why| Fault::new(fields.mark, fields.path_of("value"), why))?;
    Ok(StringMatch::Regex(regex))
}

/// `value`, compared by `type`.
fn value(fields: &mut Fields<'_>) -> Result<StringMatch, Fault> {
    let value = fields.text("value")?.unwrap_or_default();
    match fields.text("type")? {
        Some("RegularExpression") => regex(fields, value),
        _ => Ok(StringMatch::Exact(value.into())),
    }
}

fn headers(fields: &mut Fields<'_>) -> Result<Box<[(HeaderName, StringMatch)]>, Fault> {
    let mut headers: Vec<(HeaderName, StringMatch)> = Vec::new();
    for mut one in fields.maps("headers")? {
        let value = value(&mut one)?;
        let name = one.required_text("name")?;
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let fault = |_| Fault::new(one.mark, one.path_of("name"), format!("`{name}` is no header name"));
        let name = parsed.map_err(fault)?;
        // Of several conditions on one header the first counts.
        if !headers.iter().any(|(other, _)| *other == name) {
            headers.push((name, value));
        }
    }
    Ok(headers.into())
}
