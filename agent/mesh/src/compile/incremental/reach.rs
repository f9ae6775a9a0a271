//! Which hosts have other rules when some VirtualServices change. Asked by [`super::Compiler::update`], which compiles
//! those hosts alone; and where pods are after a change of some.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::named;
use crate::compile::trace::{Trace, fqdn};
use crate::compile::visibility::{expand, tell_alike};
use crate::compile::{CompileOptions, budget};
use crate::crd::{ClusterNode, Object, Resolution, ServiceType, VirtualService};
use crate::program::{PodTable, Program};
use crate::snapshot::{Key, Snapshot};
use crate::store::Change;

/// Hosts, by what they are.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Services with addresses.
    pub(super) services: BTreeSet<Key>,
    /// Hosts of ServiceEntries that clients ask for by address.
    pub(super) entries: BTreeSet<Arc<str>>,
    /// Hosts that are asked for by name alone.
    pub(super) others: BTreeSet<Arc<str>>,
    /// Hosts of which many are asked for by name alone: `*.example.com` as `.example.com`.
    pub(super) suffixes: BTreeSet<Box<str>>,
    /// VirtualServices that delegate to one that has changed.
    pub(super) roots: BTreeSet<Key>,
}

/// Whether it is of a VirtualService.
pub(super) fn is_rule(change: &Change) -> bool {
    &*change.object.kind == "VirtualService"
}

pub(super) fn key_of(change: &Change) -> Key {
    (Arc::clone(&change.object.namespace), Arc::clone(&change.object.name))
}

/// The VirtualServices to which one delegates.
pub(super) fn parts(vs: &VirtualService) -> impl Iterator<Item = Key> {
    let own = vs.meta.namespace();
    vs.delegates().map(move |part| {
        let namespace = if part.namespace.is_empty() { own } else { &part.namespace };
        (Arc::clone(namespace), Arc::clone(&part.name))
    })
}

/// The services to which a VirtualService sends, and those that its users may have meant.
pub(super) fn mentioned(vs: &VirtualService, domain: &str, services: &mut BTreeSet<Key>) {
    let hosts = vs.destinations().map(|destination| &destination.host).chain(vs.hosts.iter().map(|(host, _)| host));
    for host in hosts {
        let meant = [format!("{host}.svc.{domain}"), format!("{host}.{domain}")];
        services.extend(named(&expand(host, vs.meta.namespace(), domain), domain));
        services.extend(meant.iter().filter(|_| host.contains('.')).filter_map(|host| named(host, domain)));
    }
}

impl Reach {
    /// What the changed VirtualServices among `changes` reach. `None` when that is not plain: one is not for the mesh
    /// alone, is for a headless service, or tells other clients apart than before, or rules have to be left out.
    pub(super) fn of(changes: &[Change], snapshot: &Snapshot, trace: &Trace, domain: &str) -> Option<Self> {
        let all = || snapshot.virtual_services.values().chain(trace.converted.values());
        if changes.iter().any(is_rule) && budget::is_exceeded(all()) {
            return None;
        }
        let mut reach = Self::default();
        for change in changes.iter().filter(|change| is_rule(change)) {
            let key = key_of(change);
            let now = snapshot.virtual_services.get(&key).map(|vs| &**vs);
            let before = match &change.before {
                None => None,
                Some(Object::VirtualService(before)) => Some(&**before),
                Some(_) => return None,
            };
            if !tell_alike(before, now) {
                return None;
            }
            for vs in before.into_iter().chain(now) {
                if vs.is_delegate() {
                    // Whoever delegates to it now has done so before, or has changed, too.
                    let roots = snapshot.virtual_services.values().filter(|vs| parts(vs).any(|part| part == key));
                    for root in roots {
                        reach.hosts(root, snapshot, trace, domain)?;
                        reach.roots.insert((Arc::clone(root.meta.namespace()), Arc::clone(root.meta.name())));
                    }
                } else {
                    reach.hosts(vs, snapshot, trace, domain)?;
                }
            }
        }
        Some(reach)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.entries.is_empty() && self.others.is_empty() && self.suffixes.is_empty()
    }

