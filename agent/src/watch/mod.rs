//! Where objects come from: a directory of manifests, or a Kubernetes API server. Calls back into `app` with what changed.

pub mod directory;
pub mod kubernetes;
