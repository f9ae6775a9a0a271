//! watch: a body that follows the history of a table, with bookmarks, initial events and every way to end. Called by
//! `serve`. A watch keeps a position, not a queue: one that reads slowly costs nothing, and is told 410 when the history
//! has gone past it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::counters::{Cell, OpenWatch};
use super::faults::{Bookmarks, Garbage};
use super::object::{Key, Object, View};
use super::read::{Body, PIECE, spoil, table};
use super::request::Target;
use super::selector::Selector;
use super::server::{Cut, Server};
use super::status::Status;
use super::store::{Change, ChangeKind, Store};

/// Changes taken from the history under one lock.
const BATCH: usize = 256;
/// Where the client names no end: the real server picks one between 30 and 60 minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(30);

/// A watch that is open, or will be when its body is read.
#[derive(Debug)]
pub(super) struct Watch {
    server: Arc<Server>,
    id: Arc<str>,
    view: View,
    selector: Selector,
    namespace: Option<Arc<str>>,
    initial: std::vec::IntoIter<Arc<Object>>,
    /// The version with which the initial events end, if the client asked to be told.
    initial_end: Option<u64>,
    /// Number of the change that comes next.
    next: u64,
    /// Changes up to this version are not news.
    since: u64,
    /// What the last bookmark said.
    marked: u64,
    news: watch::Receiver<u64>,
    cut: watch::Receiver<Cut>,
    bookmarks: bool,
    bookmark_at: Instant,
    deadline: Instant,
    /// Sent last, instead of events.
    failed: Option<Status>,
    ended: bool,
    cell: Arc<Cell>,
    _open: OpenWatch,
}

