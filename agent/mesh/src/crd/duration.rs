//! Durations as Istio's kinds write them: Go's, at least a millisecond.

use std::time::Duration;

use super::fields::{Fault, Fields, Marked};
use crate::schema::parse_duration;

/// Istio's schema: durations are at least a millisecond.
const MIN: Duration = Duration::from_millis(1);

/// A duration of at least a millisecond.
pub(super) fn duration(fields: &mut Fields<'_>, key: &str) -> Result<Option<Marked<Duration>>, Fault> {
    at_least(fields, key, MIN)
}

/// A duration that may be zero.
pub(super) fn duration_or_zero(fields: &mut Fields<'_>, key: &str) -> Result<Option<Marked<Duration>>, Fault> {
    at_least(fields, key, Duration::ZERO)
}

fn at_least(fields: &mut Fields<'_>, key: &str, least: Duration) -> Result<Option<Marked<Duration>>, Fault> {
    let Some(text) = fields.text(key)? else {
        return Ok(None);
    };
    let (mark, place) = fields.entry(key).map_or((fields.mark, fields.mark), |e| (e.mark, e.node.mark));
    if let Some(duration) = parse_duration(text).filter(|duration| *duration >= least) {
        return Ok(Some(Marked::new(mark, duration)));
    }
    let message = format!("`{text}` must be a duration of at least 1ms, such as 10s or 1m30s");
    Err(Fault::new(place, fields.path_of(key), message))
}
