//! One HTTP/1.1 connection to an upstream, and the exchange on it. It is driven by the request's own task: nothing is
//! handed from task to task, and while it is idle it is a socket without buffers. Used by `upstream`.

mod decode;
#[cfg(test)]
mod differential;
mod request;
mod response;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use self::decode::{Decoded, Decoder};
use self::request::Sending;
use crate::proxy::body::{Body, BodyError};
use crate::proxy::limits::Limits;
use crate::proxy::upstream::link::Link;

/// What is read at once before the length of the body is known: two pages hold most answers, head and body.
const FIRST_READ: usize = 8 * 1024;
/// More than is expected: a read that fills its buffer leaves it open whether there is more, and asking costs a call.
const SLACK: usize = 1;
/// Room for a request's head; more is made for one that is longer.
const FIRST_HEAD: usize = 2 * 1024;
/// Interim responses (1xx) before the real one. A server that sends more than these does not answer.
const MAX_INTERIM: u32 = 16;

/// Why an exchange came to nothing.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The connection ended too early.
    Closed,
    Io(io::Error),
    /// What came is not HTTP as RFC 9112 has it.
    Protocol(&'static str),
    /// The request's body broke off.
    Request(Box<BodyError>),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection was closed before all was said"),
            Self::Io(error) => error.fmt(f),
            Self::Protocol(what) => f.write_str(what),
            Self::Request(error) => write!(f, "the request broke off: {error}"),
        }
    }
}

impl std::error::Error for Fault {}

/// See the module.
#[derive(Debug)]
pub(crate) struct Wire {
    io: Link,
    read: BytesMut,
    /// What the next read has room for, while no length says it.
    next_read: usize,
    sending: Sending,
    /// The head of the answer, here so that it is not moved from call to call.
    head: Response<()>,
    /// The socket takes nothing any more; what it gives may still be an answer.
    deaf: bool,
    method: Method,
    decoder: Decoder,
    keep_alive: bool,
    interim: u32,
    /// Something was answered.
    heard: bool,
    /// The most that a read had room for.
    largest_read: usize,
}

impl Wire {
    pub(crate) fn new(io: Link) -> Self {
        Self {
            io,
            read: BytesMut::new(),
            next_read: FIRST_READ,
            sending: Sending::nothing(),
            head: Response::new(()),
            deaf: false,
            method: Method::GET,
            decoder: Decoder::EMPTY,
            keep_alive: true,
            interim: 0,
            heard: false,
            largest_read: 0,
        }
    }

    /// Whether nothing has come and the other side has not closed, as far as the event loop knows: without a system call.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut self.io).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Not a byte was answered to the latest request.
    pub(crate) fn is_silent(&self) -> bool {
        !self.heard
    }

