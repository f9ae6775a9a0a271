//! The harness: real network namespaces and cgroups as pods, small origins and clients inside them, and the agent as
//! a process. Used by the suites beside it and by `cargo xtask demo`.
//!
//! It knows weir only from outside: a binary, its manifests, its admin port and its pinned maps. So what it proves
//! holds for what users run, and building it does not build the agent.
//!
//! A [`Mesh`] never touches the namespace that it was started from: pods hang on a "node" namespace of their own.

pub mod agent;
#[cfg(feature = "apiserver")]
pub mod apiserver;
pub mod canary;
pub mod cgroup;
pub mod interrupt;
pub mod load;
pub mod manifests;
pub mod mesh;
pub mod netns;
pub mod process;
pub mod require;
pub mod socket;
pub mod wire;

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub use agent::Agent;
#[cfg(feature = "apiserver")]
pub use apiserver::ApiServer;
pub use canary::Canary;
pub use load::{HttpLoad, LiveLoad, Report};
pub use manifests::{Manifests, Service};
pub use mesh::{Mesh, Pod, PodSpec};
pub use process::Process;
pub use require::require;

/// Set to 1 where tests that can take longer do so: minutes instead of seconds.
pub const LONG: &str = "WEIR_TEST_LONG";

/// `long` under `cargo xtask test --long`, else `short`.
pub fn length<T>(short: T, long: T) -> T {
    if std::env::var(LONG).as_deref() == Ok("1") { long } else { short }
}

/// Between two looks at something that is waited for.
const POLL_EVERY: Duration = Duration::from_millis(5);

/// Waits until `probe` gives a value, and says how long that took. Errors of `probe` count as "not yet", and the last
/// one is told when time is up.
///
/// # Errors
/// When `within` is over, or the run was interrupted.
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let started = Instant::now();
    let mut last = None;
    while started.elapsed() < within {
        interrupt::check()?;
        match probe() {
            Ok(Some(value)) => return Ok((value, started.elapsed())),
            Ok(None) => {}
            Err(e) => last = Some(e),
        }
        std::thread::sleep(POLL_EVERY);
    }
    match last {
        Some(e) => bail!("{what}: not within {within:?}: {e:#}"),
        None => bail!("{what}: not within {within:?}"),
    }
}

/// Prints what a suite measured, for people who read along. `print!` is for programs; this is a line of a protocol.
#[macro_export]
macro_rules! proved {
    ($($text:tt)*) => { $crate::say(&format!($($text)*)) };
}

/// Writes a line to standard output; nobody listening is no error.
pub fn say(line: &str) {
    let _closed = writeln!(std::io::stdout(), "    {line}");
}

/// CLOCK_MONOTONIC in nanoseconds: comparable between the harness and the clients that it starts.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for writes; CLOCK_MONOTONIC exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
