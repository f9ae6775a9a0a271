//! The running server: its state, its listener and its connections, on one runtime in a thread of its own. Made by the
//! handle in `mod.rs`, and by the binary.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::access::Access;
use super::counters::Tally;
use super::faults::Faults;
use super::options::Options;
use super::resources;
use super::serve;
use super::store::Store;
use super::write;

/// Connections that wait to be accepted: more than a test has clients.
const BACKLOG: i32 = 1024;
/// How long a listener may take to close; it takes microseconds.
const CLOSING: Duration = Duration::from_secs(10);
/// Namespaces that every cluster has.
const NAMESPACES: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

/// Whether the server can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    /// New connections are refused, those that are there go on.
    Refusing,
    /// New connections are refused, those that are there are cut.
    Stopped,
    Ended,
}

/// Ends open watches when its number changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cut {
    pub(super) number: u64,
    /// The connection breaks instead of the stream ending well.
    pub(super) abruptly: bool,
}

/// Everything that the connections share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) options: Options,
    pub(super) address: SocketAddr,
    pub(super) faults: Faults,
    pub(super) tally: Arc<Tally>,
    pub(super) access: Mutex<Access>,
    pub(super) cut: watch::Sender<Cut>,
    store: Mutex<Store>,
    life: watch::Sender<Life>,
    /// A listener that the runtime shall take over.
    listener: Mutex<Option<StdListener>>,
    /// Whether the runtime has a listener.
    listening: (Mutex<bool>, Condvar),
    /// Bound, never listening: keeps the port ours while nobody listens.
    _port: Socket,
}

impl Server {
    /// Starts a server on a thread of its own.
    ///
    /// # Errors
    /// When the address is taken, or the thread cannot be made.
    pub(super) fn start(options: Options, tls: Option<TlsAcceptor>) -> Result<(Arc<Self>, JoinHandle<()>)> {
        let port = inside(&options, || bind((options.address, options.port).into()))??;
        let address = port.local_addr()?.as_socket().context("an IP address was bound")?;
        let server = Arc::new(Self {
            address,
            faults: Faults::default(),
            tally: Arc::default(),
            access: Mutex::new(Access::new(options.rbac)),
            cut: watch::Sender::new(Cut::default()),
            store: Mutex::new(Store::new(resources::built_in(), options.history)),
            life: watch::Sender::new(Life::Stopped),
            listener: Mutex::new(None),
            listening: (Mutex::new(false), Condvar::new()),
            _port: port,
            options,
        });
        for namespace in NAMESPACES {
            let made = write::ensure_namespace(&mut server.store(), namespace);
            ensure!(made.is_ok(), "namespace {namespace}: {made:?}");
        }
        let running = Arc::clone(&server);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new()
            .name("test-apiserver".into())
            .spawn(move || runtime.block_on(run(running, tls)))
            .context("starting the thread of the API server")?;
        server.live(Life::Open)?;
        Ok((server, thread))
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn access(&self) -> MutexGuard<'_, Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens or closes the server, and returns when that is so.
    ///
    /// # Errors
    /// When the port cannot be bound again.
    pub(super) fn live(&self, life: Life) -> Result<()> {
        if life == Life::Open && *self.life.borrow() == Life::Open {
            return Ok(());
        }
        if life == Life::Open {
            let listener = inside(&self.options, || {
                let socket = bind(self.address)?;
                socket.listen(BACKLOG)?;
                socket.set_nonblocking(true)?;
                io::Result::Ok(StdListener::from(socket))
            })?;
            let listener = listener.with_context(|| format!("listening on {}", self.address))?;
            *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
        }
        self.life.send_replace(life);
        let (listening, changed) = &self.listening;
        let guard = listening.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = life == Life::Open;
        let waited = changed.wait_timeout_while(guard, CLOSING, |listening| *listening != wanted);
        let (_guard, late) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(!late.timed_out(), "the API server did not become {life:?} within {CLOSING:?}");
        Ok(())
    }

    fn listens(&self, value: bool) {
        let (listening, changed) = &self.listening;
        *listening.lock().unwrap_or_else(PoisonError::into_inner) = value;
        changed.notify_all();
    }

    /// Ends every watch that is open.
    pub(super) fn cut_watches(&self, abruptly: bool) {
        self.cut.send_modify(|cut| *cut = Cut { number: cut.number + 1, abruptly });
    }
}

/// Runs `work` in the network namespace that the options name.
fn inside<T: Send>(options: &Options, work: impl FnOnce() -> T + Send) -> Result<T> {
    match &options.netns {
        Some(netns) => netns.run(work),
        None => Ok(work()),
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

async fn run(server: Arc<Server>, tls: Option<TlsAcceptor>) {
    let mut life = server.life.subscribe();
    loop {
        let now = *life.borrow_and_update();
        if now == Life::Ended {
            return;
        }
        let handed = server.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = handed.and_then(|l| TcpListener::from_std(l).ok()) {
            server.listens(true);
            accept(&server, &listener, &mut life, tls.as_ref()).await;
            drop(listener);
            server.listens(false);
        } else if life.changed().await.is_err() {
            return;
        }
    }
}

/// Accepts until the server is to be something else than open.
async fn accept(
    server: &Arc<Server>,
    listener: &TcpListener,
    life: &mut watch::Receiver<Life>,
    tls: Option<&TlsAcceptor>,
) {
    let lives = life.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of descriptors: others have to give some back first.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                server.tally.connection();
                let _slower = stream.set_nodelay(true);
                let (server, life, tls) = (Arc::clone(server), lives.clone(), tls.cloned());
                tokio::spawn(async move {
                    match tls {
                        None => connection(server, stream, life).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                connection(server, stream, life).await;
                            }
                        }
                    }
                });
            }
            _ = life.wait_for(|l| *l != Life::Open) => return,
        }
    }
}

async fn connection<S>(server: Arc<Server>, stream: S, mut life: watch::Receiver<Life>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| serve::answer(Arc::clone(&server), request));
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let connection = connection.with_upgrades();
    tokio::select! {
        _broken = connection => {}
        // Dropped as they are, as when the process is killed.
        _ = life.wait_for(|l| matches!(l, Life::Stopped | Life::Ended)) => {}
    }
}
