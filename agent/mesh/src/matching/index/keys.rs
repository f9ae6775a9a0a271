//! By what an item of a match can be found: texts that a request must have in one place for the item to take it. They
//! may promise too little, never too much, as whoever finds an item by one tries all its conditions. Asked by
//! [`super::RuleIndex`] when it is made.

use std::borrow::Cow;

use http::header::{COOKIE, HeaderName};

use crate::matching::{HttpMatch, Pattern, StringMatch};

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place<'m> {
    Path,
    /// The path in ASCII lower case.
    FoldedPath,
    Method,
    Authority,
    Header(&'m HeaderName),
    /// One of the cookies, whole: `name=value`.
    Cookie,
    Query(&'m str),
}

/// What must be there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Text<'m> {
    Exact(&'m str),
    /// Its beginning, which is not empty.
    Prefix(Cow<'m, str>),
    Present,
}

/// Everything by which the item can be found, the likeliest to be seldom first; empty where any request may fit.
pub(super) fn keys(item: &HttpMatch) -> Vec<(Place<'_>, Text<'_>)> {
    let mut keys = Vec::new();
    if let Some(uri) = &item.uri {
        match uri {
            StringMatch::ExactIgnoreCase(path) => keys.push((Place::FoldedPath, Text::Exact(path))),
            StringMatch::PrefixIgnoreCase(path) if !path.is_empty() => {
                keys.push((Place::FoldedPath, Text::Prefix((&**path).into())));
            }
            _ => keys.push((Place::Path, text(uri))),
        }
    }
    for header in &item.headers {
        if let StringMatch::Regex(regex) = &header.value
            && header.name == COOKIE
        {
            keys.extend(one_cookie(regex).map(|cookie| (Place::Cookie, Text::Exact(cookie))));
        }
        keys.push((Place::Header(&header.name), text(&header.value)));
    }
    if let Some(more) = &item.more {
        keys.extend(more.query_params.iter().map(|one| (Place::Query(&one.name), text(&one.value))));
        keys.extend(more.authority.iter().map(|one| (Place::Authority, text(one))));
    }
    keys.extend(item.method.iter().map(|one| (Place::Method, text(one))));
    // A path, a method and an authority are always there.
    let always = |place: Place<'_>| !matches!(place, Place::Header(_) | Place::Query(_));
    keys.retain(|(place, text)| *text != Text::Present || !always(*place));
    keys
}

fn text(value: &StringMatch) -> Text<'_> {
    match value {
        StringMatch::Exact(text) => Text::Exact(text),
        StringMatch::Prefix(text) if !text.is_empty() => Text::Prefix((&**text).into()),
        StringMatch::Regex(regex) => match literal_prefix(regex) {
            prefix if prefix.is_empty() => Text::Present,
            prefix => Text::Prefix(prefix.into()),
        },
        _ => Text::Present,
    }
}

/// The expression without what anchors it.
fn bare(regex: &Pattern) -> &str {
    let text = regex.as_str();
    text.strip_prefix('^').unwrap_or(text)
}

fn is_anchored(regex: &Pattern) -> bool {
    regex.is_whole() || regex.as_str().starts_with('^')
}

/// What everything that an anchored expression takes begins with: of `/api/v[0-9]+`, `/api/v`. ASCII alone, as other
/// bytes of a header need not be what the expression sees.
fn literal_prefix(regex: &Pattern) -> String {
    let mut prefix = String::new();
    let text = bare(regex);
    if text.contains('|') || !is_anchored(regex) {
        return prefix;
    }
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        let literal = match char {
            // An escaped letter or digit is a class or an assertion.
            '\\' => rest.next().filter(char::is_ascii_punctuation),
            '.' | '[' | '(' | ')' | '$' | '^' | '?' | '*' | '+' | '{' => None,
            _ => Some(char).filter(char::is_ascii),
        };
        let Some(literal) = literal else { break };
        // It may be there no times.
        if matches!(rest.peek(), Some('?' | '*' | '{')) {
            break;
        }
        prefix.push(literal);
    }
    prefix
}

/// The cookie that the expression looks for, where it is of the form that Istio's documentation has for that:
/// `^(.*?;)?(user=jason)(;.*)?$`.
fn one_cookie(regex: &Pattern) -> Option<&str> {
    const BEFORE: [&str; 6] = ["(.*?;)?", "(.*;)?", "(.*?; )?", "(.*; )?", "(.*?; ?)?", "(.*; ?)?"];
    if !is_anchored(regex) {
        return None;
    }
    let text = bare(regex);
    let text = text.strip_suffix('$').unwrap_or(text).strip_suffix("(;.*)?")?;
    let cookie = BEFORE.iter().find_map(|before| text.strip_prefix(before))?;
    let cookie = cookie.strip_prefix('(').and_then(|cookie| cookie.strip_suffix(')')).unwrap_or(cookie);
    let is_literal = |byte: u8| byte.is_ascii_alphanumeric() || b"=_-@:,/%~!#&'\"<>".contains(&byte);
    (!cookie.is_empty() && cookie.bytes().all(is_literal)).then_some(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(pattern: &str) -> Pattern {
        crate::crd::full_regex(pattern).expect("valid")
    }

    #[test]
    fn an_expression_promises_how_what_it_takes_begins() {
        for (pattern, prefix) in [
            ("/api/v[0-9]+", "/api/v"),
            ("^/api/v[0-9]+$", "/api/v"),
            ("/ab?c", "/a"),
            ("/ab*", "/a"),
            ("/ab{0,1}", "/a"),
            ("/ab+", "/ab"),
            (r"/a\.b\d", "/a.b"),
            ("/a|/b", ""),
            ("(?i)/a", ""),
            ("/é", "/"),
            (".*", ""),
            ("", ""),
        ] {
            assert_eq!(literal_prefix(&full(pattern)), prefix, "{pattern}");
        }
    }

    #[test]
    fn a_cookie_is_found_in_the_form_of_the_documentation_alone() {
        for (pattern, cookie) in [
            ("^(.*?;)?(user=jason)(;.*)?$", Some("user=jason")),
            ("(.*; ?)?user=u-17(;.*)?", Some("user=u-17")),
            ("^(.*?;)?(user=.*)(;.*)?$", None),
            ("^(.*?;)?(a=b)|(c=d)(;.*)?$", None),
            ("^(.*?;)?(a=b;c)(;.*)?$", None),
            (".*user=jason.*", None),
        ] {
            assert_eq!(one_cookie(&full(pattern)), cookie, "{pattern}");
        }
    }
}
