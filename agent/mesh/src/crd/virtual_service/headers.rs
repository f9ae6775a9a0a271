//! Changes of headers, of a rule and of a destination.

use ::http::header::{HeaderName, HeaderValue};

use crate::crd::Notes;
use crate::crd::fields::{Fault, Fields};
use crate::crd::node::Mark;
use crate::finding::Severity;
use crate::program::{HeaderChanges, HeaderOperations};

/// `headers: {request: …, response: …}`
pub(super) fn operations(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<HeaderOperations, Fault> {
    Ok(HeaderOperations { request: changes(fields, "request", notes)?, response: changes(fields, "response", notes)? })
}

fn changes(fields: &mut Fields<'_>, side: &str, notes: &mut Notes<'_>) -> Result<HeaderChanges, Fault> {
    let Some(mut block) = fields.map(side)? else {
        return Ok(HeaderChanges::default());
    };
    let mut authority = None;
    let set = pairs(&mut block, "set", notes, &mut authority)?;
    let add = pairs(&mut block, "add", notes, &mut authority)?;
    let path = block.path_of("remove");
    let names = block.texts("remove")?.into_iter();
    let remove = names.filter_map(|(name, mark)| header_name(name, mark, &path, notes)).collect();
    Ok(HeaderChanges { set, add, remove, authority })
}

fn pairs(
    block: &mut Fields<'_>,
    key: &str,
    notes: &mut Notes<'_>,
    authority: &mut Option<HeaderValue>,
) -> Result<Box<[(HeaderName, HeaderValue)]>, Fault> {
    let path = block.path_of(key);
    let mark = block.entry(key).map_or(block.mark, |entry| entry.mark);
    let mut pairs = Vec::new();
    for (name, value) in block.text_map(key)? {
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| Fault::new(mark, format!("{path}.{name}"), "holds control characters"))?;
        if is_authority(name) {
            *authority = Some(value);
        } else if let Some(name) = header_name(name, mark, &path, notes) {
            pairs.push((name, value));
        }
    }
    Ok(pairs.into())
}

/// The header that names the host.
fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

/// A header of any other name than HTTP allows can neither be sent nor come.
fn header_name(name: &str, mark: Mark, path: &str, notes: &mut Notes<'_>) -> Option<HeaderName> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    if parsed.is_none() {
        notes.unsupported(Severity::Warning, mark, &format!("{path}.{name}"), "no header can have this name");
    }
    parsed
}
