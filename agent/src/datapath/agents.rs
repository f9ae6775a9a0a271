//! Agents as the kernel knows them: a heartbeat of `weir_meta` that vouches for an agent's listeners, and its cgroup in
//! `weir_agents`, by which the hooks let its own connections pass. Used by `mod`.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::{fmt, io};

use aya::maps::{HashMap, MapData};
use socket2::{Domain, Socket, Type};
use weir_ebpf::{HEARTBEAT_TIMEOUT_NS, MAX_AGENTS, maps};

use super::error::DatapathError;
use super::memory::MetaMemory;

/// A heartbeat is anybody's when it was silent for so long: four times what the hooks call dead, so that an agent that
/// was merely slow does not find another one in its place.
const STALE_NS: u64 = 2_000_000_000;

/// The agent that is to be in charge is given up after so long a silence: twice what the hooks call dead. Until then
/// new connections take their fallback slots and nothing fails, and an agent that was merely slow keeps its place.
const SILENT_NS: u64 = 2 * HEARTBEAT_TIMEOUT_NS;

/// Where the probe connects to: discard, on loopback. Nobody needs to listen, the hook runs before.
const PROBE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// Nanoseconds of CLOCK_MONOTONIC: the clock of heartbeats, the same as the kernel's `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes; this clock exists on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// This agent's sign of life, for a thread of its own: one store into shared memory, no system call.
#[derive(Clone)]
pub struct Heartbeat {
    meta: Arc<MetaMemory>,
    agent: u32,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat").field("agent", &self.agent).finish_non_exhaustive()
    }
}

impl Heartbeat {
    /// Takes a heartbeat that nobody alive uses, and beats. The caller holds the instance's lock.
    pub(super) fn take(meta: Arc<MetaMemory>, now_ns: u64) -> Result<Self, DatapathError> {
        let agent = (0..MAX_AGENTS)
            .find(|agent| !is_alive(meta.heartbeat(*agent).load(Ordering::Acquire), now_ns))
            .ok_or(DatapathError::TooManyAgents)?;
        let heartbeat = Self { meta, agent };
        heartbeat.beat(now_ns);
        Ok(heartbeat)
    }

    /// Says that the agent is alive at `now_ns` ([`monotonic_ns`]). Every 100 ms; after
    /// [`weir_ebpf::HEARTBEAT_TIMEOUT_NS`] of silence the hooks stop handing connections over.
    pub fn beat(&self, now_ns: u64) {
        self.meta.heartbeat(self.agent).store(now_ns, Ordering::Release);
    }

    /// Says that the agent will not take another connection: what was proxied falls back at once.
    pub fn stop(&self) {
        self.meta.heartbeat(self.agent).store(0, Ordering::Release);
    }

    /// Which of the heartbeats.
    pub fn agent(&self) -> u32 {
        self.agent
    }
}

/// Whether the agent with this heartbeat is given up; at once when it has said goodbye.
pub(super) fn is_silent(beat: u64, now_ns: u64) -> bool {
    beat == 0 || now_ns.saturating_sub(beat) > SILENT_NS
}

/// Whether an agent has beaten in these maps and is not given up.
pub(super) fn is_anybody_alive(meta: &MetaMemory, now_ns: u64) -> bool {
    (0..MAX_AGENTS).any(|agent| !is_silent(meta.heartbeat(agent).load(Ordering::Acquire), now_ns))
}

/// Whether nobody but `own` uses a heartbeat. Who has loaded its programs and not begun to beat counts as well.
pub(super) fn is_alone(meta: &MetaMemory, own: Option<u32>, now_ns: u64) -> bool {
    (0..MAX_AGENTS).all(|agent| Some(agent) == own || !is_alive(meta.heartbeat(agent).load(Ordering::Acquire), now_ns))
}

fn is_alive(beat: u64, now_ns: u64) -> bool {
    beat != 0 && now_ns.saturating_sub(beat) <= STALE_NS
}

/// Asks the kernel for the cgroup of this process: the hook records it at one connect of ours. `None` when no hook
/// ran, because the process is outside of the cgroup that the programs are attached to.
pub(super) fn probe(meta: &MetaMemory) -> io::Result<Option<u64>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    meta.probe_cgroup().store(0, Ordering::Release);
    meta.probe_cookie().store(cookie(&socket)?, Ordering::Release);
    // Refused or under way: the answer of the network does not matter.
    let _ = socket.connect(&PROBE.into());
    meta.probe_cookie().store(0, Ordering::Release);
    let id = meta.probe_cgroup().swap(0, Ordering::AcqRel);
    Ok((id != 0).then_some(id))
}

fn cookie(socket: &Socket) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` and `length` are valid for writes, and `length` is the size of `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Enters cgroup `id` for `agent`, and deletes the cgroups of agents that are no more.
pub(super) fn register(
    agents: &mut HashMap<MapData, u64, u32>,
    meta: &MetaMemory,
    agent: u32,
    id: u64,
    now_ns: u64,
) -> Result<(), DatapathError> {
    agents.insert(id, agent, 0).map_err(DatapathError::map("write", maps::AGENTS))?;
    let entries: Vec<(u64, u32)> = agents.iter().filter_map(Result::ok).collect();
    for (other, of) in entries {
        // An entry of our own heartbeat with another cgroup is of the agent that had it before us.
        let stale = of >= MAX_AGENTS || of == agent || !is_alive(meta.heartbeat(of).load(Ordering::Acquire), now_ns);
        if other != id && stale {
            match agents.remove(&other) {
                Ok(()) | Err(aya::maps::MapError::KeyNotFound) => {}
                Err(error) => return Err(DatapathError::map("delete from", maps::AGENTS)(error)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_alive_for_two_seconds_and_zero_never() {
        let now = 10_000_000_000;
        assert!(is_alive(now, now) && is_alive(now - STALE_NS, now));
        assert!(is_alive(now + 1, now), "another CPU may be ahead");
        assert!(!is_alive(now - STALE_NS - 1, now) && !is_alive(0, now) && !is_alive(0, 1));
        assert!(!is_silent(now - SILENT_NS, now) && is_silent(now - SILENT_NS - 1, now) && is_silent(0, 1));
    }
}
