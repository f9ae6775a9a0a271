//! Regular expressions as Istio's kinds have them: RE2's dialect, matched against the whole text.

use regex::{Regex, RegexBuilder};

/// Istio's limit for a regex in a VirtualService, in bytes.
const MAX_REGEX: usize = 1024;
/// What a compiled regex may take: a counted repetition of a Unicode class would grow without bound.
const MAX_REGEX_PROGRAM: usize = 2 << 20;

/// Why a pattern is no regular expression.
///
/// # Errors
/// In words that follow the pattern's path.
pub(crate) fn check_regex(pattern: &str) -> Result<(), String> {
    if pattern.len() > MAX_REGEX {
        return Err(format!("must not be longer than {MAX_REGEX} bytes, has {}", pattern.len()));
    }
    // Parsed and not compiled, which takes twenty times as long; whoever uses it finds out whether it is too large.
    regex_syntax::parse(&braces(pattern)).map(drop).map_err(|error| no_regex(&error.to_string()))
}

/// The pattern, compiled to match whole texts.
///
/// # Errors
/// As [`check_regex`].
pub(crate) fn full_regex(pattern: &str) -> Result<Regex, String> {
    // Parsed alone first: `a)(b` must not become two groups inside ours.
    check_regex(pattern)?;
    build(&format!("^(?:{})$", braces(pattern)))
}

/// The pattern, compiled to be found anywhere in a text: what is rewritten by it.
///
/// # Errors
/// As [`check_regex`].
pub(crate) fn part_regex(pattern: &str) -> Result<Regex, String> {
    check_regex(pattern)?;
    build(&braces(pattern))
}

fn build(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(MAX_REGEX_PROGRAM).build().map_err(|error| no_regex(&error.to_string()))
}

/// The regex crate draws a picture; its last line says what is wrong.
fn no_regex(error: &str) -> String {
    let why = error.lines().last().unwrap_or(error).trim_start_matches("error: ");
    format!("is no regular expression: {why}")
}

/// For RE2 a `{` that begins no repetition is a letter, as in `/users/{id}`; the regex crate wants it escaped.
fn braces(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut in_class = false;
    // What a `{` follows: `\p{…}` and `\x{…}` have braces of their own.
    let mut escaped_letter = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let next = after.chars().next().map_or(0, char::len_utf8);
                text.push_str(&rest[..=next]);
                escaped_letter = matches!(after.chars().next(), Some('p' | 'P' | 'x'));
                rest = &after[next..];
                continue;
            }
            '[' => in_class = true,
            ']' => in_class = false,
            '{' if escaped_letter => {
                // As it is, up to where it closes.
                let end = after.find('}').map_or(after.len(), |end| end + 1);
                text.push_str(&rest[..=end]);
                rest = &after[end..];
                escaped_letter = false;
                continue;
            }
            '{' if !in_class && !is_repetition(after) => text.push('\\'),
            _ => {}
        }
        escaped_letter = false;
        text.push(c);
        rest = after;
    }
    text
}

/// `3}`, `3,}` or `3,5}`
fn is_repetition(after: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    after.split_once('}').is_some_and(|(count, _)| match count.split_once(',') {
        Some((least, most)) => number(least) && (most.is_empty() || number(most)),
        None => number(count),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brace_is_a_letter_where_it_repeats_nothing() {
        let matches = |pattern: &str, text: &str| full_regex(pattern).unwrap().is_match(text);
        assert!(matches("/users/{id}", "/users/{id}"));
        assert!(matches("a{2,3}", "aaa") && !matches("a{2,3}", "a{2,3}"));
        assert!(matches(r"\x{41}{", "A{") && matches(r"\d+", "12"));
        assert!(matches("[{]x", "{x") && matches(r"\{x}", "{x}"));
    }

    #[test]
    fn the_whole_text_is_matched() {
        assert!(full_regex("a)(b").is_err());
        assert!(!full_regex("a|b").unwrap().is_match("ab"));
        assert!(check_regex(&"a".repeat(MAX_REGEX)).is_ok() && check_regex(&"a".repeat(MAX_REGEX + 1)).is_err());
        assert!(check_regex("*").unwrap_err().starts_with("is no regular expression"));
    }
}
