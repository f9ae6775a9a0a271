//! What no port of the mesh leads to: hosts that are not steered, rules that nobody needs yet, and what comes in from
//! outside.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::{
    Build, Client, PORT_OF_OTHER_HOSTS, Router, Snapshot, ViewRules, ViewTable, VirtualService, expand, shared,
};
use crate::compile::{gateways, verdict};
use crate::plan::PlanKey;
use crate::program::Listener;

impl<'s> Build<'_, 's, '_> {
    /// Hosts of ServiceEntries whose endpoints are not known here: nobody encrypts for their clients, so connections to
    /// their addresses are refused where a rule asks for it. Called when those that are steered have theirs, as an address
    /// may be of several.
    pub(super) fn out_of_reach(&mut self, view: &ViewRules<'s>) {
        for (service, registered) in self.registry.services.iter().enumerate() {
            let of_view = view.view == 0 || view.changed.contains(&service);
            let is_seen = registered.is_dialled_by(view.client.namespace.as_ref());
            if registered.entry.is_none() || registered.is_asked_for() || !of_view || !is_seen {
                continue;
            }
            for number in registered.ports.iter().map(|port| port.port.number) {
                let asking = view.policies[service].and_then(|id| {
                    let policy = self.policies.get(id);
                    policy.encrypting(&policy.settings(None, number))
                });
                let entry = verdict::out_of_reach(registered, number, asking.as_ref());
                for address in registered.addresses() {
                    let key = |view| PlanKey { view, address: Some(address), port: number, udp: false };
                    let common = self.plan.services.get(&key(0));
                    // What everybody has at this address is another's, or there is nothing to be different from.
                    if common.map_or(asking.is_none(), |common| common.name != entry.name) {
                        self.trace.contended |= common.is_some() && asking.is_some();
                        continue;
                    }
                    let key = key(view.view);
                    match self.plan.services.entry(key) {
                        Entry::Vacant(free) => {
                            free.insert(shared(self.former, &key, entry.clone()));
                        }
                        Entry::Occupied(held) => self.trace.contended |= held.get().name != entry.name,
                    }
                }
            }
        }
    }

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
