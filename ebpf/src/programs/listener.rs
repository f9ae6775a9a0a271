//! The proxy's side of a connect: whether its listener can take the connection, and the address that the client's
//! socket goes there from. Called by `connect`.

use core::mem::{MaybeUninit, size_of};
use core::ptr::from_ref;

use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, BPF_TCP_LISTEN, bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{bpf_bind, bpf_ktime_get_ns, bpf_sk_lookup_tcp, bpf_sk_release};
use weir_ebpf::{HEARTBEAT_TIMEOUT_NS, MAX_AGENTS, Meta, Pod};

use super::{AF_INET, AF_INET6, Words, maps, on_stack, rd, to_words};

/// 127.0.0.1 in network order.
pub(crate) const LOOPBACK4: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
/// ::1.
pub(crate) const LOOPBACK6: Words = [0, 0, 0, 1_u32.to_be()];

/// The port of the listener that takes connections of this family: it is there, and the agent that made it is alive.
/// A hung process listens, too; a dead one may have beaten a moment ago.
#[inline(always)]
pub(crate) fn alive(ctx: *mut bpf_sock_addr, v4: bool, pod: &Pod) -> Option<u16> {
    let port = if v4 { pod.listener4 } else { pod.listener6 };
    if port != 0 && heartbeat_is_fresh(pod.agent) && is_listening(ctx, v4, port) {
        Some(port)
    } else {
        None
    }
}

#[inline(always)]
fn heartbeat_is_fresh(agent: u32) -> bool {
    const MASK: u32 = MAX_AGENTS - 1;
    const _: () = assert!(
        MAX_AGENTS.is_power_of_two(),
        "the mask below must not fold two agents into one"
    );
    let Some(meta) = maps::META.get_ptr(0) else {
        return false;
    };
    let meta: *const Meta = meta;
    let beat = rd!(meta, heartbeats[(agent & MASK) as usize]);
    // The clock after the beat, so that a beat in between cannot lie in the future.
    // SAFETY: a call without memory.
    let now = unsafe { bpf_ktime_get_ns() };
    beat != 0 && now.saturating_sub(beat) < HEARTBEAT_TIMEOUT_NS
}

/// True when somebody listens on the loopback address and `port` in the namespace of this socket.
#[inline(always)]
fn is_listening(ctx: *mut bpf_sock_addr, v4: bool, port: u16) -> bool {
    // -1, widened with its sign: the helper compares all 64 bits.
    let own_namespace = i64::from(BPF_F_CURRENT_NETNS) as u64;
    let found = if v4 {
        let mut place = MaybeUninit::uninit();
        let to = on_stack(
            &mut place,
            Tuple4 {
                source: 0,
                destination: LOOPBACK4,
                source_port: 0,
                destination_port: port.to_be(),
            },
        );
        let length = size_of::<Tuple4>() as u32;
        // SAFETY: the union's IPv4 part, initialised, of that length.
        unsafe {
            bpf_sk_lookup_tcp(
                ctx.cast(),
                from_ref(to).cast_mut().cast(),
                length,
                own_namespace,
                0,
            )
        }
    } else {
        let mut place = MaybeUninit::uninit();
        let to = on_stack(
            &mut place,
            Tuple6 {
                source: [0; 4],
                destination: LOOPBACK6,
                source_port: 0,
                destination_port: port.to_be(),
            },
        );
        let length = size_of::<Tuple6>() as u32;
        // SAFETY: the union's IPv6 part, initialised, of that length.
        unsafe {
            bpf_sk_lookup_tcp(
                ctx.cast(),
                from_ref(to).cast_mut().cast(),
                length,
                own_namespace,
                0,
            )
        }
    };
    if found.is_null() {
        return false;
    }
    let state = rd!(found, state);
    // SAFETY: not null, and not used after this.
    unsafe { bpf_sk_release(found.cast()) };
    state == BPF_TCP_LISTEN
}

/// Gives a socket without an address of its own the pod's, so that getsockname does not say 127.0.0.1. The kernel
/// still chooses the port. A failure is harmless: the connection works from 127.0.0.1 too.
#[inline(always)]
pub(crate) fn bind(ctx: *mut bpf_sock_addr, socket: *mut bpf_sock, v4: bool, pod: &Pod) {
    if rd!(socket, src_port) != 0 {
        return;
    }
    if v4 {
        let address = u32::from_ne_bytes(pod.address4);
        if address == 0 || rd!(socket, src_ip4) != 0 {
            return;
        }
        let mut place = MaybeUninit::uninit();
        let to = on_stack(
            &mut place,
            SocketAddress4 {
                family: AF_INET,
                port: 0,
                address,
                zero: 0,
            },
        );
        let length = size_of::<SocketAddress4>() as i32;
        // SAFETY: an initialised sockaddr_in of that length, on the stack.
        unsafe { bpf_bind(ctx, from_ref(to).cast_mut().cast(), length) };
    } else {
        let address = to_words(&pod.address6);
        let bound = rd!(socket, src_ip6[0])
            | rd!(socket, src_ip6[1])
            | rd!(socket, src_ip6[2])
            | rd!(socket, src_ip6[3]);
        if address[0] | address[1] | address[2] | address[3] == 0 || bound != 0 {
            return;
        }
        let mut place = MaybeUninit::uninit();
        let to = on_stack(
            &mut place,
            SocketAddress6 {
                family: AF_INET6,
                port: 0,
                flow: 0,
                address,
                scope: 0,
            },
        );
        let length = size_of::<SocketAddress6>() as i32;
        // SAFETY: an initialised sockaddr_in6 of that length, on the stack.
        unsafe { bpf_bind(ctx, from_ref(to).cast_mut().cast(), length) };
    }
}

/// `struct sockaddr_in`.
#[derive(Clone, Copy)]
#[repr(C)]
struct SocketAddress4 {
    family: u16,
    port: u16,
    address: u32,
    zero: u64,
}

/// `struct sockaddr_in6`.
#[derive(Clone, Copy)]
#[repr(C)]
struct SocketAddress6 {
    family: u16,
    port: u16,
    flow: u32,
    address: Words,
    scope: u32,
}

/// The IPv4 part of `struct bpf_sock_tuple`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Tuple4 {
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
}

/// The IPv6 part of `struct bpf_sock_tuple`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Tuple6 {
    source: Words,
    destination: Words,
    source_port: u16,
    destination_port: u16,
}

const _: () = {
    assert!(size_of::<SocketAddress4>() == 16);
    assert!(size_of::<SocketAddress6>() == 28);
    assert!(size_of::<Tuple4>() == 12);
    assert!(size_of::<Tuple6>() == 36);
};
