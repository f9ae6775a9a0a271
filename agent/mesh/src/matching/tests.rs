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
const METHODS: [&str; 3] = ["GET", "POST", "PUT"];
const AUTHORITIES: [&str; 4] = ["h", "h:80", "hh", "other"];
/// As rules and requests spell them.
const HEADERS: [&str; 5] = ["x", "X", "End-User", "end-user", "X-B"];
const PARAMETERS: [&str; 3] = ["k", "j", "K"];
/// Users that a host tells apart.
const USERS: usize = 60;

/// A condition in the user's words: its kind and its text.
#[derive(Clone, Debug)]
struct Words(&'static str, String);

impl Words {
    fn random(random: &mut Random, of: &[&str], kinds: &[&'static str]) -> Self {
        let kind = kinds[random.below(kinds.len())];
        let text = random.one(of).to_owned();
        let regexes = ["/a.*", "/.*", "a|b", ".*", "", "/a(/b)?", "/a[b]c", "ab?"];
        Self(kind, if kind == "regex" { random.one(&regexes).to_owned() } else { text })
    }

    /// One user of many, or any of them.
    fn user(random: &mut Random) -> Self {
        match random.below(12) {
            0 => Self("present", String::new()),
            1 => Self("regex", random.one(&["u1.*", "u.*", "u(3|4)"]).to_owned()),
            2 => Self("prefix", format!("u{}", random.below(8))),
            _ => Self("exact", format!("u{}", random.below(USERS))),
        }
    }

    fn compiled(&self) -> StringMatch {
        let Self(kind, text) = self;
        let regex = |text: &str| StringMatch::Regex(crate::crd::full_regex(text).expect("valid"));
        match *kind {
            "exact" => StringMatch::Exact((&**text).into()),
            "prefix" => StringMatch::Prefix((&**text).into()),
            "iexact" => StringMatch::ExactIgnoreCase(text.to_ascii_lowercase().into()),
            "iprefix" => StringMatch::PrefixIgnoreCase(text.to_ascii_lowercase().into()),
            "regex" => regex(text),
            "cookie" => regex(&format!("^(.*?;)?({text})(;.*)?$")),
            "spaced cookie" => regex(&format!("(.*; ?)?{text}(;.*)?")),
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
                "/a[b]c" => value == "/abc",
                "ab?" => matches!(value, "a" | "ab"),
                "u1.*" => value.starts_with("u1"),
                "u.*" => value.starts_with('u'),
                "u(3|4)" => matches!(value, "u3" | "u4"),
                other => panic!("{other} has no reader"),
            },
            "cookie" => value.split(';').any(|cookie| cookie == text),
            "spaced cookie" => value
                .split(';')
                .enumerate()
                .any(|(place, cookie)| cookie == text || (place > 0 && cookie.strip_prefix(' ') == Some(text))),
            _ => true,
        }
    }
}

/// What the rules of a host tell apart, for the most part.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    Paths,
    Users,
    Mixed,
}

