//! The subject: weir's own proxy, on a program compiled from manifests, with metrics on. Its listeners are on the
//! loopback, and where a connection was going is an argument, since no kernel program says it. The binaries
//! `weir-proxy*` are this.
//!
//! It says `ready` on standard output. Each line on standard input is a question: `begin` begins to count allocations,
//! `counters` is answered with a line of JSON. It ends with its standard input.

use std::io::{BufRead, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::json;
use socket2::{Domain, Socket, Type};
use weir::config::LogFormat;
use weir::netns::NetNs;
use weir::proxy::{Collector, Limits, OriginalDestinations, Programs, Proxy, ProxyConfig, SourcePod, Tracing};
use weir_mesh::program::Share;

use crate::{allocations, mesh};

/// As the kernel allows at most by default; a burst of connections must not be measured by its refusals.
const BACKLOG: i32 = 4096;

#[derive(Debug, Parser)]
struct Arguments {
    /// Manifests, in one file
    #[arg(long)]
    manifests: PathBuf,
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// Where every connection was going
    #[arg(long)]
    destination: SocketAddr,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Write an access log to this file
    #[arg(long)]
    access_log: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    access_log_json: bool,
    /// Send spans to this URL
    #[arg(long)]
    trace_collector: Option<String>,
    /// Of so many percent of the requests
    #[arg(long, default_value_t = 1.0)]
    trace_sampling: f64,
    /// Milliseconds between a worker's signs of life; under a tool that slows everything down they would be most of
    /// what is measured
    #[arg(long)]
    tick: Option<u64>,
}

struct Fixed(SocketAddr);

impl OriginalDestinations for Fixed {
    fn take(&self, _: u64, _: SocketAddr, _: u16) -> Option<SocketAddr> {
        Some(self.0)
    }
}

/// Runs until standard input ends.
#[expect(clippy::print_stderr, reason = "a program of the bench")]
pub fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let text = std::fs::read_to_string(&arguments.manifests)
        .with_context(|| format!("reading {}", arguments.manifests.display()))?;
    let program = mesh::program(&text)?;
    drop(text);
    ensure!(
        program.port_of(0, arguments.destination).is_some(),
        "no service of the manifests is at {}",
        arguments.destination
    );
    // The most that a case opens; the limits exist for pods that share a node, and here is one.
    let connections = 20_000;
    let mut limits = Limits {
        max_connections: connections,
        max_connections_per_pod: connections,
        max_requests: 4 * connections,
        ..Limits::default()
    };
    if let Some(tick) = arguments.tick {
        limits.tick = Duration::from_millis(tick);
    }
    let config = ProxyConfig {
        workers: arguments.workers,
        limits,
        access_log: arguments
            .access_log
            .as_deref()
            .map(weir::telemetry::access_log)
            .transpose()?
            .map(|(lines, _)| lines),
        log_format: if arguments.access_log_json { LogFormat::Json } else { LogFormat::Text },
        tracing: arguments.trace_collector.as_deref().map(|url| trace(url, arguments.trace_sampling)).transpose()?,
        ..ProxyConfig::default()
    };
    let destinations = Arc::new(Fixed(arguments.destination));
    let proxy = Proxy::start(config, Programs::new(program), destinations)?;
    let pod = SourcePod {
        name: "bench/client".into(),
        namespace: mesh::NAMESPACE.into(),
        view: AtomicU32::new(0),
        netns: NetNs::own()?,
        identity: arc_swap::ArcSwap::default(),
    };
    let listeners = (0..arguments.workers).map(|_| Ok(vec![listen(arguments.listen)?])).collect::<Result<_>>()?;
    proxy.add_pod(&Arc::new(pod), listeners);
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    // What the answers below have allocated themselves, which no request asked for.
    let mut own = 0;
    for line in std::io::stdin().lock().lines() {
        match &*line? {
            "begin" => {
                own = 0;
                allocations::begin();
            }
            "counters" => {
                let before = allocations::so_far();
                let counters = proxy.counters();
                let mut answer = json!({ "allocations": before.saturating_sub(own) });
                for (name, _, value) in counters.named() {
                    answer[name] = value.into();
                }
                writeln!(out, "{answer}")?;
                own += allocations::so_far().saturating_sub(before);
            }
            other => anyhow::bail!("`{other}` is no question"),
        }
    }
    Ok(())
}

/// Tracing, with the exporter on a thread of its own, as the agent has it on its control runtime.
fn trace(collector: &str, percent: f64) -> Result<Tracing> {
    let collector = Collector::parse(collector)?;
    let (tracing, spans) = Tracing::new(Share::of_percent(percent));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || runtime.block_on(weir::proxy::export(collector, spans)));
    Ok(tracing)
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into()).with_context(|| format!("binding {address}"))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
