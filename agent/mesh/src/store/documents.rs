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
        if is_marker(content.trim_start_matches(BYTE_ORDER_MARK)) && offset > start {
            documents.push(Document { text: &text[start..offset], lines_before: first_line });
            (start, first_line) = (offset, line);
        }
        offset += content.len();
    }
    documents.push(Document { text: &text[start..], lines_before: first_line });
    documents.iter_mut().for_each(without_mark);
    documents.retain(|document| !is_empty(document.text));
    documents
}

/// What some editors begin a text with, and what is in the middle where such texts were put together.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Leaves out the mark that a document begins with, before or behind the line that opens it.
fn without_mark(document: &mut Document<'_>) {
    document.text = document.text.trim_start_matches(BYTE_ORDER_MARK);
    let opens = document.text.split_inclusive('\n').next().filter(|line| is_marker(line) && line.trim_end() == "---");
    let rest = opens.map(|line| &document.text[line.len()..]).filter(|rest| rest.starts_with(BYTE_ORDER_MARK));
    if let Some(rest) = rest {
        *document =
            Document { text: rest.trim_start_matches(BYTE_ORDER_MARK), lines_before: document.lines_before + 1 };
    }
}

/// Several values of JSON, one behind the other, as `kubectl` reads them; `None` when there is one, or what comes first
/// is none. The last part is what is left when something is no JSON.
fn concatenated(document: Document<'_>) -> Option<Vec<Document<'_>>> {
    let text = document.text;
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut parts = Vec::new();
    let (mut start, mut lines_before) = (0, document.lines_before);
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    while let Some(value) = values.next() {
        let end = if value.is_ok() { values.byte_offset() } else { text.len() };
        // What is between two values belongs to the second, and is left out of it, so that its first line is its own.
        let gap = text[start..end].len() - text[start..end].trim_start().len();
        lines_before += newlines(&text[start..start + gap]);
        parts.push(Document { text: &text[start + gap..end], lines_before });
        lines_before += newlines(&text[start + gap..end]);
        start = end;
    }
    (parts.len() > 1).then_some(parts)
}

fn newlines(text: &str) -> u32 {
    u32::try_from(text.matches('\n').count()).expect("a text of at most some megabytes")
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
        Err(error) => match concatenated(document) {
            Some(parts) => parts.into_iter().filter_map(one).collect(),
            None => by_item(document).unwrap_or_else(|| vec![Part::Broken(document, error)]),
        },
    }
}

fn one(document: Document<'_>) -> Option<Part<'_>> {
    match crd::parse(document.text, document.lines_before) {
        Ok(node) => node.map(|node| Part::Object(node, None)),
        Err(error) => Some(Part::Broken(document, error)),
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
    let here = document.text.lines().nth(line)?;
    let before = document.text.lines().take(line).filter(|line| !line.trim().is_empty()).last();
    let indent = |l: &str| l.len() - l.trim_start().len();
    if here.trim_start_matches(' ').starts_with('\t') {
        return Some("indent with spaces, not with tabs".to_owned());
    }
    let (key, value) = before?.trim().split_once(':')?;
    let deeper = indent(here) > indent(before?);
    if let Some(open) = unclosed(value).filter(|_| !deeper && here.contains(':')) {
        return Some(format!("close the `{open}` of `{}`", key.trim_start_matches("- ")));
    }
    if !deeper || !here.contains(':') || value.trim().is_empty() {
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

/// The bracket that a value begins with and does not close in its line, unless it is one that goes on in the next.
fn unclosed(value: &str) -> Option<char> {
    let (mut open, mut quote) = (Vec::new(), None);
    // The character before, and the one before that is no space.
    let (mut before, mut last) = (' ', ' ');
    for c in value.trim().chars() {
        match (quote, c) {
            // What a backslash takes means nothing, a second backslash neither.
            (Some('"'), _) if before == '\\' => {
                before = ' ';
                continue;
            }
            (Some(end), _) if c == end => quote = None,
            (None, '#') if before.is_whitespace() => break,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => open.push(c),
            (None, ']' | '}') => drop(open.pop()),
            (None, _) if open.is_empty() && last == ' ' => return None,
            _ => {}
        }
        before = c;
        if !c.is_whitespace() {
            last = c;
        }
    }
    let goes_on = quote.is_some() || matches!(last, ',' | '[' | '{');
    open.first().copied().filter(|_| !goes_on)
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
    fn values_of_json_behind_each_other_are_documents_and_a_broken_one_hides_none() {
        let text = "{\"kind\": \"A\",\n \"b\": 1}\n\n{\"kind\": \"B\"} {\"kind\": \"C\"}\n{\"kind\": ";
        let parts = read(Document { text, lines_before: 10 });
        let told: Vec<String> = parts
            .iter()
            .map(|part| match part {
                Part::Object(node, _) => format!("{} {:?}", node.mark.line, node.get("kind").and_then(Node::text)),
                Part::Broken(document, error) => format!("{} {:?}", error.mark.line, document.text),
            })
            .collect();
        assert_eq!(told[..3], ["11 Some(\"A\")", "14 Some(\"B\")", "14 Some(\"C\")"]);
        assert!(told.len() == 4 && told[3].starts_with("15 "), "{told:?}");
        assert!(matches!(&*read(Document { text: "{a: 1} {b: 2}", lines_before: 0 }), [Part::Broken(..)]));
    }

    #[test]
    fn a_byte_order_mark_begins_any_document() {
        let text = "\u{feff}a: 1\n---\n\u{feff}b: 2\n\u{feff}---\nc: 3\n";
        let found: Vec<_> = split(text).iter().map(|d| (d.text, d.lines_before)).collect();
        assert_eq!(found, [("a: 1\n", 0), ("b: 2\n", 2), ("---\nc: 3\n", 3)]);
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
