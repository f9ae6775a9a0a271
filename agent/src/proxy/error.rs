//! What can become of a request that is not forwarded, and what the client is told: one table from kind to status,
//! response flag and text. Used by `handler`, `tcp` and `upstream`.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;

use http::StatusCode;
use weir_mesh::outlier::Outcome;

use super::upstream::wire::Fault;

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Envoy's response flags, as far as this proxy sets them, in Envoy's order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Flag {
            $($(#[$doc])* $name,)*
        }

        impl Flag {
            /// All of them, in the order of their values.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$name),*];

            /// As access logs and metrics write it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}
flags! {
    /// Nothing of note.
    None = "-",
    /// No healthy upstream.
    NoHealthyUpstream = "UH",
    /// Upstream request timeout.
    UpstreamTimeout = "UT",
    /// Upstream connection failure.
    UpstreamFailure = "UF",
    /// Upstream connection termination.
    UpstreamClosed = "UC",
    /// Upstream overflow: a limit on what may be under way.
    UpstreamOverflow = "UO",
    /// No route.
    NoRoute = "NR",
    /// A delay was injected.
    DelayInjected = "DI",
    /// An abort was injected.
    FaultInjected = "FI",
    /// Rate limited.
    RateLimited = "RL",
    /// Downstream connection termination.
    DownstreamClosed = "DC",
    /// Upstream retry limit exceeded.
    RetriesExhausted = "URX",
    /// Downstream protocol error.
    DownstreamProtocol = "DPE",
    /// The connection lasted as long as it may.
    MaxDuration = "DT",
    /// Upstream protocol error.
    UpstreamProtocol = "UPE",
    /// No cluster: the route names a subset or host that does not exist.
    NoCluster = "NC",
}

/// Everything of note about one request or connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Flags(u32);

impl Flags {
    pub(crate) fn insert(&mut self, flag: Flag) {
        if flag != Flag::None {
            self.0 |= 1 << flag as u8;
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In Envoy's order.
    pub(crate) fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.into_iter().filter(move |flag| self.0 & (1 << *flag as u8) != 0)
    }
}

impl From<Flag> for Flags {
    fn from(flag: Flag) -> Self {
        let mut flags = Self::default();
        flags.insert(flag);
        flags
    }
}

/// As access logs write them: `UF,URX`.
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str(Flag::None.as_str());
        }
        for (n, flag) in self.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            f.write_str(flag.as_str())?;
        }
        Ok(())
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
    /// A limit on what may be under way to the cluster.
    Overflow,
    /// The client's pod has its share of the proxy.
    Overloaded,
    ConnectFailed,
    ConnectTimeout,
    /// TLS is asked for, and what it takes is not there.
    NotEncrypted,
    UpstreamClosed,
    UpstreamProtocol,
    /// Of the whole request.
    Timeout,
    /// Of one try.
    TryTimeout,
}

/// A request or connection that came to nothing.
#[derive(Debug)]
pub(crate) struct ProxyError {
    pub(crate) kind: Kind,
    /// Of note beside what the kind says.
    pub(crate) also: Flags,
    pub(crate) source: Option<Box<dyn Error + Send + Sync>>,
}

/// The same, and the endpoint that was tried last, if any was.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) error: ProxyError,
    pub(crate) endpoint: Option<SocketAddr>,
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
            K::Overflow => (
                S::SERVICE_UNAVAILABLE,
                Flag::UpstreamOverflow,
                Side::Local,
                "upstream_reset_before_response_started{overflow}",
                "upstream connect error or disconnect/reset before headers. reset reason: overflow",
            ),
            K::Overloaded => (S::SERVICE_UNAVAILABLE, Flag::UpstreamOverflow, Side::Local, "overload", "overloaded"),
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
            K::NotEncrypted => (
                S::SERVICE_UNAVAILABLE,
                Flag::UpstreamFailure,
                Side::Local,
                "upstream_reset_before_response_started{connection_failure}",
                "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
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
            K::Timeout => (
                S::GATEWAY_TIMEOUT,
                Flag::UpstreamTimeout,
                Side::Upstream,
                "response_timeout",
                "upstream request timeout",
            ),
            K::TryTimeout => (
                S::GATEWAY_TIMEOUT,
                Flag::UpstreamTimeout,
                Side::Upstream,
                "upstream_per_try_timeout",
                "upstream request timeout",
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
        Self { kind, also: Flags::default(), source: None }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// With more to note.
    pub(crate) fn with(mut self, flags: Flags) -> Self {
        self.also.add(flags);
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

impl ProxyError {
    /// What it says of the endpoint that was tried.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.kind {
            Kind::ConnectTimeout => Outcome::TimedOut,
            Kind::ConnectFailed => Outcome::ConnectFailed,
            Kind::UpstreamClosed => match self.source.as_ref().and_then(|source| source.downcast_ref()) {
                // The client went away in the middle of its request.
                Some(Fault::Request(_)) => Outcome::Abandoned,
                _ => Outcome::ConnectFailed,
            },
            Kind::UpstreamProtocol => Outcome::Status(StatusCode::BAD_GATEWAY.as_u16()),
            _ => Outcome::Abandoned,
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

    #[test]
    fn several_flags_are_written_in_envoys_order() {
        let mut flags = Flags::default();
        assert_eq!(flags.to_string(), "-");
        for flag in [Flag::RetriesExhausted, Flag::None, Flag::UpstreamFailure, Flag::DelayInjected] {
            flags.insert(flag);
        }
        assert_eq!(flags.to_string(), "UF,DI,URX");
    }
}
