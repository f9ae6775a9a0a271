//! The harness's API server is what clients of Kubernetes expect: proven with the `kube` client, and with kubectl. What
//! does not need faults runs against a real cluster too, where `WEIR_TEST_KUBECONFIG` names one.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, VersionMatch, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::ApiResource;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, reflector, watcher as watch};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use weir_tests::apiserver::{ApiServer, Bookmarks, Fault, Garbage};

/// What a client may take for anything here.
const SOON: Duration = Duration::from_secs(20);

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(SOON * 3, work).await.context("the test hangs")? })
}

async fn client(kubeconfig: PathBuf) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The harness's server, or a real one.
struct Cluster {
    _fake: Option<ApiServer>,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Cluster {
    async fn new(test: &str) -> Result<(Self, Client)> {
        let namespace = format!("weir-test-{test}-{}", std::process::id());
        let cluster = match std::env::var_os("WEIR_TEST_KUBECONFIG") {
            Some(kubeconfig) => Self { _fake: None, kubeconfig: kubeconfig.into(), namespace },
            None => {
                let api = ApiServer::builder().bookmark_every(Duration::from_millis(50)).start()?;
                Self { kubeconfig: api.kubeconfig(), _fake: Some(api), namespace }
            }
        };
        let client = client(cluster.kubeconfig.clone()).await?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &object(json!({"metadata": {"name": cluster.namespace}}))?).await?;
        Ok((cluster, client))
    }

    async fn end(self, client: Client) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(client);
        namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        Ok(())
    }

    fn configs(&self, client: &Client) -> Api<ConfigMap> {
        Api::namespaced(client.clone(), &self.namespace)
    }
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

fn config(name: &str, value: &str) -> Result<ConfigMap> {
    object(json!({"metadata": {"name": name, "labels": {"value": value, "set": "ours"}}, "data": {"value": value}}))
}

fn value(config: &ConfigMap) -> String {
    config.data.as_ref().and_then(|d| d.get("value")).cloned().unwrap_or_default()
}

fn code<T>(result: kube::Result<T>) -> Result<u16> {
    match result {
        Err(kube::Error::Api(status)) => Ok(status.code),
        Err(other) => Err(other.into()),
        Ok(_) => bail!("the request was not refused"),
    }
}

