//! weir's kernel programs: the entry points, by the names under which the agent attaches and `bpftool` lists them.
//!
//! Attached by the agent's `datapath` to the cgroup that holds the pods; built by `cargo xtask build-ebpf`. A program
//! that panics cannot be loaded, so nothing here may index, unwrap or divide without a check that the compiler sees.
#![no_std]
#![no_main]
#![expect(
    clippy::inline_always,
    reason = "a call between kernel programs is a subprogram, with limits of its own"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the attributes of the entry points ask for it"
)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod programs;

use aya_ebpf::macros::{cgroup_sock_addr, sock_ops};
use aya_ebpf::programs::{SockAddrContext, SockOpsContext};
use programs::{connect, peername, sockops};

/// connect() of an IPv4 socket.
#[cgroup_sock_addr(connect4)]
fn weir_connect4(ctx: SockAddrContext) -> i32 {
    connect::connect::<false>(&ctx)
}

/// connect() of an IPv6 socket, to an IPv6 or a v4-mapped address.
#[cgroup_sock_addr(connect6)]
fn weir_connect6(ctx: SockAddrContext) -> i32 {
    connect::connect::<true>(&ctx)
}

/// getpeername() of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
fn weir_peername4(ctx: SockAddrContext) -> i32 {
    peername::peername::<false>(&ctx)
}

/// getpeername() of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
fn weir_peername6(ctx: SockAddrContext) -> i32 {
    peername::peername::<true>(&ctx)
}

/// TCP sockets about to send their SYN.
#[sock_ops]
fn weir_sockops(ctx: SockOpsContext) -> u32 {
    sockops::announce(&ctx)
}

/// None of the helpers that we call is reserved for GPL programs, so the project's own licence is the true answer.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

// The workspace's host targets include this file only to lint it; there, too, nothing may reach this.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
