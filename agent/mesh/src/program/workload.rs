//! Who is behind an address, for those who tell of traffic: the pods of the mesh by address, and what Istio's metrics
//! call a pod. Made by [`crate::compile`], read by the proxy when it meets a pair of pods for the first time.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use super::Parts;
use crate::crd::{Labels, Pod};

/// Pods that share a bucket, on average: what a change of one pod copies, and what a look-up compares.
const PODS_PER_BUCKET: usize = 32;

/// The same hash for the same address, whoever asks.
fn hash(address: IpAddr) -> usize {
    foldhash::fast::FixedState::default().hash_one(address) as usize
}

/// Pods by address. A clone shares everything, and a change copies, for each address, one bucket and the part of the
/// table that it is in, so that neither costs by the size of the mesh; a pod takes a pointer.
#[derive(Clone, Debug, Default)]
pub struct PodTable {
    /// Their number is a power of two, or none.
    buckets: Parts<Arc<[Arc<Pod>]>>,
}

impl PodTable {
    /// The pods that have an address of their own.
    pub(crate) fn new<'p>(pods: impl Iterator<Item = &'p Arc<Pod>>) -> Self {
        let pods: Vec<&Arc<Pod>> = pods.filter(|pod| has_own_address(pod)).collect();
        if pods.is_empty() {
            return Self::default();
        }
        let count = pods.len().div_ceil(PODS_PER_BUCKET).next_power_of_two();
        let mut buckets = vec![Vec::new(); count];
        for pod in pods {
            for address in &pod.addresses {
                buckets[hash(*address) & (count - 1)].push(Arc::clone(pod));
            }
        }
        Self { buckets: buckets.into_iter().map(sorted).collect() }
    }

    /// Has `now` in the place of `before`.
    pub(crate) fn replace(&mut self, before: Option<&Pod>, now: Option<&Arc<Pod>>) {
        let mask = match self.buckets.len() {
            0 => {
                *self = Self::new(now.into_iter());
                return;
            }
            count => count - 1,
        };
        for address in before.into_iter().filter(|pod| has_own_address(pod)).flat_map(|pod| &pod.addresses) {
            let bucket = self.buckets.get_mut(hash(*address) & mask);
            let gone = |pod: &Arc<Pod>| before.is_some_and(|before| pod.meta.object == before.meta.object);
            *bucket = bucket.iter().filter(|pod| !gone(pod)).cloned().collect();
        }
        let Some(now) = now.filter(|pod| has_own_address(pod)) else { return };
        for address in &now.addresses {
            let bucket = self.buckets.get_mut(hash(*address) & mask);
            *bucket = sorted(bucket.iter().cloned().chain([Arc::clone(now)]).collect());
        }
    }

    /// The pod with this address; of several that claim it, the first by name.
    pub fn get(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        let address = address.to_canonical();
        let bucket = self.buckets.get(hash(address) & self.buckets.len().checked_sub(1)?)?;
        bucket.iter().find(|pod| pod.addresses.contains(&address))
    }

    /// Every pod, in no order; one with several addresses may come several times.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.buckets.iter().flat_map(|bucket| bucket.iter())
    }
}

fn sorted(mut pods: Vec<Arc<Pod>>) -> Arc<[Arc<Pod>]> {
    pods.sort_by(|a, b| a.meta.object.cmp(&b.meta.object));
    pods.dedup_by(|a, b| a.meta.object == b.meta.object);
    pods.into()
}

/// Not that of the node, which many share, nor one that another pod may have by now.
fn has_own_address(pod: &Pod) -> bool {
    !pod.finished && !pod.spec.host_network
}

/// A pod as Istio's metrics name it: what all pods of a workload have in common. Empty = not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    /// What made the pod (a Deployment, not its ReplicaSet), or the pod itself.
    pub name: Arc<str>,
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// Label `app`.
    pub app: Arc<str>,
    /// Label `version`.
    pub version: Arc<str>,
    /// `service.istio.io/canonical-name`, else `app.kubernetes.io/name`, else `app`, else the workload.
    pub canonical_service: Arc<str>,
    /// `service.istio.io/canonical-revision`, else `app.kubernetes.io/version`, else `version`, else `latest`.
    pub canonical_revision: Arc<str>,
}

impl Workload {
    /// Its name alone.
    pub fn name_of(pod: &Pod) -> &Arc<str> {
        if pod.spec.workload.is_empty() { pod.meta.name() } else { &pod.spec.workload }
    }

