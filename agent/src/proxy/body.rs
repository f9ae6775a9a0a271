//! The one body type of the proxy, in both directions: concrete, so that a frame costs neither an allocation nor a
//! virtual call. Made by `handler`, polled by hyper.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use super::handler::Record;
use super::replay::Reader;
use super::retry::Expiry;
use super::upstream::Lease;
use super::worker::Connection;

/// A request's or response's body.
#[derive(Debug)]
pub(crate) enum Body {
    /// None at all.
    Empty,
    /// Of an answer of our own.
    Text(Option<Bytes>),
    /// Of a request, straight from the client.
    Downstream(Incoming, Rc<Connection>),
    /// Of a request that may be sent again.
    Replayed(Reader),
    /// Of a response, straight from the upstream.
    Upstream(Box<Response>),
}

/// Why a body breaks off.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// Its sender did.
    Broken(hyper::Error),
    /// It is being sent elsewhere.
    Superseded,
    /// The time of its request is over.
    Expired,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => error.fmt(f),
            Self::Superseded => f.write_str("the request is sent elsewhere"),
            Self::Expired => f.write_str("the request took too long"),
        }
    }
}

impl std::error::Error for BodyError {}

impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error)
    }
}

/// A response under way: when its body ends, the connection goes back to the pool and the record is closed; when it
/// is dropped before that, the connection is closed and the record says so.
pub(crate) struct Response {
    incoming: Incoming,
    lease: Option<Lease>,
    expiry: Option<Expiry>,
    record: Record,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("lease", &self.lease).field("record", &self.record).finish_non_exhaustive()
    }
}

impl Body {
    pub(crate) fn text(text: &'static str) -> Self {
        Self::own(Bytes::from_static(text.as_bytes()))
    }

    /// Of an answer of our own.
    pub(crate) fn own(text: Bytes) -> Self {
        if text.is_empty() { Self::Empty } else { Self::Text(Some(text)) }
    }

    pub(crate) fn from_client(incoming: Incoming, connection: Rc<Connection>) -> Self {
        if incoming.is_end_stream() { Self::Empty } else { Self::Downstream(incoming, connection) }
    }

    /// `expiry`: when all of it must have been passed on.
    pub(crate) fn from_upstream(incoming: Incoming, lease: Lease, expiry: Option<Expiry>, mut record: Record) -> Self {
        if incoming.is_end_stream() {
            lease.give_back();
            record.complete();
            return Self::Empty;
        }
        Self::Upstream(Box::new(Response { incoming, lease: Some(lease), expiry, record }))
    }
}

impl Response {
    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
            self.record.complete();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.expiry.as_mut().is_some_and(|expiry| expiry.as_mut().poll(cx).is_ready()) {
            self.expiry = None;
            self.record.expired();
            return Poll::Ready(Some(Err(BodyError::Expired)));
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.record.sent(frame.data_ref().map_or(0, |data| data.len() as u64));
                // hyper does not ask again after a frame that is known to be the last.
                if self.incoming.is_end_stream() {
                    self.finish();
                }
            }
            Some(Err(_)) => self.record.upstream_broke(),
            None => self.finish(),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Downstream(incoming, connection) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                if let Some(Ok(frame)) = &frame {
                    connection.received(frame.data_ref().map_or(0, |data| data.len() as u64));
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
            }
            Self::Replayed(reader) => reader.poll(cx),
            Self::Upstream(response) => response.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Text(text) => text.is_none(),
            Self::Downstream(incoming, _) => incoming.is_end_stream(),
            Self::Replayed(reader) => reader.is_end_stream(),
            Self::Upstream(response) => response.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Downstream(incoming, _) => incoming.size_hint(),
            Self::Replayed(reader) => reader.size_hint(),
            Self::Upstream(response) => response.incoming.size_hint(),
        }
    }
}
