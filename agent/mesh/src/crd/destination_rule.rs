//! DestinationRule: subsets, load balancing and the connect timeout of a host.

use std::sync::Arc;
use std::time::Duration;

use super::Notes;
use super::fields::{Fault, Fields};
use super::meta::{Labels, Metadata, labels};
use super::node::{Mark, Node, Value};
use super::virtual_service::{is_host, note_rest};
use crate::finding::Severity;
use crate::program::LoadBalancer;
use crate::schema::parse_duration;
use crate::source::{Location, ObjectRef};

/// Istio's schema: durations are at least a millisecond.
const MIN_DURATION: Duration = Duration::from_millis(1);

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
    pub export_to: Vec<Arc<str>>,
    /// `spec.subsets`
    pub subsets: Vec<Subset>,
    /// `spec.trafficPolicy`
    pub policy: Option<TrafficPolicy>,
    /// False when `workloadSelector` narrows it to clients that this version cannot tell apart.
    pub applies: bool,
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
    pub policy: TrafficPolicy,
}

/// The blocks of a traffic policy that are read. A block that is there replaces the whole block above it.
#[derive(Clone, Debug, Default)]
pub struct TrafficPolicy {
    /// Where it stands.
    pub mark: Mark,
    /// `loadBalancer`
    pub load_balancer: Option<LoadBalancer>,
    /// `connectionPool`, and its `tcp.connectTimeout`.
    pub connection_pool: Option<Option<Duration>>,
    /// `tls`
    pub tls: Option<ClientTls>,
    /// `portLevelSettings[].tls`, by service port; of these settings nothing else is read.
    pub port_tls: Vec<(u16, ClientTls)>,
}

/// How connections to the host are to be encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// `tls.mode` as written; empty when it is not given.
    pub mode: Arc<str>,
}

impl ClientTls {
    /// False for `DISABLE` alone: whatever else is written, plain text is not what was asked for.
    pub fn encrypts(&self) -> bool {
        &*self.mode != "DISABLE"
    }
}

/// A field of a traffic policy that is not supported yet: how bad it is to go without, and what happens.
const POLICY_UNSUPPORTED: &[(&str, Severity, &str)] = &[
    ("outlierDetection", Severity::Warning, "no endpoint is ejected"),
    ("tunnel", Severity::Error, "connections are not tunnelled"),
    ("proxyProtocol", Severity::Error, "no PROXY header is sent"),
    ("retryBudget", Severity::Warning, "retries have no budget"),
];

const POOL_UNSUPPORTED: &[(&str, Severity, &str)] = &[("http", Severity::Warning, "no limit of it is in force")];
const POOL_TCP_INSTEAD: &str = "it is not in force";

impl DestinationRule {
    pub(super) fn decode(meta: Metadata, root: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let mut spec = root.required_map("spec")?;
        let host_mark = spec.entry("host").map_or(spec.mark, |e| e.node.mark);
        let host = spec.required_text("host")?.to_ascii_lowercase();
        if host != "*" && !is_host(&host) {
            return Err(Fault::new(host_mark, "spec.host", format!("`{host}` is no host name")));
        }
        let export_to = spec.texts("exportTo")?.into_iter().map(|(t, _)| Arc::from(t)).collect();
        let policy = match spec.map("trafficPolicy")? {
            Some(fields) => Some(TrafficPolicy::decode(fields, notes)?),
            None => None,
        };
        let mut subsets = Vec::new();
        for mut fields in spec.maps("subsets")? {
            let name = fields.required_text("name")?.into();
            let labels = labels(&mut fields, "labels")?;
            let policy = match fields.map("trafficPolicy")? {
                Some(policy) => TrafficPolicy::decode(policy, notes)?,
                None => TrafficPolicy::default(),
            };
            note_rest(&fields, notes, &[]);
            subsets.push(Subset { mark: fields.mark, name, labels, policy });
        }
        let selector = spec.entry("workloadSelector");
        if let Some(entry) = selector {
            let instead = "the whole rule applies to nobody, so that it does not reach clients that were not meant, but for `tls`: the host refuses all clients of the namespace";
            notes.unsupported(Severity::Error, entry.mark, &spec.path_of("workloadSelector"), instead);
        }
        note_rest(&spec, notes, &[]);
        Ok(Self {
            meta,
            host: host.into(),
            host_mark,
            export_to,
            subsets,
            policy,
            applies: selector.is_none(),
            broken: false,
        })
    }
}

