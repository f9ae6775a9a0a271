//! One kind, kept as the API server has it: a list, then a watch from there, and again when the place is lost. A list
//! that is read anew replaces what is known when it is whole, so that nothing ever seems to be gone in between.
//!
//! ```text
//!   list (streamed, else in pages) ──► watch ──closed──► watch from the last version
//!        ▲                              │
//!        └──────── 410 Gone ◄───────────┤
//!                                       └──cut, refused──► wait, watch from the last version
//! ```

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use weir_mesh::store::{ObjectId, Reader, Reading, ResourceId, Version};

use super::backoff::{Backoff, spread};
use super::client::{Api, Error, Status};
use super::health::Health;
use super::known::{Known, Listing};
use super::outbox::Outbox;
use super::wire::{Bookmark, Line, Lines, Page};

/// Objects in a page: what the API server and its own clients use.
const PAGE: usize = 500;
/// Ten million objects: a server that never comes to the end of its list is broken.
const MAX_PAGES: usize = 20_000;
/// Watches are begun anew after four to five minutes, not all at once: an API server ends them at 30 minutes, and a
/// balancer in between may forget a connection after five.
const WATCH: Duration = Duration::from_mins(4);
const WATCH_SPREAD: Duration = Duration::from_secs(50);
/// The server ends a watch itself; this long after that it is taken for dead.
const OVERDUE: Duration = Duration::from_secs(10);
/// Between two objects of a list that is streamed.
const LIST_SILENCE: Duration = Duration::from_secs(30);
/// A watch that held this long, or brought an event, was well: what ended it is not counted against the next. A list
/// that was not read to its end is none, however long it took: an API server that forgets it in the middle (410) is
/// busy, and must not be asked for the same again at once.
const HELD: Duration = Duration::from_secs(1);
/// After a connection was cut: the agents of a cluster come back within this time, not at once.
const RECONNECT_SPREAD: Duration = Duration::from_millis(200);
/// When one kind has an answer again, the others of this agent ask within this time. Agents do not find out at the same
/// moment, so this is no rush.
const BACK_SPREAD: Duration = Duration::from_millis(500);
/// All agents lose their place at once when an API server starts; lists are the dearest thing to ask for.
const RELIST_SPREAD: Duration = Duration::from_secs(1);
/// After so many events in a row that make no sense, the objects are listed anew.
const MAX_GARBLED: u32 = 3;

const OBJECTS: &str = "application/json";
/// Names and labels alone: a kind that is only told of may have large objects.
const NAMES: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const NAME_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// What all kinds share.
pub(super) struct Common {
    pub(super) api: Api,
    pub(super) outbox: Arc<Outbox>,
    pub(super) health: Arc<Health>,
    pub(super) reader: Mutex<Reader>,
    /// Something hints that other kinds are served than before.
    pub(super) rediscover: Notify,
    /// Somebody who had no answer has one again: the others need not wait to the end.
    pub(super) back: Notify,
}

/// One kind.
pub(super) struct Reflector {
    pub(super) common: Arc<Common>,
    pub(super) resource: ResourceId,
    pub(super) version: &'static str,
    /// Outlives the task: when the kind goes, its objects go.
    pub(super) known: Arc<Mutex<Known>>,
}

/// Where the watch goes on.
#[derive(Debug, Default)]
struct Place {
    /// `None` = with a list.
    version: Option<String>,
    /// The server has answered in this session.
    answered: bool,
    /// It has told something new.
    progressed: bool,
    /// A list that was streamed broke off: it is tried in pages before it is streamed again.
    broke_off: bool,
}

impl Place {
    fn held(&self, lasted: Duration) -> bool {
        self.answered && self.version.is_some() && (self.progressed || lasted >= HELD)
    }

    /// Versions of one API server are numbers that grow; a bookmark that is late must not lead back.
    fn advance(&mut self, version: &str) {
        let number = |text: &str| text.parse::<u64>().ok();
        let older = |held: &String| number(version).zip(number(held)).is_some_and(|(new, held)| new < held);
        if !version.is_empty() && !self.version.as_ref().is_some_and(older) {
            self.version = Some(version.to_owned());
        }
    }
}

