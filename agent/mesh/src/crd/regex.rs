//! Regular expressions as Istio's kinds have them: RE2's dialect, matched against the whole text, and limits for what
//! they may come to.

use std::collections::HashSet;

use regex_syntax::hir::{Class, Hir, HirKind};
use regex_syntax::utf8::Utf8Sequences;

use super::re2;
use crate::matching::Pattern;

/// Istio's limit for a regex in a VirtualService, in bytes.
const MAX_REGEX: usize = 1024;
/// How many states a regex may be compiled to, each of some 20 bytes: so many take 1.2 MB and 50 ms. `.{1000}` has 29,000
/// and `\pL{20}` 56,000.
const MAX_STATES: u32 = 60_000;
/// The same of all the different regexes of an object: four of the largest, or some thousand usual ones.
const MAX_STATES_OF_OBJECT: u64 = 4 * MAX_STATES as u64;

/// Why a pattern is no regular expression, or too large.
///
/// # Errors
/// In words that follow the pattern's path.
pub(crate) fn check_regex(pattern: &str) -> Result<(), String> {
    parsed(pattern).map(drop)
}

/// The pattern, to match whole texts.
///
/// # Errors
/// As [`check_regex`].
pub(crate) fn full_regex(pattern: &str) -> Result<Pattern, String> {
    parsed(pattern).map(|(translated, size)| Pattern::new(pattern, translated, true, size))
}

/// The pattern, to be found anywhere in a text: what is rewritten by it.
///
/// # Errors
/// As [`check_regex`].
pub(crate) fn part_regex(pattern: &str) -> Result<Pattern, String> {
    parsed(pattern).map(|(translated, size)| Pattern::new(pattern, translated, false, size))
}

/// Makes those that are equal among the regexes of one object copies of each other, so that each is compiled once, and
/// returns each once. `each` is told what to do with all of them.
///
/// # Errors
/// When they are too large together, in words that follow the path of what holds them.
pub(crate) fn shared_regexes(each: impl FnOnce(&mut dyn FnMut(&mut Pattern))) -> Result<Box<[Pattern]>, String> {
    let (mut known, mut found) = (HashSet::new(), Vec::new());
    each(&mut |pattern| {
        if let Some(known) = known.get(pattern) {
            *pattern = Pattern::clone(known);
        } else {
            known.insert(pattern.clone());
            found.push(pattern.clone());
        }
    });
    if found.iter().map(Pattern::states).sum::<u64>() > MAX_STATES_OF_OBJECT {
        return Err("has regular expressions that are too large together".to_owned());
    }
    Ok(found.into())
}

/// The pattern for the `regex` crate, and how many states that comes to. It is compiled only when a request needs it.
fn parsed(pattern: &str) -> Result<(String, u32), String> {
    if pattern.len() > MAX_REGEX {
        return Err(format!("must not be longer than {MAX_REGEX} bytes, has {}", pattern.len()));
    }
    let translated = re2::translate(pattern).map_err(|why| format!("is no regular expression: {why}"))?;
    let hir = regex_syntax::parse(&translated).map_err(|error| no_regex(&error.to_string()))?;
    match states(&hir) {
        size if size <= MAX_STATES => Ok((translated, size)),
        _ => Err("is too large: what it repeats comes to more states than are allowed".to_owned()),
    }
}

/// The parser draws a picture; its last line says what is wrong.
fn no_regex(error: &str) -> String {
    let why = error.lines().last().unwrap_or(error).trim_start_matches("error: ");
    format!("is no regular expression: {why}")
}

/// How many states an automaton of it has, about. No deeper than the parser lets expressions nest.
fn states(hir: &Hir) -> u32 {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u32,
        HirKind::Class(Class::Bytes(class)) => class.ranges().len() as u32,
        HirKind::Class(Class::Unicode(class)) => {
            let sequences = class.ranges().iter().flat_map(|range| Utf8Sequences::new(range.start(), range.end()));
            sequences.map(|sequence| sequence.len() as u32).sum()
        }
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            states(&repetition.sub).saturating_add(1).saturating_mul(times)
        }
        HirKind::Capture(capture) => states(&capture.sub).saturating_add(2),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(states).fold(parts.len() as u32, u32::saturating_add)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_is_matched() {
        assert!(full_regex("a)(b").is_err());
        assert!(!full_regex("a|b").unwrap().is_match("ab"));
        assert!(part_regex("a|b").unwrap().is_match("ab"));
        assert!(check_regex(&"a".repeat(MAX_REGEX)).is_ok() && check_regex(&"a".repeat(MAX_REGEX + 1)).is_err());
        assert!(check_regex("*").unwrap_err().starts_with("is no regular expression"));
    }

    #[test]
    fn what_would_take_much_to_compile_is_refused() {
        for pattern in ["/0[a-zA-Z0-9]{1000}[a-z]{900}", r"\pL{20}", "[^/]{1,255}", ".{1000}", r"/api/v\d+/.*"] {
            assert_eq!(check_regex(pattern), Ok(()), "{pattern}");
        }
        for pattern in [r"\pL{200}", r"(\pL{10}.){10}", r"[\pL\pN\pS]{100}", r"(?i)[^\pL]{200}"] {
            assert!(check_regex(pattern).unwrap_err().starts_with("is too large"), "{pattern}");
        }
        let usual = full_regex("/api/v[0-9]+/.*").unwrap().states();
        assert!((10..100).contains(&usual), "{usual}");
    }
}
