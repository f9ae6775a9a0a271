//! One request after the other: who, what, what shall go wrong, whether it is allowed, and then the verb. Called by the
//! connections in `server`.

use std::io;
use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, Response};
use serde_json::Value;

use super::access::{Attempt, User};
use super::counters::Cell;
use super::patch::Format;
use super::portforward::{self, Switch};
use super::read::{self, Body, whole};
use super::request::{Query, ResourcePath, Target};
use super::server::Server;
use super::status::Status;
use super::{discovery, watching, write, yaml};

/// The largest body that is read: the real server takes 3 MiB.
const MAX_BODY: usize = 3 << 20;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

struct Answer {
    code: u16,
    body: Body,
    retry_after: Option<u64>,
    /// The connection becomes another one after this.
    switch: Option<Switch>,
}

/// Answers a request.
///
/// # Errors
/// When the connection shall be dropped instead.
pub(super) async fn answer(server: Arc<Server>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let path = ResourcePath::parse(request.uri().path());
    // Unknown resources are counted together: the counters must not grow with what clients make up.
    let known = path.filter(|p| server.store().table(&p.id()).is_some());
    let asked_watch = request.uri().query().is_some_and(|q| Query::parse(q).is_ok_and(|q| q.watch));
    let verb = known.as_ref().map_or("other", |path| verb(request.method(), path, asked_watch));
    let resource = known.as_ref().map(ResourcePath::id).unwrap_or_default();
    let cell = server.tally.request(verb, &resource);
    let line = request.uri().to_string();
    let about = if known.is_some() { &*resource } else { request.uri().path() };
    let fate = server.faults.fate(verb, about);
    if !fate.delay.is_zero() {
        tokio::time::sleep(fate.delay).await;
    }
    if fate.dropped {
        server.tally.answer(&cell, 0, format!("{verb} {resource} dropped {line}"));
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let answered = match fate.answer {
        Some((code, retry_after)) => {
            let mut status = Status::new(code, "this request was chosen to fail");
            status.retry_after = retry_after;
            Err(status)
        }
        None => dispatch(&server, request, verb, known, &cell).await,
    };
    let answer = answered.unwrap_or_else(|status| {
        let body = status.json().to_string();
        cell.sent(body.len());
        Answer { code: status.code, body: whole(body), retry_after: status.retry_after, switch: None }
    });
    server.tally.answer(&cell, answer.code, format!("{verb} {resource} {} {line}", answer.code));
    let mut response = Response::builder().status(answer.code).header(CONTENT_TYPE, "application/json");
    if let Some(seconds) = answer.retry_after {
        response = response.header(RETRY_AFTER, seconds);
    }
    for (name, value) in answer.switch.into_iter().flatten() {
        response = response.header(name, value);
    }
    response.body(answer.body).map_err(io::Error::other)
}

fn verb(method: &Method, path: &ResourcePath, watch: bool) -> &'static str {
    match (method.as_str(), &path.name) {
        ("GET", Some(_)) => "get",
        ("GET", None) if watch => "watch",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", Some(_)) => "delete",
        ("DELETE", None) => "deletecollection",
        _ => "other",
    }
}

async fn dispatch(
    server: &Arc<Server>,
    mut request: Request<Incoming>,
    verb: &'static str,
    path: Option<ResourcePath>,
    cell: &Arc<Cell>,
) -> Result<Answer, Status> {
    let user = {
        let (access, store) = (server.access(), server.store());
        access.identify(&store, request.headers())?
    };
    let Some(path) = path else {
        return about_the_server(server, request, &user, cell).await;
    };
    if path.plural == "pods" && path.subresource.as_deref() == Some("portforward") {
        return forward(server, &mut request, path, &user);
    }
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let reads = matches!(verb, "get" | "list" | "watch");
    let target = Target::find(&server.store(), &path, query, reads && wants_metadata_only(&parts.headers))?;
    let attempt = Attempt {
        verb,
        resource: &path.plural,
        subresource: path.subresource.as_deref().unwrap_or_default(),
        group: &path.group,
        namespace: path.namespace.as_deref().unwrap_or_default(),
        name: path.name.as_deref().or(target.selector.name()).unwrap_or_default(),
        path: parts.uri.path(),
    };
    {
        let (access, store) = (server.access(), server.store());
        access.authorize(&store, &user, &attempt)?;
    }
    match verb {
        "get" => {
            let bytes = read::get(&server.store(), &target)?;
            Ok(sent(200, bytes, cell))
        }
        "list" => {
            let list = read::list(&server.store(), &target)?;
            let body = read::send(Arc::clone(server), &target, list, Arc::clone(cell));
            Ok(Answer { code: 200, body, retry_after: None, switch: None })
        }
        "watch" => {
            let watch = watching::open(server, &server.store(), &target, Arc::clone(cell))?;
            Ok(Answer { code: 200, body: watching::send(watch), retry_after: None, switch: None })
        }
        _ => {
            let sent_body = collect(body).await?;
            let (code, bytes) = write(server, &target, verb, content_type(&parts.headers), &sent_body)?;
            Ok(sent(code, bytes, cell))
        }
    }
}