async fn eventually(what: &str, mut check: impl FnMut() -> bool) -> Result<Duration> {
    let started = Instant::now();
    while !check() {
        ensure!(started.elapsed() < SOON, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(started.elapsed())
}

/// A reflector that runs until it is dropped.
struct Mirror {
    store: reflector::Store<ConfigMap>,
    task: tokio::task::JoinHandle<()>,
}

impl Mirror {
    fn new(configs: Api<ConfigMap>, how: watcher::Config) -> Self {
        let (store, writer) = reflector::store();
        let stream = watch(configs, how.labels("set=ours")).backoff(Fast).reflect(writer);
        let task = tokio::spawn(async move {
            let mut stream = pin!(stream);
            while stream.next().await.is_some() {}
        });
        Self { store, task }
    }

    fn content(&self) -> BTreeMap<String, String> {
        self.store.state().iter().map(|c| (c.name_any(), value(c))).collect()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A watcher that tries again every 20 ms: these tests are about the server.
#[derive(Clone, Copy)]
struct Fast;

impl Iterator for Fast {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(20))
    }
}

impl kube::runtime::utils::Backoff for Fast {
    fn reset(&mut self) {}
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

async fn reflects(test: &str, how: watcher::Config) -> Result<()> {
    let (cluster, client) = Cluster::new(test).await?;
    let configs = cluster.configs(&client);
    let post = PostParams::default();
    for n in 0..7 {
        configs.create(&post, &config(&format!("c{n}"), "0")?).await?;
    }
    let mirror = Mirror::new(configs.clone(), how);
    eventually("seven objects", || mirror.content().len() == 7).await?;
    configs.delete("c3", &DeleteParams::default()).await?;
    configs.patch("c1", &PatchParams::default(), &Patch::Merge(json!({"data": {"value": "1"}}))).await?;
    configs.create(&post, &config("new", "2")?).await?;
    // What leaves the selection is gone for this client.
    configs.patch("c5", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": null}}))).await?;
    let wanted = expected(&[("c0", "0"), ("c1", "1"), ("c2", "0"), ("c4", "0"), ("c6", "0"), ("new", "2")]);
    eventually("the changes", || mirror.content() == wanted).await?;
    drop(mirror);
    cluster.end(client).await
}

#[test]
fn a_reflector_follows_a_list_in_pages_and_a_watch() -> Result<()> {
    block_on(reflects("paged", watcher::Config::default().page_size(2)))
}

#[test]
fn a_reflector_follows_a_streaming_list() -> Result<()> {
    block_on(reflects("streamed", watcher::Config::default().streaming_lists()))
}

#[test]
fn pages_show_one_version_though_objects_change_between_them() -> Result<()> {
    block_on(async {
        let (cluster, client) = Cluster::new("pages").await?;
        let configs = cluster.configs(&client);
        for name in ["a", "c", "e", "g", "i"] {
            configs.create(&PostParams::default(), &config(name, "old")?).await?;
        }
        let ours = ListParams::default().labels("set=ours");
        let first = configs.list(&ours.clone().limit(2)).await?;
        configs.patch("g", &PatchParams::default(), &Patch::Merge(json!({"data": {"value": "new"}}))).await?;
        configs.delete("e", &DeleteParams::default()).await?;
        configs.create(&PostParams::default(), &config("f", "new")?).await?;
        let mut seen: Vec<(String, String)> = first.items.iter().map(|c| (c.name_any(), value(c))).collect();
        let mut token = first.metadata.continue_.clone().unwrap_or_default();
        while !token.is_empty() {
            let page = configs.list(&ours.clone().limit(2).continue_token(&token)).await?;
            ensure!(page.metadata.resource_version == first.metadata.resource_version, "another version");
            seen.extend(page.items.iter().map(|c| (c.name_any(), value(c))));
            token = page.metadata.continue_.unwrap_or_default();
        }
        let old = ["a", "c", "e", "g", "i"].map(|n| (n.to_owned(), "old".to_owned()));
        ensure!(seen == old, "{seen:?}");
        let version = first.metadata.resource_version.context("lists have versions")?;
        let exact = ListParams { resource_version: Some(version), version_match: Some(VersionMatch::Exact), ..ours };
        let exact = configs.list(&exact).await?;
        ensure!(exact.items.len() == 5 && value(&exact.items[3]) == "old", "{:?}", exact.items);
        let now = configs.list(&ListParams::default().labels("set=ours")).await?;
        let now: Vec<(String, String)> = now.items.iter().map(|c| (c.name_any(), value(c))).collect();
        let pairs = [("a", "old"), ("c", "old"), ("f", "new"), ("g", "new"), ("i", "old")];
        ensure!(now == pairs.map(|(n, v)| (n.to_owned(), v.to_owned())), "{now:?}");
        cluster.end(client).await
    })
}

#[test]
fn who_writes_on_top_of_a_stale_version_is_told() -> Result<()> {
    block_on(async {
        let (cluster, client) = Cluster::new("conflict").await?;
        let configs = cluster.configs(&client);
        let post = PostParams::default();
        let first = configs.create(&post, &config("a", "0")?).await?;
        ensure!(code(configs.create(&post, &config("a", "0")?).await)? == 409, "it is there already");
        let mut newer = first.clone();
        newer.data = config("a", "1")?.data;
        let newer = configs.replace("a", &post, &newer).await?;
        ensure!(newer.resource_version() != first.resource_version());
        ensure!(code(configs.replace("a", &post, &first).await)? == 409, "it has changed since");
        ensure!(value(&configs.get("a").await?) == "1");
        // Writing what is there already changes nothing, not even the version.
        let again = configs.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"value": "1"}}))).await?;
        ensure!(again.resource_version() == newer.resource_version(), "a write without a change is no event");
        ensure!(code(configs.get("b").await)? == 404);
        let other: Api<ConfigMap> = Api::namespaced(client.clone(), "weir-test-no-such");
        ensure!(code(other.create(&post, &config("a", "0")?).await)? == 404, "its namespace is not there");
        cluster.end(client).await
    })
}

