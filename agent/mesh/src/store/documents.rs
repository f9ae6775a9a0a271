//! Cuts a file into its YAML documents, so that a broken one hides none of the others, and tells what is probably meant
//! by one that is no YAML.

use crate::crd::SyntaxError;
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
    for line in text.lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
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
    fn a_broken_text_still_tells_what_it_is_about() {
        let text =
            "kind: DestinationRule # x\nmetadata:\n  labels:\n    name: no\n  name: \"dr\"\nspec:\n  host: a\n    b: c";
        assert_eq!(guess(text), Some(("DestinationRule", None, "dr")));
        let flow = "kind: Pod\nmetadata: {name: 'p', labels: {a: b}, namespace: shop}\nspec: {";
        assert_eq!(guess(flow), Some(("Pod", Some("shop"), "p")));
        assert_eq!(guess("kind: Pod\nspec: {"), None);
    }
}
