//! A value of an object with its place and path, and what is said of it. The rules of every kind read through [`At`]
//! and tell through [`Report`]. A value of the wrong type reads as absent: the schema has told of it already.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use crate::crd::{Mark, Node, Value};
use crate::finding::{Finding, Severity, code};
use crate::schema::{Fault, MAX_FAULTS, Problem, to_camel_case};
use crate::source::ObjectRef;

/// Findings of each severity that are told of one object.
const MAX_FINDINGS: usize = 2 * MAX_FAULTS;

/// A value, where it stands and how its path is written.
#[derive(Clone, Debug)]
pub(super) struct At<'n> {
    node: &'n Node,
    mark: Mark,
    path: String,
}

impl<'n> At<'n> {
    pub(super) fn root(node: &'n Node) -> Self {
        Self { node, mark: node.mark, path: String::new() }
    }

    fn below(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A field that is there and not null, in either spelling.
    pub(super) fn get(&self, key: &str) -> Option<Self> {
        let Value::Map(entries) = &self.node.value else {
            return None;
        };
        let entry = entries.iter().find(|entry| {
            (&*entry.key == key || to_camel_case(&entry.key) == key) && !matches!(entry.node.value, Value::Null)
        })?;
        let scalar = !matches!(entry.node.value, Value::Map(_) | Value::List(_));
        let mark = if scalar { entry.node.mark } else { entry.mark };
        Some(Self { node: &entry.node, mark, path: self.below(key) })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The string of this value; empty for anything else.
    pub(super) fn str(&self) -> &'n str {
        self.node.text().unwrap_or_default()
    }

    /// The string of a field; empty where there is none.
    pub(super) fn text(&self, key: &str) -> &'n str {
        self.get(key).map_or("", |value| value.str())
    }

    pub(super) fn int(&self, key: &str) -> Option<i64> {
        match self.get(key)?.node.value {
            Value::Int(value) => Some(value),
            Value::Float(value) if value.fract() == 0.0 => Some(value as i64),
            _ => None,
        }
    }

    pub(super) fn float(&self, key: &str) -> Option<f64> {
        match self.get(key)?.node.value {
            Value::Int(value) => Some(value as f64),
            Value::Float(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn is_true(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| matches!(value.node.value, Value::Bool(true)))
    }

    /// The items of a list; none when it is absent.
    pub(super) fn items(&self, key: &str) -> Vec<Self> {
        let Some(list) = self.get(key) else {
            return Vec::new();
        };
        let Value::List(items) = &list.node.value else {
            return Vec::new();
        };
        let item = |(i, node): (usize, &'n Node)| Self { node, mark: node.mark, path: format!("{}[{i}]", list.path) };
        items.iter().enumerate().filter(|(_, node)| !matches!(node.value, Value::Null)).map(item).collect()
    }

    /// The entries of a map; none when it is absent.
    pub(super) fn entries(&self, key: &str) -> Vec<(&'n str, Self)> {
        let Some(map) = self.get(key) else {
            return Vec::new();
        };
        let Value::Map(entries) = &map.node.value else {
            return Vec::new();
        };
        let at = |entry: &'n crate::crd::Entry| {
            (&*entry.key, Self { node: &entry.node, mark: entry.mark, path: map.below(&entry.key) })
        };
        entries.iter().map(at).collect()
    }

    /// The fields of a list are `[]` or the map is `{}`: there and without anything in it.
    pub(super) fn is_empty(&self) -> bool {
        match &self.node.value {
            Value::Map(entries) => entries.is_empty(),
            Value::List(items) => items.is_empty(),
            _ => false,
        }
    }

    /// Which of these fields are there.
    pub(super) fn given<'k>(&self, keys: &[&'k str]) -> Vec<&'k str> {
        keys.iter().copied().filter(|key| self.has(key)).collect()
    }

    pub(super) fn node(&self) -> &'n Node {
        self.node
    }
}

/// What is wrong with one object.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) object: &'a ObjectRef,
    file: Option<&'a Arc<str>>,
    pub(super) findings: Vec<Finding>,
    /// Paths of which the schema has told already: a rule need not say the same again.
    told: BTreeSet<String>,
    /// How many of each [`Severity`].
    counts: [usize; 3],
    /// What a rule says of such a path, or beyond the number that is told of.
    silent: Option<Finding>,
}

impl<'a> Report<'a> {
    pub(super) fn new(object: &'a ObjectRef, file: Option<&'a Arc<str>>) -> Self {
        Self { object, file, findings: Vec::new(), told: BTreeSet::new(), counts: [0; 3], silent: None }
    }

    pub(super) fn namespace(&self) -> &'a str {
        &self.object.namespace
    }

    /// Takes over what the schema says.
    pub(super) fn schema(&mut self, severity: Severity, code: &'static str, fault: Fault) {
        self.add(severity, code, fault.mark, &fault.path, fault.message).help = fault.help;
        if fault.problem == Problem::Value {
            self.told.insert(fault.path);
        }
    }

    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        mark: Mark,
        path: &str,
        message: impl Display,
    ) -> &mut Finding {
        let finding = Finding {
            severity,
            code,
            object: Some(self.object.clone()),
            at: self.file.map(|file| mark.in_file(file)),
            message: format!("`{path}`: {message}"),
            help: None,
        };
        if self.told.contains(path) || self.counts[severity as usize] >= MAX_FINDINGS {
            return self.silent.insert(finding);
        }
        self.counts[severity as usize] += 1;
        self.findings.push(finding);
        self.findings.last_mut().expect("it was just put there")
    }

    /// The value cannot be.
    pub(super) fn error(&mut self, at: &At<'_>, message: impl Display) -> &mut Finding {
        self.add(Severity::Error, code::INVALID, at.mark, &at.path, message)
    }

    /// A field of this map cannot be, or is not there and must be.
    pub(super) fn field(&mut self, map: &At<'_>, key: &str, message: impl Display) -> &mut Finding {
        let mark = map.get(key).map_or(map.mark, |value| value.mark);
        self.add(Severity::Error, code::INVALID, mark, &map.below(key), message)
    }

    /// The value can be, and is probably not what was meant.
    pub(super) fn warn(&mut self, at: &At<'_>, message: impl Display) -> &mut Finding {
        self.add(Severity::Warning, code::WARNING, at.mark, &at.path, message)
    }
}
