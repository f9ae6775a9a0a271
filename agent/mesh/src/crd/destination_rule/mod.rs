//! DestinationRule: subsets of a host, and the policy toward it. The typed words of the users; which of them holds for
//! whom is `compile`'s.
//!
//! - `policy`: traffic policies and their levels
//! - `balancing`: load balancers
//! - `pool`: connection pools and ejection
//! - `tls`: TLS, tunnels, proxy protocol

use std::sync::Arc;

use super::Notes;
use super::fields::{Fault, Fields, Marked};
use super::meta::{Labels, Metadata, labels};
use super::node::{Mark, Node, Value};
use super::virtual_service::is_host;
use crate::program::ClientTls;
use crate::source::{Location, ObjectRef};

mod balancing;
mod policy;
mod pool;
mod tls;

pub use policy::{Blocks, PortPolicy, TrafficPolicy};

/// A DestinationRule.
#[derive(Clone, Debug)]
pub struct DestinationRule {
    /// Name, age.
    pub meta: Metadata,
    /// `spec.host` as written, in lower case.
    pub host: Arc<str>,
    /// Where the host stands.
    pub host_mark: Mark,
    /// `spec.exportTo`; empty = everybody.
    pub export_to: Box<[Arc<str>]>,
    /// `spec.subsets`
    pub subsets: Box<[Subset]>,
    /// `spec.trafficPolicy`
    pub policy: Option<Box<TrafficPolicy>>,
    /// `spec.workloadSelector`: the clients of its own namespace that it is for; `None` = whoever sees it.
    pub selector: Option<Box<Labels>>,
    /// True when it is not valid: it holds what it asks to be encrypted, as far as could be made out, and no more.
    pub broken: bool,
}

/// Endpoints of the host that carry these labels.
#[derive(Clone, Debug)]
pub struct Subset {
    /// Where it stands.
    pub mark: Mark,
    /// Its name.
    pub name: Arc<str>,
    /// What its pods carry; empty = every pod.
    pub labels: Labels,
    /// Overrides the rule's policy, block by block.
    pub policy: Option<Box<TrafficPolicy>>,
}

impl DestinationRule {
    pub(super) fn decode(meta: Metadata, root: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let mut spec = root.required_map("spec")?;
        let host_mark = spec.entry("host").map_or(spec.mark, |e| e.node.mark);
        let host = spec.required_text("host")?.to_ascii_lowercase();
        if host != "*" && !is_host(&host) {
            return Err(Fault::new(host_mark, "spec.host", format!("`{host}` is no host name")));
        }
        let export_to = spec.texts("exportTo")?.into_iter().map(|(t, _)| Arc::from(t)).collect();
        let policy = traffic_policy(&mut spec, notes)?;
        let mut subsets = Vec::new();
        for mut fields in spec.maps("subsets")? {
            let name = fields.required_text("name")?.into();
            let labels = labels(&mut fields, "labels")?;
            let policy = traffic_policy(&mut fields, notes)?;
            subsets.push(Subset { mark: fields.mark, name, labels, policy });
        }
        let selector = match spec.map("workloadSelector")? {
            None => None,
            Some(mut block) => Some(labels(&mut block, "matchLabels")?),
        };
        // One without labels selects everybody.
        let selector = selector.filter(|labels| !labels.is_empty()).map(Box::new);
        Ok(Self {
            meta,
            host: host.into(),
            host_mark,
            export_to,
            subsets: subsets.into(),
            policy,
            selector,
            broken: false,
        })
    }

    /// What stands in for a rule that is not valid and that asks for encryption: without it, what should have been
    /// encrypted would be plain text. `None` for a rule that does not ask for it, or does not tell for which host.
    pub(super) fn unreadable(node: &Node, object: &ObjectRef, at: Option<Location>) -> Option<Self> {
        let spec = node.get("spec")?;
        let host = spec.get("host")?.text()?.to_ascii_lowercase();
        let policy_of = |holder: &Node| holder.get("trafficPolicy").map(|policy| Box::new(only_tls(policy)));
        let subset = |subset: &Node| {
            Some(Subset {
                mark: subset.mark,
                name: subset.get("name")?.text()?.into(),
                labels: Labels::new(),
                policy: Some(policy_of(subset)?),
            })
        };
        let rule = Self {
            meta: Metadata::bare(object.clone(), at),
            host: host.into(),
            host_mark: spec.mark,
            export_to: Box::default(),
            subsets: items(spec.get("subsets")).iter().filter_map(subset).collect(),
            policy: policy_of(spec),
            // Whoever it selects may be any client of its namespace.
            selector: spec.get("workloadSelector").map(|_| Box::default()),
            broken: true,
        };
        rule.encryption().is_some().then_some(rule)
    }

    /// The first of its settings, on whatever level, that asks for encryption.
    pub fn encryption(&self) -> Option<&ClientTls> {
        let policies = self.policy.iter().chain(self.subsets.iter().filter_map(|subset| subset.policy.as_ref()));
        policies.flat_map(|policy| policy.all_tls()).find(|tls| tls.encrypts())
    }
}

fn traffic_policy(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Option<Box<TrafficPolicy>>, Fault> {
    let Some(policy) = fields.map("trafficPolicy")? else {
        return Ok(None);
    };
    TrafficPolicy::decode(policy, notes).map(|policy| Some(Box::new(policy)))
}

fn items(list: Option<&Node>) -> &[Node] {
    match list.map(|list| &list.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

/// What a policy that cannot be read otherwise asks to be encrypted. A mode that cannot be read encrypts.
fn only_tls(policy: &Node) -> TrafficPolicy {
    let blocks_of = |block: &Node| {
        let tls = block.get("tls").filter(|tls| !matches!(tls.value, Value::Null))?;
        let mode = tls.get("mode").and_then(Node::text).unwrap_or_default().into();
        let tls = Marked::new(tls.mark, Arc::new(ClientTls { mode, broken: true, more: None }));
        Some(Blocks { tls: Some(tls), ..Blocks::default() })
    };
    let ports = items(policy.get("portLevelSettings")).iter().filter_map(|settings| {
        let Some(Value::Int(port)) = settings.get("port").and_then(|p| p.get("number")).map(|n| &n.value) else {
            return None;
        };
        Some(PortPolicy { mark: settings.mark, port: u16::try_from(*port).ok()?, blocks: blocks_of(settings)? })
    });
    TrafficPolicy {
        mark: policy.mark,
        blocks: blocks_of(policy).unwrap_or_default(),
        ports: ports.collect(),
        ..TrafficPolicy::default()
    }
}
