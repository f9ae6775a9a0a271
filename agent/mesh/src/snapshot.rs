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

    /// The Namespace of this name.
    pub fn namespace(&self, name: &Arc<str>) -> Option<&Arc<Namespace>> {
        self.namespaces.get(&(Arc::default(), Arc::clone(name)))
    }
}
