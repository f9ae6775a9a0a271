//! What would change: two compilations compared, fact by fact. Called by `weir diff`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::compile::describe;
use crate::compile::{CompileOptions, Compiled, ViewTable};
use crate::finding::Finding;
use crate::plan::KernelPlan;
use crate::program::Program;
use crate::snapshot::Snapshot;

mod facts;
#[cfg(test)]
mod tests;

use facts::{All, Facts, Key};

/// One of the two.
#[derive(Debug)]
pub struct Side<'a> {
    options: &'a CompileOptions,
    program: &'a Program,
    plan: &'a KernelPlan,
    views: &'a ViewTable,
    findings: Vec<&'a Finding>,
    snapshot: Cow<'a, Snapshot>,
}

impl<'a> Side<'a> {
    /// A compilation of `snapshot`; `of_files` are findings beside its own.
    pub fn new(
        snapshot: &'a Snapshot,
        options: &'a CompileOptions,
        compiled: &'a Compiled,
        of_files: &'a [Finding],
    ) -> Self {
        Self {
            options,
            program: &compiled.program,
            plan: &compiled.plan,
            views: &compiled.views,
            findings: of_files.iter().chain(&compiled.findings).collect(),
            snapshot: describe::whole(snapshot, options),
        }
    }

    fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// What a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// The kernel's verdict of a service port.
    ServicePort,
    /// A rule for requests.
    Route,
    /// Where connections go as a whole.
    Connection,
    /// Endpoints and the policy toward them.
    Destination,
    /// A listener of a gateway, and the rules behind it.
    Gateway,
    /// What protects a service.
    Policy,
    /// Whether a pod takes part.
    Pod,
}

impl Area {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServicePort => "service port",
            Self::Route => "route",
            Self::Connection => "connections to",
            Self::Destination => "destination",
            Self::Gateway => "gateway",
            Self::Policy => "policy for",
            Self::Pod => "pod",
        }
    }
}

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// It says something else.
    Changed,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// About what.
    pub area: Area,
    /// Of that, which.
    pub subject: String,
    /// For which clients; empty = everybody.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub clients: String,
    /// How.
    pub how: How,
    /// Its fields that differ.
    pub fields: Vec<FieldChange>,
    /// The object that it is from, in the newer of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// Its name.
    pub field: String,
    /// What it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// All changes, in the order of what they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// In force.
    pub changes: Vec<Change>,
    /// What would be wrong, and is not.
    pub new_findings: Vec<String>,
    /// What is wrong, and would not be.
    pub gone_findings: Vec<String>,
}

impl Diff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.new_findings.is_empty() && self.gone_findings.is_empty()
    }
}

/// Compares two compilations.
pub fn diff(old: &Side<'_>, new: &Side<'_>) -> Diff {
    let (before, after) = (facts::collect(old), facts::collect(new));
    let keys: BTreeSet<&Key> = before.facts.keys().chain(after.facts.keys()).collect();
    let mut changes: Vec<Change> = keys
        .into_iter()
        .filter_map(|key| changed(key, before.facts.get(key), after.facts.get(key)))
        .chain(orders(&before, &after))
        .collect();
    changes.sort_by(|a, b| (a.area, &a.subject, &a.clients).cmp(&(b.area, &b.subject, &b.clients)));
    Diff { changes, new_findings: beyond(new, old), gone_findings: beyond(old, new) }
}

/// The findings of `side` that `other` has not. One that moved is the same one, and of several that differ by their
/// place alone there are as many as there are more of.
fn beyond(side: &Side<'_>, other: &Side<'_>) -> Vec<String> {
    let mut there: BTreeMap<Finding, usize> = BTreeMap::new();
    let distinct = |side: &Side<'_>| side.findings.iter().map(|finding| (*finding).clone()).collect::<BTreeSet<_>>();
    let (own, others) = (distinct(side), distinct(other));
    for finding in &others {
        *there.entry(placeless(finding)).or_default() += 1;
    }
    // Those that did not move stay what they are, so that the others are the new ones.
    let (stayed, moved): (Vec<&Finding>, Vec<&Finding>) = own.iter().partition(|finding| others.contains(finding));
    let mut shown = Vec::new();
    for finding in stayed.into_iter().chain(moved) {
        match there.get_mut(&placeless(finding)) {
            Some(count) if *count > 0 => *count -= 1,
            _ => shown.push(finding.to_string()),
        }
    }
    shown
}

/// Without its place in the file, and without those in lists: `spec.http[2].timeout` is said of a rule, wherever it is.
fn placeless(finding: &Finding) -> Finding {
    let (message, help) = (unnumbered(&finding.message), finding.help.as_deref().map(unnumbered));
    Finding { at: None, message, help, ..finding.clone() }
}

fn unnumbered(text: &str) -> String {
    let mut parts = text.split('[');
    let mut bare = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        bare.push('[');
        bare.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    bare
}

fn changed(key: &Key, old: Option<&Facts>, new: Option<&Facts>) -> Option<Change> {
    let how = match (old, new) {
        (Some(old), Some(new)) if old.fields == new.fields => return None,
        (Some(_), Some(_)) => How::Changed,
        (None, _) => How::Added,
        (_, None) => How::Removed,
    };
    let names: BTreeSet<&String> = [old, new].into_iter().flatten().flat_map(|facts| facts.fields.keys()).collect();
    let value = |facts: Option<&Facts>, field: &str| facts.and_then(|facts| facts.fields.get(field).cloned());
    let fields = names.into_iter().filter_map(|field| {
        let (old, new) = (value(old, field), value(new, field));
        (old != new).then(|| FieldChange { field: field.clone(), old, new })
    });
    Some(Change {
        area: key.area,
        subject: key.subject.clone(),
        clients: key.clients.clone(),
        how,
        fields: fields.collect(),
        object: new.or(old).and_then(|facts| facts.object.clone()),
    })
}

/// Hosts whose rules are the same in another order: of two that take a request, the first wins.
fn orders(before: &All, after: &All) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, old) in &before.orders {
        let Some(new) = after.orders.get(key) else { continue };
        let common = |own: &[String], other: &[String]| -> Vec<String> {
            let other: BTreeSet<&String> = other.iter().collect();
            own.iter().filter(|name| other.contains(name)).cloned().collect()
        };
        let (was, is) = (common(old, new), common(new, old));
        if was != is {
            let field = FieldChange {
                field: "order of rules".to_owned(),
                old: Some(was.join(" | ")),
                new: Some(is.join(" | ")),
            };
            changes.push(Change {
                area: key.area,
                subject: key.subject.clone(),
                clients: key.clients.clone(),
                how: How::Changed,
                fields: vec![field],
                object: None,
            });
        }
    }
    changes
}
