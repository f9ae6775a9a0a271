//! weir's proxy by itself, on mimalloc. Started by `weir-bench-proxy`.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use weir_bench_proxy::allocations::Counting;

#[global_allocator]
static ALLOCATOR: Counting<MiMalloc> = Counting(MiMalloc);

fn main() -> ExitCode {
    weir_bench_proxy::subject::main()
}
