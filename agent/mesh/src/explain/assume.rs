//! Manifests hold what users write; a cluster adds addresses to Services and makes pods of Deployments. So that files
//! alone can be asked, this stands in for it, and says what it took for granted. Called by the commands that read files.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::crd::{Addresses, Deployment, Labels, Metadata, Pod, Service, ServiceType};
use crate::snapshot::{Key, Snapshot};
use crate::source::ObjectRef;

/// Reserved by RFC 1112, so that nobody has one of them.
const SERVICES: u32 = u32::from_be_bytes([240, 0, 0, 1]);
/// For measurements of networks alone (RFC 2544), so that no pod has one of them.
const PODS: u32 = u32::from_be_bytes([198, 18, 0, 1]);
/// Pods of one Deployment, at most: more say nothing more.
const MAX_PODS: u32 = 10;
/// How the client is called that only its labels are known of.
pub(super) const CLIENT: &str = "weir-explain";

/// Gives each Service without an address one, and each Deployment without a pod its pods. Returns what was added, in
/// words.
pub fn cluster(snapshot: &mut Snapshot) -> Vec<String> {
    let mut told = Vec::new();
    let bare: Vec<(Key, Arc<Service>)> = snapshot
        .services
        .iter()
        .filter(|(_, service)| service.kind == ServiceType::ClusterIp && service.addresses.is_empty())
        .map(|(key, service)| (key.clone(), Arc::clone(service)))
        .collect();
    for (number, (key, service)) in (0_u32..).zip(&bare) {
        let address = IpAddr::V4(Ipv4Addr::from_bits(SERVICES + number));
        let mut service = Service::clone(service);
        service.addresses = Addresses::from(vec![address]);
        snapshot.services.insert(key.clone(), Arc::new(service));
    }
    if !bare.is_empty() {
        told.push(format!("Services without a clusterIP have one: {}", names(bare.iter().map(|(key, _)| key))));
    }
    let idle: Vec<(Key, Arc<Deployment>)> = snapshot
        .deployments
        .iter()
        .filter(|(_, deployment)| deployment.replicas > 0 && !deployment.pod_labels.is_empty())
        .filter(|(key, deployment)| !snapshot.pods.values().any(|pod| is_of(pod, key, deployment)))
        .map(|(key, deployment)| (key.clone(), Arc::clone(deployment)))
        .collect();
    let mut next = PODS;
    for (key, deployment) in &idle {
        for number in 1..=deployment.replicas.min(MAX_PODS) {
            let name: Arc<str> = format!("{}-assumed-{number}", key.1).into();
            let address = IpAddr::V4(Ipv4Addr::from_bits(next));
            next += 1;
            let mut pod = pod(&key.0, &name, deployment.pod_labels.clone(), true);
            pod.spec = Arc::new(deployment.pod_spec.clone());
            pod.addresses = Addresses::from(vec![address]);
            snapshot.pods.insert((Arc::clone(&key.0), name), Arc::new(pod));
        }
    }
    if !idle.is_empty() {
        told.push(format!("Deployments without pods have ready ones: {}", names(idle.iter().map(|(key, _)| key))));
    }
    told
}

/// Adds a client that only its labels are known of, so that it is told apart from others as a pod would be. It has no
/// address, and is nobody's endpoint.
pub fn client(snapshot: &mut Snapshot, namespace: &Arc<str>, labels: &Labels) {
    let name: Arc<str> = CLIENT.into();
    let pod = pod(namespace, &name, labels.clone(), false);
    snapshot.pods.entry((Arc::clone(namespace), name)).or_insert_with(|| Arc::new(pod));
}

fn is_of(pod: &Pod, deployment: &Key, template: &Deployment) -> bool {
    let carries = template.pod_labels.iter().all(|(key, value)| pod.meta.labels.get(key) == Some(value));
    carries && *pod.meta.namespace() == deployment.0 && !pod.finished
}

fn pod(namespace: &Arc<str>, name: &Arc<str>, labels: Labels, ready: bool) -> Pod {
    let object = ObjectRef {
        kind: "Pod".into(),
        group: Arc::default(),
        namespace: Arc::clone(namespace),
        name: Arc::clone(name),
    };
    Pod {
        meta: Metadata::written(object, labels, Labels::new(), None, None),
        node: Arc::default(),
        spec: Arc::default(),
        addresses: Addresses::default(),
        finished: false,
        ready,
    }
}

fn names<'k>(keys: impl Iterator<Item = &'k Key>) -> String {
    keys.map(|(namespace, name)| format!("{namespace}/{name}")).collect::<Vec<_>>().join(", ")
}