#[test]
fn every_kind_of_patch_and_the_status_do_what_they_should() -> Result<()> {
    block_on(async {
        let (cluster, client) = Cluster::new("patch").await?;
        let services: Api<Service> = Api::namespaced(client.clone(), &cluster.namespace);
        let spec = json!({"selector": {"app": "x"}, "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]});
        services.create(&PostParams::default(), &object(json!({"metadata": {"name": "s"}, "spec": spec}))?).await?;
        let ports = |service: &Service| -> Vec<(i32, String)> {
            let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
            ports.map(|p| (p.port, p.name.clone().unwrap_or_default())).collect()
        };
        let plain = PatchParams::default();
        let made = services.get("s").await?;
        let address = made.spec.as_ref().and_then(|s| s.cluster_ip.clone()).context("it has an address")?;
        let strategic = json!({"spec": {"ports": [{"port": 81, "name": "c"}]}});
        let after = services.patch("s", &plain, &Patch::Strategic(strategic)).await?;
        ensure!(
            ports(&after) == [(80, "a".into()), (81, "c".into())]
                || ports(&after) == [(81, "c".into()), (80, "a".into())]
        );
        let merge = json!({"spec": {"ports": [{"port": 90, "name": "m"}]}, "metadata": {"labels": {"l": "1"}}});
        let after = services.patch("s", &plain, &Patch::Merge(merge)).await?;
        ensure!(ports(&after) == [(90, "m".into())] && after.labels()["l"] == "1");
        let operations = serde_json::from_value(json!([
            {"op": "test", "path": "/metadata/labels/l", "value": "1"},
            {"op": "replace", "path": "/spec/ports/0/name", "value": "j"},
        ]))?;
        let after = services.patch::<()>("s", &plain, &Patch::Json(operations)).await?;
        ensure!(ports(&after) == [(90, "j".into())]);
        let apply =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"k": "v"}});
        let configs = cluster.configs(&client);
        let manager = PatchParams::apply("weir-tests").force();
        for _ in 0..2 {
            let applied = configs.patch("applied", &manager, &Patch::Apply(apply.clone())).await?;
            ensure!(applied.data.context("data")?["k"] == "v");
        }
        // Status and the rest do not touch each other.
        let status =
            json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}, "spec": {"selector": null}});
        services.patch_status("s", &plain, &Patch::Merge(status)).await?;
        services.patch("s", &plain, &Patch::Merge(json!({"status": {"loadBalancer": null}}))).await?;
        let last = services.get("s").await?;
        let ingress = last.status.and_then(|s| s.load_balancer).and_then(|l| l.ingress).unwrap_or_default();
        ensure!(ingress.first().and_then(|i| i.ip.as_deref()) == Some("192.0.2.9"), "{ingress:?}");
        let spec = last.spec.context("a spec")?;
        ensure!(spec.selector.context("a selector")?["app"] == "x" && spec.cluster_ip == Some(address));
        cluster.end(client).await
    })
}

