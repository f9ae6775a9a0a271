//! What the suites about the API server do with the `kube` client again and again.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Config, ResourceExt};

/// What a client may take for anything here.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(SOON * 3, work).await.context("the test hangs")? })
}

pub(crate) async fn client(kubeconfig: PathBuf) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

pub(crate) fn value(config: &ConfigMap) -> String {
    config.data.as_ref().and_then(|d| d.get("value")).cloned().unwrap_or_default()
}

pub(crate) fn code<T>(result: kube::Result<T>) -> Result<u16> {
    match result {
        Err(kube::Error::Api(status)) => Ok(status.code),
        Err(other) => Err(other.into()),
        Ok(_) => bail!("the request was not refused"),
    }
}

pub(crate) async fn eventually(what: &str, mut check: impl FnMut() -> bool) -> Result<Duration> {
    let started = Instant::now();
    while !check() {
        ensure!(started.elapsed() < SOON, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(started.elapsed())
}

/// A reflector that runs until it is dropped.
pub(crate) struct Mirror {
    store: reflector::Store<ConfigMap>,
    task: tokio::task::JoinHandle<()>,
}

impl Mirror {
    pub(crate) fn new(configs: Api<ConfigMap>, how: watcher::Config) -> Self {
        let (store, writer) = reflector::store();
        let stream = watcher(configs, how.labels("set=ours")).backoff(Fast).reflect(writer);
        let task = tokio::spawn(async move {
            let mut stream = pin!(stream);
            while stream.next().await.is_some() {}
        });
        Self { store, task }
    }

    pub(crate) fn content(&self) -> BTreeMap<String, String> {
        self.store.state().iter().map(|c| (c.name_any(), value(c))).collect()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A watcher that tries again every 20 ms: these tests are about the server.
#[derive(Clone, Debug)]
pub(crate) struct Fast;

impl Iterator for Fast {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(20))
    }
}

impl kube::runtime::utils::Backoff for Fast {
    fn reset(&mut self) {}
}

pub(crate) fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub(crate) fn dynamic(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}
