//! The end of a connection whose client may still be sending: a socket that is closed with bytes unread is reset, and a
//! reset takes the answer away from a client that writes all of its request before it reads. So the answer is followed by
//! its end, and what the client still sends is thrown away for a while. Called by `http1`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::limits::Limits;

/// What is read at once. A client that writes a large body has hundreds of KiB in the socket: four times less would be
/// four times the calls, and this is held by few connections, for a moment.
const ROOM: usize = 64 * 1024;

/// Ends the answer, and reads until the client ends too, says nothing for a while, or has had its time or bytes.
pub(crate) async fn close(mut stream: TcpStream, limits: &Limits) {
    if stream.shutdown().await.is_err() {
        // The client is gone.
        return;
    }
    let end = Instant::now() + limits.linger;
    let mut left = limits.linger_bytes;
    let mut unwanted = Vec::with_capacity(ROOM);
    while left > 0 {
        let until = end.min(Instant::now() + limits.linger_silence);
        let Ok(Ok(n @ 1..)) = timeout_at(until, stream.read_buf(&mut unwanted)).await else {
            return;
        };
        unwanted.clear();
        left = left.saturating_sub(n);
    }
}
