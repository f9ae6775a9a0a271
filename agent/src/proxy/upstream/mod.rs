//! From an endpoint to a response head: on an idle connection or a fresh one. Called by `retry` and `mirror`.

mod address;
pub(crate) mod breakers;
pub(crate) mod connect;
mod host_set;
pub(crate) mod hosts;
pub(crate) mod link;
pub(crate) mod pool;
mod spare;
pub(crate) mod target;
pub(crate) mod tls;
pub(crate) mod wire;

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use hyper::body::{Body as _, Frame};
use weir_mesh::outlier::Outcome;

use self::breakers::Terms;
use self::link::Link;
use self::pool::{Idle, Key};
pub(crate) use self::spare::Spare;
use self::target::{Active, Target};
use self::tls::{Sealing, Speaks};
use self::wire::{Fault, Wire};
use super::body::Body;
use super::budget::Load;
use super::error::{Kind, ProxyError};
use super::worker::{Pod, Worker};

/// A connection that a request is using, and the rest of its answer. Dropped, it closes; [`Lease::give_back`] lets the
/// next request use it.
#[derive(Debug)]
pub(crate) struct Lease {
    wire: Box<Wire>,
    key: Key,
    reused: bool,
    active: Active,
    /// Its place among the requests of a cluster that has a retry budget.
    load: Option<Box<Load>>,
    /// What its cluster's policy says of it.
    terms: Option<Box<Terms>>,
    worker: Rc<Worker>,
    pod: Rc<Pod>,
}

/// What counts as long as a connection is used.
pub(crate) type Counted = (Active, Option<Box<Load>>, Option<Box<Terms>>);

impl Lease {
    /// Where it leads.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        self.key.endpoint
    }

    /// The head of the answer.
    pub(crate) fn head(&self) -> &Response<()> {
        self.wire.head()
    }

    /// See [`Lease::head`]; who takes it away leaves another.
    pub(crate) fn head_mut(&mut self) -> &mut Response<()> {
        self.wire.head_mut()
    }

    /// Keeps the request counted as long as it lasts.
    pub(crate) fn count(&mut self, load: Option<Box<Load>>) {
        self.load = load;
    }

    /// The next piece of the answer's body; `None` = it is over.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.wire.poll_frame(cx, &self.worker.limits)
    }

    /// The answer's body is over.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.wire.is_end_stream()
    }

    /// Bytes of the answer's body that are to come, if that is known.
    pub(crate) fn exact(&self) -> Option<u64> {
        self.wire.exact()
    }

    /// Back to the pool, if the connection can serve another request.
    pub(crate) fn give_back(self) {
        let Self { mut wire, key, worker, pod, mut terms, .. } = self;
        let stays = terms.as_mut().is_none_or(|terms| terms.served());
        if wire.rest(&worker.buffers) && stays && !pod.removed.is_raised() && !worker.draining.is_raised() {
            worker.pool.put(key, Idle { wire, since: worker.clock.get(), terms }, &worker.limits);
        }
    }

    /// The connection after a 101, what was read from it already, and what counts as long as it is used.
    pub(crate) fn into_link(self) -> (Link, Bytes, Counted) {
        let (link, ahead) = self.wire.into_link();
        (link, ahead, (self.active, self.load, self.terms))
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: ProxyError,
    /// Nobody can have processed the request, or its repetition does no harm: it has its body still.
    pub(crate) unsent: bool,
}

/// Sends `request` to an endpoint of `target` and waits for the response's head.
///
/// An idle connection may turn out to be closed: a request that was not written goes out on a fresh one, and so does,
/// when `race` is set, one without a body whose method is safe and to which not a byte was answered.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    pod: &Rc<Pod>,
    target: &Target,
    endpoint: SocketAddr,
    request: &mut Request<Body>,
    race: bool,
) -> Result<Lease, Failed> {
    let sent = exchange(worker, pod, target, endpoint, request, race).await;
    target.record(worker, endpoint, || match &sent {
        Ok(lease) => Outcome::Status(lease.head().status().as_u16()),
        Err(failed) => failed.error.outcome(),
    });
    sent
}

async fn exchange(
    worker: &Rc<Worker>,
    pod: &Rc<Pod>,
    target: &Target,
    endpoint: SocketAddr,
    request: &mut Request<Body>,
    race: bool,
) -> Result<Lease, Failed> {
    let cookie = pod.source.netns.cookie();
    let class = worker.names.class_of(cookie, target, request.headers());
    let key = Key { pod: cookie, endpoint, class };
    if let Some(lease) = reuse(worker, pod, key) {
        match ask(lease, request, race).await {
            Ok(lease) => {
                worker.counters.upstream_reuses.add(1);
                return Ok(lease);
            }
            Err(failed) if failed.unsent => worker.counters.retries.add(1),
            Err(failed) => return Err(failed),
        }
    }
    let sealing = Sealing::of(target, Some(request.headers()), endpoint, Speaks::Http1);
    match open(worker, pod, target, key, sealing).await {
        Ok(lease) => ask(lease, request, race).await,
        Err(error) => Err(Failed { error, unsent: true }),
    }
}

async fn ask(mut lease: Lease, request: &mut Request<Body>, race: bool) -> Result<Lease, Failed> {
    // The server may close an idle connection in the very moment in which it is used.
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let repeatable = race && lease.reused && safe && request.body().is_end_stream();
    let Lease { wire, worker, .. } = &mut lease;
    match wire.ask(request, &worker.buffers, &worker.limits).await {
        Ok(()) => Ok(lease),
        Err((fault, unsent)) => {
            let unsent = unsent || (repeatable && wire.is_silent());
            let kind = if matches!(fault, Fault::Protocol(_)) { Kind::UpstreamProtocol } else { Kind::UpstreamClosed };
            Err(Failed { error: ProxyError::new(kind).caused_by(fault), unsent })
        }
    }
}

fn reuse(worker: &Rc<Worker>, pod: &Rc<Pod>, key: Key) -> Option<Lease> {
    let idle = worker.pool.take(&key)?;
    Some(lease(worker, pod, key, (idle.wire, idle.terms), true))
}

async fn open(
    worker: &Rc<Worker>,
    pod: &Rc<Pod>,
    target: &Target,
    key: Key,
    sealing: Option<Sealing>,
) -> Result<Lease, ProxyError> {
    let admitted = breakers::admit(worker, target).await?;
    let link = connect::connect(worker, &pod.source, key.endpoint, target, sealing).await?;
    drop(admitted.pending);
    let wire = Wire::new(link);
    Ok(lease(worker, pod, key, (Box::new(wire), admitted.terms), false))
}

/// A connection, and what holds for it.
type Governed = (Box<Wire>, Option<Box<Terms>>);

fn lease(worker: &Rc<Worker>, pod: &Rc<Pod>, key: Key, (wire, terms): Governed, reused: bool) -> Lease {
    Lease {
        wire,
        key,
        reused,
        active: worker.balancing.begin(key.endpoint),
        load: None,
        terms,
        worker: Rc::clone(worker),
        pod: Rc::clone(pod),
    }
}
