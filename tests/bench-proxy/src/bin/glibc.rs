//! weir's proxy by itself, on the C library's allocator. Started by `weir-bench-proxy` and by the suite `cost`.

use std::alloc::System;
use std::process::ExitCode;

use weir_bench_proxy::allocations::Counting;

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

fn main() -> ExitCode {
    weir_bench_proxy::subject::main()
}
