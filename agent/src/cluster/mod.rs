//! weir's own place in a Kubernetes cluster: how to reach the API server, what the installation is called, and what is
//! asked and written there about the installation itself. Used by `app` (election, CRDs, the question at the end) and
//! `cli` (`crds`, `status`). What the users write is read by `watch`.

pub mod account;
pub mod agents;
pub mod crds;
pub mod installation;
pub mod leader;
pub mod objects;
pub mod own;
pub mod report;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use self::tests::fake;

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// The namespace of the installation, where the user has not changed it.
pub const NAMESPACE: &str = "weir-system";
/// What the agents' pods are labelled with.
pub const POD_SELECTOR: &str = "app.kubernetes.io/name=weir,app.kubernetes.io/component=agent";

/// How to reach the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The kubeconfig file; `None` = KUBECONFIG, `~/.kube/config`, or the pod's own service account.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it; `None` = its current one.
    pub context: Option<String>,
}

/// The API server cannot be asked at all. Each says all that there is to say: kube's errors hold the words of those that
/// caused them, so that a chain of them says everything twice.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The named kubeconfig or context is not usable.
    #[error("kubeconfig: {0}")]
    Kubeconfig(String),
    /// Neither a kubeconfig nor a service account.
    #[error("no usable kubeconfig, and not in a cluster: {0}")]
    Nowhere(String),
    /// Credentials or certificates that cannot be used.
    #[error("{0}")]
    Client(String),
}

impl From<KubeconfigError> for AccessError {
    fn from(error: KubeconfigError) -> Self {
        Self::Kubeconfig(error.to_string())
    }
}

impl From<InferConfigError> for AccessError {
    fn from(error: InferConfigError) -> Self {
        // Outside of a cluster nobody wonders why there is no service account: the kubeconfig's error says what to do.
        let outside = std::env::var_os("KUBERNETES_SERVICE_HOST").is_none();
        let kubeconfig = std::error::Error::source(&error).filter(|_| outside);
        Self::Nowhere(kubeconfig.map_or_else(|| error.to_string(), ToString::to_string))
    }
}

impl From<kube::Error> for AccessError {
    fn from(error: kube::Error) -> Self {
        Self::Client(error.to_string())
    }
}

impl Access {
    /// A client. Nothing is sent yet.
    ///
    /// # Errors
    /// When there is no configuration, or it is not usable.
    pub async fn client(&self) -> Result<Client, AccessError> {
        Ok(Client::try_from(self.config().await?)?)
    }

    /// The configuration of a client, as it is at this moment.
    ///
    /// # Errors
    /// When there is none.
    pub async fn config(&self) -> Result<Config, AccessError> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        Ok(match &self.kubeconfig {
            Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
            // A context is one of a kubeconfig; without it a pod's own account will do, too.
            None if self.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await?,
        })
    }
}

/// For one request about the installation: the API server itself gives up on most after a minute, and nothing of this is
/// worth waiting for that long.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// One request's answer, or an error after [`REQUEST_TIMEOUT`].
async fn in_time<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer,
        Err(_) => Err(kube::Error::Service(
            format!("the API server gave no answer within {} s", REQUEST_TIMEOUT.as_secs()).into(),
        )),
    }
}

/// A random part of `most`, so that the agents of a cluster do not act at the same moment.
pub fn spread(most: Duration) -> Duration {
    // Each RandomState has keys of its own, so that its hash of anything is as good as a random number.
    most.mul_f64(RandomState::new().hash_one(0_u8) as f64 / u64::MAX as f64)
}
