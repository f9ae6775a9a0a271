//! Texts as trees: read by the core's own parser, changed in ways that keep them YAML, and written again. Used by
//! [`crate::mutate`].

use std::fmt::Write as _;

use weir_mesh::crd::{self, Entry, Mark, Node, Value};

use crate::dictionary::SCALARS;
use crate::random::Random;

/// Words to put into a tree.
#[derive(Debug)]
pub struct Words {
    names: Vec<&'static str>,
    values: Vec<&'static str>,
}

impl Default for Words {
    fn default() -> Self {
        let (names, values) = crate::dictionary::words();
        Self { names, values }
    }
}

impl Words {
    /// A field's name.
    pub fn name(&self, random: &mut Random) -> &'static str {
        random.of(&self.names).copied().unwrap_or_default()
    }

    /// A scalar, as text.
    pub fn scalar(&self, random: &mut Random) -> &'static str {
        let words = if random.once_in(3) { &self.values[..] } else { SCALARS };
        random.of(words).copied().unwrap_or_default()
    }
}

/// The documents of a text that can be read, and whether that is all of them.
pub fn documents(text: &str) -> Vec<Node> {
    text.split("\n---").filter_map(|part| crd::parse(part, 0).ok().flatten()).collect()
}

/// The trees as one text of several documents.
pub fn print(documents: &[Node], random: &mut Random) -> String {
    let mut text = String::new();
    for node in documents {
        text.push_str("---\n");
        if random.once_in(6) {
            flow(node, &mut text);
            text.push('\n');
        } else {
            block(node, 0, &mut text);
        }
    }
    text
}

fn flow(node: &Node, out: &mut String) {
    match &node.value {
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                flow(item, out);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (i, entry) in entries.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                quoted(&entry.key, out);
                out.push_str(": ");
                flow(&entry.node, out);
            }
            out.push('}');
        }
        scalar => out.push_str(&written(scalar)),
    }
}

fn block(node: &Node, indent: usize, out: &mut String) {
    let pad = |out: &mut String| out.extend(std::iter::repeat_n(' ', indent));
    match &node.value {
        Value::List(items) if !items.is_empty() => {
            for item in items {
                pad(out);
                out.push_str("-\n");
                block(item, indent + 2, out);
            }
        }
        Value::Map(entries) if !entries.is_empty() => {
            for entry in entries {
                pad(out);
                quoted(&entry.key, out);
                out.push_str(":\n");
                block(&entry.node, indent + 2, out);
            }
        }
        _ => {
            pad(out);
            flow(node, out);
            out.push('\n');
        }
    }
}

fn written(value: &Value) -> String {
    match value {
        Value::Null | Value::List(_) | Value::Map(_) => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Float(f) if f.is_nan() => ".nan".to_owned(),
        Value::Float(f) if f.is_infinite() => if *f > 0.0 { ".inf" } else { "-.inf" }.to_owned(),
        Value::Float(f) => format!("{f:?}"),
        Value::Text(text) => {
            let mut out = String::new();
            quoted(text, &mut out);
            out
        }
    }
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c == '\u{7f}' || c == '\u{feff}' || matches!(c as u32, 0x80..0xa0) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A node without a place.
pub fn node(value: Value) -> Node {
    Node { mark: Mark::default(), value }
}

/// An entry without a place.
pub fn entry(key: &str, value: Node) -> Entry {
    Entry { key: key.into(), mark: Mark::default(), node: value }
}

/// A scalar of the type that the word looks like, or of text.
pub fn scalar(word: &str, random: &mut Random) -> Node {
    if !random.once_in(3) {
        if let Ok(number) = word.parse::<i64>() {
            return node(Value::Int(number));
        }
        if let Ok(number) = word.parse::<f64>() {
            return node(Value::Float(number));
        }
        match word {
            "true" => return node(Value::Bool(true)),
            "null" => return node(Value::Null),
            _ => {}
        }
    }
    node(Value::Text(word.into()))
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|entry| count(&entry.node)).sum(),
        _ => 0,
    }
}

