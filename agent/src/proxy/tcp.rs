//! Connections whose bytes are not HTTP: to an endpoint, and then both ways until both ends are done. A FIN is passed
//! on as a FIN, a reset as a reset. Called by `listener`, and by `handler` for upgraded connections.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use weir_mesh::balance::affinity;
use weir_mesh::outlier::Outcome;
use weir_mesh::route;

use super::access_log::Entry;
use super::bulk::{self, Pipe};
use super::counters::Counter;
use super::detect::{self, Spoken};
use super::error::{Flag, Flags, Kind, ProxyError, Unanswered};
use super::limits::Limits;
use super::metrics::{Edge, Place, Shard};
use super::relay::{self, Broke};
use super::upstream::breakers::{self, Permit};
use super::upstream::connect;
use super::upstream::link::Link;
use super::upstream::target::{Active, Target};
use super::upstream::tls::{Sealing, Speaks};
use super::worker::{Connection, Worker};

/// As long as tokio's timers go.
const FOREVER: Duration = Duration::from_hours(24 * 365);

/// Which of a port's destinations a connection goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries<'n> {
    /// Bytes that are no HTTP.
    Bytes,
    /// TLS, for the host of this name; empty = it names none.
    Tls(&'n str),
    /// HTTP/2, which is split by connection: its requests are not told apart.
    Http2,
}

/// An open connection to an endpoint, counted as its load.
#[derive(Debug)]
pub(crate) struct Upstream {
    link: Link,
    /// Read from it already.
    ahead: BytesMut,
    entry: Option<Box<Entry>>,
    edge: Rc<Edge>,
    lifetime: Lifetime,
    active: Active,
    permit: Option<Permit>,
}

impl Upstream {
    /// What a server that speaks first speaks; see [`detect::greeting`].
    pub(crate) async fn greeting(&mut self, stall: Duration) -> Spoken {
        match &mut self.link {
            Link::Plain(stream) => detect::greeting(stream, stall).await,
            // Nobody can look at it without taking it.
            link @ Link::Tls(_) => detect::sealed_greeting(link, &mut self.ahead).await,
        }
    }
}

/// How long a connection may last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    /// While nothing moves.
    idle: Duration,
    /// At all.
    longest: Option<Duration>,
}

impl Lifetime {
    fn of(target: &Target, limits: &Limits) -> Self {
        let pool = target.connection_pool();
        // Zero is as good as no limit.
        let idle = pool.and_then(|pool| pool.tcp_idle_timeout).map(|idle| if idle.is_zero() { FOREVER } else { idle });
        Self { idle: idle.unwrap_or(limits.tcp_idle), longest: pool.and_then(|pool| pool.max_connection_duration) }
    }
}

/// A connection that leads nowhere.
pub(crate) struct Refused {
    error: ProxyError,
    entry: Option<Box<Entry>>,
    edge: Rc<Edge>,
    connection: Rc<Connection>,
}

impl Refused {
    /// Tells the client the only way that bytes allow.
    pub(crate) fn reset(mut self, client: TcpStream) {
        let kind = self.error.kind;
        tracing::debug!(destination = %self.connection.destination, error = %self.error, "connection refused");
        if let Some(entry) = &mut self.entry {
            entry.details = kind.details();
            entry.transport_failure = self.error.source.as_ref().map(ToString::to_string);
        }
        let tally = Tally::begin(&self.connection.worker, &self.edge);
        tally.end(kind.flag());
        record(&self.connection.worker, self.entry, kind.flag(), &Moved::default());
        reset(client);
    }
}

/// Serves a connection to its end. `prefix` was read from the client already; `upstream` may be open already.
pub(crate) async fn serve(
    connection: Rc<Connection>,
    client: TcpStream,
    prefix: Bytes,
    carries: Carries<'_>,
    upstream: Option<Upstream>,
) {
    let upstream = match upstream {
        Some(upstream) => upstream,
        None => match connect(&connection, carries).await {
            Ok(upstream) => upstream,
            Err(refused) => return refused.reset(client),
        },
    };
    let Upstream { link, ahead, entry, edge, lifetime, active, permit } = upstream;
    let worker = &connection.worker;
    let tally = Tally::begin(worker, &edge);
    let (flag, moved) = splice_for(worker, (client, prefix), (link, ahead.freeze()), lifetime, Some(&tally)).await;
    // Before anybody is told that it is over.
    drop((active, permit));
    tally.end(flag);
    record(worker, entry, flag, &moved);
}

