//! Loads and adopts the kernel programs, and writes the plan into the maps.
pub mod object;
