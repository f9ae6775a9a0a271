//! What a rule does with a request that it takes, compiled: rewrites, timeouts, retries, faults, mirrors, CORS, headers,
//! redirects and direct responses. Decoded by `crd`, carried by [`super::Route`], acted on by the proxy and shown by
//! `explain`.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::WeightedCluster;
use crate::matching::StringMatch;

/// What is done with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// It goes to one of the route's destinations.
    #[default]
    Forward,
    /// The client is sent elsewhere.
    Redirect(Arc<super::rewrite::Redirect>),
    /// The proxy answers itself.
    Respond(Arc<DirectResponse>),
}

/// Everything beside matches and destinations that a route asks for. Absent where it asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteSettings {
    /// `rewrite`
    pub rewrite: Option<Arc<super::rewrite::Rewrite>>,
    /// `timeout`, of the whole request with its retries; `None` = none.
    pub timeout: Option<Duration>,
    /// `retries`; `None` = [`RetryPolicy::none_given`].
    pub retries: Option<Arc<RetryPolicy>>,
    /// `fault`
    pub fault: Option<Arc<FaultInjection>>,
    /// `mirror` and `mirrors`
    pub mirrors: Box<[Mirror]>,
    /// `corsPolicy`
    pub cors: Option<Arc<CorsPolicy>>,
    /// `headers` of the rule. Those of the chosen destination are applied after them.
    pub headers: Option<Arc<HeaderOperations>>,
    /// What the annotation `weir.mesh/rate-limit` says of it.
    pub rate_limit: Option<Arc<super::RateLimit>>,
}

/// A status and a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: u16,
    /// Empty when none is given.
    pub body: Box<[u8]>,
}

/// A part of all requests, in millionths: a ten-thousandth of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    /// Every request.
    pub const ALL: Self = Self(1_000_000);
    /// No request.
    pub const NONE: Self = Self(0);

    /// A percentage; what is beyond 0 or 100 is as these.
    pub fn of_percent(percent: f64) -> Self {
        Self((percent.clamp(0.0, 100.0) * 10_000.0).round() as u32)
    }

    /// In millionths.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// Whether a uniformly random `roll` is within the share.
    pub fn takes(self, roll: u64) -> bool {
        // Multiply-shift: the bias is below 2^-44.
        ((u128::from(roll) * 1_000_000) >> 64) < u128::from(self.0)
    }
}

/// What a roll is used for. One random number serves a request; each use has bits of its own, so that a delay, an abort
/// and the choice of a destination do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chance {
    /// Which destination.
    Destination,
    /// Whether the request is delayed.
    Delay,
    /// Whether it is aborted.
    Abort,
    /// Whether the mirror of this position gets a copy.
    Mirror(u32),
    /// The value of a cookie that is made.
    Cookie,
}

impl Chance {
    /// The bits of `roll` for this use: uniform when `roll` is, and independent of those of other uses.
    pub fn of(self, roll: u64) -> u64 {
        let salt = match self {
            Self::Destination => return roll,
            Self::Delay => 1,
            Self::Abort => 2,
            Self::Mirror(position) => 3 + u64::from(position),
            Self::Cookie => u64::MAX,
        };
        crate::balance::mix(roll, salt)
    }
}

/// `retries`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a failed request is sent again; 0 = never.
    pub attempts: u32,
    /// How long one try may take; `None` = as long as the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// The base of the exponential backoff with full jitter; its limit is ten times this.
    pub backoff: Duration,
    /// What counts as failed.
    pub on: RetryOn,
    /// Response codes that count as failed too.
    pub statuses: Box<[u16]>,
    /// `retryRemoteLocalities`: other localities are tried when the own one fails.
    pub remote_localities: bool,
    /// `retryIgnorePreviousHosts`: endpoints that failed are avoided.
    pub ignore_previous_hosts: bool,
}

impl RetryPolicy {
    /// Envoy's base interval between tries.
    pub const BACKOFF: Duration = Duration::from_millis(25);
    /// Istio's number where no `retries` are given.
    const DEFAULT_ATTEMPTS: u32 = 2;

