//! Matchers of a route rule, compiled. Semantics: Istio's HTTPMatchRequest. Compiled by `crd`, used by [`crate::route`]
//! for every request, and by `explain`.

use crate::request::RequestView;
use crate::route::Rule;

mod index;
mod pattern;
mod string;
#[cfg(test)]
mod tests;

pub use index::RuleIndex;
pub(crate) use pattern::Expression;
pub use pattern::Pattern;
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

/// One condition of an item.
#[derive(Clone, Copy, Debug)]
pub enum Condition<'m> {
    /// On the path.
    Path(&'m StringMatch),
    /// On the method.
    Method(&'m StringMatch),
    /// On a header.
    Header(&'m HeaderMatch),
    /// On the scheme.
    Scheme(&'m StringMatch),
    /// On the Host.
    Authority(&'m StringMatch),
    /// On what a header must not be.
    WithoutHeader(&'m HeaderMatch),
    /// On a query parameter.
    QueryParameter(&'m QueryMatch),
}

impl Condition<'_> {
    /// Whether a request meets it.
    #[inline]
    pub fn fits(&self, request: &RequestView<'_>) -> bool {
        match self {
            Self::Path(path) => path.matches(request.path),
            Self::Method(method) => method.matches(request.method.as_str()),
            Self::Header(header) => header.matches(request.headers),
            Self::Scheme(scheme) => scheme.matches(request.scheme),
            Self::Authority(authority) => authority.matches(request.authority),
            Self::WithoutHeader(header) => header.is_absent(request.headers),
            Self::QueryParameter(parameter) => parameter.matches(request.query),
        }
    }
}

impl MoreConditions {
    #[inline]
    fn all<'m>(&'m self, mut fits: impl FnMut(Condition<'m>) -> bool) -> bool {
        self.scheme.as_ref().is_none_or(|scheme| fits(Condition::Scheme(scheme)))
            && self.authority.as_ref().is_none_or(|authority| fits(Condition::Authority(authority)))
            && self.without_headers.iter().all(|header| fits(Condition::WithoutHeader(header)))
            && self.query_params.iter().all(|parameter| fits(Condition::QueryParameter(parameter)))
    }
}

impl HttpMatch {
    /// Its regular expressions.
    pub(crate) fn each_regex(&mut self, see: &mut dyn FnMut(&mut Pattern)) {
        let own = [&mut self.uri, &mut self.method].into_iter().flatten();
        let headers = self.headers.iter_mut().map(|header| &mut header.value);
        let more = self.more.iter_mut().flat_map(|more| {
            let texts = [&mut more.scheme, &mut more.authority].into_iter().flatten();
            let without = more.without_headers.iter_mut().map(|header| &mut header.value);
            texts.chain(without).chain(more.query_params.iter_mut().map(|param| &mut param.value))
        });
        own.chain(headers).chain(more).filter_map(StringMatch::regex_mut).for_each(see);
    }

    /// Whether `fits` is true of every condition; asks no further once one is not.
    #[inline]
    pub fn all<'m>(&'m self, mut fits: impl FnMut(Condition<'m>) -> bool) -> bool {
        self.uri.as_ref().is_none_or(|uri| fits(Condition::Path(uri)))
            && self.method.as_ref().is_none_or(|method| fits(Condition::Method(method)))
            && self.headers.iter().all(|header| fits(Condition::Header(header)))
            && self.more.as_ref().is_none_or(|more| more.all(fits))
    }

    /// True when every condition fits.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.all(|condition| condition.fits(request))
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
