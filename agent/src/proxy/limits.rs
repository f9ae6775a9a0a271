//! Every limit and timeout of the proxy, each with its reason. Read by all of `proxy`; overridden through
//! [`super::ProxyConfig`].

use std::time::Duration;

/// From the first byte of a request head to its last. Longer is a slow client on purpose (slowloris) or a broken one;
/// an idle keep-alive connection does not count, it has no first byte.
pub const DEFAULT_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Header lines of one message. Envoy's default; more is answered 431.
pub const DEFAULT_MAX_HEADERS: usize = 100;
/// What hyper takes at most without being told. Told a number, be it the same, it fills tables of that many entries for
/// every message: a fifth of the instructions of a small request.
pub(crate) const HYPER_MAX_HEADERS: usize = 100;
/// Bytes of a message head. Envoy's default; more is answered 431.
pub const DEFAULT_MAX_HEAD: usize = 60 * 1024;
/// Bytes that hyper reads ahead or holds back of a message, for each direction of a connection. Must hold a head.
pub const DEFAULT_BUFFER: usize = 64 * 1024;
/// A keep-alive connection without a request. Envoy's default; shorter would race clients that pool connections.
pub const DEFAULT_IDLE_DOWNSTREAM: Duration = Duration::from_hours(1);
/// Silence after which an HTTP/1 connection is parked: hyper's buffers, 20 KiB, are given back, and made anew for its next
/// request. Long enough that a client that asks every second does not pay for it, short enough that a burst's memory goes.
pub const DEFAULT_PARK_AFTER: Duration = Duration::from_secs(1);
/// Connections that a worker has parked since the allocator last gave pages back, before it does again: 128 hold 2.5 MiB.
pub const DEFAULT_TRIM_AFTER_PARKED: u64 = 128;
/// And no sooner than this: it walks the heap, a millisecond for some tens of MiB.
pub const DEFAULT_TRIM_PAUSE: Duration = Duration::from_secs(5);
/// After an answer to a request that was not read to its end: how long what the client still sends is read and thrown away,
/// so that it finds the answer and not a reset. A local client writes what [`DEFAULT_LINGER_BYTES`] allows in a tenth of it.
pub const DEFAULT_LINGER: Duration = Duration::from_secs(5);
/// The same without a byte from the client: it has seen the answer, and does not care that the connection is to be closed.
/// Longer than the 200 ms to 600 ms after which a lost segment is sent again.
pub const DEFAULT_LINGER_SILENCE: Duration = Duration::from_secs(1);
/// How much of it is read: sixteen times what is kept of a body, some 5 ms of a core. A client that sends more without
/// looking at the answer learns of it by the reset.
pub const DEFAULT_LINGER_BYTES: usize = 16 * 1024 * 1024;
/// Silence after which the server may be the one that speaks first: its connection is opened then. Longer than a
/// round trip within a cluster with room for a busy client, short enough that a greeting is not missed. It decides
/// nothing by itself: a client that speaks later is still understood.
pub const DEFAULT_DETECT_SILENCE: Duration = Duration::from_millis(100);
/// Silence in the middle of bytes that may yet become HTTP: then they are what they look like, bytes. One lost
/// segment is sent again after 200 ms to 600 ms.
pub const DEFAULT_DETECT_STALL: Duration = Duration::from_secs(1);
/// Idle connections kept for one endpoint, pod and worker. More than that are a burst that is over.
pub const DEFAULT_IDLE_PER_ENDPOINT: usize = 64;
/// Idle upstream connections of a worker altogether, which bounds its file descriptors.
pub const DEFAULT_IDLE_PER_WORKER: usize = 2048;
/// How long an upstream connection is kept idle. Below the 60 s after which many servers close theirs, so that we
/// close first and the race between their FIN and our request stays rare.
pub const DEFAULT_IDLE_UPSTREAM: Duration = Duration::from_secs(50);
/// How often idle upstream connections are looked through.
pub const DEFAULT_SWEEP: Duration = Duration::from_secs(1);
/// Connect timeout for destinations that no cluster describes. Istio's default for clusters.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Further endpoints that are tried when the connect of a TCP connection fails. Istio's default for requests (`attempts: 2`, `connect-failure`).
pub const DEFAULT_CONNECT_RETRIES: usize = 2;
/// Bytes of a request's body that are kept so that it can be sent again, or to a mirror; a longer one is sent once.
/// Envoy's default for what it buffers.
pub const DEFAULT_MAX_REPLAY: usize = 1024 * 1024;
/// The same of all requests of a worker, so that large uploads to routes with retries cannot fill the node's memory.
pub const DEFAULT_REPLAY_PER_WORKER: usize = 32 * 1024 * 1024;
/// Copies of requests to mirrors under way on one worker; more are not made. At 1 MiB of body each they take no more than
/// what is kept of bodies altogether, and a mirror that hangs cannot gather them.
pub const DEFAULT_MAX_MIRRORS: u64 = 256;
/// How long a mirror may take for its answer, which nobody waits for. Envoy's default for a route.
pub const DEFAULT_MIRROR_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections of one worker, both protocols; above it connections wait in the listen queue. At 30 KiB for an HTTP
/// connection with its buffers this is 300 MiB at worst.
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;
/// Connections of one pod on one worker: a third of the worker's, so that no pod can starve the node.
pub const DEFAULT_MAX_CONNECTIONS_PER_POD: usize = 3_333;
/// Requests under way on one worker, upgraded connections apart; a pod has at most half as many as are free, and is
/// answered 503 beyond that. Alone it has a third, as many as it may have connections, so that it meets this limit only
/// when others have requests under way too.
pub const DEFAULT_MAX_REQUESTS: usize = 10_000;
/// What a pod may take of a worker's time before others that are ready have their turn; 0 = no turns are taken. Some ten
/// requests: a neighbour's waits for no more than that, and looking at the sockets after it costs a hundredth of it.
pub const DEFAULT_POD_QUANTUM: Duration = Duration::from_micros(200);
/// The first buffer of a TCP direction: a page or two hold what most protocols send at once.
pub const DEFAULT_TCP_BUFFER: usize = 8 * 1024;
/// What the buffer doubles up to while each read fills it.
pub const DEFAULT_TCP_BUFFER_MAX: usize = 64 * 1024;
/// What a TCP direction carries before it goes over to splice(2): less than this is done before its pipe has paid.
pub const DEFAULT_SPLICE_AFTER: usize = 64 * 1024;
/// A TCP connection over which nothing moved. Istio's default.
pub const DEFAULT_TCP_IDLE: Duration = Duration::from_hours(1);
/// How often a worker says that it is alive. A tenth of the 500 ms after which the kernel takes it for dead.
pub const DEFAULT_TICK: Duration = Duration::from_millis(50);
/// First pause after a failed accept (EMFILE and the like); doubles up to [`DEFAULT_ACCEPT_BACKOFF_MAX`].
pub const DEFAULT_ACCEPT_BACKOFF: Duration = Duration::from_millis(10);
/// The longest pause: what a client waits at most once descriptors are free again.
pub const DEFAULT_ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How busy a worker may be, in percent of its CPU, so that connections from that CPU still come to it; beyond it they are
/// spread over all. 0 = they always are.
pub const DEFAULT_STEER_UNTIL: u32 = 80;
/// Over what time that is looked at: long enough that one large response does not count.
pub const DEFAULT_STEER_LOOK: Duration = Duration::from_millis(200);
/// Workers: the proxy shares the node with the pods, and two cores carry some 100,000 requests a second.
pub const DEFAULT_WORKERS: usize = 2;