    /// Sends `request` and waits for the head of the answer, which is [`Wire::head`] then; the body is read by
    /// [`Wire::poll_frame`]. After a failure the request has its body again if nothing of it was written, which the result says.
    pub(crate) async fn ask(
        &mut self,
        request: &mut Request<Body>,
        buffers: &Buffers,
        limits: &Limits,
    ) -> Result<(), (Fault, bool)> {
        self.read = buffers.take();
        self.next_read = FIRST_READ;
        self.method = request.method().clone();
        self.heard = false;
        self.largest_read = 0;
        self.interim = 0;
        self.sending = Sending::new(request, buffers.take_head());
        let answer = std::future::poll_fn(|cx| self.poll_head(cx, buffers, limits)).await;
        answer.map_err(|fault| {
            let body = self.sending.take_body();
            let unsent = body.is_some();
            *request.body_mut() = body.unwrap_or(Body::Empty);
            (fault, unsent)
        })
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, buffers: &Buffers, limits: &Limits) -> Poll<Result<(), Fault>> {
        self.poll_send(cx)?;
        if self.deaf && !self.sending.is_begun() {
            return Poll::Ready(Err(Fault::Closed));
        }
        if self.sending.is_done() {
            buffers.give_head(self.sending.take_lead());
        }
        loop {
            if !self.read.is_empty() {
                while let Some(head) =
                    response::take(&mut self.read, &self.method, (limits.max_headers, limits.max_head))?
                {
                    let status = head.response.status();
                    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                        self.interim += 1;
                        if self.interim > MAX_INTERIM {
                            return Poll::Ready(Err(Fault::Protocol("interim responses without end")));
                        }
                        continue;
                    }
                    self.decoder = head.decoder;
                    self.keep_alive = head.keep_alive;
                    self.head = head.response;
                    return Poll::Ready(Ok(()));
                }
            }
            if ready!(self.poll_read(cx, FIRST_READ))? == 0 {
                return Poll::Ready(Err(Fault::Closed));
            }
        }
    }

    /// The head of the answer, once [`Wire::ask`] has found it.
    pub(crate) fn head(&self) -> &Response<()> {
        &self.head
    }

    /// See [`Wire::head`].
    pub(crate) fn head_mut(&mut self) -> &mut Response<()> {
        &mut self.head
    }

    /// Goes on with the request's body. A socket that takes no more is no failure yet: the answer may be there.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        if self.deaf || self.sending.is_done() {
            return Ok(());
        }
        let in_parts = self.io.writes_in_parts();
        match self.sending.poll(cx, Pin::new(&mut self.io), in_parts) {
            Poll::Ready(Err(Fault::Io(_) | Fault::Closed)) => self.deaf = true,
            Poll::Ready(Err(fault)) => return Err(fault),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        Ok(())
    }

    /// Bytes read; 0 = the other side has closed.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Result<usize, Fault>> {
        self.largest_read = self.largest_read.max(room);
        self.read.reserve(room);
        let n = ready!(pin!(self.io.read_buf(&mut self.read)).poll(cx)).map_err(Fault::Io)?;
        self.heard |= n > 0;
        Poll::Ready(Ok(n))
    }

    /// The next piece of the answer's body; `None` = it is over.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if self.decoder.is_done() {
            return Poll::Ready(None);
        }
        self.poll_send(cx)?;
        loop {
            match self.decoder.decode(&mut self.read, (limits.max_headers, limits.max_head))? {
                Decoded::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Decoded::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Decoded::End => return Poll::Ready(None),
                Decoded::More => {}
            }
            let known =
                self.decoder.exact().map(|left| usize::try_from(left).unwrap_or(usize::MAX).saturating_add(SLACK));
            let room = known.unwrap_or(self.next_read).clamp(FIRST_READ, limits.buffer.max(FIRST_READ));
            let n = ready!(self.poll_read(cx, room))?;
            if n == 0 {
                let complete = self.decoder.ends_with_connection();
                self.decoder = Decoder::EMPTY;
                self.keep_alive = false;
                return Poll::Ready(if complete { None } else { Some(Err(Fault::Closed)) });
            }
            // A read that was filled is followed by a larger one.
            if n >= self.next_read {
                self.next_read = (2 * self.next_read).min(limits.buffer);
            }
        }
    }

    /// All of the answer's body has been read.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.decoder.is_done()
    }

    /// Bytes of the answer's body that are to come, if that is known.
    pub(crate) fn exact(&self) -> Option<u64> {
        self.decoder.exact()
    }

    /// Makes it ready for the next request. False: there can be none on this connection.
    pub(crate) fn rest(&mut self, buffers: &Buffers) -> bool {
        let clean = self.keep_alive && !self.deaf && self.sending.is_done() && self.decoder.is_done();
        if !clean || !self.read.is_empty() {
            return false;
        }
        let read = std::mem::take(&mut self.read);
        // A large one was made for an unusual answer.
        if self.largest_read <= FIRST_READ {
            buffers.give(read);
        }
        self.sending = Sending::nothing();
        true
    }

    /// The connection, and what was read from it already: after a 101.
    pub(crate) fn into_link(self) -> (Link, Bytes) {
        (self.io, self.read.freeze())
    }
}

/// A worker's buffers that no exchange uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    heads: RefCell<Vec<BytesMut>>,
    /// What was read last may still be on its way to a client, which makes its memory unusable: so the one that has
    /// rested longest comes first.
    reads: RefCell<VecDeque<BytesMut>>,
}

impl Buffers {
    /// More are a burst that is over. 64 of each hold 640 KiB.
    const MOST: usize = 64;
    /// A longer one is not kept: it was made for an unusual request.
    const LARGEST_HEAD: usize = 16 * 1024;

    fn take(&self) -> BytesMut {
        self.reads.borrow_mut().pop_front().unwrap_or_default()
    }

    fn give(&self, buffer: BytesMut) {
        let mut reads = self.reads.borrow_mut();
        if reads.len() < Self::MOST {
            reads.push_back(buffer);
        }
    }

    fn take_head(&self) -> BytesMut {
        self.heads.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(FIRST_HEAD))
    }

    fn give_head(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut heads = self.heads.borrow_mut();
        if heads.len() < Self::MOST && (1..=Self::LARGEST_HEAD).contains(&buffer.capacity()) {
            heads.push(buffer);
        }
    }
}