/// The node of this number, the root being 0, with those below a node following it.
fn nth<'n>(node: &'n mut Node, number: &mut usize) -> Option<&'n mut Node> {
    if *number == 0 {
        return Some(node);
    }
    *number -= 1;
    match &mut node.value {
        Value::List(items) => items.iter_mut().find_map(|item| nth(item, number)),
        Value::Map(entries) => entries.iter_mut().find_map(|entry| nth(&mut entry.node, number)),
        _ => None,
    }
}

/// Any of its nodes.
pub fn any<'n>(root: &'n mut Node, random: &mut Random) -> Option<&'n mut Node> {
    let mut number = random.below(count(root));
    nth(root, &mut number)
}

/// Changes a tree in one place; `other` is where parts to put in come from.
pub fn change(root: &mut Node, other: Option<&Node>, words: &Words, random: &mut Random) {
    let part = other.and_then(|other| any(&mut other.clone(), random).cloned());
    let Some(target) = any(root, random) else { return };
    match (random.below(8), &mut target.value) {
        (0, Value::Map(entries)) if !entries.is_empty() => drop(entries.remove(random.below(entries.len()))),
        (0, Value::List(items)) if !items.is_empty() => drop(items.remove(random.below(items.len()))),
        (1, Value::List(items)) if !items.is_empty() => {
            let copy = items[random.below(items.len())].clone();
            items.insert(random.below(items.len() + 1), copy);
        }
        (1 | 2, Value::Map(entries)) if entries.len() > 1 => {
            let (a, b) = (random.below(entries.len()), random.below(entries.len()));
            let moved = entries[a].node.clone();
            entries[a].node = std::mem::replace(&mut entries[b].node, moved);
        }
        (2, Value::List(items)) if items.len() > 1 => {
            let (a, b) = (random.below(items.len()), random.below(items.len()));
            items.swap(a, b);
        }
        (3, Value::Map(entries)) => {
            let name = words.name(random);
            let value = part.unwrap_or_else(|| scalar(words.scalar(random), random));
            entries.retain(|entry| &*entry.key != name);
            entries.push(entry(name, value));
        }
        (3, Value::List(items)) => items.push(part.unwrap_or_else(|| scalar(words.scalar(random), random))),
        (4, Value::Map(entries)) if !entries.is_empty() => {
            let key = if random.once_in(3) { words.scalar(random) } else { words.name(random) };
            if entries.iter().all(|entry| &*entry.key != key) {
                let renamed = random.below(entries.len());
                entries[renamed].key = key.into();
            }
        }
        (5, _) => retype(target, random),
        (6, _) => {
            if let Some(part) = part {
                *target = part;
            }
        }
        _ => *target = scalar(words.scalar(random), random),
    }
}

/// The same, as something of another type.
fn retype(target: &mut Node, random: &mut Random) {
    let old = std::mem::replace(&mut target.value, Value::Null);
    target.value = match (random.below(4), old) {
        (0, old) => Value::List(vec![node(old)]),
        (1, Value::List(mut items)) if !items.is_empty() => items.remove(0).value,
        (1, Value::Map(mut entries)) if !entries.is_empty() => entries.remove(0).node.value,
        (2, Value::Int(number)) => Value::Text(number.to_string().into()),
        (2, Value::Text(text)) => Value::Map(vec![entry(&text, node(Value::Null))]),
        (3, _) => Value::Map(Vec::new()),
        (2, _) => Value::List(Vec::new()),
        (_, _) => Value::Null,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_as_the_same() {
        let text = "a: [1, {b: \"c\\u0001\\n\"}, [], {}]\n'é\"': {x: null, y: true, z: 1.5, 'k v': '~', n: -3}\n";
        let read = documents(text);
        assert_eq!(read.len(), 1);
        for seed in 0..40 {
            let printed = print(&read, &mut Random::new(seed));
            let again = documents(&printed);
            assert_eq!(again.len(), 1, "{printed}");
            let (mut one, mut other) = (String::new(), String::new());
            flow(&read[0], &mut one);
            flow(&again[0], &mut other);
            assert_eq!(one, other);
        }
    }
}
