//! Policies that protect workloads: read only far enough to know what they protect, because this version refuses
//! what it cannot protect.

use std::sync::Arc;

use super::fields::{Fault, Fields};
use super::meta::{Labels, Metadata, labels};
use super::node::{Entry, Node};
use crate::source::{Location, ObjectRef};

/// The kinds that are read as a [`Protection`].
const KINDS: [&str; 4] = ["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication", BACKEND_TLS];
/// Of the Gateway API: how clients connect to the Services that it targets.
pub(super) const BACKEND_TLS: &str = "BackendTLSPolicy";

/// An AuthorizationPolicy, PeerAuthentication, RequestAuthentication or BackendTLSPolicy.
#[derive(Clone, Debug)]
pub struct Protection {
    /// Its kind is in `meta.object.kind`.
    pub meta: Metadata,
    /// `spec.selector.matchLabels`; empty = every pod of the namespace, or of the mesh in the root namespace.
    pub selector: Labels,
    /// `spec.targetRefs` of kind Service.
    pub services: Vec<TargetService>,
    /// False for a policy that forbids nothing: a permissive PeerAuthentication, a dry run, an audit, an
    /// AuthorizationPolicy that allows everything or denies nothing.
    pub restricts: bool,
    /// Of a PeerAuthentication that could be read; `None` = of another kind.
    pub mtls: Option<MutualTls>,
    /// True when it could not be read: it restricts as far as could be made out.
    pub broken: bool,
}

/// A Service that a policy targets, in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetService {
    /// Its name.
    pub name: Arc<str>,
    /// `sectionName` of a BackendTLSPolicy: the name of one port; `None` = all of them.
    pub port: Option<Arc<str>>,
}

/// What a PeerAuthentication asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutualTls {
    /// Whether mutual TLS alone is taken; `None` = as the level above says.
    pub strict: Option<bool>,
    /// The same of ports of the pods, by number.
    pub ports: Box<[(u16, Option<bool>)]>,
}

impl MutualTls {
    /// What it says of a port of the pod, and of no other.
    pub fn of_port(&self, port: u16) -> Option<bool> {
        self.ports.iter().find(|(own, _)| *own == port)?.1
    }
}

impl Protection {
    pub(super) fn decode(meta: Metadata, root: &mut Fields<'_>) -> Result<Self, Fault> {
        let encrypts = is_backend_tls(&meta.object);
        let mut restricts = encrypts || meta.annotation("istio.io/dry-run") != Some("true");
        let mut selector = Labels::new();
        let (mut services, mut targets) = (Vec::new(), 0);
        // An AuthorizationPolicy without a spec denies everything; without one, the others say nothing.
        let given = if encrypts { Some(root.required_map("spec")?) } else { root.map("spec")? };
        let Some(mut spec) = given else {
            restricts &= &*meta.object.kind == "AuthorizationPolicy";
            let mtls = is_peer(&meta).then(|| MutualTls { strict: None, ports: Box::default() });
            return Ok(Self { meta, selector, services, restricts, mtls, broken: false });
        };
        if let Some(mut chosen) = spec.map("selector")? {
            selector = labels(&mut chosen, "matchLabels")?;
        }
        for list in ["targetRefs", "targetRef"] {
            let refs = if list == "targetRef" { spec.map(list)?.into_iter().collect() } else { spec.maps(list)? };
            for mut target in refs {
                targets += 1;
                if target.text("kind")? == Some("Service") {
                    services.push(TargetService::decode(&mut target, encrypts)?);
                }
            }
        }
        if encrypts && targets == 0 {
            return Err(Fault::new(spec.mark, spec.path_of("targetRefs"), "must be given"));
        }
        // Targets of other kinds are gateways and waypoints: nothing that this version runs.
        restricts &= targets == 0 || !services.is_empty();
        let mtls = if is_peer(&meta) { Some(mutual_tls(&mut spec)?) } else { None };
        restricts &= match &*meta.object.kind {
            // Ports are those of pods that are selected.
            "PeerAuthentication" => mtls.iter().any(|mtls| {
                mtls.strict == Some(true)
                    || (!selector.is_empty() && mtls.ports.iter().any(|(_, strict)| *strict == Some(true)))
            }),
            "AuthorizationPolicy" => forbids(&mut spec)?,
            _ => true,
        };
        Ok(Self { meta, selector, services, restricts, mtls, broken: false })
    }

