//! The rules of a host with many, by what tells them apart, so that a request looks at few of them: paths, headers,
//! cookies, query parameters, the authority, the method. It answers what trying them in order answers: the first rule
//! that fits, and its first item. Made by [`crate::compile`], asked by [`crate::route`].
//!
//! Each item stands in one place, so memory is linear: of the texts that it asks for, under the one that the fewest
//! others ask for. Items of which nothing is known that way — conditions on what must not be there, most regexes — are
//! tried in order.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use http::HeaderMap;
use http::header::{COOKIE, HeaderName};

use super::string::{JOINED, with_value};
use super::{HttpMatch, Rule};
use crate::request::RequestView;

mod keys;
mod texts;

use keys::{Place, Text, keys};
use texts::{Collected, Texts};

/// Below this many rules trying them in order is about as fast, and the index costs memory for each host.
const WORTH_IT: usize = 8;

/// A rule, and one of its items; [`NO_ITEM`] for a rule without any.
type Item = (u32, u32);

/// A rule without items takes everything.
const NO_ITEM: u32 = u32::MAX;

/// Where the rules of a host are.
#[derive(Debug, Default, PartialEq)]
pub struct RuleIndex {
    paths: Texts,
    /// In ASCII lower case.
    folded_paths: Texts,
    methods: Texts,
    authorities: Texts,
    headers: HashMap<HeaderName, Texts, RandomState>,
    cookies: Texts,
    query: HashMap<Box<str>, Texts, RandomState>,
    /// All others, in order.
    rest: Box<[Item]>,
}

/// The first item so far that takes a request.
struct Search<'r, 'q> {
    rules: &'r [Rule],
    request: &'q RequestView<'q>,
    best: Option<Item>,
}

impl<'r> Search<'r, '_> {
    fn item(&self, (rule, item): Item) -> Option<&'r HttpMatch> {
        self.rules.get(rule as usize)?.matches.get(item as usize)
    }

    /// Tries items, which are in order, as long as they come before the best.
    fn look(&mut self, items: &[Item]) {
        let before = |item: &&Item| self.best.is_none_or(|best| **item < best);
        let takes = |item: &Item| item.1 == NO_ITEM || self.item(*item).is_some_and(|item| item.matches(self.request));
        let found = items.iter().take_while(before).find(|item| takes(item)).copied();
        self.best = found.or(self.best);
    }
}

impl RuleIndex {
    /// The index of these rules; `None` for few.
    pub fn new(rules: &[Rule]) -> Option<Box<Self>> {
        (rules.len() >= WORTH_IT).then(|| Box::new(Self::of(rules)))
    }

    fn of(rules: &[Rule]) -> Self {
        let mut asking: HashMap<(Place<'_>, Text<'_>), u32, RandomState> = HashMap::default();
        for key in rules.iter().flat_map(|rule| &rule.matches).flat_map(keys) {
            *asking.entry(key).or_default() += 1;
        }
        let mut places: HashMap<Place<'_>, Collected, RandomState> = HashMap::default();
        let mut rest = Vec::new();
        for (number, rule) in (0_u32..).zip(rules) {
            if rule.matches.is_empty() {
                rest.push((number, NO_ITEM));
            }
            for (position, item) in (0_u32..).zip(&rule.matches) {
                let seldom = keys(item).into_iter().min_by_key(|key| (key.1 == Text::Present, asking[key]));
                match seldom {
                    Some((place, text)) => places.entry(place).or_default().push(&text, (number, position)),
                    None => rest.push((number, position)),
                }
            }
        }
        let mut index = Self { rest: rest.into(), ..Self::default() };
        for (place, collected) in places {
            let texts = collected.finish();
            match place {
                Place::Path => index.paths = texts,
                Place::FoldedPath => index.folded_paths = texts,
                Place::Method => index.methods = texts,
                Place::Authority => index.authorities = texts,
                Place::Cookie => index.cookies = texts,
                Place::Header(name) => drop(index.headers.insert(name.clone(), texts)),
                Place::Query(name) => drop(index.query.insert(name.into(), texts)),
            }
        }
        index
    }

    /// The first rule that takes the request, and which of its items did.
    pub fn find<'r>(&self, rules: &'r [Rule], request: &RequestView<'_>) -> Option<(&'r Rule, Option<&'r HttpMatch>)> {
        let mut search = Search { rules, request, best: None };
        self.paths.look(request.path.as_bytes(), &mut search);
        if !self.folded_paths.is_empty() {
            folded(request.path.as_bytes(), |path| self.folded_paths.look(path, &mut search));
        }
        self.look_at_headers(request.headers, &mut search);
        if let Some(query) = request.query.filter(|_| !self.query.is_empty()) {
            // Of several values of a name the first counts: an item found by another does not fit.
            for parameter in query.split('&') {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                if let Some(texts) = self.query.get(name) {
                    texts.look(value.as_bytes(), &mut search);
                }
            }
        }
        if !self.authorities.is_empty() {
            self.authorities.look(request.authority.as_bytes(), &mut search);
        }
        if !self.methods.is_empty() {
            self.methods.look(request.method.as_str().as_bytes(), &mut search);
        }
        search.look(&self.rest);
        let best = search.best?;
        Some((rules.get(best.0 as usize)?, search.item(best)))
    }

    fn look_at_headers(&self, headers: &HeaderMap, search: &mut Search<'_, '_>) {
        let mut look = |name: &HeaderName, texts: &Texts| {
            with_value(headers, name, |value| texts.look(value, search));
        };
        if self.headers.len() <= headers.keys_len() {
            self.headers.iter().for_each(|(name, texts)| look(name, texts));
        } else {
            headers.keys().filter_map(|name| Some((name, self.headers.get(name)?))).for_each(|(n, t)| look(n, t));
        }
        if !self.cookies.is_empty() {
            with_value(headers, &COOKIE, |value| {
                value.split(|byte| *byte == b';').for_each(|cookie| self.cookies.look(cookie.trim_ascii(), search));
            });
        }
    }
}

#[cfg(test)]
impl RuleIndex {
    /// The most items that share one text, so that they are tried in order.
    pub(super) fn longest_list(&self) -> usize {
        let fixed = [&self.paths, &self.folded_paths, &self.methods, &self.authorities, &self.cookies];
        let texts = fixed.into_iter().chain(self.headers.values()).chain(self.query.values());
        texts.map(Texts::longest_list).max().unwrap_or(0).max(self.rest.len())
    }
}

/// Gives `look` the text in ASCII lower case.
fn folded(text: &[u8], look: impl FnOnce(&[u8])) {
    let mut buffer = [0_u8; JOINED];
    match buffer.get_mut(..text.len()) {
        Some(lower) => {
            lower.copy_from_slice(text);
            lower.make_ascii_lowercase();
            look(lower);
        }
        None => look(&text.to_ascii_lowercase()),
    }
}
