//! Items of a host's rules by the text that one part of a request must have: the whole, a beginning, or anything.
//! Made and asked by [`super::RuleIndex`].

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use super::{Item, Search};
use crate::matching::index::keys::Text;

/// Items by text; each list is in order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Texts {
    exact: HashMap<Box<[u8]>, Box<[Item]>, RandomState>,
    /// In the order of the prefixes.
    prefixes: Box<[Prefix]>,
    present: Box<[Item]>,
}

#[derive(Debug, PartialEq)]
struct Prefix {
    text: Box<[u8]>,
    /// The position of the longest other prefix that is one of this.
    parent: Option<u32>,
    items: Box<[Item]>,
}

/// Items on their way into [`Texts`].
#[derive(Default)]
pub(super) struct Collected {
    exact: HashMap<Box<[u8]>, Vec<Item>, RandomState>,
    prefixes: BTreeMap<Box<[u8]>, Vec<Item>>,
    present: Vec<Item>,
}

impl Collected {
    /// Items come in order.
    pub(super) fn push(&mut self, text: &Text<'_>, item: Item) {
        match text {
            Text::Exact(text) => self.exact.entry(text.as_bytes().into()).or_default().push(item),
            Text::Prefix(text) => self.prefixes.entry(text.as_bytes().into()).or_default().push(item),
            Text::Present => self.present.push(item),
        }
    }

    pub(super) fn finish(self) -> Texts {
        let mut prefixes: Vec<Prefix> = Vec::with_capacity(self.prefixes.len());
        for (text, items) in self.prefixes {
            // What begins as this does and is shorter comes before, and so does all that begins as that.
            let mut parent = prefixes.len().checked_sub(1);
            while let Some(at) = parent.filter(|at| !text.starts_with(&prefixes[*at].text)) {
                parent = prefixes[at].parent.map(|up| up as usize);
            }
            prefixes.push(Prefix { text, parent: parent.map(|at| at as u32), items: items.into() });
        }
        Texts {
            exact: self.exact.into_iter().map(|(text, items)| (text, items.into())).collect(),
            prefixes: prefixes.into(),
            present: self.present.into(),
        }
    }
}

impl Texts {
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty() && self.present.is_empty()
    }

    /// Looks at all items that may fit where a request has this text.
    pub(super) fn look(&self, text: &[u8], search: &mut Search<'_, '_>) {
        if let Some(items) = self.exact.get(text) {
            search.look(items);
        }
        let after = self.prefixes.partition_point(|prefix| *prefix.text <= *text);
        let mut next = after.checked_sub(1);
        while let Some(prefix) = next.map(|at| &self.prefixes[at]) {
            // A prefix of the text is also one of everything between it and the text in order, so it is above.
            if text.starts_with(&prefix.text) {
                search.look(&prefix.items);
            }
            next = prefix.parent.map(|up| up as usize);
        }
        search.look(&self.present);
    }
}

#[cfg(test)]
impl Texts {
    pub(super) fn longest_list(&self) -> usize {
        let prefixes = self.prefixes.iter().map(|prefix| prefix.items.len());
        let lists = self.exact.values().map(|items| items.len()).chain(prefixes);
        lists.max().unwrap_or(0).max(self.present.len())
    }
}
