//! Filters of a rule, or of one of its backends, in the words of a VirtualService's rule.

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};

use crate::crd::gateway_api::{Filter, HeaderModifier, PathModifier, RedirectFilter};
use crate::crd::{Mark, Marked, part_regex};
use crate::program::{
    HeaderChanges, HeaderOperations, Redirect, RedirectPath, RedirectPort, Rewrite, Substitution, UriRewrite,
};

/// True for a filter that this version does not have: its rule must not be followed without it.
pub(super) fn is_unknown(filter: &Filter) -> bool {
    matches!(filter, Filter::Other(..))
}

/// The changes of headers.
pub(super) fn headers(mark: Mark, filters: &[Filter]) -> Option<Marked<Arc<HeaderOperations>>> {
    let mut operations = HeaderOperations::default();
    for filter in filters {
        match filter {
            Filter::RequestHeaders(modifier) => operations.request = changes(modifier),
            Filter::ResponseHeaders(modifier) => operations.response = changes(modifier),
            _ => {}
        }
    }
    (operations != HeaderOperations::default()).then(|| Marked::new(mark, Arc::new(operations)))
}

/// What HTTP does not allow as a header can neither be sent nor come.
fn changes(modifier: &HeaderModifier) -> HeaderChanges {
    let mut authority = None;
    let mut pairs = |given: &[(Arc<str>, Arc<str>)]| {
        let mut pairs = Vec::new();
        for (name, value) in given {
            // A percent sign is one here, and no format.
            let Ok(value) = HeaderValue::from_str(&value.replace('%', "%%")) else { continue };
            if name.eq_ignore_ascii_case("host") {
                authority = Some(value);
            } else if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                pairs.push((name, value));
            }
        }
        pairs.into()
    };
    let (set, add) = (pairs(&modifier.set), pairs(&modifier.add));
    let remove = modifier.remove.iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect();
    HeaderChanges { set, add, remove, authority }
}

/// Whether a filter replaces the prefix that matched, so that it matters where that ends.
pub(super) fn replaces_prefix(filter: &Filter) -> bool {
    let path = match filter {
        Filter::Redirect(redirect) => redirect.path.as_ref(),
        Filter::Rewrite { path, .. } => path.as_ref(),
        _ => None,
    };
    matches!(path, Some(PathModifier::Prefix(_)))
}

/// What stands in the place of a prefix: `slash` where the slash after it is replaced, too.
fn in_place(prefix: &str, slash: bool) -> Box<str> {
    let bare = prefix.trim_end_matches('/');
    match (bare, slash) {
        (_, true) => format!("{bare}/").into(),
        ("", false) => "/".into(),
        (bare, false) => bare.into(),
    }
}

/// `slash` as in [`in_place`].
pub(super) fn rewrite(hostname: &str, path: Option<&PathModifier>, slash: bool) -> Rewrite {
    let uri = path.map(|path| match path {
        PathModifier::Prefix(prefix) => UriRewrite::Text(in_place(prefix, slash)),
        PathModifier::Full(text) => {
            let everything = part_regex("(?s)^.*$").expect("it is an expression");
            UriRewrite::Regex(everything, Substitution::new(&text.replace('\\', r"\\")))
        }
    });
    Rewrite { uri, authority: (!hostname.is_empty()).then(|| hostname.into()) }
}

/// `slash` as in [`in_place`].
pub(super) fn redirect(filter: &RedirectFilter, slash: bool) -> Redirect {
    let given = |text: &Arc<str>| (!text.is_empty()).then(|| (&**text).into());
    Redirect {
        path: match &filter.path {
            None => RedirectPath::Kept,
            Some(PathModifier::Full(path)) => RedirectPath::Whole((&**path).into()),
            Some(PathModifier::Prefix(prefix)) => RedirectPath::Prefix(in_place(prefix, slash)),
        },
        authority: given(&filter.hostname),
        scheme: given(&filter.scheme),
        port: match filter.port {
            Some(port) => RedirectPort::Number(port),
            // That of the scheme where one is given, else that of the listener.
            None if !filter.scheme.is_empty() => RedirectPort::OfProtocol,
            None => RedirectPort::OfRequest,
        },
        code: filter.status,
    }
}
