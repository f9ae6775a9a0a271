//! inotify on single directories and files, and the epoll that waits for it. Used by `book` and the thread of `mod`.
//!
//! cgroup directories are made and removed through the file system and their `cgroup.events` tells of its own changes,
//! so each step of a sandbox's life is an event.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Bytes of events read at once: some hundred.
const BUFFER: usize = 16 * 1024;
/// Descriptors that epoll tells of at once.
const READY: usize = 64;

/// What a watch tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Entries of a directory come and go, or the directory itself.
    Entries,
    /// Files are written: a file itself, or those of a directory.
    Writes,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Of which watch; -1 = some were lost.
    pub(super) watch: i32,
    /// The watch is no more.
    pub(super) ended: bool,
    /// The entry of the directory, or empty.
    pub(super) name: String,
}

/// An inotify instance.
#[derive(Debug)]
pub(super) struct Inotify(OwnedFd);

impl Inotify {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the result is checked.
        owned(unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) }).map(Self)
    }

    /// Watches a path; the same path again gives the same number.
    pub(super) fn watch(&self, path: &Path, interest: Interest) -> io::Result<i32> {
        let mask = match interest {
            Interest::Entries => libc::IN_CREATE | libc::IN_DELETE | libc::IN_MOVED_TO | libc::IN_ONLYDIR,
            Interest::Writes => libc::IN_MODIFY,
        };
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the descriptor is open and `path` is a C string that outlives the call.
        let watch = unsafe { libc::inotify_add_watch(self.0.as_raw_fd(), path.as_ptr(), mask | libc::IN_MASK_ADD) };
        if watch < 0 { Err(io::Error::last_os_error()) } else { Ok(watch) }
    }

    /// Ends a watch; one that has ended by itself is no error.
    pub(super) fn unwatch(&self, watch: i32) {
        // SAFETY: plain system call on an open descriptor.
        unsafe { libc::inotify_rm_watch(self.0.as_raw_fd(), watch) };
    }

    /// What happened since; never waits.
    pub(super) fn read(&self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        let mut buffer = vec![0_u8; BUFFER];
        loop {
            // SAFETY: `buffer` is valid for writes of its length.
            let read = unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            match read {
                -1 => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::WouldBlock => return Ok(events),
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
                read => parse(&buffer[..read.max(0) as usize], &mut events),
            }
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `struct inotify_event`: watch, mask, cookie, length of the name, the name padded with zeros.
fn parse(mut bytes: &[u8], events: &mut Vec<Event>) {
    const HEAD: usize = 16;
    while let Some((head, rest)) = bytes.split_at_checked(HEAD) {
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let Some((name, rest)) = rest.split_at_checked(word(12) as usize) else { return };
        let name = name.split(|b| *b == 0).next().unwrap_or_default();
        let lost = word(4) & libc::IN_Q_OVERFLOW != 0;
        events.push(Event {
            watch: if lost { -1 } else { word(0) as i32 },
            ended: word(4) & libc::IN_IGNORED != 0,
            name: String::from_utf8_lossy(name).into_owned(),
        });
        bytes = rest;
    }
}

/// Waits for several descriptors.
#[derive(Debug)]
pub(super) struct Epoll(OwnedFd);

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the result is checked.
        owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Self)
    }

    /// Waits for `fd` too, until it is closed; `token` is told with it.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: both descriptors are open, and `event` is valid for the call.
        let result =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The tokens of those that are ready; none when the time is up or a signal came.
    pub(super) fn wait(&self, timeout: Duration) -> Vec<u64> {
        let mut ready = [libc::epoll_event { events: 0, u64: 0 }; READY];
        // A part of a millisecond is a whole one: zero would spin.
        let timeout = timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as libc::c_int;
        // SAFETY: `ready` is valid for writes of its length.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), ready.as_mut_ptr(), READY as libc::c_int, timeout) };
        ready.iter().take(count.max(0) as usize).map(|event| event.u64).collect()
    }
}

/// Ends a wait of [`Epoll`] from another thread.
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the result is checked.
        owned(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) }).map(Self)
    }

    pub(super) fn ring(&self) {
        let one = 1_u64;
        // SAFETY: `one` is valid for reads of eight bytes. A full counter means that it rings already.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    pub(super) fn silence(&self) {
        let mut count = 0_u64;
        // SAFETY: `count` is valid for writes of eight bytes. Nothing to read means that it is silent.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn entries_and_writes_are_told_by_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let inotify = Inotify::new().unwrap();
        let watch = inotify.watch(directory.path(), Interest::Entries).unwrap();
        fs::create_dir(directory.path().join("podx")).unwrap();
        fs::write(directory.path().join("f"), "1").unwrap();
        let both = |name: &str| Event { watch, ended: false, name: name.into() };
        assert_eq!(inotify.read().unwrap(), [both("podx"), both("f")]);
        assert_eq!(inotify.watch(directory.path(), Interest::Writes).unwrap(), watch);
        fs::write(directory.path().join("f"), "2").unwrap();
        assert!(inotify.read().unwrap().contains(&both("f")));
        inotify.unwatch(watch);
        let last = inotify.read().unwrap();
        assert!(last.last().is_some_and(|event| event.ended), "{last:?}");
        assert!(inotify.read().unwrap().is_empty());
    }

    #[test]
    fn lost_events_are_told() {
        let mut lost = Vec::new();
        for word in [-1_i32 as u32, libc::IN_Q_OVERFLOW, 0, 0] {
            lost.extend(word.to_ne_bytes());
        }
        let mut events = Vec::new();
        parse(&lost, &mut events);
        assert_eq!(events, [Event { watch: -1, ended: false, name: String::new() }]);
    }

    #[test]
    fn a_bell_ends_the_wait_until_it_is_silenced() {
        let (epoll, bell) = (Epoll::new().unwrap(), Bell::new().unwrap());
        epoll.add(bell.fd(), 7).unwrap();
        assert!(epoll.wait(Duration::ZERO).is_empty());
        bell.ring();
        bell.ring();
        assert_eq!(epoll.wait(Duration::from_secs(5)), [7]);
        bell.silence();
        assert!(epoll.wait(Duration::from_micros(1)).is_empty());
    }
}
