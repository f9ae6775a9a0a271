//! The users' words: what weir reads of each Kubernetes and Istio object, and no more. [`crate::store`] decodes files
//! with [`decode`]; [`crate::store::Reader`] does so for the objects of an API server.
//!
//! Decoding checks what makes an object unusable by itself (a fault refuses the whole object) and notes what it asks
//! for beyond this version (a finding; the rest of the object stays in force).

use std::sync::Arc;

use crate::finding::Finding;
use crate::source::{Location, ObjectRef};

mod addresses;
mod cluster;
mod cluster_node;
mod destination_rule;
mod duration;
mod fields;
mod gateway;
pub mod gateway_api;
mod intern;
mod json;
mod meta;
mod node;
mod protection;
pub mod rate_limit;
mod re2;
mod regex;
mod resources;
mod service_entry;
mod sidecar;
mod virtual_service;
mod workload_entry;

pub use addresses::Addresses;
pub use cluster::{
    Deployment, EndpointSlice, Namespace, Pod, PodSpec, Port, Service, ServiceType, SliceEndpoint, SlicePort, Spot,
    TargetPort,
};
pub use cluster_node::ClusterNode;
pub use destination_rule::{Blocks, DestinationRule, PortPolicy, Subset, TrafficPolicy};
pub use fields::{Fault, Marked};
pub use gateway::{Gateway, Server, ServerHost, ServerProtocol, ServerTls, TlsMode};
pub use intern::Interner;
pub(crate) use json::MIRROR;
pub use json::{Keep, parse_json};
pub use meta::{Labels, Metadata};
pub use node::{Entry, Mark, Node, SyntaxError, Value, parse};
pub use protection::{MutualTls, Protection, TargetService};
pub(crate) use regex::{check_regex, full_regex, part_regex};
pub(crate) use resources::NAME;
pub use resources::{RESOURCES, Resource, Role};
pub use service_entry::{EntryHost, Resolution, ServiceEntry};
pub use sidecar::{EgressHost, Sidecar};
pub(crate) use virtual_service::is_for_mesh;
pub use virtual_service::{
    Action, Delegate, HttpMatchItem, HttpRoute, HttpSettings, Layer4Match, Mirror, RouteDestination, SourceMatch,
    TcpRoute, TlsMatchItem, TlsRoute, VirtualService,
};
pub use workload_entry::{Workload, WorkloadEntry};

use duration::{duration, duration_or_zero};

use fields::Fields;

/// One decoded object.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each variant is its kind")]
pub enum Object {
    Namespace(Arc<Namespace>),
    Node(Arc<ClusterNode>),
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Deployment(Arc<Deployment>),
    VirtualService(Arc<VirtualService>),
    DestinationRule(Arc<DestinationRule>),
    Protection(Arc<Protection>),
    Gateway(Arc<Gateway>),
    ServiceEntry(Arc<ServiceEntry>),
    WorkloadEntry(Arc<WorkloadEntry>),
    Sidecar(Arc<Sidecar>),
    GatewayClass(Arc<gateway_api::GatewayClass>),
    ApiGateway(Arc<gateway_api::Gateway>),
    Route(Arc<gateway_api::Route>),
    ReferenceGrant(Arc<gateway_api::ReferenceGrant>),
}

impl Object {
    /// True for a [`stand_in`].
    pub fn is_stand_in(&self) -> bool {
        match self {
            Self::Protection(protection) => protection.broken,
            Self::DestinationRule(rule) => rule.broken,
            _ => false,
        }
    }

    /// Its metadata.
    pub fn meta(&self) -> &Metadata {
        match self {
            Self::Namespace(o) => &o.meta,
            Self::Node(o) => &o.meta,
            Self::Pod(o) => &o.meta,
            Self::Service(o) => &o.meta,
            Self::EndpointSlice(o) => &o.meta,
            Self::Deployment(o) => &o.meta,
            Self::VirtualService(o) => &o.meta,
            Self::DestinationRule(o) => &o.meta,
            Self::Protection(o) => &o.meta,
            Self::Gateway(o) => &o.meta,
            Self::ServiceEntry(o) => &o.meta,
            Self::WorkloadEntry(o) => &o.meta,
            Self::Sidecar(o) => &o.meta,
            Self::GatewayClass(o) => &o.meta,
            Self::ApiGateway(o) => &o.meta,
            Self::Route(o) => &o.meta,
            Self::ReferenceGrant(o) => &o.meta,
        }
    }
}

