//! getpeername(): a steered socket shows the address that the application dialled. Called by the entry points in
//! `main.rs`.
//!
//! The kernel accepts no other return value than 1 here, so a socket without storage shows the kernel's answer.

use aya_ebpf::programs::SockAddrContext;

use super::{rd, set_user_address, stored, to_words};

/// The body of `weir_peername4` and `weir_peername6`.
#[inline(always)]
pub(crate) fn peername<const V6: bool>(context: &SockAddrContext) -> i32 {
    let ctx = context.sock_addr;
    let socket = rd!(ctx, __bindgen_anon_1.sk);
    if !socket.is_null()
        && let Some(original) = stored(socket)
    {
        // SAFETY: the socket's own storage, written before its connect went on.
        let (address, port) = unsafe { (to_words(&(*original).address), (*original).port) };
        set_user_address::<V6>(ctx, address, port);
    }
    1
}
