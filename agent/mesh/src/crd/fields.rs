//! Reads the fields of a map one by one, with the path for messages; what nobody asked for can be listed afterwards.

use super::node::{Entry, Mark, Node, Value};

/// What makes an object unusable: where, which field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", of_path(path))]
pub struct Fault {
    /// Where it stands.
    pub mark: Mark,
    /// `spec.http[0].route[1].weight`
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// Nothing for what is about the whole document.
fn of_path(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("`{path}`: ") }
}

impl Fault {
    /// A fault of the field at `path`.
    pub fn new(mark: Mark, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { mark, path: path.into(), message: message.into() }
    }

    fn wrong_type(node: &Node, path: &str, wanted: &str) -> Self {
        Self::new(node.mark, path, format!("must be {wanted}, is {}", node.value.shown_for(wanted)))
    }
}

/// A value, and where the field that gives it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked<T> {
    /// Where.
    pub mark: Mark,
    value: T,
}

impl<T> Marked<T> {
    /// A value of the field at `mark`.
    pub fn new(mark: Mark, value: T) -> Self {
        Self { mark, value }
    }

    pub(super) fn value_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> std::ops::Deref for Marked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A map being read.
pub(crate) struct Fields<'n> {
    entries: &'n [Entry],
    taken: Vec<bool>,
    /// Where the map begins.
    pub(crate) mark: Mark,
    /// The path of the map; empty for the object itself.
    pub(crate) path: String,
}

impl<'n> Fields<'n> {
    /// The fields of `node`, which must be a map.
    pub(crate) fn of(node: &'n Node, path: impl Into<String>) -> Result<Self, Fault> {
        let path = path.into();
        match &node.value {
            Value::Map(entries) => Ok(Self { entries, taken: vec![false; entries.len()], mark: node.mark, path }),
            // Of Kubernetes' words `kind: List` is the one for several objects.
            Value::List(_) if path.is_empty() => {
                let message = "a document holds one object, and this is a list: write `kind: List` with `items`";
                Err(Fault::new(node.mark, path, message))
            }
            _ => Err(Fault::wrong_type(node, if path.is_empty() { "object" } else { &path }, "a map")),
        }
    }

