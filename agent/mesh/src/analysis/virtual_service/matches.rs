//! Rules and matches that nothing reaches: below a rule that takes everything, repeated, or covered by an earlier one.

use std::collections::BTreeMap;

use super::super::findings::Findings;
use super::super::input::VirtualService;
use super::super::sources::Resource;
use super::super::tree::{Tree, canonical};
use crate::crd::{Node, Value, full_regex};
use crate::finding::code;
use crate::matching::Pattern;

/// Pairs of matches that are compared in one VirtualService: a thousand rules; beyond, the rest is not compared.
const MAX_PAIRS: usize = 1_000_000;

pub(super) fn analyze(vs: &VirtualService<'_>, findings: &mut Findings) {
    for protocol in ["http", "tls", "tcp"] {
        List { vs: vs.resource, protocol, rules: vs.resource.node.items(&format!("spec.{protocol}")) }
            .analyze(findings);
    }
}

/// The rules of one protocol.
struct List<'s> {
    vs: &'s Resource,
    protocol: &'static str,
    rules: &'s [Node],
}

/// A match, and where it is.
struct Item<'s> {
    rule: usize,
    index: usize,
    node: &'s Node,
    /// It has been told of already.
    told: bool,
}

impl<'s> List<'s> {
    fn analyze(&self, findings: &mut Findings) {
        let mut items: Vec<Item<'s>> = Vec::new();
        let mut seen: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut everything: Option<usize> = None;
        for (i, rule) in self.rules.iter().enumerate() {
            let matches = rule.items("match");
            if let Some(first) = everything {
                self.unreachable(i, first, matches.is_empty(), findings);
            }
            if matches.is_empty() {
                everything = everything.or(Some(i));
                continue;
            }
            if everything.is_some() {
                continue;
            }
            let mut repeated = 0;
            for (j, node) in matches.iter().enumerate() {
                let mut told = false;
                if let Some(first) = seen.get(&canonical(node, "name")) {
                    repeated += 1;
                    told = true;
                    self.repeated(node, (i, j), *first, findings);
                } else {
                    seen.insert(canonical(node, "name"), (i, j));
                }
                items.push(Item { rule: i, index: j, node, told });
            }
            if repeated == matches.len() {
                findings.add(
                    code::UNREACHABLE,
                    self.vs,
                    rule.mark,
                    format!("{} is never used: earlier rules take all that it matches", self.name(i)),
                    "remove it, or change what it matches",
                );
            }
        }
        if self.protocol == "http" {
            self.covered(&mut items, findings);
            if let Some(last) = everything {
                self.emptied(&items, last, findings);
            }
        }
    }

