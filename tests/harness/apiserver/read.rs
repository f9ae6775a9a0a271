//! get and list: pages of one consistent version, streamed from stored bytes. Called by `serve`.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::counters::Cell;
use super::faults::Garbage;
use super::object::{Key, Object, View};
use super::request::Target;
use super::server::Server;
use super::status::Status;
use super::store::{Store, Table};

/// What is sent. An error cuts the connection.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Bytes after which a piece of a list or of a watch is handed to the connection.
pub(super) const PIECE: usize = 64 << 10;

/// A body that is known whole.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// One object.
pub(super) fn get(store: &Store, target: &Target) -> Result<Vec<u8>, Status> {
    let object = table(store, target)?.get(&target.key()?).ok_or_else(|| target.not_found())?;
    Ok(render(&target.view, object))
}

/// The bytes of an object under a view.
pub(super) fn render(view: &View, object: &Object) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + 128);
    view.write(object, &mut out);
    out
}

/// The table of a target, which may have been withdrawn since it was found.
pub(super) fn table<'s>(store: &'s Store, target: &Target) -> Result<&'s Table, Status> {
    store.table(target.id()).ok_or_else(Status::no_such_path)
}

/// A list that was decided on and is yet to be sent.
#[derive(Debug)]
pub(super) struct List {
    head: String,
    items: Vec<Arc<Object>>,
}

/// Decides what a list holds.
///
/// # Errors
/// 400 for parameters that exclude each other, 410 for a version or page that is forgotten, 504 for a version that is
/// not reached.
pub(super) fn list(store: &Store, target: &Target) -> Result<List, Status> {
    let (table, query) = (table(store, target)?, &target.query);
    let Plan { at, from, limit, before } = plan(store, target)?;
    let namespace = target.namespace.as_deref();
    let page = table.page(at, &from, namespace, limit, |o| target.selector.matches(o))?;
    let mut metadata = json!({"resourceVersion": at.to_string()});
    if let Some(next) = page.next {
        let sent = before + page.items.len() as u64;
        metadata["continue"] = format!("{at}:{sent}:{}/{}", next.0, next.1).into();
        // Only where the server need not look at every object, as in the real one.
        if target.selector.is_empty() && namespace.is_none() {
            metadata["remainingItemCount"] = (table.len() as u64).saturating_sub(sent).into();
        }
    }
    debug_assert!(query.limit == 0 || limit == 0 || page.items.len() <= limit);
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        target.view.kind, target.view.api_version
    );
    Ok(List { head, items: page.items })
}

/// Which version a list shows, where it begins, how much it may hold and how much came in earlier pages.
struct Plan {
    at: u64,
    from: Key,
    limit: usize,
    before: u64,
}

fn plan(store: &Store, target: &Target) -> Result<Plan, Status> {
    let (query, now) = (&target.query, store.rv());
    let start: Key = ("".into(), "".into());
    let bad = |why: &str| Err(Status::bad_request(why));
    if !query.continued.is_empty() {
        if !query.version_match.is_empty() || !matches!(query.version()?, None | Some(0)) {
            return bad("specifying resource version is not allowed when using continue");
        }
        let Some((at, before, from)) = continued(&query.continued) else {
            return bad("continue key is not valid");
        };
        return Ok(Plan { at, from, limit: query.limit, before });
    }
    let at = match (query.version()?, query.version_match.as_str()) {
        (None, "") => now,
        (None, _) => return bad("resourceVersionMatch is forbidden unless resourceVersion is provided"),
        (Some(0), "Exact") => return bad("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""),
        (Some(wanted), _) if wanted > now => return Err(Status::too_large(wanted, now)),
        // From the watch cache, which does not page.
        (Some(0), _) => return Ok(Plan { at: now, from: start, limit: 0, before: 0 }),
        (Some(wanted), "Exact") => wanted,
        (Some(wanted), "") if query.limit > 0 => wanted,
        (Some(_), "" | "NotOlderThan") => now,
        (Some(_), _) => return bad("unknown resourceVersionMatch"),
    };
    Ok(Plan { at, from: start, limit: query.limit, before: 0 })
}

fn continued(token: &str) -> Option<(u64, u64, Key)> {
    let mut parts = token.splitn(3, ':');
    let (at, before, key) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
    let (namespace, name) = key.split_once('/')?;
    Some((at, before, (namespace.into(), name.into())))
}

/// Sends a list, piece by piece.
pub(super) fn send(server: Arc<Server>, target: &Target, list: List, cell: Arc<Cell>) -> Body {
    let sending = Sending {
        server,
        view: target.view.clone(),
        id: Arc::clone(&target.resource.id),
        head: Some(list.head),
        items: list.items.into_iter(),
        cell,
        ended: false,
    };
    let pieces = stream::unfold(sending, |mut sending| async {
        let piece = sending.next()?;
        Some((Ok::<_, io::Error>(Frame::data(Bytes::from(piece))), sending))
    });
    StreamBody::new(pieces).boxed_unsync()
}

struct Sending {
    server: Arc<Server>,
    view: View,
    id: Arc<str>,
    head: Option<String>,
    items: std::vec::IntoIter<Arc<Object>>,
    cell: Arc<Cell>,
    ended: bool,
}

impl Sending {
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        let mut out = Vec::with_capacity(PIECE + (PIECE >> 2));
        let mut first = false;
        if let Some(head) = self.head.take() {
            out.extend_from_slice(head.as_bytes());
            first = true;
        }
        while out.len() < PIECE {
            let Some(object) = self.items.next() else {
                out.extend_from_slice(b"]}\n");
                self.ended = true;
                break;
            };
            if !first {
                out.push(b',');
            }
            first = false;
            match self.server.faults.garbage("list", &self.id) {
                None => self.view.write_item(&object, &mut out),
                Some(Garbage::Truncated) => {
                    out.extend_from_slice(&spoil(Garbage::Truncated, &self.view, &object));
                    self.ended = true;
                    break;
                }
                Some(garbage) => out.extend_from_slice(&spoil(garbage, &self.view, &object)),
            }
        }
        self.cell.sent(out.len());
        Some(out)
    }
}

/// The length of the annotation of [`Garbage::Huge`].
const HUGE: usize = 1 << 20;

/// An object as it should not be.
pub(super) fn spoil(garbage: Garbage, view: &View, object: &Object) -> Vec<u8> {
    let mut bytes = render(view, object);
    if garbage == Garbage::Truncated {
        bytes.truncate(bytes.len() / 2);
        return bytes;
    }
    let mut value: Value = serde_json::from_slice(&bytes).expect("what was serialised can be read");
    match garbage {
        Garbage::WrongTypes => {
            value["metadata"]["labels"] = json!(7);
            for (field, wrong) in [("spec", json!("text")), ("status", json!([1])), ("endpoints", json!({"a": 1}))] {
                value[field] = wrong;
            }
        }
        Garbage::UnknownKind => {
            value["apiVersion"] = "example.invalid/v9".into();
            value["kind"] = "Mystery".into();
        }
        Garbage::Nameless => value["metadata"]["name"] = Value::Null,
        Garbage::Huge => value["metadata"]["annotations"]["example.invalid/huge"] = "x".repeat(HUGE).into(),
        Garbage::Truncated => {}
    }
    value.to_string().into_bytes()
}
