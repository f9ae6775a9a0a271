//! The one body type of the proxy, in both directions: concrete, so that a frame costs neither an allocation nor a
//! virtual call. Made by `handler`, polled by hyper.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use super::handler::Record;
use super::replay::Reader;
use super::retry::Expiry;
use super::upstream::Lease;
use super::upstream::wire::Fault;
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
    /// Of a copy of a request that had trailers: data, and they.
    Trailed(Option<Bytes>, Option<Box<HeaderMap>>),
    /// Of a request of which a piece was read and not written.
    Again(Option<Bytes>, Box<Body>),
    /// Of a response, straight from the upstream.
    Upstream(Box<Response>),
}

/// Why a body breaks off.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The client did.
    Broken(hyper::Error),
    /// The upstream did.
    Upstream(Fault),
    /// It is being sent elsewhere.
    Superseded,
    /// The time of its request is over.
    Expired,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => error.fmt(f),
            Self::Upstream(fault) => fault.fmt(f),
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
    lease: Option<Lease>,
    expiry: Option<Expiry>,
    /// What ends it before its end.
    broken: Option<BodyError>,
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

    /// All of a body in one piece, with its trailers if it has any.
    pub(crate) fn whole(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        match trailers {
            None => Self::own(data),
            Some(trailers) => Self::Trailed(Some(data).filter(|data| !data.is_empty()), Some(Box::new(trailers))),
        }
    }

    pub(crate) fn from_client(incoming: Incoming, connection: Rc<Connection>) -> Self {
        let empty = incoming.is_end_stream();
        connection.unread.set(!empty);
        if empty { Self::Empty } else { Self::Downstream(incoming, connection) }
    }

    /// `expiry`: when all of it must have been passed on.
    pub(crate) fn from_upstream(lease: Lease, expiry: Option<Expiry>, mut record: Record) -> Self {
        if lease.is_end_stream() {
            lease.give_back();
            record.complete();
            return Self::Empty;
        }
        Self::Upstream(Box::new(Response { lease: Some(lease), expiry, broken: None, record }))
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
        if let Some(broken) = self.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        if self.expiry.as_mut().is_some_and(|expiry| expiry.as_mut().poll(cx).is_ready()) {
            self.expiry = None;
            self.record.expired();
            return self.breaks(BodyError::Expired, cx);
        }
        let Some(lease) = &mut self.lease else {
            return Poll::Ready(None);
        };
        let frame = match ready!(lease.poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(fault)) => {
                self.record.upstream_broke();
                return self.breaks(BodyError::Upstream(fault), cx);
            }
            None => {
                self.finish();
                return Poll::Ready(None);
            }
        };
        self.record.sent(frame.data_ref().map_or(0, |data| data.len() as u64));
        // hyper does not ask again after a frame that is known to be the last.
        if self.is_end_stream() {
            self.finish();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Breaks off the next time. hyper throws away what it has not written when a body fails; asked to wait for a moment,
    /// it writes that first.
    fn breaks(&mut self, error: BodyError, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.lease = None;
        self.broken = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.lease.as_ref().is_none_or(Lease::is_end_stream)
    }

    fn exact(&self) -> Option<u64> {
        if self.broken.is_some() { None } else { self.lease.as_ref().map_or(Some(0), Lease::exact) }
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
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                if let Some(Ok(frame)) = &frame {
                    connection.received(frame.data_ref().map_or(0, |data| data.len() as u64));
                }
                connection.unread.set(frame.is_some() && !incoming.is_end_stream());
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
            }
            Self::Replayed(reader) => reader.poll(cx),
            Self::Trailed(data, trailers) => Poll::Ready(
                data.take().map(Frame::data).or_else(|| trailers.take().map(|them| Frame::trailers(*them))).map(Ok),
            ),
            Self::Again(first, rest) => match first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                None => Pin::new(&mut **rest).poll_frame(cx),
            },
            Self::Upstream(response) => response.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Text(text) => text.is_none(),
            Self::Downstream(incoming, _) => incoming.is_end_stream(),
            Self::Replayed(reader) => reader.is_end_stream(),
            Self::Trailed(data, trailers) => data.is_none() && trailers.is_none(),
            Self::Again(first, rest) => first.is_none() && rest.is_end_stream(),
            Self::Upstream(response) => response.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Downstream(incoming, _) => incoming.size_hint(),
            Self::Replayed(reader) => reader.size_hint(),
            // A length leaves trailers no place.
            Self::Trailed(..) => SizeHint::new(),
            Self::Again(first, rest) => {
                let ahead = first.as_ref().map_or(0, |first| first.len() as u64);
                rest.size_hint().exact().map_or_else(SizeHint::new, |exact| SizeHint::with_exact(ahead + exact))
            }
            Self::Upstream(response) => response.exact().map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}
