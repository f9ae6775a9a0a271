//! How often, how long and where a request is tried: its timeout, the retries of its rule or those that hold without one,
//! within their budget. Called by `handler`; each try is made by `upstream`.
//!
//! Without `retries` a request is sent again only where nobody can have processed it. With them it is sent again where
//! the rule says so, processed or not.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request};
use smallvec::SmallVec;
use tokio::time::sleep;
use weir_mesh::outlier;
use weir_mesh::program::RetryPolicy;

use super::body::Body;
use super::budget::Load;
use super::error::{Flag, Flags, Kind, ProxyError, Unanswered};
use super::plan::Plan;
use super::replay::{self, Replay};
use super::upstream::breakers::Permit;
use super::upstream::target::Target;
use super::upstream::{self, Failed, Lease};
use super::worker::Connection;

/// Which try it is.
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// The client's own timeout, in ms; 0 = none.
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");

/// What holds where a rule has no `retries`.
static UNPROCESSED: LazyLock<RetryPolicy> = LazyLock::new(RetryPolicy::none_given);

/// The end of a request's time.
pub(crate) type Expiry = Pin<Box<dyn Future<Output = ()>>>;

/// An answer, and what came with it.
pub(crate) struct Answered {
    /// The connection, with the answer's head.
    pub(crate) lease: Lease,
    /// When the rest of the answer must be there; `None` = whenever.
    pub(crate) expiry: Option<Expiry>,
    /// What is of note about how it came.
    pub(crate) flags: Flags,
}

/// Tries until there is an answer, or nothing is left to try.
pub(crate) async fn send(
    connection: &Rc<Connection>,
    plan: &Plan<'_>,
    target: &Target,
    request: &mut Request<Body>,
) -> Result<Answered, Unanswered> {
    let settings = plan.settings();
    let given = settings.and_then(|settings| settings.retries.as_deref());
    let timeout = timeout(request, settings.and_then(|settings| settings.timeout));
    let replay = match given {
        None if timeout.is_none() => None,
        _ => replay::of(connection, request),
    };
    let policy = given.unwrap_or(&UNPROCESSED);
    let tries = Tries {
        connection,
        target,
        policy,
        given: given.is_some(),
        replay,
        at: Cell::new(None),
        pauses: Cell::new(false),
    };
    let Some(timeout) = timeout else {
        return tries.run(request).await.map_err(|error| tries.unanswered(error));
    };
    let mut expiry = after_body(tries.replay.clone(), timeout);
    let answered = tokio::select! {
        biased;
        answered = tries.run(request) => answered,
        () = &mut expiry => {
            tries.timed_out();
            Err(Kind::Timeout.into())
        }
    };
    match answered {
        Ok(answered) => Ok(Answered { expiry: Some(expiry), ..answered }),
        Err(error) => Err(tries.unanswered(error)),
    }
}

/// How long the whole request may take. What the client asks for comes before the rule, and ends here.
fn timeout(request: &mut Request<Body>, of_rule: Option<Duration>) -> Option<Duration> {
    // Most have none: comparing lengths takes less than the hash of a name that is not among the common ones.
    if !request.headers().keys().any(|name| *name == REQUEST_TIMEOUT) {
        return of_rule;
    }
    let Some(value) = request.headers_mut().remove(&REQUEST_TIMEOUT) else {
        return of_rule;
    };
    match value.to_str().ok().and_then(|text| text.parse().ok()) {
        None => of_rule,
        Some(0) => None,
        Some(millis) => Some(Duration::from_millis(millis)),
    }
}

/// Ends so long after the client has sent all of its request.
fn after_body(replay: Option<Rc<Replay>>, duration: Duration) -> Expiry {
    Box::pin(async move {
        if let Some(replay) = replay {
            replay.ended().await;
        }
        sleep(duration).await;
    })
}

struct Tries<'t> {
    connection: &'t Rc<Connection>,
    target: &'t Target,
    policy: &'t RetryPolicy,
    /// The policy is a rule's own.
    given: bool,
    replay: Option<Rc<Replay>>,
    /// The endpoint that is being tried, or was tried last.
    at: Cell<Option<SocketAddr>>,
    /// Between two tries.
    pauses: Cell<bool>,
}

/// What one try came to.
type Outcome = Result<Lease, Failed>;

/// It stays at this.
fn settle(outcome: Outcome, load: Option<Box<Load>>, flags: Flags) -> Result<Answered, ProxyError> {
    match outcome {
        Ok(mut lease) => {
            lease.count(load);
            Ok(Answered { lease, expiry: None, flags })
        }
        Err(failed) => Err(failed.error.with(flags)),
    }
}

