//! The one byte stream under hyper: a TCP socket, what was read from it before hyper came, and a count of what came
//! in. Used on both sides: `http1` (downstream) and `upstream`.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Up to so many bytes in pieces, a head with a small body above all, are written as one: that copy costs less than
/// what the kernel does to take pieces (at 1 KiB, 0.05 against some 0.5 µs).
const GATHERED: usize = 4096;

/// Bytes read so far, and whether the peer takes what is written, shared with whoever must know. Atomics only because
/// hyper wants upgradable streams `Send`; all their users live on one thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    heard: AtomicU64,
    blocked: AtomicBool,
}

impl Heard {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.heard.load(Relaxed)
    }

    /// The latest write waits for the peer to read.
    pub(crate) fn is_blocked(&self) -> bool {
        self.0.blocked.load(Relaxed)
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        self.0.blocked.store(outcome.is_pending(), Relaxed);
    }

    fn add(&self, n: usize) {
        self.0.heard.store(self.bytes() + n as u64, Relaxed);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Io {
    stream: TcpStream,
    /// Read before, and to be read again first.
    prefix: Bytes,
    heard: Heard,
}

impl Io {
    pub(crate) fn new(stream: TcpStream, prefix: Bytes) -> Self {
        Self { stream, prefix, heard: Heard::default() }
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard.clone()
    }

    /// The socket, and what nobody has read again yet.
    pub(crate) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.stream, self.prefix)
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.prefix.is_empty() {
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        } else {
            let n = self.prefix.len().min(buffer.remaining());
            buffer.put_slice(&self.prefix[..n]);
            self.prefix.advance(n);
        }
        self.heard.add(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buffer);
        self.heard.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let outcome = if buffers.iter().map(|piece| piece.len()).sum::<usize>() <= GATHERED {
            let mut storage = [MaybeUninit::<u8>::uninit(); GATHERED];
            let mut whole = ReadBuf::uninit(&mut storage);
            for piece in buffers {
                whole.put_slice(piece);
            }
            stream.poll_write(cx, whole.filled())
        } else {
            stream.poll_write_vectored(cx, buffers)
        };
        self.heard.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// hyper ends a connection so before it lets go of the socket, whose end comes with that: one call less.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
