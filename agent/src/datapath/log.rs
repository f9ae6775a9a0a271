//! Records of the debug object's programs, as log lines of the agent. Used by `mod` when `kernel_log` is asked for.

use std::pin::Pin;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::DatapathError;

/// Reads records until it is dropped; to be run on the control runtime.
pub type KernelLog = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The reader for a freshly loaded debug object. Lines go through the `log` facade, which the agent's subscriber takes.
pub(super) fn reader(ebpf: &mut Ebpf) -> Result<KernelLog, DatapathError> {
    let logger = EbpfLogger::init(ebpf).map_err(|e| DatapathError::BadObject(e.to_string()))?;
    Ok(Box::pin(async move {
        // SAFETY: the logger owns its descriptor, and is inside of the AsyncFd until that is dropped.
        let mut logger = match unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) } {
            Ok(logger) => logger,
            Err(error) => return tracing::error!(%error, "cannot read the kernel programs' log"),
        };
        loop {
            match logger.readable_mut().await {
                Ok(mut ready) => {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
                Err(error) => return tracing::error!(%error, "cannot wait for the kernel programs' log"),
            }
        }
    }))
}