fn record(worker: &Worker, entry: Option<Box<Entry>>, flag: Flag, moved: &Moved) {
    worker.counters.tcp_connections.add(1);
    worker.counters.flagged(flag.into());
    if let Some(mut entry) = entry {
        entry.flags = flag.into();
        entry.bytes_received = moved.received.get();
        entry.bytes_sent = moved.sent.get();
        if let Some(failure) = moved.failure.take() {
            entry.transport_failure = Some(failure);
        }
        worker.lines.push(&entry);
    }
}

/// Where the bytes go: an endpoint of the port's destinations for such a connection, or, on a port that nobody describes, where the
/// client wanted to go anyway.
pub(crate) async fn connect(connection: &Rc<Connection>, carries: Carries<'_>) -> Result<Upstream, Refused> {
    let worker = &connection.worker;
    let mut entry = worker.lines.wanted().then(|| {
        Box::new(Entry::new(Arc::clone(&connection.pod.source.name), connection.peer, connection.destination))
    });
    if let (Some(entry), Carries::Tls(name)) = (&mut entry, carries) {
        entry.server_name = (!name.is_empty()).then(|| name.into());
    }
    let mut place = Place::Unknown;
    let program = worker.program();
    let mut lifetime = Lifetime { idle: worker.limits.tcp_idle, longest: None };
    let connected = match target(connection, carries) {
        Ok(target) => {
            place = Place::from(&target);
            if let Some(entry) = &mut entry {
                entry.upstream_cluster = Some(target.name());
            }
            lifetime = Lifetime::of(&target, &worker.limits);
            connect_to(connection, &target, carries).await
        }
        Err(error) => Err(Unanswered { error, endpoint: None }),
    };
    let edge = |place, endpoint| worker.edges.edge(program.program(), &connection.pod.source, place, endpoint, true);
    match connected {
        Ok((link, endpoint, permit)) => {
            if let Some(entry) = &mut entry {
                entry.upstream_host = Some(endpoint);
            }
            let (edge, active) = (edge(place, Some(endpoint)), worker.balancing.begin(endpoint));
            Ok(Upstream { link, ahead: BytesMut::new(), entry, edge, lifetime, active, permit })
        }
        Err(Unanswered { error, endpoint }) => {
            if let Some(entry) = &mut entry {
                entry.upstream_host = endpoint;
            }
            let place = if endpoint.is_some() { place.unanswered() } else { place };
            Err(Refused { error, entry, edge: edge(place, endpoint), connection: Rc::clone(connection) })
        }
    }
}

fn target(connection: &Connection, carries: Carries<'_>) -> Result<Target, ProxyError> {
    let program = connection.worker.program();
    let Some(port) = program.port_of(connection.pod.source.view(), connection.destination) else {
        return Ok(Target::Passthrough(connection.destination));
    };
    let roll = connection.worker.roll();
    let dialled = connection.destination.ip();
    let destinations = match carries {
        Carries::Bytes => route::tcp_destinations(&program, port, dialled),
        Carries::Tls(name) => route::tls_destinations(&program, port, name, dialled),
        Carries::Http2 => &program.port(port).http2,
    };
    let (chosen, hash) = affinity::settle_connection(&program, destinations, connection.peer.ip(), roll);
    let cluster = chosen.ok_or(Kind::NoRoute)?.cluster.ok_or(Kind::NoCluster)?;
    Ok(Target::new(Rc::clone(&program), port, cluster, connection.destination, hash))
}

