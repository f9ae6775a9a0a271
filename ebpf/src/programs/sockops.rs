//! sock_ops: announces a proxied connection's original destination under the source port that the kernel just chose,
//! before the SYN leaves, so that the proxy finds it whenever it accepts. Called by the entry point in `main.rs`.
//!
//! No other callback is subscribed to: each would run for every socket below the cgroup.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::BPF_SOCK_OPS_TCP_CONNECT_CB;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::programs::SockOpsContext;
use weir_ebpf::{Counter, FlowKey};

use super::{AF_INET6, count, mapped, maps, on_stack, rd, stored, to_address};

/// The body of `weir_sockops`. The kernel ignores the return value of this callback.
#[inline(always)]
pub(crate) fn announce(context: &SockOpsContext) -> u32 {
    let ctx = context.ops;
    if rd!(ctx, op) != BPF_SOCK_OPS_TCP_CONNECT_CB {
        return 0;
    }
    let socket = rd!(ctx, __bindgen_anon_2.sk);
    if socket.is_null() {
        return 0;
    }
    let Some(original) = stored(socket) else {
        return 0;
    };
    // SAFETY: the socket's own storage; its connect, which wrote it, is what runs here.
    let original = unsafe { *original };
    let remote_port = u32::from_be(rd!(ctx, remote_port)) as u16;
    if original.proxied != 1 || remote_port != original.listener_port {
        return 0;
    }
    // Both before the question: from two branches the compiler would make one load at a computed offset, which the
    // verifier refuses. The kernel has both fields for either family.
    let v4 = rd!(ctx, local_ip4);
    let v6 = [
        rd!(ctx, local_ip6[0]),
        rd!(ctx, local_ip6[1]),
        rd!(ctx, local_ip6[2]),
        rd!(ctx, local_ip6[3]),
    ];
    let source = if rd!(ctx, family) == u32::from(AF_INET6) {
        v6
    } else {
        mapped(v4)
    };
    let key = FlowKey {
        // SAFETY: `ctx` is the program's context.
        netns_cookie: unsafe { bpf_get_netns_cookie(ctx.cast()) },
        source_address: to_address(source),
        source_port: rd!(ctx, local_port) as u16,
        listener_port: original.listener_port,
        pad: 0,
    };
    match maps::FLOWS.insert(
        on_stack(&mut MaybeUninit::uninit(), key),
        on_stack(&mut MaybeUninit::uninit(), original),
        0,
    ) {
        Ok(()) => count(Counter::FlowRecorded),
        Err(_) => count(Counter::NoStorage),
    }
    0
}
