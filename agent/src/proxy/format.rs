//! Envoy's formats in header values: `%NAME%`, `%NAME(ARGUMENT)%`, `%NAME(ARGUMENT):LENGTH%`, and `%%` for a percent
//! sign. Called by `headers`.

use std::borrow::Cow;

/// A format at the beginning of a text.
struct Format<'t> {
    name: &'t str,
    argument: Option<&'t str>,
    /// At most so many bytes of what it stands for.
    length: Option<usize>,
    /// How much of the text it is.
    len: usize,
}

/// The text with what its formats stand for, by `lookup` of name and argument; what nobody knows stands for nothing.
/// What is no format is kept as it is.
pub(crate) fn expand<'v>(text: &[u8], lookup: impl Fn(&str, Option<&str>) -> Option<Cow<'v, str>>) -> Vec<u8> {
    let mut expanded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        expanded.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with(b"%%") {
            expanded.push(b'%');
            rest = &rest[2..];
        } else if let Some(format) = parse(rest) {
            let found = lookup(format.name, format.argument).unwrap_or_default();
            let length = format.length.unwrap_or(found.len()).min(found.len());
            expanded.extend_from_slice(&found.as_bytes()[..length]);
            rest = &rest[format.len..];
        } else {
            expanded.push(b'%');
            rest = &rest[1..];
        }
    }
    expanded.extend_from_slice(rest);
    expanded
}

/// The format that `text`, which begins with `%`, begins with.
fn parse(text: &[u8]) -> Option<Format<'_>> {
    let after = |from: usize, byte: u8| Some(from + text.get(from..)?.iter().position(|b| *b == byte)?);
    let name_end = 1 + text[1..].iter().position(|b| !b.is_ascii_uppercase() && *b != b'_' && !b.is_ascii_digit())?;
    let name = std::str::from_utf8(&text[1..name_end]).ok().filter(|name| !name.is_empty())?;
    let (argument, length_at) = match text.get(name_end)? {
        b'(' => {
            let close = after(name_end, b')')?;
            (Some(std::str::from_utf8(&text[name_end + 1..close]).ok()?), close + 1)
        }
        _ => (None, name_end),
    };
    let end = after(length_at, b'%')?;
    let length = match &text[length_at..end] {
        [] => None,
        [b':', digits @ ..] => Some(std::str::from_utf8(digits).ok()?.parse().ok()?),
        _ => return None,
    };
    Some(Format { name, argument, length, len: end + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_replaced_and_everything_else_is_kept() {
        let lookup = |name: &str, argument: Option<&str>| match (name, argument) {
            ("A", None) => Some("one".into()),
            ("REQ", Some(name)) => Some(format!("<{name}>").into()),
            _ => None,
        };
        for (text, want) in [
            ("%A%", "one"),
            ("x%A%y%A%", "xoneyone"),
            ("%REQ(x-y?z)%", "<x-y?z>"),
            ("%REQ(x-y):3%.", "<x-."),
            ("%A:99%", "one"),
            ("%NOBODY%", ""),
            ("100%%", "100%"),
            ("100%", "100%"),
            ("50% off %A%", "50% off one"),
            ("%(a)%", "%(a)%"),
            ("%REQ(a", "%REQ(a"),
            ("%A:b%", "%A:b%"),
            ("%e9", "%e9"),
        ] {
            assert_eq!(String::from_utf8(expand(text.as_bytes(), lookup)).unwrap(), want, "{text}");
        }
    }
}
