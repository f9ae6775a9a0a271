//! What a request costs weir's proxy in things that can be counted exactly: instructions in user mode, allocations and
//! system calls; and the memory of a connection of which nothing is asked. Used by `main` for the report, and by the
//! suite `cost`, which holds them to a budget.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::answer::{Progress, Reader};
use crate::cases::MANY_ROUTES;
use crate::load::{self, Load, Spec};
use crate::mesh::FEW_ROUTES;
use crate::process::{self, Process};
use crate::{mesh, origin};

/// Requests before anything is counted: upstream connections to both versions are open, tables have their size.
const WARM: usize = 200;
/// Requests that are counted. A timer's tick or a table that grows is spread over as many.
const COUNTED: usize = 1000;
/// Connections where system calls are counted: many requests are ready whenever the proxy looks, as under load.
pub const CONNECTIONS: usize = 32;
/// Requests of the run in which system calls are counted, at least.
const TRACED: u64 = 5000;
/// What that many take at most under strace, which stops the proxy at every call.
const TRACED_WITHIN: Duration = Duration::from_secs(30);
/// Between a worker's signs of life, ms: under valgrind or strace those of every 50 ms would be counted as requests'.
const RARE_TICK: &str = "60000";
/// As it is by default, ms: what gives memory back comes with it.
pub(crate) const USUAL_TICK: &str = "50";
/// Connections of which nothing is asked, when their memory is looked at.
const IDLE: usize = 1000;
/// As many before: more than the proxy waits for until it gives memory back.
const FIRST_IDLE: usize = 200;
/// Descriptors, here and in the proxy: for them, and some more.
const DESCRIPTORS: u64 = 2000;
/// After its last request a connection is parked within this.
const PARKED_WITHIN: Duration = Duration::from_secs(20);
/// After which what parked connections held has been given back.
const GIVEN_BACK: Duration = Duration::from_secs(7);
/// After its end was asked for; valgrind writes its counts then.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// What a request costs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// Instructions in user mode, the last of [`FEW_ROUTES`] rules.
    pub instructions: f64,
    /// The last of [`MANY_ROUTES`] rules.
    pub instructions_many_routes: f64,
    /// Allocations and reallocations.
    pub allocations: f64,
    /// System calls, [`CONNECTIONS`] connections at once.
    pub system_calls: f64,
}

impl Cost {
    /// Counts everything. Callgrind's files stay in `directory`.
    ///
    /// # Errors
    /// When a tool or the subject fails.
    pub fn measure(subject: &Path, directory: &Path) -> Result<Self> {
        Ok(Self {
            // Last of both, so that the files that stay are those of the usual case.
            instructions_many_routes: instructions(subject, directory, MANY_ROUTES)?,
            instructions: instructions(subject, directory, FEW_ROUTES)?,
            allocations: allocations(subject, directory, FEW_ROUTES)?,
            system_calls: system_calls(subject, directory)?,
        })
    }
}

/// What is counted: a program, on rules, asked for one thing.
#[derive(Clone, Debug)]
pub struct Counted {
    /// weir's proxy.
    pub subject: PathBuf,
    /// For files.
    pub directory: PathBuf,
    /// The rules.
    pub manifests: String,
    /// More arguments of the subject.
    pub arguments: Vec<String>,
    /// The whole request, whose answer has [`origin::BODY`] bytes.
    pub request: Vec<u8>,
}

impl Counted {
    /// What the bench asks for: the last of `routes` rules. Its origins are in this process.
    ///
    /// # Errors
    /// When no port is free for the origins.
    pub fn usual(subject: &Path, directory: &Path, routes: usize) -> Result<Self> {
        Ok(Self {
            subject: subject.to_owned(),
            directory: directory.to_owned(),
            manifests: mesh::manifests(routes, origin::start()?),
            arguments: Vec::new(),
            request: load::request("1k", routes - 1, false),
        })
    }
}

