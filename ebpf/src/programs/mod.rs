//! What the programs share: reading and writing their contexts, addresses, counters, and socket storage.

pub(crate) mod connect;
mod endpoint;
mod listener;
pub(crate) mod maps;
pub(crate) mod peername;
pub(crate) mod sockops;

use core::ffi::c_void;
use core::mem::{MaybeUninit, align_of, offset_of, size_of};
use core::ptr::null_mut;

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get};
use weir_ebpf::{Address, Backend, Counter, OriginalDestination, Pod};

/// Reads one field of a context. Volatile, because the verifier accepts only loads of the field's own width at its own
/// offset, and the compiler would merge neighbours.
macro_rules! rd {
    ($p:expr, $($field:tt)+) => {
        // SAFETY: `$p` is a context or a socket that the kernel handed out; the verifier checks every access to it.
        unsafe { core::ptr::read_volatile(core::ptr::addr_of!((*$p).$($field)+)) }
    };
}

/// Writes one field of a context; volatile for the same reason.
macro_rules! wr {
    ($p:expr, [$($field:tt)+], $value:expr) => {
        // SAFETY: as in `rd!`.
        unsafe { core::ptr::write_volatile(core::ptr::addr_of_mut!((*$p).$($field)+), $value) }
    };
}

pub(crate) use rd;

/// Address families as sockets have them; the kernel's own numbers, the same on every architecture.
pub(crate) const AF_INET: u16 = 2;
/// See [`AF_INET`].
pub(crate) const AF_INET6: u16 = 10;

/// An address as the four words that contexts hold, each in network order.
pub(crate) type Words = [u32; 4];

/// `::ffff:a.b.c.d` for an IPv4 address in network order.
#[inline(always)]
pub(crate) fn mapped(v4: u32) -> Words {
    [0, 0, 0xffff_u32.to_be(), v4]
}

/// True for `::ffff:0:0/96`.
#[inline(always)]
pub(crate) fn is_mapped(words: &Words) -> bool {
    words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be()
}

/// The words as the ABI's bytes: the same memory, since both are in network order.
#[inline(always)]
pub(crate) fn to_address(words: Words) -> Address {
    // SAFETY: both are 16 bytes without padding, and every bit pattern is valid for both.
    unsafe { core::mem::transmute(words) }
}

/// The ABI's bytes as words. Only for addresses inside map values: the kernel aligns those to 8.
#[inline(always)]
pub(crate) fn to_words(address: &Address) -> Words {
    #[expect(clippy::cast_ptr_alignment, reason = "asserted below; an unaligned read would be 16 loads of a byte")]
    let words = core::ptr::from_ref(address).cast::<Words>();
    // SAFETY: 16 readable bytes, aligned to 4 by the assertions below.
    unsafe { words.read() }
}

const _: () = {
    assert!(offset_of!(Pod, address6) % align_of::<Words>() == 0);
    assert!(offset_of!(Backend, address) % align_of::<Words>() == 0);
    assert!(offset_of!(OriginalDestination, address) % align_of::<Words>() == 0);
};

/// Reads `user_ip4` or `user_ip6`. The field of the other family is out of bounds for a program.
#[inline(always)]
pub(crate) fn user_address<const V6: bool>(ctx: *mut bpf_sock_addr) -> Words {
    if V6 {
        [rd!(ctx, user_ip6[0]), rd!(ctx, user_ip6[1]), rd!(ctx, user_ip6[2]), rd!(ctx, user_ip6[3])]
    } else {
        mapped(rd!(ctx, user_ip4))
    }
}

/// Writes the address and the port (host order) that the system call goes on with.
#[inline(always)]
pub(crate) fn set_user_address<const V6: bool>(ctx: *mut bpf_sock_addr, words: Words, port: u16) {
    if V6 {
        wr!(ctx, [user_ip6[0]], words[0]);
        wr!(ctx, [user_ip6[1]], words[1]);
        wr!(ctx, [user_ip6[2]], words[2]);
        wr!(ctx, [user_ip6[3]], words[3]);
    } else {
        wr!(ctx, [user_ip4], words[3]);
    }
    wr!(ctx, [user_port], u32::from(port.to_be()));
}

