//! weir's agent: the edges around the pure core [`weir_mesh`].
//!
//! # Layout, in the direction of imports
//! `cli → app → {watch, datapath, proxy, admin} → {netns, cgroup, telemetry} → weir_mesh`.
//! `proxy` knows neither `watch` nor `datapath`, and `datapath` not `proxy`: the proxy runs without a cluster and
//! without eBPF. `cargo xtask tidy` holds this.

pub mod cgroup;
pub mod datapath;
pub mod netns;
pub mod proxy;
