//! A load and its latest count, read beside everything else that happens: a client whose lines nobody reads would tell
//! old ones. Used by `mod`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow, bail};
use weir_tests::{LiveLoad, Report};

/// A running load.
pub(super) struct Meter {
    pub(super) name: &'static str,
    /// Requests that it can have in flight at once.
    pub(super) connections: u64,
    latest: Arc<Mutex<Report>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<Result<Report>>>,
}

impl Meter {
    pub(super) fn new(name: &'static str, connections: u64, mut load: LiveLoad) -> Self {
        let (latest, stop) = (Arc::new(Mutex::new(Report::default())), Arc::new(AtomicBool::new(false)));
        let (shared, ended) = (Arc::clone(&latest), Arc::clone(&stop));
        let reader = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let report = load.tick()?;
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = report;
            }
            load.stop()
        });
        Self { name, connections, latest, stop, reader: Some(reader) }
    }

    /// The count as it was at most a moment ago.
    ///
    /// # Errors
    /// When the client has ended by itself.
    pub(super) fn now(&self) -> Result<Report> {
        if self.reader.as_ref().is_none_or(JoinHandle::is_finished) {
            bail!("the client of load {} has ended", self.name);
        }
        Ok(self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Ends the load; the whole count.
    ///
    /// # Errors
    /// When the client failed.
    pub(super) fn stop(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let reader = self.reader.take().ok_or_else(|| anyhow!("load {} was stopped before", self.name))?;
        reader.join().map_err(|_| anyhow!("the reader of load {} panicked", self.name))?
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // Its client is killed with it, before the pods that it runs in go.
            let _ended = reader.join();
        }
    }
}
