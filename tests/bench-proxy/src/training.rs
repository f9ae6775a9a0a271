//! What the proxy does while a compiler looks on: the bench's traffic, and HTTP rules and requests of every sort, so that
//! what they need is not taken for something that nobody uses. Used by `weir-train`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cases::MANY_ROUTES;
use crate::load::{self, Load, Spec};
use crate::mesh::FEW_ROUTES;
use crate::process::Process;
use crate::{mesh, origin, process, varied};

/// How long each sort of traffic lasts: what is counted are executions, and there are 10,000 and more a second.
const LASTS: Duration = Duration::from_millis(1500);
/// Clients of the varied requests, each with a connection.
const CLIENTS: usize = 8;
/// Connections that have had an answer and then wait, until they are parked and after.
const WAITING: usize = 200;
const WAIT: Duration = Duration::from_secs(3);
/// An answer, and the end of the proxy, which writes its records then.
const PATIENCE: Duration = Duration::from_secs(20);
/// The variable that says where records go.
const RECORDS: &str = "LLVM_PROFILE_FILE";

/// The traffic of the bench, without what it is compared with.
struct Traffic {
    routes: usize,
    path: &'static str,
    kib: u64,
    connections: usize,
    fresh: bool,
    rate: Option<u32>,
    bytes: bool,
}

const KEPT: Traffic =
    Traffic { routes: FEW_ROUTES, path: "1k", kib: 1, connections: 32, fresh: false, rate: None, bytes: false };
const TRAFFIC: &[Traffic] = &[
    KEPT,
    Traffic { routes: MANY_ROUTES, ..KEPT },
    Traffic { path: "64k", kib: 64, ..KEPT },
    Traffic { fresh: true, ..KEPT },
    Traffic { rate: Some(1000), ..KEPT },
    Traffic { path: "1024k", kib: 1024, connections: 4, bytes: true, ..KEPT },
];

/// Runs `proxy` (weir's own, instrumented) through all of it. Records are files of `output`.
///
/// # Errors
/// When the proxy does not start or end, or an answer is wrong.
pub fn run(proxy: &Path, output: &Path) -> Result<()> {
    std::fs::create_dir_all(output)?;
    let origin_port = origin::start()?;
    for traffic in TRAFFIC {
        let manifests = mesh::manifests(traffic.routes, origin_port);
        let (running, address) = start(proxy, output, &manifests, mesh::destination(traffic.bytes))?;
        let request = load::request(traffic.path, traffic.routes - 1, traffic.fresh);
        let waiting = load::idle_connections(address, WAITING, &request, traffic.kib << 10)?;
        let spec = Spec {
            target: address,
            connections: traffic.connections,
            request,
            body: traffic.kib << 10,
            fresh: traffic.fresh,
            rate: traffic.rate,
            cpu: process::allowed()?[0],
        };
        let load = Load::start(spec)?;
        std::thread::sleep(LASTS);
        let count = load.stop()?;
        ensure!(count.wrong == 0 && count.requests() > 0, "{}: {count:?}", traffic.path);
        drop(waiting);
        running.finish(PATIENCE)?;
    }
    let (running, address) =
        start(proxy, output, &varied::manifests(origin_port, origin::start_tls()?), varied::destination())?;
    vary(address)?;
    let waiting = load::idle_connections(address, WAITING, &varied::request(), origin::BODY as u64)?;
    std::thread::sleep(WAIT);
    drop(waiting);
    running.finish(PATIENCE)
}

fn start(proxy: &Path, output: &Path, manifests: &str, destination: SocketAddr) -> Result<(Process, SocketAddr)> {
    let file = output.join("manifests.yaml");
    std::fs::write(&file, manifests)?;
    // The port is free now; the proxy says so if it was taken meanwhile.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(proxy);
    command.env(RECORDS, output.join("%p.profraw")).arg("--manifests").arg(file).args(["--access-log", "/dev/null"]);
    command.arg("--listen").arg(address.to_string()).arg("--destination").arg(destination.to_string());
    let mut process = Process::piped(command, &process::allowed()?)?;
    process.await_ready().context("starting weir's proxy")?;
    Ok((process, address))
}

/// Asks for everything in turn, over some connections.
fn vary(address: SocketAddr) -> Result<()> {
    let requests = varied::requests();
    let client = |first: usize| -> Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let started = Instant::now();
        for request in requests.iter().cycle().skip(first) {
            if started.elapsed() >= 2 * LASTS {
                break;
            }
            stream.write_all(request)?;
            let status = answer(&mut reader, request.starts_with(b"HEAD "))?;
            let asked = || String::from_utf8_lossy(request).lines().next().unwrap_or_default().to_owned();
            // 503 is what a rule asks for in one place, and what is left where a retry had no luck; 504 is a busy machine's.
            ensure!([200, 204, 302, 503, 504].contains(&status), "{} was answered with {status}", asked());
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|first| scope.spawn(move || client(first))).collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })
}

/// Reads one answer, and gives its status.
fn answer(reader: &mut BufReader<TcpStream>, head_only: bool) -> Result<u16> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no answer")?;
    let mut length = 0;
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "an answer that ends early");
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
        ensure!(!name.eq_ignore_ascii_case("transfer-encoding"), "no origin of ours sends chunks");
    }
    if !head_only {
        let read = std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
        ensure!(read == length, "an answer that ends early");
    }
    Ok(status)
}
