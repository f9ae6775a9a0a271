//! Host tables that are being filled. Used by `build`.

use std::sync::Arc;

use super::registry::Map;
use crate::route::{HostTable, Rule, VirtualHost};

/// A [`HostTable`] that is being filled.
#[derive(Default)]
pub(super) struct Table {
    pub(super) hosts: Vec<VirtualHost>,
    names: Map<Box<str>, u32>,
    short_names: Map<Box<str>, Map<Box<str>, u32>>,
    suffixes: Vec<(Box<str>, u32)>,
}

impl Table {
    /// The first that claims a name has it: services come in the order of their names.
    pub(super) fn add(&mut self, host: &str, names: impl Iterator<Item = String>, rules: Vec<Rule>) -> u32 {
        let index = self.hosts.len() as u32;
        self.hosts.push(VirtualHost::new(host.into(), rules));
        for name in names {
            self.names.entry(name.into()).or_insert(index);
        }
        index
    }

    /// A bare name of a namespace.
    pub(super) fn short_name(&mut self, namespace: &str, name: &str, index: u32) {
        self.short_names.entry(namespace.into()).or_default().entry(name.into()).or_insert(index);
    }

    /// `*SUFFIX`; the longest have to come first.
    pub(super) fn suffix(&mut self, suffix: &str, index: u32) {
        self.suffixes.push((suffix.into(), index));
    }

    /// These names are nobody's here, whoever has them for others.
    pub(super) fn hide(&mut self, names: impl Iterator<Item = String>) {
        for name in names {
            self.names.entry(name.into()).or_insert(HostTable::NOBODY);
        }
    }

    /// As [`Self::hide`].
    pub(super) fn hide_suffix(&mut self, suffix: &str) {
        self.suffixes.push((suffix.into(), HostTable::NOBODY));
    }

    pub(super) fn finish(self) -> HostTable {
        HostTable {
            hosts: self.hosts.into_iter().map(Arc::new).collect(),
            names: Arc::new(self.names),
            short_names: Arc::new(self.short_names),
            suffixes: self.suffixes.into(),
        }
    }
}
