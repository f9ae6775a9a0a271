//! The shared HTTP and TCP proxy.
