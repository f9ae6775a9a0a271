//! Every code: what is wrong, what happens because of it, an example, and what to write instead. The severities of the
//! analyzers, `weir analyze --list-analyzers`, SARIF and docs/findings.md are made from this one table; the tests run
//! its examples.

use crate::finding::{Severity, code};

mod destination_rule;
mod gateway;
mod general;
mod kubernetes;
pub mod markdown;
mod own;
mod policy;
mod virtual_service;

/// One code.
#[derive(Debug)]
pub struct Entry {
    /// `IST0101`
    pub code: &'static str,
    /// Its name in one word.
    pub name: &'static str,
    /// At which it is told of; some findings of the code are told of at another.
    pub severity: Severity,
    /// What is wrong, in a line.
    pub title: &'static str,
    /// What happens because of it.
    pub effect: &'static str,
    /// What to write instead.
    pub fix: &'static str,
    /// Manifests with it, and without. `None` for what no manifest can show.
    pub example: Option<Example>,
}

/// Manifests that show a code.
#[derive(Debug)]
pub struct Example {
    /// With the mistake.
    pub fires: &'static str,
    /// Without it.
    pub silent: &'static str,
}

const TABLES: [&[Entry]; 7] = [
    general::ENTRIES,
    virtual_service::ENTRIES,
    destination_rule::ENTRIES,
    gateway::ENTRIES,
    policy::ENTRIES,
    kubernetes::ENTRIES,
    own::ENTRIES,
];

/// All codes: Istio's by number, then weir's.
pub fn all() -> impl Iterator<Item = &'static Entry> + Clone {
    let mut entries: Vec<&'static Entry> = TABLES.into_iter().flatten().collect();
    entries.sort_by_key(|entry| entry.code);
    entries.into_iter()
}

/// The severity of a code; that of a warning for one that is not in the table, which the tests rule out.
pub(super) fn severity(code: &str) -> Severity {
    TABLES.into_iter().flatten().find(|entry| entry.code == code).map_or(Severity::Warning, |entry| entry.severity)
}

/// Codes of Istio's that weir tells of by one of its own, which says more than theirs.
const TOLD_AS: [(&str, &str); 1] = [("IST0103", code::NOT_ENROLLED)];

/// Whether a code that somebody wrote, in whatever case, means findings of `code`.
pub fn means(written: &str, code: &str) -> bool {
    let same = |other: &str| written.eq_ignore_ascii_case(other);
    same(code) || TOLD_AS.iter().any(|(istio, own)| same(istio) && *own == code)
}

/// Where Istio documents one of its codes.
pub fn url(code: &str) -> Option<String> {
    code.starts_with("IST")
        .then(|| format!("https://istio.io/latest/docs/reference/config/analysis/{}/", code.to_ascii_lowercase()))
}
