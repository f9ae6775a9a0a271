//! The load: one thread over epoll, closed loop (each connection asks again when it has its answer) or open loop
//! (requests are due at random moments, whatever became of earlier ones, and their time counts from then on). Every
//! answer is checked. Used by `rounds` and by the suite `cost`.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::answer::{Head, Progress, Reader};
use crate::{mesh, process};

/// How long the thread sleeps when nothing happens: within this it notices that it shall end.
const IDLE: Duration = Duration::from_millis(50);
/// Requests that are due and wait for a connection. More is a subject that does not keep up; each is an error.
const MAX_DUE: usize = 100_000;
/// What one read takes from a socket.
const READ: usize = 256 * 1024;
/// Events of one look.
const EVENTS: usize = 256;

/// What to ask, and how often.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The subject.
    pub target: SocketAddr,
    /// Connections at once.
    pub connections: usize,
    /// The whole request.
    pub request: Vec<u8>,
    /// Bytes of body of a right answer.
    pub body: u64,
    /// A new connection for each request.
    pub fresh: bool,
    /// Requests a second; `None` = as many as it takes.
    pub rate: Option<u32>,
    /// The CPU of the thread.
    pub cpu: usize,
}

/// A request as all cases send it: of ten headers or so, like a small real one.
pub fn request(path: &str, rule: usize, close: bool) -> Vec<u8> {
    let (host, header, rule) = (mesh::last_host(), mesh::HEADER, mesh::route(rule));
    let connection = if close { "connection: close\r\n" } else { "" };
    format!(
        "GET {}{path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: weir-bench\r\naccept: */*\r\n\
         accept-language: en\r\nx-request-source: bench\r\n{header}: {rule}\r\n{connection}\r\n",
        mesh::PREFIX
    )
    .into_bytes()
}

/// What a load has counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Right answers of v1 and v2.
    pub right: [u64; 2],
    /// Everything else: wrong status, length or version, cut, refused.
    pub wrong: u64,
}

impl Count {
    /// Right answers.
    pub fn requests(self) -> u64 {
        self.right[0] + self.right[1]
    }

    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        let right = [0, 1].map(|n| self.right[n] - earlier.right[n]);
        Self { right, wrong: self.wrong - earlier.wrong }
    }
}

#[derive(Debug, Default)]
struct Shared {
    right: [AtomicU64; 2],
    wrong: AtomicU64,
    stop: AtomicBool,
    /// Microseconds of each open-loop request, until they are taken.
    latencies: Mutex<Vec<u32>>,
}

