//! weir's agent: the edges around the pure core [`weir_mesh`].
//!
//! # Layout, in the direction of imports
//! - [`cli`]: the command line, and the only module that prints
//! - [`app`]: wires the parts together; owns start-up order, readiness and the way out
//! - [`watch`]: where objects come from
//! - [`datapath`]: the kernel programs and their maps
//! - [`proxy`]: the shared layer-7 and TCP proxy
//! - [`admin`]: probes, status and metrics on loopback, and metrics alone on the node's address
//! - [`cluster`]: weir's own installation in a Kubernetes cluster
//! - [`sandbox`]: network namespace, cgroup and addresses of the node's pods
//! - [`config`], [`netns`], [`cgroup`], [`telemetry`]: leaves that the others stand on
//!
//! `proxy` knows neither `watch` nor `datapath`, and `datapath` not `proxy`: the proxy runs without a cluster and
//! without eBPF. `cargo xtask tidy` holds this.

pub mod admin;
pub mod app;
pub mod cgroup;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod datapath;
mod heap;
pub mod netns;
pub mod proxy;
pub mod sandbox;
pub mod telemetry;
pub mod watch;
