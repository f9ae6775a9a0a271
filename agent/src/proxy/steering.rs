//! Connections go to the worker on the CPU on which the client runs: on a node's own connections the SYN is handled there,
//! and to wake up a thread on another CPU costs more than to serve a request. Used by `worker` and `listener`.
//!
//! The kernel does it by itself: among the listeners of a SO_REUSEPORT group it prefers one whose SO_INCOMING_CPU is the
//! CPU that it runs on (since Linux 6.2; before, connections are spread by a hash). Unlike the index that a program would
//! return, that does not change its meaning when an agent takes over and some listeners of the group close.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpListener;

use super::limits::Limits;

/// No CPU in particular: SO_INCOMING_CPU = -1.
const ANY: usize = usize::MAX;
/// Below how much less of its CPU than [`Limits::steer_until`] a worker is steered to again, so that it does not go back
/// and forth.
const MARGIN: u32 = 20;

/// One worker's part in it.
#[derive(Debug)]
pub(crate) struct Steering {
    /// Where the worker is pinned to; `None` = nowhere, or steering is off.
    cpu: Option<usize>,
    listeners: RefCell<Vec<Weak<TcpListener>>>,
    /// Connections of this CPU come here, as the worker is not too busy.
    open: Cell<bool>,
    /// CPU time of the thread and CLOCK_MONOTONIC at the latest look, ns.
    looked: Cell<(u64, u64)>,
}

impl Steering {
    pub(crate) fn new(cpu: Option<usize>, limits: &Limits) -> Self {
        Self {
            cpu: cpu.filter(|_| limits.steer_until > 0),
            listeners: RefCell::default(),
            open: Cell::new(true),
            looked: Cell::new((cpu_time(), super::worker::monotonic())),
        }
    }

    /// Steers to a new listener of this worker.
    pub(crate) fn add(&self, listener: &Rc<TcpListener>) {
        let mut listeners = self.listeners.borrow_mut();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Rc::downgrade(listener));
        if self.open.get() {
            self.prefer(listener, self.cpu);
        }
    }

    /// Looks how busy the worker has been. One that is too busy leaves its CPU's connections to the hash: a worker that
    /// waits is better than one that is near. True: it has just become too busy.
    pub(crate) fn look(&self, limits: &Limits) -> bool {
        let (cpu, now) = (cpu_time(), super::worker::monotonic());
        let (cpu_before, before) = self.looked.get();
        let elapsed = now.saturating_sub(before);
        if self.cpu.is_none() || elapsed < limits.steer_look.as_nanos() as u64 {
            return false;
        }
        self.looked.set((cpu, now));
        let percent = cpu.saturating_sub(cpu_before).saturating_mul(100) / elapsed.max(1);
        let limit =
            u64::from(if self.open.get() { limits.steer_until } else { limits.steer_until.saturating_sub(MARGIN) });
        let open = percent <= limit;
        if self.open.replace(open) == open {
            return false;
        }
        for listener in self.listeners.borrow().iter().filter_map(Weak::upgrade) {
            self.prefer(&listener, self.cpu.filter(|_| open));
        }
        !open
    }

    fn prefer(&self, listener: &TcpListener, cpu: Option<usize>) {
        if self.cpu.is_none() {
            return;
        }
        if let Err(error) = SockRef::from(listener).set_cpu_affinity(cpu.unwrap_or(ANY)) {
            tracing::debug!(%error, "connections are not steered by CPU");
        }
    }
}

/// CPU time of this thread, ns.
fn cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_nanos() as u64
}

/// Pins the calling thread to the `index`-th of the CPUs that it may use, which it returns. Best effort: it is for the
/// caches and for steering only.
pub(crate) fn pin(index: usize) -> io::Result<Option<usize>> {
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `allowed` is valid for writes of `size` bytes; 0 means the calling thread.
    if unsafe { libc::sched_getaffinity(0, size, &raw mut allowed) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: each index is below CPU_SETSIZE, so within the set.
    let cpus: Vec<usize> =
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &allowed) }).collect();
    let Some(&cpu) = cpus.get(index % cpus.len().max(1)) else {
        return Ok(None);
    };
    // SAFETY: an all-zero cpu_set_t is the empty set, and `cpu` is below CPU_SETSIZE.
    let one = unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut one);
        one
    };
    // SAFETY: `one` is valid for reads of `size` bytes.
    if unsafe { libc::sched_setaffinity(0, size, &raw const one) } == 0 {
        Ok(Some(cpu))
    } else {
        Err(io::Error::last_os_error())
    }
}
