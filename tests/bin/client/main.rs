//! `weir-client`: the client inside a test pod. Started by the harness (`load.rs`), which documents the modes; prints
//! its count as one line of JSON, with `--live` another every 100 ms until all is done or its standard input closes.

mod resolve;
mod sockets;
mod tally;

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tally::Tally;
use weir_tests::monotonic_ns;
use weir_tests::socket::reset_on_close;
use weir_tests::wire::{self, Head, Otherwise, Random};

/// A connect or a read that takes longer has failed, unless `--timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two lines of a live count.
const TICK: Duration = Duration::from_millis(100);

/// What all threads work through.
struct Job {
    mode: String,
    targets: Vec<(SocketAddr, Option<String>)>,
    host: Option<String>,
    path: String,
    headers: String,
    /// Of how many users the requests are, in turn.
    users: Option<u64>,
    requests: u64,
    fresh: bool,
    bodies: Option<u64>,
    pace: Option<Duration>,
    timeout: Duration,
    live: bool,
    next: AtomicU64,
    stop: AtomicBool,
    tally: Tally,
}

impl Job {
    /// The number of the next request, or `None` when all are given out.
    fn take(&self) -> Option<u64> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.requests).then_some(number)
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().ok_or_else(|| io::Error::other("usage: weir-client MODE TARGET… [options]"))?;
    if mode == "sockets" {
        return sockets::run(&arguments.collect::<Vec<_>>());
    }
    if mode == "resolve" {
        return resolve::run(&arguments.collect::<Vec<_>>());
    }
    let (job, connections) = parse(mode, arguments)?;
    let job = Arc::new(job);
    let started = Instant::now();
    let workers: Vec<_> = (0..connections)
        .map(|worker| {
            let job = Arc::clone(&job);
            thread::spawn(move || match job.mode.as_str() {
                "http" => http(&job, worker, connections),
                "tcp" => each(&job, tcp_once),
                "half-close" => each(&job, half_close),
                "listen-first" => each(&job, listen_first),
                _ => each(&job, original_destination),
            })
        })
        .collect();
    let mut out = io::stdout();
    if job.live {
        let ender = Arc::clone(&job);
        thread::spawn(move || {
            let _end = io::stdin().read_to_end(&mut Vec::new());
            ender.stop.store(true, Ordering::Relaxed);
        });
        while !workers.iter().all(thread::JoinHandle::is_finished) {
            thread::sleep(TICK);
            writeln!(out, "{}", job.tally.json(started.elapsed()))?;
        }
    }
    for worker in workers {
        worker.join().map_err(|_| io::Error::other("a worker panicked"))?;
    }
    writeln!(out, "{}", job.tally.last_json(started.elapsed()))
}

fn parse(mode: String, mut arguments: impl Iterator<Item = String>) -> io::Result<(Job, u64)> {
    let mut connections = 1;
    let mut job = Job {
        mode,
        targets: Vec::new(),
        host: None,
        path: "/".into(),
        headers: String::new(),
        users: None,
        requests: 0,
        fresh: false,
        bodies: None,
        pace: None,
        timeout: TIMEOUT,
        live: false,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        tally: Tally::default(),
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| io::Error::other(format!("{argument} needs a value")));
        let number = |text: String| text.parse::<u64>().map_err(io::Error::other);
        match argument.as_str() {
            "--host" => job.host = Some(value()?),
            "--path" => job.path = value()?,
            "--header" => {
                job.headers.push_str(&value()?);
                job.headers.push_str("\r\n");
            }
            "--users" => job.users = Some(number(value()?)?.max(1)),
            "--requests" => job.requests = number(value()?)?,
            "--connections" => connections = number(value()?)?,
            "--bodies" => job.bodies = Some(number(value()?)?),
            "--pace" => job.pace = Some(Duration::from_secs(1) / number(value()?)?.max(1) as u32),
            "--timeout" => job.timeout = Duration::from_millis(number(value()?)?.max(1)),
            "--trace" => job.tally.trace(),
            "--fresh" => job.fresh = true,
            "--live" => job.live = true,
            target => {
                // ADDRESS, or ADDRESS=WHO where the answer must come from that version.
                let (address, who) = target.split_once('=').map_or((target, None), |(a, w)| (a, Some(w.to_owned())));
                job.targets.push((address.parse().map_err(|e| io::Error::other(format!("{target}: {e}")))?, who));
            }
        }
    }
    if job.targets.is_empty() {
        return Err(io::Error::other("no target"));
    }
    if job.requests == 0 {
        job.requests = if job.live { u64::MAX } else { 1 };
    }
    Ok((job, connections))
}

fn connect(job: &Job, target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, job.timeout)?;
    stream.set_read_timeout(Some(job.timeout))?;
    stream.set_write_timeout(Some(job.timeout))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One of `workers` threads of HTTP load: one connection, made again when it ends. With a pace they begin evenly spread