    /// What holds for a route without `retries`, and for a host without rules: a request is sent again only where it was
    /// provably not processed.
    pub fn none_given() -> Self {
        Self {
            attempts: Self::DEFAULT_ATTEMPTS,
            per_try_timeout: None,
            backoff: Self::BACKOFF,
            on: RetryOn::UNPROCESSED,
            statuses: Box::default(),
            remote_localities: false,
            ignore_previous_hosts: true,
        }
    }

    /// Whether a request is sent again that came to an end without an answer: a connect that failed, a request that was
    /// not written (`sent` is false), or one that may have been processed.
    pub fn repeats_reset(&self, connect_failed: bool, sent: bool) -> bool {
        let no_answer = RetryOn::RESET.and(RetryOn::SERVER_ERROR).and(RetryOn::GATEWAY_ERROR);
        self.on.any(no_answer)
            || (connect_failed && self.on.any(RetryOn::CONNECT_FAILURE))
            || (!sent && self.on.any(RetryOn::RESET_BEFORE_REQUEST))
    }

    /// Whether a request is sent again that was answered like this.
    pub fn repeats_answer(&self, status: u16, headers: &HeaderMap) -> bool {
        if self.attempts == 0 || headers.contains_key("x-envoy-overloaded") {
            return false;
        }
        if headers.contains_key("x-envoy-ratelimited") {
            return self.on.any(RetryOn::RATE_LIMITED);
        }
        let grpc = || headers.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
        match status {
            502..=504 if self.on.any(RetryOn::GATEWAY_ERROR) => true,
            500..=599 if self.on.any(RetryOn::SERVER_ERROR) => true,
            409 if self.on.any(RetryOn::RETRIABLE_4XX) => true,
            _ => self.statuses.contains(&status) || grpc().is_some_and(|status| self.on.has_grpc(status)),
        }
    }

    /// The longest pause before the n-th repetition, counted from 1: it doubles up to ten times the base.
    pub fn longest_pause(&self, n: u32) -> Duration {
        self.backoff.saturating_mul(1 << n.saturating_sub(1).min(4)).min(self.backoff.saturating_mul(10))
    }
}

/// A set of conditions for a retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetryOn(u32);

/// Istio's tokens, in the order of their bits.
const RETRY_TOKENS: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

impl RetryOn {
    /// The request was provably not processed: it was never written, or the upstream said so.
    pub const UNPROCESSED: Self = Self((1 << 3) | (1 << 4) | (1 << 7));
    /// Istio's where a `retries` block names none.
    pub const ISTIO: Self = Self((1 << 4) | (1 << 7) | (1 << 11) | (1 << 15));

    /// Any 5xx, or no answer at all.
    pub const SERVER_ERROR: Self = Self(1);
    /// 502, 503, 504, or no answer at all.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// No answer at all.
    pub const RESET: Self = Self(1 << 2);
    /// No answer, to a request that was not written.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    /// No connection.
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    /// `x-envoy-ratelimited`
    pub const RATE_LIMITED: Self = Self(1 << 5);
    /// 409
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    /// The gRPC statuses of the last five tokens, by bit from [`Self::GRPC_FIRST`].
    const GRPC: [u8; 5] = [1, 4, 13, 8, 14];
    const GRPC_FIRST: u32 = 11;

    /// Whether one of the conditions of `others` is in it.
    pub fn any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Whether this gRPC status is a condition.
    pub fn has_grpc(self, status: u8) -> bool {
        let bit = Self::GRPC.iter().position(|one| *one == status);
        bit.is_some_and(|bit| self.0 & (1 << (Self::GRPC_FIRST + bit as u32)) != 0)
    }

    /// The condition of this token of `retryOn`.
    pub fn token(token: &str) -> Option<Self> {
        RETRY_TOKENS.iter().position(|known| *known == token).map(|bit| Self(1 << bit))
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the condition of a token is in it.
    pub fn has(self, token: &str) -> bool {
        Self::token(token).is_some_and(|one| self.0 & one.0 != 0)
    }

    /// The tokens, in Istio's order.
    pub fn tokens(self) -> impl Iterator<Item = &'static str> {
        RETRY_TOKENS.into_iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, token)| token)
    }
}