/// Decides where a watch begins.
///
/// # Errors
/// 400 for parameters that exclude each other; 410 where the server is told to say so before the stream opens.
pub(super) fn open(server: &Arc<Server>, store: &Store, target: &Target, cell: Arc<Cell>) -> Result<Watch, Status> {
    let (table, query, now) = (table(store, target)?, &target.query, store.rv());
    let version = query.version()?;
    let streaming = query.initial_events == Some(true);
    if query.initial_events.is_some() && query.version_match != "NotOlderThan" {
        return Err(Status::invalid("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
    }
    if query.initial_events.is_none() && !query.version_match.is_empty() {
        return Err(Status::invalid(
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ));
    }
    let from_state = streaming || (version.unwrap_or_default() == 0 && query.initial_events.is_none());
    if let Some(wanted) = version.filter(|v| streaming && *v > now) {
        return Err(Status::too_large(wanted, now));
    }
    let (mut initial, mut failed, mut next) = (Vec::new(), None, table.now());
    if from_state {
        let start: Key = ("".into(), "".into());
        let picked = |o: &Object| target.selector.matches(o);
        initial = table.page(now, &start, target.namespace.as_deref(), 0, picked)?.items;
    } else if let Some(since) = version.filter(|v| *v > 0) {
        match table.position(since) {
            Ok(position) => next = position,
            Err(gone) if server.options.gone_before_stream => return Err(gone),
            Err(gone) => failed = Some(gone),
        }
    }
    let started = Instant::now();
    Ok(Watch {
        id: Arc::clone(&target.resource.id),
        view: target.view.clone(),
        selector: target.selector.clone(),
        namespace: target.namespace.clone(),
        initial: initial.into_iter(),
        initial_end: (streaming && query.bookmarks).then_some(now),
        next,
        since: if from_state { now } else { version.unwrap_or_default() },
        marked: if from_state { now } else { version.unwrap_or(now) },
        news: table.subscribe(),
        cut: server.cut.subscribe(),
        bookmarks: query.bookmarks,
        bookmark_at: started + server.options.bookmark_every,
        deadline: started + query.timeout_seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
        failed,
        ended: false,
        cell,
        _open: server.tally.watch(target.id()),
        server: Arc::clone(server),
    })
}

/// Sends it.
pub(super) fn send(watch: Watch) -> Body {
    let pieces = stream::try_unfold(watch, |mut watch| async move {
        let piece = watch.piece().await?;
        Ok::<_, io::Error>(piece.map(|bytes| {
            watch.cell.sent(bytes.len());
            (Frame::data(Bytes::from(bytes)), watch)
        }))
    });
    StreamBody::new(pieces).boxed_unsync()
}

impl Watch {
    /// The next bytes, nothing at the end, an error where the connection shall be cut.
    async fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        if let Some(status) = self.failed.take() {
            self.ended = true;
            event(&mut out, "ERROR", |out| out.extend_from_slice(status.json().to_string().as_bytes()));
            return Ok(Some(out));
        }
        if self.initial(&mut out) {
            return Ok(Some(out));
        }
        loop {
            if self.ended {
                return Ok(None);
            }
            self.news.borrow_and_update();
            match self.drain(&mut out) {
                Drained::Nothing => {}
                Drained::Some => {
                    if !out.is_empty() {
                        let delay = self.server.faults.watch_delay(&self.id);
                        if !delay.is_zero() {
                            sleep(delay).await;
                        }
                        return Ok(Some(out));
                    }
                    continue;
                }
                Drained::Withdrawn => return Ok(None),
            }
            let wake = if self.bookmarks { self.bookmark_at.min(self.deadline) } else { self.deadline };
            tokio::select! {
                closed = self.news.changed() => if closed.is_err() { return Ok(None) },
                _ = self.cut.changed() => {
                    return if self.cut.borrow().abruptly { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(None) };
                }
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    self.ended = now >= self.deadline;
                    if self.bookmarks {
                        self.bookmark_at = now + self.server.options.bookmark_every;
                        self.bookmark(&mut out);
                    }
                    if !out.is_empty() {
                        return Ok(Some(out));
                    }
                }
            }
        }
    }

    /// Appends initial events, and the bookmark that ends them. Whether there was anything.
    fn initial(&mut self, out: &mut Vec<u8>) -> bool {
        while out.len() < PIECE {
            let Some(object) = self.initial.next() else { break };
            self.object(out, "ADDED", &object);
        }
        if self.initial.len() == 0
            && let Some(version) = self.initial_end.take()
        {
            self.mark(out, version, json!({"k8s.io/initial-events-end": "true"}));
        }
        !out.is_empty()
    }

    fn drain(&mut self, out: &mut Vec<u8>) -> Drained {
        let server = Arc::clone(&self.server);
        let store = server.store();
        let Some(table) = store.table(&self.id) else {
            return Drained::Withdrawn;
        };
        let Some(changes) = table.changes(self.next, BATCH) else {
            let gone = Status::expired(self.since, table.oldest());
            drop(store);
            self.ended = true;
            event(out, "ERROR", |out| out.extend_from_slice(gone.json().to_string().as_bytes()));
            return Drained::Some;
        };
        if changes.is_empty() {
            self.since = self.since.max(store.rv());
            return Drained::Nothing;
        }
        drop(store);
        self.next += changes.len() as u64;
        for change in changes {
            if change.object.rv <= self.since {
                continue;
            }
            self.since = change.object.rv;
            if let Some(kind) = self.seen(&change) {
                self.object(out, kind, &change.object);
            }
        }
        Drained::Some
    }

    /// What a change is to this watch: an object may come into its selection or leave it.
    fn seen(&self, change: &Change) -> Option<&'static str> {
        if self.namespace.as_ref().is_some_and(|ns| *ns != change.object.key.0) {
            return None;
        }
        let before = change.before.as_ref().is_some_and(|o| self.selector.matches(o));
        let after = change.kind != ChangeKind::Deleted && self.selector.matches(&change.object);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
        }
    }

    fn object(&self, out: &mut Vec<u8>, kind: &str, object: &Object) {
        match self.server.faults.garbage("watch", &self.id) {
            None => event(out, kind, |out| self.view.write(object, out)),
            Some(Garbage::Truncated) => {
                let whole = spoil(Garbage::Truncated, &self.view, object);
                out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
                out.extend_from_slice(&whole);
                out.push(b'\n');
            }
            Some(garbage) => event(out, kind, |out| out.extend_from_slice(&spoil(garbage, &self.view, object))),
        }
    }

    fn bookmark(&mut self, out: &mut Vec<u8>) {
        let version = self.since;
        match self.server.faults.bookmarks() {
            Bookmarks::Never => return,
            Bookmarks::Normal => self.mark(out, version, Value::Null),
            Bookmarks::Twice => {
                self.mark(out, version, Value::Null);
                self.mark(out, version, Value::Null);
            }
            Bookmarks::Late => self.mark(out, self.marked, Value::Null),
        }
        self.marked = version;
    }

    fn mark(&self, out: &mut Vec<u8>, version: u64, annotations: Value) {
        let mut object = json!({
            "kind": &*self.view.kind,
            "apiVersion": self.view.api_version,
            "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null},
        });
        if !annotations.is_null() {
            object["metadata"]["annotations"] = annotations;
        }
        event(out, "BOOKMARK", |out| out.extend_from_slice(object.to_string().as_bytes()));
    }
}

enum Drained {
    Nothing,
    /// Changes, which need not have left bytes.
    Some,
    /// The resource is no longer served.
    Withdrawn,
}

fn event(out: &mut Vec<u8>, kind: &str, object: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
    object(out);
    out.extend_from_slice(b"}\n");
}
