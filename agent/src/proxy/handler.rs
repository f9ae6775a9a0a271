//! The life of a request, one call a line, and its record. Called by `http1` for each request of a connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use weir_mesh::program::PortId;

use super::access_log::Entry;
use super::body::Body;
use super::cors::{self, Cors};
use super::error::{Flag, Flags, Kind, ProxyError, Unanswered};
use super::io::Io;
use super::metrics::{Edge, Place};
use super::plan::Plan;
use super::rate_limit::Limited;
use super::retry::Answered;
use super::trace::{self, Outcome, Span};
use super::upstream::target::{Held, Target};
use super::worker::Connection;
use super::{fault, forward, headers, mirror, rate_limit, respond, retry, rewrite, tcp};

/// Tells that a request was refused because too much is under way, so that it is not repeated.
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

/// Answers a request: with the upstream's response, with what a rule says itself, or with why there is none.
pub(crate) async fn handle(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut record = Record::begin(&connection);
    let mut request = request.map(|body| Body::from_client(body, Rc::clone(&connection)));
    if !record.placed {
        connection.worker.counters.requests_overloaded.add(1);
        record.head(&request);
        return Ok(record.refuse(&Kind::Overloaded.into()));
    }
    let program = connection.worker.program();
    let plan = match plan(&connection, &program, &mut request, &mut record) {
        Ok(plan) => plan,
        Err(error) => return Ok(record.refuse(&error)),
    };
    let cors = Cors::of(&plan, &request);
    let limited = rate_limit::draw(&plan, &connection);
    let mut response = match before(&plan, &request, cors.as_ref(), limited.as_ref(), &mut record).await {
        Ok(None) => routed(&connection, &plan, &mut request, record).await,
        Ok(Some((own, details))) => record.respond(own, details),
        Err(error) => record.refuse(&error),
    };
    if let Some(cors) = cors {
        cors.apply(&mut response);
    }
    if let Some(limited) = limited {
        limited.describe(&mut response);
    }
    respond::describe(&mut response);
    Ok(response)
}

/// What comes before routing: the answers of limits, of faults and of CORS, and what the log calls them.
async fn before(
    plan: &Plan<'_>,
    request: &Request<Body>,
    cors: Option<&Cors<'_>>,
    limited: Option<&Limited<'_>>,
    record: &mut Record,
) -> Result<Option<(Response<Body>, &'static str)>, ProxyError> {
    if let Some(refused) = limited.and_then(|limited| limited.refuse(&mut record.flags)) {
        return Ok(Some((refused, rate_limit::DETAILS)));
    }
    if let Some(aborted) = fault::strike(plan, request, &mut record.flags).await? {
        return Ok(Some((aborted, fault::DETAILS)));
    }
    Ok(cors.and_then(Cors::answer).map(|preflight| (preflight, cors::DETAILS)))
}

/// What the rule or an upstream answers, with the headers that the rule wants.
async fn routed(
    connection: &Rc<Connection>,
    plan: &Plan<'_>,
    request: &mut Request<Body>,
    mut record: Record,
) -> Response<Body> {
    let kept = headers::Kept::of(plan, connection, request);
    let outcome = exchange(connection, plan, request, &mut record).await;
    let upstream = record.upstream;
    let mut response = match outcome {
        Ok(answer) => answer.respond(record),
        Err(error) => record.refuse(&error),
    };
    if let Some(kept) = kept {
        kept.apply(&mut response, upstream);
    }
    response
}

/// What is to become of the request.
fn plan<'p>(
    connection: &Connection,
    program: &'p Held,
    request: &mut Request<Body>,
    record: &mut Record,
) -> Result<Plan<'p>, ProxyError> {
    let port = program.port_of(connection.pod.source.view(), connection.destination);
    trace::identify(connection, request);
    record.head(request);
    record.place = Some((Rc::clone(program), port.map_or(Place::Passthrough, Place::Port)));
    forward::settle_authority(request, || plain_host(connection, program, port))?;
    let plan = Plan::decide(connection, program, port, request)?;
    record.routed(&plan);
    Ok(plan)
}

