//! Kubernetes' own kinds: Namespace, Pod, Service, EndpointSlice and Deployment.

use std::net::IpAddr;
use std::sync::Arc;

use super::addresses::Addresses;
use super::fields::{Fault, Fields};
use super::json::MIRROR;
use super::meta::{Labels, Metadata, labels};
use super::node::{Mark, Node, Value};
use crate::program::TrafficDistribution;

/// A Namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Name, labels.
    pub meta: Metadata,
}

/// A Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Name, labels, annotations.
    pub meta: Metadata,
    /// `spec.nodeName`; empty until it is scheduled.
    pub node: Arc<str>,
    /// The rest of `spec`, once for all pods that were made alike.
    pub spec: Arc<PodSpec>,
    /// `status.podIPs`, else `status.podIP`.
    pub addresses: Addresses,
    /// `status.phase` is `Succeeded` or `Failed`.
    pub finished: bool,
    /// The Ready condition; without one, whether the phase is `Running` or not given.
    pub ready: bool,
}

/// What the pods of a workload have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodSpec {
    /// `spec.serviceAccountName`; empty when it is not given.
    pub service_account: Arc<str>,
    /// `spec.hostNetwork`
    pub host_network: bool,
    /// `spec.runtimeClassName`; empty for the node's default.
    pub runtime_class: Arc<str>,
    /// Names of its containers, sidecar init containers included.
    pub containers: Vec<Arc<str>>,
    /// Named container ports.
    pub ports: Vec<(Arc<str>, u16)>,
    /// Name of what made the pod, `metadata.ownerReferences` of its controller: a Deployment rather than its ReplicaSet, a
    /// CronJob rather than its Job. Empty for a pod that stands by itself.
    pub workload: Arc<str>,
}

impl Pod {
    pub(super) fn decode(mut meta: Metadata, root: &mut Fields<'_>) -> Result<Self, Fault> {
        let uid = root.required_map("metadata")?.text("uid")?.map(Arc::from);
        meta.set_uid(static_uid(&meta).or(uid));
        let mut pod = Self {
            meta,
            node: Arc::default(),
            spec: Arc::default(),
            addresses: Addresses::default(),
            finished: false,
            ready: true,
        };
        if let Some(mut spec) = root.map("spec")? {
            pod.node = spec.text("nodeName")?.unwrap_or_default().into();
            let workload = workload(&pod.meta, root)?;
            pod.spec = Arc::new(PodSpec { workload, ..PodSpec::decode(&mut spec)? });
        }
        let Some(mut status) = root.map("status")? else {
            return Ok(pod);
        };
        let mut addresses = Vec::new();
        for mut ip in status.maps("podIPs")? {
            addresses
                .push(address(&mut ip, "ip")?.ok_or_else(|| Fault::new(ip.mark, ip.path_of("ip"), "must be given"))?);
        }
        if addresses.is_empty() {
            addresses.extend(address(&mut status, "podIP")?);
        }
        pod.addresses = addresses.into();
        let phase = status.text("phase")?.unwrap_or_default();
        pod.finished = matches!(phase, "Succeeded" | "Failed");
        pod.ready = matches!(phase, "" | "Running");
        for mut condition in status.maps("conditions")? {
            if condition.text("type")? == Some("Ready") {
                pod.ready = condition.text("status")? == Some("True");
            }
        }
        Ok(pod)
    }

    /// Forgets its `metadata.uid`, by which only its own node looks for it.
    pub(crate) fn forget_uid(&mut self) {
        self.meta.set_uid(None);
    }

    /// The number of the container port of this name.
    pub fn port_named(&self, name: &str) -> Option<u16> {
        self.spec.ports.iter().find(|(n, _)| &**n == name).map(|(_, number)| *number)
    }
}

