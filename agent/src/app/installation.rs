//! What an agent does about the installation that it is a part of: it stands for election, the elected one creates the
//! CRDs that are absent and tells of findings, and on the way out it asks whether there will be another agent. Called
//! by `mod`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube::Client;
use tokio::sync::watch;
use weir_mesh::finding::Finding;

use crate::cluster::installation::{self, Installed};
use crate::cluster::report::Reporter;
use crate::cluster::{Access, crds, leader};

/// Between attempts to create the CRDs.
const RETRY: Duration = Duration::from_secs(5);

/// The agent's part.
pub(super) struct Installation {
    client: Client,
    stop: watch::Sender<bool>,
    campaign: tokio::task::JoinHandle<()>,
}

impl Installation {
    /// Stands for election from here on. `None` when the API server cannot be asked at all, which the log says.
    pub(super) async fn join(
        access: &Access,
        node: Option<&str>,
        create_crds: bool,
        findings: watch::Receiver<Arc<Vec<Finding>>>,
    ) -> Option<Self> {
        let client = match access.client().await {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "no part in the election");
                return None;
            }
        };
        let me = identity(node);
        let (tell, leading) = watch::channel(false);
        let (stop, mut stopped) = watch::channel(false);
        tokio::spawn(Reporter::new(client.clone(), me.clone(), leading.clone()).run(findings));
        let candidate = client.clone();
        let campaign = tokio::spawn(async move {
            let end = async {
                let _told = stopped.wait_for(|stop| *stop).await;
            };
            leader::campaign(candidate, &me, &tell, end).await;
        });
        if create_crds {
            tokio::spawn(create_when_leading(client.clone(), leading));
        }
        Some(Self { client, stop, campaign })
    }

    /// Frees the Lease, and says whether the pins should go: true when the installation is known to be deleted.
    pub(super) async fn leave(self, superseded: bool) -> bool {
        self.stop.send_replace(true);
        let question = async {
            // Who has a successor has the answer, and who was started by hand is nobody's to uninstall.
            if superseded || !installation::is_its_pod() {
                return Installed::Yes;
            }
            installation::installed(&self.client).await
        };
        let (freed, installed) = tokio::join!(self.campaign, question);
        if let Err(error) = freed {
            tracing::error!(%error, "the election");
        }
        match installed {
            Installed::Yes => false,
            Installed::No(why) => {
                tracing::info!(why, "weir is being uninstalled");
                true
            }
            Installed::Unknown(why) => {
                tracing::warn!(why, "cannot tell whether weir is still installed: pins stay");
                false
            }
        }
    }
}

/// Unlike the node's name it differs for two agents that share the node during an upgrade.
fn identity(node: Option<&str>) -> String {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{}-{}-{started}", node.unwrap_or("agent"), std::process::id())
}

/// Once is enough: who deletes a CRD later means it.
async fn create_when_leading(client: Client, mut leading: watch::Receiver<bool>) {
    let mut said = String::new();
    while leading.wait_for(|leads| *leads).await.is_ok() {
        match crds::create_absent(&client).await {
            Ok(outcomes) => {
                let created: Vec<String> = outcomes
                    .into_iter()
                    .filter(|(_, outcome)| *outcome == crds::Outcome::Created)
                    .map(|(name, _)| name)
                    .collect();
                if !created.is_empty() {
                    tracing::info!(?created, "CustomResourceDefinitions that were absent");
                }
                return;
            }
            Err(error) => {
                let error = error.to_string();
                if error != said {
                    tracing::warn!(%error, "creating absent CustomResourceDefinitions");
                    said = error;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
