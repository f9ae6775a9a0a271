//! What is analyzed: every object of the files or of the cluster as a parsed tree, and the mesh configuration. Filled by
//! the command line, read by [`super::analyze`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::tree::Tree;
use crate::compile::CompileOptions;
use crate::crd::{self, Fault, Header, Mark, Metadata, Node};
use crate::finding::{Finding, Severity, code};
use crate::source::{Location, ObjectRef};
use crate::store::MAX_FILE_BYTES;
use crate::store::documents::{self, Part};

/// The oldest Kubernetes that weir is made for, major and minor.
pub const OLDEST_KUBERNETES: (u32, u32) = (1, 30);

/// What the analysis has to be told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What the compiler is told, too; the mesh configuration overrides its root namespace.
    pub compile: CompileOptions,
    /// The namespace of objects that name none; `None` = `default`, and they are shown without one.
    pub namespace: Option<Arc<str>>,
    /// The time, in seconds since 1970 in UTC: certificates are compared with it.
    pub now: u64,
}

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) header: Header,
    pub(crate) meta: Metadata,
    pub(crate) node: Node,
    pub(crate) file: Option<Arc<str>>,
}

impl Resource {
    /// The API group; empty for the core group.
    pub(crate) fn group(&self) -> &str {
        &self.meta.object.group
    }

    pub(crate) fn kind(&self) -> &str {
        &self.header.object.kind
    }

    pub(crate) fn namespace(&self) -> &Arc<str> {
        &self.meta.object.namespace
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.meta.object.name
    }
}

/// Everything that is analyzed.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    resources: Vec<Resource>,
    findings: Vec<Finding>,
    pub(super) mesh: Option<(Node, Option<Arc<str>>)>,
    unread: BTreeSet<&'static str>,
    /// Objects that are shown without their namespace, as they name none.
    bare: BTreeSet<ObjectRef>,
    options: Options,
}

impl Sources {
    /// Nothing yet.
    pub fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// Adds a file of one or more documents, YAML or JSON. What cannot be read is a finding of it.
    pub fn add_file(&mut self, name: &str, text: &str) {
        let file: Arc<str> = name.into();
        if text.len() > MAX_FILE_BYTES {
            let message = format!("the file has more than the {MAX_FILE_BYTES} bytes that are read");
            self.findings.push(Finding {
                severity: Severity::Error,
                code: code::SYNTAX,
                object: None,
                at: Some(Mark::default().in_file(&file)),
                message,
                help: Some("split it".to_owned()),
            });
            return;
        }
        for document in documents::split(text) {
            for part in documents::read(document) {
                match part {
                    Part::Object(node, None) if is_mesh_config(&node) => {
                        self.mesh = Some((node, Some(Arc::clone(&file))));
                    }
                    Part::Object(node, None) if crd::no_object(&node, &file).is_some() => {
                        let what = crd::no_object(&node, &file).unwrap_or_default();
                        self.findings.push(crd::passed_over(what, node.mark.in_file(&file)));
                    }
                    Part::Object(node, within) => self.add_tree(node, within.as_ref(), Some(&file)),
                    Part::Broken(document, error) => self.findings.push(Finding {
                        severity: Severity::Error,
                        code: code::SYNTAX,
                        object: guessed(document.text),
                        at: Some(error.mark.in_file(&file)),
                        message: format!("no YAML: {}; the document is left out", error.message),
                        help: documents::hint(document, &error),
                    }),
                }
            }
        }
    }

    /// Adds an object that an API server served as one of this kind. Those of files come before it.
    ///
    /// # Errors
    /// When it has no name.
    pub fn add_served(&mut self, node: Node, api_version: &str, kind: &str) -> Result<(), Fault> {
        let header = crd::identify(&node, api_version, kind)?;
        self.add(node, header, None);
        Ok(())
    }

