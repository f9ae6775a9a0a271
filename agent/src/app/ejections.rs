//! What the proxy ejects for everybody, on its way to the kernel's table: workers put it into a queue and serve on, a
//! thread of this file's writes. Made by `mod`, which gives it to the proxy.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::datapath::{Ejected, HealthTable};
use crate::proxy::Ejections;

/// How many wait at most. The thread takes all that are there at once, and one look through a full table takes 0.3 ms: this
/// is more than workers can eject meanwhile, each of which takes a request.
const QUEUE: usize = 1024;

/// See the module. The thread ends with the proxy, which holds the other end.
#[derive(Debug)]
pub(super) struct KernelHealth {
    queue: SyncSender<Ejected>,
    table: HealthTable,
}

impl KernelHealth {
    /// # Errors
    /// When there can be no thread.
    pub(super) fn start(table: HealthTable) -> std::io::Result<Self> {
        let (queue, told) = sync_channel(QUEUE);
        let writer = table.clone();
        std::thread::Builder::new().name("weir-eject".into()).spawn(move || write(&writer, &told))?;
        Ok(Self { queue, table })
    }
}

fn write(table: &HealthTable, told: &Receiver<Ejected>) {
    let mut all = Vec::new();
    while let Ok(first) = told.recv() {
        all.push(first);
        all.extend(told.try_iter().take(QUEUE));
        table.tell(&all);
        all.clear();
    }
}

impl Ejections for KernelHealth {
    fn ejected(&self, endpoint: SocketAddr, until_ns: u64, times: u32) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Ejected { endpoint, until_ns, times }) {
            tracing::warn!(%endpoint, "the kernel is not told of an ejection: too many at once");
        }
    }

    fn restored(&self, endpoint: SocketAddr) {
        // It fails when the agent ends alone.
        let _ = self.queue.send(Ejected { endpoint, until_ns: 0, times: 0 });
    }

    fn known(&self) -> Vec<(SocketAddr, u64, u32)> {
        self.table.ejected().into_iter().map(|one| (one.endpoint, one.until_ns, one.times)).collect()
    }
}
