//! create, update, patch, delete, and the harness's own way in, which may write everything. Called by `serve` and by
//! `command`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admit;
use super::object::{Fields, Key, Object, View};
use super::patch::{self, Format};
use super::read::render;
use super::request::Target;
use super::resources::{self, CRDS, Resource};
use super::status::Status;
use super::store::Store;

/// An HTTP code and a body.
pub(super) type Written = (u16, Vec<u8>);

/// Stores a new object.
///
/// # Errors
/// 400 for what contradicts the path, 404 without its namespace, 409 when it is there, 422 without a name.
pub(super) fn create(store: &mut Store, target: &Target, body: Fields) -> Result<Written, Status> {
    let resource = &target.resource;
    let mut value = target.view.to_stored(fits(target, body)?);
    if !admit::meta(&value, "resourceVersion").is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let prefix = admit::meta(&value, "generateName").to_owned();
    if admit::meta(&value, "name").is_empty() && target.name.is_none() {
        if prefix.is_empty() {
            return Err(Status::invalid("metadata.name: Required value: name or generateName is required"));
        }
        admit::metadata(&mut value).insert("name".into(), format!("{prefix}{:05x}", admit::serial()).into());
    }
    let name = target.name.clone().unwrap_or_else(|| admit::meta(&value, "name").into());
    let key = place(store, resource, target.namespace.clone(), name, &mut value)?;
    let taken = store.table(&resource.id).is_some_and(|t| t.get(&key).is_some());
    if taken {
        return Err(Status::already_exists(target.id(), &key.1));
    }
    if resource.versions.iter().any(|v| v.status) && &*resource.id != "nodes" {
        value.remove("status");
    }
    admit::create(resource, &mut value);
    manage(target, &mut value);
    admit::defaults(store, resource, &mut value)?;
    Ok((201, commit(store, target, key, value)?))
}

/// Replaces an object, or its status.
///
/// # Errors
/// 404 when it is not there, 409 when it has changed since it was read.
pub(super) fn update(store: &mut Store, target: &Target, body: Fields) -> Result<Written, Status> {
    let old = existing(store, target)?.ok_or_else(|| target.not_found())?;
    let new = target.view.to_stored(fits(target, body)?);
    if target.resource.custom && admit::meta(&new, "resourceVersion").is_empty() {
        let why = "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
        return Err(Status::invalid(why));
    }
    replace(store, target, &old, new)
}

/// Changes an object by a patch; an apply patch creates what is missing.
///
/// # Errors
/// Those of the patch, and those of an update.
pub(super) fn patch(store: &mut Store, target: &Target, format: Format, body: Value) -> Result<Written, Status> {
    let Some(old) = existing(store, target)? else {
        return match body {
            Value::Object(fields) if format == Format::Apply && target.subresource.is_none() => {
                create(store, target, fields)
            }
            _ => Err(target.not_found()),
        };
    };
    let shown = target.view.to_shown(old.value());
    let new = patch::apply(format, target.resource.custom, shown, body)?;
    let new = target.view.to_stored(fits(target, new)?);
    replace(store, target, &old, new)
}

/// Deletes an object, or marks it where finalizers or a grace period hold it.
///
/// # Errors
/// 404 when it is not there, 409 when it is not the one that is meant.
pub(super) fn delete(store: &mut Store, target: &Target, options: &Value) -> Result<Written, Status> {
    let old = existing(store, target)?.ok_or_else(|| target.not_found())?;
    let value = old.value();
    let wanted = &options["preconditions"];
    for (field, is) in
        [("uid", admit::meta(&value, "uid")), ("resourceVersion", admit::meta(&value, "resourceVersion"))]
    {
        if wanted[field].as_str().is_some_and(|w| w != is) {
            let why = format!("Precondition failed: {field} in precondition: {}, in object meta: {is}", wanted[field]);
            return Err(Status::conflict(target.id(), &old.key.1, &why));
        }
    }
    if target.query.dry_run {
        return Ok((200, render(&target.view, &old)));
    }
    let grace = options["gracePeriodSeconds"].as_u64().unwrap_or_default();
    let lingers = target.id() == "pods" && grace > 0;
    if lingers || has_finalizers(&value) {
        let marked = if admit::meta(&value, "deletionTimestamp").is_empty() {
            mark_deleted(store, target.id(), &old, grace)?
        } else {
            old
        };
        return Ok((200, render(&target.view, &marked)));
    }
    erase(store, target.id(), &old.key);
    let uid = value.get("metadata").map_or(Value::Null, |m| m["uid"].clone());
    let details = json!({"name": &*old.key.1, "group": &*target.resource.group, "kind": &*target.resource.plural,
                         "uid": uid});
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok((200, done.to_string().into_bytes()))
}

