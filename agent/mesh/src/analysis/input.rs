//! The objects as the analyzers need them: indexed once, with typed views of what many of them look at. Made by
//! [`super::analyze`] from [`Sources`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::hosts::Hosts;
use super::sources::{Kinds, Resource, Sources};
use super::tree::Tree;
use super::workloads::Workloads;
use crate::compile::{CompileOptions, expand, is_opted_in};
use crate::crd::{Labels, Mark, Node};
use crate::source::ObjectRef;

/// Group of Istio's traffic objects.
pub(super) const NETWORKING: &str = "networking.istio.io";
/// Group of Istio's policies.
pub(super) const SECURITY: &str = "security.istio.io";
/// Group of Telemetry.
pub(super) const TELEMETRY: &str = "telemetry.istio.io";
/// Group of the Gateway API.
pub(super) const GATEWAY_API: &str = "gateway.networking.k8s.io";
/// The name under which `gateways` means the clients in the mesh.
pub(super) const MESH: &str = "mesh";
/// What Kubernetes itself runs in: nothing in it is analyzed.
pub(super) const IGNORED_NAMESPACES: [&str; 4] =
    ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// All that an analyzer may look at.
pub(super) struct Input<'s> {
    pub(super) sources: &'s Sources,
    kinds: Kinds<'s>,
    pub(super) virtual_services: Vec<VirtualService<'s>>,
    pub(super) destination_rules: Vec<DestinationRule<'s>>,
    pub(super) gateways: Vec<Gateway<'s>>,
    pub(super) services: Vec<Service<'s>>,
    pub(super) workloads: Workloads<'s>,
    pub(super) hosts: Hosts<'s>,
    namespaces: BTreeMap<&'s str, &'s Resource>,
    rules_by_host: HashMap<Arc<str>, Vec<usize>>,
    /// Namespaces with something that takes part in the mesh.
    taking_part: BTreeSet<&'s str>,
    /// Objects that validation refuses: nothing of them will be in force.
    refused: &'s BTreeSet<&'s ObjectRef>,
}

/// A VirtualService.
pub(super) struct VirtualService<'s> {
    pub(super) resource: &'s Resource,
    pub(super) hosts: Vec<&'s Node>,
    pub(super) gateways: Vec<&'s Node>,
    pub(super) export_to: Vec<Arc<str>>,
    pub(super) http: &'s [Node],
    /// Of http, tls and tcp rules and their mirrors.
    pub(super) destinations: Vec<Destination<'s>>,
}

/// Somewhere that a rule sends to.
pub(super) struct Destination<'s> {
    /// `http[0].route[1]`
    pub(super) path: String,
    pub(super) is_mirror: bool,
    pub(super) is_http: bool,
    pub(super) host: &'s str,
    /// Of the host.
    pub(super) mark: Mark,
    pub(super) subset: &'s str,
    pub(super) port: Option<i64>,
    pub(super) has_port: bool,
}

/// A DestinationRule.
pub(super) struct DestinationRule<'s> {
    pub(super) resource: &'s Resource,
    /// In full.
    pub(super) host: Arc<str>,
    pub(super) written: &'s str,
    pub(super) export_to: Vec<Arc<str>>,
    pub(super) policy: Option<&'s Node>,
    pub(super) subsets: &'s [Node],
}

/// A Gateway of Istio's.
pub(super) struct Gateway<'s> {
    pub(super) resource: &'s Resource,
    pub(super) selector: Labels,
    pub(super) servers: &'s [Node],
}

/// A Service.
pub(super) struct Service<'s> {
    pub(super) resource: &'s Resource,
    pub(super) selector: Labels,
    pub(super) ports: &'s [Node],
    pub(super) is_external_name: bool,
}