    /// True for kinds that protect.
    pub(crate) fn is_kind(kind: &str) -> bool {
        KINDS.contains(&kind)
    }

    /// True for one that holds for Services, and for nothing beyond its own namespace.
    pub(crate) fn is_backend_tls(&self) -> bool {
        is_backend_tls(&self.meta.object)
    }

    /// What it means for something, in words, and why that refuses.
    pub(crate) fn why_refused(&self, what: &str) -> String {
        let object = &self.meta.object;
        if self.broken {
            format!("{object} may protect {what} and cannot be read")
        } else if self.is_backend_tls() {
            format!("{object} asks for TLS toward {what}, and this version would send plain text")
        } else {
            format!("{object} protects {what} and is not enforced by this version")
        }
    }

    /// What stands in for an object that cannot be read: it protects what its selector selects, or what it targets,
    /// where these can be made out, and else everything that one of its namespace could.
    pub(super) fn unreadable(node: Option<&Node>, object: &ObjectRef, at: Option<Location>) -> Self {
        let meta = Metadata::bare(object.clone(), at);
        let encrypts = is_backend_tls(object);
        let (selector, services) = node.and_then(|node| scope(node, encrypts).ok()).unwrap_or_default();
        Self { meta, selector, services, restricts: true, mtls: None, broken: true }
    }
}

impl TargetService {
    /// `by_port` = of a kind that may target a single port.
    fn decode(target: &mut Fields<'_>, by_port: bool) -> Result<Self, Fault> {
        let port = if by_port { target.text("sectionName")?.filter(|name| !name.is_empty()) } else { None };
        Ok(Self { name: target.required_text("name")?.into(), port: port.map(Into::into) })
    }
}

fn is_backend_tls(object: &ObjectRef) -> bool {
    *object.kind == *BACKEND_TLS
}

fn is_peer(meta: &Metadata) -> bool {
    *meta.object.kind == *"PeerAuthentication"
}

/// Selector and targets, each as far as it can be read and means less than everything.
fn scope(node: &Node, by_port: bool) -> Result<(Labels, Vec<TargetService>), Fault> {
    let Some(mut spec) = Fields::of(node, "")?.map("spec")? else {
        return Ok(<_>::default());
    };
    let selector = spec.map("selector").and_then(|chosen| match chosen {
        Some(mut chosen) => labels(&mut chosen, "matchLabels"),
        None => Ok(Labels::new()),
    });
    let mut targets = spec.maps("targetRefs")?;
    targets.extend(spec.map("targetRef")?);
    let services = targets.into_iter().map(|mut target| match target.text("kind")? {
        Some("Service") => TargetService::decode(&mut target, by_port),
        _ => Err(Fault::new(target.mark, target.path_of("kind"), "is no Service")),
    });
    // One target that cannot be made out may be any service.
    let services = services.collect::<Result<Vec<TargetService>, Fault>>().unwrap_or_default();
    Ok((selector.unwrap_or_default(), services))
}

/// False for what allows everything and what denies nothing, whatever other policies say beside it.
fn forbids(spec: &mut Fields<'_>) -> Result<bool, Fault> {
    let rules = spec.maps("rules")?;
    Ok(match spec.text("action")? {
        Some("AUDIT") => false,
        Some("DENY") => !rules.is_empty(),
        // A rule without conditions allows every request.
        None | Some("ALLOW") => !rules.iter().any(|rule| rule.rest().next().is_none()),
        Some(_) => true,
    })
}

/// The modes of a PeerAuthentication.
fn mutual_tls(spec: &mut Fields<'_>) -> Result<MutualTls, Fault> {
    let strict = |block: Option<Fields<'_>>| match block {
        None => Ok(None),
        Some(mut block) => {
            Ok::<_, Fault>(block.text("mode")?.filter(|mode| *mode != "UNSET").map(|mode| mode == "STRICT"))
        }
    };
    let mut mtls = MutualTls { strict: strict(spec.map("mtls")?)?, ports: Box::default() };
    if let Some(ports) = spec.map("portLevelMtls")? {
        let port = |entry: &Entry| {
            let number = entry.key.parse();
            let number = number
                .map_err(|_| Fault::new(entry.mark, ports.path_of(&entry.key), "must be the number of a port"))?;
            Ok((number, strict(Some(Fields::of(&entry.node, ports.path_of(&entry.key))?))?))
        };
        mtls.ports = ports.entries().iter().map(port).collect::<Result<_, Fault>>()?;
    }
    Ok(mtls)
}
