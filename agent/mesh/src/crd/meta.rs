//! `metadata` of every kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fields::{Fault, Fields};
use super::node::Mark;
use crate::source::{Location, ObjectRef};

/// Labels, annotations or a selector, in the order of their keys. Objects have few, and there are many objects: a list
/// takes a sixth of what a tree takes for two of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Arc<str>> {
        let at = self.0.binary_search_by(|(own, _)| (**own).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// All but the one of this key.
    #[must_use]
    pub fn without(&self, key: &str) -> Self {
        self.0.iter().filter(|(own, _)| **own != *key).cloned().collect()
    }

    /// These, with other values for the keys that are given.
    #[must_use]
    pub fn with(&self, more: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) -> Self {
        self.0.iter().cloned().chain(more).collect()
    }

    /// Keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl FromIterator<(Arc<str>, Arc<str>)> for Labels {
    /// Of several values of one key the last counts.
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Arc<str>)>>(entries: I) -> Self {
        let sorted: BTreeMap<Arc<str>, Arc<str>> = entries.into_iter().collect();
        Self(sorted.into_iter().collect())
    }
}

/// What every object has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Kind, namespace and name.
    pub object: ObjectRef,
    /// `metadata.labels`
    pub labels: Arc<Labels>,
    /// `metadata.annotations`
    pub annotations: Arc<Labels>,
    /// Which one it is. A pointer, because nothing of it is kept of most objects of an API server.
    origin: Option<Box<Origin>>,
}

/// What tells an object from others of its name, as far as somebody may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Origin {
    /// Of a pod: see [`Metadata::uid`].
    uid: Option<Arc<str>>,
    /// `metadata.creationTimestamp` as written: RFC 3339 in UTC, so it sorts as text. `None` in most files.
    created: Option<Arc<str>>,
    /// Where the object begins; `None` for objects that came from no file.
    at: Option<Location>,
}

impl Metadata {
    pub(super) fn decode(root: &mut Fields<'_>, object: &ObjectRef, at: Option<Location>) -> Result<Self, Fault> {
        let mut meta = root.required_map("metadata")?;
        let created: Option<Arc<str>> = meta.text("creationTimestamp")?.map(Arc::from);
        Ok(Self {
            labels: Arc::new(labels(&mut meta, "labels")?),
            annotations: Arc::new(labels(&mut meta, "annotations")?),
            origin: (created.is_some() || at.is_some()).then(|| Box::new(Origin { created, at, uid: None })),
            ..Self::bare(object.clone(), None)
        })
    }

    /// A name, and where it stands.
    pub(super) fn bare(object: ObjectRef, at: Option<Location>) -> Self {
        let origin = at.map(|at| Box::new(Origin { at: Some(at), ..Origin::default() }));
        Self { object, labels: Arc::default(), annotations: Arc::default(), origin }
    }

    /// That of an object which is looked at as it is written.
    pub(crate) fn written(
        object: ObjectRef,
        labels: Labels,
        annotations: Labels,
        created: Option<Arc<str>>,
        at: Option<Location>,
    ) -> Self {
        Self {
            labels: Arc::new(labels),
            annotations: Arc::new(annotations),
            origin: (created.is_some() || at.is_some()).then(|| Box::new(Origin { created, at, uid: None })),
            ..Self::bare(object, None)
        }
    }

    /// The same object's, with these instead.
    pub(crate) fn labelled(&self, labels: Labels, annotations: Labels) -> Self {
        Self { labels: Arc::new(labels), annotations: Arc::new(annotations), ..self.clone() }
    }

    /// By which its node knows a pod: `metadata.uid`, or of a static pod's copy what the kubelet has written there. Empty in
    /// most files, and of the pods of other nodes.
    pub fn uid(&self) -> Arc<str> {
        self.origin.as_ref().and_then(|origin| origin.uid.clone()).unwrap_or_default()
    }

    pub(super) fn set_uid(&mut self, uid: Option<Arc<str>>) {
        self.change(|origin| origin.uid = uid);
    }

    /// Forgets the age, of a kind of which nobody asks for it.
    pub(super) fn forget_age(&mut self) {
        self.change(|origin| origin.created = None);
    }

    fn change(&mut self, change: impl FnOnce(&mut Origin)) {
        let mut origin = self.origin.take().unwrap_or_default();
        change(&mut origin);
        self.origin = (*origin != Origin::default()).then_some(origin);
    }

    /// Where the object begins; `None` for objects that came from no file.
    pub fn at(&self) -> Option<&Location> {
        self.origin.as_ref()?.at.as_ref()
    }

    /// Its namespace; empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &Arc<str> {
        &self.object.namespace
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.object.name
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(|v| &**v)
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(|v| &**v)
    }

    /// A place within the object's file; the object's own where the mark is not known.
    pub fn place(&self, mark: Mark) -> Option<Location> {
        let at = self.at()?;
        Some(if mark.line == 0 { at.clone() } else { mark.in_file(&at.file) })
    }

    /// What decides between objects that want the same: age first (objects without one are the youngest), then name,
    /// then namespace.
    pub fn seniority(&self) -> impl Ord + use<'_> {
        let created = self.origin.as_ref().and_then(|origin| origin.created.as_ref());
        (created.is_none(), created, &self.object.name, &self.object.namespace)
    }
}

/// A map of strings.
pub(super) fn labels(fields: &mut Fields<'_>, key: &str) -> Result<Labels, Fault> {
    Ok(fields.text_map(key)?.into_iter().map(|(k, v)| (Arc::from(k), Arc::from(v))).collect())
}
