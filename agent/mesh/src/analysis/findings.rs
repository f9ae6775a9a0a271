//! Where the analyzers put what they find.

use std::collections::BTreeSet;

use super::catalog;
use super::sources::Resource;
use crate::crd::Mark;
use crate::finding::{Finding, Severity};

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

    pub(super) fn into_vec(self) -> Vec<Finding> {
        self.0.into_iter().collect()
    }
}
