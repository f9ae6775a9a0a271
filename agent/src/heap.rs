//! What the allocator keeps. A compilation of a large cluster takes tens of MiB for a moment, and so do a thousand
//! connections; glibc would hold on to them. Called by `app` at the start and when everything was compiled, and by `proxy`
//! when many connections were parked.

/// Tables above this size, in bytes, are mapped one by one, so that they go back as soon as they are dropped. glibc's own
/// threshold follows what is freed, up to 32 MiB.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 256 * 1024;

/// Sets how large blocks are kept.
pub(crate) fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes numbers only; an option that it does not know changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
    }
}

/// Gives what is free back to the kernel: some milliseconds for a heap of a hundred MiB.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
