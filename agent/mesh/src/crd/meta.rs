//! `metadata` of every kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fields::{Fault, Fields};
use super::node::Mark;
use crate::source::{Location, ObjectRef};

/// Labels, annotations or a selector.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// What every object has.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Kind, namespace and name.
    pub object: ObjectRef,
    /// `metadata.labels`
    pub labels: Arc<Labels>,
    /// `metadata.annotations`
    pub annotations: Arc<Labels>,
    /// `metadata.uid`; empty in most files.
    pub uid: Arc<str>,
    /// `metadata.generation`: counts the changes of the spec; 0 in most files.
    pub generation: u64,
    /// `metadata.creationTimestamp` as written: RFC 3339 in UTC, so it sorts as text. `None` in most files.
    pub created: Option<Arc<str>>,
    /// Where the object begins; `None` for objects that came from no file.
    pub at: Option<Location>,
}

impl Metadata {
    pub(super) fn decode(root: &mut Fields<'_>, object: &ObjectRef, at: Option<Location>) -> Result<Self, Fault> {
        let mut meta = root.required_map("metadata")?;
        Ok(Self {
            object: object.clone(),
            labels: Arc::new(labels(&mut meta, "labels")?),
            annotations: Arc::new(labels(&mut meta, "annotations")?),
            uid: meta.text("uid")?.unwrap_or_default().into(),
            generation: meta.integer("generation", 0..=i64::MAX)?.unwrap_or(0) as u64,
            created: meta.text("creationTimestamp")?.map(Arc::from),
            at,
        })
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
        let at = self.at.as_ref()?;
        Some(if mark.line == 0 { at.clone() } else { mark.in_file(&at.file) })
    }

    /// What decides between objects that want the same: age first (objects without one are the youngest), then name,
    /// then namespace.
    pub fn seniority(&self) -> impl Ord + use<'_> {
        (self.created.is_none(), &self.created, &self.object.name, &self.object.namespace)
    }
}

/// A map of strings.
pub(super) fn labels(fields: &mut Fields<'_>, key: &str) -> Result<Labels, Fault> {
    Ok(fields.text_map(key)?.into_iter().map(|(k, v)| (Arc::from(k), Arc::from(v))).collect())
}
