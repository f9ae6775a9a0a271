//! Where this node's pods are, for balancing by locality: of their labels what some policy asks for, and no more, so that
//! pods that differ in nothing else are of one kind.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::incremental::InForce;
use super::registry::whereabouts_of;
use crate::crd::{Blocks, TrafficPolicy};
use crate::plan::EnrolledPod;
use crate::program::{Clients, HOSTNAME, Locality, NETWORK, Program, TrafficDistribution};
use crate::snapshot::Snapshot;
use crate::store::Change;

/// Those of everything; the ones in force where they are the same.
pub(super) fn of<'n>(
    snapshot: &Snapshot,
    enrolled: impl Iterator<Item = &'n Arc<str>>,
    former: &Program,
) -> Arc<Clients> {
    keep(with_keys(keys(snapshot), snapshot, enrolled), &former.clients)
}

/// Those after some changes of endpoints, pods and VirtualServices, which have no labels of their own to ask for. `pods`
/// are the ones of the plan that come, change or go.
pub(super) fn after(
    changes: &[Change],
    pods: &[(Arc<str>, Option<EnrolledPod>)],
    snapshot: &Snapshot,
    in_force: &InForce<'_>,
) -> Arc<Clients> {
    let held = &in_force.program.clients;
    let is_pod = |change: &Change| {
        let name = || format!("{}/{}", change.object.namespace, change.object.name);
        &*change.object.kind == "Pod" && in_force.plan.pods.contains_key(&*name())
    };
    if pods.is_empty() && !changes.iter().any(is_pod) {
        return Arc::clone(held);
    }
    let mut enrolled: BTreeSet<&Arc<str>> = in_force.plan.pods.keys().collect();
    for (name, pod) in pods {
        if pod.is_some() {
            enrolled.insert(name)
        } else {
            enrolled.remove(name)
        };
    }
    keep(with_keys(held.keys.clone(), snapshot, enrolled.into_iter()), held)
}

fn keep(now: Clients, held: &Arc<Clients>) -> Arc<Clients> {
    if **held == now { Arc::clone(held) } else { Arc::new(now) }
}

fn with_keys<'n>(keys: Box<[Arc<str>]>, snapshot: &Snapshot, enrolled: impl Iterator<Item = &'n Arc<str>>) -> Clients {
    let pods = enrolled.filter_map(|name| {
        let (namespace, own) = name.split_once('/')?;
        let pod = snapshot.pods.get(&(namespace.into(), own.into()))?;
        Some((Arc::clone(name), whereabouts_of(pod, snapshot, &keys)))
    });
    let pods: Vec<_> = pods.collect();
    Clients::new(keys, pods)
}

/// The labels that some policy compares endpoints and clients by.
fn keys(snapshot: &Snapshot) -> Box<[Arc<str>]> {
    let mut keys: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut add = |blocks: &Blocks| {
        let setting = blocks.load_balancer.as_ref().and_then(|balancer| balancer.locality.as_ref());
        keys.extend(setting.into_iter().flat_map(Locality::label_keys).map(Arc::from));
    };
    let mut add_all = |policy: &TrafficPolicy| {
        add(&policy.blocks);
        policy.ports.iter().for_each(|port| add(&port.blocks));
    };
    for rule in snapshot.destination_rules.values() {
        let own = rule.subsets.iter().filter_map(|subset| subset.policy.as_deref());
        rule.policy.as_deref().into_iter().chain(own).for_each(&mut add_all);
    }
    for distribution in snapshot.services.values().filter_map(|service| service.distribution) {
        keys.insert(NETWORK.into());
        if distribution == TrafficDistribution::SameNode {
            keys.insert(HOSTNAME.into());
        }
    }
    keys.into_iter().collect()
}
