//! Tracing: the trace that a request belongs to is told onwards, and a span of each sampled request is handed to the
//! exporter. Off unless the configuration has a collector: then the headers pass as they came. Called by `handler`.

mod context;
mod otlp;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, Request, header};
use tokio::sync::mpsc;
use weir_mesh::program::{Share, Workload};

use self::context::Outgoing;
pub use self::otlp::{Collector, export};
use super::body::Body;
use super::upstream::target::Target;
use super::worker::{Connection, Worker};

/// Spans that wait for the exporter: some seconds at Istio's usual share of 1 %. Above it they are dropped and counted.
const QUEUE: usize = 4096;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Which requests are recorded, and where their spans go.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// Of the requests for which nobody has decided it yet.
    sampling: Share,
    spans: mpsc::Sender<Span>,
}

impl Tracing {
    /// What the workers get, and what [`export`] reads.
    pub fn new(sampling: Share) -> (Self, mpsc::Receiver<Span>) {
        let (spans, exported) = mpsc::channel(QUEUE);
        (Self { sampling, spans }, exported)
    }
}

/// One request that was forwarded.
#[derive(Debug)]
pub struct Span {
    trace: u128,
    id: u64,
    parent: Option<u64>,
    name: String,
    /// Nanoseconds since 1970.
    start: u64,
    end: u64,
    failed: bool,
    source: Arc<Workload>,
    attributes: Vec<(&'static str, Value)>,
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    Number(u64),
}

/// What is known once a request has ended.
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) flags: String,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) upstream: Option<std::net::SocketAddr>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Never zero, which stands for none.
fn id(worker: &Worker) -> u64 {
    worker.roll().max(1)
}

/// Gives a request that has none an id by which logs and spans of all who see it are found. Only while tracing is on.
pub(crate) fn identify(connection: &Connection, request: &mut Request<Body>) {
    let worker = &connection.worker;
    if worker.tracing.is_none() || request.headers().contains_key(&REQUEST_ID) {
        return;
    }
    // Version 4: random, but for the bits that say so.
    let high = (worker.roll() & !0xf000) | 0x4000;
    let low = (worker.roll() & !(0b11 << 62)) | (1 << 63);
    let (high, low) = (u128::from(high), u128::from(low));
    let id = context::id(&[(high >> 32, 8), (high >> 16, 4), (high, 4), (low >> 48, 4), (low, 12)]);
    request.headers_mut().insert(REQUEST_ID, id);
}

/// Tells the next one of the trace. The span of a request that is to be recorded.
pub(crate) fn begin(connection: &Connection, request: &mut Request<Body>, target: &Target) -> Option<Box<Span>> {
    let worker = &connection.worker;
    let tracing = worker.tracing.as_ref()?;
    let incoming = context::read(request.headers());
    let sampled = incoming.sampled.unwrap_or_else(|| tracing.sampling.takes(worker.roll()));
    let begun = || (u128::from(id(worker)) << 64) | u128::from(id(worker));
    let (trace, parent) = incoming.ids.map_or_else(|| (begun(), None), |(trace, span)| (trace, Some(span)));
    // One that is not recorded is no link in the chain: the next one's parent is the last that was.
    let span = if sampled { id(worker) } else { parent.unwrap_or_else(|| id(worker)) };
    context::write(request.headers_mut(), &Outgoing { trace, span, parent, sampled });
    if !sampled {
        return None;
    }
    let name = target.cluster().map_or_else(
        || format!("{}/*", connection.destination),
        |cluster| format!("{}:{}/*", cluster.host, cluster.port),
    );
    let source = Arc::clone(&connection.pod.source.identity().workload);
    let header = |name: &HeaderName| {
        let value = request.headers().get(name).map(HeaderValue::as_bytes).unwrap_or_default();
        Value::Text(String::from_utf8_lossy(value).into_owned())
    };
    let text = |text: &str| Value::Text(text.to_owned());
    let authority = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let attributes = vec![
        ("component", text("proxy")),
        ("http.method", text(request.method().as_str())),
        ("http.url", Value::Text(format!("http://{authority}{}", request.uri()))),
        ("http.protocol", Value::Text(format!("{:?}", request.version()))),
        ("guid:x-request-id", header(&REQUEST_ID)),
        ("user_agent", header(&header::USER_AGENT)),
        ("peer.address", Value::Text(connection.peer.ip().to_string())),
        ("upstream_cluster", text(&target.name())),
        ("istio.canonical_service", text(&source.canonical_service)),
        ("istio.canonical_revision", text(&source.canonical_revision)),
        ("istio.namespace", text(&source.namespace)),
        ("istio.mesh_id", text("cluster.local")),
        ("istio.cluster_id", text("Kubernetes")),
    ];
    Some(Box::new(Span { trace, id: span, parent, name, start: now(), end: 0, failed: false, source, attributes }))
}

/// Hands a span to the exporter, if there is room.
pub(crate) fn end(worker: &Worker, mut span: Span, outcome: Outcome) {
    let Some(tracing) = &worker.tracing else { return };
    span.end = now().max(span.start);
    span.failed = outcome.status >= 500 || outcome.status == 0;
    span.attributes.extend([
        ("http.status_code", Value::Number(outcome.status.into())),
        ("response_flags", Value::Text(outcome.flags)),
        ("request_size", Value::Number(outcome.received)),
        ("response_size", Value::Number(outcome.sent)),
    ]);
    span.attributes.extend(outcome.upstream.map(|upstream| ("upstream_address", Value::Text(upstream.to_string()))));
    if tracing.spans.try_send(span).is_err() {
        worker.counters.spans_dropped.add(1);
    }
}