#[derive(Clone, Debug, Default)]
struct Item {
    uri: Option<Words>,
    method: Option<Words>,
    authority: Option<Words>,
    headers: Vec<(&'static str, Words)>,
    without: Vec<(&'static str, Words)>,
    query: Vec<(&'static str, Words)>,
}

impl Item {
    fn random(random: &mut Random, style: Style) -> Self {
        let mut item = Self::default();
        let kinds = ["exact", "prefix", "regex", "present"];
        let path = ["exact", "prefix", "regex", "iexact", "iprefix", "present"];
        let style = if style == Style::Mixed { [Style::Paths, Style::Users][random.below(2)] } else { style };
        if style == Style::Paths {
            let of = if random.below(4) == 0 { &path[..] } else { &path[..2] };
            item.uri = Some(Words::random(random, &PATHS, of));
        } else {
            let rarely = random.below(6) == 0;
            item.uri = rarely.then(|| Words::random(random, &["/", "/a", ""], &path));
            match random.below(6) {
                0 => {
                    let kind = ["cookie", "spaced cookie"][random.below(2)];
                    item.headers.push(("Cookie", Words(kind, format!("user=u{}", random.below(USERS)))));
                }
                1 => item.query.push((PARAMETERS[random.below(2)], Words::user(random))),
                _ => item.headers.push((HEADERS[2 + random.below(2)], Words::user(random))),
            }
        }
        let mut maybe = |chance: usize, of: &[&str], kinds: &[&'static str]| {
            (random.below(chance) == 0).then(|| Words::random(random, of, kinds))
        };
        item.method = maybe(4, &METHODS, &["exact", "exact", "prefix"]);
        item.authority = maybe(10, &AUTHORITIES, &kinds[..2]);
        item.headers.extend(maybe(4, &VALUES, &kinds).map(|words| ("X", words)));
        item.headers.extend(maybe(20, &VALUES, &kinds).map(|words| ("x-b", words)));
        item.without.extend(maybe(6, &VALUES, &kinds).map(|words| ("x", words)));
        item.query.extend(maybe(6, &VALUES, &kinds).map(|words| ("k", words)));
        if random.below(12) == 0 {
            item.without.push(("End-User", Words::user(random)));
        }
        // An empty prefix of anything but a path is refused long before.
        let refused = |words: &Words| words.0 == "prefix" && words.1.is_empty();
        item.headers.retain(|(_, words)| !refused(words));
        item.without.retain(|(_, words)| !refused(words));
        item.query.retain(|(_, words)| !refused(words));
        item
    }

    fn compiled(&self) -> HttpMatch {
        let headers = |of: &[(&str, Words)]| -> Box<[HeaderMatch]> {
            let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).expect("a name");
            of.iter().map(|(own, words)| HeaderMatch { name: name(own), value: words.compiled() }).collect()
        };
        let query = self.query.iter().map(|(name, words)| QueryMatch { name: (*name).into(), value: words.compiled() });
        let more = MoreConditions {
            authority: self.authority.as_ref().map(Words::compiled),
            without_headers: headers(&self.without),
            query_params: query.collect(),
            ..MoreConditions::default()
        };
        HttpMatch {
            uri: self.uri.as_ref().map(Words::compiled),
            method: self.method.as_ref().map(Words::compiled),
            headers: headers(&self.headers),
            more: (more != MoreConditions::default()).then(|| Box::new(more)),
        }
    }

    fn takes(&self, sent: &Sent) -> bool {
        let without = |(name, words): &(&str, Words)| match sent.header(name) {
            Some(value) => !words.takes(&value),
            None => words.0 == "present" || !words.takes(""),
        };
        let with = |(name, words): &(&str, Words)| sent.header(name).is_some_and(|value| words.takes(&value));
        let asked = |(name, words): &(&str, Words)| {
            let first = sent.query.iter().find(|(key, _)| key == name);
            first.is_some_and(|(_, value)| words.takes(value))
        };
        let fits = |words: &Option<Words>, value: &str| words.as_ref().is_none_or(|words| words.takes(value));
        fits(&self.uri, sent.path)
            && fits(&self.method, sent.method)
            && fits(&self.authority, sent.authority)
            && self.headers.iter().all(with)
            && self.without.iter().all(without)
            && self.query.iter().all(asked)
    }
}

/// A request.
#[derive(Debug)]
struct Sent {
    path: &'static str,
    method: &'static str,
    authority: &'static str,
    headers: Vec<(&'static str, String)>,
    query: Vec<(&'static str, String)>,
}

impl Sent {
    fn random(random: &mut Random) -> Self {
        let value = |random: &mut Random| match random.below(2) {
            0 => random.one(&VALUES).to_owned(),
            _ => format!("u{}", random.below(USERS)),
        };
        let mut headers: Vec<(&'static str, String)> = Vec::new();
        for _ in 0..random.below(4) {
            headers.push((HEADERS[random.below(HEADERS.len())], value(random)));
        }
        if random.below(3) == 0 {
            let cookies = ["a=b", "user", "user=u1 "].map(str::to_owned);
            let own = format!("user=u{}", random.below(USERS));
            let list = [&cookies[..random.below(3)], &[own], &cookies[random.below(3)..]].concat();
            headers.push(("cookie", list.join(random.one(&[";", "; ", " ;"]))));
        }
        Self {
            path: PATHS[random.below(PATHS.len())],
            method: METHODS[random.below(METHODS.len())],
            authority: AUTHORITIES[random.below(AUTHORITIES.len())],
            headers,
            query: (0..random.below(3)).map(|_| (PARAMETERS[random.below(3)], value(random))).collect(),
        }
    }

    /// All values of a header, as a server reads them.
    fn header(&self, name: &str) -> Option<String> {
        let own = self.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        let values: Vec<&str> = own.map(|(_, value)| &**value).collect();
        (!values.is_empty()).then(|| values.join(","))
    }
}

#[test]
fn hosts_of_any_size_find_the_first_rule_that_a_reader_would() {
    let (mut found, mut none, mut late) = (0, 0, [0; 3]);
    for seed in 1..500_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let count = [1, 5, 40, 120][random.below(4)];
        let style = random.below(3);
        let rules: Vec<Vec<Item>> = (0..count)
            .map(|_| {
                // A rule without items takes everything.
                let items = if random.below(150) == 0 { 0 } else { 1 + random.below(3) };
                let style = [Style::Paths, Style::Users, Style::Mixed][style];
                (0..items).map(|_| Item::random(&mut random, style)).collect()
            })
            .collect();
        let compiled = rules
            .iter()
            .map(|items| Rule { matches: items.iter().map(Item::compiled).collect(), ..Rule::default() })
            .collect();
        let host = VirtualHost::new("h".into(), compiled);
        for _ in 0..60 {
            let sent = Sent::random(&mut random);
            let headers = sent.headers.iter().map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                (name, HeaderValue::from_str(value).expect("valid"))
            });
            let mut all = HeaderMap::new();
            for (name, value) in headers {
                all.append(name, value);
            }
            let text = sent.query.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&");
            let request = RequestView {
                method: &Method::from_bytes(sent.method.as_bytes()).expect("a method"),
                scheme: "http",
                authority: sent.authority,
                path: sent.path,
                query: (!sent.query.is_empty()).then_some(&*text),
                headers: &all,
            };
            let wanted = rules.iter().enumerate().find_map(|(number, items)| {
                let item = items.iter().position(|item| item.takes(&sent));
                (items.is_empty() || item.is_some()).then_some((number, item))
            });
            let got = host.find(&request).map(|(rule, item)| {
                let number = host.rules.iter().position(|one| std::ptr::eq(one, rule)).expect("one of them");
                let position = item.map(|item| rule.matches.iter().position(|one| std::ptr::eq(one, item)));
                (number, position.map(|position| position.expect("one of them")))
            });
            assert_eq!(got, wanted, "seed {seed}: {sent:?} in {rules:?}");
            match wanted {
                Some((number, _)) => {
                    found += 1;
                    late[style] += usize::from(number > 10);
                }
                None => none += 1,
            }
        }
    }
    assert!(found > 5_000 && none > 1_000 && late.iter().all(|late| *late > 300), "{found} {none} {late:?}");
}

/// Rules that one condition alone tells apart, however many, are not tried one after another.
#[test]
fn of_rules_that_one_text_tells_apart_few_are_tried() {
    let exact = |text: String| StringMatch::Exact(text.into());
    let header = |value: StringMatch| HttpMatch {
        headers: [HeaderMatch { name: HeaderName::from_static("x"), value }].into(),
        ..HttpMatch::default()
    };
    let more = |more: MoreConditions| HttpMatch { more: Some(Box::new(more)), ..HttpMatch::default() };
    let cookie = |n: usize| HttpMatch {
        headers: [HeaderMatch { name: http::header::COOKIE, value: Words("cookie", format!("user=u{n}")).compiled() }]
            .into(),
        ..HttpMatch::default()
    };
    let kinds: [(&str, &dyn Fn(usize) -> HttpMatch); 8] = [
        ("header", &|n| header(exact(format!("u{n}")))),
        ("its beginning", &|n| header(StringMatch::Prefix(format!("u{n}/").into()))),
        ("regex", &|n| header(Words("regex", format!("u{n}/[0-9]+")).compiled())),
        ("beside a path of all", &|n| HttpMatch { uri: Some(exact("/".into())), ..header(exact(format!("u{n}"))) }),
        ("cookie", &cookie),
        ("query", &|n| {
            more(MoreConditions {
                query_params: [QueryMatch { name: "k".into(), value: exact(format!("u{n}")) }].into(),
                ..MoreConditions::default()
            })
        }),
        ("authority", &|n| {
            more(MoreConditions { authority: Some(exact(format!("u{n}"))), ..MoreConditions::default() })
        }),
        ("path without case", &|n| HttpMatch {
            uri: Some(StringMatch::ExactIgnoreCase(format!("/u{n}").into())),
            ..HttpMatch::default()
        }),
    ];
    for (kind, item) in kinds {
        let rules: Vec<Rule> = (0..1_000).map(|n| Rule { matches: [item(n)].into(), ..Rule::default() }).collect();
        let index = RuleIndex::new(&rules).expect("there are many");
        assert!(index.longest_list() <= 1, "{kind}");
    }
}
