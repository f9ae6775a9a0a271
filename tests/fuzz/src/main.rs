//! `weir-fuzz TARGET [--minutes=N] [--seed=N]`: fuzzes one target on one thread. Started by `cargo xtask fuzz`.
//!
//! The work is done by a child, so that what no `catch_unwind` holds (an overflow of the stack, memory without bound, a
//! loop without end) ends it alone: the input stands in a file before it is run. Exit 0: nothing was found; 1: something
//! was, and is in the corpus as `crash-…`; 2: wrong arguments.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use weir_fuzz::guard::{self, TIME_LIMIT};
use weir_fuzz::minimise::minimise;
use weir_fuzz::search::Search;
use weir_fuzz::{Target, corpus};

/// CPU time after which an input is given up, and the child with it.
const HANG: Duration = Duration::from_secs(20);
/// An input that takes more CPU time than this is no fault, but worth a look: the slowest is told and kept.
const SLOW: Duration = Duration::from_millis(100);
/// What a child may map: a hundred times what an input takes.
const MEMORY: u64 = 4 << 30;
/// Different faults after which there is enough to do.
const MAX_FAULTS: usize = 20;

const USAGE: &str = "weir-fuzz compile|matching|analyze|schema [--minutes=N] [--seed=N]";

struct Arguments {
    target: Target,
    time: Duration,
    seed: u64,
    /// Of a child: where the input is put that is about to be run.
    current: Option<PathBuf>,
    /// Of a child: run this input and nothing else.
    only: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = match arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            say(&format!("error: {error:#}; {USAGE}"));
            return ExitCode::from(2);
        }
    };
    let found = match (&arguments.only, &arguments.current) {
        (Some(file), _) => one(arguments.target, file),
        (None, Some(current)) => child(&arguments, current),
        (None, None) => parent(&arguments),
    };
    match found {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    let _closed = writeln!(io::stdout(), "{line}");
}

fn arguments(given: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut target = None;
    let (mut minutes, mut seed) = (1.0, 1);
    let (mut current, mut only) = (None, None);
    for argument in given {
        let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
        match name {
            "--minutes" => minutes = value.parse().with_context(|| format!("--minutes={value}"))?,
            "--seed" => seed = value.parse().with_context(|| format!("--seed={value}"))?,
            "--current" => current = Some(value.into()),
            "--only" => only = Some(value.into()),
            name => target = Target::ALL.into_iter().find(|target| target.name() == name),
        }
    }
    let time = Duration::try_from_secs_f64(minutes * 60.0).context("--minutes")?;
    Ok(Arguments { target: target.context("no such target")?, time, seed, current, only })
}

/// Starts the child, and keeps what kills it; how many faults there are. A fault that kills is mended before the search
/// goes on: it would be met again and again.
fn parent(arguments: &Arguments) -> Result<usize> {
    let own = std::env::current_exe()?;
    let current = std::env::temp_dir().join(format!("weir-fuzz-{}", std::process::id()));
    let status = Command::new(&own)
        .arg(arguments.target.name())
        .arg(format!("--minutes={}", arguments.time.as_secs_f64() / 60.0))
        .arg(format!("--seed={}", arguments.seed))
        .arg(format!("--current={}", current.display()))
        .status()?;
    let faults = match status.signal() {
        Some(signal) => {
            let input = fs::read(&current)?;
            say(&format!("died of signal {signal} with an input of {} bytes; minimising", input.len()));
            // Each attempt is a process; one that hangs would take its time in each.
            let smallest = if signal == libc::SIGXCPU {
                input
            } else {
                minimise(&input, |candidate| {
                    kills(&own, arguments.target, candidate, &current, signal).unwrap_or(false)
                })
            };
            say(&format!("kept as {}", corpus::keep(arguments.target, &smallest)?.display()));
            1
        }
        None => usize::from(!status.success()),
    };
    let _gone = fs::remove_file(&current);
    Ok(faults)
}

