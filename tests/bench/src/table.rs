//! The figures as a table, each beside its goal, and which of them missed it. Filled by `deciding` and `compiling`.

use std::io::{self, Write};
use std::time::Duration;

/// A time may be this many times its goal before it counts as missed: on a machine that others use, what they push out
/// of the caches is paid for here. Memory and allocations are the same on every machine, and have no such margin.
pub(crate) const TOLERANCE: u32 = 2;
const MIB: f64 = (1 << 20) as f64;

/// What was printed so far.
#[derive(Default)]
pub(crate) struct Table {
    missed: Vec<String>,
}

impl Table {
    /// A time, and what it should be below.
    pub(crate) fn time(&mut self, what: &str, value: Duration, goal: Duration) {
        let show = if goal < Duration::from_millis(1) { ns } else { ms };
        let verdict = match value {
            _ if value < goal => "ok",
            _ if value < goal * TOLERANCE => "above it, within the tolerance",
            _ => "MISSED",
        };
        self.line(what, &show(value), &show(goal), verdict);
    }

    /// Bytes, and what they should be below.
    pub(crate) fn bytes(&mut self, what: &str, value: usize, goal: usize) {
        self.line(what, &mib(value), &mib(goal), if value < goal { "ok" } else { "MISSED" });
    }

    /// A count that should be 0.
    pub(crate) fn none(&mut self, what: &str, value: usize) {
        let verdict = if value == 0 { "ok" } else { "MISSED" };
        let _closed = writeln!(io::stdout(), "{what:<64} {value:>12}   = 0            {verdict}");
        self.note(what, verdict);
    }

    fn line(&mut self, what: &str, value: &str, goal: &str, verdict: &str) {
        let _closed = writeln!(io::stdout(), "{what:<64} {value:>12}   < {goal:<12} {verdict}");
        self.note(what, verdict);
    }

    fn note(&mut self, what: &str, verdict: &str) {
        if verdict == "MISSED" {
            self.missed.push(what.trim().to_owned());
        }
    }

    /// Those that missed their goal.
    pub(crate) fn missed(&self) -> &[String] {
        &self.missed
    }
}

/// A figure that has no goal.
pub(crate) fn row(what: &str, value: &str) {
    let _closed = writeln!(io::stdout(), "{what:<64} {value:>12}");
}

pub(crate) fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

pub(crate) fn ns(time: Duration) -> String {
    format!("{} ns", time.as_nanos())
}

pub(crate) fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB)
}