/// Tries further endpoints when a connect fails, as requests do.
async fn connect_to(
    connection: &Connection,
    target: &Target,
    carries: Carries<'_>,
) -> Result<(Link, SocketAddr, Option<Permit>), Unanswered> {
    let place = breakers::admit_bytes(target).map_err(|error| Unanswered { error, endpoint: None })?;
    let worker = &connection.worker;
    let ipv6 = connection.destination.ip().to_canonical().is_ipv6();
    let mut tried = SmallVec::<[SocketAddr; 4]>::new();
    let mut failure = ProxyError::new(Kind::NoHealthyUpstream);
    while tried.len() <= worker.limits.connect_retries
        && let Some(endpoint) = target.pick(worker, &connection.pod.source, ipv6, &tried)
    {
        let speaks = if carries == Carries::Http2 { Speaks::Http2 } else { Speaks::Bytes };
        let sealing = Sealing::of(target, None, endpoint, speaks);
        match connect::connect(worker, &connection.pod.source, endpoint, target, sealing).await {
            Ok(link) => {
                target.record(worker, endpoint, || Outcome::Connected);
                return Ok((link, endpoint, place));
            }
            Err(error) => {
                target.record(worker, endpoint, || error.outcome());
                failure = error;
                tried.push(endpoint);
            }
        }
    }
    Err(Unanswered { error: failure, endpoint: tried.last().copied() })
}

/// What was moved.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    pub(crate) received: Cell<u64>,
    pub(crate) sent: Cell<u64>,
    /// What broke an encrypted connection.
    pub(super) failure: RefCell<Option<String>>,
}

impl Moved {
    /// Notes what broke the server's side; says whether reading failed.
    fn broke(&self, broke: &Broke, of_server: bool) -> bool {
        if of_server {
            *self.failure.borrow_mut() = Some(format!("TLS_error: {}", broke.error));
        }
        broke.reading
    }
}

/// Copies both ways until both ends have finished, one has failed, or nothing moved for long. Each side comes with
/// bytes that were read from it already.
pub(crate) async fn splice(worker: &Worker, client: (TcpStream, Bytes), server: (Link, Bytes)) -> (Flag, Moved) {
    let lifetime = Lifetime { idle: worker.limits.tcp_idle, longest: None };
    splice_for(worker, client, server, lifetime, None).await
}

async fn splice_for(
    worker: &Worker,
    (mut client, from_client): (TcpStream, Bytes),
    (mut server, from_server): (Link, Bytes),
    lifetime: Lifetime,
    tally: Option<&Tally<'_>>,
) -> (Flag, Moved) {
    let moved = Moved::default();
    let limits = &worker.limits;
    let end = {
        let told_up = |bytes| tally.into_iter().for_each(|tally| tally.moved(|shard| shard.received(bytes)));
        let told_down = |bytes| tally.into_iter().for_each(|tally| tally.moved(|shard| shard.sent(bytes)));
        let counters = &worker.counters;
        let up = Meter(&moved.received, &counters.bytes_received, &counters.tcp_spliced, &told_up);
        let down = Meter(&moved.sent, &counters.bytes_sent, &counters.tcp_spliced, &told_down);
        let (client_read, client_write) = client.split();
        match &mut server {
            Link::Plain(server) => {
                let (server_read, server_write) = server.split();
                let up = one_way(client_read, server_write, from_client, up, limits);
                let down = one_way(server_read, client_write, from_server, down, limits);
                until_end(up, down, &moved, lifetime).await
            }
            Link::Tls(server) => {
                let (server_read, server_write) = tokio::io::split(&mut **server);
                let up = relay::one_way(client_read, server_write, from_client, limits, |bytes| up.add(bytes));
                let down = relay::one_way(server_read, client_write, from_server, limits, |bytes| down.add(bytes));
                let up = async { up.await.map_err(|broke| moved.broke(&broke, !broke.reading)) };
                let down = async { down.await.map_err(|broke| moved.broke(&broke, broke.reading)) };
                until_end(up, down, &moved, lifetime).await
            }
        }
    };
    match end {
        Ok(flag) => (flag, moved),
        Err(flag) => {
            // An end that failed did not finish: the other must not take it for one that did.
            reset(client);
            server.reset();
            (flag, moved)
        }
    }
}

