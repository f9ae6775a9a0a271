//! Services, their ports and their endpoints, indexed by what the other modules ask for.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::CompileOptions;
use super::entries;
use super::visibility::sees;
use crate::crd::{EndpointSlice, Labels, Pod, Port, Service, ServiceEntry, ServiceType, Spot, TargetPort};
use crate::program::{Protocol, Whereabouts, canonical_place};
use crate::snapshot::{Key, Snapshot};

pub(super) type Map<K, V> = HashMap<K, V, RandomState>;
pub(super) type Set<K> = HashSet<K, RandomState>;

/// Names the Service of an EndpointSlice.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Label of a pod: where it is, `region.zone.subzone`, whatever its node says.
pub(super) const LOCALITY: &str = "istio-locality";

/// Annotation of a Service: the namespaces whose clients see it.
const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// All services of a snapshot: Kubernetes' in the order of their names, then the hosts of ServiceEntries.
pub(super) struct Registry<'s> {
    pub(super) services: Vec<Registered<'s>>,
    /// How many of them are Kubernetes'.
    pub(super) of_kubernetes: usize,
    pub(super) by_host: Map<Arc<str>, usize>,
    /// Addresses of services.
    addresses: Set<IpAddr>,
    /// Headless services that share an endpoint with another one.
    pub(super) entangled: BTreeSet<usize>,
    pub(super) pods: Pods<'s>,
    snapshot: &'s Snapshot,
}

/// One service.
pub(super) struct Registered<'s> {
    pub(super) object: &'s Service,
    /// The ServiceEntry that it is a host of.
    pub(super) entry: Option<&'s ServiceEntry>,
    /// `service-b.default.svc.cluster.local`
    pub(super) fqdn: Arc<str>,
    /// Its TCP ports.
    pub(super) ports: Vec<RegisteredPort<'s>>,
    /// Addresses that further ServiceEntries for the host give it.
    pub(super) more_addresses: Vec<IpAddr>,
}

impl Registered<'_> {
    pub(super) fn namespace(&self) -> &Arc<str> {
        self.object.meta.namespace()
    }

    pub(super) fn name(&self) -> &Arc<str> {
        self.object.meta.name()
    }

    /// Its name in a snapshot; of a host of a ServiceEntry one that no Service can have.
    pub(super) fn key(&self) -> Key {
        let name = if self.entry.is_some() { format!("{}/", self.fqdn).into() } else { Arc::clone(self.name()) };
        (Arc::clone(self.namespace()), name)
    }

    pub(super) fn is_headless(&self) -> bool {
        is_headless(self.object)
    }

    /// Where clients ask for it.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.object.addresses.iter().chain(&self.more_addresses).copied()
    }

    /// Whether this is one of its addresses.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses().any(|own| own == address)
    }

    /// Whether rules send clients of this namespace to it; `None` = everybody.
    pub(super) fn is_seen_by(&self, namespace: Option<&Arc<str>>) -> bool {
        match self.entry {
            Some(entry) => sees(namespace, &entry.meta, &entry.export_to),
            None => sees(namespace, &self.object.meta, &exported_to(self.object)),
        }
    }

    /// Whether clients of this namespace have its own ports. A Service keeps those for who does not see it: left to
    /// kube-proxy, they would lead around what protects it.
    pub(super) fn is_dialled_by(&self, namespace: Option<&Arc<str>>) -> bool {
        self.entry.is_none_or(|entry| sees(namespace, &entry.meta, &entry.export_to))
    }

    /// False for what clients do not ask for by its own ports: an alias of another host, and a host of a ServiceEntry
    /// whose endpoints are not known here. Rules may still name it.
    pub(super) fn is_asked_for(&self) -> bool {
        self.object.kind != ServiceType::ExternalName && self.entry.is_none_or(entries::is_asked_for)
    }

    /// The position of the port of this number in `ports`.
    pub(super) fn position(&self, number: u16) -> Option<usize> {
        self.ports.iter().position(|p| p.port.number == number)
    }
}

/// One TCP port of a service.
pub(super) struct RegisteredPort<'s> {
    pub(super) port: &'s Port,
    pub(super) protocol: Protocol,
    /// Ready endpoints, by address; of a headless service also those that are not, as clients may know their addresses.
    pub(super) endpoints: Vec<Backend>,
}

