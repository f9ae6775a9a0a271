//! Policies that protect workloads: read only far enough to know what they protect, because this version refuses
//! what it cannot protect.

use super::fields::{Fault, Fields};
use super::meta::{Labels, Metadata, labels};

/// An AuthorizationPolicy, PeerAuthentication or RequestAuthentication.
#[derive(Clone, Debug)]
pub struct Protection {
    /// Its kind is in `meta.object.kind`.
    pub meta: Metadata,
    /// `spec.selector.matchLabels`; empty = every pod of the namespace, or of the mesh in the root namespace.
    pub selector: Labels,
    /// `spec.targetRefs` of kind Service: names in its own namespace.
    pub services: Vec<std::sync::Arc<str>>,
    /// False for a policy that forbids nothing: a permissive PeerAuthentication, a dry run, an audit.
    pub restricts: bool,
}

impl Protection {
    pub(super) fn decode(meta: Metadata, root: &mut Fields<'_>) -> Result<Self, Fault> {
        let mut restricts = meta.annotation("istio.io/dry-run") != Some("true");
        let mut selector = Labels::new();
        let (mut services, mut targets) = (Vec::new(), 0);
        // An AuthorizationPolicy without a spec denies everything; without one, the others say nothing.
        let Some(mut spec) = root.map("spec")? else {
            restricts &= &*meta.object.kind == "AuthorizationPolicy";
            return Ok(Self { meta, selector, services, restricts });
        };
        if let Some(mut chosen) = spec.map("selector")? {
            selector = labels(&mut chosen, "matchLabels")?;
        }
        for list in ["targetRefs", "targetRef"] {
            let refs = if list == "targetRef" { spec.map(list)?.into_iter().collect() } else { spec.maps(list)? };
            for mut target in refs {
                targets += 1;
                if target.text("kind")? == Some("Service") {
                    services.push(target.required_text("name")?.into());
                }
            }
        }
        // Targets of other kinds are gateways and waypoints: nothing that this version runs.
        restricts &= targets == 0 || !services.is_empty();
        restricts &= match &*meta.object.kind {
            "PeerAuthentication" => strict(&mut spec)?,
            "AuthorizationPolicy" => spec.text("action")? != Some("AUDIT"),
            _ => true,
        };
        Ok(Self { meta, selector, services, restricts })
    }
}

/// True when the workload, or one of its ports, takes mutual TLS only.
fn strict(spec: &mut Fields<'_>) -> Result<bool, Fault> {
    let mut modes = Vec::new();
    if let Some(mut mtls) = spec.map("mtls")? {
        modes.push(mtls.text("mode")?);
    }
    if let Some(ports) = spec.map("portLevelMtls")? {
        for entry in ports.entries() {
            modes.push(Fields::of(&entry.node, ports.path_of(&entry.key))?.text("mode")?);
        }
    }
    Ok(modes.contains(&Some("STRICT")))
}
