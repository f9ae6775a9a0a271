//! Words that the core knows: names of fields and values of enums, taken from the schema's tables, and scalars at the
//! edges of what is allowed. Used by the mutations and by [`crate::generate`].

use std::collections::BTreeSet;

use weir_mesh::schema::{Message, Type, kinds};

/// Values that are nearly something else.
pub const SCALARS: &[&str] = &[
    "",
    "*",
    "**",
    "a",
    "~",
    "null",
    "true",
    "no",
    "0",
    "-1",
    "1",
    "80",
    "443",
    "8080",
    "65535",
    "65536",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "1e300",
    ".nan",
    ".inf",
    "0x10",
    "0.5",
    "100",
    "101",
    "10s",
    "0s",
    "1ms",
    "0.5ms",
    "1h2m3.5s",
    "-1s",
    "10",
    "99999999h",
    "*.",
    "*.a",
    "a.b",
    "*.shop.svc.cluster.local",
    "mesh",
    ".",
    "~/*",
    "./*",
    "shop/*",
    "*/*",
    "shop",
    "a.shop",
    "a.shop.svc.cluster.local",
    "A.Shop.",
    "reviews",
    "v1",
    "v2",
    "/",
    "/v2",
    "//",
    "/%2e%2e/",
    "/a?b",
    "(",
    "a)(b",
    "[a-z]+",
    "(a*)*b",
    ".*",
    "{id}",
    "a{2,3}",
    "a{1000}",
    "\\p{L}",
    "\\",
    "\\x{",
    "(?i)a",
    "10.0.0.1",
    "10.96.0.2",
    "10.0.0.0/8",
    "10.0.0.0/33",
    "::1",
    "fd00::1/64",
    "[::1]:80",
    "0.0.0.0",
    "unix:///a",
    "None",
    "http",
    "http-web",
    "grpc",
    "tcp",
    "tls-a",
    "HTTP",
    "TCP",
    "@request.auth.claims.a",
    "x-user",
    ":authority",
    "X Y",
    "outbound_.80_._.a.b",
    "cluster.local",
    "cluster.local/ns/shop/sa/a",
    "spiffe://a/ns/b/sa/c",
    "kubernetes://a",
    "istio-system",
    "weir.mesh/mode",
    "enabled",
    "2030-01-01T00:00:00Z",
    "\u{e9}",
    "\u{0}",
    "\u{feff}",
    "\u{1f980}",
    "a\tb",
    "a\nb",
    "- a",
    "a: b",
    "#",
    "'",
    "\"",
    "%",
    "|",
    ">",
    "&a",
    "*a",
    "!!str",
    "<<",
    "---",
    "...",
];

/// Every name of a field and every value of an enum in the tables, each once.
pub fn words() -> (Vec<&'static str>, Vec<&'static str>) {
    let (mut names, mut values) = (BTreeSet::new(), BTreeSet::new());
    let mut seen = BTreeSet::new();
    let mut open: Vec<&'static Message> = kinds().map(|(.., message)| message).collect();
    while let Some(message) = open.pop() {
        if !seen.insert(std::ptr::from_ref(message)) {
            continue;
        }
        for field in message.fields {
            names.insert(field.name);
            let mut ty = field.ty;
            loop {
                match ty {
                    Type::List(of, _) | Type::Map(of, _) => ty = *of,
                    Type::Message(below) => {
                        open.push(below);
                        break;
                    }
                    Type::Enum(of) => {
                        values.extend(of);
                        break;
                    }
                    _ => break,
                }
            }
        }
    }
    (names.into_iter().collect(), values.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_give_hundreds_of_words() {
        let (names, values) = words();
        assert!(names.len() > 300 && values.len() > 60, "{} names, {} values", names.len(), values.len());
        assert!(names.contains(&"consistentHash") && values.contains(&"LEAST_REQUEST"));
    }
}
