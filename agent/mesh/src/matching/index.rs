//! The rules of a host with many, by the paths that they name, so that a request looks at few of them. It answers what
//! trying them in order answers: the first rule that fits, and its first item. Made by [`crate::compile`], asked by
//! [`crate::route`].

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{HttpMatch, StringMatch};
use crate::request::RequestView;
use crate::route::Rule;

/// Below this many rules trying them in order is as fast, and the index costs memory for each host.
const WORTH_IT: usize = 16;

/// A rule, and one of its items; [`NO_ITEM`] for a rule without any.
type Place = (u32, u32);

/// A rule without items takes everything.
const NO_ITEM: u32 = u32::MAX;

/// Where the rules of a host are, by path.
#[derive(Debug, Default, PartialEq)]
pub struct RuleIndex {
    /// Items with `uri.exact`.
    exact: HashMap<Box<str>, Box<[Place]>, RandomState>,
    /// Items with `uri.prefix`, in the order of the prefixes.
    prefixes: Box<[Prefix]>,
    /// All others, in order.
    rest: Box<[Place]>,
}

#[derive(Debug, PartialEq)]
struct Prefix {
    text: Box<str>,
    /// The position of the longest other prefix that is one of this.
    parent: Option<u32>,
    places: Box<[Place]>,
}

impl RuleIndex {
    /// The index of these rules; `None` for few.
    pub fn new(rules: &[Rule]) -> Option<Box<Self>> {
        (rules.len() >= WORTH_IT).then(|| Box::new(Self::of(rules)))
    }

    fn of(rules: &[Rule]) -> Self {
        let mut exact: HashMap<Box<str>, Vec<Place>, RandomState> = HashMap::default();
        let mut prefixes: std::collections::BTreeMap<Box<str>, Vec<Place>> = std::collections::BTreeMap::new();
        let mut rest = Vec::new();
        for (number, rule) in (0_u32..).zip(rules) {
            if rule.matches.is_empty() {
                rest.push((number, NO_ITEM));
            }
            for (item, conditions) in (0_u32..).zip(&rule.matches) {
                let place = (number, item);
                match &conditions.uri {
                    Some(StringMatch::Exact(path)) => exact.entry(path.clone()).or_default().push(place),
                    Some(StringMatch::Prefix(prefix)) => prefixes.entry(prefix.clone()).or_default().push(place),
                    _ => rest.push(place),
                }
            }
        }
        let mut sorted: Vec<Prefix> = Vec::with_capacity(prefixes.len());
        for (text, places) in prefixes {
            // What begins as this does and is shorter comes before, and so does all that begins as that.
            let mut parent = sorted.len().checked_sub(1);
            while let Some(at) = parent.filter(|at| !text.starts_with(&*sorted[*at].text)) {
                parent = sorted[at].parent.map(|up| up as usize);
            }
            sorted.push(Prefix { text, parent: parent.map(|at| at as u32), places: places.into() });
        }
        Self {
            exact: exact.into_iter().map(|(path, places)| (path, places.into())).collect(),
            prefixes: sorted.into(),
            rest: rest.into(),
        }
    }

    /// The first rule that takes the request, and which of its items did.
    pub fn find<'r>(&self, rules: &'r [Rule], request: &RequestView<'_>) -> Option<(&'r Rule, Option<&'r HttpMatch>)> {
        let item = |(rule, item): Place| rules.get(rule as usize)?.matches.get(item as usize);
        let mut best: Option<Place> = None;
        let mut look = |places: &[Place], check: &dyn Fn(&HttpMatch) -> bool| {
            for place in places.iter().take_while(|place| best.is_none_or(|best| **place < best)) {
                if place.1 == NO_ITEM || item(*place).is_some_and(check) {
                    best = Some(*place);
                    return;
                }
            }
        };
        let beside_path = |conditions: &HttpMatch| conditions.matches_beside_path(request);
        if let Some(places) = self.exact.get(request.path) {
            look(places, &beside_path);
        }
        let after = self.prefixes.partition_point(|prefix| *prefix.text <= *request.path);
        let mut next = after.checked_sub(1);
        while let Some(prefix) = next.map(|at| &self.prefixes[at]) {
            // A prefix of the path is also one of everything between it and the path in order, so it is above.
            if request.path.starts_with(&*prefix.text) {
                look(&prefix.places, &beside_path);
            }
            next = prefix.parent.map(|up| up as usize);
        }
        look(&self.rest, &|conditions| conditions.matches(request));
        let place = best?;
        Some((rules.get(place.0 as usize)?, item(place)))
    }
}