/// Deletes everything that a request selects, and gives what was deleted as a list.
///
/// # Errors
/// 404 when the resource is served no longer.
pub(super) fn delete_collection(store: &mut Store, target: &Target, options: &Value) -> Result<Written, Status> {
    let table = store.table(target.id()).ok_or_else(Status::no_such_path)?;
    let inside = |o: &Object| target.namespace.as_ref().is_none_or(|ns| *ns == o.key.0);
    let selected: Vec<Arc<Object>> =
        table.objects().filter(|o| inside(o) && target.selector.matches(o)).map(Arc::clone).collect();
    let mut items = Vec::new();
    for object in selected {
        let namespace = target.resource.namespaced.then(|| Arc::clone(&object.key.0));
        let one = Target { namespace, name: Some(Arc::clone(&object.key.1)), ..target.clone() };
        delete(store, &one, options)?;
        let mut item = Vec::new();
        target.view.write_item(&object, &mut item);
        items.push(String::from_utf8_lossy(&item).into_owned());
    }
    let head = json!({"resourceVersion": store.rv().to_string()});
    let (kind, version) = (&target.view.kind, &target.view.api_version);
    let list = format!(
        "{{\"kind\":\"{kind}List\",\"apiVersion\":\"{version}\",\"metadata\":{head},\"items\":[{}]}}",
        items.join(",")
    );
    Ok((200, list.into_bytes()))
}

/// The harness's own way in: stores a document as it is written, status included, over whatever is there. Its namespace
/// is made where it is missing. Gives the resource version.
///
/// # Errors
/// 404 for a kind that is not served, 422 without a name.
pub(super) fn put_whole(store: &mut Store, document: Value) -> Result<u64, Status> {
    let (resource, view) = kind_of(store, &document)?;
    let Value::Object(fields) = document else { return Err(Status::bad_request("the document is no object")) };
    let mut value = view.to_stored(fields);
    let name: Arc<str> = admit::meta(&value, "name").into();
    if name.is_empty() {
        return Err(Status::invalid("metadata.name: Required value"));
    }
    let namespace = match admit::meta(&value, "namespace") {
        _ if !resource.namespaced => None,
        "" => Some(Arc::from("default")),
        namespace => Some(Arc::from(namespace)),
    };
    if let Some(namespace) = &namespace {
        ensure_namespace(store, namespace)?;
    }
    let key = place(store, &resource, namespace, name, &mut value)?;
    let old = store.table(&resource.id).and_then(|t| t.get(&key)).map(Arc::clone);
    if let Some(old) = &old {
        let mut was = old.value();
        admit::update(&resource, &was, &mut value);
        if !value.contains_key("status")
            && let Some(status) = was.remove("status")
        {
            value.insert("status".into(), status);
        }
        keep_address(&resource, &was, &mut value);
    } else {
        admit::create(&resource, &mut value);
    }
    admit::defaults(store, &resource, &mut value)?;
    if let Some(old) = old.filter(|old| same(&old.value(), &value)) {
        return Ok(old.rv);
    }
    settle(store, &resource, key, value).map(|o| o.rv)
}

/// The harness's own way to delete: at once, whatever holds the object.
///
/// # Errors
/// 404 for a kind that is not served or an object that is not there.
pub(super) fn delete_whole(store: &mut Store, id: &str, namespace: &str, name: &str) -> Result<u64, Status> {
    let table = store.table(id).ok_or_else(Status::no_such_path)?;
    let key: Key = (if table.resource.namespaced { namespace.into() } else { "".into() }, name.into());
    if table.get(&key).is_none() {
        return Err(Status::not_found(id, name));
    }
    erase(store, id, &key);
    Ok(store.rv())
}

