//! The heartbeat: the oldest sign of life of the proxy's workers, written where the connect hook looks. A stopped or
//! stuck worker stops it, and new connections take their fallback slots.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::datapath::Heartbeat;
use crate::proxy::Proxy;

/// A fifth of [`weir_ebpf::HEARTBEAT_TIMEOUT_NS`].
const BEAT: Duration = Duration::from_millis(100);

/// The thread that beats.
#[derive(Debug)]
pub(super) struct Heart {
    heartbeat: Heartbeat,
    stopped: Arc<AtomicBool>,
}

impl Heart {
    pub(super) fn start(heartbeat: Heartbeat, proxy: Arc<Proxy>) -> io::Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let (beat, stop) = (heartbeat.clone(), Arc::clone(&stopped));
        std::thread::Builder::new().name("weir-heart".into()).spawn(move || {
            while !stop.load(Ordering::Acquire) {
                beat.beat(proxy.oldest_tick());
                std::thread::sleep(BEAT);
            }
            beat.stop();
        })?;
        Ok(Self { heartbeat, stopped })
    }

    /// From here on the kernel takes this agent for dead.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.heartbeat.stop();
    }
}
