//! An allocator that counts while it is asked to. The global one of the binaries that `subject` runs in.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

static COUNTED: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Counts what goes to the allocator inside. While nothing is counted that is one load that no other core writes to.
#[derive(Debug)]
pub struct Counting<A>(pub A);

/// Begins to count, from zero.
pub fn begin() {
    ALLOCATIONS.store(0, Relaxed);
    COUNTED.store(true, Relaxed);
}

/// Allocations and reallocations of all threads since [`begin`].
pub fn so_far() -> u64 {
    ALLOCATIONS.load(Relaxed)
}

fn count() {
    if COUNTED.load(Relaxed) {
        ALLOCATIONS.fetch_add(1, Relaxed);
    }
}

// SAFETY: everything is the inner allocator's; the counter changes nothing of it.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is the one that is asked for.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `pointer` came from this allocator, so from the inner one, with this layout.
        unsafe { self.0.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(pointer, layout) }
    }
}
