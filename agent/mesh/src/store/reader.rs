//! From the JSON of an object that an API server serves to what is kept of it. Pure: the caller has the bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::objects::{ObjectId, ResourceId, Version};
use crate::crd::{self, Fault, Interner, Kind, Mark, Node, Object};
use crate::validate;

/// Reads objects; those alike share what they have in common.
#[derive(Debug, Default)]
pub struct Reader {
    /// The node whose pods are kept with all that enrolment needs; of other nodes' pods less is kept.
    node: Option<Arc<str>>,
    interner: Interner,
}

/// One object, as it was served.
#[derive(Debug)]
pub struct Reading {
    /// Which one it is.
    pub id: ObjectId,
    /// `metadata.uid`, or empty.
    pub uid: Box<str>,
    /// `metadata.resourceVersion`, or empty.
    pub resource_version: Box<str>,
    /// [`Version::Good`], [`Version::Bad`] or [`Version::Named`].
    pub version: Version,
}

impl Reader {
    /// `node` is the name of the node that the agent runs on; without it every pod may be one of its own.
    pub fn new(node: Option<Arc<str>>) -> Self {
        Self { node, interner: Interner::default() }
    }

    /// Reads an object of this kind, at this `version` of the kind's group. Anything that is JSON gives a reading:
    /// what is wrong with it is in it. An object that is nested deeper than the parser goes is one of those: its author
    /// must not be able to stop the whole kind.
    ///
    /// # Errors
    /// When the text is no JSON.
    pub fn read(&mut self, resource: ResourceId, version: &str, text: &str) -> serde_json::Result<Reading> {
        // A fault of ours costs the object, never its kind.
        let read = catch_unwind(AssertUnwindSafe(|| self.decode(resource, version, text)));
        read.unwrap_or_else(|_| unreadable(resource, version, text))
    }

    fn decode(&mut self, resource: ResourceId, version: &str, text: &str) -> serde_json::Result<Reading> {
        let row = resource.resource();
        let (node, unread) = match crd::parse_json(text, row.keep) {
            Ok(node) => (node, None),
            // What is left out is skipped without recursion.
            Err(error) => (crd::parse_json(text, crd::NAME)?, Some(error)),
        };
        let metadata = |key: &str| node.get("metadata").and_then(|m| m.get(key)).and_then(Node::text).unwrap_or("");
        let header = crd::identify(&node, &row.api_version(version), row.kind);
        let (namespace, name, version) = match header {
            Ok(header) => {
                let version = match (unread, header.kind) {
                    (_, Kind::NotServed(instead)) => Version::Named(instead),
                    (Some(error), _) => {
                        let fault = Fault::new(Mark::default(), "spec", format!("cannot be read: {error}"));
                        let findings = vec![validate::of_fault(&fault, Some(&header.object), None)];
                        Version::Bad { findings, recreated: false, stand_in: crd::stand_in(None, &header.object, None) }
                    }
                    (None, _) => match validate::decode(&node, &header, None) {
                        Ok(mut decoded) => {
                            self.slim(&mut decoded.object);
                            Version::Good(decoded)
                        }
                        Err(findings) => {
                            let stand_in = crd::stand_in(Some(&node), &header.object, None);
                            Version::Bad { findings, recreated: false, stand_in }
                        }
                    },
                };
                (self.interner.text(&header.object.namespace), header.object.name, version)
            }
            Err(fault) => {
                let findings = vec![validate::of_fault(&fault, None, None)];
                (Arc::default(), Arc::default(), Version::Bad { findings, recreated: false, stand_in: None })
            }
        };
        // The object's own copy of its name is the one that the id holds.
        let name = match &version {
            Version::Good(decoded) => Arc::clone(&decoded.object.meta().object.name),
            _ => name,
        };
        Ok(Reading {
            id: ObjectId { resource, namespace, name },
            uid: metadata("uid").into(),
            resource_version: metadata("resourceVersion").into(),
            version,
        })
    }

    /// Leaves out what only the pod's own node needs, and shares the rest.
    fn slim(&mut self, object: &mut Object) {
        if let Object::Pod(pod) = object
            && let Some(pod) = Arc::get_mut(pod)
            && self.node.as_ref().is_some_and(|node| *node != pod.node)
        {
            // Whoever is elected tells of every pod that another mesh captures, whatever its node.
            if let Some(spec) = Arc::get_mut(&mut pod.spec) {
                spec.containers.retain(|name| crd::is_other_mesh(name));
            }
            pod.forget_uid();
            // Every node has some static pods, and each a value of its own.
            if pod.meta.annotation(crd::MIRROR).is_some() {
                pod.meta.annotations = Arc::new(pod.meta.annotations.without(crd::MIRROR));
            }
        }
        self.interner.share(object);
    }
}

/// An object on which decoding failed: no more than its name.
fn unreadable(resource: ResourceId, version: &str, text: &str) -> serde_json::Result<Reading> {
    let row = resource.resource();
    let node = crd::parse_json(text, crd::NAME)?;
    let metadata = |key: &str| node.get("metadata").and_then(|m| m.get(key)).and_then(Node::text).unwrap_or("");
    let object = crd::identify(&node, &row.api_version(version), row.kind).map(|header| header.object).ok();
    let stand_in = object.as_ref().and_then(|object| crd::stand_in(None, object, None));
    let fault = Fault::new(Mark::default(), "object", "weir failed on it, see its log");
    let findings = vec![validate::of_fault(&fault, object.as_ref(), None)];
    let (namespace, name) = object.map(|object| (object.namespace, object.name)).unwrap_or_default();
    Ok(Reading {
        id: ObjectId { resource, namespace, name },
        uid: metadata("uid").into(),
        resource_version: metadata("resourceVersion").into(),
        version: Version::Bad { findings, recreated: false, stand_in },
    })
}
