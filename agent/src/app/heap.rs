//! What the allocator keeps. A compilation of a large cluster takes tens of MiB for a moment; glibc would hold on to them.
//! Called by `run` at the start, and by `apply` when everything was compiled.

/// Tables above this size, in bytes, are mapped one by one, so that they go back as soon as they are dropped. glibc's own
/// threshold follows what is freed, up to 32 MiB.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 256 * 1024;

/// Sets how large blocks are kept.
pub(super) fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes numbers only; an option that it does not know changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
    }
}

/// Gives what is free back to the kernel: some milliseconds for a heap of a hundred MiB.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