impl Reflector {
    /// Follows the kind until it is dropped.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        let mut place = Place::default();
        let mut garbled = 0;
        // Whether another kind's answer may end the wait: not twice in a row, and never when the server has named a time.
        let mut patient = false;
        loop {
            let begun = Instant::now();
            (place.answered, place.progressed) = (false, false);
            let ended = self.session(&mut place).await;
            let held = place.held(begun.elapsed());
            if held {
                backoff.reset();
            }
            let wait = match ended {
                Ok(()) if held => spread(RECONNECT_SPREAD),
                Ok(()) => backoff.next(None),
                Err(error) => {
                    patient |= error.retry_after().is_some();
                    garbled = if matches!(error, Error::Garbled(_)) { garbled + 1 } else { 0 };
                    if error.code() == 410 || garbled >= MAX_GARBLED {
                        place.version = None;
                    }
                    self.after(&error, &place, held, &mut backoff).await
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => patient = false,
                () = self.common.back.notified(), if !patient => {
                    tokio::time::sleep(spread(BACK_SPREAD).min(wait)).await;
                    patient = true;
                }
            }
        }
    }

    /// What to do about an error, and how long to wait.
    async fn after(&self, error: &Error, place: &Place, held: bool, backoff: &mut Backoff) -> Duration {
        let kind = self.resource.resource().kind;
        tracing::debug!(kind, %error, held, "watch ended");
        match error.code() {
            410 if held => return spread(RELIST_SPREAD),
            410 => return spread(RELIST_SPREAD) + backoff.next(None),
            404 => self.common.rediscover.notify_one(),
            _ => {}
        }
        if held && matches!(error, Error::Transport(_)) {
            // Only when the next attempt fails, too, is the server away.
            return spread(RECONNECT_SPREAD);
        }
        if !(place.answered && matches!(error, Error::Transport(_))) {
            self.common.health.failed(Some(self.resource), error);
        }
        if matches!(error, Error::Transport(_)) || error.code() == 401 {
            self.common.api.reopen().await;
        }
        backoff.next(error.retry_after())
    }

    async fn session(&self, place: &mut Place) -> Result<(), Error> {
        if place.version.is_none() && self.common.api.streams() && !place.broke_off {
            match self.watch(place).await {
                // Not allowed, or not known: lists are asked for in pages from now on.
                Err(error) if !place.answered && matches!(error.code(), 400 | 415 | 422) => {
                    tracing::debug!(%error, "lists are read in pages");
                    self.common.api.set_streams(false);
                }
                ended => {
                    place.broke_off = place.answered && place.version.is_none();
                    return ended;
                }
            }
        }
        if place.version.is_none() {
            place.broke_off = false;
            place.version = Some(self.list(place).await?);
        }
        self.watch(place).await
    }

    /// Lists in pages; returns the version of the list.
    async fn list(&self, place: &mut Place) -> Result<String, Error> {
        let mut listing = Listing::default();
        let (mut version, mut token) = (String::new(), String::new());
        for _ in 0..MAX_PAGES {
            let mut path = format!("{}?limit={PAGE}", self.path());
            if !token.is_empty() {
                path.push_str("&continue=");
                encode(&token, &mut path);
            }
            let body = self.common.api.get(&path, if self.is_metadata() { NAME_LIST } else { OBJECTS }).await?;
            self.reached(place);
            let page = Page::parse(&body)?;
            for item in page.items() {
                self.listed(&mut listing, item)?;
            }
            if version.is_empty() {
                version = page.metadata.resource_version;
            }
            token = page.metadata.continue_token;
            if token.is_empty() {
                self.finish(listing);
                return Ok(version);
            }
            // A page is some milliseconds of work; other kinds want to be heard, too.
            tokio::task::yield_now().await;
        }
        Err(Error::Garbled(format!("the list has no end after {MAX_PAGES} pages")))
    }

