//! Network namespaces as pods.