/// `fault`. It strikes on the client's side, before retries and timeouts, which therefore do not see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultInjection {
    /// For how long, and which share.
    pub delay: Option<(Duration, Share)>,
    /// With what, and which share.
    pub abort: Option<(Abort, Share)>,
}

/// What an aborted request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u8),
}

impl FaultInjection {
    /// What strikes the request of this roll: first the delay, then the abort, each by its own chance.
    pub fn draw(&self, roll: u64) -> (Option<Duration>, Option<Abort>) {
        let delay = self.delay.filter(|(_, share)| share.takes(Chance::Delay.of(roll)));
        let abort = self.abort.filter(|(_, share)| share.takes(Chance::Abort.of(roll)));
        (delay.map(|(duration, _)| duration), abort.map(|(abort, _)| abort))
    }
}

/// A destination of copies, whose answers nobody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where to; its weight means nothing.
    pub destination: WeightedCluster,
    /// Which share.
    pub share: Share,
}

impl Mirror {
    /// Whether the request of this roll is copied to the mirror of this position.
    pub fn takes(&self, position: u32, roll: u64) -> bool {
        self.share.takes(Chance::Mirror(position).of(roll))
    }
}

/// `corsPolicy`, with its values ready to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsPolicy {
    /// `allowOrigins`
    pub allow_origins: Box<[StringMatch]>,
    /// `Access-Control-Allow-Methods`
    pub allow_methods: Option<HeaderValue>,
    /// `Access-Control-Allow-Headers`
    pub allow_headers: Option<HeaderValue>,
    /// `Access-Control-Expose-Headers`
    pub expose_headers: Option<HeaderValue>,
    /// `Access-Control-Max-Age`, in seconds.
    pub max_age: Option<u64>,
    /// `Access-Control-Allow-Credentials`
    pub allow_credentials: Option<bool>,
    /// `unmatchedPreflights: IGNORE`: a preflight of another origin is answered without headers, and not forwarded.
    pub ignore_unmatched_preflights: bool,
}

impl CorsPolicy {
    /// Whether requests of this origin are allowed.
    pub fn allows(&self, origin: &str) -> bool {
        self.allow_origins.iter().any(|allowed| allowed.matches(origin))
    }
}

/// Changes of the headers of a request and of its response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOperations {
    /// Of the request.
    pub request: HeaderChanges,
    /// Of the response.
    pub response: HeaderChanges,
}