async fn exchange(
    connection: &Rc<Connection>,
    plan: &Plan<'_>,
    request: &mut Request<Body>,
    record: &mut Record,
) -> Result<Answer, ProxyError> {
    if let Some(own) = respond::own(plan, request, connection.destination.port())? {
        return Ok(Answer::Own(own));
    }
    let target = record.toward(plan.target(connection.destination)?);
    record.span = trace::begin(connection, request, &target);
    headers::of_request(plan, connection, request);
    rewrite::apply(plan, request)?;
    record.renamed(plan, request);
    let on_upgrade = forward::to_upstream(request);
    mirror::copy(connection, plan, request);
    let answered = retry::send(connection, plan, &target, request).await;
    let mut answered = answered.map_err(|unanswered| record.unanswered(unanswered))?;
    record.answered(&answered);
    let head = answered.lease.head_mut();
    forward::to_downstream(head);
    headers::remember(plan, head);
    Answer::upstream(answered, on_upgrade)
}

/// The Host of a request that has none and need not.
fn plain_host(connection: &Connection, program: &Held, port: Option<PortId>) -> String {
    port.map_or_else(|| connection.destination.to_string(), |port| program.port(port).host.to_string())
}

/// What the client is answered.
enum Answer {
    /// A rule's own response.
    Own(Response<Body>),
    /// An upstream's response, and the client's side of an upgrade that it grants.
    Upstream(Answered, Option<OnUpgrade>),
}

impl Answer {
    /// A 101 that nobody asked for would leave the two sides with different ideas of what the bytes are.
    fn upstream(answered: Answered, asked: Option<OnUpgrade>) -> Result<Self, ProxyError> {
        let upgrade = match (answered.lease.head().status(), asked) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(client)) => Some(client),
            (StatusCode::SWITCHING_PROTOCOLS, None) => {
                return Err(ProxyError::new(Kind::UpstreamProtocol).caused_by("a 101 that nobody asked for"));
            }
            _ => None,
        };
        Ok(Self::Upstream(answered, upgrade))
    }

    fn respond(self, mut record: Record) -> Response<Body> {
        let (answered, upgrade) = match self {
            Self::Own(response) => return record.respond(response, "direct_response"),
            Self::Upstream(answered, upgrade) => (answered, upgrade),
        };
        // What was upgraded lasts as long as its two ends want.
        let Answered { mut lease, expiry, .. } = answered;
        let mut response = std::mem::take(lease.head_mut());
        record.status = response.status().as_u16();
        // What refuses a request before all of it is there does not read the rest, and neither does what has ended.
        let refused = response.status().is_client_error() || response.status().is_server_error();
        if record.connection.unread.get() && upgrade.is_none() && (refused || lease.is_end_stream()) {
            last(&mut response);
        }
        let Some(client) = upgrade else {
            return response.map(|()| Body::from_upstream(lease, expiry, record));
        };
        // From here on it is a connection, and limited as such.
        record.leave();
        let (worker, pod) = (Rc::clone(&record.connection.worker), Rc::clone(&record.connection.pod));
        worker.spawn_for(&pod, async move {
            let Some(client) = client.await.ok().and_then(socket) else {
                return;
            };
            let (server, ahead, counted) = lease.into_link();
            let (flag, moved) = tcp::splice(&record.connection.worker, client, (server, ahead)).await;
            record.upgraded(flag, &moved);
            drop(counted);
        });
        response.map(|()| Body::Empty)
    }
}

/// The socket under an upgraded connection, and what was read from it already.
fn socket(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<Io>>().ok()?;
    let (stream, prefix) = parts.io.into_inner().into_parts();
    let ahead = if prefix.is_empty() { parts.read_buf } else { [parts.read_buf, prefix].concat().into() };
    Some((stream, ahead))
}