impl DestinationRule {
    /// What stands in for a rule that is not valid and that asks for encryption: without it, what should have been
    /// encrypted would be plain text. `None` for a rule that does not ask for it, or does not tell for which host.
    pub(super) fn unreadable(node: &Node, object: &ObjectRef, at: Option<Location>) -> Option<Self> {
        let spec = node.get("spec")?;
        let host = spec.get("host")?.text()?.to_ascii_lowercase();
        let policy_of = |holder: &Node| holder.get("trafficPolicy").map(only_tls);
        let subset = |subset: &Node| {
            Some(Subset {
                mark: subset.mark,
                name: subset.get("name")?.text()?.into(),
                labels: Labels::new(),
                policy: policy_of(subset)?,
            })
        };
        let rule = Self {
            meta: Metadata::bare(object.clone(), at),
            host: host.into(),
            host_mark: spec.mark,
            export_to: Vec::new(),
            subsets: items(spec.get("subsets")).iter().filter_map(subset).collect(),
            policy: policy_of(spec),
            applies: spec.get("workloadSelector").is_none(),
            broken: true,
        };
        rule.encryption().is_some().then_some(rule)
    }

    /// The first of its settings, on whatever level, that asks for encryption.
    pub fn encryption(&self) -> Option<&ClientTls> {
        let policies = self.policy.iter().chain(self.subsets.iter().map(|subset| &subset.policy));
        policies.flat_map(TrafficPolicy::all_tls).find(|tls| tls.encrypts())
    }
}

impl TrafficPolicy {
    /// What is asked for on a service port.
    pub fn tls_of(&self, port: u16) -> Option<&ClientTls> {
        self.port_tls.iter().find(|(number, _)| *number == port).map(|(_, tls)| tls).or(self.tls.as_ref())
    }

    fn all_tls(&self) -> impl Iterator<Item = &ClientTls> {
        self.tls.iter().chain(self.port_tls.iter().map(|(_, tls)| tls))
    }

    fn decode(mut fields: Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let load_balancer = match fields.map("loadBalancer")? {
            Some(block) => Some(load_balancer(block, notes)?),
            None => None,
        };
        let connection_pool = match fields.map("connectionPool")? {
            Some(block) => Some(connect_timeout(block, notes)?),
            None => None,
        };
        let tls = tls(&mut fields, notes)?;
        let port_tls = port_level(&mut fields, notes)?;
        note_rest(&fields, notes, POLICY_UNSUPPORTED);
        Ok(Self { mark: fields.mark, load_balancer, connection_pool, tls, port_tls })
    }
}

