//! Durations as Istio's and the Gateway API's kinds write them. Called by the check and by decoding.

use std::time::Duration;

/// Go's durations: `1h2m3.5s`, `250ms`. Exact to the nanosecond; `None` for anything else, a sign included.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos = 0_u64;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit);
        nanos = nanos.checked_add(nanoseconds(amount, unit)?)?;
        rest = next;
    }
    // Go's durations are 64 bits with a sign: 292 years.
    (!text.is_empty() && i64::try_from(nanos).is_ok()).then(|| Duration::from_nanos(nanos))
}

fn nanoseconds(amount: &str, unit: &str) -> Option<u64> {
    let unit = match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "µs" | "μs" => 1_000,
        "ns" => 1_u64,
        _ => return None,
    };
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(unit)?;
    let mut digit_worth = unit;
    for digit in fraction.bytes() {
        digit_worth /= 10;
        nanos = nanos.checked_add(digit_worth * u64::from(digit - b'0'))?;
    }
    Some(nanos)
}

/// The Gateway API's: one to four whole numbers of at most five digits, each with a unit.
pub(super) fn is_plain(text: &str) -> bool {
    let mut rest = text;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |next| digits + next);
        if !(1..=5).contains(&digits) || !matches!(&rest[digits..unit], "h" | "m" | "s" | "ms") {
            return false;
        }
        parts += 1;
        rest = &rest[unit..];
    }
    (1..=4).contains(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in [
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1h2m3.5s", 3_723_500),
            ("250ms", 250),
            ("0s", 0),
            ("0", 0),
            (".5s", 500),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("3.000000042s"), Some(Duration::from_nanos(3_000_000_042)));
        for text in ["", "10", "s", ".s", "10 s", "-1s", "1x", "1.2.3s", "1é", "9999999999999h"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn plain_durations_have_no_fraction() {
        for text in ["1s", "1h30m", "500ms", "1h1m1s1ms"] {
            assert!(is_plain(text), "{text}");
        }
        for text in ["", "1", "s", "1.5s", "100000s", "1s1s1s1s1s", "1us", "-1s", "1é"] {
            assert!(!is_plain(text), "{text}");
        }
    }
}
