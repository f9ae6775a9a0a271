//! The weight of an endpoint that is new: its share grows with its age. Asked for by the proxy when it makes weights.

use std::time::Duration;

use crate::program::Warmup;

/// The weight of an endpoint that is warm.
pub const FULL: u32 = 1_000;

/// The weight, up to [`FULL`], of an endpoint that is there for `age`: its age's part of the whole warm-up, to the power
/// of `1 / aggression`, and never less than the minimum. At least 1, so that an endpoint gets warm at all.
pub fn weight(warmup: &Warmup, age: Duration) -> u32 {
    if age >= warmup.duration {
        return FULL;
    }
    // The first second counts as a whole one, as in Envoy.
    let age = age.max(Duration::from_secs(1)).min(warmup.duration);
    let part = age.as_secs_f64() / warmup.duration.as_secs_f64();
    let aggression = f64::from(warmup.aggression_thousandths.max(1)) / 1000.0;
    let minimum = f64::from(warmup.minimum.millionths()) / 1e6;
    let share = part.powf(aggression.recip()).clamp(minimum, 1.0);
    ((share * f64::from(FULL)).round() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Share;

    fn warmup(minimum: f64, aggression_thousandths: u32) -> Warmup {
        Warmup { duration: Duration::from_mins(1), minimum: Share::of_percent(minimum), aggression_thousandths }
    }

    fn weights(warmup: &Warmup, seconds: [u64; 5]) -> [u32; 5] {
        seconds.map(|seconds| weight(warmup, Duration::from_secs(seconds)))
    }

    #[test]
    fn a_share_grows_with_age_from_its_minimum() {
        let ages = [0, 6, 15, 30, 60];
        assert_eq!(weights(&warmup(10.0, 1000), ages), [100, 100, 250, 500, 1000]);
        assert_eq!(weights(&warmup(0.0, 1000), ages), [17, 100, 250, 500, 1000]);
        assert_eq!(weights(&warmup(10.0, 2000), ages), [129, 316, 500, 707, 1000], "bolder");
        assert_eq!(weights(&warmup(10.0, 500), ages), [100, 100, 100, 250, 1000], "more timid");
        assert_eq!(weights(&warmup(0.0, 1), ages), [1, 1, 1, 1, 1000], "it gets warm at all");
    }

    #[test]
    fn what_takes_no_time_is_warm() {
        let none = Warmup { duration: Duration::ZERO, ..warmup(10.0, 1000) };
        assert_eq!(weight(&none, Duration::ZERO), FULL);
        let short = Warmup { duration: Duration::from_millis(500), ..warmup(10.0, 1000) };
        assert_eq!(weight(&short, Duration::ZERO), FULL, "within the first second");
        assert_eq!(weight(&warmup(10.0, 1000), Duration::MAX), FULL);
    }
}