/// One endpoint of a service port.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    /// Its pod, where the snapshot has it.
    pub(super) pod: Option<u32>,
    /// Of what is no pod: what it says of itself.
    pub(super) labels: Option<Arc<Labels>>,
    /// True when it is some pod, known or not.
    pub(super) is_pod: bool,
    /// False only for those of headless services.
    pub(super) ready: bool,
    /// Its share among the others; never 0.
    pub(super) weight: u32,
    /// Where it is, of what is no pod that is known; else empty.
    pub(super) place: Option<Arc<str>>,
}

impl Backend {
    /// Whether it carries all these labels.
    pub(super) fn carries(&self, labels: &Labels, pods: &Pods<'_>) -> bool {
        let own = self.pod.map(|pod| &pods.get(pod).meta.labels).or(self.labels.as_ref());
        own.is_some_and(|own| has_labels(own, labels))
    }
}

/// Pods by name, address and label.
pub(super) struct Pods<'s> {
    pub(super) all: Vec<&'s Pod>,
    by_name: Map<(&'s str, &'s str), u32>,
    by_address: Map<IpAddr, u32>,
    by_label: Map<(&'s str, &'s str, &'s str), Vec<u32>>,
}

impl<'s> Pods<'s> {
    fn new(snapshot: &'s Snapshot) -> Self {
        let mut pods =
            Self { all: Vec::new(), by_name: Map::default(), by_address: Map::default(), by_label: Map::default() };
        for (index, pod) in (0_u32..).zip(snapshot.pods.values().filter(|pod| !pod.finished)) {
            let pod: &'s Pod = pod;
            let namespace: &'s str = pod.meta.namespace();
            pods.all.push(pod);
            pods.by_name.insert((namespace, pod.meta.name()), index);
            // The address of a host-network pod is its node's, and says nothing about who answers there.
            if !pod.spec.host_network {
                for address in &pod.addresses {
                    pods.by_address.entry(*address).or_insert(index);
                }
            }
            for (key, value) in pod.meta.labels.iter() {
                pods.by_label.entry((namespace, key, value)).or_default().push(index);
            }
        }
        pods
    }

    /// The unfinished pods of a namespace that carry all these labels, of which there must be one.
    pub(super) fn select<'a>(&'a self, namespace: &'a str, labels: &'a Labels) -> impl Iterator<Item = u32> + 'a {
        let rarest = labels
            .iter()
            .map(|(key, value)| self.by_label.get(&(namespace, &**key, &**value)).map_or(&[][..], Vec::as_slice))
            .min_by_key(|found| found.len())
            .unwrap_or_default();
        rarest.iter().copied().filter(|index| has_labels(&self.all[*index as usize].meta.labels, labels))
    }

    pub(super) fn get(&self, index: u32) -> &'s Pod {
        self.all[index as usize]
    }
}

