//! `cargo xtask soak`: a canary under load for as long as wanted, while weights change, pods opt in and out, endpoints
//! come and go by their labels, and the agent is restarted, politely and not. A line a minute, a table at the end.
//!
//! It fails when a request fails that was not in flight at a `kill -9`, when a split is off, when the agent holds ever
//! more descriptors or memory, or when it reports a problem.

mod meter;
mod play;
mod vitals;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use weir_tests::{Report, interrupt};

use crate::{ground, packages};
use play::Play;
use vitals::Vitals;

/// How often is looked what is due.
const STEP: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_mins(1);

/// How to run it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: u64,
    /// How long an agent lives; the next one follows a SIGTERM and a SIGKILL in turn. A run that is too short for it
    /// has its restarts after a third and two thirds of its time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    restart_every: u64,
    /// Take the programs as they are
    #[arg(long)]
    no_build: bool,
}

/// A line of the protocol.
struct Line {
    requests: u64,
    failed: u64,
    vitals: Vitals,
}

/// Soaks.
///
/// # Errors
/// When a bound does not hold; the table is printed before.
pub(crate) fn run(args: &Args) -> Result<()> {
    ground::require_root("soak")?;
    ground::prepare(packages::MESH, args.no_build)?;
    let length = MINUTE * u32::try_from(args.minutes)?;
    let life = (MINUTE * u32::try_from(args.restart_every)?).min(length / 3);
    let mut play = Play::new(life)?;
    let mut out = io::stdout();
    writeln!(
        out,
        "{:>7} {:>9} {:>9} {:>7} {:>7} {:>6} {:>8}  so far",
        "minute", "requests", "a second", "failed", "resent", "fds", "RSS MiB"
    )?;
    let started = Instant::now();
    let mut before = Line { requests: 0, failed: 0, vitals: Vitals::default() };
    let mut minutes = 0;
    while started.elapsed() < length {
        interrupt::check()?;
        std::thread::sleep(STEP);
        play.step()?;
        if started.elapsed() >= MINUTE * (minutes + 1) {
            minutes += 1;
            let total = play.total()?;
            let line = Line { requests: total.answered + total.failed, failed: total.failed, vitals: play.vitals() };
            let requests = line.requests - before.requests;
            writeln!(
                out,
                "{minutes:>7} {requests:>9} {:>9.1} {:>7} {:>7} {:>6} {:>8.1}  {}",
                requests as f64 / MINUTE.as_secs_f64(),
                line.failed - before.failed,
                total.resent,
                line.vitals.fds,
                line.vitals.rss as f64 / 1024.0,
                play.events(),
            )?;
            before = line;
        }
    }
    let end = play.end()?;
    table(&end)?;
    if !end.wrong.is_empty() {
        bail!("{} bounds of {minutes} minutes do not hold", end.wrong.len());
    }
    Ok(())
}

/// What remains when everything has been stopped.
struct End {
    /// Each load, the requests of it that failed because their agent was killed, and its whole count.
    loads: Vec<(&'static str, u64, Report)>,
    /// Each agent: how long it lived, settled and highest.
    lives: Vec<(Duration, Option<Vitals>, Vitals)>,
    events: String,
    wrong: Vec<String>,
}

fn table(end: &End) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{:<8} {:>9} {:>7} {:>15} {:>7}", "load", "answered", "failed", "of them killed", "resent")?;
    for (name, killed, report) in &end.loads {
        writeln!(out, "{name:<8} {:>9} {:>7} {killed:>15} {:>7}", report.answered, report.failed, report.resent)?;
    }
    writeln!(out, "\n{:<8} {:>9} {:>19} {:>19}", "agent", "seconds", "settled fds, MiB", "highest fds, MiB")?;
    for (number, (lived, settled, highest)) in end.lives.iter().enumerate() {
        let held = |v: &Vitals| format!("{}, {:.1}", v.fds, v.rss as f64 / 1024.0);
        let settled = settled.as_ref();
        writeln!(
            out,
            "{:<8} {:>9.0} {:>19} {:>19}",
            number + 1,
            lived.as_secs_f64(),
            settled.map_or("-".into(), held),
            settled.map_or("-".into(), |_| held(highest)),
        )?;
    }
    writeln!(out, "\n{}", end.events)?;
    for line in &end.wrong {
        writeln!(out, "NOT {line}")?;
    }
    if end.wrong.is_empty() {
        writeln!(out, "ok")?;
    }
    Ok(())
}