    /// That of a pod.
    pub fn of(pod: &Pod) -> Self {
        let labels = &pod.meta.labels;
        let name = Self::name_of(pod);
        let account = &pod.spec.service_account;
        Self {
            name: Arc::clone(name),
            namespace: Arc::clone(pod.meta.namespace()),
            // What the API server fills in.
            service_account: if account.is_empty() { "default".into() } else { Arc::clone(account) },
            app: first(labels, &["app"]).unwrap_or_default(),
            version: first(labels, &["version"]).unwrap_or_default(),
            canonical_service: first(labels, &["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
                .unwrap_or_else(|| Arc::clone(name)),
            canonical_revision: first(
                labels,
                &["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"],
            )
            .unwrap_or_else(|| "latest".into()),
        }
    }
}

fn first(labels: &Labels, keys: &[&str]) -> Option<Arc<str>> {
    keys.iter().find_map(|key| labels.get(key)).filter(|value| !value.is_empty()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    /// A pod with these addresses and this in its metadata.
    fn pod(name: &str, addresses: &str, metadata: &str, spec: &str) -> Arc<Pod> {
        let mut store = Store::new();
        store.set_file(
            "pod.yaml",
            &format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop{metadata}}}\n\
                 spec: {{nodeName: n1{spec}}}\nstatus: {{phase: Running, podIPs: [{addresses}]}}\n"
            ),
        );
        let (snapshot, findings) = store.assemble();
        assert_eq!(findings, []);
        Arc::clone(snapshot.pods.values().next().expect("a pod"))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn changes_come_to_what_a_new_table_has() {
        let numbered = |n: usize| pod(&format!("p{n}"), &format!("{{ip: 10.0.0.{n}}}, {{ip: \"fd00::{n}\"}}"), "", "");
        let mut pods: Vec<Arc<Pod>> = (1..100).map(numbered).collect();
        let mut table = PodTable::new(pods.iter());
        let moved = pod("p7", "{ip: 10.0.1.7}", "", "");
        table.replace(Some(&pods[6]), Some(&moved));
        table.replace(Some(&pods[20]), None);
        pods[6] = moved;
        pods.remove(20);
        table.replace(None, Some(&numbered(150)));
        pods.push(numbered(150));
        let fresh = PodTable::new(pods.iter());
        for n in 0..=255 {
            for text in
                [format!("10.0.0.{n}"), format!("10.0.1.{n}"), format!("fd00::{n}"), format!("::ffff:10.0.0.{n}")]
            {
                let at = address(&text);
                let name = |table: &PodTable| table.get(at).map(|pod| pod.meta.name().to_string());
                assert_eq!(name(&table), name(&fresh), "{text}");
            }
        }
        let found = table.get(address("::ffff:10.0.0.9")).expect("v4-mapped is IPv4");
        assert_eq!(&**found.meta.name(), "p9");
        assert!(table.get(address("10.0.0.7")).is_none() && table.get(address("10.0.0.21")).is_none());
    }

    #[test]
    fn addresses_that_are_not_a_pods_own_are_nobodys() {
        let on_host = pod("h", "{ip: 10.0.0.1}", "", ", hostNetwork: true");
        let mut table = PodTable::new([&on_host].into_iter());
        assert!(table.get(address("10.0.0.1")).is_none());
        table.replace(None, Some(&pod("a", "{ip: 10.0.0.1}", "", "")));
        assert_eq!(&**table.get(address("10.0.0.1")).expect("its own").meta.name(), "a");
    }

    #[test]
    fn a_pod_is_called_as_istio_calls_it() {
        let replica = "labels: {app: web, version: v2, pod-template-hash: 5d9c}, \
                       ownerReferences: [{kind: Other, name: x}, {kind: ReplicaSet, name: web-5d9c, controller: true}]";
        let workload =
            |metadata: &str, spec: &str| Workload::of(&pod("p", "{ip: 10.0.0.1}", &format!(", {metadata}"), spec));
        let web = workload(replica, ", serviceAccountName: shopper");
        let text = |workload: &Workload| {
            [&workload.name, &workload.service_account, &workload.canonical_service, &workload.canonical_revision]
                .map(ToString::to_string)
                .join(" ")
        };
        assert_eq!(text(&web), "web shopper web v2");
        assert_eq!((&*web.app, &*web.version, &*web.namespace), ("web", "v2", "shop"));
        let owned =
            |kind: &str, name: &str| format!("ownerReferences: [{{kind: {kind}, name: {name}, controller: true}}]");
        assert_eq!(text(&workload(&owned("StatefulSet", "db"), "")), "db default db latest");
        assert_eq!(text(&workload(&owned("Job", "backup-29384756"), "")), "backup default backup latest");
        assert_eq!(text(&workload(&owned("Job", "migrate-2"), "")), "migrate-2 default migrate-2 latest");
        let named = "labels: {app: a, app.kubernetes.io/name: b, service.istio.io/canonical-name: c, app.kubernetes.io/version: '7'}";
        assert_eq!(text(&workload(named, "")), "p default c 7");
    }
}
