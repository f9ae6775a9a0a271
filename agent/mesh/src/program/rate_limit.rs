//! How many requests a rule takes: a token bucket as a point in time, so that one number is its whole state. Compiled from
//! the annotation of a VirtualService, carried by [`super::RouteSettings`], kept by the proxy.

use std::sync::Arc;
use std::time::Duration;

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The same for the same rule from one program to the next: by it the bucket is found.
    pub id: Arc<str>,
    /// So many …
    pub requests: u32,
    /// … in this time.
    pub per: Duration,
    /// The size of the bucket.
    pub burst: u32,
    /// Each pod that asks has a bucket of its own.
    pub per_source: bool,
}

/// What a request finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The state from now on; `None` = there was no token, and it stays.
    pub full_at: Option<u64>,
    /// Tokens that are left.
    pub remaining: u32,
    /// Until the bucket is full.
    pub reset: Duration,
}

impl RateLimit {
    /// Takes a token at `now` from a bucket that is full at `full_at`, both in ns of one clock; a bucket of which nothing is
    /// known is full at 0.
    pub fn draw(&self, full_at: u64, now: u64) -> Drawn {
        // At least a nanosecond: a rate beyond that is none.
        let token = (self.per.as_nanos() / u128::from(self.requests.max(1))).max(1) as u64;
        let size = token.saturating_mul(u64::from(self.burst.max(1)));
        // A limit that was lowered must not be waited for longer than it takes by itself.
        let before = full_at.clamp(now, now.saturating_add(size));
        let after = before.saturating_add(token);
        let fits = after - now <= size;
        let state = if fits { after } else { before };
        Drawn {
            full_at: fits.then_some(after),
            remaining: u32::try_from((size - (state - now)) / token).unwrap_or(u32::MAX),
            reset: Duration::from_nanos(state - now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limit(requests: u32, burst: u32) -> RateLimit {
        RateLimit { id: "x".into(), requests, per: Duration::from_secs(1), burst, per_source: false }
    }

    /// How many of the requests, one every `step`, get a token.
    fn taken(limit: &RateLimit, state: &mut u64, from: u64, step: u64, count: u64) -> u64 {
        let draw = |n: u64| {
            let drawn = limit.draw(*state, from + n * step);
            *state = drawn.full_at.unwrap_or(*state);
            u64::from(drawn.full_at.is_some())
        };
        (0..count).map(draw).sum()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let (limit, mut state) = (limit(10, 5), 0);
        assert_eq!(taken(&limit, &mut state, SECOND, 0, 100), 5, "at once");
        // A thousand a second for ten seconds: ten of each thousand.
        assert_eq!(taken(&limit, &mut state, SECOND, SECOND / 1000, 10_000), 99);
        assert_eq!(taken(&limit, &mut state, 100 * SECOND, 0, 100), 5, "after a rest no more than the bucket holds");
    }

    #[test]
    fn what_is_left_and_until_when_is_told() {
        let limit = limit(4, 4);
        let first = limit.draw(0, SECOND);
        assert_eq!((first.remaining, first.reset), (3, Duration::from_millis(250)));
        let empty = limit.draw(2 * SECOND, SECOND);
        assert_eq!((empty.full_at, empty.remaining, empty.reset), (None, 0, Duration::from_secs(1)));
    }

    #[test]
    fn a_lowered_limit_is_not_waited_for_from_before() {
        let far = 1000 * SECOND;
        assert!(limit(10, 10).draw(far, SECOND).full_at.is_none());
        assert_eq!(limit(10, 10).draw(far, SECOND).reset, Duration::from_secs(1));
    }
}
