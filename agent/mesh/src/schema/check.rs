//! Holds an object against the table of its kind and tells everything that does not fit. One fault hides no other; the
//! path of a value is written down only where there is a fault.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::duration::is_plain;
use super::suggest::{nearest, place_of};
use super::{Message, Size, Type, Unique, parse_duration};
use crate::crd::{Entry, Mark, Node, Value};

/// Faults of each sort that are told of one object: nobody reads more, and an object may be made of nothing else.
pub const MAX_FAULTS: usize = 200;

/// Something that does not fit its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it stands.
    pub mark: Mark,
    /// `spec.http[0].route[1].weight`
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead, when that can be said.
    pub help: Option<String>,
    /// Of what sort it is.
    pub problem: Problem,
}

/// Sorts of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A value that cannot be.
    Value,
    /// No field has this name.
    UnknownField,
    /// The field's name as `snake_case`: Istio's own tools take it, an API server does not.
    SnakeCase,
}

/// Everything in `node` that does not fit `message`, in the order of the text; of each sort [`MAX_FAULTS`] at most.
pub fn check(node: &Node, message: &'static Message) -> Vec<Fault> {
    let mut walk = Walk { path: Vec::new(), faults: Vec::new(), told: [0; 3] };
    walk.message(node, node.mark, message);
    walk.faults
}

/// `max_request_retries` as `maxRequestRetries`.
pub fn to_camel_case(name: &str) -> Cow<'_, str> {
    if !name.contains('_') {
        return Cow::Borrowed(name);
    }
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else {
            camel.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    Cow::Owned(camel)
}

#[derive(Clone, Copy)]
enum Step<'n> {
    Message(&'static Message),
    Key(&'n str),
    Index(usize),
}

struct Walk<'n> {
    /// From the object to the value that is looked at; a `Message` stands before the key of its field.
    path: Vec<Step<'n>>,
    faults: Vec<Fault>,
    /// How many of each [`Problem`].
    told: [usize; 3],
}

fn written(path: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Message(_) => {}
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Step::Index(index) => {
                text.push('[');
                text.push_str(&index.to_string());
                text.push(']');
            }
        }
    }
    text
}

impl<'n> Walk<'n> {
    /// A value that cannot be.
    fn fault(&mut self, mark: Mark, message: impl Into<String>) {
        self.tell(Problem::Value, mark, message, None);
    }

    fn tell(&mut self, problem: Problem, mark: Mark, message: impl Into<String>, help: Option<String>) {
        // Each sort by itself, so that none hides that there is another.
        let told = &mut self.told[problem as usize];
        if *told < MAX_FAULTS {
            *told += 1;
            self.faults.push(Fault { mark, path: written(&self.path), message: message.into(), help, problem });
        }
    }

    fn wrong_type(&mut self, node: &Node, mark: Mark, wanted: &str) {
        let scalar = matches!(node.value, Value::Int(_) | Value::Float(_) | Value::Bool(_));
        let advice = if scalar && wanted == "a string" { ": put it in quotes" } else { "" };
        self.fault(mark, format!("must be {wanted}, is {}{advice}", node.value.shown_for(wanted)));
    }

    /// `mark` is where the value's key stands, or the value itself where it has none.
    fn message(&mut self, node: &'n Node, mark: Mark, message: &'static Message) {
        let Value::Map(entries) = &node.value else {
            return self.wrong_type(node, mark, "a map");
        };
        self.path.push(Step::Message(message));
        for entry in entries {
            self.path.push(Step::Key(&entry.key));
            match message.field(&entry.key) {
                // An API server drops fields that are null.
                Some(_) if matches!(entry.node.value, Value::Null) => {}
                Some(field) => self.value(&entry.node, place(entry), &field.ty),
                None => self.unknown(entry, message),
            }
            self.path.pop();
        }
        let given = |name: &str| entries.iter().any(|entry| is_given(entry, name));
        for field in message.fields.iter().filter(|field| field.required && !given(field.name)) {
            self.path.push(Step::Key(field.name));
            self.fault(mark, "must be given");
            self.path.pop();
        }
        for group in message.one_of {
            let there: Vec<&str> = group.iter().copied().filter(|name| given(name)).collect();
            if there.len() > 1 {
                let message = format!("only one of {} may be given", listed(&there));
                self.fault(mark, message);
            }
        }
        self.path.pop();
    }

