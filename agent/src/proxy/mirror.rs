//! `mirror` and `mirrors`: copies of a share of the requests, whose answers nobody waits for. A copy leaves once all of
//! the request is there, trailers too; a body that is too long to be kept has none. It counts among what its own cluster
//! may have under way, and where that is too much it is not sent. Called by `handler`.

use std::rc::Rc;

use futures_util::future::join_all;
use http::{Request, header};
use tokio::time::timeout;

use super::body::Body;
use super::budget::Load;
use super::error::Kind;
use super::plan::Plan;
use super::replay::{self, Whole};
use super::upstream::target::Target;
use super::upstream::{self, Spare};
use super::worker::{Connection, Pod, Worker};

/// Sends the copies that are this request's lot.
pub(crate) fn copy(connection: &Rc<Connection>, plan: &Plan<'_>, request: &mut Request<Body>) {
    let mirrors = plan.settings().map(|settings| &*settings.mirrors).unwrap_or_default();
    // What follows an upgrade is no request.
    if mirrors.is_empty() || request.headers().contains_key(header::UPGRADE) {
        return;
    }
    let worker = &connection.worker;
    let mut copies = Vec::new();
    for (position, mirror) in mirrors.iter().enumerate() {
        if !mirror.takes(position as u32, plan.roll) {
            continue;
        }
        let Ok(target) = plan.toward(&mirror.destination, connection.destination) else {
            worker.counters.mirror_failures.add(1);
            continue;
        };
        match Place::take(worker) {
            Some(place) => copies.push((target, place)),
            None => worker.counters.mirrors_dropped.add(1),
        }
    }
    if copies.is_empty() {
        return;
    }
    let (worker, pod) = (Rc::clone(worker), Rc::clone(&connection.pod));
    let body = replay::of(connection, request).map(|replay| replay.whole());
    let spare = Spare::of(request);
    let ipv6 = connection.destination.ip().to_canonical().is_ipv6();
    connection.worker.spawn_for(&connection.pod, async move {
        let whole = match body {
            None => None,
            Some(body) => match body.await {
                Ok(whole) => Some(whole),
                // The client went away, or sent more than is kept.
                Err(_) => return worker.counters.mirrors_dropped.add(copies.len() as u64),
            },
        };
        join_all(copies.into_iter().map(|(target, place)| {
            let (worker, pod, spare, whole) = (&worker, &pod, spare.clone(), whole.as_ref());
            async move {
                let _under_way = place;
                let sent = tokio::select! {
                    sent = timeout(worker.limits.mirror_timeout, send(worker, pod, &target, ipv6, spare, whole)) => sent,
                    () = worker.draining.wait() => return,
                };
                match sent {
                    Ok(Sent::Answered) => worker.counters.mirrored.add(1),
                    Ok(Sent::TooMany) => worker.counters.mirrors_dropped.add(1),
                    Ok(Sent::Failed) | Err(_) => worker.counters.mirror_failures.add(1),
                }
            }
        }))
        .await;
    });
}

/// What became of a copy.
enum Sent {
    Answered,
    Failed,
    /// Its cluster has as much under way, or waiting, as it may have.
    TooMany,
}

/// The answer is read, so that its connection serves the next request.
async fn send(
    worker: &Rc<Worker>,
    pod: &Rc<Pod>,
    target: &Target,
    ipv6: bool,
    spare: Spare,
    whole: Option<&Whole>,
) -> Sent {
    let Ok(_load) = Load::begin(target) else {
        return Sent::TooMany;
    };
    let Some(endpoint) = target.pick(worker, &pod.source, ipv6, &[]) else {
        return Sent::Failed;
    };
    let mut request = spare.into_request(whole.map_or(Body::Empty, Whole::body));
    let mut lease = match upstream::send(worker, pod, target, endpoint, &mut request, true).await {
        Ok(lease) => lease,
        Err(failed) if failed.error.kind == Kind::Overflow => return Sent::TooMany,
        Err(_) => return Sent::Failed,
    };
    let mut left = worker.limits.max_replay;
    while !lease.is_end_stream() {
        match std::future::poll_fn(|cx| lease.poll_frame(cx)).await {
            Some(Ok(frame)) => {
                let len = frame.data_ref().map_or(0, bytes::Bytes::len);
                let Some(rest) = left.checked_sub(len) else {
                    // To go on reading would cost more than a new connection does.
                    return Sent::Answered;
                };
                left = rest;
            }
            Some(Err(_)) => return Sent::Answered,
            None => break,
        }
    }
    lease.give_back();
    Sent::Answered
}

/// A copy's place among those under way on this worker.
#[derive(Debug)]
struct Place(Rc<Worker>);

impl Place {
    fn take(worker: &Rc<Worker>) -> Option<Self> {
        (worker.counters.mirrors_active.get() < worker.limits.max_mirrors).then(|| {
            worker.counters.mirrors_active.add(1);
            Self(Rc::clone(worker))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.counters.mirrors_active.subtract(1);
    }
}