/// Changes of headers: first what is taken away, then what is overwritten, then what is appended. Values are Envoy's
/// formats: `%NAME%` stands for something of the request, `%%` for a percent sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Overwritten.
    pub set: Box<[(HeaderName, HeaderValue)]>,
    /// Appended.
    pub add: Box<[(HeaderName, HeaderValue)]>,
    /// Taken away.
    pub remove: Box<[HeaderName]>,
    /// `set` or `add` of `host` or `:authority`: what the upstream is told that it is.
    pub authority: Option<HeaderValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rolls over the whole range, each once.
    fn rolls(steps: u64) -> impl Iterator<Item = u64> {
        (0..steps).map(move |n| n * (u64::MAX / steps) + u64::MAX / steps / 2)
    }

    #[test]
    fn shares_are_exact_to_a_millionth() {
        assert_eq!(Share::of_percent(0.0001).millionths(), 1);
        assert_eq!((Share::of_percent(-3.0), Share::of_percent(300.0)), (Share::NONE, Share::ALL));
        assert_eq!(rolls(1_000_000).filter(|roll| Share::of_percent(12.5).takes(*roll)).count(), 125_000);
        assert!(Share::ALL.takes(u64::MAX) && !Share::NONE.takes(0));
    }

    #[test]
    fn delay_abort_and_destination_do_not_go_together() {
        let half = Share::of_percent(50.0);
        let fault =
            FaultInjection { delay: Some((Duration::from_secs(1), half)), abort: Some((Abort::Http(500), half)) };
        let mut seen = [0_u32; 8];
        for roll in rolls(80_000) {
            let (delay, abort) = fault.draw(roll);
            let first = Chance::Destination.of(roll) >> 63;
            seen[usize::from(delay.is_some()) * 4 + usize::from(abort.is_some()) * 2 + first as usize] += 1;
        }
        assert!(seen.iter().all(|count| (9_500..10_500).contains(count)), "{seen:?}");
    }

    #[test]
    fn conditions_for_retries_are_istios_words() {
        let tokens: Vec<_> = RetryOn::ISTIO.tokens().collect();
        assert_eq!(tokens, ["connect-failure", "refused-stream", "cancelled", "unavailable"]);
        let tokens: Vec<_> = RetryPolicy::none_given().on.tokens().collect();
        assert_eq!(tokens, ["reset-before-request", "connect-failure", "refused-stream"]);
        assert!(RetryOn::token("503").is_none() && RetryOn::ISTIO.has("cancelled") && !RetryOn::ISTIO.has("5xx"));
    }

    #[test]
    fn every_condition_for_a_retry_is_its_own() {
        let policy = |tokens: &[&str]| {
            let on =
                tokens.iter().fold(RetryOn::default(), |on, token| on.and(RetryOn::token(token).expect("a token")));
            RetryPolicy { on, ..RetryPolicy::none_given() }
        };
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let plain = headers(&[]);
        let statuses = |token: &str| -> Vec<u16> {
            [200, 409, 429, 500, 502, 503, 504, 505]
                .into_iter()
                .filter(|s| policy(&[token]).repeats_answer(*s, &plain))
                .collect()
        };
        assert_eq!(statuses("5xx"), [500, 502, 503, 504, 505]);
        assert_eq!(statuses("gateway-error"), [502, 503, 504]);
        assert_eq!(statuses("retriable-4xx"), [409]);
        assert_eq!(statuses("reset"), [0; 0]);
        // Connect failure; not written; perhaps processed.
        let resets = |token: &str| {
            let policy = policy(&[token]);
            [(true, false), (false, false), (false, true)].map(|(connect, sent)| policy.repeats_reset(connect, sent))
        };
        for (token, want) in [
            ("5xx", [true; 3]),
            ("gateway-error", [true; 3]),
            ("reset", [true; 3]),
            ("reset-before-request", [true, true, false]),
            ("connect-failure", [true, false, false]),
            ("refused-stream", [false; 3]),
            ("retriable-4xx", [false; 3]),
        ] {
            assert_eq!(resets(token), want, "{token}");
        }
        for (token, status) in [
            ("cancelled", "1"),
            ("deadline-exceeded", "4"),
            ("internal", "13"),
            ("resource-exhausted", "8"),
            ("unavailable", "14"),
        ] {
            for other in ["0", "1", "4", "8", "13", "14"] {
                let answer = headers(&[("grpc-status", other)]);
                assert_eq!(policy(&[token]).repeats_answer(200, &answer), other == status, "{token} {other}");
            }
        }
        assert!(!policy(&["5xx"]).repeats_answer(503, &headers(&[("x-envoy-overloaded", "true")])));
        let limited = headers(&[("x-envoy-ratelimited", "true")]);
        assert!(
            policy(&["envoy-ratelimited"]).repeats_answer(429, &limited)
                && !policy(&["5xx"]).repeats_answer(503, &limited)
        );
        let by_number = RetryPolicy { statuses: [429].into(), ..policy(&[]) };
        assert!(by_number.repeats_answer(429, &plain) && !by_number.repeats_answer(503, &plain));
    }

    #[test]
    fn pauses_double_up_to_ten_times_the_base() {
        let policy = RetryPolicy::none_given();
        let pauses: Vec<_> = [1, 2, 3, 4, 5, 100].map(|n| policy.longest_pause(n).as_millis()).into();
        assert_eq!(pauses, [25, 50, 100, 200, 250, 250]);
    }
}
