//! The body of a request that may be sent more than once: it streams to the first upstream as it comes from the client,
//! and what went by is kept, up to a limit, so that it can be read from the beginning again. Made by `handler` for routes
//! that ask for retries or a timeout, polled by hyper.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use super::body::{Body, BodyError};
use super::worker::{Connection, Signal, Worker};

/// See the module.
pub(crate) struct Replay {
    state: RefCell<State>,
    /// Raised when the client has sent all of it.
    ended: Signal,
    /// The length that the client announced.
    len: Option<u64>,
}

struct State {
    incoming: Incoming,
    connection: Rc<Connection>,
    kept: Rc<Kept>,
    /// Who waits for the whole of it.
    waiting: Vec<oneshot::Sender<Whole>>,
    trailers: Option<HeaderMap>,
    /// It was too long: it cannot be read again.
    lost: bool,
    ended: bool,
    /// Which reader may read. An upstream connection that was given up may still hold its own for a moment.
    reader: u32,
}

/// Puts a body that can be read again in the place of one that cannot. `None`: the request has none.
pub(crate) fn of(connection: &Rc<Connection>, request: &mut Request<Body>) -> Option<Rc<Replay>> {
    match std::mem::replace(request.body_mut(), Body::Empty) {
        Body::Downstream(incoming, _) => {
            let replay = Replay::new(incoming, Rc::clone(connection));
            *request.body_mut() = Body::Replayed(replay.read().expect("nobody has read it yet"));
            Some(replay)
        }
        Body::Replayed(reader) => {
            let replay = Rc::clone(&reader.replay);
            *request.body_mut() = Body::Replayed(reader);
            Some(replay)
        }
        other => {
            *request.body_mut() = other;
            None
        }
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Replay {
    fn new(incoming: Incoming, connection: Rc<Connection>) -> Rc<Self> {
        let len = incoming.size_hint().exact();
        let limits = &connection.worker.limits;
        // Nothing is kept of what is known to be too long.
        let lost = len.is_some_and(|len| len > limits.max_replay as u64);
        let kept = Kept { pieces: RefCell::default(), bytes: Cell::new(0), worker: Rc::clone(&connection.worker) };
        let state = State {
            incoming,
            connection,
            kept: Rc::new(kept),
            waiting: Vec::new(),
            trailers: None,
            lost,
            ended: false,
            reader: 0,
        };
        Rc::new(Self { state: RefCell::new(state), ended: Signal::default(), len })
    }

    /// Reads it from the beginning, and makes any other reader fail; `None` when it was too long to be kept.
    pub(crate) fn read(self: &Rc<Self>) -> Option<Reader> {
        let mut state = self.state.borrow_mut();
        if state.lost && state.reader > 0 {
            return None;
        }
        state.reader += 1;
        Some(Reader { replay: Rc::clone(self), number: state.reader, position: 0, read: 0, done: false })
    }

    /// All of it, once it is there; fails when it is too long to be kept, or is never there.
    pub(crate) fn whole(&self) -> oneshot::Receiver<Whole> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.borrow_mut();
        if !state.lost {
            state.waiting.push(sender);
        }
        receiver
    }

    /// Returns once the client has sent all of it.
    pub(crate) async fn ended(&self) {
        self.ended.wait().await;
    }
}

impl State {
    /// Keeps what goes by, as long as there is room.
    fn keep(&mut self, data: &Bytes) {
        if !self.lost && !self.kept.add(data) {
            self.lost = true;
            self.kept.clear();
            self.waiting.clear();
        }
    }

    fn end(&mut self, ended: &Signal) {
        self.ended = true;
        self.connection.unread.set(false);
        ended.raise();
        for waiting in self.waiting.drain(..) {
            // Who does not wait any more does not want it.
            let _ = waiting.send(Whole { kept: Rc::clone(&self.kept), trailers: self.trailers.clone() });
        }
    }
}

/// What went by, counted as the worker's.
struct Kept {
    pieces: RefCell<Vec<Bytes>>,
    bytes: Cell<usize>,
    worker: Rc<Worker>,
}

impl Kept {
    /// False: there is no room for it.
    fn add(&self, data: &Bytes) -> bool {
        let (bytes, of_worker) = (self.bytes.get() + data.len(), self.worker.kept.get() + data.len());
        if bytes > self.worker.limits.max_replay || of_worker > self.worker.limits.replay_per_worker {
            return false;
        }
        self.bytes.set(bytes);
        self.worker.kept.set(of_worker);
        self.pieces.borrow_mut().push(data.clone());
        true
    }

    fn clear(&self) {
        self.worker.kept.set(self.worker.kept.get() - self.bytes.replace(0));
        self.pieces.borrow_mut().clear();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.clear();
    }
}

/// All of a body.
pub(crate) struct Whole {
    kept: Rc<Kept>,
    trailers: Option<HeaderMap>,
}

impl Whole {
    /// One like it, in one piece.
    pub(crate) fn body(&self) -> Body {
        let pieces = self.kept.pieces.borrow();
        let data = match &**pieces {
            [one] => one.clone(),
            many => many.concat().into(),
        };
        Body::whole(data, self.trailers.clone())
    }
}

/// One way through a [`Replay`].
#[derive(Debug)]
pub(crate) struct Reader {
    replay: Rc<Replay>,
    number: u32,
    /// Of the next kept piece.
    position: usize,
    /// Bytes.
    read: u64,
    done: bool,
}

impl Reader {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut guard = self.replay.state.borrow_mut();
        let state = &mut *guard;
        if state.reader != self.number {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        let pieces = state.kept.pieces.borrow();
        if let Some(piece) = pieces.get(self.position).cloned() {
            self.position += 1;
            self.read += piece.len() as u64;
            self.done = state.ended && state.trailers.is_none() && self.position == pieces.len();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        drop(pieces);
        if state.ended {
            let trailers = state.trailers.clone().filter(|_| !self.done);
            self.done = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = match ready!(Pin::new(&mut state.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => {
                state.connection.unread.set(false);
                state.end(&self.replay.ended);
                self.done = true;
                return Poll::Ready(None);
            }
        };
        if let Some(data) = frame.data_ref() {
            state.connection.received(data.len() as u64);
            self.read += data.len() as u64;
            state.keep(data);
            self.position = state.kept.pieces.borrow().len();
        } else if let Some(trailers) = frame.trailers_ref() {
            state.trailers = Some(trailers.clone());
        }
        if state.incoming.is_end_stream() || frame.is_trailers() {
            state.connection.unread.set(false);
            state.end(&self.replay.ended);
            // A frame of trailers is passed on now, and is the last.
            self.done = true;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.done
    }

    /// The same for each reader, whatever is kept: the framing of all of them is the first one's.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.replay.len.map_or_else(SizeHint::new, |len| SizeHint::with_exact(len.saturating_sub(self.read)))
    }
}
