//! A YAML or JSON document as a tree that remembers where each part stood. Made by [`parse`] for [`crate::store`],
//! read through [`super::fields::Fields`]. An object of an API server becomes one without places.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter, Spanned};

use crate::source::Location;

/// Nodes in one document: a `kind: List` of 10,000 pods has about a million.
const MAX_NODES: usize = 4_000_000;
/// Nesting: Kubernetes objects stay below 30; the parser recurses, so the stack is what this protects.
const MAX_DEPTH: usize = 64;
/// Copies that aliases may make of anchored nodes; manifests hardly use any.
const MAX_REPLAYED: usize = 100_000;

/// A place in a text, 1-based; zero = not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// 1-based; 0 = not known.
    pub line: u32,
    /// 1-based; 0 = not known.
    pub column: u32,
}

impl Mark {
    /// The place as one of `file`.
    pub fn in_file(self, file: &Arc<str>) -> Location {
        Location { file: Arc::clone(file), line: self.line, column: self.column }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub mark: Mark,
    /// What it is.
    pub value: Value,
}

impl Node {
    /// The value of a map's field.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| &*entry.key == key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// The items of a list; none of anything else.
    pub fn into_items(self) -> Vec<Self> {
        match self.value {
            Value::List(items) => items,
            _ => Vec::new(),
        }
    }

    /// A string's text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A YAML value.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each variant is its type")]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One entry of a map, in the order of the text.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: Box<str>,
    /// Where the key stands.
    pub mark: Mark,
    /// Its value.
    pub node: Node,
}

impl Value {
    /// Its type, in the words of an error message.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// The same where something else is `wanted`; of a number that is no integer, the number.
    pub fn shown_for(&self, wanted: &str) -> Cow<'static, str> {
        match self {
            Self::Float(value) if wanted == "an integer" => Cow::Owned(value.to_string()),
            other => Cow::Borrowed(other.type_name()),
        }
    }
}

/// Why a text is no YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Where the parser gave up.
    pub mark: Mark,
    /// In its words, without the place.
    pub message: String,
}

/// Parses one document that begins after `lines_before` lines of its file. `None` = an empty document.
///
/// # Errors
/// When it is no YAML, has a key twice, or goes beyond the limits above.
pub fn parse(text: &str, lines_before: u32) -> Result<Option<Node>, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_depth: MAX_DEPTH,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        emit_comments: false,
        // As kubectl reads files, which is YAML 1.1: a plain `on` is a boolean, and `0120` is 80.
        strict_booleans: false,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    // JSON may be indented with tabs and YAML may not; within a string of JSON a tab is written otherwise.
    let json = text.trim_start_matches("---").trim_start().starts_with(['{', '[']) && text.contains('\t');
    let text = if json { Cow::Owned(text.replace('\t', " ")) } else { Cow::Borrowed(text) };
    match serde_saphyr::from_str_with_options::<Node>(&text, options) {
        Ok(mut node) if lines_before > 0 => {
            shift(&mut node, lines_before);
            Ok(Some(node))
        }
        Ok(node) => Ok(Some(node)),
        Err(error) => {
            let mark = error.location().map_or(Mark::default(), |at| Mark {
                line: u32::try_from(at.line()).unwrap_or(u32::MAX),
                column: u32::try_from(at.column()).unwrap_or(u32::MAX),
            });
            let mark = Mark { line: mark.line.saturating_add(lines_before), ..mark };
            Err(SyntaxError { mark, message: words(error.without_snippet()) })
        }
    }
    .map(|node| node.filter(|n| !matches!(n.value, Value::Null)))
}

/// What the parser says, in words for whoever writes manifests and not for whoever uses the parser.
fn words(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    use serde_saphyr::budget::BudgetBreach;
    match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` is there twice"),
        Error::DuplicateMappingKey { key: None, .. } => "a key is there twice".to_owned(),
        Error::NullIntoString { .. } => "a key must be a string, is nothing".to_owned(),
        Error::Unexpected { expected: "string scalar", .. } => "a key must be a string".to_owned(),
        Error::RecursiveReferencesRequireWeakTypes { .. } => "an anchor refers to itself".to_owned(),
        Error::NonFiniteFloat { value, .. } => format!("`{value}` is no number that an API server takes"),
        Error::AliasReplayLimitExceeded { .. } => format!("aliases repeat more than {MAX_REPLAYED} values"),
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => format!("nested deeper than {MAX_DEPTH}"),
        Error::Budget { .. } => format!("has more than {MAX_NODES} values"),
        other => {
            let said = DefaultMessageFormatter.format_message(other).into_owned();
            let ours = LIBRARY_WORDS.iter().find(|(theirs, _)| said.starts_with(theirs));
            ours.map_or(said, |(_, ours)| (*ours).to_owned())
        }
    }
}

/// What the parser says without a variant of its own, and what it is to people.
const LIBRARY_WORDS: [(&str, &str); 4] = [
    ("alias replay limit exceeded", "aliases repeat more values than manifests have"),
    ("recursion limit exceeded", "nested deeper than manifests are"),
    ("while scanning a plain scalar, found a tab", "a tab stands where the indentation is"),
    ("tabs disallowed within this context", "a tab stands where the indentation is"),
];

fn shift(node: &mut Node, lines: u32) {
    let move_mark = |mark: &mut Mark| {
        if mark.line > 0 {
            mark.line += lines;
        }
    };
    move_mark(&mut node.mark);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| shift(item, lines)),
        Value::Map(entries) => {
            for entry in entries {
                move_mark(&mut entry.mark);
                shift(&mut entry.node, lines);
            }
        }
        _ => {}
    }
}

fn mark_of(at: serde_saphyr::Location) -> Mark {
    Mark { line: u32::try_from(at.line()).unwrap_or(u32::MAX), column: u32::try_from(at.column()).unwrap_or(u32::MAX) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { mark: mark_of(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl From<serde_json::Value> for Node {
    fn from(json: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(value),
            Json::Number(number) => {
                number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int)
            }
            Json::String(text) => Value::Text(text.into()),
            Json::Array(items) => Value::List(items.into_iter().map(Self::from).collect()),
            Json::Object(entries) => {
                let entry =
                    |(key, value): (String, Json)| Entry { key: key.into(), mark: Mark::default(), node: value.into() };
                Value::Map(entries.into_iter().map(entry).collect())
            }
        };
        Self { mark: Mark::default(), value }
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        // Beyond i64 no field of ours has a meaning; as a float it is still a number in messages.
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            entries.push(Entry { key: key.value.into(), mark: mark_of(key.referenced), node: map.next_value()? });
        }
        Ok(Value::Map(entries))
    }
}