impl PodSpec {
    fn decode(spec: &mut Fields<'_>) -> Result<Self, Fault> {
        let (mut containers, mut ports) = (Vec::new(), Vec::new());
        for list in ["containers", "initContainers"] {
            for mut container in spec.maps(list)? {
                containers.extend(container.text("name")?.map(Arc::from));
                for mut port in container.maps("ports")? {
                    if let (Some(name), Some(number)) = (port.text("name")?, port.port("containerPort")?) {
                        ports.push((name.into(), number));
                    }
                }
            }
        }
        Ok(Self {
            service_account: spec.text("serviceAccountName")?.unwrap_or_default().into(),
            host_network: spec.boolean("hostNetwork")?.unwrap_or(false),
            runtime_class: spec.text("runtimeClassName")?.unwrap_or_default().into(),
            containers,
            ports,
            workload: Arc::default(),
        })
    }
}

/// The controller of a pod, as Istio names workloads.
fn workload(meta: &Metadata, root: &mut Fields<'_>) -> Result<Arc<str>, Fault> {
    for mut owner in root.required_map("metadata")?.maps("ownerReferences")? {
        if owner.boolean("controller")? != Some(true) {
            continue;
        }
        let (kind, name) = (owner.text("kind")?.unwrap_or_default(), owner.text("name")?.unwrap_or_default());
        let deployment = || name.strip_suffix(meta.label("pod-template-hash")?)?.strip_suffix('-');
        // A CronJob's jobs end in the minute, or in older clusters the second, for which they were made.
        let cron_job = || {
            let (base, at) = name.rsplit_once('-')?;
            ((8..=10).contains(&at.len()) && at.bytes().all(|b| b.is_ascii_digit())).then_some(base)
        };
        let maker = match kind {
            "ReplicaSet" => deployment(),
            "Job" => cron_job(),
            _ => None,
        };
        return Ok(maker.unwrap_or(name).into());
    }
    Ok(Arc::default())
}

/// The length of a static pod's UID, which is a hash in hexadecimal.
const STATIC_UID: usize = 32;

/// A static pod's UID never has the form of one that the API server gives (36 characters, with dashes). Whatever else
/// stands in the annotation is somebody's attempt to have another pod taken for this one.
fn static_uid(meta: &Metadata) -> Option<Arc<str>> {
    let is_static = |uid: &str| uid.len() == STATIC_UID && uid.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    meta.annotations.get(MIRROR).filter(|uid| is_static(uid)).cloned()
}

/// How a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// By its cluster addresses (also NodePort and LoadBalancer).
    ClusterIp,
    /// By its pods' addresses.
    Headless,
    /// It is a DNS alias.
    ExternalName,
}

/// A Service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Name, labels, annotations.
    pub meta: Metadata,
    /// How it is reached.
    pub kind: ServiceType,
    /// `clusterIPs`, else `clusterIP`.
    pub addresses: Addresses,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Empty = its endpoints are written by somebody else.
    pub selector: Labels,
    /// `sessionAffinity: ClientIP`
    pub client_ip_affinity: bool,
    /// `internalTrafficPolicy: Local`
    pub local_only: bool,
    /// `trafficDistribution`
    pub distribution: Option<TrafficDistribution>,
}

/// A port of a Service.
#[derive(Clone, Debug)]
pub struct Port {
    /// Where it stands in the text.
    pub mark: Mark,
    /// Empty when it has none.
    pub name: Arc<str>,
    /// What clients dial.
    pub number: u16,
    /// `protocol: UDP`
    pub udp: bool,
    /// `protocol: SCTP`
    pub sctp: bool,
    /// `appProtocol`
    pub app_protocol: Option<Arc<str>>,
    /// Where the pods listen.
    pub target: TargetPort,
}

/// `targetPort`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number; the service port's own when absent.
    Number(u16),
    /// The name of a container port, which may have another number in each pod.
    Name(Arc<str>),
}

