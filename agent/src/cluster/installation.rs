//! Whether weir is still installed: what an agent asks on its way out, so that a deleted DaemonSet leaves nothing in
//! the kernel while an upgrade, a reboot or a drained node leaves the pins for the next agent. Called by `app`.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::{Api, PartialObjectMeta};
use kube::{Client, Error};

use super::{DAEMON_SET, NAMESPACE};

/// How often the question is put when the answer does not settle it.
const ATTEMPTS: u32 = 5;
/// Between two attempts. Deleting the whole installation deletes the agent's account and its roles at the same moment
/// as the DaemonSet; within this time and its repetitions every API server has seen that.
const PAUSE: Duration = Duration::from_secs(1);
/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Where a pod reads which namespace its account is in.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Whether this process is a pod of the installation, and not an agent that somebody started by hand: only of a pod
/// does it say anything that the DaemonSet is gone.
pub fn is_its_pod() -> bool {
    std::fs::read_to_string(POD_NAMESPACE).is_ok_and(|namespace| namespace.trim() == NAMESPACE)
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The DaemonSet is there: another agent will come.
    Yes,
    /// It is deleted, for the reason given.
    No(&'static str),
    /// Nobody could say, for the reason given. The pins stay.
    Unknown(String),
}

/// One answer of the API server, before it is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Settled(Installed),
    /// The agent is not let in any more: its account or its roles are deleted. Or the API server errs for a moment.
    ShutOut(&'static str),
}

/// Asks until an answer settles it, some 20 s at most. Being shut out every single time counts as deleted: nothing but
/// the removal of the installation takes the account's right to read its own DaemonSet.
pub async fn installed(client: &Client) -> Installed {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    let mut last = Installed::Unknown("not asked".into());
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let answer = match tokio::time::timeout(TIMEOUT, api.get_metadata_opt(DAEMON_SET)).await {
            Ok(result) => judge(result),
            Err(_) => Answer::Settled(Installed::Unknown("no answer in time".into())),
        };
        match answer {
            // An API server that was away once may have been away when it would have let us in.
            Answer::Settled(settled) => return settled,
            Answer::ShutOut(why) => last = Installed::No(why),
        }
    }
    last
}

fn judge(result: Result<Option<PartialObjectMeta<DaemonSet>>, Error>) -> Answer {
    Answer::Settled(match result {
        Ok(Some(found)) if found.metadata.deletion_timestamp.is_some() => {
            Installed::No("its DaemonSet is being deleted")
        }
        Ok(Some(_)) => Installed::Yes,
        Ok(None) => Installed::No("its DaemonSet is gone"),
        Err(Error::Api(status)) if status.code == http::StatusCode::UNAUTHORIZED => {
            return Answer::ShutOut("its service account is gone");
        }
        Err(Error::Api(status)) if status.code == http::StatusCode::FORBIDDEN => {
            return Answer::ShutOut("its roles are gone");
        }
        Err(error) => Installed::Unknown(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::api::ObjectMeta;
    use kube::core::Status;

    fn found(deleted: bool) -> PartialObjectMeta<DaemonSet> {
        let deletion_timestamp = deleted.then_some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        let metadata = ObjectMeta { deletion_timestamp, ..ObjectMeta::default() };
        PartialObjectMeta { metadata, ..PartialObjectMeta::default() }
    }

    fn refused(code: u16) -> Error {
        Error::Api(Status::failure("no", "No").with_code(code).boxed())
    }

    #[test]
    fn pins_stay_unless_the_daemon_set_is_known_to_go() {
        assert_eq!(judge(Ok(Some(found(false)))), Answer::Settled(Installed::Yes));
        assert!(matches!(judge(Ok(Some(found(true)))), Answer::Settled(Installed::No(_))));
        assert!(matches!(judge(Ok(None)), Answer::Settled(Installed::No(_))));
        for code in [429, 500, 503] {
            assert!(matches!(judge(Err(refused(code))), Answer::Settled(Installed::Unknown(_))), "{code}");
        }
        for code in [401, 403] {
            assert!(matches!(judge(Err(refused(code))), Answer::ShutOut(_)), "{code}");
        }
    }
}