    /// Watches from the place, or from the beginning with a list that is streamed. Returns when the server ends it.
    async fn watch(&self, place: &mut Place) -> Result<(), Error> {
        let lasts = WATCH + spread(WATCH_SPREAD);
        let mut path = format!("{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={}", self.path(), lasts.as_secs());
        let mut listing = None;
        if let Some(version) = &place.version {
            path.push_str("&resourceVersion=");
            encode(version, &mut path);
        } else {
            path.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
            listing = Some(Listing::default());
        }
        let silence = if listing.is_some() { LIST_SILENCE } else { lasts + OVERDUE };
        let accept = if self.is_metadata() { NAMES } else { OBJECTS };
        let mut lines = Lines::of(self.common.api.watch(&path, accept, silence).await?);
        self.reached(place);
        self.common.health.update(self.resource, |kind| kind.watches += 1);
        while let Some(text) = lines.next().await? {
            let line = Line::parse(&text)?;
            match &*line.kind {
                "BOOKMARK" => {
                    let bookmark: Bookmark = line.object_as();
                    if bookmark.ends_the_list()
                        && let Some(listing) = listing.take()
                    {
                        self.finish(listing);
                        lines.pieces().set_silence(lasts + OVERDUE);
                    }
                    if listing.is_none() {
                        place.advance(&bookmark.version());
                    }
                }
                "ERROR" => return Err(line.object_as::<Status>().into_error()),
                "ADDED" | "MODIFIED" if listing.is_some() => {
                    if let Some(listing) = &mut listing {
                        self.listed(listing, line.object())?;
                    }
                }
                // The place does not move before the list is whole: who watched on from there would never see the rest.
                "DELETED" if listing.is_some() => {
                    if let Some(listing) = &mut listing {
                        let reading = self.read(line.object())?;
                        self.known().unlisted(listing, reading);
                    }
                }
                "ADDED" | "MODIFIED" => self.event(place, line.object(), Known::changed)?,
                "DELETED" => self.event(place, line.object(), Known::deleted)?,
                other => return Err(Error::Garbled(format!("an event of type {other:?}"))),
            }
        }
        match listing {
            Some(_) => Err(Error::Transport("the list broke off".to_owned())),
            None => Ok(()),
        }
    }

    fn event(
        &self,
        place: &mut Place,
        text: &str,
        change: impl FnOnce(&mut Known, Reading) -> Option<(ObjectId, Version)>,
    ) -> Result<(), Error> {
        let reading = self.read(text)?;
        place.advance(&reading.resource_version);
        place.progressed = true;
        let change = change(&mut self.known(), reading);
        self.common.outbox.push(change);
        self.count();
        Ok(())
    }

    fn listed(&self, listing: &mut Listing, text: &str) -> Result<(), Error> {
        let reading = self.read(text)?;
        self.known().listed(listing, reading);
        Ok(())
    }

    fn finish(&self, listing: Listing) {
        let changes = self.known().finish(listing);
        tracing::debug!(kind = self.resource.resource().kind, changes = changes.len(), "listed");
        self.common.outbox.push(changes);
        self.common.outbox.listed(self.resource);
        self.common.health.update(self.resource, |kind| kind.lists += 1);
        self.count();
    }

    fn read(&self, text: &str) -> Result<Reading, Error> {
        let mut reader = self.common.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.read(self.resource, self.version, text).map_err(|error| Error::Garbled(format!("an object: {error}")))
    }

    fn reached(&self, place: &mut Place) {
        place.answered = true;
        if self.common.health.reached(Some(self.resource)) {
            self.common.back.notify_waiters();
        }
    }

    fn count(&self) {
        let objects = self.known().len();
        self.common.health.update(self.resource, |kind| kind.objects = objects);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> String {
        self.resource.resource().path(self.version)
    }

    /// Servers can leave out the rest, of which a node's is ten times as much.
    fn is_metadata(&self) -> bool {
        self.resource.resource().is_metadata()
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.common.rediscover.notify_one();
        }
    }
}

/// Appends a query's value.
pub(super) fn encode(text: &str, to: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            to.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(to, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_forgotten_in_the_middle_counts_as_a_failure() {
        let listed = Place { answered: true, version: Some("7".into()), ..Place::default() };
        assert!(listed.held(HELD) && !listed.held(HELD / 2));
        let unfinished = Place { answered: true, ..Place::default() };
        assert!(!unfinished.held(HELD * 60), "pages came, and the list has no end");
    }

    #[test]
    fn a_late_bookmark_leads_not_back() {
        let mut place = Place::default();
        for (told, expected) in [("9", "9"), ("12", "12"), ("10", "12"), ("", "12"), ("x1", "x1"), ("3", "3")] {
            place.advance(told);
            assert_eq!(place.version.as_deref(), Some(expected), "after {told:?}");
        }
    }

    #[test]
    fn tokens_survive_a_query() {
        let mut path = String::new();
        encode("aZ9-_.~=/+ ä", &mut path);
        assert_eq!(path, "aZ9-_.~%3D%2F%2B%20%C3%A4");
    }
}
