//! What can become of a request that is not forwarded, and what the client is told: one table from kind to status,
//! response flag and text. Used by `handler`, `tcp` and `upstream`.

use std::error::Error;
use std::fmt;

use http::StatusCode;

/// Envoy's response flags, as far as this proxy sets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Flag {
    /// `-`: nothing of note.
    None,
    /// No route.
    NoRoute,
    /// No cluster: the route names a subset or host that does not exist.
    NoCluster,
    /// No healthy upstream.
    NoHealthyUpstream,
    /// Upstream connection failure.
    UpstreamFailure,
    /// Upstream connection termination.
    UpstreamClosed,
    /// Upstream protocol error.
    UpstreamProtocol,
    /// Downstream connection termination.
    DownstreamClosed,
    /// Downstream protocol error.
    DownstreamProtocol,
}

impl Flag {
    /// All of them, in the order of their values.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::NoRoute,
        Self::NoCluster,
        Self::NoHealthyUpstream,
        Self::UpstreamFailure,
        Self::UpstreamClosed,
        Self::UpstreamProtocol,
        Self::DownstreamClosed,
        Self::DownstreamProtocol,
    ];

    /// As access logs and metrics write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::NoRoute => "NR",
            Self::NoCluster => "NC",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamFailure => "UF",
            Self::UpstreamClosed => "UC",
            Self::UpstreamProtocol => "UPE",
            Self::DownstreamClosed => "DC",
            Self::DownstreamProtocol => "DPE",
        }
    }
}

/// Whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Downstream,
    Local,
    Upstream,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    BadRequest,
    NoRoute,
    NoCluster,
    InvalidBackend,
    InvalidRule,
    NoHealthyUpstream,
    ConnectFailed,
    ConnectTimeout,
    UpstreamClosed,
    UpstreamProtocol,
}

/// A request or connection that came to nothing.
#[derive(Debug)]
pub(crate) struct ProxyError {
    pub(crate) kind: Kind,
    /// True when no byte of the request can have been acted on, so that another endpoint may be asked.
    pub(crate) retry: bool,
    pub(crate) source: Option<Box<dyn Error + Send + Sync>>,
}

impl Kind {
    /// Status, flag, side, Envoy's response code details, and the text for the client.
    fn row(self) -> (StatusCode, Flag, Side, &'static str, &'static str) {
        use Kind as K;
        use StatusCode as S;
        match self {
            K::BadRequest => (S::BAD_REQUEST, Flag::DownstreamProtocol, Side::Downstream, "bad_request", "bad request"),
            K::NoRoute => (S::NOT_FOUND, Flag::NoRoute, Side::Local, "route_not_found", ""),
            K::NoCluster => (S::SERVICE_UNAVAILABLE, Flag::NoCluster, Side::Local, "cluster_not_found", ""),
            K::InvalidBackend => (S::INTERNAL_SERVER_ERROR, Flag::NoCluster, Side::Local, "invalid_backend", ""),
            K::InvalidRule => (S::INTERNAL_SERVER_ERROR, Flag::None, Side::Local, "invalid_rule", ""),
            K::NoHealthyUpstream => (
                S::SERVICE_UNAVAILABLE,
                Flag::NoHealthyUpstream,
                Side::Upstream,
                "no_healthy_upstream",
                "no healthy upstream",
            ),
            K::ConnectFailed => (
                S::SERVICE_UNAVAILABLE,
                Flag::UpstreamFailure,
                Side::Upstream,
                "upstream_reset_before_response_started{connection_failure}",
                "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
            ),
            K::ConnectTimeout => (
                S::SERVICE_UNAVAILABLE,
                Flag::UpstreamFailure,
                Side::Upstream,
                "upstream_reset_before_response_started{connection_timeout}",
                "upstream connect error or disconnect/reset before headers. reset reason: connection timeout",
            ),
            K::UpstreamClosed => (
                S::SERVICE_UNAVAILABLE,
                Flag::UpstreamClosed,
                Side::Upstream,
                "upstream_reset_before_response_started{connection_termination}",
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
            ),
            K::UpstreamProtocol => (
                S::BAD_GATEWAY,
                Flag::UpstreamProtocol,
                Side::Upstream,
                "upstream_reset_before_response_started{protocol_error}",
                "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
            ),
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        self.row().0
    }

    pub(crate) fn flag(self) -> Flag {
        self.row().1
    }

    pub(crate) fn side(self) -> Side {
        self.row().2
    }

    pub(crate) fn details(self) -> &'static str {
        self.row().3
    }

    pub(crate) fn text(self) -> &'static str {
        self.row().4
    }
}

impl ProxyError {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, retry: false, source: None }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Marks it as one that another endpoint may mend.
    pub(crate) fn retriable(mut self) -> Self {
        self.retry = true;
        self
    }
}

impl From<Kind> for ProxyError {
    fn from(kind: Kind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({:?} side)", self.kind, self.kind.side())?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_numbered_in_the_order_of_the_list() {
        for (index, flag) in Flag::ALL.into_iter().enumerate() {
            assert_eq!(flag as usize, index);
        }
    }
}
