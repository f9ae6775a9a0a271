//! Network namespaces: opening one, its cookie, and making sockets inside it. Used by `proxy` (upstream sockets in the
//! client pod's namespace) and `app` (listeners, enrolment).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

/// `SO_NETNS_COOKIE` (Linux 5.14), not in libc for all targets.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// An open network namespace. Holding it keeps the namespace alive, so it is dropped with the pod.
#[derive(Clone, Debug)]
pub struct NetNs {
    file: Arc<File>,
    cookie: u64,
}

impl NetNs {
    /// Opens `/run/netns/NAME`, `/proc/PID/ns/net` or the like.
    ///
    /// # Errors
    /// When the file is not there, is no network namespace, or may not be entered.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = Arc::new(File::open(path)?);
        let cookie = on_thread(&file, own_cookie)??;
        Ok(Self { file, cookie })
    }

    /// The namespace of this process.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn own() -> io::Result<Self> {
        Ok(Self { file: Arc::new(File::open("/proc/self/ns/net")?), cookie: own_cookie()? })
    }

    /// The kernel's name for it: what the programs match on. Never reused while the machine is up.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Runs `work` inside the namespace on a thread of its own, which ends with it.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(&self.file, work)
    }

    /// Runs `work` inside the namespace on this thread, and returns to `home`. `work` must not await: a worker left
    /// in a foreign namespace would cross tenants, so a failed return aborts the process.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T>(&self, home: &NetNs, work: impl FnOnce() -> T) -> io::Result<T> {
        struct Return<'a>(&'a NetNs);
        impl Drop for Return<'_> {
            fn drop(&mut self) {
                if setns(self.0.file.as_fd()).is_err() {
                    std::process::abort();
                }
            }
        }
        setns(self.file.as_fd())?;
        let _return = Return(home);
        Ok(work())
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn setns(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open for the duration of the call; setns changes only this thread.
    if unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn on_thread<T: Send>(file: &Arc<File>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(file.as_fd())?;
            Ok(work())
        });
        inside.join().map_err(|_| io::Error::other("a task inside a network namespace panicked"))?
    })
}

fn own_cookie() -> io::Result<u64> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)
        .or_else(|_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None))?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` and `length` are valid for writes, and `length` is the size of `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_has_one_cookie_by_both_ways() {
        let own = NetNs::own().expect("/proc is mounted");
        assert_ne!(own.cookie(), 0);
        if let Ok(opened) = NetNs::open("/proc/self/ns/net") {
            assert_eq!(opened.cookie(), own.cookie());
        }
    }
}