impl Service {
    pub(super) fn decode(meta: Metadata, root: &mut Fields<'_>) -> Result<Self, Fault> {
        let mut spec = root.required_map("spec")?;
        let external = spec.text("type")? == Some("ExternalName");
        let mut written: Vec<(&str, Mark)> = spec.texts("clusterIPs")?;
        let single = spec.entry("clusterIP").map(|e| e.node.mark);
        if let (Some(one), Some(mark), true) = (spec.text("clusterIP")?, single, written.is_empty()) {
            written.push((one, mark));
        }
        let headless = written.iter().any(|(ip, _)| *ip == "None");
        let kind = match (external, headless) {
            (true, _) => ServiceType::ExternalName,
            (_, true) => ServiceType::Headless,
            _ => ServiceType::ClusterIp,
        };
        let mut addresses = Vec::new();
        for (ip, mark) in written.iter().filter(|(ip, _)| !ip.is_empty() && *ip != "None") {
            addresses
                .push(ip.parse().map_err(|_| Fault::new(*mark, "spec.clusterIP", format!("`{ip}` is no IP address")))?);
        }
        let mut ports: Vec<Port> = Vec::new();
        for port in spec.maps("ports")? {
            let port = Port::decode(port)?;
            if ports.iter().any(|p| (p.number, p.udp, p.sctp) == (port.number, port.udp, port.sctp)) {
                return Err(Fault::new(port.mark, "spec.ports", format!("port {} is given twice", port.number)));
            }
            ports.push(port);
        }
        if let ([_, _, ..], Some(unnamed)) = (&*ports, ports.iter().find(|p| p.name.is_empty())) {
            return Err(Fault::new(unnamed.mark, "spec.ports", "each of several ports must have a name"));
        }
        Ok(Self {
            kind,
            addresses: addresses.into(),
            ports,
            selector: labels(&mut spec, "selector")?,
            client_ip_affinity: spec.text("sessionAffinity")? == Some("ClientIP"),
            local_only: spec.text("internalTrafficPolicy")? == Some("Local"),
            distribution: match spec.text("trafficDistribution")? {
                Some("PreferClose" | "PreferSameZone") => Some(TrafficDistribution::SameZone),
                Some("PreferSameNode") => Some(TrafficDistribution::SameNode),
                _ => None,
            },
            meta,
        })
    }

    /// Its port of this number, UDP aside.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|p| p.number == number && !p.udp && !p.sctp)
    }
}

impl Port {
    fn decode(mut fields: Fields<'_>) -> Result<Self, Fault> {
        let number =
            fields.port("port")?.ok_or_else(|| Fault::new(fields.mark, fields.path_of("port"), "must be given"))?;
        let protocol = fields.text("protocol")?.unwrap_or("TCP");
        Ok(Self {
            mark: fields.mark,
            name: fields.text("name")?.unwrap_or_default().into(),
            number,
            udp: protocol == "UDP",
            sctp: protocol == "SCTP",
            app_protocol: fields.text("appProtocol")?.map(Arc::from),
            target: match fields.node("targetPort") {
                Some(Node { value: Value::Text(name), .. }) => TargetPort::Name((**name).into()),
                // Zero means "as the port", as in Kubernetes.
                None | Some(Node { value: Value::Int(0), .. }) => TargetPort::Number(number),
                Some(_) => TargetPort::Number(fields.port("targetPort")?.unwrap_or(number)),
            },
        })
    }
}

/// Part of a Service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its label `kubernetes.io/service-name` names the Service.
    pub meta: Metadata,
    /// False for `addressType: FQDN`, whose endpoints are left out.
    pub has_addresses: bool,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// Its ports; the same for each endpoint.
    pub ports: Vec<SlicePort>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// The same endpoint under several addresses; Kubernetes writes one.
    pub addresses: Addresses,
    /// `conditions.ready`; absent = ready.
    pub ready: bool,
    /// Name of the pod that it is.
    pub pod: Option<Arc<str>>,
    /// Where it is, if that is told. A pointer: a node's endpoints are all at the same spot.
    pub at: Option<Arc<Spot>>,
}

