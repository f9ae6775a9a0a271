//! The API server source against the test API server, in one process and without a kernel program: what is heard, in
//! which order, and what becomes of it when the server misbehaves. No root needed.

mod bed;
mod change;
mod failure;
mod first;
mod garbage;
mod kinds;
