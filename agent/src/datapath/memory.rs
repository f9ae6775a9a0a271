//! The maps that are read and written without system calls, as memory shared with the kernel: `weir_slots`, `weir_meta`,
//! `weir_health`, and `weir_backends`, which is only read here. Used by `kernel` (slots), `health`, `agents` (heartbeats,
//! probe) and `mod` (the ABI's stamp).
//!
//! The programs read while we write, so every access is atomic. An array map lays its values out at multiples of eight
//! bytes, whatever their size.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use weir_ebpf::{Backend, Health, MAX_AGENTS, Meta, maps};

/// Array values begin at multiples of this.
const STRIDE: usize = 8;

// `weir uninstall` asks the agents of every version whether they live.
const _: () = assert!(offset_of!(Meta, heartbeats) == 8, "heartbeats stay where they were in version 1");

/// A shared mapping of a whole array map.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory belongs to the map, not to a thread, and is accessed by atomics only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of an array with `BPF_F_MMAPABLE`.
    fn new(map: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Self { base, length })
    }

    fn u32_at(&self, offset: usize) -> Option<&AtomicU32> {
        let fits = offset.is_multiple_of(4) && offset.checked_add(4)? <= self.length;
        // SAFETY: inside of the mapping, which lives as long as `self`; aligned, since its base is a page's; and both
        // sides access it whole.
        fits.then(|| unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) })
    }

    fn u64_at(&self, offset: usize) -> Option<&AtomicU64> {
        let fits = offset.is_multiple_of(8) && offset.checked_add(8)? <= self.length;
        // SAFETY: as in `u32_at`.
        fits.then(|| unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// `weir_slots`.
#[derive(Debug)]
pub(super) struct SlotMemory(Mapping);

impl SlotMemory {
    pub(super) fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        Mapping::new(map, maps::SLOTS_MAX * STRIDE).map(Self)
    }

    /// The slot at an index; out of bounds is an empty slot.
    pub(super) fn get(&self, at: u32) -> u32 {
        self.0.u32_at(at as usize * STRIDE).map_or(weir_ebpf::EMPTY_SLOT, |slot| slot.load(Ordering::Relaxed))
    }

    /// Writes a range, before whatever system call follows.
    pub(super) fn write(&self, offset: u32, slots: &[u32]) {
        for (at, value) in (offset as usize..).zip(slots) {
            if let Some(slot) = self.0.u32_at(at * STRIDE) {
                slot.store(*value, Ordering::Relaxed);
            }
        }
        fence(Ordering::Release);
    }
}

/// `weir_health`.
#[derive(Debug)]
pub(super) struct HealthMemory(Mapping);

impl HealthMemory {
    const STRIDE: usize = size_of::<Health>().next_multiple_of(STRIDE);

    pub(super) fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        Mapping::new(map, maps::BACKENDS_MAX * Self::STRIDE).map(Self)
    }

    /// Until when a backend is ejected, and how often it was; nothing is known of one out of bounds.
    pub(super) fn get(&self, index: u32) -> (u64, u32) {
        let at = index as usize * Self::STRIDE;
        let until =
            self.0.u64_at(at + offset_of!(Health, ejected_until)).map_or(0, |word| word.load(Ordering::Acquire));
        let times =
            self.0.u32_at(at + offset_of!(Health, times_ejected)).map_or(0, |word| word.load(Ordering::Relaxed));
        (until, times)
    }

    pub(super) fn set(&self, index: u32, until_ns: u64, times: u32) {
        let at = index as usize * Self::STRIDE;
        if let Some(word) = self.0.u32_at(at + offset_of!(Health, times_ejected)) {
            word.store(times, Ordering::Relaxed);
        }
        if let Some(word) = self.0.u64_at(at + offset_of!(Health, ejected_until)) {
            word.store(until_ns, Ordering::Release);
        }
    }
}

/// `weir_backends`, to be read. It is written by system calls, a value at once.
#[derive(Debug)]
pub(super) struct BackendMemory(Mapping);

impl BackendMemory {
    const STRIDE: usize = size_of::<Backend>().next_multiple_of(STRIDE);

    pub(super) fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        Mapping::new(map, maps::BACKENDS_MAX * Self::STRIDE).map(Self)
    }

    /// The value at an index; out of bounds is an unused one.
    pub(super) fn get(&self, index: u32) -> Backend {
        let at = index as usize * Self::STRIDE;
        let word = |n: usize| self.0.u32_at(at + 4 * n).map_or(0, |word| word.load(Ordering::Acquire)).to_ne_bytes();
        let mut address = weir_ebpf::ANY_ADDRESS;
        for (n, bytes) in address.chunks_exact_mut(4).enumerate() {
            bytes.copy_from_slice(&word(n));
        }
        let [a, b, c, d] = word(4);
        Backend { address, port: u16::from_ne_bytes([a, b]), in_use: u16::from_ne_bytes([c, d]) }
    }
}

const _: () =
    assert!(size_of::<Backend>() == 20 && offset_of!(Backend, port) == 16 && offset_of!(Backend, in_use) == 18);

/// `weir_meta`.
#[derive(Debug)]
pub(super) struct MetaMemory(Mapping);

impl MetaMemory {
    pub(super) fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        Mapping::new(map, size_of::<Meta>().next_multiple_of(STRIDE)).map(Self)
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        self.0.u64_at(offset).expect("offsets of Meta's u64 fields are inside of its mapping")
    }

    /// An agent's last beat, in nanoseconds of CLOCK_MONOTONIC; 0 = none.
    pub(super) fn heartbeat(&self, agent: u32) -> &AtomicU64 {
        self.word(offset_of!(Meta, heartbeats) + (agent % MAX_AGENTS) as usize * size_of::<u64>())
    }

    /// The socket whose caller's cgroup the hook shall record.
    pub(super) fn probe_cookie(&self) -> &AtomicU64 {
        self.word(offset_of!(Meta, probe_cookie))
    }

    /// The cgroup that it recorded.
    pub(super) fn probe_cgroup(&self) -> &AtomicU64 {
        self.word(offset_of!(Meta, probe_cgroup))
    }

    /// The version and hash of the agent that made the maps; 0 = new.
    pub(super) fn stamp(&self) -> (u32, u32) {
        let load = |offset| self.0.u32_at(offset).map_or(0, |word| word.load(Ordering::Acquire));
        (load(offset_of!(Meta, abi_version)), load(offset_of!(Meta, abi_hash)))
    }

    /// Writes version, hash and instance; nothing else, since live agents beat beside it.
    pub(super) fn set_stamp(&self, instance: &str) {
        let mut name = [0_u8; 32];
        let length = instance.len().min(name.len() - 1);
        name[..length].copy_from_slice(&instance.as_bytes()[..length]);
        for (at, bytes) in (offset_of!(Meta, instance)..).step_by(4).zip(name.chunks_exact(4)) {
            self.store(at, u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        }
        self.store(offset_of!(Meta, abi_hash), maps::abi_hash());
        self.store(offset_of!(Meta, abi_version), weir_ebpf::ABI_VERSION);
    }

    fn store(&self, offset: usize, value: u32) {
        if let Some(word) = self.0.u32_at(offset) {
            word.store(value, Ordering::Release);
        }
    }
}
