//! Whether weir is still installed: what an agent asks on its way out, so that a deleted DaemonSet leaves nothing in
//! the kernel while an upgrade, a reboot or a drained node leaves the pins for the next agent. Called by `app`.
//!
//! Only what cannot be mistaken counts as deleted: the DaemonSet or its namespace is absent or about to be, or the
//! agent is refused *and* has seen its own account being deleted (see [`super::account`]). Being refused alone may be
//! a role that is replaced or a key that is rotated: then the pins stay.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PartialObjectMeta};
use kube::{Client, Error, Resource};
use tokio::sync::watch;
use tokio::time::timeout;

use super::account::Account;
use super::own::OwnPod;

/// Between two attempts when the answers settle nothing.
const PAUSE: Duration = Duration::from_secs(1);
/// For one attempt, all its questions together.
const TIMEOUT: Duration = Duration::from_secs(3);
/// For all of them: the removal of an installation is over by then, and the drain, which takes as long, too.
pub const DEADLINE: Duration = Duration::from_secs(15);

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

/// What the API server says of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    There,
    /// It has a time of deletion.
    Going,
    Absent,
    /// The agent is not let in, or may not ask.
    Refused(String),
    /// The server answers, and errs.
    Failing(String),
    /// It cannot be reached, or does not answer in time.
    Silent(String),
}

impl Answer {
    fn of<K>(result: Result<Option<PartialObjectMeta<K>>, Error>) -> Self {
        match result {
            Ok(Some(found)) if found.metadata.deletion_timestamp.is_some() => Self::Going,
            Ok(Some(_)) => Self::There,
            Ok(None) => Self::Absent,
            Err(Error::Api(status)) => match status.code {
                401 | 403 => Self::Refused(status.to_string()),
                _ => Self::Failing(status.to_string()),
            },
            Err(error) => Self::Silent(error.to_string()),
        }
    }

    fn why(&self) -> &str {
        match self {
            Self::There => "it is there",
            Self::Going => "it is being deleted",
            Self::Absent => "it is absent",
            Self::Refused(why) | Self::Failing(why) | Self::Silent(why) => why,
        }
    }
}

/// Asks until the answers settle it, [`DEADLINE`] at most. `daemon_set` is its name, where that is known already.
pub async fn installed(
    client: &Client,
    own: &OwnPod,
    daemon_set: Option<String>,
    account: &watch::Receiver<Account>,
) -> Installed {
    ask(client, own, daemon_set, account, DEADLINE).await
}

pub(super) async fn ask(
    client: &Client,
    own: &OwnPod,
    mut daemon_set: Option<String>,
    account: &watch::Receiver<Account>,
    within: Duration,
) -> Installed {
    let until = Instant::now() + within;
    loop {
        let looks = async {
            tokio::join!(look_at_set(client, own, &mut daemon_set), look_at_namespace(client, &own.namespace))
        };
        let (set, namespace) = timeout(TIMEOUT, looks).await.unwrap_or_else(|_| {
            let silent = Answer::Silent(format!("no answer within {} s", TIMEOUT.as_secs()));
            (silent.clone(), silent)
        });
        let account_is_gone = account.borrow().is_gone(Instant::now());
        if let Some(settled) = settle(&set, &namespace, account_is_gone) {
            return settled;
        }
        if Instant::now() + PAUSE >= until {
            return match set {
                Answer::There => Installed::Yes,
                set => Installed::Unknown(set.why().to_owned()),
            };
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `None` = the next answers may say more.
fn settle(set: &Answer, namespace: &Answer, account_is_gone: bool) -> Option<Installed> {
    Some(match (set, namespace) {
        (Answer::Absent, _) => Installed::No("its DaemonSet is gone"),
        (Answer::Going, _) => Installed::No("its DaemonSet is being deleted"),
        // Nothing new can be made in a namespace that is going.
        (_, Answer::Absent | Answer::Going) => Installed::No("its namespace is being deleted"),
        (Answer::Refused(_), _) if account_is_gone => Installed::No("its service account is deleted"),
        // Without its account no other agent can come, so the DaemonSet is about to go.
        (Answer::There, _) if account_is_gone => return None,
        (Answer::There, _) => Installed::Yes,
        // An API server that is away stays away for longer than anybody waits for an agent's end.
        (Answer::Silent(why), _) => Installed::Unknown(why.clone()),
        (Answer::Refused(_) | Answer::Failing(_), _) => return None,
    })
}

async fn look_at_set(client: &Client, own: &OwnPod, name: &mut Option<String>) -> Answer {
    if name.is_none() {
        match own.daemon_set(client).await {
            Ok(Some(found)) => *name = Some(found),
            Ok(None) => return Answer::Failing("the agent's pod belongs to no DaemonSet".to_owned()),
            // A pod that is gone says nothing of its DaemonSet.
            Err(error) => {
                return match Answer::of::<DaemonSet>(Err(error)) {
                    Answer::Absent => Answer::Failing("the agent's pod is gone".to_owned()),
                    answer => answer,
                };
            }
        }
    }
    match name {
        Some(name) => look_at::<DaemonSet>(&Api::namespaced(client.clone(), &own.namespace), name).await,
        None => Answer::Failing("the DaemonSet's name is not known".to_owned()),
    }
}

async fn look_at_namespace(client: &Client, name: &str) -> Answer {
    look_at::<Namespace>(&Api::all(client.clone()), name).await
}

async fn look_at<K>(api: &Api<K>, name: &str) -> Answer
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    Answer::of(api.get_metadata_opt(name).await)
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

    fn answer(code: u16) -> Answer {
        Answer::of::<DaemonSet>(Err(Error::Api(Status::failure("no", "No").with_code(code).boxed())))
    }

    #[test]
    fn pins_stay_unless_it_is_known_that_no_other_agent_will_come() {
        let (there, going, absent) =
            (Answer::of(Ok(Some(found(false)))), Answer::of(Ok(Some(found(true)))), Answer::of::<DaemonSet>(Ok(None)));
        let goes = |set: &Answer, namespace: &Answer, account| {
            settle(set, namespace, account).map(|answer| matches!(answer, Installed::No(_)))
        };
        assert_eq!(settle(&there, &there, false), Some(Installed::Yes));
        assert_eq!(goes(&going, &there, false), Some(true));
        assert_eq!(goes(&absent, &there, false), Some(true));
        assert_eq!(goes(&there, &going, false), Some(true), "the namespace goes, and the DaemonSet with it");
        for code in [401, 403] {
            let refused = answer(code);
            assert_eq!(goes(&refused, &refused, false), None, "{code}: a hiccup, as far as anybody can tell");
            assert_eq!(goes(&refused, &refused, true), Some(true), "{code}: and its account was deleted");
            assert_eq!(goes(&refused, &absent, false), Some(true), "{code}");
            assert_eq!(goes(&there, &refused, false), Some(false), "{code}");
        }
        for code in [429, 500, 503] {
            assert_eq!(goes(&answer(code), &answer(code), true), None, "{code}");
        }
        assert_eq!(goes(&there, &there, true), None, "it can have no agent any more, and may be about to go");
        let silent = Answer::Silent("x".into());
        assert_eq!(settle(&silent, &silent, true), Some(Installed::Unknown("x".into())));
    }
}
