//! What the server serves: the table of built-in kinds, and what a CustomResourceDefinition adds to it. Read by every
//! other module of the server.

use std::sync::Arc;

use serde_json::Value;

use super::status::Status;

/// One version of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) name: Arc<str>,
    pub(super) served: bool,
    pub(super) storage: bool,
    /// Has a status subresource.
    pub(super) status: bool,
}

/// A kind of objects and how it is reached.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    /// `pods`, `virtualservices.networking.istio.io`: what tables and counters are named by.
    pub(super) id: Arc<str>,
    pub(super) group: Arc<str>,
    pub(super) versions: Vec<Version>,
    pub(super) kind: Arc<str>,
    pub(super) plural: Arc<str>,
    pub(super) singular: Arc<str>,
    pub(super) short: Vec<Arc<str>>,
    pub(super) namespaced: bool,
    /// Made by a CustomResourceDefinition.
    pub(super) custom: bool,
    /// Counts changes of what is neither metadata nor status in `metadata.generation`.
    pub(super) generation: bool,
    /// Paths that a field selector may name besides `metadata.name` and `metadata.namespace`.
    pub(super) fields: &'static [&'static str],
}

impl Resource {
    pub(super) fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.served && &*v.name == name)
    }

    /// `v1`, `apps/v1`.
    pub(super) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }
}

/// `pods`, `leases.coordination.k8s.io`.
pub(super) fn id(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// A row of the table below.
struct BuiltIn {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    status: bool,
    fields: &'static [&'static str],
}

const fn namespaced(group: &'static str, kind: &'static str, plural: &'static str) -> BuiltIn {
    BuiltIn { group, version: "v1", kind, plural, short: &[], namespaced: true, status: false, fields: &[] }
}

const fn cluster(group: &'static str, kind: &'static str, plural: &'static str) -> BuiltIn {
    BuiltIn { namespaced: false, ..namespaced(group, kind, plural) }
}

impl BuiltIn {
    const fn status(self) -> Self {
        Self { status: true, ..self }
    }

    const fn short(self, short: &'static [&'static str]) -> Self {
        Self { short, ..self }
    }

    const fn fields(self, fields: &'static [&'static str]) -> Self {
        Self { fields, ..self }
    }
}

const APPS: &str = "apps";
const RBAC: &str = "rbac.authorization.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

/// The group under which events are served a second time, in the shape of `events.k8s.io/v1`.
pub(super) const EVENTS_GROUP: &str = "events.k8s.io";
/// The table of CustomResourceDefinitions.
pub(super) const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.uid",
    "reason",
    "reportingComponent",
    "type",
];
const POD_FIELDS: &[&str] =
    &["spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase", "status.podIP"];

