//! One copy of what many objects say alike: a cluster has a hundred thousand pods and a few hundred sets of labels.
//! Used on each object of an API server before it is kept.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use super::{Labels, Metadata, Object};

/// Below this many entries nothing is thrown away: looking through them costs more than they do.
const SMALL: usize = 4096;

/// Texts and label maps that are shared. Holds what was in use when it last doubled, so its size follows the cluster's.
#[derive(Debug, Default)]
pub struct Interner {
    texts: Shared<str>,
    labels: Shared<Labels>,
}

#[derive(Debug)]
struct Shared<T: ?Sized> {
    known: HashSet<Arc<T>, foldhash::fast::RandomState>,
    /// At this size, what nobody else holds any more is dropped.
    sweep_at: usize,
}

impl<T: ?Sized + Eq + Hash> Default for Shared<T> {
    fn default() -> Self {
        Self { known: HashSet::default(), sweep_at: SMALL }
    }
}

impl<T: ?Sized + Eq + Hash> Shared<T> {
    fn insert(&mut self, value: Arc<T>) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|held| Arc::strong_count(held) > 1);
            self.sweep_at = SMALL.max(2 * self.known.len());
        }
        self.known.insert(value);
    }
}

impl Interner {
    /// The shared copy of a text.
    pub fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.known.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&new));
        new
    }

    /// Makes a freshly decoded object share what it has in common with others.
    pub fn share(&mut self, object: &mut Object) {
        // A fresh object is held once, so that `get_mut` gives it.
        match object {
            Object::Namespace(o) => Arc::get_mut(o).into_iter().for_each(|o| self.metadata(&mut o.meta)),
            Object::Service(o) => Arc::get_mut(o).into_iter().for_each(|o| self.metadata(&mut o.meta)),
            Object::VirtualService(o) => Arc::get_mut(o).into_iter().for_each(|o| self.metadata(&mut o.meta)),
            Object::DestinationRule(o) => Arc::get_mut(o).into_iter().for_each(|o| self.metadata(&mut o.meta)),
            Object::Protection(o) => Arc::get_mut(o).into_iter().for_each(|o| self.metadata(&mut o.meta)),
            Object::Deployment(o) => Arc::get_mut(o).into_iter().for_each(|o| self.metadata(&mut o.meta)),
            Object::Pod(o) => {
                let Some(pod) = Arc::get_mut(o) else { return };
                self.metadata(&mut pod.meta);
                pod.node = self.text(&pod.node);
                pod.service_account = self.text(&pod.service_account);
                for (name, _) in &mut pod.ports {
                    *name = self.text(name);
                }
                pod.containers.shrink_to_fit();
                pod.ports.shrink_to_fit();
                pod.addresses.shrink_to_fit();
            }
            Object::EndpointSlice(o) => {
                let Some(slice) = Arc::get_mut(o) else { return };
                self.metadata(&mut slice.meta);
                for port in &mut slice.ports {
                    port.name = self.text(&port.name);
                }
                for endpoint in &mut slice.endpoints {
                    endpoint.node = endpoint.node.as_deref().map(|node| self.text(node));
                    endpoint.addresses.shrink_to_fit();
                }
                slice.endpoints.shrink_to_fit();
            }
        }
    }

    fn metadata(&mut self, meta: &mut Metadata) {
        meta.object.kind = self.text(&meta.object.kind);
        meta.object.group = self.text(&meta.object.group);
        meta.object.namespace = self.text(&meta.object.namespace);
        self.map(&mut meta.labels);
        self.map(&mut meta.annotations);
    }

    fn map(&mut self, labels: &mut Arc<Labels>) {
        if let Some(known) = self.labels.known.get(labels) {
            *labels = Arc::clone(known);
            return;
        }
        let shared: Labels = labels.iter().map(|(key, value)| (self.text(key), self.text(value))).collect();
        *labels = Arc::new(shared);
        self.labels.insert(Arc::clone(labels));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_and_maps_are_one() {
        let mut interner = Interner::default();
        assert!(Arc::ptr_eq(&interner.text("a"), &interner.text("a")));
        let map = || Arc::new(Labels::from([("app".into(), "x".into())]));
        let (mut one, mut other) = (map(), map());
        interner.map(&mut one);
        interner.map(&mut other);
        assert!(Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn what_nobody_holds_does_not_pile_up() {
        let mut interner = Interner::default();
        let kept: Vec<_> = (0..100).map(|n| interner.text(&format!("kept-{n}"))).collect();
        for n in 0..10 * SMALL {
            interner.text(&format!("gone-{n}"));
        }
        assert!(interner.texts.known.len() <= SMALL, "{}", interner.texts.known.len());
        assert!(kept.iter().all(|text| Arc::ptr_eq(text, &interner.text(text))));
    }
}