fn items(list: Option<&Node>) -> &[Node] {
    match list.map(|list| &list.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

/// What a policy that cannot be read otherwise asks to be encrypted. A mode that cannot be read encrypts.
fn only_tls(policy: &Node) -> TrafficPolicy {
    let tls_of = |block: &Node| {
        let tls = block.get("tls").filter(|tls| !matches!(tls.value, Value::Null))?;
        Some(ClientTls { mode: tls.get("mode").and_then(Node::text).unwrap_or_default().into() })
    };
    let port_tls = items(policy.get("portLevelSettings")).iter().filter_map(|settings| {
        let Some(Value::Int(port)) = settings.get("port").and_then(|p| p.get("number")).map(|n| &n.value) else {
            return None;
        };
        Some((u16::try_from(*port).ok()?, tls_of(settings)?))
    });
    TrafficPolicy { mark: policy.mark, tls: tls_of(policy), port_tls: port_tls.collect(), ..TrafficPolicy::default() }
}

fn load_balancer(mut block: Fields<'_>, notes: &mut Notes<'_>) -> Result<LoadBalancer, Fault> {
    let mark = block.entry("simple").map_or(block.mark, |e| e.node.mark);
    let chosen = match block.text("simple")?.unwrap_or("UNSPECIFIED") {
        "UNSPECIFIED" | "LEAST_CONN" | "LEAST_REQUEST" => LoadBalancer::LeastRequest,
        "ROUND_ROBIN" => LoadBalancer::RoundRobin,
        "RANDOM" => LoadBalancer::Random,
        "PASSTHROUGH" => {
            let instead = "requests go to the endpoint with fewer active requests (LEAST_REQUEST)";
            notes.unsupported(Severity::Error, mark, &format!("{}: PASSTHROUGH", block.path_of("simple")), instead);
            LoadBalancer::LeastRequest
        }
        other => {
            let message = format!(
                "`{other}` must be one of ROUND_ROBIN, RANDOM, LEAST_REQUEST, LEAST_CONN, PASSTHROUGH and UNSPECIFIED"
            );
            return Err(Fault::new(mark, block.path_of("simple"), message));
        }
    };
    note_rest(
        &block,
        notes,
        &[
            ("consistentHash", Severity::Error, "clients do not stick to an endpoint (LEAST_REQUEST)"),
            ("localityLbSetting", Severity::Error, "endpoints of every locality are used alike"),
            ("warmup", Severity::Warning, "new endpoints get their full share at once"),
            ("warmupDurationSecs", Severity::Warning, "new endpoints get their full share at once"),
        ],
    );
    Ok(chosen)
}

fn connect_timeout(mut block: Fields<'_>, notes: &mut Notes<'_>) -> Result<Option<Duration>, Fault> {
    let mut timeout = None;
    if let Some(mut tcp) = block.map("tcp")? {
        let mark = tcp.entry("connectTimeout").map_or(tcp.mark, |e| e.node.mark);
        if let Some(text) = tcp.text("connectTimeout")? {
            let parsed = parse_duration(text).filter(|d| *d >= MIN_DURATION);
            timeout = Some(parsed.ok_or_else(|| {
                let message = format!("`{text}` must be a duration of at least 1ms, such as 10s or 1m30s");
                Fault::new(mark, tcp.path_of("connectTimeout"), message)
            })?);
        }
        for entry in tcp.rest() {
            notes.unsupported(Severity::Warning, entry.mark, &tcp.path_of(&entry.key), POOL_TCP_INSTEAD);
        }
    }
    note_rest(&block, notes, POOL_UNSUPPORTED);
    Ok(timeout)
}

/// Plain text is what this version speaks, so `DISABLE` is in force, and what every other mode is for is refused.
fn tls(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Option<ClientTls>, Fault> {
    let Some(entry) = fields.entry("tls") else {
        return Ok(None);
    };
    let mut block = Fields::of(&entry.node, fields.path_of("tls"))?;
    let tls = ClientTls { mode: block.text("mode")?.unwrap_or_default().into() };
    if tls.encrypts() {
        let instead = "connections that it is for are refused, as they would not be encrypted";
        notes.unsupported(Severity::Error, entry.mark, &block.path, instead);
    }
    Ok(Some(tls))
}

/// Of the settings of single ports, the encryption that they ask for.
fn port_level(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Vec<(u16, ClientTls)>, Fault> {
    let mut of_ports = Vec::new();
    let mark = fields.entry("portLevelSettings").map(|entry| entry.mark);
    for mut settings in fields.maps("portLevelSettings")? {
        let number = match settings.map("port")? {
            Some(mut port) => port.port("number")?,
            None => None,
        };
        if let (Some(tls), Some(number)) = (tls(&mut settings, notes)?, number) {
            of_ports.push((number, tls));
        }
    }
    if let Some(mark) = mark {
        let instead = "every port follows the settings above, but for what `tls` says";
        notes.unsupported(Severity::Error, mark, &fields.path_of("portLevelSettings"), instead);
    }
    Ok(of_ports)
}