/// What an object says that it is, before anything else of it is looked at.
#[derive(Clone, Debug)]
pub struct Header {
    /// Group and kind in one: `VirtualService` of `networking.istio.io`.
    pub kind: Kind,
    /// `apiVersion`
    pub api_version: Arc<str>,
    /// Its name in the cluster.
    pub object: ObjectRef,
}

/// What to do with a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Decoded to an [`Object`].
    Known,
    /// `kind: List`, or a typed list: its items are objects.
    List,
    /// Asks for something that this version does not do; the text says what happens instead.
    NotServed(&'static str),
    /// None of weir's business.
    Foreign,
}

/// Decoded, with what it asks for beyond this version.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The object.
    pub object: Object,
    /// In the order of the text.
    pub findings: Vec<Finding>,
}

const NETWORKING: [&str; 3] = ["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
/// The group of the kinds that protect.
pub(crate) const SECURITY_GROUP: &str = "security.istio.io";
const SECURITY: [&str; 2] = ["security.istio.io/v1", "security.istio.io/v1beta1"];
/// Kinds whose objects belong to no namespace, as far as anything here looks at them.
const CLUSTER_SCOPED: [&str; 6] =
    ["Namespace", "Node", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "GatewayClass"];
/// The group of files that `kubectl` reads and no API server is given.
const KUSTOMIZE: &str = "kustomize.config.k8s.io/";
/// What `kubectl` puts an object into that names no namespace.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// Reads `apiVersion`, `kind` and the name. Items of a typed list (`within`), which need not repeat what they are,
/// have it from the list.
///
/// # Errors
/// When one of them is missing or no string.
pub fn header(node: &Node, within: Option<&Header>) -> Result<Header, Fault> {
    let mut root = Fields::of(node, "")?;
    let typed = within.and_then(|list| Some((&*list.api_version, list.object.kind.strip_suffix("List")?)));
    let (api_version, kind_name) = match typed.filter(|(_, kind)| !kind.is_empty()) {
        Some(typed) if root.text("kind")?.is_none() => typed,
        _ => (root.required_text("apiVersion")?, root.required_text("kind")?),
    };
    header_as(&mut root, api_version, kind_name)
}

/// What a document is that is meant for another program, and that no API server would ever be given.
pub(crate) fn no_object(node: &Node, file: &str) -> Option<&'static str> {
    let Value::Map(entries) = &node.value else { return None };
    if entries.is_empty() {
        return None;
    }
    let has = |key: &str| node.get(key).is_some();
    let api_version = node.get("apiVersion").and_then(Node::text).unwrap_or_default();
    let name = file.rsplit('/').next().unwrap_or_default();
    let is_file = |names: &[&str]| names.contains(&name);
    if has("spec") || has("metadata") && !api_version.starts_with(KUSTOMIZE) {
        // Whoever has forgotten what it is meant an object.
        None
    } else if api_version.starts_with(KUSTOMIZE)
        || (api_version.is_empty() && is_file(&["kustomization.yaml", "kustomization.yml"]))
    {
        Some("a Kustomization, which kubectl makes objects of")
    } else if !has("kind") && has("apiVersion") && has("name") && has("version") {
        Some("the description of a chart")
    } else if !has("kind") && !has("apiVersion") {
        Some("no object: it has neither apiVersion nor kind")
    } else {
        None
    }
}

/// That such a document is passed over.
pub(crate) fn passed_over(what: &str, at: Location) -> Finding {
    Finding {
        severity: crate::finding::Severity::Info,
        code: crate::finding::code::IGNORED_KIND,
        object: None,
        at: Some(at),
        message: format!("{what}: it is passed over"),
        help: None,
    }
}

/// The header of an object that an API server served as one of this kind: what the object says of that itself is not
/// looked at (items of lists say nothing).
///
/// # Errors
/// When it has no name.
pub fn identify(node: &Node, api_version: &str, kind: &str) -> Result<Header, Fault> {
    header_as(&mut Fields::of(node, "")?, api_version, kind)
}

/// The header of an object that tells what it is and not how it is called: its name is empty.
pub(crate) fn unnamed(node: &Node) -> Option<Header> {
    let text = |key: &str| node.get(key).and_then(Node::text);
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let namespace = DEFAULT_NAMESPACE.into();
    let object = ObjectRef { kind: kind.into(), group: group.into(), namespace, name: Arc::default() };
    Some(Header { kind: classify(api_version, kind), api_version: api_version.into(), object })
}

