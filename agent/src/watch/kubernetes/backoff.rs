//! How long to wait before asking again: longer each time, never at the same moment as the other agents of a cluster.

use std::time::Duration;

pub(super) use crate::cluster::spread;

/// The first wait after a failure.
const FIRST: Duration = Duration::from_millis(800);
/// The longest wait: what a cluster's agents may need to notice that the API server is back.
const LONGEST: Duration = Duration::from_secs(30);
/// No server may tell an agent to stay away for longer.
const LONGEST_ASKED: Duration = Duration::from_mins(2);

/// Waits that double, each somewhere between half of its length and the whole.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure; the server may have asked for a longer one.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let full = FIRST.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let own = full / 2 + spread(full / 2);
        match asked.map(|asked| asked.min(LONGEST_ASKED)) {
            // All were told the same, and must not come back at the same moment.
            Some(asked) if asked >= own => asked + spread(asked / 2 + FIRST),
            _ => own,
        }
    }

    /// All is well again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_limit_and_differ() {
        let mut backoff = Backoff::default();
        let mut full = FIRST;
        for _ in 0..20 {
            let wait = backoff.next(None);
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
            full = (2 * full).min(LONGEST);
        }
        backoff.reset();
        let waits: Vec<Duration> = (0..50).map(|_| Backoff::default().next(None)).collect();
        assert!(waits.iter().any(|wait| *wait < FIRST * 5 / 8) && waits.iter().any(|wait| *wait > FIRST * 7 / 8));
    }

    #[test]
    fn what_the_server_asks_for_is_the_least() {
        for _ in 0..20 {
            let wait = Backoff::default().next(Some(Duration::from_secs(4)));
            assert!(wait >= Duration::from_secs(4) && wait < Duration::from_secs(8), "{wait:?}");
            assert!(Backoff::default().next(Some(Duration::from_hours(24))) < 2 * LONGEST_ASKED);
        }
    }
}
