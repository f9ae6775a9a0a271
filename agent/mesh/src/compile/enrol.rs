//! The pods of this node that take part: who asked for it, and who cannot.

use std::sync::Arc;

use super::visibility::ViewTable;
use super::{CompileOptions, EXCLUDED_NAMESPACES, Findings};
use crate::crd::{self, Mark, Metadata, Pod};
use crate::finding::{Severity, code};
use crate::plan::EnrolledPod;
use crate::program::Workload;
use crate::snapshot::Snapshot;
use crate::source::ObjectRef;

const MODE: &str = "weir.mesh/mode";
const NETNS: &str = "weir.mesh/netns";
const CGROUP: &str = "weir.mesh/cgroup";

/// How the runtime classes of Kata Containers and gVisor are called. By another name, the agent knows them by their
/// processes.
const RUNTIMES_OF_THEIR_OWN: [&str; 3] = ["kata", "gvisor", "runsc"];

/// What Istio's own control plane is labelled with.
const CONTROL_PLANE: (&str, &str) = ("app", "istiod");

/// Whether Istio's labels opt in: not while Istio itself may act on them.
#[derive(Debug)]
pub(super) struct IstioLabels {
    /// Whether they count.
    pub(super) count: bool,
    /// Why they do not although they might: Istio's control plane.
    pub(super) because: Option<ObjectRef>,
}

impl IstioLabels {
    /// A control plane is a Service or Deployment of the root namespace, where no tenant can put one.
    pub(super) fn of(snapshot: &Snapshot, options: &CompileOptions) -> Self {
        let (key, value) = CONTROL_PLANE;
        let is_one = |meta: &Metadata| meta.label(key) == Some(value);
        let from = || (Arc::clone(&options.root_namespace), Arc::default())..;
        let services = snapshot.services.range(from()).map(|(_, one)| &one.meta);
        let deployments = snapshot.deployments.range(from()).map(|(_, one)| &one.meta);
        let is_own = |meta: &&Metadata| *meta.namespace() == options.root_namespace;
        let mut all = services.take_while(is_own).chain(deployments.take_while(is_own)).filter(|meta| is_one(meta));
        let because = all.next().filter(|_| options.accept_istio_labels).map(|meta| meta.object.clone());
        Self { count: options.accept_istio_labels && because.is_none(), because }
    }

    /// Why a pod does not take part that would but for the control plane.
    pub(super) fn why_not(&self, pod: &Metadata, namespace: Option<&Metadata>) -> Option<String> {
        let because = self.because.as_ref()?;
        wants(pod, namespace, true, &mut Findings::default()).then(|| not_counted(because))
    }

    /// Tells of every namespace whose label would count.
    fn tell(&self, snapshot: &Snapshot, findings: &mut Findings) {
        let Some(because) = &self.because else { return };
        for namespace in snapshot.namespaces.values().map(|namespace| &namespace.meta) {
            if by_istio(namespace) && namespace.label(MODE).is_none() {
                let help = "its pods are Istio's; where weir is to take them over, remove this label and give weir.mesh/mode=enabled";
                let message = format!("the namespace does not take part: {}", not_counted(because));
                let mark = Mark::default();
                findings.with_help(
                    Severity::Warning,
                    code::NOT_ENROLLED,
                    namespace,
                    mark,
                    message,
                    Some(help.to_owned()),
                );
            }
        }
    }
}

fn not_counted(because: &ObjectRef) -> String {
    format!("Istio's labels opt in to weir only while Istio's control plane is absent, and there is {because}")
}

fn by_istio(namespace: &Metadata) -> bool {
    namespace.label("istio-injection") == Some("enabled")
        || namespace.label("istio.io/dataplane-mode") == Some("ambient")
}

