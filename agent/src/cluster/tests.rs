//! The parts of the installation against an API server of a few lines: it keeps JSON objects by path, compares
//! resource versions, and writes down what it was asked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};

use super::account::{self, Account};
use super::crds::{self, Outcome};
use super::installation::{self, Installed};
use super::leader;
use super::own::OwnPod;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/weir-system/leases";
const DAEMON_SET: &str = "/apis/apps/v1/namespaces/weir-system/daemonsets/weir";
const OWN_NAMESPACE: &str = "/api/v1/namespaces/weir-system";
const OWN_POD: &str = "/api/v1/namespaces/weir-system/pods/weir-x";
const ACCOUNTS: &str = "/api/v1/namespaces/weir-system/serviceaccounts";
/// Instead of the time that an agent's end may take.
const ASK: Duration = Duration::from_millis(2500);

#[derive(Default)]
struct Fake {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// `METHOD path`, in order.
    asked: Vec<String>,
    /// Answered instead, in order, before anything else is looked at.
    refusals: Vec<StatusCode>,
    /// Answered instead, each time, below these paths.
    refused: Vec<(&'static str, StatusCode)>,
    /// What is sent to open watches, whatever their paths; when it goes, they end.
    events: Option<broadcast::Sender<Bytes>>,
}

impl Fake {
    fn put(&mut self, path: String, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path, object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (StatusCode, Value) {
        self.asked.push(format!("{method} {path}"));
        if !self.refusals.is_empty() {
            let code = self.refusals.remove(0);
            return (code, status(code));
        }
        if let Some((_, code)) = self.refused.iter().find(|(below, _)| path.starts_with(below)) {
            return (*code, status(*code));
        }
        let found = self.objects.get(path).cloned();
        match (method.as_str(), found) {
            ("GET", Some(found)) => (StatusCode::OK, found),
            ("POST", _) => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
                if self.objects.contains_key(&path) {
                    return (StatusCode::CONFLICT, status(StatusCode::CONFLICT));
                }
                (StatusCode::CREATED, self.put(path, body.clone()))
            }
            ("PUT", Some(found)) if found["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"] => {
                (StatusCode::OK, self.put(path.to_owned(), body.clone()))
            }
            ("PUT", Some(_)) => (StatusCode::CONFLICT, status(StatusCode::CONFLICT)),
            ("GET" | "PUT", None) => (StatusCode::NOT_FOUND, status(StatusCode::NOT_FOUND)),
            _ => (StatusCode::METHOD_NOT_ALLOWED, status(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }
}

fn status(code: StatusCode) -> Value {
    let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason})
}

type Shared = Arc<Mutex<Fake>>;

fn stream_of(events: broadcast::Receiver<Bytes>) -> BoxBody<Bytes, Infallible> {
    let frames = futures_util::stream::unfold(events, |mut events| async {
        let event = events.recv().await.ok()?;
        Some((Ok::<_, Infallible>(Frame::data(event)), events))
    });
    StreamBody::new(frames).boxed()
}

/// Starts it on loopback; a client for it.
async fn start(fake: &Shared) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let fake = Arc::clone(fake);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let fake = Arc::clone(&fake);
            let service = service_fn(move |request: Request<Incoming>| {
                let fake = Arc::clone(&fake);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.expect("the client's body").to_bytes();
                    let body = serde_json::from_slice(&body).unwrap_or_default();
                    let mut fake = fake.lock().expect("no panic");
                    let (code, json) = fake.answer(&head.method, head.uri.path(), &body);
                    let is_watch = head.uri.query().is_some_and(|query| query.contains("watch=true"));
                    let body: BoxBody<Bytes, Infallible> = match &fake.events {
                        Some(events) if is_watch && code != StatusCode::UNAUTHORIZED => stream_of(events.subscribe()),
                        _ => Full::new(Bytes::from(json.to_string())).boxed(),
                    };
                    let mut response = Response::new(body);
                    *response.status_mut() =
                        if is_watch && code == StatusCode::NOT_FOUND { StatusCode::OK } else { code };
                    response.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let mut config = Config::new(format!("http://{address}").parse().expect("a URL"));
    // What is refused shall come to us, not be repeated on the way.
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test);
}

fn asked(fake: &Shared) -> Vec<String> {
    std::mem::take(&mut fake.lock().expect("no panic").asked)
}

/// The rights of the DaemonSet's account: a kind that is read and not granted would never be seen, and a definition that
/// is created and not read would promise what nobody does.
#[test]
fn every_kind_that_is_read_is_granted_and_every_definition_is_read() {
    let text = include_str!("../../../deploy/daemonset/base/rbac.yaml");
    let objects: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
    let role = objects.iter().find(|o| o["kind"] == "ClusterRole").expect("a ClusterRole");
    let rules = role["rules"].as_array().expect("rules");
    let has = |list: &Value, what: &str| list.as_array().is_some_and(|l| l.iter().any(|v| v == what));
    for resource in weir_mesh::crd::RESOURCES {
        let granted = rules.iter().any(|rule| {
            has(&rule["apiGroups"], resource.group)
                && has(&rule["resources"], resource.plural)
                && ["get", "list", "watch"].iter().all(|verb| has(&rule["verbs"], verb))
        });
        assert!(granted, "{}.{}", resource.plural, resource.group);
    }
    for definition in crds::definitions() {
        let (group, plural) = (&definition.spec.group, &definition.spec.names.plural);
        let read = weir_mesh::crd::RESOURCES.iter().find(|r| r.group == group && r.plural == plural);
        let read = read.unwrap_or_else(|| panic!("{plural}.{group} is not read"));
        let served: Vec<&str> = definition.spec.versions.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(served, read.versions, "{plural}.{group}");
    }
}

#[test]
fn what_is_there_is_neither_written_nor_deleted() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        let theirs = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "virtualservices.networking.istio.io", "labels": {"release": "istio"}},
        });
        let path = format!("{CRDS}/virtualservices.networking.istio.io");
        let before = fake.lock().expect("no panic").put(path.clone(), theirs);
        let outcomes = crds::create_absent(&client).await.expect("it answers");
        let present: Vec<&str> =
            outcomes.iter().filter(|(_, o)| *o == Outcome::Present).map(|(name, _)| name.as_str()).collect();
        assert_eq!(present, ["virtualservices.networking.istio.io"]);
        assert_eq!(fake.lock().expect("no panic").objects[&path], before);
        assert!(asked(&fake).iter().all(|a| a.starts_with("GET ") || a.starts_with("POST ")));
        let again = crds::create_absent(&client).await.expect("it answers");
        assert!(again.iter().all(|(_, outcome)| *outcome == Outcome::Present));
        assert!(asked(&fake).iter().all(|a| a.starts_with("GET ")), "the second time nothing is created");
    });
}