    fn unknown(&mut self, entry: &'n Entry, message: &'static Message) {
        let camel = to_camel_case(&entry.key);
        if let Some(field) = message.field(&camel).filter(|field| field.name != &*entry.key) {
            if !matches!(entry.node.value, Value::Null) {
                let message = format!("an API server does not know it as `{}`", entry.key);
                self.tell(Problem::SnakeCase, entry.mark, message, Some(format!("write `{}`", field.name)));
                self.value(&entry.node, place(entry), &field.ty);
            }
            return;
        }
        if self.told[Problem::UnknownField as usize] >= MAX_FAULTS {
            return;
        }
        let help = nearest(&entry.key, message.fields.iter().map(|field| field.name))
            .map(|name| {
                let before = &self.path[..self.path.len() - 1];
                match written(before) {
                    above if above.is_empty() => name.to_owned(),
                    above => format!("{above}.{name}"),
                }
            })
            .or_else(|| self.elsewhere(&entry.key));
        let help = help.map(|path| format!("did you mean {path}?"));
        self.tell(Problem::UnknownField, entry.mark, "there is no such field", help);
    }

    /// The nearest place in the object that has such a field: below the map where it was written, then below the maps
    /// around that one.
    fn elsewhere(&self, name: &str) -> Option<String> {
        let camel = to_camel_case(name);
        (0..self.path.len()).rev().find_map(|index| {
            let Step::Message(message) = self.path[index] else {
                return None;
            };
            let above = written(&self.path[..index]);
            // The map itself was asked already, and those around it may have the field themselves.
            let here = index + 2 < self.path.len() && message.field(&camel).is_some();
            let below = if here { Some(camel.to_string()) } else { place_of(message, &camel) }?;
            Some(if above.is_empty() { below } else { format!("{above}.{below}") })
        })
    }

    fn value(&mut self, node: &'n Node, mark: Mark, ty: &'static Type) {
        match (ty, &node.value) {
            (Type::Any, _) | (Type::Bool, Value::Bool(_)) => {}
            (Type::Message(message), _) => self.message(node, mark, message),
            (Type::List(of, size), Value::List(items)) => self.list(items, mark, of, *size),
            (Type::Map(of, size), Value::Map(entries)) => {
                self.size(entries.len(), mark, *size, "entries");
                for entry in entries {
                    self.path.push(Step::Key(&entry.key));
                    self.value(&entry.node, place(entry), of);
                    self.path.pop();
                }
            }
            (Type::Int(min, max), Value::Int(value)) => {
                if !(*min..=*max).contains(value) {
                    let message = out_of_range(min, max, value, *min == i64::MIN, *max == i64::MAX);
                    self.fault(mark, message);
                }
            }
            (Type::IntEnum(values), Value::Int(value)) => {
                if !values.contains(value) {
                    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                    let values: Vec<&str> = values.iter().map(String::as_str).collect();
                    self.fault(mark, format!("must be one of {}, is {value}", listed(&values)));
                }
            }
            (Type::Float(min, max), Value::Int(_) | Value::Float(_)) => {
                let value = match node.value {
                    Value::Int(value) => value as f64,
                    Value::Float(value) => value,
                    _ => unreachable!("matched above"),
                };
                if !(*min..=*max).contains(&value) {
                    let message = out_of_range(min, max, &value, *min <= f64::MIN, *max >= f64::MAX);
                    self.fault(mark, message);
                }
            }
            (_, Value::Text(text)) => self.text(node, text, mark, ty),
            // JSON has one sort of number: 5.0 is an integer.
            (Type::Int(..) | Type::IntEnum(_), Value::Float(value)) if value.fract() == 0.0 && value.abs() < 1e15 => {}
            _ => self.wrong_type(node, mark, wanted(ty)),
        }
    }