/// The subject under a tool, and the address where it listens.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Traced {
    fn counter(&mut self, name: &str) -> Result<u64> {
        self.process.say("counters")?;
        let counters: Value = serde_json::from_str(&self.process.hear()?)?;
        counters[name].as_u64().with_context(|| format!("the counter {name}"))
    }
}

/// Starts the subject as an argument of `tool`, which may be nothing, on the last CPU.
pub(crate) fn start(tool: &[String], counted: &Counted, tick: &str) -> Result<Traced> {
    std::fs::create_dir_all(&counted.directory)?;
    let manifests = counted.directory.join("manifests.yaml");
    std::fs::write(&manifests, &counted.manifests)?;
    // The port is free now; the subject says so if it was taken meanwhile.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut words = tool.iter().map(Into::into).chain([counted.subject.as_os_str().to_owned()]);
    let mut command = Command::new(words.next().context("a program")?);
    command.args(words).args(["--tick", tick, "--listen"]).arg(address.to_string());
    command.arg("--destination").arg(mesh::destination(false).to_string()).arg("--manifests").arg(manifests);
    command.args(&counted.arguments);
    // Load, and tests beside this one, are rather at the first.
    let cpus = std::thread::available_parallelism()?.get();
    let mut process = Process::piped(command, &[cpus - 1])?;
    process.await_ready().context("starting weir's proxy")?;
    Ok(Traced { process, address })
}

/// Asks one after the other, over one connection.
fn ask(address: SocketAddr, requests: usize, request: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ENDS_WITHIN))?;
    let mut buffer = vec![0; 64 << 10];
    let mut reader = Reader::default();
    for _ in 0..requests {
        stream.write_all(request)?;
        loop {
            let n = stream.read(&mut buffer)?;
            match reader.take(&buffer[..n], origin::BODY as u64) {
                Progress::Partial if n > 0 => {}
                Progress::Whole(head) if head.right => break,
                other => anyhow::bail!("a wrong answer: {other:?}"),
            }
        }
    }
    Ok(())
}

/// Instructions in user mode per request, by callgrind: what twice as many requests take more. The same to a fraction
/// of a percent from run to run.
///
/// # Errors
/// When valgrind or the subject fails.
pub fn instructions(subject: &Path, directory: &Path, routes: usize) -> Result<f64> {
    instructions_of(&Counted::usual(subject, directory, routes)?)
}

/// The same of anything.
///
/// # Errors
/// When valgrind or the subject fails.
pub fn instructions_of(counted: &Counted) -> Result<f64> {
    let run = |requests: usize| -> Result<u64> {
        let out = counted.directory.join(format!("callgrind.{requests}"));
        let tool = [
            "valgrind".to_owned(),
            "--tool=callgrind".into(),
            "--quiet".into(),
            format!("--callgrind-out-file={}", out.display()),
        ];
        let traced = start(&tool, counted, RARE_TICK)?;
        ask(traced.address, requests, &counted.request)?;
        traced.process.finish(ENDS_WITHIN).context("valgrind")?;
        let text = std::fs::read_to_string(&out)?;
        let totals = text.lines().find_map(|line| line.strip_prefix("totals: ")).context("callgrind's totals")?;
        Ok(totals.trim().parse()?)
    };
    let (few, many) = (run(WARM + COUNTED)?, run(WARM + 2 * COUNTED)?);
    Ok(many.saturating_sub(few) as f64 / COUNTED as f64)
}

/// Allocations and reallocations per request.
///
/// # Errors
/// When the subject fails.
pub fn allocations(subject: &Path, directory: &Path, routes: usize) -> Result<f64> {
    allocations_of(&Counted::usual(subject, directory, routes)?)
}

