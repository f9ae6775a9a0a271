//! A whole file: its documents, the lists among them, and what is wrong with each object. Called by `weir validate`.

use std::sync::Arc;

use super::{object, of_fault};
use crate::crd::{self, Header, Kind, Node};
use crate::finding::{Finding, Severity, code};
use crate::store::documents::{self, Part};

/// What became of one file.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// In the order of the text.
    pub findings: Vec<Finding>,
    /// Objects that were looked at, whatever became of them; those of kinds that nobody checks included.
    pub objects: usize,
}

/// Everything that is wrong with the objects of a text, which is YAML or JSON, of one or more documents. One that
/// cannot be read hides none of the others.
pub fn text(file: &Arc<str>, text: &str) -> Checked {
    let mut checked = Checked::default();
    if text.len() > crate::store::MAX_FILE_BYTES {
        let message = format!("the file has more than the {} bytes that are read", crate::store::MAX_FILE_BYTES);
        checked.findings.push(about_file(file, crd::Mark::default(), message, None));
        return checked;
    }
    for document in documents::split(text) {
        for part in documents::read(document) {
            match part {
                Part::Object(node, within) => one(&mut checked, file, &node, within.as_ref()),
                Part::Broken(document, error) => {
                    let help = documents::hint(document, &error);
                    checked.findings.push(about_file(file, error.mark, format!("no YAML: {}", error.message), help));
                }
            }
        }
    }
    checked
}

fn about_file(file: &Arc<str>, mark: crd::Mark, message: String, help: Option<String>) -> Finding {
    Finding { severity: Severity::Error, code: code::SYNTAX, object: None, at: Some(mark.in_file(file)), message, help }
}

fn one(checked: &mut Checked, file: &Arc<str>, node: &Node, within: Option<&Header>) {
    if let Some(what) = within.is_none().then(|| crd::no_object(node, file)).flatten() {
        checked.findings.push(crd::passed_over(what, node.mark.in_file(file)));
        return;
    }
    let header = match crd::header(node, within) {
        Ok(header) => header,
        Err(fault) => {
            checked.objects += 1;
            checked.findings.push(of_fault(&fault, None, Some(file)));
            checked.findings.extend(super::unnamed(node, &fault, file));
            return;
        }
    };
    if header.kind != Kind::List {
        checked.objects += 1;
        checked.findings.extend(object(node, &header, Some(file)));
        return;
    }
    match crd::items(node) {
        Ok(items) => items.iter().for_each(|item| one(checked, file, item, Some(&header))),
        Err(fault) => checked.findings.push(of_fault(&fault, None, Some(file))),
    }
}