impl<'s> Input<'s> {
    pub(super) fn new(sources: &'s Sources, refused: &'s BTreeSet<&'s ObjectRef>) -> Self {
        let mut kinds = Kinds::new();
        for resource in sources.resources() {
            kinds.entry((resource.group(), resource.kind())).or_default().push(resource);
        }
        let of = |group, kind| kinds.get(&(group, kind)).map_or(&[][..], Vec::as_slice);
        let options = &sources.options().compile;
        let namespaces: BTreeMap<&str, &Resource> = of("", "Namespace").iter().map(|r| (&**r.name(), *r)).collect();
        let domain = &options.cluster_domain;
        let services: Vec<_> = of("", "Service").iter().map(|r| Service::new(r)).collect();
        let hosts = Hosts::new(&services, of(NETWORKING, "ServiceEntry"), domain);
        let virtual_services = of(NETWORKING, "VirtualService").iter().map(|r| VirtualService::new(r)).collect();
        let destination_rules: Vec<DestinationRule<'_>> =
            of(NETWORKING, "DestinationRule").iter().map(|r| DestinationRule::new(r, domain)).collect();
        let mut rules_by_host: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
        for (index, rule) in destination_rules.iter().enumerate() {
            rules_by_host.entry(Arc::clone(&rule.host)).or_default().push(index);
        }
        let gateways = of(NETWORKING, "Gateway").iter().map(|r| Gateway::new(r)).collect();
        let workloads = Workloads::new(&kinds, &namespaces, options);
        let mut taking_part: BTreeSet<&str> =
            workloads.all().iter().filter(|w| w.in_mesh).map(|w| &**w.resource.namespace()).collect();
        taking_part.extend(namespaces.values().filter(|r| asks(r, options)).map(|r| &**r.name()));
        Self {
            sources,
            kinds,
            virtual_services,
            destination_rules,
            gateways,
            services,
            workloads,
            hosts,
            namespaces,
            rules_by_host,
            taking_part,
            refused,
        }
    }

    /// The objects of a kind, in the order of their names.
    pub(super) fn all(&self, group: &str, kind: &str) -> &[&'s Resource] {
        // The map borrows its keys for as long as the sources live, longer than a caller's words do.
        self.kinds.iter().find(|((g, k), _)| *g == group && *k == kind).map_or(&[], |(_, found)| found)
    }

    /// An object by name.
    pub(super) fn find(&self, group: &str, kind: &str, namespace: &str, name: &str) -> Option<&'s Resource> {
        let all = self.all(group, kind);
        let key = |r: &Resource| (Arc::clone(r.namespace()), Arc::clone(r.name()));
        let place = all.partition_point(|r| (&**r.namespace(), &**r.name()) < (namespace, name));
        all.get(place).filter(|r| key(r) == (namespace.into(), name.into())).copied()
    }

    /// Whether validation refuses the object, so that others find nothing of it.
    pub(super) fn is_refused(&self, resource: &Resource) -> bool {
        self.refused.contains(&resource.meta.object)
    }

    /// The DestinationRules of all namespaces for exactly this host.
    pub(super) fn rules_for(&self, host: &str) -> impl Iterator<Item = &DestinationRule<'s>> {
        self.rules_by_host.get(host).into_iter().flatten().map(|index| &self.destination_rules[*index])
    }

    /// The namespaces with something that takes part in the mesh.
    pub(super) fn taking_part(&self) -> &BTreeSet<&'s str> {
        &self.taking_part
    }

    pub(super) fn namespace(&self, name: &str) -> Option<&'s Resource> {
        self.namespaces.get(name).copied()
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = &'s Resource> {
        self.namespaces.values().copied()
    }

    /// A host of a rule in `namespace`, in full.
    pub(super) fn expand(&self, host: &str, namespace: &str) -> Arc<str> {
        expand(host, namespace, &self.sources.options().compile.cluster_domain)
    }

    pub(super) fn root_namespace(&self) -> &str {
        &self.sources.options().compile.root_namespace
    }

    /// The Gateway that a VirtualService in `namespace` means.
    pub(super) fn gateway(&self, reference: &str, namespace: &str) -> Option<&Gateway<'s>> {
        let (namespace, name) = full_name(reference, namespace);
        let place = self.gateways.partition_point(|gateway| {
            (&**gateway.resource.namespace(), &**gateway.resource.name()) < (namespace, name)
        });
        self.gateways
            .get(place)
            .filter(|gateway| &**gateway.resource.namespace() == namespace && &**gateway.resource.name() == name)
    }
}