const BUILT_IN: &[BuiltIn] = &[
    cluster("", "Namespace", "namespaces").status().short(&["ns"]).fields(&["status.phase"]),
    cluster("", "Node", "nodes").status().short(&["no"]).fields(&["spec.unschedulable"]),
    namespaced("", "Pod", "pods").status().short(&["po"]).fields(POD_FIELDS),
    namespaced("", "Service", "services").status().short(&["svc"]).fields(&["spec.clusterIP", "spec.type"]),
    namespaced("", "Endpoints", "endpoints").short(&["ep"]),
    namespaced("", "Event", "events").short(&["ev"]).fields(EVENT_FIELDS),
    namespaced("", "ConfigMap", "configmaps").short(&["cm"]),
    namespaced("", "Secret", "secrets").fields(&["type"]),
    namespaced("", "ServiceAccount", "serviceaccounts").short(&["sa"]),
    namespaced("discovery.k8s.io", "EndpointSlice", "endpointslices"),
    namespaced(APPS, "Deployment", "deployments").status().short(&["deploy"]),
    namespaced(APPS, "DaemonSet", "daemonsets").status().short(&["ds"]),
    namespaced(APPS, "ReplicaSet", "replicasets").status().short(&["rs"]),
    namespaced(APPS, "StatefulSet", "statefulsets").status().short(&["sts"]),
    namespaced(APPS, "ControllerRevision", "controllerrevisions"),
    namespaced("batch", "Job", "jobs").status(),
    namespaced("batch", "CronJob", "cronjobs").status().short(&["cj"]),
    namespaced("coordination.k8s.io", "Lease", "leases"),
    cluster("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions")
        .status()
        .short(&["crd", "crds"]),
    namespaced(RBAC, "Role", "roles"),
    namespaced(RBAC, "RoleBinding", "rolebindings"),
    cluster(RBAC, "ClusterRole", "clusterroles"),
    cluster(RBAC, "ClusterRoleBinding", "clusterrolebindings"),
    namespaced(NETWORKING, "NetworkPolicy", "networkpolicies").short(&["netpol"]),
    namespaced(NETWORKING, "Ingress", "ingresses").status().short(&["ing"]),
    namespaced("policy", "PodDisruptionBudget", "poddisruptionbudgets").status().short(&["pdb"]),
    cluster("scheduling.k8s.io", "PriorityClass", "priorityclasses").short(&["pc"]),
    cluster(ADMISSION, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
    cluster(ADMISSION, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
    cluster("certificates.k8s.io", "CertificateSigningRequest", "certificatesigningrequests")
        .status()
        .short(&["csr"])
        .fields(&["spec.signerName"]),
];

/// Groups whose built-in kinds count generations.
const COUNTED: &[&str] = &[APPS, "batch", "policy", "apiextensions.k8s.io", NETWORKING, ADMISSION];

/// Every built-in resource.
pub(super) fn built_in() -> Vec<Resource> {
    let resource = |row: &BuiltIn| Resource {
        id: id(row.group, row.plural).into(),
        group: row.group.into(),
        versions: vec![Version { name: row.version.into(), served: true, storage: true, status: row.status }],
        kind: row.kind.into(),
        plural: row.plural.into(),
        singular: row.kind.to_lowercase().into(),
        short: row.short.iter().map(|s| Arc::from(*s)).collect(),
        namespaced: row.namespaced,
        custom: false,
        generation: COUNTED.contains(&row.group),
        fields: row.fields,
    };
    BUILT_IN.iter().map(resource).collect()
}

/// What a CustomResourceDefinition asks to be served.
///
/// # Errors
/// 422 when it lacks what is needed, as the real server says.
pub(super) fn custom(crd: &Value) -> Result<Resource, Status> {
    let text = |pointer: &str| -> Result<Arc<str>, Status> {
        let found = crd.pointer(pointer).and_then(Value::as_str).filter(|t| !t.is_empty());
        found
            .map(Arc::from)
            .ok_or_else(|| Status::invalid(&format!("CustomResourceDefinition is invalid: {pointer}: Required value")))
    };
    let (group, plural, kind) = (text("/spec/group")?, text("/spec/names/plural")?, text("/spec/names/kind")?);
    let id: Arc<str> = id(&group, &plural).into();
    if text("/metadata/name")? != id {
        return Err(Status::invalid(&format!("metadata.name: must be spec.names.plural+\".\"+spec.group ({id})")));
    }
    let names = &crd["spec"]["names"];
    let versions: Vec<Version> = crd["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| {
            Some(Version {
                name: v["name"].as_str()?.into(),
                served: v["served"].as_bool().unwrap_or_default(),
                storage: v["storage"].as_bool().unwrap_or_default(),
                status: v["subresources"]["status"].is_object(),
            })
        })
        .collect();
    if versions.iter().filter(|v| v.storage).count() != 1 {
        return Err(Status::invalid("spec.versions: must have exactly one version marked as storage version"));
    }
    let strings = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_str).map(Arc::from).collect();
    Ok(Resource {
        singular: names["singular"].as_str().map_or_else(|| kind.to_lowercase().into(), Arc::from),
        short: strings(&names["shortNames"]),
        namespaced: crd["spec"]["scope"] == "Namespaced",
        custom: true,
        generation: true,
        fields: &[],
        id,
        group,
        versions,
        kind,
        plural,
    })
}

/// Kinds of Istio that come with its CustomResourceDefinitions: group, versions (the first is stored), kind, plural,
/// short name.
pub(super) const ISTIO: &[(&str, &[&str], &str, &str, &str)] = &[
    ("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "VirtualService", "virtualservices", "vs"),
    ("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "DestinationRule", "destinationrules", "dr"),
    ("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "Gateway", "gateways", "gw"),
    ("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "ServiceEntry", "serviceentries", "se"),
    ("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "Sidecar", "sidecars", "sidecar"),
    ("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "WorkloadEntry", "workloadentries", "we"),
    ("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "WorkloadGroup", "workloadgroups", "wg"),
    ("networking.istio.io", &["v1beta1"], "ProxyConfig", "proxyconfigs", ""),
    ("networking.istio.io", &["v1alpha3"], "EnvoyFilter", "envoyfilters", ""),
    ("security.istio.io", &["v1", "v1beta1"], "AuthorizationPolicy", "authorizationpolicies", "ap"),
    ("security.istio.io", &["v1", "v1beta1"], "PeerAuthentication", "peerauthentications", "pa"),
    ("security.istio.io", &["v1", "v1beta1"], "RequestAuthentication", "requestauthentications", "ra"),
    ("telemetry.istio.io", &["v1", "v1alpha1"], "Telemetry", "telemetries", "telemetry"),
    ("extensions.istio.io", &["v1alpha1"], "WasmPlugin", "wasmplugins", ""),
];

/// The CustomResourceDefinition of a kind without a schema of its own: everything is kept, status is a subresource.
pub(super) fn definition((group, versions, kind, plural, short): (&str, &[&str], &str, &str, &str)) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(at, name)| {
            serde_json::json!({
                "name": name, "served": true, "storage": at == 0, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            })
        })
        .collect();
    let shorts: &[&str] = if short.is_empty() { &[] } else { &[short] };
    serde_json::json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": id(group, plural)},
        "spec": {
            "group": group, "scope": "Namespaced", "versions": versions, "conversion": {"strategy": "None"},
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural,
                      "singular": kind.to_lowercase(), "shortNames": shorts},
        },
    })
}