    /// The mesh configuration as a file of its own.
    ///
    /// # Errors
    /// When it is no YAML.
    pub fn set_mesh_config(&mut self, name: &str, text: &str) -> Result<(), crd::SyntaxError> {
        if let Some(node) = crd::parse(text, 0)? {
            self.mesh = Some((node, Some(name.into())));
        }
        Ok(())
    }

    /// Objects of this kind could not be read everywhere, so that nothing follows from there being none; `why` is what
    /// the API server said.
    pub fn leave_out(&mut self, kind: &'static str, why: &str) {
        if self.unread.insert(kind) {
            let message =
                format!("{kind} objects may not be listed everywhere, so what refers to them is not checked: {why}");
            let help = "a ClusterRole that grants `list` for them";
            self.tell(Severity::Warning, code::MAY_NOT_LIST, message, help);
        }
    }

    /// The version that the API server says it is: `v1.33.0`. One that is no version says nothing.
    pub fn set_kubernetes(&mut self, version: &str) {
        let number = |part: Option<&str>| part?.parse::<u32>().ok();
        let mut parts = version.strip_prefix('v').unwrap_or(version).split('.');
        let (Some(major), Some(minor)) = (number(parts.next()), number(parts.next())) else { return };
        if (major, minor) < OLDEST_KUBERNETES {
            let (oldest, least) = OLDEST_KUBERNETES;
            let message = format!("the cluster runs Kubernetes {version}: weir is made for {oldest}.{least} and newer");
            self.tell(Severity::Error, code::OLD_KUBERNETES, message, "upgrade the cluster");
        }
    }

    /// A finding that is about no object.
    fn tell(&mut self, severity: Severity, code: &'static str, message: String, help: &str) {
        let help = Some(help.to_owned());
        self.findings.push(Finding { severity, code, object: None, at: None, message, help });
    }

    /// How an object is shown: `VirtualService shop/web`, or without the namespace where none was written and none was
    /// given.
    pub fn shown(&self, object: &ObjectRef) -> String {
        if self.bare.contains(object) { format!("{} {}", object.kind, object.name) } else { object.to_string() }
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// There are rules for hosts, and no Service or ServiceEntry that has one.
    pub fn lacks_services(&self) -> bool {
        let any = |kinds: &[&str]| self.resources.iter().any(|resource| kinds.contains(&resource.kind()));
        any(&["VirtualService", "DestinationRule"]) && !any(&["Service", "ServiceEntry"])
    }

    /// No object at all.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    fn add_tree(&mut self, node: Node, within: Option<&Header>, file: Option<&Arc<str>>) {
        match crd::header(&node, within) {
            Ok(header) if header.object.kind.ends_with("List") && node.at("items").is_some() => {
                match crd::items(&node) {
                    Ok(items) => items.iter().for_each(|item| self.add_tree(item.clone(), Some(&header), file)),
                    Err(fault) => self.leave(&fault, file),
                }
            }
            Ok(header) if header.object.name.is_empty() => {}
            Ok(header) => self.add(node, header, file),
            Err(fault) => self.leave(&fault, file),
        }
    }

    fn leave(&mut self, fault: &Fault, file: Option<&Arc<str>>) {
        self.findings.push(Finding {
            severity: Severity::Error,
            code: code::INVALID,
            object: None,
            at: file.map(|file| fault.mark.in_file(file)),
            message: format!("{fault}; it is left out"),
            help: None,
        });
    }

    fn add(&mut self, node: Node, mut header: Header, file: Option<&Arc<str>>) {
        if !header.object.namespace.is_empty() && node.text_at("metadata.namespace").is_empty() {
            match &self.options.namespace {
                Some(namespace) => header.object.namespace = Arc::clone(namespace),
                None => drop(self.bare.insert(header.object.clone())),
            }
        }
        let meta = Metadata::written(
            header.object.clone(),
            node.labels("metadata.labels"),
            node.labels("metadata.annotations"),
            node.at("metadata.creationTimestamp").and_then(Node::text).map(Arc::from),
            file.map(|file| node.mark.in_file(file)),
        );
        self.resources.push(Resource { header, meta, node, file: file.cloned() });
    }

