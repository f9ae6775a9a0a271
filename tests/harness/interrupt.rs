//! Ctrl-C, SIGTERM and a closed terminal (SIGHUP) as a flag, so that whoever waits stops waiting and everything that was made is taken down by
//! its `Drop`. Used by `cargo xtask demo`; the wait loops of the harness look at it.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on SIGINT, SIGTERM and SIGHUP set the flag instead of ending the process. One that our starter had us ignore
/// (`nohup`) stays ignored.
pub fn install() {
    let handler = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        let before = unsafe { libc::signal(signal, handler) };
        if before == libc::SIG_IGN {
            // SAFETY: no handler is involved.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

/// Whether one of the signals came.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Forgets those that came: what is taken down now is ended by the next one only.
pub fn reset() {
    INTERRUPTED.store(false, Ordering::Relaxed);
}

/// # Errors
/// When one of the signals came.
pub fn check() -> Result<()> {
    if interrupted() {
        bail!("interrupted")
    }
    Ok(())
}
