//! A worker's CPU time and its places for requests, shared out between pods. Connections are tasks of one runtime, which
//! serves them in the order in which they become ready: a pod with a thousand of them would have everybody else wait for a
//! thousand turns. Every poll of a connection's task goes through here; called by `worker` and `handler`.
//!
//! While one pod alone is at work nothing is measured and nobody waits. With several, a pod may take
//! [`Limits::pod_quantum`] in a round; what it has ready beyond that waits in a queue of its own, in its order. A round
//! ends when everything else that is ready has run and the sockets were looked at, so a pod below its share never waits
//! for more than one quantum of each of the others. Who took longer than its quantum owes the rest to the next rounds.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::limits::Limits;

/// So long a worker is taken for contended after another pod had a turn: a client which asks ten times a second is not
/// met by the whole queue of its neighbour each time.
const CONTENDED: Duration = Duration::from_secs(1);

/// One worker's order of turns.
#[derive(Debug)]
pub(crate) struct Turns {
    /// ns of the worker's time; 0 = everybody as he comes.
    quantum: u64,
    /// Places for requests.
    places: usize,
    taken: Cell<usize>,
    round: Cell<u64>,
    /// Who had the latest turn, by the address of its [`Share`]; it is only compared.
    latest: Cell<*const Share>,
    /// Ticks left for which turns are measured, and how many make [`CONTENDED`].
    contended: Cell<u128>,
    contended_ticks: u128,
    /// Pods of which somebody waits.
    waiting: RefCell<Vec<Rc<Share>>>,
    /// Somebody has begun to wait.
    asked: Notify,
}

/// What one pod has of a worker.
#[derive(Debug, Default)]
pub(crate) struct Share {
    /// Requests under way.
    requests: Cell<usize>,
    /// ns taken and not yet paid for by rounds, as of `round`.
    used: Cell<u64>,
    round: Cell<u64>,
    /// Tasks that wait for a turn.
    queue: RefCell<VecDeque<Rc<Ticket>>>,
    /// It is in the worker's list of those.
    listed: Cell<bool>,
}

/// One task's place in the order.
#[derive(Debug, Default)]
struct Ticket {
    state: Cell<State>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    Waits,
    /// It is its turn.
    Called,
}

impl Turns {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            quantum: u64::try_from(limits.pod_quantum.as_nanos()).unwrap_or(u64::MAX),
            places: limits.max_requests,
            taken: Cell::new(0),
            round: Cell::new(0),
            latest: Cell::new(std::ptr::null()),
            contended: Cell::new(0),
            contended_ticks: CONTENDED.as_nanos().div_ceil(limits.tick.as_nanos().max(1)),
            waiting: RefCell::default(),
            asked: Notify::new(),
        }
    }

    /// To be called every tick.
    pub(crate) fn tick(&self) {
        self.contended.set(self.contended.get().saturating_sub(1));
    }

    /// A turn, or a place in the queue for one.
    fn begin<'t>(&'t self, share: &'t Rc<Share>, ticket: &Rc<Ticket>, cx: &Context<'_>) -> Option<Turn<'t>> {
        let latest = self.latest.replace(Rc::as_ptr(share));
        if latest != Rc::as_ptr(share) && !latest.is_null() {
            self.contended.set(self.contended_ticks);
        }
        let measured = self.quantum > 0 && self.contended.get() > 0;
        match ticket.state.get() {
            State::Called => ticket.state.set(State::Free),
            State::Waits => return None,
            State::Free => {
                let passes = share.queue.borrow().is_empty() && (!measured || share.used(self) < self.quantum);
                if !passes {
                    self.wait(share, ticket, cx);
                    return None;
                }
            }
        }
        Some(Turn { turns: self, share, began: measured.then(Instant::now) })
    }

    fn wait(&self, share: &Rc<Share>, ticket: &Rc<Ticket>, cx: &Context<'_>) {
        ticket.state.set(State::Waits);
        ticket.waker.replace(Some(cx.waker().clone()));
        share.queue.borrow_mut().push_back(Rc::clone(ticket));
        if !share.listed.replace(true) {
            self.waiting.borrow_mut().push(Rc::clone(share));
            self.asked.notify_one();
        }
    }

    /// Begins a round: whoever owes nothing more gets a turn.
    fn next(&self) {
        self.round.set(self.round.get() + 1);
        self.waiting.borrow_mut().retain(|share| {
            share.call(self);
            let waits = !share.queue.borrow().is_empty();
            share.listed.set(waits);
            waits
        });
    }

    /// Begins rounds for as long as the worker lives and somebody waits.
    pub(crate) async fn rounds(&self) {
        loop {
            self.asked.notified().await;
            while !self.waiting.borrow().is_empty() {
                // Goes on behind everything that is ready, and after the sockets were looked at.
                tokio::task::yield_now().await;
                self.next();
            }
        }
    }

    /// A place for a request of this pod; `None` = it has its share. A pod may have half as many as are free, so that there
    /// always are some: alone a third of all, and less the more others have.
    pub(crate) fn place(&self, share: &Share) -> bool {
        let free = self.places.saturating_sub(self.taken.get());
        let fits = share.requests.get() * 2 < free;
        if fits {
            share.requests.set(share.requests.get() + 1);
            self.taken.set(self.taken.get() + 1);
        }
        fits
    }

    /// Gives back a place.
    pub(crate) fn leave(&self, share: &Share) {
        share.requests.set(share.requests.get() - 1);
        self.taken.set(self.taken.get() - 1);
    }
}

impl Share {
    /// ns that count in this round.
    fn used(&self, turns: &Turns) -> u64 {
        let rounds = turns.round.get() - self.round.replace(turns.round.get());
        self.used.set(self.used.get().saturating_sub(rounds.saturating_mul(turns.quantum)));
        self.used.get()
    }

    /// Calls the one who waits for longest, if the pod has not had its share. The next one is called at the end of its turn.
    fn call(&self, turns: &Turns) {
        if turns.quantum > 0 && self.used(turns) >= turns.quantum {
            return;
        }
        let called = self.queue.borrow_mut().pop_front();
        if let Some(ticket) = called {
            ticket.state.set(State::Called);
            if let Some(waker) = ticket.waker.take() {
                waker.wake();
            }
        }
    }
}

/// One poll of a task. Ends when it is dropped, be it by a panic.
struct Turn<'t> {
    turns: &'t Turns,
    share: &'t Share,
    /// `None` = nobody else is at work.
    began: Option<Instant>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(began) = self.began {
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.share.used.set(self.share.used(self.turns).saturating_add(took));
        }
        if self.share.listed.get() {
            self.share.call(self.turns);
        }
    }
}

/// A task that takes its pod's turns.
pub(crate) fn in_turn(
    turns: Rc<Turns>,
    share: Rc<Share>,
    task: impl Future<Output = ()> + 'static,
) -> impl Future<Output = ()> + 'static {
    let ticket = Rc::new(Ticket::default());
    // Boxed, so that there is room for it once.
    let mut task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(task);
    poll_fn(move |cx| match turns.begin(&share, &ticket, cx) {
        Some(_turn) => task.as_mut().poll(cx),
        None => Poll::Pending,
    })
}
