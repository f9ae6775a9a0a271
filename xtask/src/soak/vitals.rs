//! What an agent holds of the machine, and whether that grows with time. Used by `mod`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A new agent adopts pins, enrols pods and fills its pools; then it has what it needs.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);
/// Descriptors above those of a settled agent. Connections and pooled upstream sockets of the loads come and go by some
/// forty; a leak of one for each opt-in or opt-out passes this within eight minutes.
const MAX_MORE_FDS: u64 = 64;
/// Memory above that of a settled agent, in KiB. The allocator keeps what a burst needed; a leak of 256 bytes for
/// each proxied request passes this within six minutes.
const MAX_MORE_RSS: u64 = 24 * 1024;

/// One look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Vitals {
    pub(super) fds: u64,
    /// Resident memory, KiB.
    pub(super) rss: u64,
}

impl Vitals {
    /// # Errors
    /// When there is no such process.
    pub(super) fn of(pid: i32) -> Result<Self> {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("descriptors of process {pid}"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        Ok(Self { fds: fds.count() as u64, rss: rss.with_context(|| format!("no VmRSS of process {pid}"))? })
    }
}

/// One agent from its start to its end.
pub(super) struct Life {
    started: Instant,
    pub(super) pid: i32,
    settled: Option<Vitals>,
    pub(super) highest: Vitals,
}

impl Life {
    pub(super) fn new(pid: i32) -> Self {
        Self { started: Instant::now(), pid, settled: None, highest: Vitals::default() }
    }

    /// Looks at the agent; what grew too much, in words.
    ///
    /// # Errors
    /// When the agent is gone.
    pub(super) fn look(&mut self) -> Result<(Vitals, Option<String>)> {
        let now = Vitals::of(self.pid)?;
        Ok((now, self.judge(now, self.started.elapsed())))
    }

    fn judge(&mut self, now: Vitals, age: Duration) -> Option<String> {
        if age < SETTLES_WITHIN {
            return None;
        }
        let settled = *self.settled.get_or_insert(now);
        self.highest = Vitals { fds: self.highest.fds.max(now.fds), rss: self.highest.rss.max(now.rss) };
        let (fds, rss) = (now.fds.saturating_sub(settled.fds), now.rss.saturating_sub(settled.rss));
        (fds > MAX_MORE_FDS || rss > MAX_MORE_RSS).then(|| {
            format!(
                "agent {}: {fds} descriptors and {rss} KiB more than when it had settled ({} and {}); \
                 {MAX_MORE_FDS} and {MAX_MORE_RSS} are the bounds",
                self.pid, settled.fds, settled.rss
            )
        })
    }

    /// What it had when it had settled; nothing for one that never did.
    pub(super) fn settled(&self) -> Option<Vitals> {
        self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_descriptors_and_memory() {
        let own = Vitals::of(std::process::id() as i32).expect("we are there");
        assert!(own.fds >= 3 && own.rss > 500, "{own:?}");
        let _file = fs::File::open("/proc/self/status").expect("it is there");
        assert!(Vitals::of(std::process::id() as i32).expect("we are there").fds > own.fds);
    }

    #[test]
    fn growth_is_counted_from_the_settled_agent_on() {
        let mut life = Life::new(1);
        let at = |fds, rss| Vitals { fds, rss };
        assert_eq!(life.judge(at(1, 1000), Duration::from_secs(1)), None, "still starting");
        let later = SETTLES_WITHIN;
        assert_eq!(life.judge(at(100, 50_000), later), None);
        assert_eq!(life.judge(at(100 + MAX_MORE_FDS, 50_000 + MAX_MORE_RSS), later), None);
        assert!(life.judge(at(101 + MAX_MORE_FDS, 50_000), later).is_some());
        assert!(life.judge(at(100, 50_001 + MAX_MORE_RSS), later).is_some());
        assert_eq!(life.judge(at(90, 40_000), later), None);
        assert_eq!(life.settled(), Some(at(100, 50_000)));
        assert_eq!(life.highest, at(101 + MAX_MORE_FDS, 50_001 + MAX_MORE_RSS));
    }
}
