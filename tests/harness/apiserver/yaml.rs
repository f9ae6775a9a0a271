//! YAML as clients and tests write it, as JSON values.

use anyhow::{Context, Result};
use serde_json::Value;

/// One document.
///
/// # Errors
/// When it is no YAML.
pub(super) fn one(text: &str) -> Result<Value> {
    serde_saphyr::from_str(text).context("the text is no YAML")
}

/// Every document of a text, empty ones left out and lists taken apart.
///
/// # Errors
/// When one of them is no YAML.
pub(super) fn all(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("the text is no YAML")?;
    let mut found = Vec::new();
    for mut document in documents.into_iter().filter(|d| !d.is_null()) {
        let is_list = document["kind"].as_str().is_some_and(|k| k.ends_with("List")) && document["items"].is_array();
        match document["items"].take() {
            Value::Array(items) if is_list => found.extend(items),
            items => {
                if !items.is_null() {
                    document["items"] = items;
                } else if let Some(fields) = document.as_object_mut() {
                    fields.remove("items");
                }
                found.push(document);
            }
        }
    }
    Ok(found)
}
