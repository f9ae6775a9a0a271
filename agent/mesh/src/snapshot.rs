//! Everything that the compiler may see, in one order: made by [`crate::store::Store`], or object by object.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::crd::{
    ClusterNode, Deployment, DestinationRule, EndpointSlice, Gateway, Namespace, Object, Pod, Protection, Service,
    ServiceEntry, Sidecar, VirtualService, WorkloadEntry, gateway_api,
};
use crate::source::ObjectRef;

/// `(namespace, name)`; the namespace is empty for cluster-scoped kinds.
pub type Key = (Arc<str>, Arc<str>);

/// Objects by name. Cloning shares the objects.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "each field holds the objects of its kind")]
pub struct Snapshot {
    pub namespaces: BTreeMap<Key, Arc<Namespace>>,
    pub nodes: BTreeMap<Key, Arc<ClusterNode>>,
    pub pods: BTreeMap<Key, Arc<Pod>>,
    pub services: BTreeMap<Key, Arc<Service>>,
    pub endpoint_slices: BTreeMap<Key, Arc<EndpointSlice>>,
    pub deployments: BTreeMap<Key, Arc<Deployment>>,
    pub virtual_services: BTreeMap<Key, Arc<VirtualService>>,
    pub destination_rules: BTreeMap<Key, Arc<DestinationRule>>,
    pub protections: BTreeMap<ObjectRef, Arc<Protection>>,
    pub gateways: BTreeMap<Key, Arc<Gateway>>,
    pub service_entries: BTreeMap<Key, Arc<ServiceEntry>>,
    pub workload_entries: BTreeMap<Key, Arc<WorkloadEntry>>,
    pub sidecars: BTreeMap<Key, Arc<Sidecar>>,
    pub gateway_classes: BTreeMap<Key, Arc<gateway_api::GatewayClass>>,
    pub api_gateways: BTreeMap<Key, Arc<gateway_api::Gateway>>,
    pub reference_grants: BTreeMap<Key, Arc<gateway_api::ReferenceGrant>>,
    /// Of the four kinds of the Gateway API.
    pub routes: BTreeMap<ObjectRef, Arc<gateway_api::Route>>,
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
            Object::Node(o) => add(&mut self.nodes, key, o),
            Object::Pod(o) => add(&mut self.pods, key, o),
            Object::Service(o) => add(&mut self.services, key, o),
            Object::EndpointSlice(o) => add(&mut self.endpoint_slices, key, o),
            Object::Deployment(o) => add(&mut self.deployments, key, o),
            Object::VirtualService(o) => add(&mut self.virtual_services, key, o),
            Object::DestinationRule(o) => add(&mut self.destination_rules, key, o),
            Object::Protection(o) => add(&mut self.protections, o.meta.object.clone(), o),
            Object::Gateway(o) => add(&mut self.gateways, key, o),
            Object::ServiceEntry(o) => add(&mut self.service_entries, key, o),
            Object::WorkloadEntry(o) => add(&mut self.workload_entries, key, o),
            Object::Sidecar(o) => add(&mut self.sidecars, key, o),
            Object::GatewayClass(o) => add(&mut self.gateway_classes, key, o),
            Object::ApiGateway(o) => add(&mut self.api_gateways, key, o),
            Object::ReferenceGrant(o) => add(&mut self.reference_grants, key, o),
            Object::Route(o) => add(&mut self.routes, o.meta.object.clone(), o),
        }
    }

    /// Adds an object in the place of the one of its kind and name.
    pub fn replace(&mut self, object: Object) {
        let name = &object.meta().object;
        let key = (Arc::clone(&name.namespace), Arc::clone(&name.name));
        match object {
            Object::Namespace(o) => drop(self.namespaces.insert(key, o)),
            Object::Node(o) => drop(self.nodes.insert(key, o)),
            Object::Pod(o) => drop(self.pods.insert(key, o)),
            Object::Service(o) => drop(self.services.insert(key, o)),
            Object::EndpointSlice(o) => drop(self.endpoint_slices.insert(key, o)),
            Object::Deployment(o) => drop(self.deployments.insert(key, o)),
            Object::VirtualService(o) => drop(self.virtual_services.insert(key, o)),
            Object::DestinationRule(o) => drop(self.destination_rules.insert(key, o)),
            Object::Protection(o) => drop(self.protections.insert(o.meta.object.clone(), o)),
            Object::Gateway(o) => drop(self.gateways.insert(key, o)),
            Object::ServiceEntry(o) => drop(self.service_entries.insert(key, o)),
            Object::WorkloadEntry(o) => drop(self.workload_entries.insert(key, o)),
            Object::Sidecar(o) => drop(self.sidecars.insert(key, o)),
            Object::GatewayClass(o) => drop(self.gateway_classes.insert(key, o)),
            Object::ApiGateway(o) => drop(self.api_gateways.insert(key, o)),
            Object::ReferenceGrant(o) => drop(self.reference_grants.insert(key, o)),
            Object::Route(o) => drop(self.routes.insert(o.meta.object.clone(), o)),
        }
    }

    /// Lays the maps out anew, without the gaps that objects leave when they come one by one.
    pub fn compact(&mut self) {
        fn dense<K: Ord, T>(map: &mut BTreeMap<K, Arc<T>>) {
            // Made from what is sorted, every node is full.
            *map = std::mem::take(map).into_iter().collect();
        }
        dense(&mut self.namespaces);
        dense(&mut self.nodes);
        dense(&mut self.pods);
        dense(&mut self.services);
        dense(&mut self.endpoint_slices);
        dense(&mut self.deployments);
        dense(&mut self.virtual_services);
        dense(&mut self.destination_rules);
        dense(&mut self.protections);
        dense(&mut self.gateways);
        dense(&mut self.service_entries);
        dense(&mut self.workload_entries);
        dense(&mut self.sidecars);
        dense(&mut self.gateway_classes);
        dense(&mut self.api_gateways);
        dense(&mut self.reference_grants);
        dense(&mut self.routes);
    }

    /// Removes the object of this kind and name. False when there is none.
    pub fn remove(&mut self, object: &ObjectRef) -> bool {
        let key = (Arc::clone(&object.namespace), Arc::clone(&object.name));
        let is_api = *object.group == *gateway_api::GROUP;
        match &*object.kind {
            "Namespace" => self.namespaces.remove(&key).is_some(),
            "Node" => self.nodes.remove(&key).is_some(),
            "Pod" => self.pods.remove(&key).is_some(),
            "Service" => self.services.remove(&key).is_some(),
            "EndpointSlice" => self.endpoint_slices.remove(&key).is_some(),
            "Deployment" => self.deployments.remove(&key).is_some(),
            "VirtualService" => self.virtual_services.remove(&key).is_some(),
            "DestinationRule" => self.destination_rules.remove(&key).is_some(),
            "Gateway" if is_api => self.api_gateways.remove(&key).is_some(),
            "Gateway" => self.gateways.remove(&key).is_some(),
            "ServiceEntry" => self.service_entries.remove(&key).is_some(),
            "WorkloadEntry" => self.workload_entries.remove(&key).is_some(),
            "Sidecar" => self.sidecars.remove(&key).is_some(),
            "GatewayClass" => self.gateway_classes.remove(&key).is_some(),
            "ReferenceGrant" => self.reference_grants.remove(&key).is_some(),
            kind if gateway_api::RouteKind::named(kind).is_some() => self.routes.remove(object).is_some(),
            _ => self.protections.remove(object).is_some(),
        }
    }

    /// The object of this kind and name.
    pub fn get(&self, object: &ObjectRef) -> Option<Object> {
        let key = (Arc::clone(&object.namespace), Arc::clone(&object.name));
        let is_api = *object.group == *gateway_api::GROUP;
        match &*object.kind {
            "Namespace" => self.namespaces.get(&key).cloned().map(Object::Namespace),
            "Node" => self.nodes.get(&key).cloned().map(Object::Node),
            "Pod" => self.pods.get(&key).cloned().map(Object::Pod),
            "Service" => self.services.get(&key).cloned().map(Object::Service),
            "EndpointSlice" => self.endpoint_slices.get(&key).cloned().map(Object::EndpointSlice),
            "Deployment" => self.deployments.get(&key).cloned().map(Object::Deployment),
            "VirtualService" => self.virtual_services.get(&key).cloned().map(Object::VirtualService),
            "DestinationRule" => self.destination_rules.get(&key).cloned().map(Object::DestinationRule),
            "Gateway" if is_api => self.api_gateways.get(&key).cloned().map(Object::ApiGateway),
            "Gateway" => self.gateways.get(&key).cloned().map(Object::Gateway),
            "ServiceEntry" => self.service_entries.get(&key).cloned().map(Object::ServiceEntry),
            "WorkloadEntry" => self.workload_entries.get(&key).cloned().map(Object::WorkloadEntry),
            "Sidecar" => self.sidecars.get(&key).cloned().map(Object::Sidecar),
            "GatewayClass" => self.gateway_classes.get(&key).cloned().map(Object::GatewayClass),
            "ReferenceGrant" => self.reference_grants.get(&key).cloned().map(Object::ReferenceGrant),
            kind if gateway_api::RouteKind::named(kind).is_some() => {
                self.routes.get(object).cloned().map(Object::Route)
            }
            _ => self.protections.get(object).cloned().map(Object::Protection),
        }
    }

    /// All objects, kind by kind.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        fn all<K, T>(map: &BTreeMap<K, Arc<T>>, wrap: fn(Arc<T>) -> Object) -> impl Iterator<Item = Object> {
            map.values().cloned().map(wrap)
        }
        all(&self.namespaces, Object::Namespace)
            .chain(all(&self.nodes, Object::Node))
            .chain(all(&self.pods, Object::Pod))
            .chain(all(&self.services, Object::Service))
            .chain(all(&self.endpoint_slices, Object::EndpointSlice))
            .chain(all(&self.deployments, Object::Deployment))
            .chain(all(&self.virtual_services, Object::VirtualService))
            .chain(all(&self.destination_rules, Object::DestinationRule))
            .chain(all(&self.protections, Object::Protection))
            .chain(all(&self.gateways, Object::Gateway))
            .chain(all(&self.service_entries, Object::ServiceEntry))
            .chain(all(&self.workload_entries, Object::WorkloadEntry))
            .chain(all(&self.sidecars, Object::Sidecar))
            .chain(all(&self.gateway_classes, Object::GatewayClass))
            .chain(all(&self.api_gateways, Object::ApiGateway))
            .chain(all(&self.reference_grants, Object::ReferenceGrant))
            .chain(all(&self.routes, Object::Route))
    }

    /// Whether an object of this kind and name is there, and does not merely stand in for a broken one.
    pub fn has_good(&self, object: &ObjectRef) -> bool {
        let key = (Arc::clone(&object.namespace), Arc::clone(&object.name));
        let is_api = *object.group == *gateway_api::GROUP;
        match &*object.kind {
            "Namespace" => self.namespaces.contains_key(&key),
            "Node" => self.nodes.contains_key(&key),
            "Pod" => self.pods.contains_key(&key),
            "Service" => self.services.contains_key(&key),
            "EndpointSlice" => self.endpoint_slices.contains_key(&key),
            "Deployment" => self.deployments.contains_key(&key),
            "VirtualService" => self.virtual_services.contains_key(&key),
            "DestinationRule" => self.destination_rules.get(&key).is_some_and(|rule| !rule.broken),
            "Gateway" if is_api => self.api_gateways.contains_key(&key),
            "Gateway" => self.gateways.contains_key(&key),
            "ServiceEntry" => self.service_entries.contains_key(&key),
            "WorkloadEntry" => self.workload_entries.contains_key(&key),
            "Sidecar" => self.sidecars.contains_key(&key),
            "GatewayClass" => self.gateway_classes.contains_key(&key),
            "ReferenceGrant" => self.reference_grants.contains_key(&key),
            kind if gateway_api::RouteKind::named(kind).is_some() => self.routes.contains_key(object),
            _ => self.protections.get(object).is_some_and(|protection| !protection.broken),
        }
    }

    /// Where a Node is; empty when that is not known.
    pub fn place_of(&self, node: &Arc<str>) -> Arc<str> {
        let found = self.nodes.get(&(Arc::default(), Arc::clone(node)));
        found.map_or_else(Arc::default, |node| Arc::clone(&node.place))
    }

    /// The Namespace of this name.
    pub fn namespace(&self, name: &Arc<str>) -> Option<&Arc<Namespace>> {
        self.namespaces.get(&(Arc::default(), Arc::clone(name)))
    }
}