/// Whether a process that runs this input alone dies of this signal.
fn kills(own: &Path, target: Target, input: &[u8], file: &Path, signal: i32) -> Result<bool> {
    fs::write(file, input)?;
    let only = format!("--only={}", file.display());
    let status = Command::new(own).args([target.name(), &only]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    Ok(status.signal() == Some(signal))
}

/// Runs one input, with the limits of a child; 1 when it fails.
fn one(target: Target, file: &Path) -> Result<usize> {
    limit()?;
    guard::install();
    let input = fs::read(file)?;
    // The kernel sends SIGXCPU, which ends this process.
    set_limit(libc::RLIMIT_CPU, HANG.as_secs())?;
    match guard::run(target, &input, TIME_LIMIT).result {
        Ok(_) => Ok(0),
        Err(failure) => {
            say(&failure.text);
            Ok(1)
        }
    }
}

fn limit() -> Result<()> {
    set_limit(libc::RLIMIT_AS, MEMORY)
}

fn set_limit(of: libc::__rlimit_resource_t, limit: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: the pointer is to a whole rlimit that lives as long as the call.
    if unsafe { libc::setrlimit(of, &raw const limit) } != 0 {
        bail!("setrlimit: {}", io::Error::last_os_error());
    }
    Ok(())
}

/// The clock of the CPU time of the thread that calls this, which other threads can read.
fn own_clock() -> Result<libc::clockid_t> {
    let mut clock = 0;
    // SAFETY: the thread is the caller, which lives, and the pointer is to a whole clock id.
    let error = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
    if error != 0 {
        bail!("pthread_getcpuclockid: {}", io::Error::from_raw_os_error(error));
    }
    Ok(clock)
}

/// What a clock says; `None` when its thread has ended.
fn read(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole timespec that lives as long as the call; a clock of no thread is an error.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
    (!failed).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Ends the process by a signal when an input does not come to an end. `number` is how many inputs were begun.
fn watch(number: &AtomicU64, clock: libc::clockid_t) {
    let (mut last, mut begun) = (0, Duration::ZERO);
    while let Some(now) = read(clock) {
        let current = number.load(Ordering::Relaxed);
        if current != last {
            (last, begun) = (current, now);
        } else if now.saturating_sub(begun) > HANG {
            say(&format!("an input takes longer than {HANG:?}"));
            // SAFETY: ends this process; nothing is held that others wait for.
            unsafe { libc::kill(libc::getpid(), libc::SIGXCPU) };
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Searches until time is up; how many faults there are.
fn child(arguments: &Arguments, current: &Path) -> Result<usize> {
    limit()?;
    guard::install();
    let target = arguments.target;
    let mut search = Search::new(target, arguments.seed).context("reading the corpus")?;
    let file = File::create(current).with_context(|| format!("creating {}", current.display()))?;
    let started = Instant::now();
    let begun = Arc::new(AtomicU64::new(0));
    let (watched, clock) = (Arc::clone(&begun), own_clock()?);
    thread::spawn(move || watch(&watched, clock));

    let mut pending = search.kept().to_vec();
    let mut faults = BTreeSet::new();
    let (mut runs, mut said, mut slowest) = (0_u64, Instant::now(), Duration::ZERO);
    let report = |runs: u64, search: &Search, faults: usize, slowest: Duration| {
        say(&format!(
            "{:<8} {:>4} s {runs:>9} inputs {:>5}/s {:>6} kept {:>6} seen  slowest {slowest:.1?}  {faults} faults",
            target.name(),
            started.elapsed().as_secs(),
            runs / started.elapsed().as_secs().max(1),
            search.kept().len(),
            search.seen(),
        ));
    };
    while started.elapsed() < arguments.time && faults.len() < MAX_FAULTS {
        let input = pending.pop().unwrap_or_else(|| search.input());
        file.set_len(input.len() as u64)?;
        file.write_all_at(&input, 0)?;
        begun.fetch_add(1, Ordering::Relaxed);
        let outcome = guard::run(target, &input, TIME_LIMIT);
        if outcome.took > SLOW.max(slowest) {
            let kept = std::env::temp_dir().join(format!("weir-fuzz-slow-{}", target.name()));
            fs::write(&kept, &input)?;
            say(&format!("SLOW {:.1?}: {} bytes, kept as {}", outcome.took, input.len(), kept.display()));
        }
        slowest = slowest.max(outcome.took);
        runs += 1;
        match outcome.result {
            Ok(features) => search.learn(input, &features),
            Err(failure) if faults.insert(failure.place.clone()) => {
                say(&format!("FAULT {}", failure.text));
                let smallest = minimise(&input, |candidate| {
                    // Minimising is part of the run: no attempt may hang either.
                    begun.fetch_add(1, Ordering::Relaxed);
                    let again = guard::run(target, candidate, TIME_LIMIT).result;
                    again.is_err_and(|other| other.place == failure.place)
                });
                say(&format!("kept as {}", corpus::keep(target, &smallest)?.display()));
            }
            Err(_) => {}
        }
        if said.elapsed() >= Duration::from_secs(1) {
            said = Instant::now();
            report(runs, &search, faults.len(), slowest);
        }
    }
    report(runs, &search, faults.len(), slowest);
    Ok(faults.len())
}