    /// Puts the objects in an order that does not depend on the order in which they came, and leaves out those that are
    /// there already.
    pub(super) fn settle(&mut self) {
        let place = |r: &Resource| (r.file.is_none(), r.meta.at().cloned());
        self.resources.sort_by(|a, b| a.meta.object.cmp(&b.meta.object).then_with(|| place(a).cmp(&place(b))));
        let mut first: Option<Resource> = None;
        let mut kept = Vec::with_capacity(self.resources.len());
        for resource in std::mem::take(&mut self.resources) {
            match &first {
                Some(other) if other.meta.object == resource.meta.object => {
                    // What a file says about an object of the cluster is what it is about to be.
                    if resource.file.is_some() {
                        self.findings.push(duplicate(&resource, other.meta.at()));
                    }
                }
                _ => {
                    kept.extend(first.replace(resource));
                }
            }
        }
        kept.extend(first);
        self.resources = kept;
        if let Some((mesh, _)) = &self.mesh
            && let root = mesh.text_at("rootNamespace")
            && !root.is_empty()
        {
            self.options.compile.root_namespace = root.into();
        }
    }

    pub(super) fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    pub(crate) fn resources(&self) -> &[Resource] {
        &self.resources
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// The mesh configuration; that of a ConfigMap `istio` in the root namespace where no other was given.
    pub(crate) fn mesh(&self) -> Option<&Node> {
        self.mesh.as_ref().map(|(node, _)| node)
    }

    pub(crate) fn is_read(&self, kind: &str) -> bool {
        !self.unread.contains(kind)
    }

    /// Takes the mesh configuration out of the ConfigMap that Istio keeps it in, unless there is one already.
    pub(super) fn find_mesh_config(&mut self) {
        if self.mesh.is_some() {
            return;
        }
        let root = &self.options.compile.root_namespace;
        let map =
            self.resources.iter().find(|r| r.kind() == "ConfigMap" && &**r.name() == "istio" && r.namespace() == root);
        let text = map.map(|map| map.node.text_at("data.mesh")).unwrap_or_default();
        self.mesh = crd::parse(text, 0).ok().flatten().map(|node| (node, None));
    }
}

/// The object that a text which is no YAML seems to be about.
fn guessed(text: &str) -> Option<ObjectRef> {
    let (kind, namespace, name) = documents::guess(text)?;
    let namespace = namespace.filter(|n| !n.is_empty()).unwrap_or(crd::DEFAULT_NAMESPACE);
    let version = text.lines().find_map(|line| line.strip_prefix("apiVersion:")).unwrap_or_default().trim();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    Some(ObjectRef { kind: kind.into(), group: group.into(), namespace: namespace.into(), name: name.into() })
}

fn duplicate(resource: &Resource, first: Option<&Location>) -> Finding {
    let place = first.map(|at| format!(" at {at}")).unwrap_or_default();
    Finding {
        severity: Severity::Error,
        code: code::DUPLICATE,
        object: Some(resource.meta.object.clone()),
        at: resource.meta.at().cloned(),
        message: format!("the object is there twice; the one{place} is in force, this one is not"),
        help: Some("remove one of them".to_owned()),
    }
}

/// A document that is no object, and whose fields are those of a mesh configuration.
fn is_mesh_config(node: &Node) -> bool {
    const FIELDS: [&str; 9] = [
        "accessLogFile",
        "defaultConfig",
        "defaultProviders",
        "discoverySelectors",
        "enableAutoMtls",
        "extensionProviders",
        "meshMTLS",
        "outboundTrafficPolicy",
        "rootNamespace",
    ];
    let absent = |key: &str| node.get(key).is_none();
    absent("kind") && absent("metadata") && absent("apiVersion") && FIELDS.iter().any(|key| node.get(key).is_some())
}

/// Objects by group and kind.
pub(super) type Kinds<'s> = BTreeMap<(&'s str, &'s str), Vec<&'s Resource>>;
