//! The forms that strings of the tables have, each with the words that tell of it.

use super::Type;

/// A form of a string.
#[derive(Debug)]
pub struct Pattern {
    /// What it is, in the words of an error message: "a DNS label".
    pub what: &'static str,
    test: fn(&str) -> bool,
}

impl Pattern {
    /// True when the text has this form.
    pub fn matches(&self, text: &str) -> bool {
        (self.test)(text)
    }
}

macro_rules! pattern {
    ($name:ident, $what:literal, $test:expr) => {
        pub(super) const $name: Type = Type::Matching(&Pattern { what: $what, test: $test });
    };
}

pattern!(LABEL, "a DNS label: up to 63 of a-z, 0-9 and `-`", is_lower_label);
pattern!(DOMAIN, "a DNS name in lower case", is_lower_domain);
pattern!(HOSTNAME, "a DNS name in lower case, `*.` before it or not", is_lower_hostname);
pattern!(GROUP, "an API group, or empty for the core group", |text| text.is_empty() || is_lower_domain(text));
pattern!(KIND, "a kind: up to 63 letters, digits and `-`", |text| {
    is_label_with(text, u8::is_ascii_alphanumeric) && text.starts_with(|c: char| c.is_ascii_alphabetic())
});
pattern!(HEADER_NAME, "a header name: letters, digits, `-` and `_`", |text| {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
});
pattern!(TOKEN, "an HTTP header name of up to 256 characters", |text| {
    (1..=256).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
});
pattern!(HEADER_VALUE, "a header value: up to 4096 printable characters, no blanks at its ends", is_header_value);
pattern!(LABEL_VALUE, "a label's value: up to 63 letters, digits, `-`, `_` and `.`", is_label_value);
pattern!(CONTROLLER_NAME, "a domain and a path: `example.com/controller`", |text| {
    text.split_once('/').is_some_and(|(domain, path)| is_lower_domain(domain) && is_path(path)) && text.len() <= 253
});
pattern!(LISTENER_PROTOCOL, "a protocol: HTTP, HTTPS, TLS, TCP, UDP or `domain/name`", |text| {
    is_label_with(text, u8::is_ascii_alphanumeric)
        || text.split_once('/').is_some_and(|(domain, name)| {
            is_lower_domain(domain) && !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric())
        })
});

fn is_label_with(text: &str, is_letter: fn(&u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| is_letter(b) || *b == b'-')
        && is_letter(&bytes[0])
        && is_letter(&bytes[bytes.len() - 1])
}

fn is_lower_label(text: &str) -> bool {
    is_label_with(text, |b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn is_lower_domain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_lower_label)
}

fn is_lower_hostname(text: &str) -> bool {
    is_lower_domain(text.strip_prefix("*.").unwrap_or(text))
}

fn is_header_value(text: &str) -> bool {
    let visible = |b: u8| (b'!'..=b'~').contains(&b);
    let bytes = text.as_bytes();
    (1..=4096).contains(&bytes.len())
        && visible(bytes[0])
        && visible(bytes[bytes.len() - 1])
        // One blank at a time: what the definition of the kind allows.
        && bytes.windows(2).all(|pair| visible(pair[0]) || visible(pair[1]))
        && bytes.iter().all(|b| visible(*b) || matches!(b, b' ' | b'\t'))
}

fn is_label_value(text: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(ty: Type, text: &str) -> bool {
        matches!(ty, Type::Matching(pattern) if pattern.matches(text))
    }

    #[test]
    fn forms_are_those_of_the_definitions() {
        let long = "a".repeat(64);
        for (ty, good, bad) in [
            (LABEL, &["a", "a-1", "0"][..], &["", "-a", "a-", "A", "a.b", &long][..]),
            (HOSTNAME, &["a", "*.a.b", "a.b"], &["*", "*a.b", "a..b", "", "a_b"]),
            (GROUP, &["", "apps", "a.b"], &[".", "A"]),
            (KIND, &["Service", "x-Y"], &["", "1a", "a-", "a.b"]),
            (HEADER_NAME, &["x-a_B"], &["", "a b", ":a"]),
            (TOKEN, &["x!a", "`"], &["", "a b", "a:"]),
            (HEADER_VALUE, &["a b", "x"], &["", " a", "a ", "a  b", "é"]),
            (LABEL_VALUE, &["", "a.b_c-d"], &["-a", "a b", &long]),
            (CONTROLLER_NAME, &["a.b/c"], &["a.b", "a.b/", "/c"]),
            (LISTENER_PROTOCOL, &["HTTP", "a.b/C"], &["", "a_b", "/x"]),
        ] {
            for text in good {
                assert!(takes(ty, text), "{text} as {ty:?}");
            }
            for text in bad {
                assert!(!takes(ty, text), "{text} as {ty:?}");
            }
        }
    }
}
