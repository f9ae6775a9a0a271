//! Where objects come from. Today: a directory of manifests. Calls back into `app` with what changed.

pub mod directory;
