//! The CPU time of this thread. Used by `main`, which has one: what others do on the machine meanwhile does not count, but
//! for what they push out of the caches.

use std::time::Duration;

/// Begun at some time of this thread's.
pub(crate) struct Stopwatch(Duration);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        now().saturating_sub(self.0)
    }
}

fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole timespec that lives as long as the call. It cannot fail: the clock exists
    // everywhere, and the pointer is good.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
