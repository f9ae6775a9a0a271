//! Serving one HTTP/1 connection: hyper with our limits, and what hyper leaves to its user: a head timeout that begins
//! with the head, an idle timeout, draining, parking while nothing is asked, and an end that loses no answer. Called by
//! `listener`.

use std::future::{Future, poll_fn};
use std::net::TcpStream as StdStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::handler;
use super::io::{Heard, Io};
use super::limits::{HYPER_MAX_HEADERS, Limits};
use super::linger;
use super::worker::Connection;

/// What a client is told that does not finish its request head in time.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// How hyper leaves a connection.
enum Left {
    Done,
    /// Answered, with the client perhaps in the middle of what it sends.
    Unread(TcpStream),
    Parked(TcpStream),
}

/// What becomes of a connection after a while with hyper.
enum End {
    Closed(hyper::Result<()>),
    SlowHead,
    Idle,
    /// Nothing has been asked for a moment.
    Park,
}

/// Serves a connection to its end, or until it is parked. `prefix` was read from it already.
///
/// hyper holds some 20 KiB for a connection. One that has not been used for a moment is parked: a bare socket, for which
/// everything else is made anew when its next byte comes.
pub(crate) async fn serve(connection: Rc<Connection>, stream: TcpStream, prefix: Bytes) {
    let left = drive(&connection, stream, prefix).await;
    let worker = Rc::clone(&connection.worker);
    match left {
        Left::Done => {}
        Left::Unread(stream) => Box::pin(linger::close(stream, &worker.limits)).await,
        Left::Parked(stream) => {
            let patience = worker.limits.idle_downstream.saturating_sub(worker.limits.park_after);
            worker.lot.park(connection, stream, Instant::now().into_std() + patience);
        }
    }
}

/// Serves on what was parked.
pub(crate) async fn resume(connection: Rc<Connection>, stream: StdStream) {
    match TcpStream::from_std(stream) {
        Ok(stream) => serve(connection, stream, Bytes::new()).await,
        Err(error) => tracing::warn!(peer = %connection.peer, %error, "a connection that was parked cannot be served"),
    }
}

/// Serves until the connection ends or is idle.
async fn drive(connection: &Rc<Connection>, stream: TcpStream, prefix: Bytes) -> Left {
    let worker = Rc::clone(&connection.worker);
    let io = Io::new(stream, prefix);
    let heard = io.heard();
    let service = service_fn(|request| handler::handle(Rc::clone(connection), request));
    let draining = worker.draining.is_raised();
    let mut http = builder(&worker.limits, !draining).serve_connection(TokioIo::new(io), service).with_upgrades();
    let mut drain = pin!(worker.draining.wait());
    let mut drained = draining;
    let mut patience = Patience::new(connection);
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
        patience.observe(connection, heard.bytes(), &worker.limits);
        patience.poll(cx, &heard, &worker.limits)
    })
    .await;
    match end {
        End::Idle => Left::Done,
        End::Closed(end) => {
            // A request that hyper could not read, it has answered itself.
            let answered = end.as_ref().map_or_else(hyper::Error::is_parse, |()| connection.unread.get());
            if let Err(error) = end {
                tracing::debug!(peer = %connection.peer, %error, "connection ended");
            }
            let parts = if answered { http.into_parts() } else { None };
            parts.map_or(Left::Done, |parts| Left::Unread(parts.io.into_inner().into_parts().0))
        }
        End::SlowHead => {
            worker.counters.header_timeouts.add(1);
            if let Some(parts) = http.into_parts() {
                // Told as far as the socket takes it at once; a client that does not read is not waited for.
                let (mut stream, _) = parts.io.into_inner().into_parts();
                let _ = tokio::time::timeout(worker.limits.tick, stream.write_all(REQUEST_TIMEOUT)).await;
            }
            Left::Done
        }
        End::Park => {
            let Some(parts) = http.into_parts() else {
                return Left::Done;
            };
            let (stream, prefix) = parts.io.into_inner().into_parts();
            // Nothing was heard since the last request; else this would not be the end.
            if parts.read_buf.is_empty() && prefix.is_empty() { Left::Parked(stream) } else { Left::Done }
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
/// the deadline moves forward: a request costs no timer.
struct Patience {
    /// Requests begun before this.
    before: u64,
    /// Requests begun and whether one is under way, when something last changed.
    seen: Option<(u64, bool)>,
    /// Bytes heard when the last request was seen to end.
    heard_before: u64,
    in_head: bool,
    /// When the connection has been idle for as long as it may be.
    idle_end: Option<Instant>,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Patience {
    fn new(connection: &Connection) -> Self {
        Self {
            before: connection.requests.get(),
            seen: None,
            heard_before: 0,
            in_head: false,
            idle_end: None,
            deadline: None,
            timer: None,
        }
    }

    /// Looks at what the connection is doing after hyper has done what it could.
    fn observe(&mut self, connection: &Connection, heard: u64, limits: &Limits) {
        let state = (connection.requests.get(), connection.busy.get());
        if self.seen != Some(state) {
            // What comes with the first byte belongs to the first head; what was heard while a request was under way
            // belongs to that.
            self.heard_before = if self.seen.is_none() && state.0 == self.before { 0 } else { heard };
            self.seen = Some(state);
            self.in_head = false;
            let now = (!state.1).then(Instant::now);
            self.idle_end = now.map(|now| now + limits.idle_downstream);
            self.deadline = now.map(|now| now + limits.park_after.min(limits.idle_downstream));
        }
        if !state.1 && !self.in_head && heard > self.heard_before {
            self.in_head = true;
            self.deadline = Some(Instant::now() + limits.header_timeout);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, io: &Heard, limits: &Limits) -> Poll<End> {
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
            let now = Instant::now();
            if now < deadline {
                timer.as_mut().reset(deadline);
                continue;
            }
            match self.idle_end {
                _ if self.in_head => return Poll::Ready(End::SlowHead),
                // The end of the latest answer still waits for the client to read it.
                Some(end) if now < end && io.is_blocked() => self.deadline = Some(end.min(now + limits.park_after)),
                Some(end) if now < end => return Poll::Ready(End::Park),
                _ => return Poll::Ready(End::Idle),
            }
        }
    }
}
