//! Pods, and what pods will be made from: the templates of Deployments and their like. Part of [`super::input`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::sources::{Kinds, Resource};
use super::tree::{Tree, selects};
use crate::compile::{CompileOptions, is_opted_in};
use crate::crd::{Labels, Metadata, Node};

/// Kinds whose template makes pods.
const TEMPLATES: [(&str, &str); 5] =
    [("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "DaemonSet"), ("apps", "ReplicaSet"), ("batch", "Job")];
/// Of a node, what its pods count as labelled with.
const TOPOLOGY: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];
/// The label that has the name of a pod's node.
const HOSTNAME: &str = "kubernetes.io/hostname";
/// What another mesh's node proxy marks the pods with that it captures.
const REDIRECTION: &str = "ambient.istio.io/redirection";

/// All of them.
pub(super) struct Workloads<'s> {
    all: Vec<Workload<'s>>,
    by_namespace: BTreeMap<Arc<str>, Vec<usize>>,
    by_label: HashMap<(Arc<str>, Arc<str>), Vec<usize>>,
}

/// A pod, or a template of pods.
pub(super) struct Workload<'s> {
    /// The Pod, or whose template it is.
    pub(super) resource: &'s Resource,
    /// Those of the pod's node included.
    pub(super) labels: Labels,
    pub(super) is_pod: bool,
    /// Pods that it stands for.
    pub(super) replicas: i64,
    /// It takes part in the mesh, or in another.
    pub(super) in_mesh: bool,
    /// Captured by another mesh's node proxy.
    pub(super) is_ambient: bool,
}

impl<'s> Workloads<'s> {
    pub(super) fn new(
        kinds: &Kinds<'s>,
        namespaces: &BTreeMap<&'s str, &'s Resource>,
        options: &CompileOptions,
    ) -> Self {
        let of = |group, kind| kinds.get(&(group, kind)).map_or(&[][..], Vec::as_slice);
        let nodes: BTreeMap<&str, &Resource> = of("", "Node").iter().map(|node| (&**node.name(), *node)).collect();
        let mut all = Vec::new();
        for pod in of("", "Pod") {
            if matches!(pod.node.text_at("status.phase"), "Succeeded" | "Failed") {
                continue;
            }
            let mut labels = (*pod.meta.labels).clone();
            augment(&mut labels, pod.node.text_at("spec.nodeName"), &nodes);
            all.push(Workload::new(pod, labels, &pod.meta, pod.node.at("spec"), namespaces, options));
        }
        for (group, kind) in TEMPLATES {
            for owner in of(group, kind) {
                // A ReplicaSet or Job that something else made is the same template again.
                if !owner.node.items("metadata.ownerReferences").is_empty() {
                    continue;
                }
                let Some(template) = owner.node.at("spec.template") else { continue };
                let labels = template.labels("metadata.labels");
                let meta = owner.meta.labelled(labels.clone(), template.labels("metadata.annotations"));
                all.push(Workload::new(owner, labels, &meta, template.at("spec"), namespaces, options));
            }
        }
        let mut by_namespace: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
        let mut by_label: HashMap<(Arc<str>, Arc<str>), Vec<usize>> = HashMap::new();
        for (index, workload) in all.iter().enumerate() {
            by_namespace.entry(Arc::clone(workload.resource.namespace())).or_default().push(index);
            for (key, value) in workload.labels.iter() {
                by_label.entry((Arc::clone(key), Arc::clone(value))).or_default().push(index);
            }
        }
        Self { all, by_namespace, by_label }
    }

    pub(super) fn all(&self) -> &[Workload<'s>] {
        &self.all
    }

    /// Those that have all of these labels, in one namespace or (`None`) in all of them. No label selects everything.
    pub(super) fn select(&self, namespace: Option<&str>, selector: &Labels) -> Vec<&Workload<'s>> {
        let of_label = |(key, value): (&Arc<str>, &Arc<str>)| {
            self.by_label.get(&(Arc::clone(key), Arc::clone(value))).map_or(&[][..], Vec::as_slice)
        };
        let of_namespace = namespace.map(|name| self.by_namespace.get(name).map_or(&[][..], Vec::as_slice));
        let fits = |workload: &&Workload<'_>| {
            namespace.is_none_or(|name| &**workload.resource.namespace() == name) && selects(selector, &workload.labels)
        };
        match selector.iter().map(of_label).chain(of_namespace).min_by_key(|list| list.len()) {
            Some(list) => list.iter().map(|index| &self.all[*index]).filter(fits).collect(),
            None => self.all.iter().collect(),
        }
    }
}

impl<'s> Workload<'s> {
    fn new(
        resource: &'s Resource,
        labels: Labels,
        meta: &Metadata,
        spec: Option<&'s Node>,
        namespaces: &BTreeMap<&'s str, &'s Resource>,
        options: &CompileOptions,
    ) -> Self {
        let namespace = namespaces.get(&**resource.namespace()).map(|namespace| &namespace.meta);
        let is_ambient = meta.annotation(REDIRECTION) == Some("enabled");
        let has_proxy = ["containers", "initContainers"].iter().any(|list| {
            let containers = spec.map_or(&[][..], |spec| spec.items(list));
            containers.iter().any(|container| container.text_at("name") == "istio-proxy")
        });
        let is_pod = resource.kind() == "Pod";
        Self {
            resource,
            labels,
            is_pod,
            replicas: if is_pod { 1 } else { resource.node.int_at("spec.replicas").unwrap_or(1).max(0) },
            in_mesh: has_proxy || is_ambient || is_opted_in(meta, namespace, options),
            is_ambient,
        }
    }
}

/// Adds what a pod counts as labelled with because of its node.
fn augment(labels: &mut Labels, node: &str, nodes: &BTreeMap<&str, &Resource>) {
    let Some(found) = nodes.get(node) else { return };
    let topology = TOPOLOGY.iter().filter_map(|key| Some((Arc::from(*key), Arc::from(found.meta.label(key)?))));
    *labels = labels.with(topology.chain([(HOSTNAME.into(), node.into())]));
}
