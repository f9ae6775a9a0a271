//! One copy of what many objects say alike: a cluster has a hundred thousand pods and a few hundred sets of labels.
//! Used on each object of an API server before it is kept.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use super::{Action, Labels, Metadata, Object, PodSpec, RouteDestination, Spot};
use crate::matching::{Expression, Pattern};

/// Below this many entries nothing is thrown away: looking through them costs more than they do.
const SMALL: usize = 4096;

/// Texts, label maps and regular expressions that are shared. Holds what was in use when it last doubled, so its size follows the cluster's.
#[derive(Debug, Default)]
pub struct Interner {
    texts: Shared<str>,
    labels: Shared<Labels>,
    specs: Shared<PodSpec>,
    spots: Shared<Spot>,
    regexes: Shared<Expression>,
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
            Object::Node(o) => {
                let Some(node) = Arc::get_mut(o) else { return };
                self.metadata(&mut node.meta);
                node.place = self.text(&node.place);
            }
            Object::Service(o) => {
                let Some(service) = Arc::get_mut(o) else { return };
                self.metadata(&mut service.meta);
                service.meta.forget_age();
                service.selector = self.entries(&service.selector);
                for port in &mut service.ports {
                    port.name = self.text(&port.name);
                }
                service.ports.shrink_to_fit();
            }
            Object::VirtualService(o) => {
                let Some(vs) = Arc::get_mut(o) else { return };
                self.metadata(&mut vs.meta);
                for route in &mut vs.http {
                    route.name = self.text(&route.name);
                    for item in &mut route.items {
                        item.name = self.text(&item.name);
                    }
                    if let Action::Forward(destinations) = &mut route.action {
                        self.destinations(destinations);
                    }
                }
                vs.each_regex(&mut |pattern| self.regex(pattern));
                vs.tls.iter_mut().for_each(|route| self.destinations(&mut route.destinations));
                vs.tcp.iter_mut().for_each(|route| self.destinations(&mut route.destinations));
            }
            Object::DestinationRule(o) => {
                let Some(rule) = Arc::get_mut(o) else { return };
                self.metadata(&mut rule.meta);
                for subset in &mut rule.subsets {
                    subset.name = self.text(&subset.name);
                    subset.labels = self.entries(&subset.labels);
                }
            }
            Object::Protection(o) => Arc::get_mut(o).into_iter().for_each(|o| self.metadata(&mut o.meta)),
            Object::Gateway(o) => Arc::get_mut(o).into_iter().for_each(|o| self.metadata(&mut o.meta)),
            Object::WorkloadEntry(o) => Arc::get_mut(o).into_iter().for_each(|o| self.metadata(&mut o.meta)),
            Object::Sidecar(o) => Arc::get_mut(o).into_iter().for_each(|o| self.metadata(&mut o.meta)),
            Object::GatewayClass(o) => Arc::get_mut(o).into_iter().for_each(|o| self.metadata(&mut o.meta)),
            Object::ApiGateway(o) => Arc::get_mut(o).into_iter().for_each(|o| self.metadata(&mut o.meta)),
            Object::Route(o) => {
                let Some(route) = Arc::get_mut(o) else { return };
                self.metadata(&mut route.meta);
                route.each_regex(&mut |pattern| self.regex(pattern));
            }
            Object::ReferenceGrant(o) => Arc::get_mut(o).into_iter().for_each(|o| self.metadata(&mut o.meta)),
            Object::ServiceEntry(o) => {
                let Some(entry) = Arc::get_mut(o) else { return };
                self.metadata(&mut entry.meta);
                for host in &mut entry.hosts {
                    host.service.meta = entry.meta.clone();
                }
            }
            Object::Deployment(o) => {
                let Some(deployment) = Arc::get_mut(o) else { return };
                self.metadata(&mut deployment.meta);
                deployment.meta.forget_age();
            }
            Object::Pod(o) => {
                let Some(pod) = Arc::get_mut(o) else { return };
                self.metadata(&mut pod.meta);
                pod.meta.forget_age();
                pod.node = self.text(&pod.node);
                self.spec(&mut pod.spec);
            }
            Object::EndpointSlice(o) => {
                let Some(slice) = Arc::get_mut(o) else { return };
                self.metadata(&mut slice.meta);
                slice.meta.forget_age();
                for port in &mut slice.ports {
                    port.name = self.text(&port.name);
                }
                for endpoint in &mut slice.endpoints {
                    endpoint.at.iter_mut().for_each(|at| self.spot(at));
                }
                slice.endpoints.shrink_to_fit();
                slice.ports.shrink_to_fit();
            }
        }
    }

    fn destinations(&mut self, destinations: &mut [RouteDestination]) {
        for destination in destinations {
            destination.host = self.text(&destination.host);
            destination.subset = self.text(&destination.subset);
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
        *labels = Arc::new(self.entries(labels));
        self.labels.insert(Arc::clone(labels));
    }

    fn spec(&mut self, spec: &mut Arc<PodSpec>) {
        if let Some(known) = self.specs.known.get(spec) {
            *spec = Arc::clone(known);
            return;
        }
        if let Some(new) = Arc::get_mut(spec) {
            new.service_account = self.text(&new.service_account);
            new.workload = self.text(&new.workload);
            for (name, _) in &mut new.ports {
                *name = self.text(name);
            }
            new.containers.shrink_to_fit();
            new.ports.shrink_to_fit();
        }
        self.specs.insert(Arc::clone(spec));
    }

    fn spot(&mut self, spot: &mut Arc<Spot>) {
        match self.spots.known.get(spot) {
            Some(known) => *spot = Arc::clone(known),
            None => self.spots.insert(Arc::clone(spot)),
        }
    }

    fn regex(&mut self, pattern: &mut Pattern) {
        let expression = pattern.expression();
        match self.regexes.known.get(&**expression) {
            Some(known) => *expression = Arc::clone(known),
            None => self.regexes.insert(Arc::clone(expression)),
        }
    }

    fn entries(&mut self, labels: &Labels) -> Labels {
        labels.iter().map(|(key, value)| (self.text(key), self.text(value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_and_maps_are_one() {
        let mut interner = Interner::default();
        assert!(Arc::ptr_eq(&interner.text("a"), &interner.text("a")));
        let map = || Arc::new(Labels::from_iter([("app".into(), "x".into())]));
        let (mut one, mut other) = (map(), map());
        interner.map(&mut one);
        interner.map(&mut other);
        assert!(Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn equal_regexes_are_compiled_once() {
        let mut interner = Interner::default();
        let mut shared = |mut pattern: Pattern| {
            interner.regex(&mut pattern);
            pattern
        };
        let regex = |text| crate::crd::full_regex(text).unwrap();
        let (one, other) = (shared(regex("/a.*")), shared(regex("/a.*")));
        assert_eq!(one.identity(), other.identity());
        assert_ne!(one.identity(), shared(regex("/b.*")).identity());
        assert_ne!(one.identity(), shared(crate::crd::part_regex("/a.*").unwrap()).identity());
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