#[test]
fn a_refused_definition_is_an_error_and_a_repetition_goes_on() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        fake.lock().expect("no panic").refusals = vec![StatusCode::NOT_FOUND, StatusCode::FORBIDDEN];
        crds::create_absent(&client).await.expect_err("creating is forbidden");
        let outcomes = crds::create_absent(&client).await.expect("it answers");
        assert!(outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Created));
    });
}

#[test]
fn one_leads_and_frees_the_lease_for_the_next() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        let candidate = |me: &'static str| {
            let (client, (tell, told), (stop, mut stopped)) =
                (client.clone(), watch::channel(false), watch::channel(false));
            let campaign = tokio::spawn(async move {
                leader::campaign(client, "weir-system", me, &tell, async {
                    let _told = stopped.wait_for(|stop| *stop).await;
                })
                .await;
            });
            (told, stop, campaign)
        };
        let (mut first, stop_first, first_ends) = candidate("a-1");
        first.wait_for(|leads| *leads).await.expect("it leads");
        let (second, stop_second, second_ends) = candidate("b-2");
        let looks = || fake.lock().expect("no panic").asked.iter().filter(|a| a.starts_with("GET")).count();
        while looks() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!*second.borrow(), "the Lease is held");
        let path = format!("{LEASES}/weir-leader");
        let holder = || fake.lock().expect("no panic").objects[&path]["spec"]["holderIdentity"].clone();
        assert_eq!(holder(), "a-1");
        stop_second.send_replace(true);
        second_ends.await.expect("it ends");
        assert_eq!(holder(), "a-1", "who does not hold it does not free it");
        stop_first.send_replace(true);
        first_ends.await.expect("it ends");
        assert_eq!(holder(), "");
        let (mut third, _stop_third, _third_ends) = candidate("c-3");
        let started = Instant::now();
        third.wait_for(|leads| *leads).await.expect("it leads");
        assert!(started.elapsed() < Duration::from_secs(5), "a free Lease is not waited for");
        assert_eq!(fake.lock().expect("no panic").objects[&path]["spec"]["leaseTransitions"], 2, "freed and taken");
    });
}

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
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let mut config = Config::new(format!("http://{address}").parse().expect("a URL"));
        config.default_retry = false;
        let client = Client::try_from(config).expect("a client");
        let (_tell, account) = watch::channel(Account::There);
        assert!(matches!(is_installed(&client, &account).await, Installed::Unknown(_)));
    });
}
