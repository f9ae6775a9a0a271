//! Rules and requests, made of bytes: every input is a case, and a small change of it a small change of the case. Few
//! letters and few names, so that requests and rules meet.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use super::expression::Expression;

/// Hosts with 16 rules and more have an index of them: about half of all cases.
const MAX_RULES: usize = 32;
const MAX_REQUESTS: usize = 8;
const METHODS: [&str; 4] = ["GET", "POST", "get", "PURGE"];
const HEADERS: [&str; 4] = ["x-a", "x-b", "cookie", "user-agent"];
const PARAMETERS: [&str; 3] = ["a", "b", "k"];
const SUBSETS: [&str; 5] = ["", "v1", "v2", "v3", "v9"];
/// Names of `a` and `b` in forms that are known and that are not.
const AUTHORITIES: [&str; 14] = [
    "a",
    "A",
    "a:80",
    "a.shop",
    "a.shop.svc",
    "a.shop.svc.cluster.local",
    "A.shop.SVC.cluster.local.",
    "10.96.0.1",
    "10.96.0.1:81",
    "b",
    "b.shop:9",
    "c",
    "",
    "a.shop.svc.cluster",
];

/// Bytes that are used up one by one; beyond their end they are 0.
#[derive(Debug)]
pub(super) struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.next()) % bound
    }

    pub(super) fn letter(&mut self) -> char {
        char::from(b"ab2/.-A"[self.below(7)])
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// What a string must be.
#[derive(Clone, Debug)]
pub(super) enum Want {
    Exact(String),
    Prefix(String),
    Regex(Expression),
    /// There at all.
    Present,
    /// Of the header `cookie`, in the words that Istio's users know: one of its cookies is this.
    Cookie(String),
}

/// One item of `match[]`.
#[derive(Clone, Debug, Default)]
pub(super) struct Item {
    pub(super) uri: Option<Want>,
    pub(super) ignore_case: bool,
    pub(super) method: Option<Want>,
    pub(super) headers: Vec<(&'static str, Want)>,
    pub(super) without_headers: Vec<(&'static str, Want)>,
    pub(super) query: Vec<(&'static str, Want)>,
    pub(super) authority: Option<Want>,
    pub(super) port: Option<u16>,
    /// Not for the mesh.
    pub(super) at_gateway: bool,
}

/// One weighted destination, of port 80.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) host: &'static str,
    pub(super) subset: &'static str,
    pub(super) weight: Option<u32>,
}

/// One entry of `http[]`.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) items: Vec<Item>,
    pub(super) destinations: Vec<Destination>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) namespace: &'static str,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) authority: String,
    pub(super) method: &'static str,
    pub(super) path: String,
    /// In order; a name may be there more than once.
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) roll: u64,
}

/// A VirtualService for host `a`, and what is asked.
#[derive(Clone, Debug)]
pub struct Case {
    pub(super) rules: Vec<Rule>,
    pub(super) requests: Vec<Request>,
}

impl Case {
    /// Bytes that are used up make the simplest choices.
    pub fn from_bytes(input: &[u8]) -> Self {
        let bytes = &mut Bytes(input);
        Self {
            rules: (0..=bytes.below(MAX_RULES)).map(|_| rule(bytes)).collect(),
            requests: (0..=bytes.below(MAX_REQUESTS)).map(|_| request(bytes)).collect(),
        }
    }

    /// The rules as a manifest.
    pub(super) fn yaml(&self) -> String {
        let mut text =
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, namespace: shop}\n\
                        spec:\n  hosts: [a]\n  gateways: [mesh, edge]\n  http:\n"
                .to_owned();
        for (number, rule) in self.rules.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  - name: r{number}");
            if !rule.items.is_empty() {
                text.push_str("    match:\n");
            }
            for item in &rule.items {
                let _ = writeln!(text, "    - {{{}}}", item.yaml());
            }
            text.push_str("    route:\n");
            for destination in &rule.destinations {
                let Destination { host, subset, weight } = destination;
                let subset = if subset.is_empty() { String::new() } else { format!(", subset: {subset}") };
                let weight = weight.map(|weight| format!(", weight: {weight}")).unwrap_or_default();
                let _ = writeln!(text, "    - {{destination: {{host: {host}, port: {{number: 80}}{subset}}}{weight}}}");
            }
        }
        text
    }
}

impl Want {
    fn of_header(name: &str, bytes: &mut Bytes<'_>) -> Self {
        if name == "cookie" && bytes.below(2) == 1 {
            Self::Cookie(cookie(bytes))
        } else {
            Self::from_bytes(bytes, true, word)
        }
    }

    fn from_bytes(bytes: &mut Bytes<'_>, of_header: bool, word: impl Fn(&mut Bytes<'_>) -> String) -> Self {
        match bytes.below(if of_header { 4 } else { 3 }) {
            0 => Self::Exact(word(bytes)),
            1 => Self::Prefix(word(bytes)),
            2 => Self::Regex(Expression::from_bytes(bytes, 0)),
            _ => Self::Present,
        }
    }

    fn yaml(&self) -> String {
        match self {
            Self::Exact(text) => format!("{{exact: '{text}'}}"),
            Self::Prefix(text) => format!("{{prefix: '{text}'}}"),
            Self::Regex(expression) => format!("{{regex: '{}'}}", expression.pattern()),
            Self::Present => "{}".to_owned(),
            Self::Cookie(pair) => format!("{{regex: '^(.*?;)?({pair})(;.*)?$'}}"),
        }
    }
}

