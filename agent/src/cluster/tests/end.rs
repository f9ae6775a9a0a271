//! The question at an agent's end: what counts as a removal of the installation, and what does not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use super::fake::{Shared, asked, run, start};
use crate::cluster::account::{self, Account};
use crate::cluster::installation::{self, Installed};
use crate::cluster::own::OwnPod;

const DAEMON_SET: &str = "/apis/apps/v1/namespaces/weir-system/daemonsets/weir";
const OWN_NAMESPACE: &str = "/api/v1/namespaces/weir-system";
const OWN_POD: &str = "/api/v1/namespaces/weir-system/pods/weir-x";
const ACCOUNTS: &str = "/api/v1/namespaces/weir-system/serviceaccounts";
/// Instead of the time that an agent's end may take.
const ASK: Duration = Duration::from_millis(2500);

fn own() -> OwnPod {
    OwnPod { namespace: "weir-system".into(), name: "weir-x".into(), account: "weir".into() }
}

async fn is_installed(client: &Client, account: &watch::Receiver<Account>) -> Installed {
    installation::ask(client, &own(), Some("weir".to_owned()), account, ASK).await
}

fn deleted(object: &Value) -> Value {
    let mut going = object.clone();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    going
}

#[test]
fn pins_go_only_when_the_installation_does() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        let (_tell, account) = watch::channel(Account::There);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "weir-system"}});
        fake.lock().expect("no panic").put(OWN_NAMESPACE.into(), namespace.clone());
        assert!(matches!(is_installed(&client, &account).await, Installed::No(_)), "no DaemonSet");
        let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "weir"}});
        fake.lock().expect("no panic").put(DAEMON_SET.into(), set.clone());
        assert_eq!(is_installed(&client, &account).await, Installed::Yes);
        // For a moment, as while a role is being replaced or a server starts.
        for code in [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED, StatusCode::SERVICE_UNAVAILABLE] {
            fake.lock().expect("no panic").refusals = vec![code; 2];
            assert_eq!(is_installed(&client, &account).await, Installed::Yes, "{code}");
        }
        fake.lock().expect("no panic").put(DAEMON_SET.into(), deleted(&set));
        assert!(matches!(is_installed(&client, &account).await, Installed::No(_)), "it is being deleted");
        fake.lock().expect("no panic").put(DAEMON_SET.into(), set);
        fake.lock().expect("no panic").put(OWN_NAMESPACE.into(), deleted(&namespace));
        assert!(matches!(is_installed(&client, &account).await, Installed::No(_)), "its namespace is being deleted");
    });
}

#[test]
fn being_refused_for_as_long_as_anybody_asks_is_no_removal() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        let (tell, account) = watch::channel(Account::There);
        for code in [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED] {
            fake.lock().expect("no panic").refused = vec![("/", code)];
            let answer = is_installed(&client, &account).await;
            assert!(matches!(answer, Installed::Unknown(_)), "{code}: {answer:?}");
            // The one sign that cannot be mistaken: the account was seen to go before.
            tell.send_replace(Account::Deleted(Instant::now().checked_sub(account::GONE_FOR).expect("an uptime")));
            assert!(matches!(is_installed(&client, &account).await, Installed::No(_)), "{code}");
            tell.send_replace(Account::There);
        }
    });
}

#[test]
fn an_open_watch_tells_of_the_account_when_nothing_else_is_answered() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        let (events, _) = broadcast::channel(8);
        fake.lock().expect("no panic").events = Some(events.clone());
        let (tell, mut account) = watch::channel(Account::Unknown);
        let following = tokio::spawn(account::follow(client.clone(), own(), tell));
        let event = |kind: &str| {
            let object = json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"name": "weir", "resourceVersion": "7"},
            });
            Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
        };
        while events.receiver_count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let watched = format!("GET {ACCOUNTS}");
        assert!(asked(&fake).contains(&watched));
        events.send(event("ADDED")).expect("it watches");
        account.wait_for(|account| *account == Account::There).await.expect("it follows");
        fake.lock().expect("no panic").refused = vec![("/", StatusCode::UNAUTHORIZED)];
        events.send(event("DELETED")).expect("it watches");
        account.wait_for(|account| matches!(account, Account::Deleted(_))).await.expect("it follows");
        let started = Instant::now();
        let answer = installation::ask(&client, &own(), Some("weir".into()), &account, account::GONE_FOR * 3).await;
        assert!(matches!(answer, Installed::No(_)), "{answer:?}");
        assert!(started.elapsed() >= account::GONE_FOR, "it might have been replaced");
        // Replaced, not deleted.
        events.send(event("ADDED")).expect("it watches");
        account.wait_for(|account| *account == Account::There).await.expect("it follows");
        assert!(matches!(is_installed(&client, &account).await, Installed::Unknown(_)));
        // Seen to go, and then nothing more can be seen: it may have come back.
        events.send(event("DELETED")).expect("it watches");
        account.wait_for(|account| matches!(account, Account::Deleted(_))).await.expect("it follows");
        fake.lock().expect("no panic").events = None;
        drop(events);
        account.wait_for(|account| *account == Account::Unknown).await.expect("it follows");
        following.abort();
    });
}

#[test]
fn the_daemon_set_is_the_one_that_owns_the_pod() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        let (_tell, account) = watch::channel(Account::There);
        let own = own();
        let ask = || installation::ask(&client, &own, None, &account, ASK);
        let answer = ask().await;
        assert!(matches!(answer, Installed::No("its namespace is being deleted")), "nothing is there: {answer:?}");
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "weir-system"}});
        fake.lock().expect("no panic").put(OWN_NAMESPACE.into(), namespace);
        let answer = ask().await;
        assert!(matches!(answer, Installed::Unknown(_)), "the pod alone is gone: {answer:?}");
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "b-weir", "uid": "1", "controller": true});
        let pod = json!({"kind": "Pod", "metadata": {"name": "weir-x", "ownerReferences": [owner]}});
        fake.lock().expect("no panic").put(OWN_POD.into(), pod);
        let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "b-weir"}});
        let renamed = DAEMON_SET.replace("/weir", "/b-weir").replace("b-weir-system", "weir-system");
        fake.lock().expect("no panic").put(renamed, set);
        assert_eq!(ask().await, Installed::Yes);
    });
}

#[test]
fn nobody_at_the_address_settles_nothing() {
    run(async {
        // It is kept, so that the port is nobody else's, and does not listen.
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("loopback");
        let address = socket.local_addr().expect("bound");
        let mut config = Config::new(format!("http://{address}").parse().expect("a URL"));
        config.default_retry = false;
        let client = Client::try_from(config).expect("a client");
        let (_tell, account) = watch::channel(Account::There);
        assert!(matches!(is_installed(&client, &account).await, Installed::Unknown(_)));
    });
}