/// The resource that a document belongs to.
fn kind_of(store: &Store, document: &Value) -> Result<(Arc<Resource>, View), Status> {
    let api_version = document["apiVersion"].as_str().unwrap_or_default();
    let kind = document["kind"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let stored_group = if group == resources::EVENTS_GROUP { "" } else { group };
    let fits = |r: &Resource| *r.group == *stored_group && *r.kind == *kind && r.version(version).is_some();
    let table = store.tables().into_iter().find(|t| fits(&t.resource));
    let table = table.ok_or_else(|| Status::new(404, &format!("no matches for kind {kind:?} in {api_version:?}")))?;
    Ok((Arc::clone(&table.resource), View::new(&table.resource, group, version, false)))
}

/// The document must be of the kind that the path names.
fn fits(target: &Target, value: Fields) -> Result<Fields, Status> {
    let expected = [("apiVersion", target.view.api_version.as_str()), ("kind", &target.view.kind)];
    for (field, is) in expected {
        match value.get(field) {
            None => {}
            Some(Value::String(text)) if text == is => {}
            Some(other) => {
                let why = format!("the {field} in the data ({other}) does not match the expected {field} ({is})");
                return Err(Status::bad_request(&why));
            }
        }
    }
    Ok(value)
}

fn existing(store: &Store, target: &Target) -> Result<Option<Arc<Object>>, Status> {
    let table = store.table(target.id()).ok_or_else(Status::no_such_path)?;
    Ok(table.get(&target.key()?).map(Arc::clone))
}

/// Writes name and namespace into the metadata, and gives the key.
fn place(
    store: &Store,
    resource: &Resource,
    namespace: Option<Arc<str>>,
    name: Arc<str>,
    value: &mut Fields,
) -> Result<Key, Status> {
    let stated = admit::meta(value, "namespace").to_owned();
    let metadata = admit::metadata(value);
    match metadata.insert("name".into(), (&*name).into()) {
        Some(Value::String(other)) if other != *name => {
            return Err(Status::bad_request(&format!("the name of the object ({other}) is not {name}")));
        }
        _ => {}
    }
    if !resource.namespaced {
        metadata.remove("namespace");
        return Ok(("".into(), name));
    }
    let namespace = namespace.ok_or_else(|| Status::bad_request("an empty namespace may not be set"))?;
    if !stated.is_empty() && stated != *namespace {
        return Err(Status::bad_request("the namespace of the provided object does not match the namespace sent"));
    }
    metadata.insert("namespace".into(), (&*namespace).into());
    let there = store.table("namespaces").is_some_and(|t| t.get(&("".into(), Arc::clone(&namespace))).is_some());
    if there { Ok((namespace, name)) } else { Err(Status::not_found("namespaces", &namespace)) }
}

/// Makes a namespace where it is missing.
pub(super) fn ensure_namespace(store: &mut Store, name: &str) -> Result<(), Status> {
    if store.table("namespaces").is_some_and(|t| t.get(&("".into(), name.into())).is_some()) {
        return Ok(());
    }
    put_whole(store, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).map(drop)
}

/// The way of an update, a patch and a write of the status: preconditions, then what may be changed is.
fn replace(store: &mut Store, target: &Target, old: &Arc<Object>, mut new: Fields) -> Result<Written, Status> {
    let resource = &target.resource;
    let mut was = old.value();
    for field in ["resourceVersion", "uid"] {
        let (stated, is) = (admit::meta(&new, field), admit::meta(&was, field));
        if !stated.is_empty() && stated != is {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(Status::conflict(target.id(), &old.key.1, why));
        }
    }
    if target.subresource.is_some() {
        let status = new.remove("status");
        new.clone_from(&was);
        new.remove("status");
        new.extend(status.map(|s| ("status".to_owned(), s)));
    } else if resource.versions.iter().any(|v| v.status) {
        new.remove("status");
        if let Some(status) = was.get("status") {
            new.insert("status".into(), status.clone());
        }
    }
    let key = place(store, resource, target.namespace.clone(), Arc::clone(&old.key.1), &mut new)?;
    admit::update(resource, &was, &mut new);
    keep_address(resource, &was, &mut new);
    admit::defaults(store, resource, &mut new)?;
    if !admit::meta(&new, "deletionTimestamp").is_empty() && !has_finalizers(&new) && has_finalizers(&was) {
        erase(store, target.id(), &key);
        return Ok((200, render(&target.view, old)));
    }
    if same(&was, &new) {
        return Ok((200, render(&target.view, old)));
    }
    was.clear();
    manage(target, &mut new);
    Ok((200, commit(store, target, key, new)?))
}

/// An address that a Service was given is its own for life.
fn keep_address(resource: &Resource, was: &Fields, new: &mut Fields) {
    if &*resource.id != "services" {
        return;
    }
    let Some(spec) = new.get_mut("spec").filter(|s| s.is_object()) else { return };
    if spec["clusterIP"].is_null() {
        for field in ["clusterIP", "clusterIPs", "ipFamilies"] {
            if let Some(value) = was.get("spec").and_then(|s| s.get(field)) {
                spec[field] = value.clone();
            }
        }
    }
}

/// Whether two states differ in nothing but bookkeeping.
fn same(a: &Fields, b: &Fields) -> bool {
    let bare = |v: &Fields| {
        let mut v = v.clone();
        for field in ["apiVersion", "kind"] {
            v.remove(field);
        }
        for field in ["resourceVersion", "managedFields"] {
            admit::metadata(&mut v).remove(field);
        }
        v
    };
    bare(a) == bare(b)
}

/// Notes who wrote last, one entry for each manager, without saying which fields.
fn manage(target: &Target, value: &mut Fields) {
    let manager = if target.query.manager.is_empty() { "unknown" } else { &target.query.manager };
    let entry = json!({"manager": manager, "operation": "Update", "apiVersion": target.view.api_version,
                       "time": admit::now(), "fieldsType": "FieldsV1", "fieldsV1": {}});
    let managed = admit::metadata(value).entry("managedFields").or_insert_with(|| json!([]));
    match managed.as_array_mut() {
        Some(entries) => {
            entries.retain(|e| e["manager"] != manager);
            entries.push(entry);
        }
        None => *managed = json!([entry]),
    }
}

/// Stores, unless it is a dry run, and gives the bytes as the client sees them.
fn commit(store: &mut Store, target: &Target, key: Key, value: Fields) -> Result<Vec<u8>, Status> {
    if target.query.dry_run {
        let object = Object::new(&target.resource, key, store.rv(), value);
        return Ok(render(&target.view, &object));
    }
    settle(store, &target.resource, key, value).map(|object| render(&target.view, &object))
}

/// Stores, and does what follows: a definition is served at once.
fn settle(store: &mut Store, resource: &Resource, key: Key, value: Fields) -> Result<Arc<Object>, Status> {
    let defined = (&*resource.id == CRDS).then(|| resources::custom(&Value::Object(value.clone()))).transpose()?;
    let object = store.put(&resource.id, key, value).ok_or_else(Status::no_such_path)?;
    if let Some(defined) = defined {
        store.serve(defined);
    }
    Ok(object)
}

/// Deletes, and what goes with it: a namespace's content, the objects of a definition.
fn erase(store: &mut Store, id: &str, key: &Key) {
    if id == CRDS {
        store.withdraw(&key.1);
    }
    if id == "namespaces" {
        let inside: Vec<(Arc<str>, Key)> = store
            .tables()
            .into_iter()
            .flat_map(|t| t.inside(&key.1).map(|o| (Arc::clone(&t.resource.id), o.key.clone())))
            .filter(|(_, k)| !k.0.is_empty())
            .collect();
        for (id, key) in inside {
            store.remove(&id, &key);
        }
    }
    store.remove(id, key);
}

fn has_finalizers(value: &Fields) -> bool {
    let finalizers = value.get("metadata").and_then(|m| m["finalizers"].as_array());
    finalizers.is_some_and(|f| !f.is_empty())
}

fn mark_deleted(store: &mut Store, id: &str, old: &Object, grace: u64) -> Result<Arc<Object>, Status> {
    let mut value = old.value();
    let metadata = admit::metadata(&mut value);
    metadata.insert("deletionTimestamp".into(), admit::now().into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    store.put(id, old.key.clone(), value).ok_or_else(Status::no_such_path)
}
