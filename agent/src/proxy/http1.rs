//! Serving one HTTP/1 connection: hyper with our limits, and the three things that hyper leaves to its user: a head
//! timeout that begins with the head, an idle timeout, and draining. Called by `listener`.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::handler;
use super::io::Io;
use super::limits::{HYPER_MAX_HEADERS, Limits};
use super::worker::Connection;

/// What a client is told that does not finish its request head in time.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// How a connection ended.
enum End {
    Closed(hyper::Result<()>),
    SlowHead,
    Idle,
}

/// Serves a connection to its end. `prefix` was read from it already.
pub(crate) async fn serve(connection: Rc<Connection>, stream: TcpStream, prefix: Bytes) {
    let worker = Rc::clone(&connection.worker);
    let io = Io::new(stream, prefix);
    let heard = io.heard();
    let service = service_fn(|request| handler::handle(Rc::clone(&connection), request));
    let draining = worker.draining.is_raised();
    let mut http = builder(&worker.limits, !draining).serve_connection(TokioIo::new(io), service).with_upgrades();
    let mut drain = pin!(worker.draining.wait());
    let mut drained = draining;
    let mut patience = Patience::new();
    let end = poll_fn(|cx| {
        if let Poll::Ready(end) = Pin::new(&mut http).poll(cx) {
            return Poll::Ready(End::Closed(end));
        }
        if !drained && drain.as_mut().poll(cx).is_ready() {
            drained = true;
            Pin::new(&mut http).graceful_shutdown();
            if let Poll::Ready(end) = Pin::new(&mut http).poll(cx) {
                return Poll::Ready(End::Closed(end));
            }
        }
        patience.observe(&connection, heard.bytes(), &worker.limits);
        patience.poll(cx)
    })
    .await;
    match end {
        End::Closed(Ok(())) | End::Idle => {}
        End::Closed(Err(error)) => {
            tracing::debug!(peer = %connection.peer, %error, "connection ended");
        }
        End::SlowHead => {
            worker.counters.header_timeouts.add(1);
            if let Some(parts) = http.into_parts() {
                // Told as far as the socket takes it at once; a client that does not read is not waited for.
                let (mut stream, _) = parts.io.into_inner().into_parts();
                let _ = tokio::time::timeout(worker.limits.tick, stream.write_all(REQUEST_TIMEOUT)).await;
            }
        }
    }
}

fn builder(limits: &Limits, keep_alive: bool) -> Builder {
    let mut builder = Builder::new();
    builder
        .timer(TokioTimer::new())
        // hyper's own begins when the previous answer ends, and so would close idle connections after it.
        .header_read_timeout(None)
        // The buffer alone is no limit: hyper reads as much at once as the buffer happens to have room for.
        .max_header_size(limits.max_head)
        .max_buf_size(limits.buffer)
        // A proxy does not author responses.
        .auto_date_header(false)
        .keep_alive(keep_alive)
        // A client that goes away takes its request to the upstream with it.
        .half_close(false);
    if limits.max_headers != HYPER_MAX_HEADERS {
        builder.max_headers(limits.max_headers);
    }
    builder
}

/// How long the client may take for what it is doing. Reads the clock when that changes, and sets a timer only when
/// the deadline moves forward: an hour's idle timeout costs nothing per request.
struct Patience {
    /// Requests begun, whether one is under way, and bytes heard when the last one was seen to end.
    seen: (u64, bool),
    heard_before: u64,
    in_head: bool,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Patience {
    fn new() -> Self {
        Self { seen: (u64::MAX, false), heard_before: 0, in_head: false, deadline: None, timer: None }
    }

    /// Looks at what the connection is doing after hyper has done what it could.
    fn observe(&mut self, connection: &Connection, heard: u64, limits: &Limits) {
        let state = (connection.requests.get(), connection.busy.get());
        if state != self.seen {
            // What comes with a connection's first byte belongs to its first head; what was heard while a request
            // was under way belongs to that.
            self.heard_before = if self.seen.0 == u64::MAX && state.0 == 0 { 0 } else { heard };
            self.seen = state;
            self.in_head = false;
            self.deadline = (!state.1).then(|| Instant::now() + limits.idle_downstream);
        }
        if !state.1 && !self.in_head && heard > self.heard_before {
            self.in_head = true;
            self.deadline = Some(Instant::now() + limits.header_timeout);
        }
    }

    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<End> {
        loop {
            let Some(deadline) = self.deadline else {
                return Poll::Pending;
            };
            let timer = match &mut self.timer {
                Some(timer) => {
                    if timer.deadline() > deadline {
                        timer.as_mut().reset(deadline);
                    }
                    timer
                }
                none => none.insert(Box::pin(sleep_until(deadline))),
            };
            std::task::ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(if self.in_head { End::SlowHead } else { End::Idle });
            }
            timer.as_mut().reset(deadline);
        }
    }
}
