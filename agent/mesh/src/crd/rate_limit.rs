//! The annotation `weir.mesh/rate-limit` of a VirtualService: how many requests its rules take. Istio has no field for it.
//! Read by [`crate::compile`].
//!
//! Entries are separated by `;` or a line's end, each of them `[RULE:] COUNT/UNIT [burst COUNT] [per source]`:
//! `checkout: 10/s burst 20 per source; 1000/m`. RULE is an `http[].name`; without one an entry is for each rule that has
//! none of its own.

use std::time::Duration;

/// The annotation.
pub const RATE_LIMIT: &str = "weir.mesh/rate-limit";

/// More than any node's proxy answers in an hour is no limit.
const MAX_COUNT: u32 = 1_000_000_000;

/// How many requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So many …
    pub requests: u32,
    /// … in this time.
    pub per: Duration,
    /// So many at once, after a rest.
    pub burst: u32,
    /// For each pod that asks, instead of for all together.
    pub per_source: bool,
}

/// What an annotation says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    named: Vec<(Box<str>, Limit)>,
    others: Option<Limit>,
}

impl Limits {
    /// Reads the annotation's value.
    ///
    /// # Errors
    /// What it should have been, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut limits = Self::default();
        for entry in text.split([';', '\n']).map(str::trim).filter(|entry| !entry.is_empty()) {
            let (rule, limit) = match entry.split_once(':') {
                Some((rule, limit)) => (rule.trim(), limit),
                None => ("", entry),
            };
            let limit = parse_limit(limit).map_err(|why| format!("`{entry}`: {why}"))?;
            let twice = match rule {
                "" if entry.contains(':') => {
                    return Err(format!("`{entry}`: a rule's name must stand before the colon"));
                }
                "" => limits.others.replace(limit).is_some(),
                rule => {
                    let twice = limits.get(rule).is_some();
                    limits.named.push((rule.into(), limit));
                    twice
                }
            };
            if twice {
                return Err(format!("`{entry}`: there is another limit for the same"));
            }
        }
        if limits == Self::default() { Err("it says nothing".to_owned()) } else { Ok(limits) }
    }

    fn get(&self, rule: &str) -> Option<&Limit> {
        self.named.iter().find(|(name, _)| **name == *rule).map(|(_, limit)| limit)
    }

    /// That of a rule of this name, which may be empty.
    pub fn of(&self, rule: &str) -> Option<&Limit> {
        self.get(rule).or(self.others.as_ref())
    }

    /// The rules that it names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(|(name, _)| &**name)
    }
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    let mut words = text.split_whitespace();
    let (count, unit) = words.next().and_then(|rate| rate.split_once('/')).ok_or("a rate is written 100/s")?;
    let per = match unit {
        "s" | "second" => Duration::from_secs(1),
        "m" | "minute" => Duration::from_mins(1),
        "h" | "hour" => Duration::from_hours(1),
        other => return Err(format!("the unit must be s, m or h, is `{other}`")),
    };
    let requests = parse_count(count)?;
    let mut limit = Limit { requests, per, burst: requests, per_source: false };
    while let Some(word) = words.next() {
        match (word, words.next()) {
            ("burst", Some(count)) => limit.burst = parse_count(count)?,
            ("per", Some("source")) => limit.per_source = true,
            _ => return Err(format!("after the rate may stand `burst COUNT` and `per source`, not `{word}`")),
        }
    }
    Ok(limit)
}

fn parse_count(text: &str) -> Result<u32, String> {
    let count = text.parse().ok().filter(|count| (1..=MAX_COUNT).contains(count));
    count.ok_or_else(|| format!("a count must be 1 to {MAX_COUNT}, is `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_for_a_rule_or_for_the_others() {
        let limits = Limits::parse(" checkout: 10/s burst 20 per source; \n1000/minute\n").expect("it can be read");
        let second = Duration::from_secs(1);
        assert_eq!(limits.of("checkout"), Some(&Limit { requests: 10, per: second, burst: 20, per_source: true }));
        let others = Limit { requests: 1000, per: 60 * second, burst: 1000, per_source: false };
        assert_eq!((limits.of(""), limits.of("x")), (Some(&others), Some(&others)));
        let named = Limits::parse("a: 1/h").expect("it can be read");
        assert_eq!((named.of("b"), named.names().collect::<Vec<_>>()), (None, vec!["a"]));
    }

    #[test]
    fn what_is_no_limit_is_told_why() {
        for (text, why) in [
            ("", "says nothing"),
            (";\n;", "says nothing"),
            ("fast", "100/s"),
            ("0/s", "1 to"),
            ("-1/s", "1 to"),
            ("1.5/s", "1 to"),
            ("2000000000/s", "1 to"),
            ("10/day", "s, m or h"),
            ("10/s burst", "may stand"),
            ("10/s burst x", "1 to"),
            ("10/s per pod", "may stand"),
            ("10/s; 20/s", "another"),
            ("a: 10/s; a: 20/s", "another"),
            (": 10/s", "name"),
        ] {
            let told = Limits::parse(text).expect_err(text);
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
