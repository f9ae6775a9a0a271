//! Policies that this version does not enforce: what they protect refuses, and never stays open silently.
//!
//! AuthorizationPolicies and RequestAuthentications restrict each by itself, and so do BackendTLSPolicies, of whole
//! Services or of single ports: what they are for would be reached by plain text. Of PeerAuthentications one is in force for a
//! port of a pod: one that selects the pod before that of its namespace, and that before that of the mesh; of several the
//! oldest.

use super::registry::{Backend, Map, Registered, RegisteredPort, Registry, has_labels};
use super::{CompileOptions, EXCLUDED_NAMESPACES, Findings};
use crate::crd::{Mark, MutualTls, Pod, Protection};
use crate::finding::{Severity, code};
use crate::snapshot::Snapshot;

/// For each service and each of its ports, the first policy for which it must refuse.
pub(super) type Guards<'s> = Vec<Box<[Option<&'s Protection>]>>;

/// Looks at all services.
pub(super) fn guards<'s>(
    snapshot: &'s Snapshot,
    registry: &Registry<'_>,
    options: &CompileOptions,
    findings: &mut Findings,
) -> Guards<'s> {
    let peers = PeerAuthentications::new(snapshot, options);
    let mut by_namespace: Map<&str, Vec<&Protection>> = Map::default();
    for protection in snapshot.protections.values().filter(|p| p.restricts) {
        if protection.mtls.is_none() {
            by_namespace.entry(protection.meta.namespace()).or_default().push(protection);
        }
        // What is wrong with one that cannot be read, and what it does, was said by whoever read it.
        if protection.broken || !peers.may_be_in_force(protection) {
            continue;
        }
        findings.push(
            Severity::Error,
            code::NOT_ENFORCED,
            &protection.meta,
            Mark::default(),
            format!(
                "{} is not enforced by this version: clients in the mesh are refused by the service ports in front of what it protects",
                protection.meta.object.kind
            ),
        );
    }
    let of = |namespace: &str| by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default();
    let whole = |service: &Registered<'_>| {
        let namespace = &**service.namespace();
        let mut own = of(namespace).iter().filter(|p| selects(p, service, registry));
        let is_above = *options.root_namespace != *namespace && !EXCLUDED_NAMESPACES.contains(&namespace);
        let root = if is_above { of(&options.root_namespace) } else { &[][..] };
        let mut root = root.iter().filter(|p| !p.is_backend_tls() && selects(p, service, registry));
        own.next().or_else(|| root.next()).copied()
    };
    let each = |service: &Registered<'_>| {
        let whole = whole(service);
        let of_port = |port: &RegisteredPort<'_>| {
            let targeting = of(service.namespace()).iter().find(|p| targets(p, service, port)).copied();
            targeting.or(whole).or_else(|| peers.of_port(service, port, registry))
        };
        service.ports.iter().map(of_port).collect()
    };
    registry.services.iter().map(each).collect()
}

/// One that names the service, and the port where it names one.
fn targets(protection: &Protection, service: &Registered<'_>, port: &RegisteredPort<'_>) -> bool {
    let is_of = |section: Option<&str>| section.is_none_or(|name| *name == *port.port.name);
    service.entry.is_none()
        && protection.services.iter().any(|one| one.name == *service.name() && is_of(one.port.as_deref()))
}

fn selects(protection: &Protection, service: &Registered<'_>, registry: &Registry<'_>) -> bool {
    if !protection.services.is_empty() {
        return false;
    }
    let selected = |backend: &Backend| match backend.pod.map(|index| registry.pods.get(index)) {
        Some(pod) => !pod.spec.host_network && has_labels(&pod.meta.labels, &protection.selector),
        None => backend.is_pod,
    };
    service.ports.iter().any(|port| port.endpoints.iter().any(selected))
}

