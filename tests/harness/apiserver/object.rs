//! An object as the server keeps it, in bytes, and the shapes in which it is given out. Serialised once when written,
//! so that a list or a watch event is a copy.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::resources::{EVENTS_GROUP, Resource};

/// Namespace (empty for what has none) and name.
pub(super) type Key = (Arc<str>, Arc<str>);

/// A JSON object.
pub(super) type Fields = Map<String, Value>;

/// One state of an object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) key: Key,
    pub(super) rv: u64,
    pub(super) labels: Box<[(Box<str>, Box<str>)]>,
    /// Values of the resource's selectable fields, in their order.
    pub(super) fields: Box<[Box<str>]>,
    /// Everything behind `apiVersion` and `kind`: `"metadata":{…},…}`. So a version is a matter of the head.
    rest: Bytes,
}

impl Object {
    /// Freezes a state. `value` carries its resource version already; `apiVersion` and `kind` are dropped.
    pub(super) fn new(resource: &Resource, key: Key, rv: u64, mut value: Fields) -> Self {
        value.remove("apiVersion");
        value.remove("kind");
        let labels = value.get("metadata").and_then(|m| m.get("labels")).and_then(Value::as_object);
        let labels = labels.into_iter().flatten();
        let labels = labels.filter_map(|(k, v)| Some((k.as_str().into(), v.as_str()?.into()))).collect();
        let fields = resource.fields.iter().map(|path| text_at(&value, path).into()).collect();
        let whole = serde_json::to_vec(&value).expect("a JSON value has text keys only");
        Self { key, rv, labels, fields, rest: Bytes::from(whole).slice(1..) }
    }

    /// Its fields, without `apiVersion` and `kind`.
    pub(super) fn value(&self) -> Fields {
        let mut whole = Vec::with_capacity(self.rest.len() + 1);
        whole.push(b'{');
        whole.extend_from_slice(&self.rest);
        serde_json::from_slice(&whole).expect("what was serialised can be read")
    }

    /// Bytes that it takes when it is given out, without its head.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }
}

fn text_at(value: &Fields, path: &str) -> String {
    let mut keys = path.split('.');
    let first = keys.next().and_then(|key| value.get(key));
    match keys.fold(first, |at, key| at.and_then(|v| v.get(key))) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(b)) => b.to_string(),
        Some(Value::Number(n)) => n.to_string(),
        _ => String::new(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Whole,
    /// `PartialObjectMetadata`: what a client gets that asks for metadata only.
    Metadata,
    /// An event in the words of `events.k8s.io/v1`.
    Event,
}

/// How objects of a request are given out: under which version, and how much of them.
#[derive(Clone, Debug)]
pub(super) struct View {
    shape: Shape,
    /// `{"apiVersion":"v1","kind":"Pod",`
    head: String,
    /// What opens an item of a list: built-in kinds leave out their kind there, as the real server does.
    item: Cow<'static, str>,
    pub(super) api_version: String,
    pub(super) kind: Arc<str>,
}

impl View {
    /// Objects of `resource` as `version` of `group` (events have two groups), metadata only if so asked.
    pub(super) fn new(resource: &Resource, group: &str, version: &str, metadata_only: bool) -> Self {
        let (api_version, kind): (String, Arc<str>) = if metadata_only {
            ("meta.k8s.io/v1".into(), "PartialObjectMetadata".into())
        } else if group == EVENTS_GROUP {
            (format!("{group}/{version}"), Arc::clone(&resource.kind))
        } else {
            (resource.api_version(version), Arc::clone(&resource.kind))
        };
        let head = format!("{{\"apiVersion\":\"{api_version}\",\"kind\":\"{kind}\",");
        let shape = match group {
            _ if metadata_only => Shape::Metadata,
            EVENTS_GROUP => Shape::Event,
            _ => Shape::Whole,
        };
        let bare = !resource.custom && !metadata_only;
        let item = if bare { Cow::Borrowed("{") } else { Cow::Owned(head.clone()) };
        Self { shape, head, item, api_version, kind }
    }

    /// Appends the object.
    pub(super) fn write(&self, object: &Object, out: &mut Vec<u8>) {
        out.extend_from_slice(self.head.as_bytes());
        self.rest(object, out);
    }

    /// Appends the object as an item of a list.
    pub(super) fn write_item(&self, object: &Object, out: &mut Vec<u8>) {
        out.extend_from_slice(self.item.as_bytes());
        self.rest(object, out);
    }

    fn rest(&self, object: &Object, out: &mut Vec<u8>) {
        let value = match self.shape {
            Shape::Whole => {
                out.extend_from_slice(&object.rest);
                return;
            }
            Shape::Metadata => json!({"metadata": object.value().remove("metadata")}),
            Shape::Event => Value::Object(to_events_v1(object.value())),
        };
        let whole = serde_json::to_vec(&value).expect("a JSON value has text keys only");
        out.extend_from_slice(&whole[1..]);
    }

    /// What a client sent under this view, in the words in which it is stored.
    pub(super) fn to_stored(&self, value: Fields) -> Fields {
        if self.shape == Shape::Event { to_core(value) } else { value }
    }

    /// The stored object as the client of this view knows it, to apply its patch to.
    pub(super) fn to_shown(&self, value: Fields) -> Fields {
        let mut value = if self.shape == Shape::Event { to_events_v1(value) } else { value };
        value.insert("apiVersion".into(), self.api_version.as_str().into());
        value.insert("kind".into(), (&*self.kind).into());
        value
    }
}

/// Names of the same thing in `v1` and in `events.k8s.io/v1`.
const EVENT_NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn to_events_v1(value: Fields) -> Fields {
    rename(value, |name| EVENT_NAMES.iter().find(|(core, _)| *core == name).map(|(_, new)| *new))
}

fn to_core(value: Fields) -> Fields {
    rename(value, |name| EVENT_NAMES.iter().find(|(_, new)| *new == name).map(|(core, _)| *core))
}

fn rename(value: Fields, other: impl Fn(&str) -> Option<&'static str>) -> Fields {
    value.into_iter().map(|(k, v)| (other(&k).map_or(k, str::to_owned), v)).collect()
}
