//! Everything that the harness's API server can be made to do wrong, and how a client of Kubernetes takes it.

#[path = "clients/mod.rs"]
mod clients;

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher as watch};
use kube::{Api, ResourceExt};
use weir_tests::apiserver::{ApiServer, Bookmarks, Fault, Garbage};

use clients::{Mirror, block_on, client, code, dynamic, eventually, expected};

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
