//! What becomes of a path and of a host: rewrites on the way to the upstream, and redirects. Both depend on which item of
//! the rule matched: a prefix is replaced, anything else as a whole.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::matching::{HttpMatch, Pattern, StringMatch};
use crate::request::RequestView;

/// `rewrite`
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// Of the path.
    pub uri: Option<UriRewrite>,
    /// The Host that the upstream is told. The destination stays as it is.
    pub authority: Option<Box<str>>,
}

/// How a path is rewritten.
#[derive(Clone, Debug)]
pub enum UriRewrite {
    /// `uri`: in the place of the prefix that matched, or of the whole path.
    Text(Box<str>),
    /// `uriRegexRewrite`: every match of the pattern is replaced.
    Regex(Pattern, Substitution),
}

/// A replacement in RE2's words: `\1` is a group, `\0` the whole match, `\\` a backslash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Substitution(Box<str>);

impl PartialEq for Rewrite {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.uri, &other.uri) {
            (Some(UriRewrite::Text(a)), Some(UriRewrite::Text(b))) => a == b,
            (Some(UriRewrite::Regex(a, to)), Some(UriRewrite::Regex(b, other))) => a == b && to == other,
            (None, None) => true,
            _ => false,
        };
        same && self.authority == other.authority
    }
}

impl Eq for Rewrite {}

impl Substitution {
    /// As written.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    fn apply(&self, groups: &regex::Captures<'_>, to: &mut String) {
        let mut rest = self.0.chars();
        while let Some(c) = rest.next() {
            match c {
                '\\' => match rest.next() {
                    Some(digit) if digit.is_ascii_digit() => {
                        let number = digit as usize - '0' as usize;
                        to.push_str(groups.get(number).map_or("", |group| group.as_str()));
                    }
                    Some(other) => to.push(other),
                    None => {}
                },
                other => to.push(other),
            }
        }
    }
}

impl Rewrite {
    /// The path that the upstream sees. `matched` is the item of the rule that took the request.
    pub fn path<'p>(&self, matched: Option<&HttpMatch>, path: &'p str) -> Cow<'p, str> {
        match &self.uri {
            None => Cow::Borrowed(path),
            Some(UriRewrite::Text(to)) => Cow::Owned(replaced(to, matched, path)),
            Some(UriRewrite::Regex(pattern, to)) => {
                pattern.regex().replace_all(path, |groups: &regex::Captures<'_>| {
                    let mut text = String::new();
                    to.apply(groups, &mut text);
                    text
                })
            }
        }
    }
}

/// The prefix that matched is replaced as a string, as in Istio: `/v2` → `/` makes `//x` of `/v2/x`. Without a
/// condition on the path the prefix is `/`, so that `/foo` makes `/fooa` of `/a`.
fn replaced(to: &str, matched: Option<&HttpMatch>, path: &str) -> String {
    let uri = matched.and_then(|item| item.uri.as_ref());
    let prefix = match uri {
        Some(StringMatch::Prefix(prefix) | StringMatch::PrefixIgnoreCase(prefix)) => prefix.len(),
        Some(_) => path.len(),
        None => 1,
    };
    format!("{to}{}", path.get(prefix..).unwrap_or_default())
}

/// `redirect`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// In the place of the path.
    pub path: RedirectPath,
    /// Another host.
    pub authority: Option<Box<str>>,
    /// Another scheme.
    pub scheme: Option<Box<str>>,
    /// Which port is named.
    pub port: RedirectPort,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// What of the path is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RedirectPath {
    /// Nothing.
    #[default]
    Kept,
    /// `uri`: all of it, the query too where the text has one.
    Whole(Box<str>),
    /// `prefixRewrite`: what the item matched.
    Prefix(Box<str>),
}

/// The port in a redirect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectPort {
    /// The port of the Host as sent, unless the scheme or the host is another.
    #[default]
    Unset,
    /// `port`
    Number(u16),
    /// `derivePort: FROM_PROTOCOL_DEFAULT`
    OfProtocol,
    /// `derivePort: FROM_REQUEST_PORT`: the port that the client dialled.
    OfRequest,
}

