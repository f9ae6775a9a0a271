//! Measuring a case: all subjects run at once, one at a time has load, in turns (A B C, C B A, …), so that what the
//! machine does besides hits all of them alike. A round in which other work had the CPUs is dropped, and that is said.
//! Called by `main`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use weir_tests::interrupt;

use crate::cases::{Case, Kind};
use crate::load::{self, Load, Spec};
use crate::mesh;
use crate::peers::{self, Setup, Subject};
use crate::process::Process;

/// The CPU of load and origin, and that of the subjects.
pub(crate) const LOAD_CPU: usize = 0;
const SUBJECT_CPU: usize = 1;
/// Before a round is measured: connections are made, caches are warm.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);
/// After a burst, or since connections are idle, until memory is looked at: long enough for what is given back within seconds.
const SETTLE: Duration = Duration::from_secs(7);
/// Where subjects listen, one port each, and the origins.
const FIRST_PORT: u16 = 18_000;
pub(crate) const ORIGIN_PORT: u16 = 19_000;
/// The share of a round's time for which a subject that can run may wait for its CPU. With two workers it waits for
/// the load by design.
const MAX_WAITED: f64 = 0.20;
const MAX_WAITED_SHARED: f64 = 0.30;
/// How far the share of v2 may be from its weight, in points, and how many requests it takes to tell: 4 σ of 10 % at
/// 15,000 requests are one point. HAProxy and nginx take turns, and are nearer.
const SPLIT_ERROR: f64 = 1.0;
const SPLIT_REQUESTS: u64 = 15_000;

/// How to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rounds of each case.
    pub rounds: usize,
    /// What a round takes.
    pub duration: Duration,
    /// Who takes part.
    pub subjects: Vec<Subject>,
    /// For files and logs.
    pub directory: PathBuf,
    /// The directory of weir's own binaries.
    pub binaries: PathBuf,
    /// Envoy.
    pub envoy: PathBuf,
}

/// One round of one subject.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// CPU microseconds per request; for bulk, per MiB.
    pub cpu_us: f64,
    /// Of it, in user mode.
    pub user_us: f64,
    /// Requests a second.
    pub per_second: f64,
    /// CPUs that the subject was on.
    pub busy: f64,
    /// Microseconds of requests at a fixed rate.
    pub p50_us: Option<u32>,
    /// See `p50_us`.
    pub p90_us: Option<u32>,
    /// Why it does not count.
    pub disturbed: Option<String>,
    /// Its memory, where that is the case: MiB before, after, and at the highest; KiB per connection.
    pub memory: Option<Memory>,
}

/// Memory of a subject.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    /// Just started, MiB.
    pub fresh_mib: f64,
    /// Afterwards, MiB.
    pub after_mib: f64,
    /// At its highest, MiB.
    pub highest_mib: f64,
    /// KiB for each connection.
    pub per_connection_kib: f64,
}

/// All rounds of a case.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Which case.
    pub case: String,
    /// Its title.
    pub title: String,
    /// Rounds of each subject, the same number for all.
    pub samples: Vec<(Subject, Vec<Sample>)>,
}

/// A subject that runs.
struct Running {
    subject: Subject,
    process: Process,
    address: SocketAddr,
}