/// Adds one to a counter in a map.
#[inline(always)]
pub(crate) fn increment(counter: *mut u64) {
    // A plain `+= 1` would lose counts: a hook in process context can be preempted on its CPU by another one. Atomics
    // of `core` do not exist for this target.
    #[cfg(target_arch = "bpf")]
    // SAFETY: `counter` points at an aligned u64 inside a map value.
    unsafe {
        core::arch::asm!("lock *(u64 *)({p} + 0) += {one}", p = in(reg) counter, one = in(reg) 1_u64);
    }
    #[cfg(not(target_arch = "bpf"))]
    let _ = counter;
}

/// Counts one event in `weir_counters`.
#[inline(always)]
pub(crate) fn count(what: Counter) {
    if let Some(counter) = maps::COUNTERS.get_ptr_mut(what as u32) {
        increment(counter);
    }
}

/// A map as the generated helpers want it; aya keeps its own conversion private.
#[inline(always)]
fn map_pointer<T>(map: &'static T) -> *mut c_void {
    core::ptr::from_ref(map).cast_mut().cast()
}

/// The socket's storage, if it has one.
#[inline(always)]
pub(crate) fn stored(socket: *mut bpf_sock) -> Option<*mut OriginalDestination> {
    // SAFETY: the verifier checks the socket; without the create flag no initial value is read.
    let value = unsafe { bpf_sk_storage_get(map_pointer(&maps::ORIGDST), socket.cast(), null_mut(), 0) };
    if value.is_null() { None } else { Some(value.cast()) }
}

/// Puts `value` into the socket's storage, over what an earlier connect left there. False when there is no memory.
#[inline(always)]
pub(crate) fn store(socket: *mut bpf_sock, value: OriginalDestination) -> bool {
    let mut place = MaybeUninit::uninit();
    let initial = core::ptr::from_ref(on_stack(&mut place, value)).cast_mut();
    // SAFETY: `initial` is an initialised value of the map's size on the stack.
    let slot = unsafe {
        bpf_sk_storage_get(
            map_pointer(&maps::ORIGDST),
            socket.cast(),
            initial.cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    };
    if slot.is_null() {
        return false;
    }
    // SAFETY: not null, so it is the socket's value, aligned to 8. A socket's own connects are serialised by its lock.
    unsafe { write_words(slot.cast(), &value) };
    true
}

/// Removes the socket's storage, if it has one.
#[inline(always)]
pub(crate) fn forget(socket: *mut bpf_sock) {
    // SAFETY: the verifier checks the socket; that nothing was stored is the usual answer, and fine.
    unsafe { bpf_sk_storage_delete(map_pointer(&maps::ORIGDST), socket.cast()) };
}

/// Puts a key or a value where a helper can read it.
#[inline(always)]
pub(crate) fn on_stack<T: Copy>(place: &mut MaybeUninit<T>, value: T) -> &T {
    // SAFETY: `place` is memory for a `T`, and is initialised by this.
    unsafe {
        write_words(place.as_mut_ptr(), &value);
        place.assume_init_ref()
    }
}

/// Writes `value` word by word. Left to itself, the compiler turns the copy or the zeroes of a struct into a call of
/// memcpy or memset, which exist in the object but which the verifier does not take for functions.
///
/// # Safety
/// `to` is writable memory for a `T`, aligned for u32; `T` has no padding.
#[inline(always)]
unsafe fn write_words<T>(to: *mut T, value: &T) {
    const {
        assert!(size_of::<T>().is_multiple_of(size_of::<u32>()));
        assert!(align_of::<T>() >= align_of::<u32>());
    };
    let (from, to) = (core::ptr::from_ref(value).cast::<u32>(), to.cast::<u32>());
    for i in 0..size_of::<T>() / size_of::<u32>() {
        // SAFETY: within both values.
        unsafe { to.add(i).write_volatile(from.add(i).read()) };
    }
}
