//! A request as the decision code sees it: borrowed from hyper, from the command line, or from a test.

use http::{HeaderMap, Method};

/// The head of a request. `path` never holds the query.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The method as sent.
    pub method: &'a Method,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The Host header or `:authority`, port included as sent; empty when absent.
    pub authority: &'a str,
    /// The path as sent, without the query.
    pub path: &'a str,
    /// What followed the first `?`.
    pub query: Option<&'a str>,
    /// All headers, names in lower case.
    pub headers: &'a HeaderMap,
}

/// Who asks: the client pod, known from its socket.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The client pod's namespace: short host names are expanded in it.
    pub namespace: &'a str,
    /// The client pod's view ([`crate::plan::EnrolledPod::view`]).
    pub view: u32,
}