/// True when `labels` holds everything of `wanted`.
pub(super) fn has_labels(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl<'s> Registry<'s> {
    pub(super) fn new(snapshot: &'s Snapshot, options: &CompileOptions) -> Self {
        let mut registry = Self {
            services: Vec::with_capacity(snapshot.services.len()),
            of_kubernetes: snapshot.services.len(),
            by_host: Map::default(),
            addresses: snapshot.services.values().flat_map(|service| service.addresses.iter().copied()).collect(),
            entangled: BTreeSet::new(),
            pods: Pods::new(snapshot),
            snapshot,
        };
        let mut slices: Map<(&str, &str), Vec<&EndpointSlice>> = Map::default();
        for slice in snapshot.endpoint_slices.values() {
            if let Some(service) = slice.meta.label(SERVICE_NAME) {
                slices.entry((slice.meta.namespace(), service)).or_default().push(slice);
            }
        }
        // Names live on in the program and what is beside them goes with the registry: made apart, what goes leaves whole
        // pages, and no holes between what stays.
        let names: Vec<Arc<str>> = snapshot.services.values().map(|service| fqdn(service, options)).collect();
        for (service, fqdn) in snapshot.services.values().zip(names) {
            let meta = &service.meta;
            let own = slices.get(&(&**meta.namespace(), &**meta.name())).map(Vec::as_slice);
            let ports = if service.kind == ServiceType::ExternalName { &[][..] } else { &service.ports };
            let ports = ports
                .iter()
                .filter(|port| !port.udp && !port.sctp)
                .map(|port| RegisteredPort {
                    port,
                    protocol: protocol_of(port).0,
                    endpoints: registry.endpoints_of(service, port, own, options),
                })
                .collect();
            registry.by_host.insert(Arc::clone(&fqdn), registry.services.len());
            registry.services.push(Registered {
                object: service,
                entry: None,
                fqdn,
                ports,
                more_addresses: Vec::new(),
            });
        }
        entries::register(snapshot, &mut registry);
        registry.entangle();
        registry
    }

    fn entangle(&mut self) {
        let mut first: Map<SocketAddr, usize> = Map::default();
        for (index, service) in self.services.iter().enumerate().filter(|(_, service)| service.is_headless()) {
            for address in service.ports.iter().flat_map(|port| port.endpoints.iter().map(|e| e.address)) {
                let other = *first.entry(address).or_insert(index);
                if other != index {
                    self.entangled.extend([other, index]);
                }
            }
        }
    }

    /// True when those who dial this endpoint of a headless service mean the service. A pod of another namespace, or
    /// the address of a service, belongs to somebody else, whatever a slice says.
    pub(super) fn is_dialled(&self, service: &Registered<'_>, address: IpAddr) -> bool {
        let pod = self.pods.by_address.get(&address).map(|index| self.pods.get(*index).meta.namespace());
        !self.addresses.contains(&address) && pod.is_none_or(|namespace| namespace == service.namespace())
    }

    /// The service of this FQDN, with or without the last dot.
    pub(super) fn find(&self, fqdn: &str) -> Option<usize> {
        self.by_host.get(fqdn.strip_suffix('.').unwrap_or(fqdn)).copied()
    }

    /// Whether clients of this namespace ask for this host by its own ports; `None` = everybody.
    pub(super) fn is_asked_for(&self, fqdn: &str, by: Option<&Arc<str>>) -> bool {
        let service = self.find(fqdn).map(|index| &self.services[index]);
        service.is_some_and(|service| service.is_asked_for() && service.is_dialled_by(by))
    }

    /// Where an endpoint is, and of its labels the ones with these keys.
    pub(super) fn whereabouts(&self, backend: &Backend, keys: &[Arc<str>]) -> Whereabouts {
        if let Some(pod) = backend.pod {
            return whereabouts_of(self.pods.get(pod), self.snapshot, keys);
        }
        let none = Labels::new();
        let labels = backend.labels.as_deref().unwrap_or(&none);
        Whereabouts::new(backend.place.clone().unwrap_or_default(), &Arc::default(), labels, keys)
    }

    /// That of its node, or the zone that the slice itself names.
    fn place_of_spot(&self, spot: &Spot) -> Arc<str> {
        let by_node = self.snapshot.place_of(&spot.node);
        if by_node.is_empty() { canonical_place(&format!("/{}", spot.zone)) } else { by_node }
    }

    fn endpoints_of(
        &self,
        service: &Service,
        port: &Port,
        slices: Option<&[&EndpointSlice]>,
        options: &CompileOptions,
    ) -> Vec<Backend> {
        let mut backends = match slices {
            Some(slices) => self.slice_endpoints(service, port, slices, options),
            None if service.selector.is_empty() => Vec::new(),
            None => self.pod_endpoints(service, port, options),
        };
        // The order of objects must not show, and slices may overlap while they are rewritten.
        backends.sort_by_key(|b| (b.address, !b.ready));
        backends.dedup_by_key(|b| b.address);
        backends
    }

    fn slice_endpoints(
        &self,
        service: &Service,
        port: &Port,
        slices: &[&EndpointSlice],
        options: &CompileOptions,
    ) -> Vec<Backend> {
        let namespace: &str = service.meta.namespace();
        let mut found = Vec::new();
        for slice in slices {
            let Some(target) = slice.ports.iter().find(|p| p.name == port.name && !p.udp) else {
                continue;
            };
            for endpoint in slice.endpoints.iter().filter(|e| e.ready || is_headless(service)) {
                for address in &endpoint.addresses {
                    let pod = match &endpoint.pod {
                        Some(name) => self.pods.by_name.get(&(namespace, &**name)),
                        None => self.pods.by_address.get(address),
                    }
                    .copied();
                    let told = endpoint.at.as_ref().map(|at| &at.node).filter(|node| !node.is_empty());
                    let node = told.or(pod.map(|p| &self.pods.get(p).node));
                    if !is_wanted(service, options, node) {
                        continue;
                    }
                    let address = SocketAddr::new(*address, target.number);
                    let is_pod = endpoint.pod.is_some() || pod.is_some();
                    let place = endpoint.at.as_ref().filter(|_| pod.is_none()).map(|at| self.place_of_spot(at));
                    found.push(Backend { address, pod, labels: None, is_pod, ready: endpoint.ready, weight: 1, place });
                }
            }
        }
        found
    }

    /// Without slices, the pods that the selector selects: a directory of plain manifests needs nothing else.
    fn pod_endpoints(&self, service: &Service, port: &Port, options: &CompileOptions) -> Vec<Backend> {
        let mut found = Vec::new();
        for index in self.pods.select(service.meta.namespace(), &service.selector) {
            let pod = self.pods.get(index);
            let number = match &port.target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => pod.port_named(name),
            };
            let Some(number) = number else { continue };
            if (pod.ready || is_headless(service)) && is_wanted(service, options, Some(&pod.node)) {
                found.extend(pod.addresses.iter().map(|ip| Backend {
                    address: SocketAddr::new(*ip, number),
                    pod: Some(index),
                    labels: None,
                    is_pod: true,
                    ready: pod.ready,
                    weight: 1,
                    place: None,
                }));
            }
        }
        found
    }
}

