//! The parts of the installation against an API server of a few lines: it keeps JSON objects by path, compares
//! resource versions, and writes down what it was asked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::crds::{self, Outcome};
use super::installation::{self, Installed};
use super::leader;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/weir-system/leases";
const DAEMON_SET: &str = "/apis/apps/v1/namespaces/weir-system/daemonsets/weir";

#[derive(Default)]
struct Fake {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// `METHOD path`, in order.
    asked: Vec<String>,
    /// Answered instead, in order, before anything else is looked at.
    refusals: Vec<StatusCode>,
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
                    let (code, json) = fake.lock().expect("no panic").answer(&head.method, head.uri.path(), &body);
                    let mut response = Response::new(Full::new(Bytes::from(json.to_string())));
                    *response.status_mut() = code;
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
                leader::campaign(client, me, &tell, async {
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

#[test]
fn pins_go_only_when_the_installation_does() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        assert!(matches!(installation::installed(&client).await, Installed::No(_)), "no DaemonSet");
        let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "weir"}});
        fake.lock().expect("no panic").put(DAEMON_SET.into(), set.clone());
        assert_eq!(installation::installed(&client).await, Installed::Yes);
        // Locked out for a moment, as while a role is being replaced.
        fake.lock().expect("no panic").refusals = vec![StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED];
        assert_eq!(installation::installed(&client).await, Installed::Yes);
        fake.lock().expect("no panic").refusals = vec![StatusCode::UNAUTHORIZED; 5];
        assert!(matches!(installation::installed(&client).await, Installed::No(_)), "its account is gone");
        fake.lock().expect("no panic").refusals = vec![StatusCode::SERVICE_UNAVAILABLE];
        assert!(matches!(installation::installed(&client).await, Installed::Unknown(_)));
        let mut going = set;
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        fake.lock().expect("no panic").put(DAEMON_SET.into(), going);
        assert!(matches!(installation::installed(&client).await, Installed::No(_)), "it is being deleted");
    });
}

#[test]
fn nobody_at_the_address_settles_nothing() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let config = Config::new(format!("http://{address}").parse().expect("a URL"));
        let client = Client::try_from(config).expect("a client");
        assert!(matches!(installation::installed(&client).await, Installed::Unknown(_)));
    });
}