/// The same of anything.
///
/// # Errors
/// When the subject fails.
pub fn allocations_of(counted: &Counted) -> Result<f64> {
    let mut traced = start(&[], counted, RARE_TICK)?;
    // Kept upstream connections are there for later connections, too.
    ask(traced.address, WARM, &counted.request)?;
    traced.process.say("begin")?;
    let mut allocations = Vec::new();
    for requests in [COUNTED, 2 * COUNTED] {
        ask(traced.address, requests, &counted.request)?;
        allocations.push(traced.counter("allocations")?);
    }
    // A connection's own are in both.
    let [few, both] = allocations[..] else { anyhow::bail!("two counts") };
    let many = both.saturating_sub(few);
    Ok(many.saturating_sub(few) as f64 / COUNTED as f64)
}

/// System calls per request with many connections at once.
///
/// # Errors
/// When strace or the subject fails.
pub fn system_calls(subject: &Path, directory: &Path) -> Result<f64> {
    let counted = Counted::usual(subject, directory, FEW_ROUTES)?;
    let run = |least: u64| -> Result<(u64, u64)> {
        let out = directory.join(format!("strace.{least}"));
        let tool = ["strace".to_owned(), "-f".into(), "-c".into(), "-o".into(), out.display().to_string()];
        let traced = start(&tool, &counted, RARE_TICK)?;
        let spec = Spec {
            target: traced.address,
            connections: CONNECTIONS,
            request: counted.request.clone(),
            body: origin::BODY as u64,
            fresh: false,
            rate: None,
            cpu: 0,
        };
        let load = Load::start(spec)?;
        let started = Instant::now();
        while load.count().requests() < least {
            ensure!(started.elapsed() < TRACED_WITHIN, "only {:?} under strace", load.count());
            std::thread::sleep(Duration::from_millis(5));
        }
        let count = load.stop()?;
        ensure!(count.wrong == 0, "wrong answers: {count:?}");
        traced.process.finish(ENDS_WITHIN).context("strace")?;
        Ok((calls(&std::fs::read_to_string(&out)?)?, count.requests()))
    };
    // What it takes to start and to connect is in both.
    let ((few_calls, few), (many_calls, many)) = (run(TRACED / 5)?, run(TRACED)?);
    ensure!(many > few, "the longer run has {many} requests, the shorter one {few}");
    Ok(many_calls.saturating_sub(few_calls) as f64 / (many - few) as f64)
}

/// KiB of memory of a connection that is kept alive, has had an answer, and of which nothing has been asked since.
///
/// # Errors
/// When the subject fails, or does not park them.
pub fn idle_kib(subject: &Path, directory: &Path) -> Result<f64> {
    process::raise_descriptors(DESCRIPTORS)?;
    let counted = Counted::usual(subject, directory, FEW_ROUTES)?;
    let mut traced = start(&[], &counted, USUAL_TICK)?;
    let (mut held, mut memory) = (Vec::new(), Vec::new());
    // The first ones are not counted: what the first requests of all take stays, and what it took to start is given back.
    for connections in [FIRST_IDLE, IDLE] {
        held.extend(load::idle_connections(traced.address, connections, &counted.request, origin::BODY as u64)?);
        let began = Instant::now();
        while traced.counter("connections_parked")? != held.len() as u64 {
            ensure!(began.elapsed() < PARKED_WITHIN, "{} are parked", traced.counter("connections_parked")?);
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(GIVEN_BACK);
        memory.push(traced.process.memory()?[0]);
    }
    drop(held);
    let [before, after] = memory[..] else { anyhow::bail!("two looks") };
    Ok(after.saturating_sub(before) as f64 / IDLE as f64)
}

/// All calls in a table of `strace -c`.
fn calls(table: &str) -> Result<u64> {
    let total = table.lines().find(|line| line.ends_with(" total")).context("strace's line of totals")?;
    // `% time, seconds, usecs/call, calls, errors, total`; errors may be missing.
    Ok(total.split_whitespace().nth(3).context("the number of calls")?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_straces_table() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n \
                     98.02    0.000793           7       100         3 writev\n\
                     100.00    0.000809           7       104         3 total\n";
        assert_eq!(calls(table).expect("a table"), 104);
    }
}