    fn text(&mut self, node: &Node, text: &str, mark: Mark, ty: &'static Type) {
        match ty {
            Type::Text(size) => {
                if (size.min, size.max) != (0, usize::MAX) {
                    self.size(text.chars().count(), mark, *size, "characters");
                }
            }
            Type::Matching(pattern) => {
                if !pattern.matches(text) {
                    self.fault(mark, format!("`{text}` must be {}", pattern.what));
                }
            }
            Type::Enum(values) => {
                if !values.contains(&text) {
                    let help = nearest(text, values.iter().copied()).map(|value| format!("did you mean {value}?"));
                    let message = format!("`{text}` must be one of {}", listed(values));
                    self.tell(Problem::Value, mark, message, help);
                }
            }
            Type::Duration(least) => match parse_duration(text) {
                None => {
                    self.fault(mark, format!("`{text}` must be a duration such as 10s, 1m30s or 250ms"));
                }
                Some(duration) if duration.as_millis() < u128::from(*least) => {
                    self.fault(mark, format!("`{text}` must be a duration of at least {least}ms"));
                }
                Some(duration) if duration.subsec_nanos() % 1_000_000 != 0 => {
                    self.fault(mark, format!("`{text}` must be a duration of whole milliseconds"));
                }
                Some(_) => {}
            },
            Type::PlainDuration => {
                if !is_plain(text) {
                    self.fault(mark, format!("`{text}` must be a duration such as 10s, 1m30s or 500ms"));
                }
            }
            _ => self.wrong_type(node, mark, wanted(ty)),
        }
    }

    fn list(&mut self, items: &'n [Node], mark: Mark, of: &'static Type, size: Size) {
        self.size(items.len(), mark, size, "items");
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            self.path.push(Step::Index(index));
            self.value(item, item.mark, of);
            if let Some(key) = key(item, size.unique)
                && let Some(key) = seen.replace(key)
            {
                self.fault(item.mark, format!("{key} is there twice"));
            }
            self.path.pop();
        }
    }

    fn size(&mut self, len: usize, mark: Mark, size: Size, what: &str) {
        if len < size.min {
            let message = if size.min == 1 {
                "must not be empty".to_owned()
            } else {
                format!("must have at least {} {what}", size.min)
            };
            self.fault(mark, message);
        } else if len > size.max {
            self.fault(mark, format!("must have at most {} {what}, has {len}", size.max));
        }
    }
}

/// Where to point at: at a scalar itself, at the key of anything larger.
fn place(entry: &Entry) -> Mark {
    match entry.node.value {
        Value::Map(_) | Value::List(_) | Value::Null => entry.mark,
        _ => entry.node.mark,
    }
}

fn is_given(entry: &Entry, name: &str) -> bool {
    (&*entry.key == name || to_camel_case(&entry.key) == name) && !matches!(entry.node.value, Value::Null)
}

/// What no other item of the list may have in common with this one.
fn key(item: &Node, unique: Unique) -> Option<String> {
    let written = |node: &Node| match &node.value {
        Value::Text(text) => Some(format!("`{text}`")),
        Value::Int(value) => Some(value.to_string()),
        _ => None,
    };
    match unique {
        Unique::No => None,
        Unique::Item => written(item),
        Unique::Field(name) => item.get(name).and_then(written).map(|value| format!("{name} {value}")),
    }
}

fn out_of_range<T: std::fmt::Display>(min: &T, max: &T, value: &T, no_min: bool, no_max: bool) -> String {
    match (no_min, no_max) {
        (false, true) => format!("must be at least {min}, is {value}"),
        (true, false) => format!("must be at most {max}, is {value}"),
        _ => format!("must be between {min} and {max}, is {value}"),
    }
}

fn wanted(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "a boolean",
        Type::Int(..) | Type::IntEnum(_) => "an integer",
        Type::Float(..) => "a number",
        Type::List(..) => "a list",
        Type::Map(..) | Type::Message(_) => "a map",
        Type::Text(_) | Type::Matching(_) | Type::Enum(_) | Type::Duration(_) | Type::PlainDuration | Type::Any => {
            "a string"
        }
    }
}

fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}
