//! What is known of one kind: which objects there are, and which version of each was seen last. A list that is read
//! anew becomes the changes since: what is the same is not told again, and nothing goes before the list is whole.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use weir_mesh::store::{ObjectId, Reading, ResourceId, Version};

type Key = (Arc<str>, Arc<str>);
type Hasher = foldhash::fast::RandomState;

/// An object's identity and version, as hashes: names of 36 and more bytes are only compared with themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    uid: u64,
    version: u64,
}

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct Known {
    resource: ResourceId,
    objects: HashMap<Key, Stamp, Hasher>,
    hasher: Hasher,
}

/// A list that is being read.
#[derive(Debug, Default)]
pub(super) struct Listing {
    seen: HashMap<Key, Stamp, Hasher>,
    changes: Vec<(ObjectId, Version)>,
}

impl Known {
    pub(super) fn new(resource: ResourceId) -> Self {
        Self { resource, objects: HashMap::default(), hasher: Hasher::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// An object was made or changed. `None` when it is as it was.
    pub(super) fn changed(&mut self, reading: Reading) -> Option<(ObjectId, Version)> {
        let (key, stamp) = self.stamp(&reading);
        let change = self.change(&key, stamp, reading);
        self.objects.insert(key, stamp);
        change
    }

    /// An object is gone. `None` when it was not known.
    pub(super) fn deleted(&mut self, reading: Reading) -> Option<(ObjectId, Version)> {
        let (key, _) = self.stamp(&reading);
        self.objects.remove(&key).map(|_| (reading.id, Version::Gone))
    }

    /// An object of a list.
    pub(super) fn listed(&self, listing: &mut Listing, reading: Reading) {
        let (key, stamp) = self.stamp(&reading);
        listing.changes.extend(self.change(&key, stamp, reading));
        listing.seen.insert(key, stamp);
    }

    /// An object went while the list was being read.
    pub(super) fn unlisted(&self, listing: &mut Listing, reading: Reading) {
        let (key, _) = self.stamp(&reading);
        listing.seen.remove(&key);
        listing.changes.push((reading.id, Version::Gone));
    }

    /// The list is whole: what it does not hold is gone.
    pub(super) fn finish(&mut self, listing: Listing) -> Vec<(ObjectId, Version)> {
        let Listing { seen, mut changes } = listing;
        let before = std::mem::replace(&mut self.objects, seen);
        for key in before.into_keys() {
            if !self.objects.contains_key(&key) {
                changes.push((self.id(key), Version::Gone));
            }
        }
        changes
    }

    /// The kind itself is gone.
    pub(super) fn clear(&mut self) -> Vec<(ObjectId, Version)> {
        self.finish(Listing::default())
    }

    fn id(&self, (namespace, name): Key) -> ObjectId {
        ObjectId { resource: self.resource, namespace, name }
    }

    fn stamp(&self, reading: &Reading) -> (Key, Stamp) {
        let key = (Arc::clone(&reading.id.namespace), Arc::clone(&reading.id.name));
        let hash = |text: &str| self.hasher.hash_one(text);
        (key, Stamp { uid: hash(&reading.uid), version: hash(&reading.resource_version) })
    }

    fn change(&self, key: &Key, stamp: Stamp, reading: Reading) -> Option<(ObjectId, Version)> {
        let old = self.objects.get(key);
        // Without a version nothing can be said of whether it is the same.
        if old == Some(&stamp) && !reading.resource_version.is_empty() {
            return None;
        }
        let version = match reading.version {
            Version::Bad { findings, stand_in, .. } => {
                Version::Bad { findings, stand_in, recreated: old.is_some_and(|old| old.uid != stamp.uid) }
            }
            other => other,
        };
        Some((reading.id, version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_mesh::store::Reader;

    fn namespace(name: &str, uid: &str, version: &str) -> Reading {
        let text = format!(r#"{{"metadata":{{"name":"{name}","uid":"{uid}","resourceVersion":"{version}"}}}}"#);
        read(&text)
    }

    fn read(text: &str) -> Reading {
        let kind = ResourceId::all().next().expect("Namespace is first");
        Reader::default().read(kind, "v1", text).expect("JSON")
    }

    fn known(objects: &[(&str, &str, &str)]) -> Known {
        let mut known = Known::new(ResourceId::all().next().expect("there are kinds"));
        for (name, uid, version) in objects {
            assert!(known.changed(namespace(name, uid, version)).is_some());
        }
        known
    }

    fn told(changes: &[(ObjectId, Version)]) -> Vec<String> {
        let mut told: Vec<String> = changes
            .iter()
            .map(|(id, version)| {
                let what = match version {
                    Version::Good(_) => "is",
                    Version::Gone => "gone",
                    Version::Bad { recreated: true, .. } => "bad anew",
                    _ => "bad",
                };
                format!("{} {what}", id.name)
            })
            .collect();
        told.sort();
        told
    }

    #[test]
    fn a_list_read_anew_tells_what_changed_since() {
        let mut known = known(&[("same", "1", "5"), ("changed", "2", "6"), ("gone", "3", "7")]);
        let mut listing = Listing::default();
        for (name, uid, version) in [("same", "1", "5"), ("changed", "2", "9"), ("new", "4", "8")] {
            known.listed(&mut listing, namespace(name, uid, version));
        }
        assert_eq!(told(&known.finish(listing)), ["changed is", "gone gone", "new is"]);
        assert_eq!(known.len(), 3);
        assert_eq!(told(&known.clear()), ["changed gone", "new gone", "same gone"]);
        assert_eq!(known.len(), 0);
    }

    #[test]
    fn what_goes_while_a_list_is_read_stays_gone() {
        let mut known = known(&[("old", "1", "5")]);
        let mut listing = Listing::default();
        for (name, uid) in [("old", "1"), ("new", "2"), ("stays", "3")] {
            known.listed(&mut listing, namespace(name, uid, "6"));
        }
        for (name, uid) in [("old", "1"), ("new", "2")] {
            known.unlisted(&mut listing, namespace(name, uid, "7"));
        }
        let mut store = weir_mesh::store::ObjectStore::new();
        let mut pending = weir_mesh::store::Pending::default();
        for (id, version) in known.finish(listing) {
            pending.push(id, version);
        }
        store.apply(pending);
        let left: Vec<&str> = store.snapshot().namespaces.keys().map(|(_, name)| &**name).collect();
        assert_eq!((left, known.len()), (vec!["stays"], 1));
    }

    #[test]
    fn an_unfinished_list_changes_nothing() {
        let mut known = known(&[("a", "1", "5")]);
        let mut listing = Listing::default();
        known.listed(&mut listing, namespace("b", "2", "6"));
        drop(listing);
        assert_eq!(told(&known.clear()), ["a gone"]);
    }

    #[test]
    fn a_bad_object_with_another_uid_is_told_apart() {
        let bad = |uid: &str, version: &str| {
            read(&format!(r#"{{"metadata":{{"name":"a","uid":"{uid}","resourceVersion":"{version}","labels":3}}}}"#))
        };
        let mut known = known(&[("a", "1", "5")]);
        assert_eq!(told(&known.changed(bad("1", "6")).into_iter().collect::<Vec<_>>()), ["a bad"]);
        assert_eq!(told(&known.changed(bad("2", "7")).into_iter().collect::<Vec<_>>()), ["a bad anew"]);
        assert!(known.changed(bad("2", "7")).is_none(), "the same version again");
        assert!(known.deleted(namespace("a", "2", "8")).is_some());
        assert!(known.deleted(namespace("a", "2", "8")).is_none());
    }
}
