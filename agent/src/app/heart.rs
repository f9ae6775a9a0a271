//! The heartbeat: the oldest sign of life of the proxy's workers, written where the connect hook looks. A stopped or
//! stuck worker stops it, and new connections take their fallback slots.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::datapath::Heartbeat;
use crate::proxy::Proxy;

/// A fifth of [`weir_ebpf::HEARTBEAT_TIMEOUT_NS`].
const BEAT: Duration = Duration::from_millis(100);

/// The thread that beats.
#[derive(Debug)]
pub(super) struct Heart {
    thread: JoinHandle<()>,
    stopped: Arc<AtomicBool>,
}

impl Heart {
    pub(super) fn start(heartbeat: Heartbeat, proxy: Arc<Proxy>) -> io::Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let thread = std::thread::Builder::new().name("weir-heart".into()).spawn(move || {
            while !stop.load(Ordering::Acquire) {
                heartbeat.beat(proxy.oldest_tick());
                std::thread::park_timeout(BEAT);
            }
            heartbeat.stop();
        })?;
        Ok(Self { thread, stopped })
    }

    /// From here on the kernel takes this agent for dead, and another one may have its heartbeat: nothing is written to it
    /// any more.
    pub(super) fn stop(self) {
        self.stopped.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("weir-heart panicked");
        }
    }
}
