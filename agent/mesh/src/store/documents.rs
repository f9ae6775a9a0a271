//! Cuts a file into its YAML documents, so that a broken one hides none of the others, and tells what is probably meant
//! by one that is no YAML.

use crate::crd::{self, Header, Kind, Node, SyntaxError};
use crate::schema;

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Document<'t> {
    /// Its text, with the `---` line that opens it.
    pub(crate) text: &'t str,
    /// Lines of the file before it.
    pub(crate) lines_before: u32,
}

/// The documents of `text`, those that hold nothing but comments left out. A `---` at the beginning of a line always
/// ends a document in YAML, also within a block of text.
pub(crate) fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 0, 0);
    for (line, content) in (0_u32..).zip(text.split_inclusive('\n')) {
        if is_marker(content) && offset > start {
            documents.push(Document { text: &text[start..offset], lines_before: first_line });
            (start, first_line) = (offset, line);
        }
        offset += content.len();
    }
    documents.push(Document { text: &text[start..], lines_before: first_line });
    documents.retain(|document| !is_empty(document.text));
    documents
}

/// A part of a document: all of it, or an item of its list.
pub(crate) enum Part<'t> {
    /// An object, or a list of some; with the list that it is an item of, where the list had to be cut.
    Object(Node, Option<Header>),
    /// What is no YAML.
    Broken(Document<'t>, SyntaxError),
}

