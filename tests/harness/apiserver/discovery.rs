//! What a client may ask about the server itself: its groups, versions and resources, its health and its version.
//! Called by `serve`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::resources::{EVENTS_GROUP, Resource};
use super::store::Store;

/// The version that the server says it is.
const GIT_VERSION: &str = "v1.33.0";

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

/// The answer to a path that is not about objects, `None` when there is none.
pub(super) fn answer(store: &Store, path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => Some(Value::String("ok".into())),
        ["version"] => {
            let (major, minor) = ("1", "33");
            Some(json!({"major": major, "minor": minor, "gitVersion": GIT_VERSION, "platform": "linux/amd64"}))
        }
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => {
            let groups = groups(store);
            let groups: Vec<Value> = groups.iter().map(|(name, versions)| group(name, versions)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["api", "v1"] => resources(store, "", "v1"),
        ["apis", name] => {
            let groups = groups(store);
            let mut found = group(name, groups.get(*name)?);
            found["kind"] = "APIGroup".into();
            found["apiVersion"] = "v1".into();
            Some(found)
        }
        ["apis", name, version] => resources(store, name, version),
        // Clients that validate by schema find that there is none.
        ["openapi", "v3"] => Some(json!({"paths": {}})),
        _ => None,
    }
}

/// Served groups with their versions, the preferred first.
fn groups(store: &Store) -> BTreeMap<String, Vec<Arc<str>>> {
    let mut groups: BTreeMap<String, Vec<Arc<str>>> = BTreeMap::new();
    groups.insert(EVENTS_GROUP.into(), vec!["v1".into()]);
    for table in store.tables() {
        let resource = &table.resource;
        if resource.group.is_empty() {
            continue;
        }
        let versions = groups.entry(resource.group.to_string()).or_default();
        for version in resource.versions.iter().filter(|v| v.served) {
            if !versions.contains(&version.name) {
                versions.push(Arc::clone(&version.name));
            }
        }
    }
    groups.retain(|_, versions| !versions.is_empty());
    for versions in groups.values_mut() {
        versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
    }
    groups
}

/// Stable before beta before alpha, higher before lower.
fn priority(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse().unwrap_or_default();
    let rest = version.strip_prefix('v').unwrap_or(version);
    if let Some((major, minor)) = rest.split_once("beta") {
        (1, number(major), number(minor))
    } else if let Some((major, minor)) = rest.split_once("alpha") {
        (0, number(major), number(minor))
    } else {
        (2, number(rest), 0)
    }
}

fn group(name: &str, versions: &[Arc<str>]) -> Value {
    let named = |v: &Arc<str>| json!({"groupVersion": format!("{name}/{v}"), "version": &**v});
    let versions: Vec<Value> = versions.iter().map(named).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn resources(store: &Store, group: &str, version: &str) -> Option<Value> {
    let mut rows = Vec::new();
    for table in store.tables() {
        let resource = &table.resource;
        let alias = group == EVENTS_GROUP && &*resource.id == "events";
        if *resource.group != *group && !alias {
            continue;
        }
        let Some(served) = resource.version(version) else { continue };
        rows.push(row(resource, "", VERBS));
        if served.status {
            rows.push(row(resource, "/status", STATUS_VERBS));
        }
    }
    if rows.is_empty() {
        return None;
    }
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": rows}))
}

fn row(resource: &Resource, subresource: &str, verbs: &[&str]) -> Value {
    let short: Vec<&str> = resource.short.iter().map(|s| &**s).collect();
    let mut row = json!({
        "name": format!("{}{subresource}", resource.plural), "singularName": &*resource.singular,
        "namespaced": resource.namespaced, "kind": &*resource.kind, "verbs": verbs,
    });
    if subresource.is_empty() && !short.is_empty() {
        row["shortNames"] = json!(short);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut versions = ["v1alpha3", "v1", "v2beta1", "v1beta1", "v2"];
        versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
        assert_eq!(versions, ["v2", "v1", "v2beta1", "v1beta1", "v1alpha3"]);
    }
}
