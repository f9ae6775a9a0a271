//! What would change: two compilations compared, fact by fact. Called by `weir diff`.

use std::borrow::Cow;
use std::collections::BTreeSet;

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
    let told = |side: &Side<'_>| side.findings.iter().map(|finding| placeless(finding)).collect::<BTreeSet<_>>();
    let (said, says) = (told(old), told(new));
    let shown = |side: &Side<'_>, others: &BTreeSet<_>| {
        let mut shown: Vec<String> = Vec::new();
        for finding in side.findings.iter().filter(|finding| !others.contains(&placeless(finding))) {
            let line = finding.to_string();
            if !shown.contains(&line) {
                shown.push(line);
            }
        }
        shown
    };
    Diff { changes, new_findings: shown(new, &said), gone_findings: shown(old, &says) }
}

/// A finding that moved is the same one.
fn placeless(finding: &Finding) -> Finding {
    Finding { at: None, ..finding.clone() }
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