fn header_as(root: &mut Fields<'_>, api_version: &str, kind_name: &str) -> Result<Header, Fault> {
    let kind = classify(api_version, kind_name);
    let (mut name, mut namespace) = ("", "");
    if kind != Kind::List {
        let mut meta = root.required_map("metadata")?;
        name = meta.required_text("name")?;
        if !CLUSTER_SCOPED.contains(&kind_name) {
            namespace = meta.text("namespace")?.filter(|n| !n.is_empty()).unwrap_or(DEFAULT_NAMESPACE);
        }
    }
    Ok(Header {
        kind,
        api_version: api_version.into(),
        object: ObjectRef {
            kind: kind_name.into(),
            group: api_version.rsplit_once('/').map_or("", |(group, _)| group).into(),
            namespace: namespace.into(),
            name: name.into(),
        },
    })
}

fn classify(api_version: &str, kind: &str) -> Kind {
    let networking = NETWORKING.contains(&api_version);
    let gateway_api = api_version.split_once('/').is_some_and(|(group, _)| group == gateway_api::GROUP);
    let is_read = |kind| match kind {
        "Namespace" | "Node" | "Pod" | "Service" => api_version == "v1",
        "Deployment" => api_version == "apps/v1",
        "EndpointSlice" => api_version == "discovery.k8s.io/v1",
        "VirtualService" | "DestinationRule" | "ServiceEntry" | "WorkloadEntry" | "Sidecar" => networking,
        "Gateway" => networking || gateway_api,
        "GatewayClass" | "ReferenceGrant" => gateway_api,
        kind if gateway_api::RouteKind::named(kind).is_some() => gateway_api,
        protection::BACKEND_TLS => gateway_api,
        kind if Protection::is_kind(kind) => SECURITY.contains(&api_version),
        _ => false,
    };
    match kind {
        "List" if api_version == "v1" => Kind::List,
        _ if is_read(kind) => Kind::Known,
        _ if kind.strip_suffix("List").is_some_and(is_read) => Kind::List,
        "EnvoyFilter" if networking => Kind::NotServed("there is no Envoy to patch"),
        "WorkloadGroup" | "ProxyConfig" if networking => Kind::NotServed("it changes nothing"),
        "Telemetry" if api_version.starts_with("telemetry.istio.io/") => Kind::NotServed("it changes nothing"),
        "UDPRoute" if gateway_api => Kind::NotServed("no UDP is routed"),
        "WasmPlugin" if api_version.starts_with("extensions.istio.io/") => Kind::NotServed("no plugin runs"),
        _ => Kind::Foreign,
    }
}

/// Decodes an object of a [`Kind::Known`]. `file` is what its [`Location`]s name; `None` for objects of an API server.
///
/// # Errors
/// With the first fault that makes the object unusable.
pub fn decode(node: &Node, header: &Header, file: Option<&Arc<str>>) -> Result<Decoded, Fault> {
    let mut notes = Notes::new(&header.object, file);
    let mut root = Fields::of(node, "")?;
    let meta = Metadata::decode(&mut root, &header.object, notes.at(node.mark))?;
    let notes_ref = &mut notes;
    let object = match &*header.object.kind {
        "Namespace" => Object::Namespace(Arc::new(Namespace { meta })),
        "Node" => Object::Node(Arc::new(ClusterNode::of(&meta))),
        "Pod" => Object::Pod(Arc::new(Pod::decode(meta, &mut root)?)),
        "Service" => Object::Service(Arc::new(Service::decode(meta, &mut root)?)),
        "EndpointSlice" => Object::EndpointSlice(Arc::new(EndpointSlice::decode(meta, &mut root)?)),
        "Deployment" => Object::Deployment(Arc::new(Deployment::decode(meta, &mut root)?)),
        "VirtualService" => Object::VirtualService(Arc::new(VirtualService::decode(meta, &mut root, notes_ref)?)),
        "DestinationRule" => Object::DestinationRule(Arc::new(DestinationRule::decode(meta, &mut root, notes_ref)?)),
        "Gateway" if *header.object.group == *gateway_api::GROUP => {
            Object::ApiGateway(Arc::new(gateway_api::Gateway::decode(meta, &mut root, notes_ref)?))
        }
        "Gateway" => Object::Gateway(Arc::new(Gateway::decode(meta, &mut root, notes_ref)?)),
        "ServiceEntry" => Object::ServiceEntry(Arc::new(ServiceEntry::decode(meta, &mut root, notes_ref)?)),
        "WorkloadEntry" => Object::WorkloadEntry(Arc::new(WorkloadEntry::decode(meta, &mut root, notes_ref)?)),
        "Sidecar" => Object::Sidecar(Arc::new(Sidecar::decode(meta, &mut root, notes_ref)?)),
        "GatewayClass" => Object::GatewayClass(Arc::new(gateway_api::GatewayClass::decode(meta, &mut root)?)),
        "ReferenceGrant" => Object::ReferenceGrant(Arc::new(gateway_api::ReferenceGrant::decode(meta, &mut root)?)),
        kind if Protection::is_kind(kind) => Object::Protection(Arc::new(Protection::decode(meta, &mut root)?)),
        other => {
            let Some(kind) = gateway_api::RouteKind::named(other) else {
                return Err(Fault::new(node.mark, "kind", format!("{other} is not a kind that is decoded")));
            };
            Object::Route(Arc::new(gateway_api::Route::decode(meta, kind, &mut root, notes_ref)?))
        }
    };
    Ok(Decoded { object, findings: notes.findings })
}

