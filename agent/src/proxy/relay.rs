//! Bytes in one direction of a connection whose server's side is encrypted: copied, as the kernel can move neither what is
//! to be encrypted nor what was. Called by `tcp`.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::limits::Limits;

/// A direction that did not come to its end.
#[derive(Debug)]
pub(super) struct Broke {
    pub(super) error: io::Error,
    /// Else writing.
    pub(super) reading: bool,
}

impl Broke {
    fn reading(error: io::Error) -> Self {
        Self { error, reading: true }
    }

    fn writing(error: io::Error) -> Self {
        Self { error, reading: false }
    }
}

/// Copies to the end, and passes the end on: a FIN of the client as close_notify, and the other way round. An encrypted
/// stream that ends without one has been cut off.
pub(super) async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    prefix: Bytes,
    limits: &Limits,
    told: impl Fn(usize),
) -> Result<(), Broke> {
    if !prefix.is_empty() {
        to.write_all(&prefix).await.map_err(Broke::writing)?;
        to.flush().await.map_err(Broke::writing)?;
        told(prefix.len());
    }
    drop(prefix);
    let mut buffer = BytesMut::with_capacity(limits.tcp_buffer);
    loop {
        buffer.clear();
        let read = from.read_buf(&mut buffer).await.map_err(Broke::reading)?;
        if read == 0 {
            // A peer that has closed both ways already makes this fail; then reading from it says so.
            let _ = to.shutdown().await;
            return Ok(());
        }
        to.write_all(&buffer).await.map_err(Broke::writing)?;
        to.flush().await.map_err(Broke::writing)?;
        told(read);
    }
}
