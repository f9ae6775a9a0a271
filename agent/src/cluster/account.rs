//! Whether the agents' ServiceAccount is still there, from a watch that was opened while the agent had the right to.
//! Run by `app` beside the election; [`super::installation`] asks for the outcome at the end.
//!
//! `kubectl delete -k` takes the roles and the account away at about the same moment as the DaemonSet, and from then on
//! every question is refused. A refusal by itself says nothing (roles are replaced, keys are rotated), but an open watch
//! is not authorized anew: it still tells that the account was deleted. Without its account no pod of the DaemonSet can
//! be made, so no other agent will come.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, WatchEvent, WatchParams};
use kube::{Client, Error};
use tokio::sync::watch;

use super::own::OwnPod;
use super::{in_time, spread};

/// Each watch lasts this long and up to [`WATCH_SPREAD`] longer; the client gives a silent stream up after 295 s.
const WATCH: Duration = Duration::from_mins(4);
const WATCH_SPREAD: Duration = Duration::from_secs(50);
/// After a watch that ended or was refused, and up to as long again: nothing waits for it.
const AGAIN: Duration = Duration::from_secs(10);
/// An account that is replaced (`kubectl replace --force`) is away for less than this.
pub(super) const GONE_FOR: Duration = Duration::from_secs(3);

/// What is known of the account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Account {
    /// Nobody has said.
    #[default]
    Unknown,
    /// It was there when the API server last said something about it.
    There,
    /// It was seen to be deleted, at this time, and not to come back as long as that could be seen.
    Deleted(Instant),
}

impl Account {
    /// Deleted for so long that it is no replacement.
    pub(super) fn is_gone(self, now: Instant) -> bool {
        matches!(self, Self::Deleted(at) if now.saturating_duration_since(at) >= GONE_FOR)
    }

    /// What is left of it when nothing more can be seen: a deletion that may have been a replacement is not known.
    fn unseen(self, now: Instant) -> Self {
        match self {
            Self::Deleted(_) if !self.is_gone(now) => Self::Unknown,
            known => known,
        }
    }
}

/// Follows the account until it is dropped.
pub async fn follow(client: Client, own: OwnPod, tell: watch::Sender<Account>) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, &own.namespace);
    loop {
        let ended = session(&accounts, &own.account, &tell).await;
        tell.send_modify(|account| *account = account.unseen(Instant::now()));
        if let Err(error) = ended {
            tracing::debug!(%error, account = own.account, "the agent's ServiceAccount cannot be followed");
        }
        tokio::time::sleep(AGAIN + spread(AGAIN)).await;
    }
}

async fn session(accounts: &Api<ServiceAccount>, name: &str, tell: &watch::Sender<Account>) -> Result<(), Error> {
    let lasts = WATCH + spread(WATCH_SPREAD);
    let wanted = WatchParams::default()
        .fields(&format!("metadata.name={name}"))
        .timeout(u32::try_from(lasts.as_secs()).unwrap_or(u32::MAX));
    // From version 0 it begins with what is there, so that no list is needed, nor the right to it.
    let events = in_time(accounts.watch_metadata(&wanted, "0")).await?;
    tokio::pin!(events);
    while let Some(event) = events.try_next().await? {
        match event {
            WatchEvent::Added(_) | WatchEvent::Modified(_) => drop(tell.send_replace(Account::There)),
            WatchEvent::Deleted(_) => {
                tracing::info!(account = name, "the agents' ServiceAccount was deleted");
                tell.send_replace(Account::Deleted(Instant::now()));
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(Error::Api(status)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_account_is_not_a_deleted_one() {
        let at = Instant::now();
        let deleted = Account::Deleted(at);
        assert!(!deleted.is_gone(at + GONE_FOR / 2) && deleted.is_gone(at + GONE_FOR));
        assert_eq!(deleted.unseen(at + GONE_FOR / 2), Account::Unknown, "it may have come back since");
        assert_eq!(deleted.unseen(at + GONE_FOR), deleted);
        assert_eq!(Account::There.unseen(at), Account::There);
        assert!(!Account::There.is_gone(at) && !Account::Unknown.is_gone(at));
    }
}