fn dynamic(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

#[test]
fn a_custom_resource_is_served_while_its_definition_is_there() -> Result<()> {
    block_on(async {
        let (cluster, client) = Cluster::new("crd").await?;
        let group = format!("test-{}.weir.mesh", std::process::id());
        let at = |version: &str| -> Api<DynamicObject> {
            let resource = dynamic(&group, version, "Barrage", "barrages");
            Api::namespaced_with(client.clone(), &cluster.namespace, &resource)
        };
        ensure!(code(at("v1").list(&ListParams::default()).await)? == 404, "nobody has defined it");
        let definitions: Api<DynamicObject> = Api::all_with(
            client.clone(),
            &dynamic("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"),
        );
        let version = |name: &str, served: bool, storage: bool| {
            json!({"name": name, "served": served, "storage": storage, "subresources": {"status": {}},
                   "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
        };
        let name = format!("barrages.{group}");
        let definition: DynamicObject = object(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
            "spec": {"group": group, "scope": "Namespaced", "names": {"kind": "Barrage", "plural": "barrages"},
                     "versions": [version("v1beta1", true, false), version("v1", true, true), version("v0", false, false)]},
        }))?;
        definitions.create(&PostParams::default(), &definition).await?;
        let started = Instant::now();
        while at("v1").list(&ListParams::default()).await.is_err() {
            ensure!(started.elapsed() < SOON, "the definition is not served");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut thing = DynamicObject::new("a", &dynamic(&group, "v1beta1", "Barrage", "barrages"));
        thing.data = json!({"spec": {"height": 3}});
        at("v1beta1").create(&PostParams::default(), &thing).await?;
        let read = at("v1").get("a").await?;
        let types = read.types.clone().context("custom resources say their kind")?;
        ensure!(types.api_version == format!("{group}/v1") && read.data["spec"]["height"] == 3, "{read:?}");
        ensure!(read.metadata.generation == Some(1));
        let listed = at("v1beta1").list(&ListParams::default()).await?;
        let types = listed.items[0].types.clone().context("in lists too")?;
        ensure!(types.api_version == format!("{group}/v1beta1"));
        ensure!(code(at("v0").list(&ListParams::default()).await)? == 404, "a version that is not served");
        let plain = PatchParams::default();
        at("v1").patch("a", &plain, &Patch::Merge(json!({"spec": {"height": 4}}))).await?;
        at("v1").patch_status("a", &plain, &Patch::Merge(json!({"status": {"full": true}}))).await?;
        let read = at("v1").get("a").await?;
        ensure!(read.metadata.generation == Some(2) && read.data["status"]["full"] == true, "{read:?}");
        definitions.delete(&name, &DeleteParams::default()).await?;
        let started = Instant::now();
        while at("v1").list(&ListParams::default()).await.is_ok() {
            ensure!(started.elapsed() < SOON, "it is still served");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cluster.end(client).await
    })
}

#[test]
fn discovery_knows_every_resource() -> Result<()> {
    block_on(async {
        let (cluster, client) = Cluster::new("discovery").await?;
        let discovery = kube::Discovery::new(client.clone()).run().await?;
        for (group, kind, plural) in [
            ("", "Pod", "pods"),
            ("discovery.k8s.io", "EndpointSlice", "endpointslices"),
            ("coordination.k8s.io", "Lease", "leases"),
            ("events.k8s.io", "Event", "events"),
        ] {
            let (found, _) = discovery
                .resolve_gvk(&GroupVersionKind::gvk(group, "v1", kind))
                .with_context(|| format!("{group}/{kind} is discovered"))?;
            ensure!(found.plural == plural);
        }
        ensure!(client.apiserver_version().await?.major == "1");
        cluster.end(client).await
    })
}

#[test]
fn bookmarks_carry_the_version_of_a_quiet_resource_on() -> Result<()> {
    block_on(async {
        let api = ApiServer::builder().bookmark_every(Duration::from_millis(20)).start()?;
        let client = client(api.kubeconfig()).await?;
        let pods: Api<Pod> = Api::all(client);
        let start = api.version()?;
        let mut events = pin!(pods.watch(&WatchParams::default().timeout(10), &start.to_string()).await?);
        let later = api.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: default}}")?;
        loop {
            match events.next().await.context("the watch goes on")?? {
                WatchEvent::Bookmark(b) if b.metadata.resource_version == later.to_string() => break,
                WatchEvent::Bookmark(_) => {}
                other => bail!("{other:?}"),
            }
        }
        api.faults().bookmarks(Bookmarks::Never)?;
        api.apply("{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: default}}")?;
        loop {
            match events.next().await.context("the watch goes on")?? {
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Added(pod) if pod.name_any() == "p" => break,
                other => bail!("{other:?}"),
            }
        }
        Ok(())
    })
}

#[test]
fn a_reflector_recovers_from_everything_that_can_happen_to_its_watch() -> Result<()> {
    block_on(async {
        let api = ApiServer::builder().history(5).bookmark_every(Duration::from_millis(50)).start()?;
        let client = client(api.kubeconfig()).await?;
        let apply = |name: &str, value: &str| {
            let labels = "{set: ours}";
            api.apply(&format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: default, labels: {labels}}}, \
                     data: {{value: \"{value}\"}}}}"
            ))
        };
        apply("a", "0")?;
        let mirror = Mirror::new(Api::namespaced(client, "default"), watcher::Config::default());
        eventually("the list", || mirror.content() == expected(&[("a", "0")])).await?;
        eventually("the watch", || api.counters().is_ok_and(|c| c.watches("configmaps") == 1)).await?;
        let lists = || api.counters().map(|c| c.requests("list", "configmaps"));
        ensure!(lists()? == 1);

        // Ended well, or broken: the watch goes on from where it was.
        api.faults().cut_watches()?;
        apply("a", "1")?;
        eventually("after the cut", || mirror.content() == expected(&[("a", "1")])).await?;
        api.faults().break_watches()?;
        apply("a", "2")?;
        eventually("after the break", || mirror.content() == expected(&[("a", "2")])).await?;
        ensure!(lists()? == 1, "nothing was forgotten, so nothing needs to be listed");

        // Away for longer than the history reaches.
        api.stop()?;
        for n in 0..20 {
            apply(&format!("x{n}"), "0")?;
            api.delete("configmaps", "default", &format!("x{n}"))?;
        }
        apply("b", "1")?;
        api.delete("configmaps", "default", "a")?;
        ensure!(std::net::TcpStream::connect(api.address()).is_err(), "a stopped server refuses");
        api.resume()?;
        eventually("after the stop", || mirror.content() == expected(&[("b", "1")]))
            .await
            .with_context(|| format!("{:?} {:#?}", mirror.content(), api.counters()))?;
        ensure!(lists()? == 2, "one 410, one list: {:#?}", api.counters()?.recent);
        Ok(())
    })
}

