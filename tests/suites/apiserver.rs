//! The harness's API server is what clients of Kubernetes expect: proven with the `kube` client. The same tests run
//! against a real API server where `WEIR_TEST_KUBECONFIG` names a cluster, or `KUBEBUILDER_ASSETS` a directory with
//! `etcd` and `kube-apiserver`.

#[path = "clients/mod.rs"]
mod clients;
#[path = "clients/real.rs"]
mod real;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, VersionMatch};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use weir_tests::apiserver::ApiServer;

use clients::{Mirror, SOON, block_on, client, code, dynamic, eventually, expected, value};

/// The harness's server, or a real one.
struct Cluster {
    _fake: Option<ApiServer>,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Cluster {
    async fn new(test: &str) -> Result<(Self, Client)> {
        let namespace = format!("weir-test-{test}-{}", std::process::id());
        let cluster = if let Some(kubeconfig) = real::kubeconfig()? {
            Self { _fake: None, kubeconfig, namespace }
        } else {
            let api = ApiServer::builder().bookmark_every(Duration::from_millis(50)).start()?;
            Self { kubeconfig: api.kubeconfig(), _fake: Some(api), namespace }
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
        let spec = json!({"type": "LoadBalancer", "selector": {"app": "x"}, "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]});
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