fn sent(code: u16, bytes: Vec<u8>, cell: &Cell) -> Answer {
    cell.sent(bytes.len());
    Answer { code, body: whole(bytes), retry_after: None, switch: None }
}

/// To a port of a pod that is there, for those who may.
fn forward(
    server: &Arc<Server>,
    request: &mut Request<Incoming>,
    mut path: ResourcePath,
    user: &User,
) -> Result<Answer, Status> {
    let attempt = Attempt {
        verb: "get",
        resource: &path.plural,
        subresource: path.subresource.as_deref().unwrap_or_default(),
        group: &path.group,
        namespace: path.namespace.as_deref().unwrap_or_default(),
        name: path.name.as_deref().unwrap_or_default(),
        path: request.uri().path(),
    };
    server.access().authorize(&server.store(), user, &attempt)?;
    path.subresource = None;
    let target = Target::find(&server.store(), &path, Query::default(), false)?;
    read::get(&server.store(), &target)?;
    let switch = portforward::open(request)?;
    Ok(Answer { code: 101, body: whole(Vec::new()), retry_after: None, switch: Some(switch) })
}

async fn collect(body: Incoming) -> Result<Vec<u8>, Status> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes().to_vec()),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => Err(Status::new(413, "the request is too large")),
        Err(_) => Err(Status::bad_request("the body could not be read")),
    }
}

/// Accept: `application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1`.
fn wants_metadata_only(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|kind| kind.contains("as=PartialObjectMetadata"))
}

fn write(
    server: &Arc<Server>,
    target: &Target,
    verb: &str,
    content_type: &str,
    body: &[u8],
) -> Result<write::Written, Status> {
    let parsed = || parse(content_type, body);
    let object = || match parsed()? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Status::bad_request("the body is no object")),
    };
    let options = || if body.is_empty() { Ok(Value::Null) } else { parsed() };
    let mut store = server.store();
    match verb {
        "create" if target.name.is_none() => write::create(&mut store, target, object()?),
        "update" => write::update(&mut store, target, object()?),
        "patch" => write::patch(&mut store, target, Format::of(content_type)?, parsed()?),
        "delete" => write::delete(&mut store, target, &options()?),
        "deletecollection" => write::delete_collection(&mut store, target, &options()?),
        _ => Err(Status::new(405, "the server does not allow this method on the requested resource")),
    }
}

fn parse(content_type: &str, body: &[u8]) -> Result<Value, Status> {
    if content_type.contains("protobuf") {
        return Err(Status::new(415, "only JSON and YAML are understood"));
    }
    if content_type.contains("yaml") {
        let text = std::str::from_utf8(body).map_err(|_| Status::bad_request("the body is not UTF-8"))?;
        return yaml::one(text).map_err(|e| Status::bad_request(&format!("{e:#}")));
    }
    serde_json::from_slice(body).map_err(|e| Status::bad_request(&format!("the body cannot be decoded: {e}")))
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// Discovery, health, version, and reviews of what the client may do.
async fn about_the_server(
    server: &Arc<Server>,
    request: Request<Incoming>,
    user: &User,
    cell: &Cell,
) -> Result<Answer, Status> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if parts.method == Method::POST && path == REVIEWS {
        let review = parse(content_type(&parts.headers), &collect(body).await?)?;
        let review = server.access().review(&server.store(), user, review);
        return Ok(sent(201, review.to_string().into_bytes(), cell));
    }
    if parts.method != Method::GET {
        return Err(Status::no_such_path());
    }
    let (access, store) = (server.access(), server.store());
    // What is not served cannot be told from what is not allowed, by those who are not allowed it.
    let found = discovery::answer(&store, path);
    access.authorize(&store, user, &Attempt { verb: "get", path, ..Attempt::default() })?;
    match found {
        Some(Value::String(text)) => Ok(sent(200, text.into_bytes(), cell)),
        Some(value) => Ok(sent(200, value.to_string().into_bytes(), cell)),
        None => Err(Status::no_such_path()),
    }
}