impl Redirect {
    /// The value of `Location`. `dialled` is the port that the client connected to.
    pub fn location(&self, request: &RequestView<'_>, matched: Option<&HttpMatch>, dialled: u16) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme);
        let (own_host, own_port) = crate::route::split_port(request.authority);
        let host = self.authority.as_deref().unwrap_or(own_host);
        let default = if scheme == "https" { 443 } else { 80 };
        let port = match self.port {
            RedirectPort::Number(number) => Some(number),
            RedirectPort::OfProtocol => None,
            RedirectPort::OfRequest => Some(dialled),
            // A port that was sent belongs to the old scheme and host.
            RedirectPort::Unset if self.authority.is_some() || scheme != request.scheme => None,
            RedirectPort::Unset => own_port,
        };
        let mut location = format!("{scheme}://{host}");
        if let Some(port) = port.filter(|port| *port != default) {
            // Writing to a string cannot fail.
            let _ = write!(location, ":{port}");
        }
        match &self.path {
            RedirectPath::Kept => location.push_str(request.path),
            RedirectPath::Whole(path) => location.push_str(path),
            RedirectPath::Prefix(to) => location.push_str(&replaced(to, matched, request.path)),
        }
        let has_query = matches!(&self.path, RedirectPath::Whole(path) if path.contains('?'));
        if let Some(query) = request.query.filter(|_| !has_query) {
            location.push('?');
            location.push_str(query);
        }
        location
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    fn item(uri: StringMatch) -> HttpMatch {
        HttpMatch { uri: Some(uri), ..HttpMatch::default() }
    }

    fn to(text: &str) -> Rewrite {
        Rewrite { uri: Some(UriRewrite::Text(text.into())), authority: None }
    }

    #[test]
    fn a_prefix_is_replaced_as_a_string_and_anything_else_as_a_whole() {
        let prefix = item(StringMatch::Prefix("/v2".into()));
        assert_eq!(to("/").path(Some(&prefix), "/v2/x"), "//x");
        assert_eq!(to("/").path(Some(&prefix), "/v2foo"), "/foo");
        assert_eq!(to("/n").path(Some(&item(StringMatch::Exact("/a".into()))), "/a"), "/n");
        assert_eq!(
            to("/n").path(Some(&item(StringMatch::Regex(crate::crd::full_regex("/a.*").unwrap()))), "/abc"),
            "/n"
        );
        assert_eq!(to("/n").path(Some(&item(StringMatch::PrefixIgnoreCase("/v2".into()))), "/V2/x"), "/n/x");
    }

    #[test]
    fn without_a_condition_on_the_path_the_first_slash_is_what_is_replaced() {
        assert_eq!(to("/foo").path(Some(&HttpMatch::default()), "/a"), "/fooa");
        assert_eq!(to("/foo").path(None, "/a"), "/fooa");
        assert_eq!(Rewrite::default().path(None, "/a"), "/a");
    }

    #[test]
    fn a_regex_replaces_every_match_by_re2s_words() {
        let rewrite = |pattern, to| Rewrite {
            uri: Some(UriRewrite::Regex(crate::crd::part_regex(pattern).unwrap(), Substitution::new(to))),
            authority: None,
        };
        assert_eq!(
            rewrite("^/service/([^/]+)(/.*)$", r"\2/instance/\1").path(None, "/service/foo/v1"),
            "/v1/instance/foo"
        );
        assert_eq!(rewrite("one", "two").path(None, "/xxx/one/yyy/one/zzz"), "/xxx/two/yyy/two/zzz");
        assert_eq!(rewrite("(a)", r"$1\\\9").path(None, "/a"), r"/$1\");
    }

    #[test]
    fn redirects_name_a_port_only_where_it_is_not_the_schemes_own() {
        let headers = HeaderMap::new();
        let request = RequestView {
            method: &Method::GET,
            scheme: "http",
            authority: "b.shop:8080",
            path: "/a/b",
            query: Some("q=1"),
            headers: &headers,
        };
        let at = |redirect: Redirect| redirect.location(&request, Some(&item(StringMatch::Prefix("/a".into()))), 81);
        let whole = |text: &str| RedirectPath::Whole(text.into());
        assert_eq!(at(Redirect { path: whole("/n"), ..Redirect::default() }), "http://b.shop:8080/n?q=1");
        assert_eq!(at(Redirect { path: whole("/n?x"), ..Redirect::default() }), "http://b.shop:8080/n?x");
        assert_eq!(at(Redirect { authority: Some("c".into()), ..Redirect::default() }), "http://c/a/b?q=1");
        assert_eq!(at(Redirect { scheme: Some("https".into()), ..Redirect::default() }), "https://b.shop/a/b?q=1");
        assert_eq!(
            at(Redirect {
                path: RedirectPath::Prefix("/z".into()),
                port: RedirectPort::Number(80),
                ..Redirect::default()
            }),
            "http://b.shop/z/b?q=1"
        );
        assert_eq!(at(Redirect { port: RedirectPort::OfRequest, ..Redirect::default() }), "http://b.shop:81/a/b?q=1");
        assert_eq!(at(Redirect { port: RedirectPort::OfProtocol, ..Redirect::default() }), "http://b.shop/a/b?q=1");
    }
}
