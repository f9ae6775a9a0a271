//! From a target to a response head: an idle connection or a fresh one, and the retries that are certainly safe.
//! Called by `handler`.

pub(crate) mod connect;
pub(crate) mod pool;
pub(crate) mod target;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use smallvec::SmallVec;

use self::pool::{Idle, Key};
use self::target::{Active, Target};
use super::body::Body;
use super::error::{Kind, ProxyError};
use super::io::{Heard, Io};
use super::worker::{Connection, Pod, Worker};

/// A connection that a request is using. Dropped, it closes; [`Lease::give_back`] lets the next request use it.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: SendRequest<Body>,
    heard: Heard,
    key: Key,
    reused: bool,
    _active: Active,
    worker: Rc<Worker>,
    pod: Rc<Pod>,
}

impl Lease {
    /// Where it leads.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        self.key.endpoint
    }

    /// Back to the pool, once hyper is ready for the next request. It mostly is; when the upstream answered before it
    /// had the whole request, it is later or never.
    pub(crate) fn give_back(self) {
        let Self { mut sender, heard, key, worker, pod, .. } = self;
        if sender.is_closed() {
            return;
        }
        if sender.is_ready() {
            return keep(&worker, &pod, key, sender, heard);
        }
        let later = Rc::clone(&worker);
        worker.spawn(async move {
            if sender.ready().await.is_ok() {
                keep(&later, &pod, key, sender, heard);
            }
        });
    }
}

fn keep(worker: &Worker, pod: &Pod, key: Key, sender: SendRequest<Body>, heard: Heard) {
    if !pod.removed.is_raised() && !worker.draining.is_raised() {
        worker.pool.put(key, Idle { sender, heard, since: Instant::now() }, &worker.limits);
    }
}

/// Sends `request` to an endpoint of `target` and waits for the response's head.
///
/// Sent again are only requests that nobody can have processed: one whose connect failed (another endpoint, at most
/// `connect_retries` times), one that was never written (fresh connection), and one without a body whose method is
/// safe, on a reused connection that ended without a byte of answer (fresh connection, once).
pub(crate) async fn send(
    connection: &Connection,
    target: &Target,
    mut request: Request<Body>,
) -> Result<(Response<Incoming>, Lease), ProxyError> {
    let worker = &connection.worker;
    let ipv6 = connection.destination.ip().to_canonical().is_ipv6();
    let mut tried = SmallVec::<[SocketAddr; 4]>::new();
    let mut failure = ProxyError::new(Kind::NoHealthyUpstream);
    while let Some(endpoint) = target.pick(worker, ipv6, &tried) {
        if !tried.is_empty() {
            worker.counters.retries.add(1);
        }
        match send_to(connection, target, endpoint, request).await {
            Ok(answer) => return Ok(answer),
            Err((error, unsent)) => {
                failure = error;
                tried.push(endpoint);
                match unsent {
                    Some(unsent) if failure.retry && tried.len() <= worker.limits.connect_retries => request = *unsent,
                    _ => break,
                }
            }
        }
    }
    Err(failure)
}

/// A failure, and the request if nobody has seen it.
type Failed = (ProxyError, Option<Box<Request<Body>>>);

async fn send_to(
    connection: &Connection,
    target: &Target,
    endpoint: SocketAddr,
    mut request: Request<Body>,
) -> Result<(Response<Incoming>, Lease), Failed> {
    let worker = &connection.worker;
    if let Some(lease) = reuse(connection, endpoint) {
        match try_send(lease, request).await {
            Ok(answer) => {
                worker.counters.upstream_reuses.add(1);
                return Ok(answer);
            }
            Err((_, Some(unsent))) => request = *unsent,
            Err(failed) => return Err(failed),
        }
        worker.counters.retries.add(1);
    }
    match open(connection, target, endpoint).await {
        Ok(lease) => try_send(lease, request).await,
        Err(error) => Err((error, Some(Box::new(request)))),
    }
}

async fn try_send(mut lease: Lease, request: Request<Body>) -> Result<(Response<Incoming>, Lease), Failed> {
    let spare = if lease.reused { Spare::of(&request) } else { None };
    let heard = lease.heard.bytes();
    let mut error = match lease.sender.try_send_request(request).await {
        Ok(response) => return Ok((response, lease)),
        Err(error) => error,
    };
    let unsent = error.take_message();
    let error = error.into_error();
    let kind = if error.is_parse() { Kind::UpstreamProtocol } else { Kind::UpstreamClosed };
    let silent = lease.heard.bytes() == heard;
    match unsent.or_else(|| spare.filter(|_| silent).map(Spare::into_request)) {
        Some(unsent) => Err((ProxyError::new(kind).caused_by(error).retriable(), Some(Box::new(unsent)))),
        None => Err((ProxyError::new(kind).caused_by(error), None)),
    }
}

/// The copy of a request's head with which it can be repeated. An idle connection may be closed by the server in the
/// very moment in which it is used; hyper has then written the head and does not give it back.
struct Spare {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Spare {
    fn of(request: &Request<Body>) -> Option<Self> {
        let repeatable = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        (repeatable && request.body().is_end_stream()).then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn into_request(self) -> Request<Body> {
        let mut request = Request::new(Body::Empty);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

fn reuse(connection: &Connection, endpoint: SocketAddr) -> Option<Lease> {
    let key = Key { pod: connection.pod.source.netns.cookie(), endpoint };
    let idle = connection.worker.pool.take(&key)?;
    Some(lease(connection, key, idle.sender, idle.heard, true))
}

async fn open(connection: &Connection, target: &Target, endpoint: SocketAddr) -> Result<Lease, ProxyError> {
    let worker = &connection.worker;
    let key = Key { pod: connection.pod.source.netns.cookie(), endpoint };
    let stream = connect::connect(worker, &connection.pod.source, endpoint, target.connect_timeout(worker)).await?;
    let io = Io::new(stream, Bytes::new());
    let heard = io.heard();
    let mut builder = http1::Builder::new();
    let limits = &worker.limits;
    builder.max_buf_size(limits.buffer).max_headers(limits.max_headers).max_header_size(limits.max_head);
    let (sender, driver) = builder
        .handshake::<_, Body>(TokioIo::new(io))
        .await
        .map_err(|error| ProxyError::new(Kind::ConnectFailed).caused_by(error).retriable())?;
    worker.spawn(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%endpoint, %error, "upstream connection ended");
        }
    });
    Ok(lease(connection, key, sender, heard, false))
}

fn lease(connection: &Connection, key: Key, sender: SendRequest<Body>, heard: Heard, reused: bool) -> Lease {
    Lease {
        sender,
        heard,
        key,
        reused,
        _active: connection.worker.balancing.begin(key.endpoint),
        worker: Rc::clone(&connection.worker),
        pod: Rc::clone(&connection.pod),
    }
}
