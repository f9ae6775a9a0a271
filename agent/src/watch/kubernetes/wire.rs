//! What the API server sends: pages of lists, lines of watches. Cut into the texts of single objects, which are read
//! one by one, so that one that makes no sense spoils no other.

use std::borrow::Cow;

use bytes::{Buf, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Error, Pieces};

/// The longest line: etcd refuses objects above 1.5 MiB, whose JSON may be some times larger.
const MAX_LINE: usize = 16 << 20;

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page<'t> {
    #[serde(default)]
    pub(super) metadata: ListMeta,
    /// An empty list is written as null.
    #[serde(borrow, default)]
    items: Option<Vec<&'t RawValue>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) continue_token: String,
}

impl<'t> Page<'t> {
    pub(super) fn parse(body: &'t [u8]) -> Result<Self, Error> {
        serde_json::from_slice(body).map_err(|error| Error::Garbled(format!("a list: {error}")))
    }

    /// The text of each object.
    pub(super) fn items(&self) -> impl Iterator<Item = &'t str> {
        self.items.iter().flatten().map(|item| item.get())
    }
}

/// One line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'t> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'t, str>,
    #[serde(borrow)]
    object: &'t RawValue,
}

/// What a bookmark tells.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Bookmark {
    metadata: BookmarkMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BookmarkMeta {
    resource_version: String,
    annotations: std::collections::BTreeMap<String, String>,
}

impl Bookmark {
    pub(super) fn version(self) -> String {
        self.metadata.resource_version
    }

    /// Everything that was there when the watch began has been sent.
    pub(super) fn ends_the_list(&self) -> bool {
        self.metadata.annotations.get("k8s.io/initial-events-end").is_some_and(|value| value == "true")
    }
}

impl<'t> Line<'t> {
    pub(super) fn parse(text: &'t [u8]) -> Result<Self, Error> {
        serde_json::from_slice(text).map_err(|error| Error::Garbled(format!("an event: {error}")))
    }

    /// The object's text.
    pub(super) fn object(&self) -> &'t str {
        self.object.get()
    }

    /// The object as something else than one of the kind that is watched.
    pub(super) fn object_as<T: Default + Deserialize<'t>>(&self) -> T {
        serde_json::from_str(self.object.get()).unwrap_or_default()
    }
}

/// Cuts a watch into lines.
pub(super) struct Lines<'a> {
    pieces: Pieces<'a>,
    buffer: BytesMut,
    /// Bytes at the beginning of the buffer that hold no end of line.
    looked_at: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn of(pieces: Pieces<'a>) -> Self {
        Self { pieces, buffer: BytesMut::new(), looked_at: 0 }
    }

    pub(super) fn pieces(&mut self) -> &mut Pieces<'a> {
        &mut self.pieces
    }

    /// The next line that is not empty; `None` at the end. What the stream breaks off in the middle of is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<BytesMut>, Error> {
        loop {
            if let Some(end) = self.buffer[self.looked_at..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.looked_at + end);
                self.buffer.advance(1);
                self.looked_at = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            self.looked_at = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Err(Error::Garbled(format!("an event of more than {MAX_LINE} bytes")));
            }
            match self.pieces.next().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_cut_into_its_objects_whatever_they_are() {
        let body =
            br#"{"kind":"PodList","metadata":{"resourceVersion":"9","continue":"abc"},"items":[{"a":1}, 17, "x"]}"#;
        let page = Page::parse(body).unwrap();
        assert_eq!((&*page.metadata.resource_version, &*page.metadata.continue_token), ("9", "abc"));
        assert_eq!(page.items().collect::<Vec<_>>(), [r#"{"a":1}"#, "17", r#""x""#]);
        assert_eq!(Page::parse(br#"{"metadata":{},"items":null}"#).unwrap().items().count(), 0);
        assert!(Page::parse(br#"{"items":[{]}"#).is_err());
    }

    #[test]
    fn a_bookmark_tells_where_the_watch_is() {
        let line = br#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"12",
            "annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        let line = Line::parse(line).unwrap();
        let bookmark: Bookmark = line.object_as();
        assert!(bookmark.ends_the_list());
        assert_eq!((&*line.kind, &*bookmark.version()), ("BOOKMARK", "12"));
    }
}