/// over its interval, so that a request that hangs for less than that does not thin out the load.
fn http(job: &Job, worker: u64, workers: u64) {
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15 ^ (worker + 1));
    let mut kept: Option<BufReader<TcpStream>> = None;
    let mut due = Instant::now() + job.pace.unwrap_or_default().mul_f64(worker as f64 / workers as f64);
    while let Some(number) = job.take() {
        if let Some(pace) = job.pace {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due += pace;
        }
        let request = Request::new(job, number, &mut random);
        let began = monotonic_ns();
        let reused = kept.is_some();
        let mut outcome = request.send(job, &mut kept);
        // RFC 9112, 9.3.1: a kept connection that was closed before the first byte of an answer means "not processed".
        if reused && matches!(&outcome, Err(e) if e.kind() == io::ErrorKind::ConnectionAborted) {
            job.tally.resent();
            kept = None;
            outcome = request.send(job, &mut kept);
        }
        match outcome {
            Ok((head, body)) => request.judge(job, &head, &body, began),
            Err(e) => {
                kept = None;
                job.tally.failed(&e, began);
            }
        }
    }
}

struct Request {
    bytes: Vec<u8>,
    body: Option<Vec<u8>>,
    user: Option<u64>,
}

impl Request {
    /// In the headers, `{n}` is the request's number and `{user}` that of its user.
    fn new(job: &Job, number: u64, random: &mut Random) -> Self {
        let user = job.users.map(|users| number % users);
        let mut headers = Cow::from(job.headers.as_str());
        if headers.contains('{') {
            let user = user.unwrap_or_default().to_string();
            headers = headers.replace("{n}", &number.to_string()).replace("{user}", &user).into();
        }
        let host = job.host.clone().unwrap_or_else(|| job.targets[0].0.to_string());
        let method = if job.bodies.is_some() { "POST" } else { "GET" };
        let mut bytes = format!("{method} {} HTTP/1.1\r\nHost: {host}\r\n{headers}", job.path).into_bytes();
        if job.fresh {
            bytes.extend_from_slice(b"Connection: close\r\n");
        }
        let body = job.bodies.map(|up_to| {
            // Mostly small, some large: a quarter of the exponent's range each, up to the limit itself.
            let limit = (up_to >> (random.below(4) * 5)).max(1);
            let size = random.below(limit + 1);
            random.bytes(size as usize)
        });
        if let Some(body) = &body {
            if random.below(2) == 0 {
                bytes.extend_from_slice(b"x-reply: chunked\r\n");
            }
            if random.below(2) == 0 {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                wire::write_chunked(&mut bytes, body).expect("a vector takes everything");
            } else {
                bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
            }
        } else {
            bytes.extend_from_slice(b"\r\n");
        }
        Self { bytes, body, user }
    }

    fn send(&self, job: &Job, kept: &mut Option<BufReader<TcpStream>>) -> io::Result<(Head, Vec<u8>)> {
        let mut peer = match kept.take() {
            Some(peer) => peer,
            None => BufReader::new(
                connect(job, job.targets[0].0).map_err(|e| io::Error::new(e.kind(), format!("connect: {e}")))?,
            ),
        };
        let unanswered = |e: io::Error| match e.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                io::Error::new(io::ErrorKind::ConnectionAborted, format!("{e}, before an answer"))
            }
            _ => e,
        };
        // Large bodies are written beside the reading, so that a peer that echoes early cannot lock up with us.
        let mut writer = peer.get_ref().try_clone()?;
        let (written, head) = thread::scope(|scope| {
            let writing = (self.bytes.len() > 8 * 1024).then(|| scope.spawn(|| writer.write_all(&self.bytes)));
            match writing {
                Some(writing) => {
                    let head = wire::read_head(&mut peer);
                    let body = head.and_then(|h| match h {
                        Some(h) => wire::read_body(&mut peer, &h, Otherwise::Close).map(|b| Some((h, b))),
                        None => Ok(None),
                    });
                    (writing.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked"))), body)
                }
                None => (peer.get_mut().write_all(&self.bytes), Ok(None)),
            }
        });
        written.map_err(unanswered)?;
        let (head, body) = if let Some(answer) = head.map_err(unanswered)? {
            answer
        } else {
            // With a timeout on the socket, a process that is stopped for a moment finds its reads interrupted.
            while let Err(error) = peer.fill_buf() {
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(unanswered(error));
                }
            }
            let closed = || io::Error::new(io::ErrorKind::ConnectionAborted, "closed before an answer");
            let head = wire::read_head(&mut peer)?.ok_or_else(closed)?;
            let body = wire::read_body(&mut peer, &head, Otherwise::Close)?;
            (head, body)
        };
        if !job.fresh && !head.closes() {
            *kept = Some(peer);
        }
        Ok((head, body))
    }

    fn judge(&self, job: &Job, head: &Head, body: &[u8], began: u64) {
        let status = head.status().unwrap_or_default();
        if status == 200 && self.body.as_deref().is_some_and(|sent| sent != body) {
            let sent = self.body.as_ref().map_or(0, Vec::len);
            job.tally
                .failed(&io::Error::other(format!("body of {sent} bytes came back as {} others", body.len())), began);
            return;
        }
        if let (Some(user), Some(pod)) = (self.user, head.get("x-pod")) {
            job.tally.of_user(user, pod);
        }
        job.tally.answered(Some(status), head.get("x-version"), head.get("x-pod"), began);
    }
}

