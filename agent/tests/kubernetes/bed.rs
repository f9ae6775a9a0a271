//! A source, and what `weir-apply` makes of it: takes over what it hears, never before everything has been read once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weir::cluster::Access;
use weir::watch::kubernetes::{Kubernetes, Outbox, SourceStatus};
use weir_mesh::compile::{CompileOptions, Compiled, compile};
use weir_mesh::crd::{Action, HttpRoute};
use weir_mesh::snapshot::Snapshot;
use weir_mesh::store::ObjectStore;
use weir_tests::ApiServer;

/// Generous: two busy cores.
pub(crate) const SOON: Duration = Duration::from_mins(1);
/// The node whose pods are kept whole.
pub(crate) const NODE: &str = "node-1";

/// A namespace, a service with two versions and its endpoints.
pub(crate) const SHOP: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.mesh/mode: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.9
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.244.0.1], targetRef: {kind: Pod, name: web-v1, namespace: shop}, nodeName: node-1}
- {addresses: [10.244.0.2], targetRef: {kind: Pod, name: web-v2, namespace: shop}, nodeName: node-2}
---
apiVersion: v1
kind: Pod
metadata: {name: web-v1, namespace: shop, labels: {app: web, version: v1}}
spec: {nodeName: node-1, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.0.1, podIPs: [{ip: 10.244.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-v2, namespace: shop, labels: {app: web, version: v2}}
spec: {nodeName: node-2, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.0.2, podIPs: [{ip: 10.244.0.2}]}
";

/// The rules for it.
pub(crate) const RULES: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - route:
    - {destination: {host: web, subset: v1}, weight: 90}
    - {destination: {host: web, subset: v2}, weight: 10}
";

/// The VirtualService with these weights.
pub(crate) fn weights(v1: u32) -> String {
    let rule = RULES.split("---").nth(1).expect("two documents");
    rule.replace("weight: 90", &format!("weight: {v1}#"))
        .replace("weight: 10}", &format!("weight: {}}}", 100 - v1))
        .replace('#', "")
}

/// A server with the shop and its rules.
pub(crate) fn shop() -> Result<ApiServer> {
    let api = ApiServer::start()?;
    furnish(&api)?;
    Ok(api)
}

/// Puts the shop and its rules into a server.
pub(crate) fn furnish(api: &ApiServer) -> Result<()> {
    api.install_istio_crds()?;
    api.apply(SHOP)?;
    api.apply(RULES)?;
    Ok(())
}

/// A running source.
pub(crate) struct Bed {
    outbox: Arc<Outbox>,
    woken: Receiver<()>,
    store: ObjectStore,
    report: Box<dyn Fn() -> SourceStatus>,
    kubernetes: Option<Kubernetes>,
}

impl Bed {
    /// A source that has been started; nothing is awaited.
    pub(crate) fn spawn(api: &ApiServer) -> Result<Self> {
        let (wake, woken) = channel();
        let outbox = Arc::new(Outbox::new(move || {
            // The test may be over.
            let _ = wake.send(());
        }));
        let access = Access { kubeconfig: Some(api.kubeconfig()), context: None };
        let kubernetes = Kubernetes::start(access, Some(NODE), Arc::clone(&outbox))?;
        let report = Box::new(kubernetes.reporter());
        Ok(Self { outbox, woken, store: ObjectStore::new(), report, kubernetes: Some(kubernetes) })
    }

    /// The same, with everything read.
    pub(crate) fn start(api: &ApiServer) -> Result<Self> {
        let mut bed = Self::spawn(api)?;
        bed.until_complete()?;
        Ok(bed)
    }

    /// Waits until everything has been read, and takes it over.
    pub(crate) fn until_complete(&mut self) -> Result<()> {
        self.until("everything has been read", Bed::is_complete)?;
        // It may have become complete after what was last taken over.
        self.outbox.hear();
        self.store.apply(self.outbox.take());
        Ok(())
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.outbox.is_complete()
    }

    /// Takes over what was heard, waiting for it at most this long. True when something changed.
    pub(crate) fn take(&mut self, within: Duration) -> bool {
        if self.woken.recv_timeout(within).is_err() {
            return false;
        }
        self.outbox.hear();
        !self.store.apply(self.outbox.take()).is_empty()
    }

    /// Takes over until this holds; tells how long it took.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<Duration> {
        self.watching(what, |bed| Ok(holds(bed)))
    }

    /// The same, failing at once when something else does not hold.
    pub(crate) fn watching(&mut self, what: &str, mut holds: impl FnMut(&Self) -> Result<bool>) -> Result<Duration> {
        let begun = Instant::now();
        while !holds(self)? {
            ensure!(
                begun.elapsed() < SOON,
                "not within {SOON:?}: {what}; weight {:?}, findings {:?}, {:?}",
                self.weight(),
                self.findings(),
                self.status()
            );
            self.take(Duration::from_millis(20));
        }
        Ok(begun.elapsed())
    }

    /// Takes over for this long.
    pub(crate) fn during(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.take(Duration::from_millis(20));
        }
    }

    pub(crate) fn snapshot(&self) -> &Snapshot {
        self.store.snapshot()
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        self.store.findings().iter().map(ToString::to_string).collect()
    }

    pub(crate) fn status(&self) -> SourceStatus {
        (self.report)()
    }

    /// How often a kind was listed.
    pub(crate) fn lists(&self, kind: &str) -> u64 {
        self.status().kinds.iter().filter(|k| k.kind == kind).map(|k| k.lists).sum()
    }

    pub(crate) fn compile(&self) -> Compiled {
        compile(self.store.snapshot(), &CompileOptions { node: Some(NODE.into()), ..CompileOptions::default() })
    }

    /// The weight of v1 in force.
    pub(crate) fn weight(&self) -> Option<u32> {
        let vs = self.snapshot().virtual_services.get(&("shop".into(), "web".into()))?;
        let HttpRoute { action: Action::Forward(destinations), .. } = vs.http.first()? else { return None };
        destinations.first()?.weight
    }

    /// Stops the source, and says how long that took.
    pub(crate) fn stop(mut self) -> Result<Duration> {
        let begun = Instant::now();
        drop(self.kubernetes.take().context("it runs")?);
        Ok(begun.elapsed())
    }
}