/// Where a pod is: by its own label, else where its node is.
pub(crate) fn whereabouts_of(pod: &Pod, snapshot: &Snapshot, keys: &[Arc<str>]) -> Whereabouts {
    // A label's value cannot have a slash in it.
    let own = pod.meta.label(LOCALITY).map(|own| canonical_place(&own.replace('.', "/")));
    let place = own.filter(|own| !own.is_empty()).unwrap_or_else(|| snapshot.place_of(&pod.node));
    Whereabouts::new(place, &pod.node, &pod.meta.labels, keys)
}

/// For whom a Service is, as `exportTo` of an Istio object; empty = for everybody.
pub(super) fn exported_to(service: &Service) -> Vec<Arc<str>> {
    let given = service.meta.annotation(EXPORT_TO).unwrap_or_default().split(',');
    given.map(str::trim).filter(|name| !name.is_empty()).map(Arc::from).collect()
}

fn fqdn(service: &Service, options: &CompileOptions) -> Arc<str> {
    let (name, namespace) = (service.meta.name(), service.meta.namespace());
    format!("{name}.{namespace}.svc.{}", options.cluster_domain).to_ascii_lowercase().into()
}

fn is_headless(service: &Service) -> bool {
    service.kind == ServiceType::Headless
}

/// `internalTrafficPolicy: Local` keeps to the client's node.
fn is_wanted(service: &Service, options: &CompileOptions, node: Option<&Arc<str>>) -> bool {
    // Nobody chooses for the clients of a headless service.
    !service.local_only || is_headless(service) || options.node.as_ref().is_none_or(|own| node == Some(own))
}

/// How a port's bytes are read, and whether the port itself says so.
pub(crate) fn protocol_of(port: &Port) -> (Protocol, bool) {
    // Istio: by custom these carry other protocols, some of which speak first on the server's side.
    const TCP_BY_CUSTOM: [u16; 4] = [25, 53, 3306, 27017];
    let declared = match &port.app_protocol {
        Some(protocol) => by_name(protocol.strip_prefix("kubernetes.io/").unwrap_or(protocol)),
        // The one protocol whose name has a hyphen in it.
        None if port.name.to_ascii_lowercase().starts_with("grpc-web") => Some(Protocol::Http),
        None => by_name(port.name.split('-').next().unwrap_or_default()),
    };
    match declared {
        Some(protocol) => (protocol, true),
        None if TCP_BY_CUSTOM.contains(&port.number) => (Protocol::Tcp, true),
        None => (Protocol::Detect, false),
    }
}

fn by_name(name: &str) -> Option<Protocol> {
    Some(match &*name.to_ascii_lowercase() {
        "http" | "ws" | "grpc-web" => Protocol::Http,
        "http2" | "grpc" | "h2c" => Protocol::Http2,
        "https" | "tls" | "wss" => Protocol::Tls,
        "tcp" | "mongo" | "redis" | "mysql" | "udp" => Protocol::Tcp,
        _ => return None,
    })
}