impl Tries<'_> {
    async fn run(&self, request: &mut Request<Body>) -> Result<Answered, ProxyError> {
        let worker = &self.connection.worker;
        let load = Load::begin(self.target)?;
        let ipv6 = self.connection.destination.ip().to_canonical().is_ipv6();
        let mut tried = SmallVec::<[SocketAddr; 4]>::new();
        let mut retrying: Option<Permit> = None;
        let mut number = 0_u32;
        loop {
            number += 1;
            let Some(endpoint) = self.endpoint(ipv6, &tried) else {
                self.at.set(None);
                return Err(Kind::NoHealthyUpstream.into());
            };
            if self.given || number > 1 {
                request.headers_mut().insert(ATTEMPT_COUNT, HeaderValue::from(number));
            }
            let outcome = self.once(endpoint, request).await;
            drop(retrying.take());
            if !self.repeats(&outcome) {
                return settle(outcome, load, Flags::default());
            }
            retrying = match self.again(number, load.as_deref()) {
                Ok(slot) => slot,
                Err(why_not) => return settle(outcome, load, why_not.into()),
            };
            if !self.remade(&outcome, request) {
                return settle(outcome, load, Flags::default());
            }
            // The connection of an answer that is not wanted is of no use.
            drop(outcome);
            tried.push(endpoint);
            worker.counters.retries.add(1);
            self.pauses.set(true);
            sleep(self.pause(number)).await;
            self.pauses.set(false);
        }
    }

    /// One that was not tried, or any where there is none: a request may be lucky where it was not before.
    fn endpoint(&self, ipv6: bool, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let (worker, pod) = (&self.connection.worker, &self.connection.pod.source);
        let avoided = if self.policy.ignore_previous_hosts { tried } else { &[] };
        self.target.pick(worker, pod, ipv6, avoided).or_else(|| self.target.pick(worker, pod, ipv6, &[]))
    }

    async fn once(&self, endpoint: SocketAddr, request: &mut Request<Body>) -> Outcome {
        // Without any retry not even the race of an idle connection is run again.
        let race = self.policy.attempts > 0;
        self.at.set(Some(endpoint));
        let sent = upstream::send(&self.connection.worker, &self.connection.pod, self.target, endpoint, request, race);
        match self.policy.per_try_timeout {
            None => sent.await,
            Some(limit) => tokio::select! {
                biased;
                sent = sent => sent,
                () = after_body(self.replay.clone(), limit) => {
                    self.timed_out();
                    Err(Failed { error: Kind::TryTimeout.into(), unsent: false })
                }
            },
        }
    }

    fn unanswered(&self, error: ProxyError) -> Unanswered {
        Unanswered { error, endpoint: self.at.get() }
    }

    /// The endpoint that was being tried took too long.
    fn timed_out(&self) {
        if let Some(endpoint) = self.at.get().filter(|_| !self.pauses.get()) {
            self.target.record(&self.connection.worker, endpoint, || outlier::Outcome::TimedOut);
        }
    }

    /// Whether the policy wants such an end mended.
    fn repeats(&self, outcome: &Outcome) -> bool {
        if self.policy.attempts == 0 {
            return false;
        }
        match outcome {
            Ok(lease) => {
                let response = lease.head();
                self.given && self.policy.repeats_answer(response.status().as_u16(), response.headers())
            }
            // What is too much is not made less by repeating it, and what is missing is not there for another endpoint.
            Err(failed) if matches!(failed.error.kind, Kind::Overflow | Kind::NotEncrypted) => false,
            Err(Failed { error, unsent }) => {
                let no_connection = matches!(error.kind, Kind::ConnectFailed | Kind::ConnectTimeout);
                self.policy.repeats_reset(no_connection, !unsent)
            }
        }
    }

    /// The permission for one more try, with its place in the budget, if there is one; else what to note.
    fn again(&self, number: u32, load: Option<&Load>) -> Result<Option<Permit>, Flag> {
        if number > self.policy.attempts {
            return Err(Flag::RetriesExhausted);
        }
        load.map(|load| load.retry().ok_or(Flag::UpstreamOverflow)).transpose()
    }

    /// Gives the request its body once more; false when that is gone, or nobody wants what was seen to be sent again.
    fn remade(&self, outcome: &Outcome, request: &mut Request<Body>) -> bool {
        if outcome.as_ref().is_err_and(|failed| failed.unsent) {
            return true;
        }
        if !self.given {
            return false;
        }
        *request.body_mut() = match &self.replay {
            None => Body::Empty,
            Some(replay) => match replay.read() {
                None => return false,
                Some(reader) => Body::Replayed(reader),
            },
        };
        true
    }

    /// Full jitter: anything from nothing to the longest.
    fn pause(&self, number: u32) -> Duration {
        let longest = self.policy.longest_pause(number).as_micros() as u64;
        Duration::from_micros(((u128::from(self.connection.worker.roll()) * u128::from(longest)) >> 64) as u64)
    }
}
