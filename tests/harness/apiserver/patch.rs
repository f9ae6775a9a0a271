//! The patch formats: JSON merge patch, JSON patch, strategic merge patch, and server-side apply in a simple form.
//! Called by `write`.

use serde_json::Value;

use super::object::Fields;
use super::status::Status;

/// How a patch is meant, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Merge,
    Strategic,
    /// Creates what is missing; field ownership is not kept, so nothing ever conflicts.
    Apply,
}

impl Format {
    /// # Errors
    /// 415 for another content type.
    pub(super) fn of(content_type: &str) -> Result<Self, Status> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            other => Err(Status::new(415, &format!("the body of the request was in an unknown format: {other:?}"))),
        }
    }
}

/// Applies a patch to an object, `custom` being one whose lists have no merge keys.
///
/// # Errors
/// 400 when the patch cannot be read, 415 for a strategic merge patch of a custom resource, 422 when it does not fit.
pub(super) fn apply(format: Format, custom: bool, object: Fields, patch: Value) -> Result<Fields, Status> {
    let mut value = Value::Object(object);
    match format {
        Format::Json => {
            let patch: json_patch::Patch = serde_json::from_value(patch)
                .map_err(|e| Status::bad_request(&format!("error decoding patch: {e}")))?;
            json_patch::patch(&mut value, &patch).map_err(|e| Status::invalid(&e.to_string()))?;
        }
        Format::Strategic if custom => {
            return Err(Status::new(415, "strategic merge patch is not supported for custom resources"));
        }
        Format::Merge => json_patch::merge(&mut value, &patch),
        Format::Apply if custom => json_patch::merge(&mut value, &patch),
        Format::Apply | Format::Strategic => strategic(&mut value, patch, ""),
    }
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(Status::invalid("the patch leaves no object")),
    }
}

/// Lists of objects that are merged item by item, and by which keys (the first that every item has).
const MERGE_KEYS: &[(&str, &[&str])] = &[
    ("conditions", &["type"]),
    ("containers", &["name"]),
    ("env", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("hostAliases", &["ip"]),
    ("imagePullSecrets", &["name"]),
    ("initContainers", &["name"]),
    ("ownerReferences", &["uid"]),
    ("podIPs", &["ip"]),
    ("ports", &["port", "containerPort"]),
    ("secrets", &["name"]),
    ("subjects", &[]),
    ("volumeMounts", &["mountPath"]),
    ("volumes", &["name"]),
];

/// Lists of plain values to which a patch adds.
const MERGED_PLAIN: &[&str] = &["finalizers"];

const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

fn strategic(target: &mut Value, patch: Value, name: &str) {
    match patch {
        Value::Object(fields) => strategic_object(target, fields),
        Value::Array(items) => strategic_list(target, items, name),
        plain => *target = plain,
    }
}

fn strategic_object(target: &mut Value, mut patch: Fields) {
    if patch.remove("$patch").is_some_and(|d| d == "replace") || !target.is_object() {
        *target = Value::Object(Fields::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(kept) = fields.get_mut(list).and_then(Value::as_array_mut) {
                kept.retain(|item| !gone.contains(item));
            }
        } else if key.starts_with('$') {
            // Directives about order and unions: they change nothing that a consumer of this server looks at.
        } else if value.is_null() {
            fields.remove(&key);
        } else {
            strategic(fields.entry(key.as_str()).or_insert(Value::Null), value, &key);
        }
    }
}

fn strategic_list(target: &mut Value, items: Vec<Value>, name: &str) {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Some(list) = target.as_array_mut() else { return };
    if MERGED_PLAIN.contains(&name) {
        for item in items {
            if !list.contains(&item) {
                list.push(item);
            }
        }
        return;
    }
    let keys = MERGE_KEYS.iter().find(|(list, _)| *list == name).map_or(&[][..], |(_, keys)| keys);
    let replaces = items.iter().any(|i| i["$patch"] == "replace");
    let all = |key: &str| items.iter().chain(list.iter()).all(|i| !i[key].is_null() || i["$patch"].is_string());
    let key = keys.iter().find(|key| all(key)).filter(|_| !replaces);
    let Some(key) = key else {
        *list = items.into_iter().filter(|i| !i["$patch"].is_string()).collect();
        return;
    };
    for item in items {
        let found = list.iter().position(|old| old[key] == item[key]);
        match (item["$patch"] == "delete", found) {
            (true, Some(at)) => drop(list.remove(at)),
            (true, None) => {}
            (false, Some(at)) => strategic(&mut list[at], item, ""),
            (false, None) => {
                let mut fresh = Value::Null;
                strategic(&mut fresh, item, "");
                list.push(fresh);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(format: Format, custom: bool, object: &Value, patch: Value) -> Result<Value, u16> {
        let fields = object.as_object().expect("an object").clone();
        apply(format, custom, fields, patch).map(Value::Object).map_err(|s| s.code)
    }

    #[test]
    fn a_strategic_patch_merges_lists_by_their_keys() {
        let old = json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81}], "x": [1, 2]}, "a": 1});
        let patch = json!({"spec": {"ports": [{"port": 81, "name": "b"}, {"port": 80, "$patch": "delete"}, {"port": 82}],
                           "$setElementOrder/ports": [{"port": 81}], "x": [3]}, "a": null});
        let new = json!({"spec": {"ports": [{"port": 81, "name": "b"}, {"port": 82}], "x": [3]}});
        assert_eq!(patched(Format::Strategic, false, &old, patch), Ok(new));
        assert_eq!(patched(Format::Strategic, true, &old, json!({})), Err(415));
    }

    #[test]
    fn primitive_lists_can_be_added_to_and_taken_from() {
        let old = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
        assert_eq!(patched(Format::Strategic, false, &old, patch), Ok(json!({"metadata": {"finalizers": ["b", "c"]}})));
    }

    #[test]
    fn a_json_patch_that_does_not_fit_is_refused() {
        let old = json!({"a": {"b": 1}});
        let op = |op: &str, path: &str| json!([{"op": op, "path": path, "value": 2}]);
        assert_eq!(patched(Format::Json, true, &old, op("replace", "/a/b")), Ok(json!({"a": {"b": 2}})));
        assert_eq!(patched(Format::Json, true, &old, op("test", "/a/b")), Err(422));
        assert_eq!(patched(Format::Json, true, &old, json!({"op": 1})), Err(400));
    }
}