impl Item {
    fn yaml(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.uri.as_ref().map(|want| format!("uri: {}", want.yaml())));
        parts.extend(self.ignore_case.then(|| "ignoreUriCase: true".to_owned()));
        parts.extend(self.method.as_ref().map(|want| format!("method: {}", want.yaml())));
        for (field, wanted) in
            [("headers", &self.headers), ("withoutHeaders", &self.without_headers), ("queryParams", &self.query)]
        {
            let wanted: Vec<String> = wanted.iter().map(|(name, want)| format!("{name}: {}", want.yaml())).collect();
            parts.extend((!wanted.is_empty()).then(|| format!("{field}: {{{}}}", wanted.join(", "))));
        }
        parts.extend(self.authority.as_ref().map(|want| format!("authority: {}", want.yaml())));
        parts.extend(self.port.map(|port| format!("port: {port}")));
        parts.extend(self.at_gateway.then(|| "gateways: [edge]".to_owned()));
        parts.join(", ")
    }
}

fn word(bytes: &mut Bytes<'_>) -> String {
    (0..=bytes.below(4)).map(|_| bytes.letter()).collect()
}

/// Letters that a regular expression means as they are.
fn cookie(bytes: &mut Bytes<'_>) -> String {
    format!("{}={}", bytes.one(&["a", "b"]), bytes.one(&["a", "b", "2", "A", "ab", ""]))
}

fn path(bytes: &mut Bytes<'_>) -> String {
    format!("/{}", if bytes.below(3) == 0 { String::new() } else { word(bytes) })
}

fn rule(bytes: &mut Bytes<'_>) -> Rule {
    // Few rules take everything: none that comes after one is ever reached.
    let items = match bytes.below(16) {
        0 => 0,
        more => 1 + more % 3,
    };
    let items = (0..items).map(|_| item(bytes)).collect();
    let mut destinations: Vec<Destination> = (0..=bytes.below(3))
        .map(|_| {
            let host = bytes.one(&["a", "a", "a", "b", "missing"]);
            let subset = if host == "a" { bytes.one(&SUBSETS) } else { "" };
            let weight = [None, Some(0), Some(1), Some(10), Some(90), Some(i32::MAX as u32)][bytes.below(6)];
            Destination { host, subset, weight }
        })
        .collect();
    if destinations.iter().all(|destination| destination.weight.unwrap_or(0) == 0) {
        destinations[0].weight = Some(1);
    }
    Rule { items, destinations }
}

fn item(bytes: &mut Bytes<'_>) -> Item {
    let asked = bytes.next();
    let mut item = Item::default();
    if asked & 0x01 == 0 {
        item.uri = Some(Want::from_bytes(bytes, false, path));
        item.ignore_case = asked & 0x02 != 0;
    }
    if asked & 0x0c == 0x0c {
        item.method = Some(Want::from_bytes(bytes, false, |bytes| bytes.one(&METHODS).to_owned()));
    }
    for bit in [0x10, 0x20] {
        let name = bytes.one(&HEADERS);
        if asked & bit != 0 && item.headers.iter().all(|(other, _)| *other != name) {
            item.headers.push((name, Want::of_header(name, bytes)));
        }
    }
    let rarer = bytes.next();
    if rarer & 0x03 == 0x03 {
        let name = bytes.one(&HEADERS);
        item.without_headers.push((name, Want::of_header(name, bytes)));
    }
    for bits in [0x0c, 0x18] {
        let name = bytes.one(&PARAMETERS);
        if rarer & bits == bits && item.query.iter().all(|(other, _)| *other != name) {
            item.query.push((name, Want::from_bytes(bytes, true, word)));
        }
    }
    if rarer & 0x60 == 0x60 {
        item.authority = Some(Want::from_bytes(bytes, false, |bytes| match bytes.one(&AUTHORITIES) {
            "" => "a".to_owned(),
            name => name.to_owned(),
        }));
    }
    item.port = (asked & 0x40 != 0).then(|| bytes.one(&[80, 81, 82]));
    item.at_gateway = asked & 0x81 == 0x81;
    let empty = item.uri.is_none() && item.method.is_none() && item.headers.is_empty();
    let empty = empty && item.without_headers.is_empty() && item.query.is_empty() && item.authority.is_none();
    if empty && item.port.is_none() && !item.at_gateway {
        // An item without a condition is refused; this one takes everything.
        item.uri = Some(Want::Prefix("/".to_owned()));
    }
    item
}

fn request(bytes: &mut Bytes<'_>) -> Request {
    let address = Ipv4Addr::new(10, 96, 0, bytes.one(&[1, 1, 1, 2])).into();
    let roll = match bytes.below(4) {
        0 => 0,
        1 => u64::MAX,
        _ => u64::from_be_bytes(std::array::from_fn(|_| bytes.next())),
    };
    Request {
        namespace: bytes.one(&["shop", "shop", "other"]),
        address,
        port: bytes.one(&[80, 80, 81]),
        authority: bytes.one(&AUTHORITIES).to_owned(),
        method: bytes.one(&METHODS),
        path: path(bytes),
        query: (0..bytes.below(4)).map(|_| (bytes.one(&PARAMETERS), header_value(bytes))).collect(),
        headers: (0..bytes.below(4)).map(|_| header(bytes)).collect(),
        roll,
    }
}

fn header(bytes: &mut Bytes<'_>) -> (&'static str, String) {
    let name = bytes.one(&HEADERS);
    let value = if name == "cookie" && bytes.below(2) == 1 {
        let cookies: Vec<String> = (0..=bytes.below(3)).map(|_| cookie(bytes)).collect();
        cookies.join(bytes.one(&[";", "; "]))
    } else {
        header_value(bytes)
    };
    (name, value)
}

fn header_value(bytes: &mut Bytes<'_>) -> String {
    if bytes.below(4) == 0 { String::new() } else { word(bytes) }
}