/// One thread of a mode whose every attempt is a connection of its own.
fn each(job: &Job, once: fn(&Job, u64) -> io::Result<(String, String)>) {
    while let Some(number) = job.take() {
        let began = monotonic_ns();
        match once(job, number) {
            Ok((version, pod)) => job.tally.answered(None, Some(&version), Some(&pod), began),
            Err(e) => job.tally.failed(&e, began),
        }
        if let Some(pace) = job.pace {
            thread::sleep(pace);
        }
    }
}

/// Says a line, reads who answered and the line's echo.
fn tcp_once(job: &Job, number: u64) -> io::Result<(String, String)> {
    let stream = connect(job, job.targets[0].0)?;
    let mut peer = BufReader::new(stream);
    let line = format!("hello {number}\n");
    peer.get_mut().write_all(line.as_bytes())?;
    let who = who(&mut peer)?;
    let mut echoed = String::new();
    peer.read_line(&mut echoed)?;
    if echoed != line {
        return Err(io::Error::other(format!("sent {line:?}, got {echoed:?}")));
    }
    reset_on_close(peer.get_ref())?;
    Ok(who)
}

/// Sends random bytes, closes its own direction, and reads the same bytes until the other is closed.
fn half_close(job: &Job, number: u64) -> io::Result<(String, String)> {
    exchange(job, number, None)
}

/// The same, but says nothing before the origin has said who it is.
fn listen_first(job: &Job, number: u64) -> io::Result<(String, String)> {
    let mut peer = BufReader::new(connect(job, job.targets[0].0)?);
    let heard = who(&mut peer)?;
    exchange(job, number, Some((peer, heard)))
}

fn exchange(
    job: &Job,
    number: u64,
    heard: Option<(BufReader<TcpStream>, (String, String))>,
) -> io::Result<(String, String)> {
    let mut random = Random::new(0x5851_f42d_4c95_7f2d ^ (number + 1));
    let size = 1 + random.below(job.bodies.unwrap_or(1 << 20));
    let sent = random.bytes(size as usize);
    let (mut peer, mut known) = match heard {
        Some((peer, who)) => (peer, Some(who)),
        None => (BufReader::new(connect(job, job.targets[0].0)?), None),
    };
    let mut writer = peer.get_ref().try_clone()?;
    thread::scope(|scope| {
        let writing = scope.spawn(|| writer.write_all(&sent).and_then(|()| writer.shutdown(Shutdown::Write)));
        let who = known.take().map_or_else(|| who(&mut peer), Ok)?;
        let mut back = Vec::new();
        peer.read_to_end(&mut back)?;
        writing.join().map_err(|_| io::Error::other("the writer panicked"))??;
        if back == sent { Ok(who) } else { Err(io::Error::other(format!("{} of {size} bytes came back", back.len()))) }
    })
}

/// One request to a target chosen in turn: the answer must come from whom the target names, and the socket's peer must
/// be what was dialled.
fn original_destination(job: &Job, number: u64) -> io::Result<(String, String)> {
    let (target, expected) = &job.targets[number as usize % job.targets.len()];
    let stream = connect(job, *target)?;
    let peer_name = stream.peer_addr()?;
    if peer_name != *target {
        return Err(io::Error::other(format!("getpeername says {peer_name} for {target}")));
    }
    let mut peer = BufReader::new(stream);
    let host = job.host.clone().unwrap_or_else(|| target.to_string());
    write!(peer.get_mut(), "GET {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", job.path)?;
    let head = wire::read_head(&mut peer)?.ok_or(io::ErrorKind::ConnectionAborted)?;
    wire::read_body(&mut peer, &head, Otherwise::Close)?;
    let field = |name| head.get(name).unwrap_or_default().to_owned();
    let (status, version) = (head.status()?, field("x-version"));
    if status != 200 || expected.as_ref().is_some_and(|e| *e != version) {
        return Err(io::Error::other(format!("{target} answered {status} {version:?}, expected {expected:?}")));
    }
    reset_on_close(peer.get_ref())?;
    Ok((version, field("x-pod")))
}

/// `VERSION POD`
fn who(peer: &mut impl BufRead) -> io::Result<(String, String)> {
    let mut line = String::new();
    peer.read_line(&mut line)?;
    let parts = line.trim_end().split_once(' ').map(|(v, p)| (v.to_owned(), p.to_owned()));
    parts.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no line from the origin"))
}