    /// A rule without matches below one whose match takes everything.
    fn emptied(&self, items: &[Item<'s>], last: usize, findings: &mut Findings) {
        let anything = Node { value: Value::Map(Vec::new()), mark: self.rules[last].mark };
        let mut regexes = Regexes::default();
        let taker = items.iter().find(|item| covers(self.vs, item.node, &anything, &mut regexes));
        if let Some(taker) = taker {
            findings.add(
                code::UNREACHABLE,
                self.vs,
                self.rules[last].mark,
                format!(
                    "{} is never used: {} comes first and takes every request",
                    self.name(last),
                    self.item((taker.rule, taker.index))
                ),
                &format!("move {} to the end, or remove this one", self.name(taker.rule)),
            );
        }
    }

    fn unreachable(&self, i: usize, first: usize, is_empty: bool, findings: &mut Findings) {
        let (this, taker) = (self.name(i), self.name(first));
        let help = if is_empty {
            "only the last rule can be without matches: to split traffic, list the destinations with their weights under one `route`".to_owned()
        } else {
            format!("move {taker} to the end")
        };
        let what = if self.protocol == "http" { "request" } else { "connection" };
        let message = format!("{this} is never used: {taker} before it has no match, so it takes every {what}");
        findings.add(code::UNREACHABLE, self.vs, self.rules[i].mark, message, &help);
    }

    fn repeated(&self, node: &Node, at: (usize, usize), first: (usize, usize), findings: &mut Findings) {
        findings.add(
            code::REPEATED_MATCH,
            self.vs,
            node.mark,
            format!("{} is the same as {}: it is never used", self.item(at), self.item(first)),
            "remove it",
        );
    }

    /// `http[0]`, with the name where there is one.
    fn name(&self, rule: usize) -> String {
        match self.rules[rule].text_at("name") {
            "" => format!("{}[{rule}]", self.protocol),
            name => format!("{}[{rule}] ({name})", self.protocol),
        }
    }

    fn item(&self, (rule, index): (usize, usize)) -> String {
        format!("{}[{rule}].match[{index}]", self.protocol)
    }

    /// Matches of which an earlier one takes everything.
    fn covered(&self, items: &mut [Item<'s>], findings: &mut Findings) {
        let mut regexes = Regexes::default();
        let mut pairs = 0;
        for later in 1..items.len() {
            if items[later].told {
                continue;
            }
            for earlier in 0..later {
                pairs += 1;
                if pairs > MAX_PAIRS {
                    return;
                }
                if items[earlier].told {
                    continue;
                }
                let (a, b) = (&items[earlier], &items[later]);
                let (first, second) = ((a.rule, a.index), (b.rule, b.index));
                if istio_covers(a.node, b.node) {
                    let (prefix, longer) = (a.node.text_at("uri.prefix"), b.node.text_at("uri.prefix"));
                    findings.add(
                        code::REPEATED_MATCH,
                        self.vs,
                        b.node.mark_of("uri"),
                        format!(
                            "{} (prefix {longer}) is covered by {} (prefix {prefix}), which comes first",
                            self.item(second),
                            self.item(first)
                        ),
                        "put the longer prefix first",
                    );
                    items[later].told = true;
                    // Istio's tool names every rule that covers it, so the search goes on.
                    continue;
                }
                if a.rule < b.rule && !items[later].told && covers(self.vs, a.node, b.node, &mut regexes) {
                    findings.add(
                        code::SHADOWED,
                        self.vs,
                        b.node.mark,
                        format!(
                            "{} is never used: {} comes first and takes all that it matches",
                            self.item(second),
                            self.item(first)
                        ),
                        &format!("move {} before {}", self.name(second.0), self.name(first.0)),
                    );
                    items[later].told = true;
                    break;
                }
            }
        }
    }
}

/// An exact or prefix match as Istio's tool compares them: a text that tells the two apart.
fn literal(node: Option<&Node>) -> String {
    let Some(node) = node else { return String::new() };
    match (node.text_at("exact"), node.text_at("prefix")) {
        ("", "") => String::new(),
        ("", prefix) => format!("prefix{prefix}"),
        (exact, _) => format!("exact{exact}"),
    }
}

/// Whether Istio's tool calls the prefix of `b` covered by that of `a`. It is a heuristic of theirs: methods default to
/// GET, and conditions of other kinds than these are not looked at.
fn istio_covers(a: &Node, b: &Node) -> bool {
    let (prefix, longer) = (a.text_at("uri.prefix"), b.text_at("uri.prefix"));
    if prefix.is_empty() || longer.is_empty() || prefix == longer || !longer.starts_with(prefix) {
        return false;
    }
    let method = |node: &Node| match literal(node.at("method")) {
        none if none.is_empty() => "exactGET".to_owned(),
        some => some,
    };
    let same_keys = |field: &str| {
        let (x, y) = (a.fields(field), b.fields(field));
        x.len() == y.len()
            && x.iter().all(|entry| {
                y.iter()
                    .find(|other| other.key == entry.key)
                    .is_some_and(|other| literal(Some(&entry.node)).starts_with(&literal(Some(&other.node))))
            })
    };
    a.int_at("port").unwrap_or(0) == b.int_at("port").unwrap_or(0)
        && method(a).starts_with(&method(b))
        && literal(a.at("authority")).starts_with(&literal(b.at("authority")))
        && ["headers", "queryParams", "withoutHeaders"].iter().all(|field| same_keys(field))
}

/// Compiled once each, when first asked.
#[derive(Default)]
struct Regexes(BTreeMap<String, Option<Pattern>>);

impl Regexes {
    /// Whether the regex matches the whole text.
    fn takes(&mut self, pattern: &str, text: &str) -> bool {
        let compiled = self.0.entry(pattern.to_owned()).or_insert_with(|| full_regex(pattern).ok());
        compiled.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

/// Whether `a` takes every request that `b` takes, as far as that can be proved: each condition of `a` is one of `b`,
/// too, and the path of `b` is one that `a` takes.
fn covers(vs: &Resource, a: &Node, b: &Node, regexes: &mut Regexes) -> bool {
    same_conditions(a, b) && same_gateways(vs, a, b) && uri_covers(a, b, regexes)
}

fn same_conditions(a: &Node, b: &Node) -> bool {
    let same = |field: &str| match (a.at(field), b.at(field)) {
        (None, _) => true,
        (Some(x), Some(y)) => canonical(x, "") == canonical(y, ""),
        (Some(_), None) => false,
    };
    let subset = |field: &str| {
        a.fields(field).iter().all(|entry| {
            let other = b.fields(field).iter().find(|other| other.key == entry.key);
            other.is_some_and(|other| canonical(&other.node, "") == canonical(&entry.node, ""))
        })
    };
    let known = [
        "uri",
        "scheme",
        "method",
        "authority",
        "headers",
        "withoutHeaders",
        "queryParams",
        "port",
        "sourceLabels",
        "sourceNamespace",
        "gateways",
        "ignoreUriCase",
        "name",
        "statPrefix",
    ];
    ["scheme", "method", "authority", "port", "sourceNamespace"].iter().all(|field| same(field))
        && ["headers", "withoutHeaders", "queryParams", "sourceLabels"].iter().all(|field| subset(field))
        && matches!(&a.value, Value::Map(entries) if entries.iter().all(|entry| known.contains(&&*entry.key)))
}

/// A match that names gateways holds at these, one that does not at those of the VirtualService.
fn same_gateways(vs: &Resource, a: &Node, b: &Node) -> bool {
    let of = |node: &Node| {
        let own: Vec<String> = node.texts("gateways").filter_map(Node::text).map(str::to_owned).collect();
        let top = || vs.node.texts("spec.gateways").filter_map(Node::text).map(str::to_owned).collect::<Vec<_>>();
        match own {
            own if !own.is_empty() => own,
            _ if !top().is_empty() => top(),
            _ => vec![super::super::input::MESH.to_owned()],
        }
    };
    let wide = of(a);
    of(b).iter().all(|gateway| wide.contains(gateway))
}

/// A path condition of which all paths begin with a text that is known.
fn beginning(uri: &Node) -> String {
    let given = ["exact", "prefix"].into_iter().find_map(|key| uri.at(key).and_then(Node::text));
    given.map_or_else(|| literal_start(uri.text_at("regex")).0, str::to_owned)
}

/// What every match of a regex begins with, as far as that is seen without parsing it, and what is left of the regex.
fn literal_start(regex: &str) -> (String, &str) {
    const SPECIAL: &str = r".^$*+?()[]{}|";
    let mut found = String::new();
    // One of several alternatives begins otherwise.
    if regex.contains('|') {
        return (found, regex);
    }
    let mut rest = regex.strip_prefix('^').unwrap_or(regex);
    loop {
        let mut chars = rest.chars();
        let next = match chars.next() {
            Some('\\') => chars.next().filter(char::is_ascii_punctuation),
            next => next.filter(|next| !SPECIAL.contains(*next)),
        };
        // What may be repeated may be absent.
        let Some(next) = next.filter(|_| !chars.as_str().starts_with(['*', '?', '{'])) else { return (found, rest) };
        found.push(next);
        rest = chars.as_str();
    }
}

fn uri_covers(a: &Node, b: &Node, regexes: &mut Regexes) -> bool {
    let Some(wide) = a.at("uri") else { return true };
    let ignore = a.flag_at("ignoreUriCase");
    // A regex that is a text and then anything is a prefix.
    let prefix = wide.at("prefix").and_then(Node::text).map(str::to_owned).or_else(|| {
        let (start, rest) = literal_start(wide.text_at("regex"));
        (rest == ".*").then_some(start)
    });
    let takes_all = prefix.as_deref().is_some_and(|prefix| matches!(prefix, "" | "/"));
    // Every path begins with a slash.
    let Some(narrow) = b.at("uri") else { return takes_all };
    if takes_all {
        return true;
    }
    if b.flag_at("ignoreUriCase") && !ignore {
        return false;
    }
    let fold = |text: &str| if ignore { text.to_ascii_lowercase() } else { text.to_owned() };
    if let Some(prefix) = prefix {
        return fold(&beginning(narrow)).starts_with(&fold(&prefix));
    }
    let exact = narrow.at("exact").and_then(Node::text);
    if let Some(path) = wide.at("exact").and_then(Node::text) {
        return exact.is_some_and(|other| fold(other) == fold(path));
    }
    let regex = wide.text_at("regex");
    !regex.is_empty() && (narrow.text_at("regex") == regex || exact.is_some_and(|path| regexes.takes(regex, path)))
}
