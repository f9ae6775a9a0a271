//! A request on its way out: its head as bytes, and its body as it comes, framed anew. Used by `wire`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{self, HeaderName};
use http::{HeaderMap, Request};
use hyper::body::Body as _;
use tokio::io::AsyncWrite;

use super::Fault;
use crate::proxy::body::Body;

/// Fields that a trailer must not have (RFC 9110, 6.5.1): who merges trailers into the head would frame, route or
/// authenticate by them.
static NEVER_TRAILERS: [HeaderName; 10] = [
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::HOST,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::AUTHORIZATION,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
];

/// How the upstream is told where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// There is none.
    None,
    /// By its length; so many bytes are to come.
    Length(u64),
    Chunked,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sending {
    framing: Framing,
    /// The head, or a chunk's size line: first to be written,
    lead: BytesMut,
    /// then a piece of the body,
    data: Bytes,
    /// then a chunk's end.
    tail: &'static [u8],
    body: Body,
    /// The body has been taken to its end.
    ended: bool,
    /// Something has been written.
    begun: bool,
}

impl Sending {
    /// Nothing, done with.
    pub(super) fn nothing() -> Self {
        Self {
            framing: Framing::None,
            lead: BytesMut::new(),
            data: Bytes::new(),
            tail: b"",
            body: Body::Empty,
            ended: true,
            begun: true,
        }
    }

    /// `lead` is an empty buffer. The body is taken out of the request.
    pub(super) fn new(request: &mut Request<Body>, mut lead: BytesMut) -> Self {
        let body = std::mem::replace(request.body_mut(), Body::Empty);
        let framing = match body.size_hint().exact() {
            _ if body.is_end_stream() => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        head(request, framing, &mut lead);
        let ended = framing == Framing::None;
        Self { framing, lead, data: Bytes::new(), tail: b"", body, ended, begun: false }
    }

    /// All of it has been written.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.is_empty()
    }

    /// Something has been written: it may have been processed.
    pub(super) fn is_begun(&self) -> bool {
        self.begun
    }

    fn is_empty(&self) -> bool {
        self.lead.is_empty() && self.data.is_empty() && self.tail.is_empty()
    }

    /// The buffer that it was made with.
    pub(super) fn take_lead(&mut self) -> BytesMut {
        std::mem::take(&mut self.lead)
    }

    /// The body of a request of which nothing has been written; `None` when a part of it is lost.
    pub(super) fn take_body(&mut self) -> Option<Body> {
        let body = std::mem::replace(&mut self.body, Body::Empty);
        let data = std::mem::take(&mut self.data);
        let lost = self.begun || (self.ended && self.framing == Framing::Chunked);
        (!lost).then(|| if data.is_empty() { body } else { Body::Again(Some(data), Box::new(body)) })
    }