/// The PeerAuthentications that can be read, of each level the oldest first.
struct PeerAuthentications<'s> {
    mesh: Option<Peer<'s>>,
    namespaces: Map<&'s str, Peer<'s>>,
    workloads: Map<&'s str, Vec<Peer<'s>>>,
}

type Peer<'s> = (&'s Protection, &'s MutualTls);

impl<'s> PeerAuthentications<'s> {
    fn new(snapshot: &'s Snapshot, options: &CompileOptions) -> Self {
        let mut all: Vec<Peer<'_>> =
            snapshot.protections.values().filter_map(|one| Some((&**one, one.mtls.as_ref()?))).collect();
        all.sort_by(|(a, _), (b, _)| a.meta.seniority().cmp(&b.meta.seniority()));
        let mut sorted = Self { mesh: None, namespaces: Map::default(), workloads: Map::default() };
        for peer in all {
            let namespace = peer.0.meta.namespace();
            match (*namespace == options.root_namespace, peer.0.selector.is_empty()) {
                (true, true) => drop(sorted.mesh.get_or_insert(peer)),
                // A selector in the root namespace selects nothing.
                (true, false) => {}
                (false, true) => drop(sorted.namespaces.entry(namespace).or_insert(peer)),
                (false, false) => sorted.workloads.entry(namespace).or_default().push(peer),
            }
        }
        sorted
    }

    /// False for what another one of its level, or its place, keeps from being in force anywhere.
    fn may_be_in_force(&self, protection: &Protection) -> bool {
        let is_this = |peer: &Peer<'_>| std::ptr::eq(peer.0, protection);
        let namespace = &**protection.meta.namespace();
        protection.mtls.is_none()
            || self.mesh.iter().any(is_this)
            || self.namespaces.get(namespace).is_some_and(is_this)
            || self.workloads.get(namespace).is_some_and(|own| own.iter().any(is_this))
    }

    /// The one for which a port of a service must refuse.
    fn of_port(
        &self,
        service: &Registered<'_>,
        port: &RegisteredPort<'_>,
        registry: &Registry<'_>,
    ) -> Option<&'s Protection> {
        let namespace = &**service.namespace();
        port.endpoints.iter().find_map(|backend| match backend.pod.map(|index| registry.pods.get(index)) {
            Some(pod) => self.of_pod(namespace, pod, backend.address.port()),
            None if backend.is_pod => self.of_some_pod(namespace),
            None => None,
        })
    }

    fn of_pod(&self, namespace: &str, pod: &Pod, port: u16) -> Option<&'s Protection> {
        if pod.spec.host_network {
            return None;
        }
        let own = self.workloads.get(namespace).into_iter().flatten();
        let own = own.into_iter().find(|(one, _)| has_labels(&pod.meta.labels, &one.selector));
        let of_port = own.and_then(|(one, mtls)| Some((*one, mtls.of_port(port)?)));
        let above = [own, self.namespaces.get(namespace), self.common(namespace)];
        let in_force =
            of_port.or_else(|| above.into_iter().flatten().find_map(|(one, mtls)| Some((*one, mtls.strict?))));
        in_force.filter(|(_, strict)| *strict).map(|(one, _)| one)
    }

    /// Of a pod that is not known, as it may be any: what is strict for one of its namespace.
    fn of_some_pod(&self, namespace: &str) -> Option<&'s Protection> {
        let own = self.workloads.get(namespace).into_iter().flatten().find(|(one, _)| one.restricts);
        let mut above = [self.namespaces.get(namespace), self.common(namespace)].into_iter().flatten();
        let above = above.find(|(_, mtls)| mtls.strict.is_some()).filter(|(_, mtls)| mtls.strict == Some(true));
        own.or(above).map(|(one, _)| *one)
    }

    fn common(&self, namespace: &str) -> Option<&Peer<'s>> {
        self.mesh.as_ref().filter(|_| !EXCLUDED_NAMESPACES.contains(&namespace))
    }
}