/// Reads a document. Of a list in which something is no YAML, the items are read one by one, so that a broken one hides
/// none of the others.
pub(crate) fn read(document: Document<'_>) -> Vec<Part<'_>> {
    match crd::parse(document.text, document.lines_before) {
        Ok(node) => node.map(|node| Part::Object(node, None)).into_iter().collect(),
        Err(error) => by_item(document).unwrap_or_else(|| vec![Part::Broken(document, error)]),
    }
}

/// `None` for what is no list in block style, or broken elsewhere than in an item.
fn by_item(document: Document<'_>) -> Option<Vec<Part<'_>>> {
    let (around, items) = cut(document)?;
    let around = crd::parse(&around, document.lines_before).ok()??;
    let list = crd::header(&around, None).ok().filter(|header| header.kind == Kind::List)?;
    let mut parts = Vec::new();
    for item in items {
        match crd::parse(item.text, item.lines_before) {
            Ok(node) => {
                let nodes = node.into_iter().flat_map(Node::into_items);
                parts.extend(nodes.map(|node| Part::Object(node, Some(list.clone()))));
            }
            Err(error) => parts.push(Part::Broken(item, error)),
        }
    }
    parts.iter().any(|part| matches!(part, Part::Broken(..))).then_some(parts)
}

/// What is around the `items` of a list, and each of them as a list of one.
fn cut(document: Document<'_>) -> Option<(String, Vec<Document<'_>>)> {
    let mut around = String::new();
    // Where each item begins, and on which line; the last is the end of them all.
    let mut starts: Vec<(usize, u32)> = Vec::new();
    let (mut inside, mut dash, mut offset) = (false, None, 0);
    for (line, content) in (document.lines_before..).zip(document.text.split_inclusive('\n')) {
        let bare = content.trim_start_matches(' ');
        let indent = content.len() - bare.len();
        let begins = bare.starts_with("- ") || bare.trim_end() == "-";
        let outside = indent == 0 && !begins && !bare.trim_end().is_empty() && !bare.starts_with('#');
        if inside && outside {
            inside = false;
            starts.push((offset, line));
        }
        if inside {
            if begins && *dash.get_or_insert(indent) == indent {
                starts.push((offset, line));
            }
        } else {
            let words = bare.split(" #").next().unwrap_or_default().trim_end();
            inside = dash.is_none() && indent == 0 && words == "items:";
            around.push_str(if inside { "\n" } else { content });
        }
        offset += content.len();
    }
    if inside {
        starts.push((offset, 0));
    }
    let items =
        starts.windows(2).map(|pair| Document { text: &document.text[pair[0].0..pair[1].0], lines_before: pair[0].1 });
    dash.map(|_| (around, items.collect()))
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn is_empty(text: &str) -> bool {
    text.lines().all(|line| {
        let line = if is_marker(line) { &line[3..] } else { line };
        let line = line.trim();
        // Directives belong to the next document, and ours need none.
        line.is_empty() || line.starts_with(['#', '%']) || line == "..."
    })
}

/// The kind and name that a text which is no YAML seems to be about: its outermost `kind`, and `name` and `namespace`
/// under its outermost `metadata`. Good enough to know whose last good version to keep.
pub(crate) fn guess(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (mut kind, mut name, mut namespace) = (None, None, None);
    let mut in_metadata = None;
    // An item of a list begins with a dash, and its fields stand below what follows.
    let outermost = text
        .lines()
        .next()
        .filter(|line| line.trim_start().starts_with("- "))
        .map_or(0, |line| line.len() - line.trim_start().trim_start_matches("- ").len());
    for (number, line) in text.lines().enumerate() {
        let dash = number == 0 && outermost > 0;
        let content = if dash { &line[outermost..] } else { line.trim_start() };
        let indent = (line.len() - content.len()).saturating_sub(outermost);
        let Some((key, value)) = content.split_once(':') else {
            continue;
        };
        let value = bare(value.split(" #").next().unwrap_or(value));
        if indent == 0 {
            // `metadata: {name: x, namespace: y}`
            let flow = value.strip_prefix('{').filter(|_| key == "metadata").map(|rest| rest.trim_end_matches('}'));
            for (key, value) in flow.into_iter().flat_map(|pairs| pairs.split(',')).filter_map(|p| p.split_once(':')) {
                match key.trim() {
                    // Maps within come after, or have other keys: the first is the object's.
                    "name" if name.is_none() => name = Some(bare(value)),
                    "namespace" if namespace.is_none() => namespace = Some(bare(value)),
                    _ => {}
                }
            }
            in_metadata = (key == "metadata").then_some(None);
            if key == "kind" && !value.is_empty() {
                kind = Some(value);
            }
        } else if let Some(level) = &mut in_metadata {
            let level = *level.get_or_insert(indent);
            match key {
                "name" if indent == level => name = Some(value),
                "namespace" if indent == level => namespace = Some(value),
                _ => {}
            }
        }
    }
    Some((kind?, namespace, name?))
}

fn bare(value: &str) -> &str {
    value.trim().trim_matches(['"', '\''])
}

/// What to write instead, for the mistakes that people make.
pub(crate) fn hint(document: Document<'_>, error: &SyntaxError) -> Option<String> {
    let line = error.mark.line.checked_sub(document.lines_before + 1)? as usize;
    let mut lines = document.text.lines().skip(line.saturating_sub(1));
    let (before, here) = if line == 0 { (None, lines.next()?) } else { (lines.next(), lines.next()?) };
    let indent = |l: &str| l.len() - l.trim_start().len();
    if here.trim_start_matches(' ').starts_with('\t') {
        return Some("indent with spaces, not with tabs".to_owned());
    }
    let (key, value) = before?.trim().split_once(':')?;
    let deeper = indent(here) > indent(before?) && here.contains(':');
    if !deeper || value.trim().is_empty() {
        return None;
    }
    let name = here.trim().trim_start_matches("- ").split(':').next().unwrap_or_default().trim();
    let key = key.trim_start_matches("- ");
    let place = place_of(document.text, name);
    Some(format!(
        "`{name}` is indented under `{key}`, which already has a value: move it out to {}",
        place.as_deref().unwrap_or("where it belongs")
    ))
}

/// Where an object of the kind that the text seems to be about has a field of this name.
fn place_of(text: &str, name: &str) -> Option<String> {
    let outermost = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(bare);
    let message = schema::message_of(outermost("apiVersion")?, outermost("kind")?)?;
    let schema::Type::Message(spec) = message.field("spec")?.ty else {
        return None;
    };
    if spec.field(name).is_some() {
        return Some(format!("spec.{name}"));
    }
    schema::place_of(spec, name).map(|place| format!("spec.{place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_line_numbers_and_empty_ones_are_left_out() {
        let text = "# head\n---\na: 1\n--- # next\nb: |\n  ---x\n---\n\n---\n# nothing\n---\nc: 3";
        let found: Vec<_> = split(text).iter().map(|d| (d.text, d.lines_before)).collect();
        assert_eq!(found, [("---\na: 1\n", 1), ("--- # next\nb: |\n  ---x\n", 3), ("---\nc: 3", 10)]);
    }

    #[test]
    fn a_list_that_is_broken_in_one_place_is_read_item_by_item() {
        let text = "\
apiVersion: v1
items:
# The first
- apiVersion: v1
  kind: Pod
  metadata: {name: a}
- apiVersion: v1
  kind: Pod
  metadata:
    name: b
    name: c
- kind: Pod
  data: |
    - x
metadata: {}
kind: List
";
        let parts = read(Document { text, lines_before: 10 });
        let told: Vec<String> = parts
            .iter()
            .map(|part| match part {
                Part::Object(node, list) => {
                    format!("{} in {}", node.mark.line, list.as_ref().expect("a list").object.kind)
                }
                Part::Broken(document, error) => format!("{} {:?}", error.mark.line, guess(document.text)),
            })
            .collect();
        assert_eq!(told, ["14 in List", "21 Some((\"Pod\", None, \"c\"))", "22 in List"]);
        assert!(matches!(&*read(Document { text: "kind: [", lines_before: 0 }), [Part::Broken(..)]));
        let outside = text.replace("metadata: {}", "metadata: [");
        assert!(matches!(&*read(Document { text: &outside, lines_before: 0 }), [Part::Broken(..)]));
    }

    #[test]
    fn a_broken_text_still_tells_what_it_is_about() {
        let text =
            "kind: DestinationRule # x\nmetadata:\n  labels:\n    name: no\n  name: \"dr\"\nspec:\n  host: a\n    b: c";
        assert_eq!(guess(text), Some(("DestinationRule", None, "dr")));
        let flow = "kind: Pod\nmetadata: {name: 'p', labels: {a: b}, namespace: shop}\nspec: {";
        assert_eq!(guess(flow), Some(("Pod", Some("shop"), "p")));
        assert_eq!(guess("kind: Pod\nspec: {"), None);
    }
}
