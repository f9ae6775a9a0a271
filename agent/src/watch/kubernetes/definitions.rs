//! Notices that custom kinds come or go: follows the metadata of the CustomResourceDefinitions, and asks for a look at
//! what is served when one of weir's groups is among them. Without the right to do so, that look is a poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;
use weir_mesh::crd::RESOURCES;

use super::backoff::{Backoff, spread};
use super::client::{Error, Status};
use super::reflect::{Common, encode};
use super::wire::{Bookmark, Line, Lines};

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const WATCH: Duration = Duration::from_mins(4);
const WATCH_SPREAD: Duration = Duration::from_secs(50);
const OVERDUE: Duration = Duration::from_secs(10);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Definition {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    resource_version: String,
}

/// Follows the definitions until it is dropped; `following` tells whether it can.
pub(super) async fn follow(common: Arc<Common>, following: Arc<AtomicBool>) {
    let mut backoff = Backoff::default();
    let mut version = String::new();
    loop {
        let ended = watch(&common, &mut version, &following).await;
        following.store(false, Ordering::Relaxed);
        let wait = match ended {
            Ok(()) => {
                backoff.reset();
                spread(Duration::from_secs(1))
            }
            Err(error) => {
                tracing::debug!(%error, "definitions of custom kinds cannot be followed");
                if error.code() == 410 {
                    version.clear();
                }
                backoff.next(error.retry_after())
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn watch(common: &Common, version: &mut String, following: &AtomicBool) -> Result<(), Error> {
    let lasts = WATCH + spread(WATCH_SPREAD);
    let mut path = format!("{PATH}?watch=1&allowWatchBookmarks=true&timeoutSeconds={}", lasts.as_secs());
    // Without a version, the watch begins with all that there are: one look follows, and that is what is wanted.
    if !version.is_empty() {
        path.push_str("&resourceVersion=");
        encode(version, &mut path);
    }
    let mut lines = Lines::of(common.api.watch(&path, METADATA, lasts + OVERDUE).await?);
    following.store(true, Ordering::Relaxed);
    while let Some(text) = lines.next().await? {
        let line = Line::parse(&text)?;
        match &*line.kind {
            "ERROR" => return Err(line.object_as::<Status>().into_error()),
            "BOOKMARK" => *version = line.object_as::<Bookmark>().version(),
            _ => {
                let definition: Definition = line.object_as();
                if is_read(&definition.metadata.name) {
                    common.rediscover.notify_one();
                }
                *version = definition.metadata.resource_version;
            }
        }
    }
    Ok(())
}

/// A definition is called `plural.group`.
fn is_read(definition: &str) -> bool {
    let Some((plural, group)) = definition.split_once('.') else { return false };
    RESOURCES.iter().any(|row| row.plural == plural && row.group == group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_definitions_of_kinds_that_are_read_matter() {
        assert!(is_read("virtualservices.networking.istio.io") && is_read("gateways.gateway.networking.k8s.io"));
        assert!(!is_read("certificates.cert-manager.io") && !is_read("gateways.example.com") && !is_read(""));
    }
}