/// What stands in for an object that is refused and of which there is no good version: a policy that protects does not
/// fall silent because it cannot be read, nor does what should have been encrypted go out as plain text. `None` for
/// what protects nothing. `node` is not known when the text is no YAML at all.
pub fn stand_in(node: Option<&Node>, object: &ObjectRef, at: Option<Location>) -> Option<Object> {
    if &*object.kind == "DestinationRule" {
        return DestinationRule::unreadable(node?, object, at).map(|rule| Object::DestinationRule(Arc::new(rule)));
    }
    let protects = Protection::is_kind(&object.kind);
    protects.then(|| Object::Protection(Arc::new(Protection::unreadable(node, object, at))))
}

/// What is said of an object of a [`Kind::NotServed`].
pub(crate) fn not_served(object: ObjectRef, at: Option<Location>, instead: &str) -> Finding {
    Finding {
        severity: crate::finding::Severity::Warning,
        code: crate::finding::code::NOT_SUPPORTED,
        at,
        message: format!("{} is not supported yet: {instead}", object.kind),
        object: Some(object),
        help: None,
    }
}

/// The group of a kind that protects.
pub(crate) fn group_of_protection(kind: &str) -> &'static str {
    if kind == protection::BACKEND_TLS { gateway_api::GROUP } else { SECURITY_GROUP }
}

/// True for kinds that protect: what is not understood of them must not be passed over.
pub fn protects(kind: &str) -> bool {
    Protection::is_kind(kind)
}

/// True for a container by which another mesh captures its pod.
pub fn is_other_mesh(container: &str) -> bool {
    matches!(container, "istio-proxy" | "linkerd-proxy")
}

/// The items of a [`Kind::List`].
///
/// # Errors
/// When `items` is no list.
pub fn items(list: &Node) -> Result<&[Node], Fault> {
    Fields::of(list, "")?.list("items")
}

/// Collects what an object asks for beyond this version.
pub(crate) struct Notes<'a> {
    object: &'a ObjectRef,
    file: Option<&'a Arc<str>>,
    findings: Vec<Finding>,
}

impl<'a> Notes<'a> {
    fn new(object: &'a ObjectRef, file: Option<&'a Arc<str>>) -> Self {
        Self { object, file, findings: Vec::new() }
    }

    /// A mark, as a place in the object's file.
    pub(crate) fn at(&self, mark: Mark) -> Option<Location> {
        self.file.map(|file| mark.in_file(file))
    }

    /// Notes that an object of this kind is not what its author expects, and what it does.
    pub(crate) fn unserved(&mut self, severity: crate::finding::Severity, mark: Mark, kind: &str, instead: &str) {
        self.findings.push(Finding {
            severity,
            code: crate::finding::code::NOT_SUPPORTED,
            object: Some(self.object.clone()),
            at: self.at(mark),
            message: format!("{kind} is not supported yet: {instead}"),
            help: None,
        });
    }

    /// Notes that a field is not supported yet, and what happens without it.
    pub(crate) fn unsupported(&mut self, severity: crate::finding::Severity, mark: Mark, path: &str, instead: &str) {
        self.findings.push(Finding {
            severity,
            code: crate::finding::code::NOT_SUPPORTED,
            object: Some(self.object.clone()),
            at: self.at(mark),
            message: format!("`{path}` is not supported yet: {instead}"),
            help: None,
        });
    }
}
