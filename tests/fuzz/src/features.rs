//! What an input made the core say: the next best thing to what it made the core run. An input that shows something new
//! is worth changing further. Filled by the targets, read by [`crate::search`].

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use weir_mesh::finding::Finding;

/// Hashes of what was seen.
#[derive(Debug, Default)]
pub struct Features(pub BTreeSet<u64>);

impl Features {
    /// Something was seen.
    pub fn add(&mut self, what: &impl Hash) {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        self.0.insert(hasher.finish());
    }

    /// A finding was told: its code, severity and wording, without names, numbers and paths.
    pub fn finding(&mut self, finding: &Finding) {
        let words = finding.message.split(' ').filter(|word| word.bytes().all(|b| b.is_ascii_lowercase())).take(8);
        self.add(&(finding.code, finding.severity, words.collect::<Vec<_>>(), finding.help.is_some()));
    }
}