/// Measures a case.
///
/// # Errors
/// When a subject does not start, or an answer is wrong: errors are fast, and would look like a result.
pub fn measure(case: &Case, options: &Options) -> Result<Outcome> {
    let _origin = origin(options)?;
    let subjects: Vec<Subject> = options.subjects.iter().copied().filter(|subject| case.takes(*subject)).collect();
    let mut samples: Vec<(Subject, Vec<Sample>)> = subjects.iter().map(|subject| (*subject, Vec::new())).collect();
    // A subject whose memory is looked at is a new one in each round.
    let mut running = if case.kind == Kind::Traffic {
        subjects.iter().enumerate().map(|(n, subject)| start(*subject, n, case, options)).collect::<Result<Vec<_>>>()?
    } else {
        Vec::new()
    };
    for round in 0..options.rounds {
        let mut order: Vec<usize> = (0..subjects.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for n in order {
            interrupt::check()?;
            let sample = match case.kind {
                Kind::Traffic => traffic(case, &mut running[n], options),
                Kind::Idle | Kind::Burst => {
                    let mut fresh = start(subjects[n], n, case, options)?;
                    memory(case, &mut fresh, options)
                }
            };
            let sample = sample.with_context(|| format!("{}: {}", case.name, subjects[n].name()))?;
            samples[n].1.push(sample);
        }
    }
    Ok(Outcome { case: case.name.into(), title: case.title.into(), samples })
}

/// Starts the origin of everything.
pub(crate) fn origin(options: &Options) -> Result<Process> {
    let directory = options.directory.join("origin");
    std::fs::create_dir_all(&directory)?;
    let setup = Setup {
        listen: ([0, 0, 0, 0], ORIGIN_PORT).into(),
        routes: 1,
        workers: 1,
        bytes: false,
        origin_port: ORIGIN_PORT,
        directory: &directory,
        envoy: &options.envoy,
    };
    let log = directory.join("log");
    let mut process = Process::start(peers::origin(&setup)?, &[LOAD_CPU], &log)?;
    for version in mesh::VERSIONS {
        process.await_listening((version, ORIGIN_PORT).into()).with_context(|| said(&log))?;
    }
    Ok(process)
}

/// What a log says.
fn said(log: &std::path::Path) -> String {
    format!("{}: {}", log.display(), std::fs::read_to_string(log).unwrap_or_default().trim_end())
}

fn start(subject: Subject, n: usize, case: &Case, options: &Options) -> Result<Running> {
    let directory = options.directory.join(subject.name());
    std::fs::create_dir_all(&directory)?;
    let address = SocketAddr::from(([127, 0, 0, 1], FIRST_PORT + n as u16));
    let setup = Setup {
        listen: address,
        routes: case.routes,
        workers: case.workers,
        bytes: case.bytes,
        origin_port: ORIGIN_PORT,
        directory: &directory,
        envoy: &options.envoy,
    };
    let cpus = if case.workers == 1 { vec![SUBJECT_CPU] } else { vec![LOAD_CPU, SUBJECT_CPU] };
    let log = directory.join("log");
    let process = match subject {
        Subject::Envoy => Process::start(peers::envoy(&setup)?, &cpus, &log),
        Subject::Haproxy => Process::start(peers::haproxy(&setup)?, &cpus, &log),
        Subject::Nginx => Process::start(peers::nginx(&setup)?, &cpus, &log),
        Subject::Weir => weir("weir-proxy", &setup, options, &cpus),
        Subject::WeirMimalloc => weir("weir-proxy-mimalloc", &setup, options, &cpus),
    };
    let mut process = process.with_context(|| format!("starting {}", subject.name()))?;
    process.await_listening(address).with_context(|| format!("{}: {}", subject.name(), said(&log)))?;
    Ok(Running { subject, process, address })
}

fn weir(binary: &str, setup: &Setup<'_>, options: &Options, cpus: &[usize]) -> Result<Process> {
    let manifests = setup.directory.join("manifests.yaml");
    std::fs::write(&manifests, mesh::manifests(setup.routes, setup.origin_port))?;
    let mut command = Command::new(options.binaries.join(binary));
    command.arg("--manifests").arg(manifests).arg("--listen").arg(setup.listen.to_string());
    command.arg("--destination").arg(mesh::destination(setup.bytes).to_string());
    command.arg("--workers").arg(setup.workers.to_string());
    let mut process = Process::piped(command, cpus)?;
    process.await_ready()?;
    Ok(process)
}

fn spec(case: &Case, running: &Running) -> Spec {
    Spec {
        target: running.address,
        connections: case.connections,
        request: case.request(),
        body: case.body,
        fresh: case.fresh,
        rate: case.rate,
        cpu: LOAD_CPU,
    }
}

fn traffic(case: &Case, running: &mut Running, options: &Options) -> Result<Sample> {
    let load = Load::start(spec(case, running))?;
    std::thread::sleep(WARM_UP);
    let (count, usage) = (load.count(), running.process.usage()?);
    let _warming_up = load.latencies();
    let started = Instant::now();
    std::thread::sleep(options.duration);
    let count = load.count().since(count);
    let usage = running.process.usage()?.since(usage);
    let wall = started.elapsed().as_secs_f64();
    let mut latencies = load.latencies();
    load.stop()?;
    right(case, running.subject, count)?;
    let requests = count.requests() as f64;
    let units = if case.bytes { requests * case.body as f64 / f64::from(1 << 20) } else { requests };
    let cpu_us = usage.cpu.as_secs_f64() * 1e6 / units;
    latencies.sort_unstable();
    let quantile = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied();
    Ok(Sample {
        cpu_us,
        user_us: cpu_us * usage.user_share(),
        per_second: requests / wall,
        busy: usage.cpu.as_secs_f64() / wall,
        p50_us: quantile(0.5),
        p90_us: quantile(0.9),
        disturbed: disturbed(wall, case.workers, usage.waited),
        memory: None,
    })
}

/// Wrong answers, and rules that were not followed.
fn right(case: &Case, subject: Subject, count: load::Count) -> Result<()> {
    let name = subject.name();
    ensure!(count.requests() > 0, "{name} answered nothing; {} wrong answers", count.wrong);
    ensure!(count.wrong == 0, "{name}: {} wrong answers beside {} right ones", count.wrong, count.requests());
    let share = 100.0 * count.right[1] as f64 / count.requests() as f64;
    let wanted = f64::from(mesh::SPLIT[1]);
    // Bytes are split by connection, and there are few of those.
    ensure!(
        case.bytes || count.requests() < SPLIT_REQUESTS || (share - wanted).abs() <= SPLIT_ERROR,
        "{name}: {share:.1} % went to v2 instead of {wanted} %"
    );
    Ok(())
}

/// Why a round does not count: its subject could run and was not let.
fn disturbed(wall: f64, workers: usize, waited: Duration) -> Option<String> {
    let waited = waited.as_secs_f64() / wall / workers as f64;
    let bound = if workers == 1 { MAX_WAITED } else { MAX_WAITED_SHARED };
    (waited > bound).then(|| format!("waited for a CPU {:.0} % of the time", waited * 100.0))
}

fn memory(case: &Case, running: &mut Running, options: &Options) -> Result<Sample> {
    let [fresh, _] = running.process.memory()?;
    let held = match case.kind {
        Kind::Burst => {
            let load = Load::start(spec(case, running))?;
            std::thread::sleep(options.duration);
            let count = load.count();
            right(case, running.subject, count)?;
            load.stop()?;
            Vec::new()
        }
        _ => load::idle_connections(running.address, case.connections, &case.request(), case.body)?,
    };
    std::thread::sleep(SETTLE);
    let [after, highest] = running.process.memory()?;
    drop(held);
    let mib = |kib: u64| kib as f64 / 1024.0;
    Ok(Sample {
        memory: Some(Memory {
            fresh_mib: mib(fresh),
            after_mib: mib(after),
            highest_mib: mib(highest),
            per_connection_kib: after.saturating_sub(fresh) as f64 / case.connections as f64,
        }),
        ..Sample::default()
    })
}
