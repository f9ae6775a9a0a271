//! What a process takes of the machine: CPU by thread, and memory. Used by `main`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time by the name of the thread; those of one name are added up.
#[derive(Debug)]
pub(crate) struct Cost(BTreeMap<String, Duration>);

impl Cost {
    /// Up to now. Threads that have ended are not in it.
    ///
    /// # Errors
    /// When there is no such process, or the kernel does not count.
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let mut cost: BTreeMap<String, Duration> = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("threads of process {pid}"))? {
            let task = task?.path();
            let (Ok(name), Ok(times)) =
                (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("schedstat")))
            else {
                continue;
            };
            let ran =
                times.split_whitespace().next().and_then(|ns| ns.parse().ok()).context("schedstat has numbers")?;
            *cost.entry(name.trim().to_owned()).or_default() += Duration::from_nanos(ran);
        }
        Ok(Self(cost))
    }

    /// What came since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self(self.0.iter().map(|(name, now)| (name.clone(), now.saturating_sub(before.thread(name)))).collect())
    }

    /// That of one thread.
    pub(crate) fn thread(&self, name: &str) -> Duration {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// That of all.
    pub(crate) fn total(&self) -> Duration {
        self.0.values().sum()
    }
}

/// Memory, KiB.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    /// The highest that `rss` ever was.
    pub(crate) peak: u64,
    /// Shared pages counted by their share.
    pub(crate) pss: u64,
    /// What is no file: heap and stacks.
    pub(crate) anonymous: u64,
}

impl Memory {
    /// # Errors
    /// When there is no such process.
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).context("the agent is there");
        let (status, rollup) = (read("status")?, read("smaps_rollup")?);
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok());
            line.with_context(|| format!("no {name} of process {pid}"))
        };
        Ok(Self {
            rss: field(&status, "VmRSS:")?,
            peak: field(&status, "VmHWM:")?,
            pss: field(&rollup, "Pss:")?,
            anonymous: field(&rollup, "Anonymous:")?,
        })
    }
}