    /// Writes until all is written, the body has nothing to give, or the socket takes no more. `in_parts`: a write that
    /// fails may have sent something all the same.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut to: Pin<&mut impl AsyncWrite>,
        in_parts: bool,
    ) -> Poll<Result<(), Fault>> {
        loop {
            if !self.ended && self.data.is_empty() && self.tail.is_empty() {
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(frame) => {
                        self.frame(frame.transpose().map_err(|error| Fault::Request(Box::new(error)))?)?;
                    }
                    Poll::Pending if self.lead.is_empty() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            while !self.is_empty() {
                self.begun |= in_parts;
                let n = ready!(self.write(cx, to.as_mut())).map_err(Fault::Io)?;
                if n == 0 {
                    return Poll::Ready(Err(Fault::Closed));
                }
                self.begun = true;
                self.written(n);
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// What comes next of the body; `None` = its end.
    fn frame(&mut self, frame: Option<hyper::body::Frame<Bytes>>) -> Result<(), Fault> {
        let Some(frame) = frame else {
            return self.end(None);
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                match &mut self.framing {
                    Framing::Length(left) => {
                        let rest = left.checked_sub(data.len() as u64);
                        *left = rest.ok_or(Fault::Protocol("a body longer than announced"))?;
                        // The last byte ends it: nothing has to be asked once more.
                        self.ended = *left == 0;
                    }
                    Framing::Chunked => {
                        put_hex(&mut self.lead, data.len());
                        self.lead.put_slice(b"\r\n");
                        self.tail = b"\r\n";
                    }
                    Framing::None => return Err(Fault::Protocol("a body longer than announced")),
                }
                self.data = data;
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.end(Some(&trailers))?;
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Fault> {
        self.ended = true;
        match self.framing {
            Framing::Chunked => {
                self.lead.put_slice(b"0\r\n");
                let fields = trailers.into_iter().flatten().filter(|(name, _)| !NEVER_TRAILERS.contains(name));
                for (name, value) in fields {
                    field(&mut self.lead, name.as_str(), value.as_bytes());
                }
                self.lead.put_slice(b"\r\n");
                Ok(())
            }
            Framing::Length(1..) => Err(Fault::Protocol("a body shorter than announced")),
            // There is no place for trailers.
            Framing::Length(0) | Framing::None => Ok(()),
        }
    }

    fn write(&self, cx: &mut Context<'_>, to: Pin<&mut impl AsyncWrite>) -> Poll<io::Result<usize>> {
        if self.data.is_empty() && self.tail.is_empty() {
            return to.poll_write(cx, &self.lead);
        }
        to.poll_write_vectored(cx, &[IoSlice::new(&self.lead), IoSlice::new(&self.data), IoSlice::new(self.tail)])
    }

    fn written(&mut self, n: usize) {
        let of_lead = n.min(self.lead.len());
        if of_lead == self.lead.len() {
            // Unlike `advance`, this keeps all of its room for the next.
            self.lead.clear();
        } else {
            self.lead.advance(of_lead);
        }
        let of_data = (n - of_lead).min(self.data.len());
        self.data.advance(of_data);
        self.tail = &self.tail[n - of_lead - of_data..];
    }
}

/// The request line and the headers. The framing is said once, by us, whatever the client said.
fn head(request: &Request<Body>, framing: Framing, out: &mut BytesMut) {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    put(out, [request.method().as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"]);
    let mut said = false;
    for (name, value) in request.headers() {
        if *name == header::CONTENT_LENGTH {
            said = true;
        } else if *name != header::TRANSFER_ENCODING {
            field(out, name.as_str(), value.as_bytes());
        }
    }
    match framing {
        // A client that says that there is nothing is passed on; one that says nothing has nothing.
        Framing::None if said => out.put_slice(b"content-length: 0\r\n"),
        Framing::None => {}
        Framing::Length(length) => {
            field(out, "content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        Framing::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.put_slice(b"\r\n");
}

fn field(out: &mut BytesMut, name: &str, value: &[u8]) {
    put(out, [name.as_bytes(), b": ", value, b"\r\n"]);
}

/// All pieces, with room made for them once: a request's head is some thirty.
#[inline]
fn put<const N: usize>(out: &mut BytesMut, pieces: [&[u8]; N]) {
    let length = pieces.iter().map(|piece| piece.len()).sum();
    out.reserve(length);
    let mut room = out.spare_capacity_mut();
    for piece in pieces {
        let (to, rest) = room.split_at_mut(piece.len());
        to.write_copy_of_slice(piece);
        room = rest;
    }
    // SAFETY: so much room was reserved, and all of it was written just now, one piece after the other.
    unsafe { out.advance_mut(length) };
}

fn put_hex(out: &mut BytesMut, n: usize) {
    let digits = (usize::BITS - n.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.put_u8(b"0123456789abcdef"[(n >> (4 * place)) & 15]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(request: &mut Request<Body>) -> String {
        let sending = Sending::new(request, BytesMut::new());
        String::from_utf8(sending.lead.to_vec()).unwrap()
    }

    #[test]
    fn the_framing_is_ours_and_said_once() {
        let request = |body| {
            let request = Request::post("http://x/a?b=c").header("host", "b").header("content-length", "77");
            request.header("transfer-encoding", "gzip").header("x-a", "1").header("x-a", "2").body(body).unwrap()
        };
        let want = "POST /a?b=c HTTP/1.1\r\nhost: b\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: ";
        assert_eq!(bytes(&mut request(Body::Empty)), format!("{want}0\r\n\r\n"));
        assert_eq!(bytes(&mut request(Body::text("four"))), format!("{want}4\r\n\r\n"));
        let mut plain = Request::get("/").header("host", "b").body(Body::Empty).unwrap();
        assert_eq!(bytes(&mut plain), "GET / HTTP/1.1\r\nhost: b\r\n\r\n");
    }

    #[test]
    fn sizes_are_hexadecimal() {
        for n in [0, 1, 9, 10, 15, 16, 255, 256, 4096, 65535, usize::MAX] {
            let mut out = BytesMut::new();
            put_hex(&mut out, n);
            assert_eq!(out, format!("{n:x}").as_bytes());
        }
    }

    #[test]
    fn a_body_of_which_nothing_was_written_can_be_had_again() {
        let mut request = Request::post("/").body(Body::text("four")).unwrap();
        let mut sending = Sending::new(&mut request, BytesMut::new());
        let mut context = Context::from_waker(std::task::Waker::noop());
        let end = sending.poll(&mut context, Pin::new(&mut Refusing), false);
        assert!(matches!(end, Poll::Ready(Err(Fault::Io(_)))));
        let mut body = sending.take_body().expect("all of it");
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else {
            panic!("no frame");
        };
        assert_eq!(frame.into_data().unwrap(), "four");
        assert!(body.is_end_stream());
        let mut request = Request::post("/").body(body).unwrap();
        let mut sending = Sending::new(&mut request, BytesMut::new());
        let end = sending.poll(&mut context, Pin::new(&mut Refusing), true);
        assert!(matches!(end, Poll::Ready(Err(Fault::Io(_)))));
        assert!(sending.take_body().is_none(), "some records may have gone before the one that failed");
    }

    /// A socket that was reset.
    struct Refusing;

    impl AsyncWrite for Refusing {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