/// The limits in force. Fields are described at the constants of the same name.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is described at its DEFAULT constant")]
pub struct Limits {
    pub header_timeout: Duration,
    pub max_headers: usize,
    pub max_head: usize,
    /// At least 8 KiB: hyper refuses less.
    pub buffer: usize,
    pub idle_downstream: Duration,
    pub park_after: Duration,
    pub trim_after_parked: u64,
    pub trim_pause: Duration,
    pub linger: Duration,
    pub linger_silence: Duration,
    pub linger_bytes: usize,
    pub detect_silence: Duration,
    pub detect_stall: Duration,
    pub idle_per_endpoint: usize,
    pub idle_per_worker: usize,
    pub idle_upstream: Duration,
    pub sweep: Duration,
    pub connect_timeout: Duration,
    pub connect_retries: usize,
    pub max_replay: usize,
    pub replay_per_worker: usize,
    pub max_mirrors: u64,
    pub mirror_timeout: Duration,
    pub max_connections: usize,
    pub max_connections_per_pod: usize,
    pub max_requests: usize,
    pub pod_quantum: Duration,
    pub tcp_buffer: usize,
    pub tcp_buffer_max: usize,
    pub splice_after: usize,
    pub tcp_idle: Duration,
    pub steer_until: u32,
    pub steer_look: Duration,
    pub tick: Duration,
    pub accept_backoff: Duration,
    pub accept_backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: DEFAULT_HEADER_TIMEOUT,
            max_headers: DEFAULT_MAX_HEADERS,
            max_head: DEFAULT_MAX_HEAD,
            buffer: DEFAULT_BUFFER,
            idle_downstream: DEFAULT_IDLE_DOWNSTREAM,
            park_after: DEFAULT_PARK_AFTER,
            trim_after_parked: DEFAULT_TRIM_AFTER_PARKED,
            trim_pause: DEFAULT_TRIM_PAUSE,
            linger: DEFAULT_LINGER,
            linger_silence: DEFAULT_LINGER_SILENCE,
            linger_bytes: DEFAULT_LINGER_BYTES,
            detect_silence: DEFAULT_DETECT_SILENCE,
            detect_stall: DEFAULT_DETECT_STALL,
            idle_per_endpoint: DEFAULT_IDLE_PER_ENDPOINT,
            idle_per_worker: DEFAULT_IDLE_PER_WORKER,
            idle_upstream: DEFAULT_IDLE_UPSTREAM,
            sweep: DEFAULT_SWEEP,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            connect_retries: DEFAULT_CONNECT_RETRIES,
            max_replay: DEFAULT_MAX_REPLAY,
            replay_per_worker: DEFAULT_REPLAY_PER_WORKER,
            max_mirrors: DEFAULT_MAX_MIRRORS,
            mirror_timeout: DEFAULT_MIRROR_TIMEOUT,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_connections_per_pod: DEFAULT_MAX_CONNECTIONS_PER_POD,
            max_requests: DEFAULT_MAX_REQUESTS,
            pod_quantum: DEFAULT_POD_QUANTUM,
            tcp_buffer: DEFAULT_TCP_BUFFER,
            tcp_buffer_max: DEFAULT_TCP_BUFFER_MAX,
            splice_after: DEFAULT_SPLICE_AFTER,
            tcp_idle: DEFAULT_TCP_IDLE,
            steer_until: DEFAULT_STEER_UNTIL,
            steer_look: DEFAULT_STEER_LOOK,
            tick: DEFAULT_TICK,
            accept_backoff: DEFAULT_ACCEPT_BACKOFF,
            accept_backoff_max: DEFAULT_ACCEPT_BACKOFF_MAX,
        }
    }
}