/// Both directions to their ends, which say whether reading failed; or as long as the connection may last.
async fn until_end(
    up: impl Future<Output = Result<(), bool>>,
    down: impl Future<Output = Result<(), bool>>,
    moved: &Moved,
    lifetime: Lifetime,
) -> Result<Flag, Flag> {
    let up = async { up.await.map_err(|end| if end { Flag::DownstreamClosed } else { Flag::UpstreamClosed }) };
    let down = async { down.await.map_err(|end| if end { Flag::UpstreamClosed } else { Flag::DownstreamClosed }) };
    tokio::select! {
        both = futures_util::future::try_join(up, down) => both.map(|_| Flag::None),
        () = idle(moved, lifetime.idle) => Ok(Flag::None),
        () = tokio::time::sleep(lifetime.longest.unwrap_or(FOREVER)) => Ok(Flag::MaxDuration),
    }
}

/// Returns when nothing moved for the whole of `limit`. Compares counts, so that a read costs no look at the clock.
async fn idle(moved: &Moved, limit: Duration) {
    loop {
        let before = (moved.received.get(), moved.sent.get());
        tokio::time::sleep(limit).await;
        if before == (moved.received.get(), moved.sent.get()) {
            return;
        }
    }
}

/// One direction's count, the worker's, that of directions that went over to splice(2), and who else is told of bytes.
struct Meter<'a>(&'a Cell<u64>, &'a Counter, &'a Counter, &'a dyn Fn(u64));

impl Meter<'_> {
    fn add(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes as u64);
        self.1.add(bytes as u64);
        self.3(bytes as u64);
    }
}

/// A connection as Istio's metrics count it: bytes while they move, since it may last for days.
pub(crate) struct Tally<'a> {
    worker: &'a Worker,
    edge: &'a Edge,
}

impl<'a> Tally<'a> {
    fn begin(worker: &'a Worker, edge: &'a Edge) -> Self {
        if !worker.edges.count(edge, 0, Flags::default(), Shard::opened) {
            worker.counters.metrics_folded.add(1);
        }
        Self { worker, edge }
    }

    fn moved(&self, count: impl FnOnce(&Shard)) {
        self.worker.edges.count(self.edge, 0, Flags::default(), count);
    }

    fn end(self, flag: Flag) {
        self.worker.edges.count(self.edge, 0, flag.into(), Shard::closed);
    }
}

/// Copies to the end, and passes the end on. Fails with true when reading failed, false when writing did.
async fn one_way(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    prefix: Bytes,
    meter: Meter<'_>,
    limits: &Limits,
) -> Result<(), bool> {
    let (reading, writing) = (|_: io::Error| true, |_: io::Error| false);
    if !prefix.is_empty() {
        to.write_all(&prefix).await.map_err(writing)?;
        meter.add(prefix.len());
    }
    drop(prefix);
    let mut size = limits.tcp_buffer;
    let mut buffer = Vec::new();
    let mut moved = 0;
    loop {
        // A direction that waits holds no buffer.
        if buffer.capacity() == 0 {
            from.readable().await.map_err(reading)?;
            buffer.reserve_exact(size);
        }
        buffer.clear();
        let read = from.read_buf(&mut buffer).await.map_err(reading)?;
        if read == 0 {
            // A peer that has closed both ways already makes this fail; then reading from it says so.
            let _ = to.shutdown().await;
            return Ok(());
        }
        to.write_all(&buffer).await.map_err(writing)?;
        meter.add(read);
        moved += read;
        // Without a descriptor left for it, copying goes on.
        if moved >= limits.splice_after
            && read == size
            && let Ok(pipe) = Pipe::new()
        {
            drop(buffer);
            meter.2.add(1);
            bulk::one_way(&pipe, from.as_ref(), to.as_ref(), |bytes| meter.add(bytes)).await?;
            let _ = to.shutdown().await;
            return Ok(());
        }
        if read < size {
            buffer = Vec::new();
            size = limits.tcp_buffer;
        } else if size < limits.tcp_buffer_max {
            size = (size * 2).min(limits.tcp_buffer_max);
            buffer = Vec::with_capacity(size);
        }
    }
}

/// Closes with a reset.
fn reset(stream: TcpStream) {
    // When the option is refused the close is an ordinary one, which is the most that can be done.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}
