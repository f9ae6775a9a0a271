//! An API server of a few lines: it keeps JSON objects by path, compares resource versions, lists, merges patches, and
//! writes down what it was asked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

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
use tokio::sync::broadcast;

#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) objects: BTreeMap<String, Value>,
    pub(crate) version: u64,
    /// `METHOD path`, in order.
    pub(crate) asked: Vec<String>,
    /// Answered instead, in order, before anything else is looked at.
    pub(crate) refusals: Vec<StatusCode>,
    /// Answered instead, each time, below these paths.
    pub(crate) refused: Vec<(&'static str, StatusCode)>,
    /// Paths that are answered with a list.
    pub(crate) lists: Vec<&'static str>,
    /// What is sent to open watches, whatever their paths; when it goes, they end.
    pub(crate) events: Option<broadcast::Sender<Bytes>>,
}

impl Fake {
    pub(crate) fn put(&mut self, path: String, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path, object.clone());
        object
    }

    /// The objects of all namespaces below the path's group and version, in pages of one, whatever was asked for.
    fn list(&self, path: &str, query: &str) -> Value {
        let (group, plural) = path.rsplit_once('/').expect("a path");
        let of_kind = |key: &&String| key.starts_with(group) && key.contains(&format!("/{plural}/"));
        let keys: Vec<&String> = self.objects.keys().filter(of_kind).collect();
        let from = query.split("continue=").nth(1).and_then(|rest| rest.split('&').next());
        let at: usize = from.map_or(0, |token| token.parse().expect("a token of ours"));
        let next = if at + 1 < keys.len() { (at + 1).to_string() } else { String::new() };
        let items: Vec<&Value> = keys.iter().skip(at).take(1).map(|key| &self.objects[*key]).collect();
        json!({"kind": "List", "metadata": {"resourceVersion": "9", "continue": next}, "items": items})
    }

    fn answer(&mut self, method: &Method, path: &str, query: &str, body: &Value) -> (StatusCode, Value) {
        self.asked.push(format!("{method} {path}"));
        if !self.refusals.is_empty() {
            let code = self.refusals.remove(0);
            return (code, status(code));
        }
        if let Some((_, code)) = self.refused.iter().find(|(below, _)| path.starts_with(below)) {
            return (*code, status(*code));
        }
        if method == Method::GET && self.lists.contains(&path) {
            return (StatusCode::OK, self.list(path, query));
        }
        let object = path.strip_suffix("/status").unwrap_or(path);
        let found = self.objects.get(object).cloned();
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
            ("PATCH", Some(found)) if body["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"] => {
                let mut patched = found;
                patched["status"]["conditions"] = body["status"]["conditions"].clone();
                (StatusCode::OK, self.put(object.to_owned(), patched))
            }
            ("PUT" | "PATCH", Some(_)) => (StatusCode::CONFLICT, status(StatusCode::CONFLICT)),
            ("GET" | "PUT" | "PATCH", None) => (StatusCode::NOT_FOUND, status(StatusCode::NOT_FOUND)),
            _ => (StatusCode::METHOD_NOT_ALLOWED, status(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }
}

fn status(code: StatusCode) -> Value {
    let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason})
}

pub(crate) type Shared = Arc<Mutex<Fake>>;

fn stream_of(events: broadcast::Receiver<Bytes>) -> BoxBody<Bytes, Infallible> {
    let frames = futures_util::stream::unfold(events, |mut events| async {
        let event = events.recv().await.ok()?;
        Some((Ok::<_, Infallible>(Frame::data(event)), events))
    });
    StreamBody::new(frames).boxed()
}

/// Starts it on loopback; a client for it.
pub(super) async fn start(fake: &Shared) -> Client {
    let mut config = Config::new(serve(fake).await.parse().expect("a URL"));
    // What is refused shall come to us, not be repeated on the way.
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

/// Starts it on loopback; its URL.
pub(crate) async fn serve(fake: &Shared) -> String {
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
                    let (code, json) =
                        fake.answer(&head.method, head.uri.path(), head.uri.query().unwrap_or_default(), &body);
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
    format!("http://{address}")
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test);
}

pub(super) fn asked(fake: &Shared) -> Vec<String> {
    std::mem::take(&mut fake.lock().expect("no panic").asked)
}
