//! Matchers of a route rule, compiled. Semantics: Istio's HTTPMatchRequest. Compiled by `crd`, used by [`crate::route`]
//! for every request, and by `explain`.

use crate::request::RequestView;

mod index;
mod string;
#[cfg(test)]
mod tests;

pub use index::RuleIndex;
pub use string::{HeaderMatch, QueryMatch, StringMatch};

/// One item of `match[]`: all that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpMatch {
    /// On the path without its query.
    pub uri: Option<StringMatch>,
    /// On the method.
    pub method: Option<StringMatch>,
    /// On the headers.
    pub headers: Box<[HeaderMatch]>,
    /// What few items have.
    pub more: Option<Box<MoreConditions>>,
}

/// The rarer conditions of an [`HttpMatch`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MoreConditions {
    /// On `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// On the Host or `:authority`, port included as sent.
    pub authority: Option<StringMatch>,
    /// Headers that must not be there, or not so.
    pub without_headers: Box<[HeaderMatch]>,
    /// On the query parameters.
    pub query_params: Box<[QueryMatch]>,
}

impl MoreConditions {
    fn matches(&self, request: &RequestView<'_>) -> bool {
        let fits = |one: &Option<StringMatch>, value: &str| one.as_ref().is_none_or(|one| one.matches(value));
        fits(&self.scheme, request.scheme)
            && fits(&self.authority, request.authority)
            && self.without_headers.iter().all(|header| header.is_absent(request.headers))
            && self.query_params.iter().all(|parameter| parameter.matches(request.query))
    }
}

impl HttpMatch {
    /// True when every condition fits.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.uri.as_ref().is_none_or(|uri| uri.matches(request.path)) && self.matches_beside_path(request)
    }

    /// True when every condition but the one on the path fits.
    pub fn matches_beside_path(&self, request: &RequestView<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method.matches(request.method.as_str()))
            && self.headers.iter().all(|header| header.matches(request.headers))
            && self.more.as_ref().is_none_or(|more| more.matches(request))
    }

    /// True when it takes every request.
    pub fn is_catch_all(&self) -> bool {
        self.headers.is_empty()
            && self.method.is_none()
            && self.more.as_ref().is_none_or(|more| **more == MoreConditions::default())
            && match &self.uri {
                // Every path begins with it.
                Some(StringMatch::Prefix(p) | StringMatch::PrefixIgnoreCase(p)) if &**p == "/" => true,
                // `regex: "*"` is read as "there at all", and a path always is.
                None => true,
                Some(uri) => uri.takes_everything(),
            }
    }
}
