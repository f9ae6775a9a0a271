//! Lenient reading of parsed objects for the analyzers: what is absent, null or of another type is empty here. That it
//! is of another type is told by validation, once.

use std::sync::Arc;

use crate::crd::{Entry, Labels, Mark, Node, Value};

/// Paths are field names joined by dots; lists are entered with [`Tree::items`].
pub(super) trait Tree {
    /// The node at `path`; `None` where a field of it is absent or null.
    fn at(&self, path: &str) -> Option<&Node>;
    /// A string; empty when absent.
    fn text_at(&self, path: &str) -> &str;
    /// An integer.
    fn int_at(&self, path: &str) -> Option<i64>;
    /// A number of any kind.
    fn number_at(&self, path: &str) -> Option<f64>;
    /// True only for `true`.
    fn flag_at(&self, path: &str) -> bool;
    /// The items of a list.
    fn items(&self, path: &str) -> &[Node];
    /// The strings of a list.
    fn texts(&self, path: &str) -> impl Iterator<Item = &Node>;
    /// The entries of a map.
    fn fields(&self, path: &str) -> &[Entry];
    /// A map of strings.
    fn labels(&self, path: &str) -> Labels;
    /// Where the field at `path` stands; the place of its innermost parent that is there when it is not.
    fn mark_of(&self, path: &str) -> Mark;
}

impl Tree for Node {
    fn at(&self, path: &str) -> Option<&Node> {
        let found = path.split('.').try_fold(self, |node, key| node.get(key))?;
        (!matches!(found.value, Value::Null)).then_some(found)
    }

    fn text_at(&self, path: &str) -> &str {
        self.at(path).and_then(Node::text).unwrap_or_default()
    }

    fn int_at(&self, path: &str) -> Option<i64> {
        match self.at(path)?.value {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    fn number_at(&self, path: &str) -> Option<f64> {
        match self.at(path)?.value {
            Value::Int(value) => Some(value as f64),
            Value::Float(value) => Some(value),
            _ => None,
        }
    }

    fn flag_at(&self, path: &str) -> bool {
        matches!(self.at(path), Some(Node { value: Value::Bool(true), .. }))
    }

    fn items(&self, path: &str) -> &[Node] {
        match self.at(path) {
            Some(Node { value: Value::List(items), .. }) => items,
            _ => &[],
        }
    }

    fn texts(&self, path: &str) -> impl Iterator<Item = &Node> {
        self.items(path).iter().filter(|item| item.text().is_some())
    }

    fn fields(&self, path: &str) -> &[Entry] {
        match self.at(path) {
            Some(Node { value: Value::Map(entries), .. }) => entries,
            _ => &[],
        }
    }

    fn labels(&self, path: &str) -> Labels {
        let entries = self.fields(path).iter();
        entries.map(|entry| (Arc::from(&*entry.key), Arc::from(entry.node.text().unwrap_or_default()))).collect()
    }

    fn mark_of(&self, path: &str) -> Mark {
        let (mut node, mut mark) = (self, self.mark);
        for key in path.split('.') {
            let Value::Map(entries) = &node.value else { break };
            let Some(entry) = entries.iter().find(|entry| &*entry.key == key) else { break };
            mark = entry.mark;
            node = &entry.node;
        }
        mark
    }
}

/// `a=b,c=d`, in the order of the keys; empty for no labels.
pub(super) fn shown(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// True when `labels` hold all that is `wanted`.
pub(super) fn selects(wanted: &Labels, labels: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The same value, whatever the order of its fields and wherever it stands; `without` is a field of the outermost map
/// that is left out.
pub(super) fn canonical(node: &Node, without: &str) -> String {
    match &node.value {
        Value::Map(entries) => {
            let mut fields: Vec<_> = entries
                .iter()
                .filter(|entry| &*entry.key != without && !matches!(entry.node.value, Value::Null))
                .map(|entry| format!("{:?}:{}", entry.key, canonical(&entry.node, "")))
                .collect();
            fields.sort();
            format!("{{{}}}", fields.join(","))
        }
        Value::List(items) => {
            format!("[{}]", items.iter().map(|item| canonical(item, "")).collect::<Vec<_>>().join(","))
        }
        other => format!("{other:?}"),
    }
}

/// Whether two hosts, either of which may begin with `*`, have a name in common.
pub(super) fn hosts_overlap(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(x), Some(y)) => x.ends_with(y) || y.ends_with(x),
        (Some(suffix), None) => b.ends_with(suffix),
        (None, Some(suffix)) => a.ends_with(suffix),
        (None, None) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd;

    #[test]
    fn what_is_absent_is_empty_and_has_the_place_of_its_parent() {
        let node = crd::parse("spec:\n  a:\n    b: null\n  c: [x, 1]", 0).unwrap().unwrap();
        assert!(node.at("spec.a.b").is_none() && node.at("spec.c.d").is_none());
        assert_eq!(node.mark_of("spec.a.z").line, 2);
        assert_eq!(node.texts("spec.c").count(), 1);
    }

    #[test]
    fn order_does_not_count_in_a_map_and_does_in_a_list() {
        let parsed = |text: &str| crd::parse(text, 0).unwrap().unwrap();
        let same = |a: &str, b: &str| canonical(&parsed(a), "name") == canonical(&parsed(b), "name");
        assert!(same("{name: x, uri: {exact: /}, port: 1}", "{port: 1, uri: {exact: /}, name: y}"));
        assert!(!same("{uri: [a, b]}", "{uri: [b, a]}"));
        assert!(!same("{uri: {name: a}}", "{uri: {name: b}}"));
    }

    #[test]
    fn a_wildcard_does_not_take_the_bare_domain() {
        assert!(hosts_overlap("*.example.com", "a.example.com"));
        assert!(!hosts_overlap("*.example.com", "example.com"));
        assert!(hosts_overlap("*", "*.example.com"));
        assert!(!hosts_overlap("a.example.com", "b.example.com"));
    }
}