/// The connection ends with this answer, as nobody reads the rest of the request. A client that is not told would send
/// its next request there, and lose it.
fn last<B>(response: &mut Response<B>) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// What is counted and logged of a request. It is closed when the response is complete; dropped before that, it says
/// that the client went away.
#[derive(Debug)]
pub(crate) struct Record {
    connection: Rc<Connection>,
    status: u16,
    flags: Flags,
    /// It has a place among the requests under way.
    placed: bool,
    /// How it ended is known.
    settled: bool,
    sent: u64,
    /// The endpoint that answered; where none did, the one that was tried last.
    upstream: Option<SocketAddr>,
    started: Instant,
    /// Where it goes, until an endpoint has answered.
    place: Option<(Held, Place)>,
    /// From then on.
    edge: Option<Rc<Edge>>,
    span: Option<Box<Span>>,
    entry: Option<Box<Entry>>,
}

impl Record {
    fn begin(connection: &Rc<Connection>) -> Self {
        connection.requests.set(connection.requests.get() + 1);
        connection.busy.set(true);
        connection.received.set(0);
        connection.worker.counters.requests.add(1);
        let entry =
            || Box::new(Entry::new(Arc::clone(&connection.pod.source.name), connection.peer, connection.destination));
        Self {
            status: 0,
            flags: Flags::default(),
            placed: connection.worker.turns.place(&connection.pod.share),
            settled: false,
            sent: 0,
            upstream: None,
            started: Instant::now(),
            place: None,
            edge: None,
            span: None,
            entry: connection.worker.lines.wanted().then(entry),
            connection: Rc::clone(connection),
        }
    }

    /// Who asked whom, as far as that is known.
    fn edge(&self, program: &Held, place: Place) -> Rc<Edge> {
        let Connection { worker, pod, .. } = &*self.connection;
        worker.edges.edge(program.program(), &pod.source, place, self.upstream, false)
    }

    fn trace(&mut self) {
        let Some(span) = self.span.take() else { return };
        let outcome = Outcome {
            status: self.status,
            flags: self.flags.to_string(),
            received: self.connection.received.get(),
            sent: self.sent,
            upstream: self.upstream,
        };
        trace::end(&self.connection.worker, *span, outcome);
    }

    fn tell(&mut self) {
        let worker = &self.connection.worker;
        let edge = match (self.edge.take(), self.place.take()) {
            (Some(edge), _) => edge,
            (None, Some((program, place))) => self.edge(&program, place),
            (None, None) => self.edge(&worker.program(), Place::Unknown),
        };
        let (took, received) = (self.started.elapsed(), self.connection.received.get());
        if !worker.edges.count(&edge, self.status, self.flags, |shard| shard.request(took, received, self.sent)) {
            worker.counters.metrics_folded.add(1);
        }
    }

    fn head(&mut self, request: &Request<Body>) {
        if let Some(entry) = &mut self.entry {
            entry.head(request);
        }
    }

    fn routed(&mut self, plan: &Plan<'_>) {
        if let (Some(entry), Some(route)) = (&mut self.entry, plan.route) {
            entry.route_name = Some(Arc::clone(&route.name));
            entry.upstream_cluster = plan.destination.map(|destination| Arc::clone(&destination.name));
        }
    }

    /// The log names the host that the upstream is told.
    fn renamed(&mut self, plan: &Plan<'_>, request: &Request<Body>) {
        if let Some(entry) = self.entry.as_mut().filter(|_| plan.route.is_some()) {
            entry.authority(request);
        }
    }

    fn toward(&mut self, target: Target) -> Target {
        if let Some((_, place)) = &mut self.place {
            *place = Place::from(&target);
        }
        if let Some(entry) = &mut self.entry {
            entry.upstream_cluster = Some(target.name());
        }
        target
    }

