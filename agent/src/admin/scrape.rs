//! Metrics as a body that is made while it is read: of a busy node they come to more than is kept in memory for a reader.
//! Used by the endpoints.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// Metrics in Prometheus' text format.
pub struct Scrape {
    /// What every scrape has.
    pub head: String,
    /// What follows, piece by piece.
    pub pieces: Box<dyn Iterator<Item = String> + Send>,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("head", &self.head).finish_non_exhaustive()
    }
}

impl Scrape {
    /// All of it, if that is at most so many bytes; else what it was.
    pub(super) fn within(mut self, bytes: usize) -> Result<Bytes, Self> {
        while self.head.len() <= bytes {
            let Some(piece) = self.pieces.next() else {
                return Ok(self.head.into());
            };
            self.head.push_str(&piece);
        }
        Err(self)
    }
}

/// An answer's body.
#[derive(Debug)]
pub(super) enum Body {
    Whole(Bytes),
    Pieces(Scrape),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut *self {
            Self::Whole(bytes) => std::mem::take(bytes),
            Self::Pieces(scrape) if !scrape.head.is_empty() => std::mem::take(&mut scrape.head).into(),
            Self::Pieces(scrape) => scrape.pieces.next().unwrap_or_default().into(),
        };
        Poll::Ready((!next.is_empty()).then(|| Ok(Frame::data(next))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}