/// The enrolled pods, by `namespace/name`.
pub(super) fn enrol(
    snapshot: &Snapshot,
    options: &CompileOptions,
    istio: &IstioLabels,
    views: &ViewTable,
    findings: &mut Findings,
) -> std::collections::BTreeMap<Arc<str>, EnrolledPod> {
    let mut enrolled = std::collections::BTreeMap::new();
    istio.tell(snapshot, findings);
    for pod in snapshot.pods.values().filter(|pod| !pod.finished) {
        let meta = &pod.meta;
        let namespace = snapshot.namespace(meta.namespace()).map(|n| &n.meta);
        if !wants(meta, namespace, istio.count, findings) {
            continue;
        }
        if let Some(reason) = obstacle(pod) {
            findings.push(
                Severity::Warning,
                code::NOT_ENROLLED,
                meta,
                Mark::default(),
                format!("the pod does not take part: {reason}"),
            );
            continue;
        }
        let local = match &options.node {
            Some(node) => pod.node == *node,
            None => meta.annotation(NETNS).is_some(),
        };
        // A pod with a uid is found by it, and has its addresses in its namespace before the kubelet reports them.
        if local && !(pod.addresses.is_empty() && meta.uid().is_empty()) {
            let name: Arc<str> = format!("{}/{}", meta.namespace(), meta.name()).into();
            enrolled.insert(
                name,
                EnrolledPod {
                    namespace: Arc::clone(meta.namespace()),
                    name: Arc::clone(meta.name()),
                    uid: meta.uid(),
                    addresses: pod.addresses.to_vec(),
                    view: views.of(meta.namespace(), &meta.labels),
                    netns: meta.annotations.get(NETNS).cloned(),
                    cgroup: meta.annotations.get(CGROUP).cloned(),
                    workload: Arc::new(Workload::of(pod)),
                },
            );
        }
    }
    enrolled
}

/// The pod's own word wins over its namespace's, and weir's label over Istio's.
pub(super) fn wants(pod: &Metadata, namespace: Option<&Metadata>, by_istio_too: bool, findings: &mut Findings) -> bool {
    if let Some(mode) = mode(pod, findings) {
        return mode;
    }
    if by_istio_too {
        let injected = pod.label("sidecar.istio.io/inject").or(pod.annotation("sidecar.istio.io/inject"));
        match (pod.label("istio.io/dataplane-mode"), injected) {
            (Some("none"), _) | (_, Some("false")) => return false,
            (Some("ambient"), _) | (_, Some("true")) => return true,
            _ => {}
        }
    }
    let Some(namespace) = namespace else {
        return false;
    };
    if let Some(mode) = mode(namespace, findings) {
        return mode;
    }
    by_istio_too && by_istio(namespace)
}

fn mode(meta: &Metadata, findings: &mut Findings) -> Option<bool> {
    match meta.label(MODE)? {
        "enabled" => Some(true),
        "disabled" => Some(false),
        other => {
            let message = format!("label {MODE} must be enabled or disabled, is `{other}`: it is not looked at");
            findings.push(Severity::Error, code::BAD_SETTING, meta, Mark::default(), message);
            None
        }
    }
}

/// Why a pod that wants to take part cannot.
pub(super) fn obstacle(pod: &Pod) -> Option<String> {
    let meta = &pod.meta;
    if EXCLUDED_NAMESPACES.contains(&&**meta.namespace()) {
        return Some(format!("namespace {} never does", meta.namespace()));
    }
    if pod.spec.host_network {
        return Some("it is on the host's network, which it shares with others".to_owned());
    }
    if RUNTIMES_OF_THEIR_OWN.iter().any(|name| pod.spec.runtime_class.starts_with(name)) {
        return Some(format!(
            "runtime class {} has a network that the node's kernel does not see",
            pod.spec.runtime_class
        ));
    }
    let sidecar = pod.spec.containers.iter().find(|name| crd::is_other_mesh(name));
    if let Some(sidecar) = sidecar {
        return Some(format!("another mesh captures it (container {sidecar})"));
    }
    if meta.annotation("sidecar.istio.io/status").is_some() {
        return Some("another mesh captures it (annotation sidecar.istio.io/status)".to_owned());
    }
    if meta.annotation("ambient.istio.io/redirection") == Some("enabled") {
        return Some("another mesh captures it (annotation ambient.istio.io/redirection)".to_owned());
    }
    None
}
