//! Bytes from one socket to another without a copy through this process: splice(2) by way of a pipe. A pipe costs some
//! 9 µs, so that a direction goes over to it only once it has shown that it carries much. Called by `tcp`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::net::TcpStream;

/// Asked for at once, and the size of a pipe: one holds as many pieces of a socket's queue as pages of this size. Such a
/// piece has a page alone where the sender sends files, and up to 32 KiB else. With the kernel's sixteen pieces, of each
/// 64 KiB that arrive a rest would be left, and go on its way as a packet of its own. Costs 40 bytes of kernel memory a page.
const MOST: usize = 512 * 1024;

/// What is between the two sockets. Empty whenever nothing is being moved.
#[derive(Debug)]
pub(crate) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    /// # Errors
    /// When there are no descriptors left.
    pub(crate) fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: `ends` is valid for writes of two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both were just made, and nobody else has them.
        let [reader, writer] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        // SAFETY: the descriptor is open. Where it is refused (`fs.pipe-max-size`, or too many pages of one user), the pipe
        // is as large as it is: slower, and no less right.
        unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, MOST as libc::c_int) };
        Ok(Self { reader, writer })
    }
}

/// Moves everything up to the end of `from`, which is not passed on; `moved` counts it. Fails with true when reading
/// failed, false when writing did.
pub(crate) async fn one_way(pipe: &Pipe, from: &TcpStream, to: &TcpStream, moved: impl Fn(usize)) -> Result<(), bool> {
    loop {
        let mut held = transfer(from, Interest::READABLE, from.as_raw_fd(), pipe.writer.as_raw_fd(), MOST)
            .await
            .map_err(|_| true)?;
        if held == 0 {
            return Ok(());
        }
        while held > 0 {
            let written = transfer(to, Interest::WRITABLE, pipe.reader.as_raw_fd(), to.as_raw_fd(), held)
                .await
                .map_err(|_| false)?;
            held -= written;
            moved(written);
        }
    }
}

/// One splice(2), once `socket`, which is one of its ends, is ready.
async fn transfer(socket: &TcpStream, ready: Interest, from: RawFd, to: RawFd, len: usize) -> io::Result<usize> {
    socket
        .async_io(ready, || {
            let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
            // SAFETY: both descriptors are open as long as the borrows of the socket and the pipe; null offsets are for
            // what has none.
            let moved = unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), len, flags) };
            usize::try_from(moved).map_err(|_| io::Error::last_os_error())
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_as_large_as_it_may_be() {
        let most =
            std::fs::read_to_string("/proc/sys/fs/pipe-max-size").expect("Linux").trim().parse().expect("a number");
        let pipe = Pipe::new().expect("two descriptors");
        // SAFETY: the descriptor is open.
        let size = unsafe { libc::fcntl(pipe.reader.as_raw_fd(), libc::F_GETPIPE_SZ) };
        assert!(MOST > most || size == MOST as libc::c_int, "{size} of {MOST}");
    }
}
