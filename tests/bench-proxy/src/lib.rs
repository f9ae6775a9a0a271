//! What weir's proxy costs, beside other proxies and by itself. `weir-bench-proxy` (started by `cargo xtask bench proxy`)
//! compares; the suite `cost` holds a request to its budget.
//!
//! # Layout
//! - [`subject`]: weir's proxy in a process of its own, without eBPF and without a cluster; [`allocations`]: its allocator
//! - [`mesh`]: the routes that every subject has, as manifests; [`peers`]: the same for the others
//! - [`process`]: a pinned process, its CPU time, memory and system calls
//! - [`load`]: requests, all of whose answers are checked; [`answer`]: reading one
//! - [`cost`]: instructions, allocations and system calls of a request; [`origin`]: who answers meanwhile
//! - [`features`]: what each feature adds to that, and to CPU time
//! - [`cases`], [`rounds`]: what is measured, in which order, and what is dropped; [`machine`]: on what
//! - [`training`]: what the proxy does while a compiler looks on; [`varied`]: rules of every sort, for it
//! - [`report`], [`plot`]: tables, JSON, Markdown and drawings

pub mod allocations;
pub mod answer;
pub mod cases;
pub mod cost;
pub mod features;
pub mod load;
pub mod machine;
pub mod mesh;
pub mod origin;
pub mod peers;
pub mod plot;
pub mod process;
pub mod report;
pub mod rounds;
pub mod subject;
pub mod training;
pub mod varied;
