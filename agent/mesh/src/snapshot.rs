//! Everything that the compiler may see, in one order: made by [`crate::store::Store`], or object by object.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::crd::{
    Deployment, DestinationRule, EndpointSlice, Namespace, Object, Pod, Protection, Service, VirtualService,
};
use crate::source::ObjectRef;

/// `(namespace, name)`; the namespace is empty for cluster-scoped kinds.
pub type Key = (Arc<str>, Arc<str>);

/// Objects by name. Cloning shares the objects.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "each field holds the objects of its kind")]
pub struct Snapshot {
    pub namespaces: BTreeMap<Key, Arc<Namespace>>,
    pub pods: BTreeMap<Key, Arc<Pod>>,
    pub services: BTreeMap<Key, Arc<Service>>,
    pub endpoint_slices: BTreeMap<Key, Arc<EndpointSlice>>,
    pub deployments: BTreeMap<Key, Arc<Deployment>>,
    pub virtual_services: BTreeMap<Key, Arc<VirtualService>>,
    pub destination_rules: BTreeMap<Key, Arc<DestinationRule>>,
    pub protections: BTreeMap<ObjectRef, Arc<Protection>>,
}

impl Snapshot {
    /// Adds an object. False, and nothing changes, when one of its kind and name is there already.
    pub fn insert(&mut self, object: Object) -> bool {
        fn add<K: Ord, T>(map: &mut BTreeMap<K, Arc<T>>, key: K, object: Arc<T>) -> bool {
            match map.entry(key) {
                Entry::Occupied(_) => false,
                Entry::Vacant(free) => {
                    free.insert(object);
                    true
                }
            }
        }
        let name = &object.meta().object;
        let key = (Arc::clone(&name.namespace), Arc::clone(&name.name));
        match object {
            Object::Namespace(o) => add(&mut self.namespaces, key, o),
            Object::Pod(o) => add(&mut self.pods, key, o),
            Object::Service(o) => add(&mut self.services, key, o),
            Object::EndpointSlice(o) => add(&mut self.endpoint_slices, key, o),
            Object::Deployment(o) => add(&mut self.deployments, key, o),
            Object::VirtualService(o) => add(&mut self.virtual_services, key, o),
            Object::DestinationRule(o) => add(&mut self.destination_rules, key, o),
            Object::Protection(o) => add(&mut self.protections, o.meta.object.clone(), o),
        }
    }

    /// Adds an object in the place of the one of its kind and name.
    pub fn replace(&mut self, object: Object) {
        let name = &object.meta().object;
        let key = (Arc::clone(&name.namespace), Arc::clone(&name.name));
        match object {
            Object::Namespace(o) => drop(self.namespaces.insert(key, o)),
            Object::Pod(o) => drop(self.pods.insert(key, o)),
            Object::Service(o) => drop(self.services.insert(key, o)),
            Object::EndpointSlice(o) => drop(self.endpoint_slices.insert(key, o)),
            Object::Deployment(o) => drop(self.deployments.insert(key, o)),
            Object::VirtualService(o) => drop(self.virtual_services.insert(key, o)),
            Object::DestinationRule(o) => drop(self.destination_rules.insert(key, o)),
            Object::Protection(o) => drop(self.protections.insert(o.meta.object.clone(), o)),
        }
    }

    /// Lays the maps out anew, without the gaps that objects leave when they come one by one.
    pub fn compact(&mut self) {
        fn dense<K: Ord, T>(map: &mut BTreeMap<K, Arc<T>>) {
            // Made from what is sorted, every node is full.
            *map = std::mem::take(map).into_iter().collect();
        }
        dense(&mut self.namespaces);
        dense(&mut self.pods);
        dense(&mut self.services);
        dense(&mut self.endpoint_slices);
        dense(&mut self.deployments);
        dense(&mut self.virtual_services);
        dense(&mut self.destination_rules);
        dense(&mut self.protections);
    }

    /// Removes the object of this kind and name. False when there is none.
    pub fn remove(&mut self, object: &ObjectRef) -> bool {
        let key = (Arc::clone(&object.namespace), Arc::clone(&object.name));
        match &*object.kind {
            "Namespace" => self.namespaces.remove(&key).is_some(),
            "Pod" => self.pods.remove(&key).is_some(),
            "Service" => self.services.remove(&key).is_some(),
            "EndpointSlice" => self.endpoint_slices.remove(&key).is_some(),
            "Deployment" => self.deployments.remove(&key).is_some(),
            "VirtualService" => self.virtual_services.remove(&key).is_some(),
            "DestinationRule" => self.destination_rules.remove(&key).is_some(),
            _ => self.protections.remove(object).is_some(),
        }
    }

    /// The object of this kind and name.
    pub fn get(&self, object: &ObjectRef) -> Option<Object> {
        let key = (Arc::clone(&object.namespace), Arc::clone(&object.name));
        match &*object.kind {
            "Namespace" => self.namespaces.get(&key).cloned().map(Object::Namespace),
            "Pod" => self.pods.get(&key).cloned().map(Object::Pod),
            "Service" => self.services.get(&key).cloned().map(Object::Service),
            "EndpointSlice" => self.endpoint_slices.get(&key).cloned().map(Object::EndpointSlice),
            "Deployment" => self.deployments.get(&key).cloned().map(Object::Deployment),
            "VirtualService" => self.virtual_services.get(&key).cloned().map(Object::VirtualService),
            "DestinationRule" => self.destination_rules.get(&key).cloned().map(Object::DestinationRule),
            _ => self.protections.get(object).cloned().map(Object::Protection),
        }
    }

    /// Whether an object of this kind and name is there, and does not merely stand in for a broken one.
    pub fn has_good(&self, object: &ObjectRef) -> bool {
        let key = (Arc::clone(&object.namespace), Arc::clone(&object.name));
        match &*object.kind {
            "Namespace" => self.namespaces.contains_key(&key),
            "Pod" => self.pods.contains_key(&key),
            "Service" => self.services.contains_key(&key),
            "EndpointSlice" => self.endpoint_slices.contains_key(&key),
            "Deployment" => self.deployments.contains_key(&key),
            "VirtualService" => self.virtual_services.contains_key(&key),
            "DestinationRule" => self.destination_rules.get(&key).is_some_and(|rule| !rule.broken),
            _ => self.protections.get(object).is_some_and(|protection| !protection.broken),
        }
    }

    /// The Namespace of this name.
    pub fn namespace(&self, name: &Arc<str>) -> Option<&Arc<Namespace>> {
        self.namespaces.get(&(Arc::default(), Arc::clone(name)))
    }
}