/// A running load; it ends when dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Load {
    /// Starts it.
    ///
    /// # Errors
    /// When a connection cannot be made.
    pub fn start(spec: Spec) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (connected, connecting) = std::sync::mpsc::channel();
        let for_thread = Arc::clone(&shared);
        // The thread connects by itself, on its CPU: subjects that steer by the client's CPU look at where that happens.
        let thread = std::thread::Builder::new().name("load".into()).spawn(move || {
            match process::pin_thread(spec.cpu).and_then(|()| Run::new(spec, for_thread)) {
                Ok(mut run) => {
                    let _heard = connected.send(Ok(()));
                    run.run()
                }
                Err(error) => {
                    let _heard = connected.send(Err(error));
                    Ok(())
                }
            }
        })?;
        let load = Self { shared, thread: Some(thread) };
        connecting.recv().context("the load ended before it connected")?.context("connecting")?;
        Ok(load)
    }

    /// What it has counted so far.
    pub fn count(&self) -> Count {
        let right = [0, 1].map(|n| self.shared.right[n].load(Relaxed));
        Count { right, wrong: self.shared.wrong.load(Relaxed) }
    }

    /// The times of open-loop requests since the last call, in microseconds.
    pub fn latencies(&self) -> Vec<u32> {
        std::mem::take(&mut *self.shared.latencies.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it failed by itself.
    pub fn stop(mut self) -> Result<Count> {
        self.shared.stop.store(true, Relaxed);
        let ended = self.thread.take().map_or(Ok(Ok(())), JoinHandle::join);
        ended.map_err(|_| anyhow::anyhow!("the load panicked"))??;
        Ok(self.count())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

struct Client {
    stream: TcpStream,
    reader: Reader,
    /// When the request under way was due.
    due: Option<Instant>,
}

struct Run {
    spec: Spec,
    shared: Arc<Shared>,
    epoll: std::os::fd::OwnedFd,
    clients: Vec<Client>,
    /// Clients without a request.
    idle: Vec<usize>,
    /// Requests that are due and have no client yet.
    due: VecDeque<Instant>,
    random: u64,
}

impl Run {
    fn new(spec: Spec, shared: Arc<Shared>) -> io::Result<Self> {
        // SAFETY: no preconditions; the result is checked.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and nobody else has it.
        let epoll = unsafe { std::os::fd::FromRawFd::from_raw_fd(epoll) };
        let (clients, idle, due) = (Vec::new(), Vec::new(), VecDeque::new());
        let mut run = Self { spec, shared, epoll, clients, idle, due, random: 0x9e37_79b9_7f4a_7c15 };
        for index in 0..run.spec.connections {
            let client = run.connect(index)?;
            run.clients.push(client);
            run.idle.push(index);
        }
        Ok(run)
    }

    fn connect(&self, index: usize) -> io::Result<Client> {
        let stream = TcpStream::connect(self.spec.target)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: index as u64 };
        let (epoll, socket) = (self.epoll.as_raw_fd(), stream.as_raw_fd());
        // SAFETY: both descriptors are open, and `event` is valid for the call. Closing the socket takes it out.
        if unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket, &raw mut event) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Client { stream, reader: Reader::default(), due: None })
    }

    fn run(&mut self) -> io::Result<()> {
        process::precise_timers();
        let mut buffer = vec![0; READ];
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let mut next = Instant::now();
        while !self.shared.stop.load(Relaxed) {
            let patience = match self.spec.rate {
                None => {
                    while let Some(index) = self.idle.pop() {
                        self.ask(index, None)?;
                    }
                    IDLE
                }
                Some(rate) => {
                    let now = Instant::now();
                    while next <= now {
                        self.fall_due(next);
                        next += self.pause(rate);
                    }
                    while let (false, Some(index)) = (self.due.is_empty(), self.idle.last().copied()) {
                        self.idle.pop();
                        let due = self.due.pop_front();
                        self.ask(index, due)?;
                    }
                    next.saturating_duration_since(Instant::now()).min(IDLE)
                }
            };
            let ready = self.wait(&mut events, patience)?;
            for event in &events[..ready] {
                self.hear(event.u64 as usize, &mut buffer)?;
            }
        }
        Ok(())
    }

    fn fall_due(&mut self, due: Instant) {
        if self.due.len() < MAX_DUE {
            self.due.push_back(due);
        } else {
            self.shared.wrong.fetch_add(1, Relaxed);
        }
    }

    /// Until the next request: exponentially distributed, so that requests come independently of each other.
    fn pause(&mut self, rate: u32) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        // 53 bits, the precision of the number, and never 0.
        let uniform = ((self.random >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-uniform.ln() / f64::from(rate))
    }

    fn wait(&self, events: &mut [libc::epoll_event], patience: Duration) -> io::Result<usize> {
        let timeout = libc::timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
        // SAFETY: `events` is valid for as many events as are said, `timeout` for reads; no signal mask.
        let ready = unsafe {
            libc::epoll_pwait2(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as i32,
                &raw const timeout,
                std::ptr::null(),
            )
        };
        if ready >= 0 {
            return Ok(ready as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) }
    }

    /// Requests are far smaller than a socket's buffer, so a short write is a failure like any other.
    fn ask(&mut self, index: usize, due: Option<Instant>) -> io::Result<()> {
        let client = &mut self.clients[index];
        client.due = due;
        match client.stream.write(&self.spec.request) {
            Ok(n) if n == self.spec.request.len() => Ok(()),
            _ => self.broke(index),
        }
    }

    fn hear(&mut self, index: usize, buffer: &mut [u8]) -> io::Result<()> {
        let client = &mut self.clients[index];
        let progress = match client.stream.read(buffer) {
            Ok(0) => Progress::Broken,
            Ok(n) => client.reader.take(&buffer[..n], self.spec.body),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(_) => Progress::Broken,
        };
        match progress {
            Progress::Partial => Ok(()),
            Progress::Broken => self.broke(index),
            Progress::Whole(head) => self.answered(index, head),
        }
    }

    fn answered(&mut self, index: usize, head: Head) -> io::Result<()> {
        let counter = if head.right { &self.shared.right[head.version] } else { &self.shared.wrong };
        counter.fetch_add(1, Relaxed);
        if let Some(due) = self.clients[index].due.take() {
            let micros = u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX);
            self.shared.latencies.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(micros);
        }
        if self.spec.fresh || head.closes {
            self.clients[index] = self.connect(index)?;
        }
        self.idle.push(index);
        Ok(())
    }

    fn broke(&mut self, index: usize) -> io::Result<()> {
        self.shared.wrong.fetch_add(1, Relaxed);
        self.clients[index] = self.connect(index)?;
        self.idle.push(index);
        Ok(())
    }
}

/// Connections that have had one answer each and then are idle, as long as they are held.
///
/// # Errors
/// When one gets no answer, or a wrong one.
pub fn idle_connections(target: SocketAddr, count: usize, request: &[u8], body: u64) -> Result<Vec<TcpStream>> {
    let mut buffer = vec![0; READ];
    let one = |buffer: &mut [u8]| {
        let mut stream = TcpStream::connect(target)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(request)?;
        let mut reader = Reader::default();
        loop {
            let n = stream.read(buffer)?;
            anyhow::ensure!(n > 0, "closed instead of an answer");
            match reader.take(&buffer[..n], body) {
                Progress::Partial => {}
                Progress::Whole(head) if head.right => return Ok(stream),
                other => anyhow::bail!("a wrong answer: {other:?}"),
            }
        }
    };
    (0..count).map(|_| one(&mut buffer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_an_open_loop_come_at_the_rate_that_was_asked_for() {
        let shared = Arc::new(Shared::default());
        let spec = Spec {
            target: ([127, 0, 0, 1], 9).into(),
            connections: 0,
            request: Vec::new(),
            body: 0,
            fresh: false,
            rate: Some(1000),
            cpu: 0,
        };
        let mut run = Run::new(spec, shared).expect("no connection, no failure");
        let total: Duration = (0..100_000).map(|_| run.pause(1000)).sum();
        assert!((99.0..101.0).contains(&total.as_secs_f64()), "{total:?}");
    }
}
