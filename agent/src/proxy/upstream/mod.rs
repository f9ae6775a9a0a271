//! From an endpoint to a response head: on an idle connection or a fresh one. Called by `retry` and `mirror`.

pub(crate) mod connect;
pub(crate) mod pool;
mod spare;
pub(crate) mod target;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use self::pool::{Idle, Key};
use self::spare::Race;
pub(crate) use self::spare::{Spare, SpareLists};
use self::target::{Active, Target};
use super::body::Body;
use super::budget::Load;
use super::error::{Kind, ProxyError};
use super::io::{Heard, Io};
use super::limits::HYPER_MAX_HEADERS;
use super::worker::{Pod, Worker};

/// A connection that a request is using. Dropped, it closes; [`Lease::give_back`] lets the next request use it.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: SendRequest<Body>,
    heard: Heard,
    key: Key,
    reused: bool,
    _active: Active,
    /// Its place among the requests of a cluster that has a retry budget.
    load: Option<Load>,
    worker: Rc<Worker>,
    pod: Rc<Pod>,
}

impl Lease {
    /// Where it leads.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        self.key.endpoint
    }

    /// Keeps the request counted as long as it lasts.
    pub(crate) fn count(&mut self, load: Option<Load>) {
        self.load = load;
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

/// A failure, and the request if nobody has seen it.
pub(crate) type Failed = (ProxyError, Option<Box<Request<Body>>>);

/// Sends `request` to an endpoint of `target` and waits for the response's head.
///
/// An idle connection may turn out to be closed: a request that was not written goes out on a fresh one, and so does,
/// when `race` is set, one without a body whose method is safe and to which not a byte was answered.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    pod: &Rc<Pod>,
    target: &Target,
    endpoint: SocketAddr,
    mut request: Request<Body>,
    race: bool,
) -> Result<(Response<Incoming>, Lease), Failed> {
    if let Some(lease) = reuse(worker, pod, endpoint) {
        match try_send(lease, request, race).await {
            Ok(answer) => {
                worker.counters.upstream_reuses.add(1);
                return Ok(answer);
            }
            Err((_, Some(unsent))) => request = *unsent,
            Err(failed) => return Err(failed),
        }
        worker.counters.retries.add(1);
    }
    match open(worker, pod, target, endpoint).await {
        Ok(lease) => try_send(lease, request, race).await,
        Err(error) => Err((error, Some(Box::new(request)))),
    }
}

async fn try_send(mut lease: Lease, request: Request<Body>, race: bool) -> Result<(Response<Incoming>, Lease), Failed> {
    let worker = Rc::clone(&lease.worker);
    let spare = if race && lease.reused { Race::of(&request, &worker) } else { None };
    let heard = lease.heard.bytes();
    let mut error = match lease.sender.try_send_request(request).await {
        Ok(response) => return Ok((response, lease)),
        Err(error) => error,
    };
    let unsent = error.take_message();
    let error = error.into_error();
    let kind = if error.is_parse() { Kind::UpstreamProtocol } else { Kind::UpstreamClosed };
    let silent = lease.heard.bytes() == heard;
    match unsent.or_else(|| spare.filter(|_| silent).map(|spare| spare.request())) {
        Some(unsent) => Err((ProxyError::new(kind).caused_by(error), Some(Box::new(unsent)))),
        None => Err((ProxyError::new(kind).caused_by(error), None)),
    }
}

fn reuse(worker: &Rc<Worker>, pod: &Rc<Pod>, endpoint: SocketAddr) -> Option<Lease> {
    let key = Key { pod: pod.source.netns.cookie(), endpoint };
    let idle = worker.pool.take(&key)?;
    Some(lease(worker, pod, key, idle.sender, idle.heard, true))
}

async fn open(worker: &Rc<Worker>, pod: &Rc<Pod>, target: &Target, endpoint: SocketAddr) -> Result<Lease, ProxyError> {
    let key = Key { pod: pod.source.netns.cookie(), endpoint };
    let stream = connect::connect(worker, &pod.source, endpoint, target.connect_timeout(worker)).await?;
    let io = Io::new(stream, Bytes::new());
    let heard = io.heard();
    let mut builder = http1::Builder::new();
    let limits = &worker.limits;
    builder.max_buf_size(limits.buffer).max_header_size(limits.max_head);
    if limits.max_headers != HYPER_MAX_HEADERS {
        builder.max_headers(limits.max_headers);
    }
    let (sender, driver) = builder
        .handshake::<_, Body>(TokioIo::new(io))
        .await
        .map_err(|error| ProxyError::new(Kind::ConnectFailed).caused_by(error))?;
    worker.spawn(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%endpoint, %error, "upstream connection ended");
        }
    });
    Ok(lease(worker, pod, key, sender, heard, false))
}

fn lease(worker: &Rc<Worker>, pod: &Rc<Pod>, key: Key, sender: SendRequest<Body>, heard: Heard, reused: bool) -> Lease {
    Lease {
        sender,
        heard,
        key,
        reused,
        _active: worker.balancing.begin(key.endpoint),
        load: None,
        worker: Rc::clone(worker),
        pod: Rc::clone(pod),
    }
}
