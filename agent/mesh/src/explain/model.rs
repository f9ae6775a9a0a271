//! The answer of [`super::Explainer::explain`], as plain values: printed by `weir explain`, and sent by the agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::source::{Location, ObjectRef};

/// Everything that bears on one request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked.
    pub request: Asked,
    /// Who asks, and by which way the connection goes.
    pub client: Client,
    /// Where the client connects to.
    pub dialled: Dialled,
    /// What the kernel does with the connection; `None` where it knows nothing of it, and for gateways.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kernel: Option<Kernel>,
    /// The names that were looked for, in order.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub hosts: Vec<HostTried>,
    /// The rules that were tried, in order, up to the one that takes the request.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub rules: Vec<RuleTried>,
    /// Rules behind the one that takes it.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub rules_not_reached: usize,
    /// Rules for the host that are not for this client, port or way.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub left_out: Vec<LeftOut>,
    /// The rule in force.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub route: Option<RouteTaken>,
    /// Where it goes, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub destinations: Vec<Destination>,
    /// What protects the destination.
    pub policy: PolicyVerdict,
    /// What becomes of it.
    pub outcome: Outcome,
    /// What was written, and is not done by this version.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub not_enforced: Vec<NotEnforced>,
    /// What is wrong with the objects that bear on it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub findings: Vec<String>,
    /// What was taken for granted.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub assumptions: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's way to ask")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// As sent.
    pub method: String,
    /// As given.
    pub url: String,
    /// The Host that is sent.
    pub authority: String,
    /// `name: value`
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub headers: Vec<String>,
    /// What chooses among weights; `None` = every share is shown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub roll: Option<u64>,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// `pod shop/web-1`, `clients in shop with app=web`, `gateway shop/public`.
    pub name: String,
    /// Short names are of this namespace.
    pub namespace: String,
    /// The class of clients that it belongs to; 0 = everybody.
    pub view: u32,
    /// Whether its sockets are steered.
    pub takes_part: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why_not: Option<String>,
}

/// Where the client connects to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialled {
    /// The host of the URL.
    pub host: String,
    /// What it stands for, in words.
    pub resolved: String,
    /// `address:port`, where it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    /// The port.
    pub port: u16,
    /// The Service or ServiceEntry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub object: Option<Origin>,
    /// How the bytes are read: `HTTP`, `HTTP/2`, `TLS`, `TCP`, `detected`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub protocol: Option<String>,
}

/// An object, and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// `VirtualService shop/web`
    pub object: String,
    /// `file:line:column`
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<String>,
}

impl Origin {
    /// Of an object at a place.
    pub fn new(object: &ObjectRef, at: Option<&Location>) -> Self {
        Self { object: object.to_string(), at: at.map(ToString::to_string) }
    }
}

/// The verdict of the service port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// `pass`, `balance`, `proxy` or `reject`.
    pub verdict: String,
    /// Why it is not a shorter way.
    pub why: String,
    /// The object behind it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub because: Option<String>,
    /// `balance` or `refuse`: new connections while no proxy is alive. Of verdict `proxy` alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_failure: Option<String>,
}

/// A name that was looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTried {
    /// The name, or `*.example.com`.
    pub name: String,
    /// The host that has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub found: Option<String>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleTried {
    /// In its host, from 1.
    pub number: usize,
    /// Its route's name.
    pub name: String,
    /// Who wrote it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<Origin>,
    /// Whether it takes the request.
    pub takes: bool,
    /// Its alternatives up to the one that fits; none = it takes everything.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub items: Vec<ItemTried>,
}

/// An alternative of a rule: all its conditions have to be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemTried {
    /// Whether they are.
    pub fits: bool,
    /// Each of them; none = it fits everything.
    pub conditions: Vec<ConditionTried>,
}

/// A condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionTried {
    /// `path`, `header x-user`, …
    pub on: String,
    /// `prefix /v2`
    pub wanted: String,
    /// What the request has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub found: Option<String>,
    /// Whether it is met.
    pub fits: bool,
    /// What is worth knowing of why it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

/// A rule, or an alternative of one, that this client does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Who wrote it.
    pub origin: Origin,
    /// Why.
    pub why: String,
}

/// The rule in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTaken {
    /// As in access logs.
    pub name: String,
    /// Who wrote it; `None` = nobody, the plain service.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<Origin>,
    /// `forward`, `redirect` or `respond`.
    pub action: String,
    /// What its `rewrite` makes of the path of this request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rewritten: Option<String>,
    /// Everything else that it says, or that holds where it says nothing.
    pub settings: Vec<Setting>,
}

/// A setting in force, or one that should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As it is called in the object.
    pub field: String,
    /// What it says.
    pub value: String,
    /// Who said so; `None` = the default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<Origin>,
    /// What this version does instead; `None` = as it says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instead: Option<String>,
}

/// A destination and its share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// Envoy's name of the cluster.
    pub name: String,
    /// As written; 1 of a single one.
    pub weight: u32,
    /// Of all requests that no fault aborts, in percent.
    pub share: f64,
    /// Whether the roll chose it; of a single one always.
    pub chosen: bool,
    /// The subset.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subset: Option<Subset>,
    /// Who is behind it, ready or not.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub endpoints: Vec<Endpoint>,
    /// Why nobody answers; `None` = somebody does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dead: Option<Dead>,
    /// How endpoints are chosen and connected to.
    pub settings: Vec<Setting>,
}

/// A subset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// The labels of its pods.
    pub selector: BTreeMap<String, String>,
    /// Who defined it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<Origin>,
    /// Pods of the service that it does not select, where it selects none.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lacking: Vec<Lacking>,
}

/// A pod that a subset does not select.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacking {
    /// `namespace/name`
    pub pod: String,
    /// What it would need: the label, and the value that it has instead.
    pub labels: BTreeMap<String, Option<String>>,
}

/// An endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// `address:port`
    pub address: String,
    /// `namespace/name`
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pod: Option<String>,
    /// What is not gets nothing.
    pub ready: bool,
    /// Where it is, as far as that counts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub locality: Option<EndpointLocality>,
}

/// What balancing by locality makes of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointLocality {
    /// `region/zone/subzone`; empty = not known.
    pub place: String,
    /// 0 first, the next as those before it fail; `None` = this client is not sent there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub priority: Option<u32>,
    /// Its part while no endpoint fails, in percent, rounded.
    pub percent: u32,
}

/// Why nobody answers, and what the client is told instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dead {
    /// The status of the proxy's answer; `None` = the connection is refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// Envoy's flag in the access log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flag: Option<String>,
    /// In words.
    pub why: String,
}

/// What protects the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVerdict {
    /// Whether the connection may be made.
    pub allowed: bool,
    /// In words.
    pub why: String,
    /// The policy that decides, or the rule that asks for encryption.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<Origin>,
    /// How the connection to the destination is encrypted: `plain text`.
    pub encryption: String,
}

/// What becomes of the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// `pass`, `balance`, `proxy`, `reject` or `gateway`.
    pub way: String,
    /// Of requests such as this, how many are answered, in percent.
    pub answered: f64,
    /// The status of an answer that is the proxy's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// Envoy's flag in the access log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flag: Option<String>,
    /// In words.
    pub summary: String,
}

/// What was written, and is not done by this version.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NotEnforced {
    /// The field.
    pub field: String,
    /// What happens instead.
    pub instead: String,
    /// Who wrote it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<Origin>,
}
