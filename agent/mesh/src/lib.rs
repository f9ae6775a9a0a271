//! The pure core of weir: from the users' YAML to decisions. No IO, no clock and no randomness but as arguments.
//!
//! # Layout
//! - [`source`], [`finding`]: where an object came from, and what is wrong with it
//! - [`crd`]: the users' words, as serde types
//! - [`schema`], [`validate`]: what may be written, and what is wrong with an object by itself
//! - [`store`]: files in, objects out; a broken file or object keeps its last good version
//! - [`snapshot`]: everything the compiler may see
//! - [`compile`]: `Snapshot → (Program, KernelPlan, Vec<Finding>)`
//! - [`features`]: every field that may be written, and whether it is in force
//! - [`analysis`]: what is wrong with the manifests taken together, found without compiling them
//! - [`program`]: what the proxy runs on
//! - [`plan`]: what the kernel shall hold
//! - [`explain`]: why a request goes where it goes, by the code that decides
//! - [`diff`]: what would change
//! - [`request`], [`route`], [`balance`]: `decide`: a request in, a route, a cluster and an endpoint out
//! - [`outlier`]: which endpoints are out of use because they fail
#![forbid(unsafe_code)]

pub mod analysis;
pub mod balance;
pub mod compile;
pub mod crd;
pub mod diff;
pub mod explain;
pub mod features;
pub mod finding;
pub mod matching;
pub mod outlier;
pub mod plan;
pub mod program;
pub mod request;
pub mod route;
pub mod schema;
pub mod snapshot;
pub mod source;
pub mod store;
pub mod validate;