#[test]
fn a_version_that_is_forgotten_is_refused_in_the_stream_or_before_it() -> Result<()> {
    block_on(async {
        let watched = WatchParams::default().timeout(10);
        let api = ApiServer::start()?;
        let configs: Api<ConfigMap> = Api::namespaced(client(api.kubeconfig()).await?, "default");
        let old = api.version()?.to_string();
        let page = configs.list(&ListParams::default().limit(1)).await?;
        ensure!(page.metadata.continue_.is_none(), "nothing is there");
        for name in ["a", "b"] {
            api.apply(&format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: default}}}}"))?;
        }
        let page = configs.list(&ListParams::default().limit(1)).await?;
        let token = page.metadata.continue_.context("there is another page")?;
        let present = api.version()?.to_string();
        let mut open = pin!(configs.watch(&watched, &present).await?);
        api.faults().expire_history()?;
        let mut events = pin!(configs.watch(&watched, &old).await?);
        let first = events.next().await.context("an event")??;
        ensure!(matches!(&first, WatchEvent::Error(status) if status.code == 410), "{first:?}");
        ensure!(events.next().await.is_none(), "the stream ends with the error");
        let next = ListParams::default().limit(1).continue_token(&token);
        ensure!(code(configs.list(&next).await)? == 410);
        // A watch that has seen everything has lost nothing.
        api.delete("configmaps", "default", "a")?;
        let event = open.next().await.context("an event")??;
        ensure!(matches!(&event, WatchEvent::Deleted(c) if c.name_any() == "a"), "{event:?}");

        let api = ApiServer::builder().gone_before_stream().start()?;
        let configs: Api<ConfigMap> = Api::namespaced(client(api.kubeconfig()).await?, "default");
        api.faults().expire_history()?;
        ensure!(code(configs.watch(&watched, &old).await.map(drop))? == 410);
        Ok(())
    })
}

