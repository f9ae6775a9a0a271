//! Where connections are parked of which nothing has been asked for a moment: sockets in one epoll set, and beside each
//! what is known of its connection, in one table. That set is itself in the runtime's, so that parking takes a lock which the
//! kernel has for all such sets: at most once a second for a connection. No task and no buffer is theirs, and nothing of them lies between what is
//! short-lived: a block of 100 bytes that stays keeps the whole page of memory around it. `http1` parks; one task of each
//! worker wakes up who has something to say.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpStream as StdStream;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

use super::http1;
use super::worker::{Connection, Worker};

/// Connections that are woken up at once, before everything else that is ready has its turn: each takes three system calls
/// and a new task, all of them some 30 µs, which count for no pod's turn.
const BATCH: usize = 16;
/// Places of an empty table that are kept: a few clients which ask every other second shall not have it made anew. One that
/// is not empty keeps all, 0.2 KiB each, and never has more than the worker may have connections.
const KEPT: usize = 64;

/// A worker's parked connections.
#[derive(Debug)]
pub(crate) struct Lot {
    ready: AsyncFd<Set>,
    parked: RefCell<Slab<Parked>>,
    /// No one has been idle for too long before this; `None` = nobody is parked.
    next_end: Cell<Option<Instant>>,
    /// Nobody is woken up any more.
    closed: Cell<bool>,
}

/// The epoll set, which is itself ready when somebody has something to say, and room for a batch.
#[derive(Debug)]
struct Set(RefCell<(Poll, Events)>);

impl AsRawFd for Set {
    fn as_raw_fd(&self) -> RawFd {
        self.0.borrow().0.as_raw_fd()
    }
}

#[derive(Debug)]
struct Parked {
    stream: StdStream,
    /// By itself, unless something that is not done yet, such as a mirror's copy, holds it too.
    connection: Result<Connection, Rc<Connection>>,
    /// When it has been idle for as long as it may be.
    end: Instant,
}

impl Lot {
    /// An empty one, of the runtime that this is called in.
    pub(crate) fn new() -> io::Result<Self> {
        let set = Set(RefCell::new((Poll::new()?, Events::with_capacity(BATCH))));
        // SAFETY: the descriptor is the set's own, which nothing replaces and which lives as long as the AsyncFd.
        let ready = unsafe { AsyncFd::register_with_interest(set, tokio::io::Interest::READABLE) }?;
        Ok(Self { ready, parked: RefCell::default(), next_end: Cell::new(None), closed: Cell::new(false) })
    }

    /// Keeps a connection until its client says something or ends, at most until `end`. Where that is not possible it is
    /// closed, as an idle connection may be at any time.
    pub(crate) fn park(&self, connection: Rc<Connection>, stream: TcpStream, end: Instant) {
        if self.closed.get() {
            return;
        }
        let worker = Rc::clone(&connection.worker);
        let mut parked = self.parked.borrow_mut();
        let place = parked.vacant_entry();
        let watched = stream.into_std().and_then(|stream| {
            let (poll, _) = &*self.ready.get_ref().0.borrow();
            poll.registry().register(&mut SourceFd(&stream.as_raw_fd()), Token(place.key()), Interest::READABLE)?;
            Ok(stream)
        });
        match watched {
            Ok(stream) => place.insert(Parked { stream, connection: Rc::try_unwrap(connection), end }),
            Err(error) => {
                worker.counters.parking_failures.add(1);
                return tracing::debug!(peer = %connection.peer, %error, "a connection cannot be parked");
            }
        };
        self.next_end.set(Some(self.next_end.get().map_or(end, |next| next.min(end))));
        worker.counters.connections_parked.set(parked.len() as u64);
        worker.counters.connections_parked_total.add(1);
    }

    /// Gives up to [`BATCH`] connections whose clients have said something a task again, and says how many.
    fn wake(&self, worker: &Rc<Worker>) -> io::Result<usize> {
        let (poll, events) = &mut *self.ready.get_ref().0.borrow_mut();
        poll.poll(events, Some(Duration::ZERO))?;
        let mut parked = self.parked.borrow_mut();
        for event in &*events {
            let Some(Parked { stream, connection, .. }) = parked.try_remove(event.token().0) else {
                continue;
            };
            if let Err(error) = poll.registry().deregister(&mut SourceFd(&stream.as_raw_fd())) {
                tracing::debug!(%error, "a connection cannot be taken from where it was parked");
                continue;
            }
            // Who leaves without a word needs nothing made for that.
            if event.is_read_closed() && stream.peek(&mut [0]).map_or(true, |n| n == 0) {
                continue;
            }
            let connection = connection.map_or_else(|shared| shared, Rc::new);
            let pod = Rc::clone(&connection.pod);
            worker.spawn_for(&pod, http1::resume(connection, stream));
        }
        settle(worker, &mut parked);
        Ok(events.iter().count())
    }

    /// Closes who has been idle for too long, and has not just said something.
    pub(crate) fn close_idle(&self, worker: &Rc<Worker>, now: Instant) {
        if self.next_end.get().is_none_or(|end| now < end) {
            return;
        }
        self.wake_all(worker);
        let mut next_end: Option<Instant> = None;
        let mut parked = self.parked.borrow_mut();
        parked.retain(|_, parked| {
            let stays = now < parked.end;
            if stays {
                next_end = Some(next_end.map_or(parked.end, |next| next.min(parked.end)));
            }
            stays
        });
        settle(worker, &mut parked);
        self.next_end.set(next_end);
    }

    /// Closes all, but for those that have said something already, and parks no other.
    pub(crate) fn close(&self, worker: &Rc<Worker>) {
        self.closed.set(true);
        self.wake_all(worker);
        self.clear(worker);
    }

    fn wake_all(&self, worker: &Rc<Worker>) {
        while matches!(self.wake(worker), Ok(BATCH)) {}
    }

    fn clear(&self, worker: &Worker) {
        // Out of the table first: what a connection's end does finds it whole.
        drop(self.parked.take());
        worker.counters.connections_parked.set(0);
    }
}

/// After some have left: says how many there are, and gives back the table when there are none.
fn settle(worker: &Worker, parked: &mut Slab<Parked>) {
    worker.counters.connections_parked.set(parked.len() as u64);
    if parked.is_empty() && parked.capacity() > KEPT {
        *parked = Slab::new();
    }
}

/// Wakes up connections for as long as the worker lives, whose end closes them.
pub(crate) async fn attend(worker: Rc<Worker>) {
    let attended = Attended(&worker);
    let lot = &attended.0.lot;
    while let Ok(mut ready) = lot.ready.readable().await {
        match lot.wake(&worker) {
            Ok(BATCH) => tokio::task::yield_now().await,
            Ok(_) => ready.clear_ready(),
            Err(error) => {
                tracing::error!(%error, "parked connections cannot be looked at");
                // They still have something to say.
                tokio::time::sleep(worker.limits.sweep).await;
            }
        }
    }
}

/// Parked connections hold their worker, and it holds them: whoever ends the task that attends to them breaks that circle.
/// A panic ends it too; then connections that are parked later get another one.
struct Attended<'w>(&'w Rc<Worker>);

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        self.0.lot.clear(self.0);
        if std::thread::panicking() {
            self.0.spawn(attend(Rc::clone(self.0)));
        }
    }
}
