//! `exact`, `prefix` and `regex` of one text, and the conditions on headers and query parameters that are made of them.
//! Compiled by `crd`, looked at by [`super::HttpMatch`] for every request.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::Pattern;

/// Of a header that is sent several times the values are joined, and a path is brought into lower case, in so much of the
/// stack. Longer ones are on the heap.
pub(super) const JOINED: usize = 1024;

/// `exact`, `prefix` or `regex` of one string.
#[derive(Clone, Debug)]
pub enum StringMatch {
    /// The whole string.
    Exact(Box<str>),
    /// Its beginning, as a string: `/v2` takes `/v2foo`, as in Istio.
    Prefix(Box<str>),
    /// The whole string (anchored when compiled).
    Regex(Pattern),
    /// `exact` without case; held in ASCII lower case.
    ExactIgnoreCase(Box<str>),
    /// `prefix` without case; held in ASCII lower case.
    PrefixIgnoreCase(Box<str>),
    /// There at all.
    Present,
}

impl PartialEq for StringMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b))
            | (Self::Prefix(a), Self::Prefix(b))
            | (Self::ExactIgnoreCase(a), Self::ExactIgnoreCase(b))
            | (Self::PrefixIgnoreCase(a), Self::PrefixIgnoreCase(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a == b,
            (Self::Present, Self::Present) => true,
            _ => false,
        }
    }
}

impl Eq for StringMatch {}

impl StringMatch {
    /// True when `value` fits.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Regex(regex) => regex.is_match(value),
            _ => self.matches_bytes(value.as_bytes()),
        }
    }

    /// As [`Self::matches`], of a value that need not be UTF-8: what is none reads as U+FFFD for a regex.
    fn matches_bytes(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(want) => value == want.as_bytes(),
            Self::Prefix(want) => value.starts_with(want.as_bytes()),
            Self::Regex(regex) => regex.is_match(&String::from_utf8_lossy(value)),
            Self::ExactIgnoreCase(want) => value.eq_ignore_ascii_case(want.as_bytes()),
            Self::PrefixIgnoreCase(want) => {
                value.get(..want.len()).is_some_and(|head| head.eq_ignore_ascii_case(want.as_bytes()))
            }
            Self::Present => true,
        }
    }

    /// Its regular expression.
    pub(crate) fn regex_mut(&mut self) -> Option<&mut Pattern> {
        match self {
            Self::Regex(pattern) => Some(pattern),
            _ => None,
        }
    }

    /// True when every string fits.
    pub fn takes_everything(&self) -> bool {
        match self {
            Self::Present => true,
            Self::Prefix(prefix) | Self::PrefixIgnoreCase(prefix) => prefix.is_empty(),
            Self::Regex(regex) => regex.is_whole() && regex.as_str() == ".*",
            Self::Exact(_) | Self::ExactIgnoreCase(_) => false,
        }
    }
}

/// One header of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// In lower case.
    pub name: HeaderName,
    /// What its value must be. Several values of one header are joined by `,` before they are compared.
    pub value: StringMatch,
}

impl HeaderMatch {
    /// True when the header is there and fits.
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        self.fits(headers).unwrap_or(false)
    }

    /// True when a request that must be *without* this header is: where it is absent, its value counts as empty, but
    /// for a condition on its presence alone.
    pub fn is_absent(&self, headers: &HeaderMap) -> bool {
        let present = self.fits(headers);
        !present.unwrap_or_else(|| !matches!(self.value, StringMatch::Present) && self.value.matches(""))
    }

    /// Whether its value fits; `None` when it is absent.
    fn fits(&self, headers: &HeaderMap) -> Option<bool> {
        if matches!(self.value, StringMatch::Present) {
            return headers.contains_key(&self.name).then_some(true);
        }
        with_value(headers, &self.name, |value| self.value.matches_bytes(value))
    }
}

/// What `look` says of the value of a header, several joined by `,`; `None` when it is absent.
pub(super) fn with_value<T>(headers: &HeaderMap, name: &HeaderName, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_none() {
        return Some(look(first.as_bytes()));
    }
    let all = || headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let length = all().map(|value| value.len() + 1).sum::<usize>() - 1;
    let mut buffer = [0_u8; JOINED];
    let joined = match buffer.get_mut(..length) {
        Some(joined) => {
            let mut rest = &mut *joined;
            for (number, value) in all().enumerate() {
                let comma = usize::from(number > 0);
                let (head, tail) = rest.split_at_mut(comma + value.len());
                head[..comma].fill(b',');
                head[comma..].copy_from_slice(value);
                rest = tail;
            }
            Cow::Borrowed(&*joined)
        }
        None => Cow::Owned(all().collect::<Vec<_>>().join(&b',')),
    };
    Some(look(&joined))
}

/// One query parameter of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// As it is sent.
    pub name: Box<str>,
    /// What its first value must be; `?key` has the empty one.
    pub value: StringMatch,
}

impl QueryMatch {
    /// True when the parameter is there and fits.
    pub fn matches(&self, query: Option<&str>) -> bool {
        let parameters = query.unwrap_or_default().split('&').map(|one| one.split_once('=').unwrap_or((one, "")));
        let mut found = parameters.filter(|(name, _)| *name == &*self.name && query.is_some());
        found.next().is_some_and(|(_, value)| self.value.matches(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::full_regex;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (HeaderName::from_static("x"), HeaderValue::from_static(value))).collect()
    }

    fn header(value: StringMatch) -> HeaderMatch {
        HeaderMatch { name: HeaderName::from_static("x"), value }
    }

    #[test]
    fn several_values_are_one_with_commas() {
        let exact = |text: &str| header(StringMatch::Exact(text.into()));
        assert!(exact("a,b").matches(&headers(&["a", "b"])));
        assert!(exact(",,b").matches(&headers(&["", "", "b"])));
        assert!(exact("a,").matches(&headers(&["a", ""])));
        assert!(!exact("a").matches(&headers(&["a", "b"])));
        let long: &'static str = "y".repeat(JOINED).leak();
        assert!(exact(&format!("{long},z")).matches(&headers(&[long, "z"])));
        assert!(header(StringMatch::Regex(full_regex("a,.*").unwrap())).matches(&headers(&["a", "b"])));
    }

    #[test]
    fn without_a_header_counts_its_absence_as_the_empty_value() {
        let absent = |value, values: &[&'static str]| header(value).is_absent(&headers(values));
        assert!(absent(StringMatch::Exact("a".into()), &[]) && absent(StringMatch::Exact("a".into()), &["b"]));
        assert!(!absent(StringMatch::Exact("a".into()), &["a"]));
        assert!(!absent(StringMatch::Exact("".into()), &[]));
        assert!(!absent(StringMatch::Regex(full_regex(".*").unwrap()), &[]));
        assert!(absent(StringMatch::Present, &[]) && !absent(StringMatch::Present, &["a"]));
    }

    #[test]
    fn the_first_value_of_a_query_parameter_counts() {
        let takes = |value, query| QueryMatch { name: "k".into(), value }.matches(query);
        let exact = |text: &str| StringMatch::Exact(text.into());
        assert!(takes(exact("a"), Some("x=1&k=a&k=b")) && !takes(exact("b"), Some("k=a&k=b")));
        assert!(takes(exact(""), Some("k")) && takes(exact(""), Some("k=")) && !takes(exact(""), Some("")));
        assert!(takes(StringMatch::Present, Some("k=z")) && !takes(StringMatch::Present, Some("kk=z")));
        assert!(!takes(StringMatch::Present, None));
        assert!(!QueryMatch { name: "".into(), value: StringMatch::Present }.matches(None));
    }
}
