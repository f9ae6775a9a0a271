//! `weir-bench-core`: CPU time and memory of the pure core alone, on one thread: compiling a large cluster, the change of one
//! object in it, and deciding among many routes. Exit 0: every goal is met; 1: one is missed, or something failed.
//! Started by `cargo xtask bench core`.

mod clock;
mod compiling;
mod deciding;
mod heap;
mod population;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use population::Population;
use table::{TOLERANCE, Table};

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

fn main() -> ExitCode {
    match run() {
        Ok(table) if table.missed().is_empty() => ExitCode::SUCCESS,
        Ok(table) => {
            let missed = table.missed().join("; ");
            let _closed = writeln!(io::stderr(), "missed (times by more than {TOLERANCE} times their goal): {missed}");
            ExitCode::FAILURE
        }
        Err(error) => {
            let _closed = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Table> {
    let mut population = Population { services: 10_000, endpoints: 50_000, virtual_services: 5_000 };
    let mut routes = 1_000;
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
        let number: usize = value.parse().with_context(|| format!("{name} takes a number, not {value:?}"))?;
        match name {
            "--services" => population.services = number,
            "--endpoints" => population.endpoints = number,
            "--virtual-services" => population.virtual_services = number,
            "--routes" => routes = number,
            _ => anyhow::bail!("unknown argument {name:?}"),
        }
    }
    ensure!((1..=62_500).contains(&population.services), "1 to 62,500 services: each has an address of 10.96.0.0/16");
    ensure!(population.endpoints >= population.services, "every service has an endpoint");
    ensure!(population.virtual_services <= population.services, "a VirtualService is for a service");
    ensure!((1..10_000).contains(&routes), "1 to 9,999 routes: their numbers have four digits");
    let mut table = Table::default();
    deciding::measure(&mut table, routes)?;
    compiling::measure(&mut table, &population)?;
    Ok(table)
}
