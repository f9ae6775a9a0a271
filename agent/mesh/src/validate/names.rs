//! Names, addresses and hosts, as Istio's kinds allow them. Plain tests of strings; [`super::common`] tells of what fails
//! them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name of a host.
const MAX_HOST: usize = 255;

/// A DNS label: letters of either case, digits and `-` within.
pub(super) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// `*`, `*label` and `*-label` as well.
fn is_wildcard_label(text: &str) -> bool {
    match text.strip_prefix('*') {
        Some("") => true,
        Some(rest) => is_label(rest.strip_prefix('-').unwrap_or(rest)),
        None => is_label(text),
    }
}

/// Why a DNS name is none, or that it is one. A dot at its end is allowed.
pub(super) fn fqdn(name: &str) -> Result<(), String> {
    length(name)?;
    labels(name, name)
}

/// A DNS name whose first label may be, or begin with, a `*`.
pub(super) fn wildcard_domain(name: &str) -> Result<(), String> {
    length(name)?;
    let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
    if !is_wildcard_label(first) {
        return Err(not_a_label(name, first));
    }
    rest.map_or(Ok(()), |rest| labels(name, rest))
}

fn length(name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err("must not be empty".to_owned()),
        1..=MAX_HOST => Ok(()),
        _ => Err(format!("must not be longer than {MAX_HOST} characters")),
    }
}

fn labels(name: &str, text: &str) -> Result<(), String> {
    let last = text.rsplit('.').next().unwrap_or(text);
    if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{name}` is no host name: its last label must not be all digits"));
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    match text.split('.').find(|label| !is_label(label)) {
        Some(label) => Err(not_a_label(name, label)),
        None => Ok(()),
    }
}

fn not_a_label(name: &str, label: &str) -> String {
    if label.contains('*') {
        return format!("`{name}` is no host name: `*` may only be its first label, as in `*.example.com`");
    }
    format!("`{name}` is no host name: `{label}` is no DNS label")
}

/// An address of either family.
pub(super) fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// An address, or a range as `address/bits`.
pub(super) fn is_subnet(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return is_ip(text);
    };
    let plain = !bits.is_empty()
        && bits.len() <= 3
        && bits.bytes().all(|b| b.is_ascii_digit())
        && (bits == "0" || !bits.starts_with('0'));
    let most = if address.parse::<Ipv4Addr>().is_ok() {
        32
    } else if address.parse::<Ipv6Addr>().is_ok() {
        128
    } else {
        return false;
    };
    plain && bits.parse::<u32>().is_ok_and(|bits| bits <= most)
}

/// Why the path of a Unix socket (what follows `unix://`) is none.
pub(super) fn unix_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("`unix://` must be followed by a path".to_owned());
    }
    // A name that begins with @ is not in the file system.
    if path.starts_with('@') || path.starts_with('/') && !path.ends_with('/') {
        return Ok(());
    }
    Err(format!("`{path}` must be the absolute path of a file, or begin with `@`"))
}

/// True when every host that `b` names is one of those that `a` names, or the other way round.
pub(super) fn hosts_overlap(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        (Some(a), None) => b.ends_with(a),
        (None, Some(b)) => a.ends_with(b),
        (None, None) => a == b,
    }
}

/// True when every host that `inner` names is one of those that `outer` names.
pub(super) fn is_within(inner: &str, outer: &str) -> bool {
    match (inner.strip_prefix('*'), outer.strip_prefix('*')) {
        (Some(inner), Some(outer)) => inner.ends_with(outer),
        (Some(_), None) => false,
        (None, Some(outer)) => inner.ends_with(outer),
        (None, None) => inner == outer,
    }
}

/// The key of a label: a name, with a domain before it or not.
pub(super) fn is_label_key(text: &str) -> bool {
    let (domain, name) = text.split_once('/').map_or((None, text), |(domain, name)| (Some(domain), name));
    domain.is_none_or(|domain| domain.split('.').all(is_label)) && !name.is_empty() && is_label_value(name)
}

/// The value of a label: empty, or up to 63 letters, digits, `-`, `_` and `.` within.
pub(super) fn is_label_value(text: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// What may be set as a header's name.
pub(super) fn is_header_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// How a port's protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP in any version, gRPC included, without TLS.
    Http,
    /// HTTPS and TLS.
    Tls,
    /// Anything else over TCP.
    Tcp,
    Udp,
}

/// `None` for a name that is no protocol's.
pub(super) fn protocol(name: &str) -> Option<Protocol> {
    Some(match name.to_ascii_lowercase().as_str() {
        "http" | "http2" | "grpc" | "grpc-web" | "http_proxy" => Protocol::Http,
        "https" | "tls" => Protocol::Tls,
        "tcp" | "mongo" | "redis" | "mysql" | "hbone" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts() {
        for name in ["a", "a.b", "shop.example.com.", "A-1.b", "x1.2b"] {
            assert_eq!(fqdn(name), Ok(()), "{name}");
        }
        let long = "a.".repeat(200);
        for name in ["", "*.b", "a..b", "-a", "a_b", "a.10", "a b", &long] {
            assert!(fqdn(name).is_err(), "{name}");
        }
        for name in ["*", "*.b", "*-x.b", "*x.b", "a.b"] {
            assert_eq!(wildcard_domain(name), Ok(()), "{name}");
        }
        for name in ["a.*", "**", "*.*.b", "*.1", ""] {
            assert!(wildcard_domain(name).is_err(), "{name}");
        }
    }

    #[test]
    fn addresses() {
        for text in ["10.0.0.1", "::1", "10.0.0.0/8", "fd00::/0"] {
            assert!(is_subnet(text), "{text}");
        }
        for text in ["10.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/08", "a/8", "10.0.0.0/+8"] {
            assert!(!is_subnet(text), "{text}");
        }
        assert!(unix_path("/run/x").is_ok() && unix_path("@x").is_ok());
        assert!(unix_path("/run/").is_err() && unix_path("x").is_err() && unix_path("").is_err());
    }

    #[test]
    fn hosts_within_hosts() {
        assert!(hosts_overlap("*.com", "*.example.com") && hosts_overlap("*.example.com", "*.com"));
        assert!(hosts_overlap("a.example.com", "*.example.com") && !hosts_overlap("example.com", "*.example.com"));
        assert!(is_within("*.example.com", "*.com") && !is_within("*.com", "*.example.com"));
        assert!(is_within("a.com", "*") && !is_within("*.com", "a.com"));
    }

    #[test]
    fn labels_and_headers() {
        for key in ["app", "example.com/app_1", "a.b"] {
            assert!(is_label_key(key), "{key}");
        }
        for key in ["", "/a", "a/", "-a", "a b", "a/b/c"] {
            assert!(!is_label_key(key), "{key}");
        }
        assert!(is_header_name("x-Y_1") && !is_header_name("") && !is_header_name("a:b"));
    }

    #[test]
    fn protocols_whatever_their_case() {
        assert_eq!(protocol("gRPC-Web"), Some(Protocol::Http));
        assert_eq!(protocol("TLS"), Some(Protocol::Tls));
        assert_eq!(protocol("mongo"), Some(Protocol::Tcp));
        assert_eq!((protocol(""), protocol("HTTPX")), (None, None));
    }
}