/// Whether a pod of this namespace takes part that says nothing itself.
fn asks(namespace: &Resource, options: &CompileOptions) -> bool {
    let pod = namespace.meta.labelled(Labels::new(), Labels::new());
    is_opted_in(&pod, Some(&namespace.meta), options)
}

/// `namespace/name`, or a name within `namespace`.
pub(super) fn full_name<'r>(reference: &'r str, namespace: &'r str) -> (&'r str, &'r str) {
    reference.split_once('/').unwrap_or((namespace, reference))
}

fn export_to(node: &Node, path: &str) -> Vec<Arc<str>> {
    node.texts(path).filter_map(Node::text).map(Arc::from).collect()
}

impl<'s> VirtualService<'s> {
    fn new(resource: &'s Resource) -> Self {
        let node = &resource.node;
        Self {
            resource,
            hosts: node.texts("spec.hosts").collect(),
            gateways: node.texts("spec.gateways").collect(),
            export_to: export_to(node, "spec.exportTo"),
            http: node.items("spec.http"),
            destinations: destinations(node),
        }
    }

    pub(super) fn namespace(&self) -> &'s Arc<str> {
        self.resource.namespace()
    }

    /// For clients in the mesh, and not for gateways alone.
    pub(super) fn in_mesh(&self) -> bool {
        self.gateways.is_empty() || self.gateways.iter().any(|gateway| gateway.text() == Some(MESH))
    }

    /// The namespaces whose clients see it; empty = all.
    pub(super) fn seen_in(&self) -> Vec<&str> {
        scopes(&self.export_to, self.namespace())
    }
}

/// The namespaces of an `exportTo`; empty = all.
pub(super) fn scopes<'r>(export_to: &'r [Arc<str>], own: &'r str) -> Vec<&'r str> {
    if crate::compile::is_public(export_to) {
        return Vec::new();
    }
    let mut found: Vec<&str> = export_to.iter().map(|name| if &**name == "." { own } else { &**name }).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn destinations(node: &Node) -> Vec<Destination<'_>> {
    let mut found = Vec::new();
    for protocol in ["tcp", "tls", "http"] {
        let is_http = protocol == "http";
        for (i, rule) in node.items(&format!("spec.{protocol}")).iter().enumerate() {
            for (j, route) in rule.items("route").iter().enumerate() {
                found.extend(
                    route
                        .at("destination")
                        .map(|to| Destination::new(to, format!("{protocol}[{i}].route[{j}]"), is_http, false)),
                );
            }
            if is_http {
                let one = rule.at("mirror").map(|to| (to, format!("http[{i}].mirror")));
                let many = rule.items("mirrors").iter().enumerate();
                let many =
                    many.filter_map(|(j, mirror)| Some((mirror.at("destination")?, format!("http[{i}].mirrors[{j}]"))));
                found.extend(one.into_iter().chain(many).map(|(to, path)| Destination::new(to, path, true, true)));
            }
        }
    }
    found
}

impl<'s> Destination<'s> {
    fn new(to: &'s Node, path: String, is_http: bool, is_mirror: bool) -> Self {
        Self {
            path,
            is_mirror,
            is_http,
            host: to.text_at("host"),
            mark: to.mark_of("host"),
            subset: to.text_at("subset"),
            port: to.int_at("port.number"),
            has_port: to.at("port").is_some(),
        }
    }
}

impl<'s> DestinationRule<'s> {
    fn new(resource: &'s Resource, domain: &str) -> Self {
        let node = &resource.node;
        let written = node.text_at("spec.host");
        Self {
            resource,
            host: expand(written, resource.namespace(), domain),
            written,
            export_to: export_to(node, "spec.exportTo"),
            policy: node.at("spec.trafficPolicy"),
            subsets: node.items("spec.subsets"),
        }
    }
}

impl<'s> Gateway<'s> {
    fn new(resource: &'s Resource) -> Self {
        let node = &resource.node;
        Self { resource, selector: node.labels("spec.selector"), servers: node.items("spec.servers") }
    }
}

impl<'s> Service<'s> {
    fn new(resource: &'s Resource) -> Self {
        let node = &resource.node;
        Self {
            resource,
            selector: node.labels("spec.selector"),
            ports: node.items("spec.ports"),
            is_external_name: node.text_at("spec.type") == "ExternalName",
        }
    }
}
