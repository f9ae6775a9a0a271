//! Matchers of a route rule, compiled. Semantics: Istio's HTTPMatchRequest.

use http::HeaderMap;
use http::header::HeaderName;
use regex::Regex;

use crate::request::RequestView;

/// `exact`, `prefix` or `regex` of one string.
#[derive(Clone, Debug)]
pub enum StringMatch {
    /// The whole string.
    Exact(Box<str>),
    /// Its beginning, as a string: `/v2` takes `/v2foo`, as in Istio.
    Prefix(Box<str>),
    /// The whole string (anchored when compiled).
    Regex(Regex),
    /// `exact` without case; held in ASCII lower case.
    ExactIgnoreCase(Box<str>),
    /// `prefix` without case; held in ASCII lower case.
    PrefixIgnoreCase(Box<str>),
    /// There at all.
    Present,
}

impl StringMatch {
    /// True when `value` fits.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(want) => value == &**want,
            Self::Prefix(want) => value.starts_with(&**want),
            Self::Regex(regex) => regex.is_match(value),
            Self::ExactIgnoreCase(want) => value.eq_ignore_ascii_case(want),
            Self::PrefixIgnoreCase(want) => {
                value.as_bytes().get(..want.len()).is_some_and(|head| head.eq_ignore_ascii_case(want.as_bytes()))
            }
            Self::Present => true,
        }
    }
}

/// One header of a match.
#[derive(Clone, Debug)]
pub struct HeaderMatch {
    /// In lower case.
    pub name: HeaderName,
    /// What its value must be. Several values of one header are joined by `,` before they are compared.
    pub value: StringMatch,
}

impl HeaderMatch {
    /// True when the header is there and fits.
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        let Some(first) = values.next() else { return false };
        let first = String::from_utf8_lossy(first.as_bytes());
        let Some(second) = values.next() else { return self.value.matches(&first) };
        let mut joined = first.into_owned();
        for value in std::iter::once(second).chain(values) {
            joined.push(',');
            joined.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
        self.value.matches(&joined)
    }
}

/// One item of `match[]`: all that is given must fit.
#[derive(Clone, Debug, Default)]
pub struct HttpMatch {
    /// On the path without its query.
    pub uri: Option<StringMatch>,
    /// On the method.
    pub method: Option<StringMatch>,
    /// On the headers.
    pub headers: Box<[HeaderMatch]>,
}

impl HttpMatch {
    /// True when every condition fits.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.uri.as_ref().is_none_or(|uri| uri.matches(request.path))
            && self.method.as_ref().is_none_or(|method| method.matches(request.method.as_str()))
            && self.headers.iter().all(|header| header.matches(request.headers))
    }

    /// True when it takes every request.
    pub fn is_catch_all(&self) -> bool {
        self.headers.is_empty()
            && self.method.is_none()
            && match &self.uri {
                Some(StringMatch::Prefix(p) | StringMatch::PrefixIgnoreCase(p)) => &**p == "/" || p.is_empty(),
                // `regex: "*"` is read as "there at all", and a path always is.
                None | Some(StringMatch::Present) => true,
                Some(StringMatch::Regex(regex)) => regex.as_str() == "^(?:.*)$",
                Some(_) => false,
            }
    }
}
