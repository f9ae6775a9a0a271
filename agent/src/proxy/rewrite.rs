//! `rewrite`: the path and the Host that the upstream sees. The destination is chosen before, and stays. Called by
//! `handler`.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Uri, header};

use super::body::Body;
use super::error::{Kind, ProxyError};
use super::plan::Plan;

/// Where the path goes that the client sent.
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

/// Applies the rule's rewrite, if it has one.
pub(crate) fn apply(plan: &Plan<'_>, request: &mut Request<Body>) -> Result<(), ProxyError> {
    let Some(rewrite) = plan.settings().and_then(|settings| settings.rewrite.as_ref()) else {
        return Ok(());
    };
    if let Some(authority) = &rewrite.authority {
        let host = HeaderValue::from_str(authority).map_err(invalid)?;
        request.headers_mut().insert(header::HOST, host);
    }
    if let Cow::Owned(path) = rewrite.path(plan.matched, request.uri().path()) {
        let rewritten = path_and_query(path, request.uri().query()).map_err(invalid)?;
        let original = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let original = HeaderValue::from_str(original).map_err(invalid)?;
        request.headers_mut().insert(ORIGINAL_PATH, original);
        *request.uri_mut() = Uri::from(rewritten);
    }
    Ok(())
}

/// What a rule makes of a path need not be one: without a slash in front it would be another kind of target.
fn path_and_query(mut path: String, query: Option<&str>) -> Result<PathAndQuery, http::uri::InvalidUri> {
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    PathAndQuery::try_from(path)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ProxyError {
    ProxyError::new(Kind::InvalidRule).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_rule_makes_is_an_origin_form() {
        let made = |path: &str, query| path_and_query(path.to_owned(), query).map(|made| made.as_str().to_owned());
        assert_eq!(made("//x", Some("q=1")).unwrap(), "//x?q=1");
        assert_eq!(made("", None).unwrap(), "/");
        assert_eq!(made("http://c/", None).unwrap(), "/http://c/");
        assert!(made("/a b", None).is_err() && made("/a\r\nx: 1", None).is_err());
    }
}