/// Where an endpoint of a slice is. What is not told is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spot {
    /// `nodeName`
    pub node: Arc<str>,
    /// `zone`
    pub zone: Arc<str>,
}

/// One port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The service port's name; empty when that has none.
    pub name: Arc<str>,
    /// Where the endpoints listen.
    pub number: u16,
    /// `protocol: UDP`
    pub udp: bool,
}

impl EndpointSlice {
    pub(super) fn decode(meta: Metadata, root: &mut Fields<'_>) -> Result<Self, Fault> {
        let has_addresses = root.text("addressType")? != Some("FQDN");
        let mut endpoints = Vec::new();
        for mut fields in if has_addresses { root.maps("endpoints")? } else { Vec::new() } {
            let mut addresses = Vec::new();
            for (ip, mark) in fields.texts("addresses")? {
                let parsed = ip.parse();
                let fault = |_| Fault::new(mark, fields.path_of("addresses"), format!("`{ip}` is no IP address"));
                addresses.push(parsed.map_err(fault)?);
            }
            let ready = match fields.map("conditions")? {
                Some(mut conditions) => conditions.boolean("ready")?.unwrap_or(true),
                None => true,
            };
            let mut pod = None;
            if let Some(mut target) = fields.map("targetRef")?
                && target.text("kind")? == Some("Pod")
            {
                pod = target.text("name")?.map(Arc::from);
            }
            let mut text = |key| Ok(fields.text(key)?.unwrap_or_default().into());
            let spot = Spot { node: text("nodeName")?, zone: text("zone")? };
            let at = (spot != Spot::default()).then(|| Arc::new(spot));
            endpoints.push(SliceEndpoint { addresses: addresses.into(), ready, pod, at });
        }
        let mut ports = Vec::new();
        for mut port in root.maps("ports")? {
            // A port without a number means "all ports", which no Service can stand for.
            if let Some(number) = port.port("port")? {
                let name = port.text("name")?.unwrap_or_default().into();
                ports.push(SlicePort { name, number, udp: port.text("protocol")? == Some("UDP") });
            }
        }
        Ok(Self { meta, has_addresses, endpoints, ports })
    }
}

/// A Deployment: only what its pods will look like.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Name and namespace.
    pub meta: Metadata,
    /// `spec.template.metadata.labels`
    pub pod_labels: Labels,
    /// `spec.template.spec`, as far as it can be read.
    pub pod_spec: PodSpec,
    /// `spec.replicas`; 1 when it is not given.
    pub replicas: u32,
}

impl Deployment {
    pub(super) fn decode(meta: Metadata, root: &mut Fields<'_>) -> Result<Self, Fault> {
        let mut spec = root.required_map("spec")?;
        let replicas = match spec.node("replicas") {
            Some(Node { value: Value::Int(count), .. }) => u32::try_from(*count).unwrap_or(0),
            _ => 1,
        };
        let mut template = spec.required_map("template")?;
        // What is wrong with it is the API server's business.
        let pod_spec = match template.map("spec") {
            Ok(Some(mut pod)) => PodSpec::decode(&mut pod).unwrap_or_default(),
            _ => PodSpec::default(),
        };
        let pod_labels = match template.map("metadata")? {
            Some(mut metadata) => labels(&mut metadata, "labels")?,
            None => Labels::new(),
        };
        Ok(Self { meta, pod_labels, pod_spec, replicas })
    }
}

/// An address field; absent and empty are the same.
fn address(fields: &mut Fields<'_>, key: &str) -> Result<Option<IpAddr>, Fault> {
    match fields.text(key)? {
        None | Some("") => Ok(None),
        Some(ip) => match ip.parse() {
            Ok(ip) => Ok(Some(ip)),
            Err(_) => Err(Fault::new(fields.mark, fields.path_of(key), format!("`{ip}` is no IP address"))),
        },
    }
}