#[test]
fn faults_are_what_they_are_called() -> Result<()> {
    block_on(async {
        let api = ApiServer::start()?;
        let client = client(api.kubeconfig()).await?;
        let configs: Api<ConfigMap> = Api::namespaced(client, "default");
        api.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: default}, data: {value: x}}")?;
        let all = ListParams::default();
        for failure in [410, 429, 500, 503] {
            api.faults().inject(Fault::answer(failure).verb("list").resource("configmaps").times(1))?;
            // The client itself tries a 429 and a 503 again, so the counters are asked.
            let _failed = configs.list(&all).await;
            ensure!(api.counters()?.answered("list", "configmaps", failure) == 1, "{failure}");
            ensure!(configs.list(&all).await?.items.len() == 1);
        }
        api.faults().latency(Duration::from_millis(120))?;
        let started = Instant::now();
        configs.get("a").await?;
        ensure!(started.elapsed() >= Duration::from_millis(120));
        api.faults().clear()?;

        for garbage in [Garbage::WrongTypes, Garbage::Truncated] {
            api.faults().inject(Fault::garbage(garbage).verb("list").times(1))?;
            ensure!(configs.list(&all).await.is_err(), "{garbage:?} is no list");
            ensure!(configs.list(&all).await.is_ok());
        }
        api.faults().inject(Fault::garbage(Garbage::Huge).verb("list").times(1))?;
        let before = api.counters()?.bytes("list", "configmaps");
        configs.list(&all).await?;
        ensure!(api.counters()?.bytes("list", "configmaps") - before > 1 << 20);

        api.faults().inject(Fault::drop_connection().times(1))?;
        ensure!(configs.get("a").await.is_err() || api.counters()?.answered("get", "configmaps", 0) == 1);

        configs.get("a").await?;
        api.faults().refuse_connections()?;
        ensure!(std::net::TcpStream::connect(api.address()).is_err(), "new connections are refused");
        ensure!(configs.get("a").await.is_ok(), "the one that is open goes on");
        api.resume()?;
        std::net::TcpStream::connect(api.address()).context("connections are taken again")?;
        Ok(())
    })
}

#[test]
fn a_spoiled_event_does_not_spoil_the_next() -> Result<()> {
    block_on(async {
        let api = ApiServer::start()?;
        let client = client(api.kubeconfig()).await?;
        let configs: Api<ConfigMap> = Api::namespaced(client, "default");
        let version = api.version()?.to_string();
        let mut events = pin!(configs.watch(&WatchParams::default().timeout(10), &version).await?);
        api.faults().inject(Fault::garbage(Garbage::WrongTypes).verb("watch").times(1))?;
        for name in ["a", "b"] {
            api.apply(&format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: default}}}}"))?;
        }
        ensure!(events.next().await.context("an event")?.is_err());
        let next = events.next().await.context("an event")??;
        ensure!(matches!(&next, WatchEvent::Added(c) if c.name_any() == "b"), "{next:?}");
        Ok(())
    })
}

#[test]
fn a_watcher_hears_of_a_withdrawn_definition() -> Result<()> {
    block_on(async {
        let api = ApiServer::start()?;
        api.install_istio_crds()?;
        let client = client(api.kubeconfig()).await?;
        let resource = dynamic("networking.istio.io", "v1", "VirtualService", "virtualservices");
        let rules: Api<DynamicObject> = Api::all_with(client, &resource);
        api.apply("{apiVersion: networking.istio.io/v1beta1, kind: VirtualService, metadata: {name: a, namespace: s}, spec: {hosts: [b]}}")?;
        let mut events = pin!(watch(rules, watcher::Config::default()));
        let mut seen = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init | Event::InitDone) => {}
                Ok(Event::InitApply(o) | Event::Apply(o)) => {
                    seen.push(format!("there {}", o.name_any()));
                    api.delete(
                        "customresourcedefinitions.apiextensions.k8s.io",
                        "",
                        "virtualservices.networking.istio.io",
                    )?;
                }
                Ok(Event::Delete(o)) => seen.push(format!("deleted {}", o.name_any())),
                Err(e) => {
                    ensure!(e.to_string().contains("not find") || e.to_string().contains("404"), "{e}");
                    break;
                }
            }
        }
        ensure!(seen.first().is_some_and(|s| s == "there a"), "{seen:?}");
        Ok(())
    })
}
