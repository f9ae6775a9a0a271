//! Objects one by one, as an API server tells of them. The pure counterpart of [`super::Store`] for that source: an
//! object that does not decode keeps its last good version, and nothing else is touched by it.
//!
//! [`Pending`] is what has been heard and not yet taken over: however fast an object changes, it holds at most two
//! versions of it, so its size is bounded by the number of objects.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::{STAND_IN, refused};
use crate::crd::{Decoded, Object, RESOURCES, Resource};
use crate::finding::Finding;
use crate::snapshot::Snapshot;
use crate::source::ObjectRef;

/// So many objects that changed at once are told one by one.
const MAX_CHANGES: usize = 256;

/// A kind, by its place in [`RESOURCES`]. (A kind's name alone is not enough: two groups have a `Gateway`.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId(u8);

impl ResourceId {
    /// All kinds, in the table's order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..RESOURCES.len()).map(|index| Self(index as u8))
    }

    /// Its row in the table.
    pub fn resource(self) -> &'static Resource {
        &RESOURCES[usize::from(self.0)]
    }
}

/// Names an object among all that are watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub resource: ResourceId,
    /// Empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// `metadata.name`; empty for something that was served as an object and tells no name.
    pub name: Arc<str>,
}

impl ObjectId {
    fn object(&self) -> ObjectRef {
        let resource = self.resource.resource();
        ObjectRef {
            kind: resource.kind.into(),
            group: resource.group.into(),
            namespace: Arc::clone(&self.namespace),
            name: Arc::clone(&self.name),
        }
    }
}

/// What became of an object.
#[derive(Clone, Debug)]
pub enum Version {
    /// It decodes.
    Good(Decoded),
    /// It does not.
    Bad {
        /// Why: at least one error among them.
        findings: Vec<Finding>,
        /// Another object of the same name: the last good version of the former one is not one of this.
        recreated: bool,
        /// What protects in its place while there is no good version of it.
        stand_in: Option<Object>,
    },
    /// It is there, and this version of weir does nothing with its kind; the text says what happens instead.
    Named(&'static str),
    /// It is not there any more.
    Gone,
}

/// What became of one object since it was last taken over, reduced to what still matters.
#[derive(Clone, Debug)]
struct Update {
    /// What a bad newest version leaves in force.
    before: Option<Box<Version>>,
    newest: Version,
}

/// What has been heard of objects and not yet been taken over.
#[derive(Clone, Debug, Default)]
pub struct Pending(BTreeMap<ObjectId, Update>);

impl Pending {
    /// Adds a version; it follows all that were added before.
    pub fn push(&mut self, id: ObjectId, version: Version) {
        match self.0.entry(id) {
            Entry::Vacant(free) => {
                free.insert(Update { before: None, newest: version });
            }
            Entry::Occupied(mut held) => held.get_mut().push(version),
        }
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is nothing to take over.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Update {
    fn push(&mut self, version: Version) {
        let older = std::mem::replace(&mut self.newest, version);
        match (&mut self.newest, older) {
            (Version::Bad { recreated: false, .. }, Version::Bad { recreated: false, .. }) => {}
            (Version::Bad { recreated, .. }, Version::Bad { recreated: true, .. }) => {
                *recreated = true;
                self.before = None;
            }
            (Version::Bad { recreated: false, .. }, older) => self.before = Some(Box::new(older)),
            _ => self.before = None,
        }
    }
}

/// What was taken over at once.
#[derive(Clone, Debug)]
pub enum Changes {
    /// These objects are others than before; perhaps none.
    Few(Vec<Change>),
    /// Anything may be.
    Many,
}

impl Changes {
    /// True when everything is as it was.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Few(changes) if changes.is_empty())
    }
}

/// One object that has changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which one.
    pub object: ObjectRef,
    /// As it was; `None` = it was not there.
    pub before: Option<Object>,
}

/// The objects in force, and what is wrong with the newest version of each.
#[derive(Clone, Debug, Default)]
pub struct ObjectStore {
    snapshot: Snapshot,
    troubles: BTreeMap<ObjectId, Trouble>,
}

/// True when nothing that is kept of an object has changed: most updates of a pod are of what is not.
fn is_same(before: Option<&Object>, now: Option<&Object>) -> bool {
    match (before, now) {
        (None, None) => true,
        (Some(Object::Node(before)), Some(Object::Node(now))) => before == now,
        (Some(Object::Pod(before)), Some(Object::Pod(now))) => before == now,
        (Some(Object::EndpointSlice(before)), Some(Object::EndpointSlice(now))) => before == now,
        _ => false,
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Trouble {
    /// What the version in force asks for beyond this version of weir.
    in_force: Vec<Finding>,
    /// Why the newest version is not in force.
    newest: Vec<Finding>,
}

impl ObjectStore {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over what was heard, and says what it changed.
    pub fn apply(&mut self, pending: Pending) -> Changes {
        let large = pending.len() > MAX_CHANGES;
        let mut many = large;
        let mut changes = Vec::new();
        for (id, update) in pending.0 {
            let object = id.object();
            let before = if many { None } else { self.snapshot.get(&object) };
            let trouble = self.troubles.get(&id).cloned();
            if let Some(before) = update.before {
                self.set(&id, *before);
            }
            self.set(&id, update.newest);
            many |= trouble.as_ref() != self.troubles.get(&id);
            if !many && !is_same(before.as_ref(), self.snapshot.get(&object).as_ref()) {
                changes.push(Change { object, before });
            }
        }
        if large {
            self.snapshot.compact();
        }
        if many { Changes::Many } else { Changes::Few(changes) }
    }

    /// The objects in force.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What is wrong with the objects, by kind and name.
    pub fn findings(&self) -> Vec<Finding> {
        self.troubles.values().flat_map(|t| t.in_force.iter().chain(&t.newest)).cloned().collect()
    }

    fn set(&mut self, id: &ObjectId, version: Version) {
        match version {
            Version::Good(decoded) => {
                self.snapshot.replace(decoded.object);
                self.note(id, Trouble { in_force: decoded.findings, newest: Vec::new() });
            }
            Version::Gone => {
                self.snapshot.remove(&id.object());
                self.troubles.remove(id);
            }
            Version::Named(instead) => {
                let finding = crate::crd::not_served(id.object(), None, instead);
                self.note(id, Trouble { in_force: vec![finding], newest: Vec::new() });
            }
            Version::Bad { findings, recreated, stand_in } => self.bad(id, findings, recreated, stand_in),
        }
    }

    fn bad(&mut self, id: &ObjectId, findings: Vec<Finding>, recreated: bool, stand_in: Option<Object>) {
        let object = id.object();
        if recreated {
            self.snapshot.remove(&object);
            self.troubles.remove(id);
        }
        let stays = if self.snapshot.has_good(&object) {
            "its last good version stays in force"
        } else if let Some(stand_in) = stand_in {
            self.snapshot.replace(stand_in);
            STAND_IN
        } else {
            "it is not in force"
        };
        let named = !id.name.is_empty();
        let told = |finding: Finding| {
            if named {
                return Finding { object: Some(object.clone()), ..refused(finding, stays) };
            }
            let message =
                format!("{} of something that was served as a {}; it is left out", finding.message, object.kind);
            Finding { message, object: None, ..finding }
        };
        self.troubles.entry(id.clone()).or_default().newest = findings.into_iter().map(told).collect();
    }

    fn note(&mut self, id: &ObjectId, trouble: Trouble) {
        if trouble.in_force.is_empty() && trouble.newest.is_empty() {
            self.troubles.remove(id);
        } else {
            self.troubles.insert(id.clone(), trouble);
        }
    }
}
