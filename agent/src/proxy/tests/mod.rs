//! The proxy over real sockets on the loopback: no cluster, no eBPF, no rights needed.

mod authority;
mod balancing;
mod fairness;
mod faults;
mod harness;
mod http;
mod http2;
mod life;
mod limits;
mod linger;
mod localities;
mod outliers;
mod parking;
mod pools;
mod publishing;
mod retries;
mod rules;
mod tcp;
mod telemetry;
mod tls;
mod tls_trust;
mod wire;
