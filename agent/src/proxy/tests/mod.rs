//! The proxy over real sockets on the loopback: no cluster, no eBPF, no rights needed.

mod harness;
mod http;
mod http2;
mod life;
mod rules;
mod tcp;
