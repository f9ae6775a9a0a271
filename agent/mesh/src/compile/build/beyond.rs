//! What no client in the mesh asks for: rules that nobody needs yet, and what comes in from outside.

use std::sync::Arc;

use super::{Build, Client, PORT_OF_OTHER_HOSTS, Router, Snapshot, ViewRules, ViewTable, VirtualService, expand};
use crate::compile::gateways;
use crate::program::Listener;

impl<'s> Build<'_, 's, '_> {
    /// VirtualServices that no port has asked for: what they refer to is looked up all the same, so that their faults
    /// show before they are needed.
    pub(super) fn unused(&mut self, snapshot: &'s Snapshot, views: &ViewTable, resolved: &[ViewRules<'s>]) {
        let domain = &self.options.cluster_domain;
        let is_service = |vs: &VirtualService| {
            let mut hosts = vs.hosts.iter();
            hosts.any(|(host, _)| {
                self.registry.is_asked_for(&expand(host, vs.meta.namespace(), domain), Some(vs.meta.namespace()))
            })
        };
        let unused: Vec<&VirtualService> =
            snapshot.virtual_services.values().map(|vs| &**vs).filter(|vs| !vs.in_mesh() || !is_service(vs)).collect();
        let kept = std::mem::take(&mut self.clusters);
        for vs in unused {
            let mut router = self.router(&resolved[views.position(vs.meta.namespace())]);
            router.http(&[vs], PORT_OF_OTHER_HOSTS);
            router.tcp(&[vs], PORT_OF_OTHER_HOSTS);
            router.tls(&[vs], PORT_OF_OTHER_HOSTS);
        }
        self.clusters = kept;
    }

    /// What comes in from outside: the gateway's pods are clients of the root namespace.
    pub(super) fn gateways(
        &mut self,
        snapshot: &'s Snapshot,
        views: &ViewTable,
        resolved: &[ViewRules<'s>],
    ) -> Vec<Listener> {
        if snapshot.gateways.is_empty() {
            return Vec::new();
        }
        let namespace = Arc::clone(&self.options.root_namespace);
        let view = &resolved[views.position(&namespace)];
        let client = Client { namespace: Some(namespace), labels: self.options.gateway.labels.clone() };
        gateways::listeners(snapshot, &mut Router { client: &client, ..self.router(view) })
    }
}
