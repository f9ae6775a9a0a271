//! What a request costs weir's proxy, held to tests/bench-proxy/budget.toml: user-mode instructions, allocations and system
//! calls; and what memory an idle connection takes. But for the memory all are counted, and none is timed, so that a busy
//! machine changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use weir_bench_proxy::cases::MANY_ROUTES;
use weir_bench_proxy::cost::{self, Counted};
use weir_bench_proxy::mesh::FEW_ROUTES;
use weir_tests::require::{self, Need};

/// How far instructions may be above their budget: newer compilers and dependencies move them by some percent.
const TOLERANCE: f64 = 1.10;
/// Allocations that no request asks for: a connection that is held up for a second is parked and resumed, which is some 15
/// in a thousand requests. One that a request in ten makes is 0.1, and cannot hide here while the count is the budget.
const BY_THE_CLOCK: f64 = 0.05;
/// The clock only adds, and the more the busier the machine is: the least of some counts is what requests ask for.
const ALLOCATION_COUNTS: usize = 3;

fn subject() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_weir-proxy"))
}

fn budget(name: &str) -> f64 {
    let file = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("budget.toml")).expect("budget.toml");
    let lines = file.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    let numbers: BTreeMap<&str, f64> =
        lines.map(|(name, number)| (name.trim(), number.trim().parse().expect("a number"))).collect();
    numbers[name]
}

fn hold(what: &str, measured: f64, budget: f64) {
    // Less than a request can take is a harness that does not count.
    assert!(measured > budget / 10.0, "{what}: {measured:.1} is too little to be true");
    at_most(what, measured, budget);
}

#[expect(clippy::print_stdout, reason = "what was measured, for who changes the budget")]
fn at_most(what: &str, measured: f64, budget: f64) {
    println!("{what}: {measured:.2}, at most {budget:.2}");
    assert!(measured <= budget, "{what}: {measured:.1}, and the budget is {budget:.1}");
}

#[test]
fn instructions_stay_in_the_budget() {
    // The budget is that of optimised code.
    if cfg!(debug_assertions) || !require::require("instructions", &[Need::Program("valgrind")]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    for (name, routes) in [("instructions", FEW_ROUTES), ("instructions_1000_routes", MANY_ROUTES)] {
        let measured = cost::instructions(subject(), directory.path(), routes).expect("callgrind");
        hold(&format!("{name} per request"), measured, budget(name) * TOLERANCE);
    }
}

#[test]
fn a_line_of_the_access_log_stays_in_its_budget() {
    if cfg!(debug_assertions) || !require::require("access_log", &[Need::Program("valgrind")]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut counted = Counted::usual(subject(), directory.path(), FEW_ROUTES).expect("origins");
    let without = cost::instructions_of(&counted).expect("callgrind");
    let log = directory.path().join("access.log");
    counted.arguments = vec!["--access-log".to_owned(), log.display().to_string()];
    let with = cost::instructions_of(&counted).expect("callgrind");
    assert!(std::fs::read_to_string(&log).expect("a log").lines().count() > 1000, "requests are in the log");
    hold("instructions of the access log per request", with - without, budget("access_log_instructions") * TOLERANCE);
}

#[test]
fn allocations_stay_in_the_budget() {
    let directory = tempfile::tempdir().expect("a directory");
    let counts =
        (0..ALLOCATION_COUNTS).map(|_| cost::allocations(subject(), directory.path(), FEW_ROUTES).expect("a count"));
    let measured = counts.fold(f64::INFINITY, f64::min);
    hold("allocations per request", measured, budget("allocations") + BY_THE_CLOCK);
}

#[test]
fn system_calls_stay_in_the_budget() {
    if !require::require("system_calls", &[Need::Program("strace")]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let measured = cost::system_calls(subject(), directory.path()).expect("strace");
    hold("system_calls per request", measured, budget("system_calls"));
}

#[test]
fn idle_connections_stay_in_the_budget() {
    let directory = tempfile::tempdir().expect("a directory");
    let measured = cost::idle_kib(subject(), directory.path()).expect("a measurement");
    // Nothing is too little: the pages that a connection takes may have been there.
    at_most("KiB per idle connection", measured, budget("idle_kib"));
}
