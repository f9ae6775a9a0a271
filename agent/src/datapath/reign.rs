//! Which of an instance's agents is to be in charge, when several are alive. Used by `mod`; `app` asks it often, and
//! acts on the answer.
//!
//! ```text
//! designated ── it beats, listens, knows its mesh ──► in force ── all of it served ──► proven
//!      └──────────── it falls silent at any point ──────────────► the next that looks designates itself
//! ```
//! The name of the designated agent stands beside the pins, as the target of a link: bpffs holds no other text. Whose
//! programs are in force is the kernel's to tell ([`links::current_token`]); both are one agent's in the end. An agent
//! that is not designated stays as it is: its listeners and its heartbeat go on, so that it can be in charge again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use weir_ebpf::{ABI_VERSION, MAX_AGENTS, maps};

use super::error::DatapathError;
use super::memory::MetaMemory;
use super::pins::{Lock, Pins};
use super::{agents, links, sys};

/// An agent, as the link names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Designation {
    /// The ABI version of its pins.
    version: u32,
    /// Its heartbeat.
    agent: u32,
    /// When it came, in ns: no two agents of one heartbeat came at once.
    since: u64,
    /// It serves everything.
    proven: bool,
}

impl fmt::Display for Designation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proven = if self.proven { "proven" } else { "new" };
        write!(f, "v{}-{}-{}-{proven}", self.version, self.agent, self.since)
    }
}

impl FromStr for Designation {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.strip_prefix('v').ok_or(())?.split('-');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or(());
        let (version, agent, since) = (number()?, number()?, number()?);
        let proven = match (parts.next(), parts.next()) {
            (Some("proven"), None) => true,
            (Some("new"), None) => false,
            _ => return Err(()),
        };
        let small = |number: u64| u32::try_from(number).map_err(drop);
        Ok(Self { version: small(version)?, agent: small(agent)?, since, proven })
    }
}

/// Where an agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the one to be in charge.
    Designated,
    /// The instance was removed, and is nobody's until an agent is started.
    Removed,
    /// It was removed and made anew: another one is in charge, of other maps. This one can never be any more.
    Replaced,
    /// Another one is, and it is alive.
    Yields {
        /// It serves everything: nobody misses this agent any more.
        proven: bool,
    },
    /// Another one was, and it is silent: whoever is alive may be in charge.
    Orphaned,
}

/// Tells who is in charge of the instance, without holding the datapath.
#[derive(Clone, Debug)]
pub struct Reign {
    pins: Pins,
    meta: Arc<MetaMemory>,
    /// The kernel's number of the map behind `meta`.
    meta_id: u32,
    own: Designation,
    /// Id of our own program at [`links::TOKEN`]; 0 = not in force yet.
    token: Arc<AtomicU32>,
}

impl Reign {
    pub(super) fn new(pins: Pins, meta: Arc<MetaMemory>, agent: u32, since: u64) -> Result<Self, DatapathError> {
        let path = pins.map(maps::META);
        let meta_id = map_id(&pins).map_err(DatapathError::io("look at", path))?;
        let own = Designation { version: ABI_VERSION, agent, since, proven: false };
        Ok(Self { pins, meta, meta_id, own, token: Arc::default() })
    }

    /// Where this agent stands at `now_ns` ([`agents::monotonic_ns`]).
    ///
    /// # Errors
    /// When it cannot be told, for want of memory or descriptors: then nothing has changed.
    pub fn standing(&self, now_ns: u64) -> Result<Standing, DatapathError> {
        let Some(text) = self.pins.designated()? else { return Ok(Standing::Removed) };
        let found = text.parse::<Designation>().ok();
        if found.is_some_and(|found| found.since == self.own.since) {
            return Ok(Standing::Designated);
        }
        if !self.has_own_maps()? {
            return Ok(Standing::Replaced);
        }
        // Of another version, whatever that may write.
        let Some(found) = found else { return Ok(Standing::Yields { proven: false }) };
        // What beats in other maps than ours cannot be heard here.
        let beat = self.meta.heartbeat(found.agent % MAX_AGENTS).load(Ordering::Acquire);
        if found.version == ABI_VERSION && agents::is_silent(beat, now_ns) {
            return Ok(Standing::Orphaned);
        }
        Ok(Standing::Yields { proven: found.proven })
    }

    /// Whether the pinned maps are those that this agent has open: an instance that was removed and made anew has
    /// others.
    pub(super) fn has_own_maps(&self) -> Result<bool, DatapathError> {
        match map_id(&self.pins) {
            Ok(id) => Ok(id == self.meta_id),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(DatapathError::io("look at", self.pins.map(maps::META))(error)),
        }
    }

    /// Whether this agent's programs are in force. What was removed is not.
    ///
    /// # Errors
    /// When it cannot be told, for want of memory or descriptors: they may be.
    pub fn is_in_charge(&self) -> Result<bool, DatapathError> {
        match links::current_token(&self.pins) {
            Ok(token) => Ok(token == self.token.load(Ordering::Acquire)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(DatapathError::io("look at", self.pins.link(links::TOKEN))(error)),
        }
    }

    /// Whether no other agent of the instance is alive at `now_ns`, be it in charge, to be, or standing by. One that was
    /// killed counts for two seconds.
    pub fn is_alone(&self, now_ns: u64) -> bool {
        agents::is_alone(&self.meta, Some(self.own.agent), now_ns)
    }

    pub(super) fn set_token(&self, token: u32) {
        self.token.store(token, Ordering::Release);
    }

    /// Names this agent, in the place of whoever was named.
    pub(super) fn designate(&self, _lock: &Lock) -> Result<(), DatapathError> {
        self.pins.designate(&self.own.to_string())
    }

    /// Says that it serves everything.
    pub(super) fn prove(&self, _lock: &Lock) -> Result<(), DatapathError> {
        self.pins.designate(&Designation { proven: true, ..self.own }.to_string())
    }
}

fn map_id(pins: &Pins) -> std::io::Result<u32> {
    use std::os::fd::AsFd;
    sys::map_id(sys::object_get(&pins.map(maps::META))?.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_designation_reads_as_it_was_written_and_nothing_else_does() {
        for proven in [false, true] {
            let one = Designation { version: 7, agent: 3, since: u64::MAX, proven };
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        for text in ["", "v1", "1-2-3-new", "v1-2-3", "v1-2-3-old", "v1-2-3-new-", "v1-x-3-new", "v4294967296-2-3-new"]
        {
            assert_eq!(text.parse::<Designation>(), Err(()), "{text}");
        }
    }
}
