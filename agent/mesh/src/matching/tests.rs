//! Matching equals what a reader of Istio's words would do by hand, and the index finds what trying each rule finds.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::request::RequestView;
use crate::route::{Rule, VirtualHost};

/// xorshift64: the same rules for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const PATHS: [&str; 14] =
    ["/", "/a", "/A", "/a/", "/a/b", "/a/b/c", "/ab", "/abc", "/b", "/b/a", "/c", "", "/é", "/a/ba"];
const VALUES: [&str; 6] = ["", "a", "ab", "b", "A", "a,b"];

/// A condition in the user's words: its kind and its text.
#[derive(Clone, Debug)]
struct Words(&'static str, String);

impl Words {
    fn random(random: &mut Random, of: &[&str], kinds: &[&'static str]) -> Self {
        let kind = kinds[random.below(kinds.len())];
        let text = random.one(of).to_owned();
        Self(
            kind,
            if kind == "regex" { random.one(&["/a.*", "/.*", "a|b", ".*", "", "/a(/b)?"]).to_owned() } else { text },
        )
    }

    fn compiled(&self) -> StringMatch {
        let Self(kind, text) = self;
        match *kind {
            "exact" => StringMatch::Exact((&**text).into()),
            "prefix" => StringMatch::Prefix((&**text).into()),
            "iexact" => StringMatch::ExactIgnoreCase(text.to_ascii_lowercase().into()),
            "iprefix" => StringMatch::PrefixIgnoreCase(text.to_ascii_lowercase().into()),
            "regex" => StringMatch::Regex(regex::Regex::new(&format!("^(?:{text})$")).expect("valid")),
            _ => StringMatch::Present,
        }
    }

    /// Character by character, and a regex as a person reads it.
    fn takes(&self, value: &str) -> bool {
        let Self(kind, text) = self;
        let lower = |s: &str| s.chars().map(|c| c.to_ascii_lowercase()).collect::<Vec<_>>();
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        match *kind {
            "exact" => chars(value) == chars(text),
            "prefix" => chars(value).starts_with(&chars(text)),
            "iexact" => lower(value) == lower(text),
            "iprefix" => lower(value).starts_with(&lower(text)),
            "regex" => match &**text {
                "/a.*" => value.starts_with("/a"),
                "/.*" => value.starts_with('/'),
                "a|b" => matches!(value, "a" | "b"),
                ".*" => true,
                "" => value.is_empty(),
                "/a(/b)?" => matches!(value, "/a" | "/a/b"),
                other => panic!("{other} has no reader"),
            },
            _ => true,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Item {
    uri: Option<Words>,
    method: Option<Words>,
    header: Option<Words>,
    without: Option<Words>,
    query: Option<Words>,
}

impl Item {
    fn random(random: &mut Random) -> Self {
        let mut maybe = |chance: usize, of: &[&str], kinds: &[&'static str]| {
            (random.below(chance) == 0).then(|| Words::random(random, of, kinds))
        };
        let kinds = ["exact", "prefix", "regex", "present"];
        let often = maybe(1, &PATHS, &["exact", "prefix"]);
        Self {
            uri: maybe(4, &PATHS, &["exact", "prefix", "regex", "iexact", "iprefix", "present"]).or(often),
            method: maybe(4, &["GET", "POST"], &["exact"]),
            header: maybe(3, &VALUES, &kinds),
            without: maybe(5, &VALUES, &kinds),
            query: maybe(5, &VALUES, &kinds),
        }
    }

    fn compiled(&self) -> HttpMatch {
        let header = |words: &Option<Words>| -> Box<[HeaderMatch]> {
            let name = HeaderName::from_static("x");
            words.iter().map(|words| HeaderMatch { name: name.clone(), value: words.compiled() }).collect()
        };
        let query = self.query.iter().map(|words| QueryMatch { name: "k".into(), value: words.compiled() });
        let more = MoreConditions {
            without_headers: header(&self.without),
            query_params: query.collect(),
            ..MoreConditions::default()
        };
        HttpMatch {
            uri: self.uri.as_ref().map(Words::compiled),
            method: self.method.as_ref().map(Words::compiled),
            headers: header(&self.header),
            more: (more != MoreConditions::default()).then(|| Box::new(more)),
        }
    }

    fn takes(&self, path: &str, method: &str, sent: &[&str], query: &[(&str, &str)]) -> bool {
        let value = (!sent.is_empty()).then(|| sent.join(","));
        let first = query.iter().find(|(key, _)| *key == "k").map(|(_, value)| *value);
        let without = self.without.as_ref().is_none_or(|words| match &value {
            Some(value) => !words.takes(value),
            None => words.0 == "present" || !words.takes(""),
        });
        self.uri.as_ref().is_none_or(|words| words.takes(path))
            && self.method.as_ref().is_none_or(|words| words.takes(method))
            && self.header.as_ref().is_none_or(|words| value.as_ref().is_some_and(|value| words.takes(value)))
            && without
            && self.query.as_ref().is_none_or(|words| first.is_some_and(|value| words.takes(value)))
    }
}

#[test]
fn hosts_of_any_size_find_the_first_rule_that_a_reader_would() {
    let (mut found, mut none, mut late) = (0, 0, 0);
    for seed in 1..400_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let count = [1, 5, 40, 120][random.below(4)];
        let rules: Vec<Vec<Item>> = (0..count)
            .map(|_| {
                // A rule without items takes everything.
                let items = if random.below(150) == 0 { 0 } else { 1 + random.below(3) };
                (0..items).map(|_| Item::random(&mut random)).collect()
            })
            .collect();
        let compiled = rules
            .iter()
            .map(|items| Rule { matches: items.iter().map(Item::compiled).collect(), ..Rule::default() })
            .collect();
        let host = VirtualHost::new("h".into(), compiled);
        for _ in 0..60 {
            let path = random.one(&PATHS);
            let method = random.one(&["GET", "POST"]);
            let sent: Vec<&str> = (0..random.below(3)).map(|_| random.one(&VALUES)).collect();
            let query: Vec<(&str, &str)> =
                (0..random.below(3)).map(|_| (random.one(&["k", "j"]), random.one(&VALUES))).collect();
            let headers: HeaderMap = sent
                .iter()
                .map(|value| (HeaderName::from_static("x"), HeaderValue::from_str(value).expect("valid")))
                .collect();
            let text = query.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&");
            let request = RequestView {
                method: &Method::from_bytes(method.as_bytes()).expect("a method"),
                scheme: "http",
                authority: "h",
                path,
                query: (!query.is_empty()).then_some(&*text),
                headers: &headers,
            };
            let wanted = rules.iter().enumerate().find_map(|(number, items)| {
                let item = items.iter().position(|item| item.takes(path, method, &sent, &query));
                (items.is_empty() || item.is_some()).then_some((number, item))
            });
            let got = host.find(&request).map(|(rule, item)| {
                let number = host.rules.iter().position(|one| std::ptr::eq(one, rule)).expect("one of them");
                let position = item.map(|item| rule.matches.iter().position(|one| std::ptr::eq(one, item)));
                (number, position.map(|position| position.expect("one of them")))
            });
            assert_eq!(got, wanted, "seed {seed}: {path} {method} {sent:?} {text} in {rules:?}");
            match wanted {
                Some((number, _)) => {
                    found += 1;
                    late += usize::from(number > 10);
                }
                None => none += 1,
            }
        }
    }
    assert!(found > 5_000 && none > 1_000 && late > 300, "{found} {none} {late}");
}