    /// The path of one of its fields.
    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The entry of a field that is there and not null.
    pub(crate) fn entry(&mut self, key: &str) -> Option<&'n Entry> {
        let index = self.entries.iter().position(|e| &*e.key == key)?;
        self.taken[index] = true;
        let entry = &self.entries[index];
        (!matches!(entry.node.value, Value::Null)).then_some(entry)
    }

    /// The value of a field that is there and not null.
    pub(crate) fn node(&mut self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// A string.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<&'n str>, Fault> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        text_of(node, || self.path_of(key)).map(Some)
    }

    /// A string that must be there and not be empty.
    pub(crate) fn required_text(&mut self, key: &str) -> Result<&'n str, Fault> {
        match self.text(key)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(Fault::new(self.mark, self.path_of(key), "must be given")),
        }
    }

    /// A boolean.
    pub(crate) fn boolean(&mut self, key: &str) -> Result<Option<bool>, Fault> {
        match self.node(key) {
            None => Ok(None),
            Some(Node { value: Value::Bool(value), .. }) => Ok(Some(*value)),
            Some(node) => Err(Fault::wrong_type(node, &self.path_of(key), "a boolean")),
        }
    }

    /// An integer within `range`.
    pub(crate) fn integer(&mut self, key: &str, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>, Fault> {
        match self.node(key) {
            None => Ok(None),
            Some(Node { value: Value::Int(value), .. }) if range.contains(value) => Ok(Some(*value)),
            Some(Node { value: Value::Int(value), mark }) => Err(Fault::new(
                *mark,
                self.path_of(key),
                format!("must be between {} and {}, is {value}", range.start(), range.end()),
            )),
            // JSON has one sort of number: 5.0 is an integer.
            Some(Node { value: Value::Float(value), .. })
                if value.fract() == 0.0 && value.abs() < 1e15 && range.contains(&(*value as i64)) =>
            {
                Ok(Some(*value as i64))
            }
            Some(node) => Err(Fault::wrong_type(node, &self.path_of(key), "an integer")),
        }
    }

    /// A number that need not be whole.
    pub(crate) fn number(&mut self, key: &str) -> Result<Option<f64>, Fault> {
        match self.node(key) {
            None => Ok(None),
            Some(Node { value: Value::Int(value), .. }) => Ok(Some(*value as f64)),
            Some(Node { value: Value::Float(value), .. }) => Ok(Some(*value)),
            Some(node) => Err(Fault::wrong_type(node, &self.path_of(key), "a number")),
        }
    }

    /// A port number.
    pub(crate) fn port(&mut self, key: &str) -> Result<Option<u16>, Fault> {
        Ok(self.integer(key, 1..=65535)?.map(|n| n as u16))
    }

    /// A map.
    pub(crate) fn map(&mut self, key: &str) -> Result<Option<Fields<'n>>, Fault> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        Fields::of(node, self.path_of(key)).map(Some)
    }

    /// A map that must be there.
    pub(crate) fn required_map(&mut self, key: &str) -> Result<Fields<'n>, Fault> {
        self.map(key)?.ok_or_else(|| Fault::new(self.mark, self.path_of(key), "must be given"))
    }

    /// A list; empty when absent.
    pub(crate) fn list(&mut self, key: &str) -> Result<&'n [Node], Fault> {
        match self.node(key) {
            None => Ok(&[]),
            Some(Node { value: Value::List(items), .. }) => Ok(items),
            Some(node) => Err(Fault::wrong_type(node, &self.path_of(key), "a list")),
        }
    }

    /// A list of maps; empty when absent.
    pub(crate) fn maps(&mut self, key: &str) -> Result<Vec<Fields<'n>>, Fault> {
        let items = self.list(key)?;
        let path = self.path_of(key);
        items.iter().enumerate().map(|(i, item)| Fields::of(item, format!("{path}[{i}]"))).collect()
    }

    /// A list of strings, each with its place; empty when absent.
    pub(crate) fn texts(&mut self, key: &str) -> Result<Vec<(&'n str, Mark)>, Fault> {
        let items = self.list(key)?;
        let path = self.path_of(key);
        items.iter().enumerate().map(|(i, item)| Ok((text_of(item, || format!("{path}[{i}]"))?, item.mark))).collect()
    }

    /// A map of strings; empty when absent.
    pub(crate) fn text_map(&mut self, key: &str) -> Result<Vec<(&'n str, &'n str)>, Fault> {
        let Some(map) = self.map(key)? else {
            return Ok(Vec::new());
        };
        map.entries
            .iter()
            .map(|entry| {
                // A null value is the empty string, as the API server has it.
                if matches!(entry.node.value, Value::Null) {
                    return Ok((&*entry.key, ""));
                }
                Ok((&*entry.key, text_of(&entry.node, || map.path_of(&entry.key))?))
            })
            .collect()
    }

    /// All entries, as read from the text.
    pub(crate) fn entries(&self) -> &'n [Entry] {
        self.entries
    }

    /// Fields that are there, not null, and that nobody asked for.
    pub(crate) fn rest(&self) -> impl Iterator<Item = &'n Entry> + use<'n, '_> {
        self.entries
            .iter()
            .zip(&self.taken)
            .filter(|(entry, taken)| !**taken && !matches!(entry.node.value, Value::Null))
            .map(|(entry, _)| entry)
    }
}

fn text_of(node: &Node, path: impl FnOnce() -> String) -> Result<&str, Fault> {
    match &node.value {
        Value::Text(text) => Ok(text),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => Err(Fault::new(
            node.mark,
            path(),
            format!("must be a string, is {}: put it in quotes", node.value.type_name()),
        )),
        _ => Err(Fault::wrong_type(node, &path(), "a string")),
    }
}