    fn hosts(&mut self, vs: &VirtualService, snapshot: &Snapshot, trace: &Trace, domain: &str) -> Option<()> {
        if !vs.in_mesh() || vs.gateways.iter().any(|gateway| **gateway != *"mesh") {
            return None;
        }
        for (host, _) in &vs.hosts {
            let Some(suffix) = host.strip_prefix('*') else {
                self.host(expand(host, vs.meta.namespace(), domain), snapshot, domain)?;
                continue;
            };
            self.suffixes.insert(suffix.into());
            // Where no rule for more specific hosts is left for a client, these are for them.
            self.suffixes.extend(trace.virtual_services.suffixes_ending(suffix).cloned());
            let of_services = format!(".svc.{domain}");
            if suffix.ends_with(&of_services) || of_services.ends_with(suffix) {
                for key in snapshot.services.keys() {
                    let host = fqdn(key, domain);
                    if host.ends_with(suffix) {
                        self.host(host.into(), snapshot, domain)?;
                    }
                }
            }
            let entries = snapshot.service_entries.values().flat_map(|entry| &entry.hosts);
            for host in entries.filter(|host| host.name.ends_with(suffix)) {
                self.host(Arc::clone(&host.name), snapshot, domain)?;
            }
            // Where clients do not see the rules for a host, those for many hosts are for it.
            for host in trace.virtual_services.ending(suffix) {
                self.host(Arc::clone(host), snapshot, domain)?;
            }
        }
        Some(())
    }

    fn host(&mut self, host: Arc<str>, snapshot: &Snapshot, domain: &str) -> Option<()> {
        if let Some(key) = named(&host, domain)
            && let Some(service) = snapshot.services.get(&key)
            && service.kind != ServiceType::ExternalName
        {
            if service.kind != ServiceType::ClusterIp || service.addresses.is_empty() {
                return None;
            }
            self.services.insert(key);
            return Some(());
        }
        let mut entries = snapshot.service_entries.values();
        let own = |entry: &crate::crd::ServiceEntry| entry.hosts.iter().any(|one| one.name == host);
        if entries.any(|entry| entry.resolution == Resolution::Static && own(entry)) {
            self.entries.insert(Arc::clone(&host));
        }
        // Whether clients ask for a ServiceEntry's host by address depends on who they are, and on other entries.
        self.others.insert(host);
        Some(())
    }
}

/// The nodes on which the pods and endpoints of a cut are, and were before the changes.
pub(super) fn nodes(cut: &Snapshot, changes: &[Change], snapshot: &Snapshot) -> BTreeMap<Key, Arc<ClusterNode>> {
    let before = || changes.iter().filter_map(|change| change.before.as_ref());
    let former_slices = before().filter_map(|object| match object {
        Object::EndpointSlice(slice) => Some(slice),
        _ => None,
    });
    let former_pods = before().filter_map(|object| match object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    });
    let told = cut.endpoint_slices.values().chain(former_slices).flat_map(|slice| &slice.endpoints);
    let told = told.filter_map(|endpoint| Some(&endpoint.at.as_ref()?.node));
    let nodes = told.chain(cut.pods.values().chain(former_pods).map(|pod| &pod.node));
    let found = nodes.filter_map(|node| snapshot.nodes.get_key_value(&(Arc::default(), Arc::clone(node))));
    found.map(|(key, node)| (key.clone(), Arc::clone(node))).collect()
}

/// Who is behind which address after the changes; `None` when a pod's change makes views others than they were.
pub(super) fn pod_table(
    changes: &[Change],
    snapshot: &Snapshot,
    program: &Program,
    options: &CompileOptions,
) -> Option<PodTable> {
    let mut pods = program.pods.clone();
    for change in changes.iter().filter(|change| &*change.object.kind == "Pod") {
        let now = snapshot.pods.get(&key_of(change));
        let before = match &change.before {
            Some(Object::Pod(before)) => Some(&**before),
            _ => None,
        };
        if !options.views.outlast(before, now.map(|pod| &**pod), snapshot, options) {
            return None;
        }
        pods.replace(before, now);
    }
    Some(pods)
}
