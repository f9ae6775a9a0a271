//! What an agent does about the installation that it is a part of: it stands for election, the elected one creates the
//! CRDs that are absent and tells of findings, and on the way out it asks whether there will be another agent. Called
//! by `mod`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube::Client;
use tokio::sync::watch;

use crate::cluster::account::{self, Account};
use crate::cluster::installation::{self, Installed};
use crate::cluster::own::OwnPod;
use crate::cluster::report::{Findings, Reporter};
use crate::cluster::{Access, NAMESPACE, crds, leader, spread};

/// Between attempts to create the CRDs.
const RETRY: Duration = Duration::from_secs(5);
/// Between attempts to learn which DaemonSet the agent belongs to. It is needed at the end only.
const LEARN: Duration = Duration::from_secs(30);

/// The agent's part.
pub(super) struct Installation {
    client: Client,
    stop: watch::Sender<bool>,
    campaign: tokio::task::JoinHandle<()>,
    pod: Option<Pod>,
}

/// What an agent that is a pod has learned while it could ask.
struct Pod {
    own: OwnPod,
    daemon_set: watch::Receiver<Option<String>>,
    account: watch::Receiver<Account>,
}

impl Pod {
    fn learn(client: &Client, own: &OwnPod) -> Self {
        let (tell_set, daemon_set) = watch::channel(None);
        let (tell_account, account) = watch::channel(Account::default());
        tokio::spawn(account::follow(client.clone(), own.clone(), tell_account));
        tokio::spawn(learn_daemon_set(client.clone(), own.clone(), tell_set));
        Self { own: own.clone(), daemon_set, account }
    }
}

impl Installation {
    /// Stands for election from here on. `None` when the API server cannot be asked at all, which the log says.
    pub(super) async fn join(
        access: &Access,
        own: Option<&OwnPod>,
        node: Option<&str>,
        create_crds: bool,
        findings: watch::Receiver<Findings>,
        refusals: watch::Receiver<Findings>,
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
        let (always, speaks) = watch::channel(true);
        let of_this_node = Reporter::of_a_node(client.clone(), me.clone(), speaks);
        tokio::spawn(async move {
            of_this_node.run(refusals).await;
            drop(always);
        });
        let candidate = client.clone();
        let namespace = own.map_or(NAMESPACE, |own| &own.namespace).to_owned();
        let campaign = tokio::spawn(async move {
            let end = async {
                let _told = stopped.wait_for(|stop| *stop).await;
            };
            leader::campaign(candidate, &namespace, &me, &tell, end).await;
        });
        if create_crds {
            tokio::spawn(create_when_leading(client.clone(), leading));
        }
        let pod = own.map(|own| Pod::learn(&client, own));
        Some(Self { client, stop, campaign, pod })
    }

    /// Frees the Lease, and says whether the pins should go: true when the installation is known to be deleted.
    pub(super) async fn leave(self, superseded: bool) -> bool {
        self.stop.send_replace(true);
        let question = async {
            // Who has a successor has the answer, and who was started by hand is nobody's to uninstall.
            let Some(pod) = self.pod.as_ref().filter(|_| !superseded) else { return Installed::Yes };
            let daemon_set = pod.daemon_set.borrow().clone();
            installation::installed(&self.client, &pod.own, daemon_set, &pod.account).await
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

async fn learn_daemon_set(client: Client, own: OwnPod, tell: watch::Sender<Option<String>>) {
    loop {
        match own.daemon_set(&client).await {
            Ok(found) => {
                if found.is_none() {
                    tracing::warn!(pod = own.name, "belongs to no DaemonSet: its pins will stay when it ends");
                }
                tell.send_replace(found);
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "which DaemonSet the agent belongs to");
                tokio::time::sleep(LEARN + spread(LEARN)).await;
            }
        }
    }
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