    fn answered(&mut self, answered: &Answered) {
        let endpoint = answered.lease.endpoint();
        self.upstream = Some(endpoint);
        // The program is not needed for as long as the body takes.
        self.edge = self.place.take().map(|(program, place)| self.edge(&program, place));
        self.flags.add(answered.flags);
        if let Some(entry) = &mut self.entry {
            entry.upstream_host = Some(endpoint);
            entry.upstream_time = Some(entry.started.elapsed().as_millis() as u64);
            entry.details = "via_upstream";
        }
    }

    /// An endpoint was picked all the same: it is told of, as nobody else can tell who failed.
    fn unanswered(&mut self, Unanswered { error, endpoint }: Unanswered) -> ProxyError {
        self.upstream = endpoint;
        if let (Some((_, place)), Some(_)) = (&mut self.place, endpoint) {
            *place = place.unanswered();
        }
        if let Some(entry) = &mut self.entry {
            entry.upstream_host = endpoint;
        }
        error
    }

    /// Counts body bytes to the client.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
        self.connection.worker.counters.bytes_sent.add(bytes);
    }

    /// The upstream ended in the middle of its response.
    pub(crate) fn upstream_broke(&mut self) {
        self.flags.insert(Flag::UpstreamClosed);
        self.settled = true;
    }

    /// The response was not complete in time.
    pub(crate) fn expired(&mut self) {
        self.flags.insert(Flag::UpstreamTimeout);
        self.settled = true;
        if let Some(entry) = &mut self.entry {
            entry.details = Kind::Timeout.details();
        }
    }

    /// The response is complete.
    pub(crate) fn complete(&mut self) {
        self.settled = true;
    }

    fn upgraded(&mut self, flag: Flag, moved: &tcp::Moved) {
        self.flags.insert(flag);
        self.sent = moved.sent.get();
        self.connection.received.set(moved.received.get());
        self.complete();
    }

    /// Gives its place among the requests under way to another.
    fn leave(&mut self) {
        if std::mem::take(&mut self.placed) {
            self.connection.worker.turns.leave(&self.connection.pod.share);
        }
    }

    /// Why there is no answer of anybody else.
    fn refuse(mut self, error: &ProxyError) -> Response<Body> {
        let kind = error.kind;
        tracing::debug!(destination = %self.connection.destination, %error, "request refused");
        self.flags.insert(kind.flag());
        self.flags.add(error.also);
        if let Some(entry) = &mut self.entry {
            entry.transport_failure = error.source.as_ref().map(ToString::to_string);
        }
        let mut response = Response::new(Body::text(kind.text()));
        *response.status_mut() = kind.status();
        if matches!(kind, Kind::Overflow | Kind::Overloaded) {
            response.headers_mut().insert(OVERLOADED, HeaderValue::from_static("true"));
        }
        if kind == Kind::BadRequest {
            // What follows such a request is not to be trusted to begin where we think.
            last(&mut response);
        }
        respond::describe(&mut response);
        self.respond(response, kind.details())
    }

    /// An answer of our own.
    fn respond(mut self, mut response: Response<Body>, details: &'static str) -> Response<Body> {
        if self.connection.unread.get() {
            last(&mut response);
        }
        self.status = response.status().as_u16();
        self.sent(response.body().size_hint().exact().unwrap_or(0));
        if let Some(entry) = &mut self.entry {
            entry.details = details;
        }
        self.complete();
        response
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.connection.busy.set(false);
        self.leave();
        if !self.settled {
            self.flags.insert(Flag::DownstreamClosed);
        }
        self.tell();
        self.trace();
        let worker = &self.connection.worker;
        worker.counters.answered(self.status);
        worker.counters.flagged(self.flags);
        if let Some(mut entry) = self.entry.take() {
            entry.status = self.status;
            entry.flags = self.flags;
            entry.bytes_received = self.connection.received.get();
            entry.bytes_sent = self.sent;
            worker.lines.push(&entry);
        }
    }
}
