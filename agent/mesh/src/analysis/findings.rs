//! Where the analyzers put what they find.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::catalog;
use super::sources::Resource;
use crate::crd::Mark;
use crate::finding::{Finding, Severity, code};

/// Of those that a message is about so many are named. Each of them has a finding of its own: with all names in each,
/// the output would grow with the square of their number.
pub(super) const MAX_NAMED: usize = 5;

/// The first few of `total` names, and how many more there are.
pub(super) fn few(names: impl IntoIterator<Item = impl Display>, total: usize, joint: &str) -> String {
    let mut named: Vec<String> = names.into_iter().take(MAX_NAMED).map(|name| name.to_string()).collect();
    if let more @ 1.. = total.saturating_sub(named.len()) {
        named.push(format!("{more} more"));
    }
    named.join(joint)
}

/// Each finding once.
#[derive(Debug, Default)]
pub(super) struct Findings(BTreeSet<Finding>);

impl Findings {
    /// At the severity that the code has.
    pub(super) fn add(&mut self, code: &'static str, about: &Resource, mark: Mark, message: String, help: &str) {
        self.at(catalog::severity(code), code, about, mark, message, help);
    }

    /// At a severity of its own.
    pub(super) fn at(
        &mut self,
        severity: Severity,
        code: &'static str,
        about: &Resource,
        mark: Mark,
        message: String,
        help: &str,
    ) {
        self.0.insert(Finding {
            severity,
            code,
            object: Some(about.meta.object.clone()),
            at: about.meta.place(mark),
            message,
            help: (!help.is_empty()).then(|| help.to_owned()),
        });
    }

    pub(super) fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.0.extend(findings);
    }

    /// All of them, but for what another says of the same object more plainly.
    pub(super) fn into_vec(self) -> Vec<Finding> {
        let at = |code: &str| -> BTreeSet<_> {
            self.0.iter().filter(|f| f.code == code).map(|f| (f.object.clone(), f.at.clone())).collect()
        };
        let (outdated, without_address) = (at(code::DEPRECATED), at(code::ADDRESSES_MISSING));
        let rivals: BTreeSet<_> = self
            .0
            .iter()
            .filter(|f| f.code == code::RIVAL_RULES && f.severity == Severity::Warning)
            .map(|f| &f.object)
            .collect();
        let is_told = |f: &Finding| match f.code {
            code::WARNING => {
                let place = (f.object.clone(), f.at.clone());
                outdated.contains(&place) || without_address.contains(&place)
            }
            code::NO_EFFECT => rivals.contains(&f.object),
            _ => false,
        };
        self.0.iter().filter(|finding| !is_told(finding)).cloned().collect()
    }
}
