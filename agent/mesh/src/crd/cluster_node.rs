//! Kubernetes' Node: where the pods on it are, and nothing else. Decoded so that a sign of life of a node, which comes
//! every few seconds, makes an object that is equal to the last one.

use std::sync::Arc;

use super::meta::Metadata;
use crate::program::{REGION, SUBZONE, ZONE, canonical_place};

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its name alone.
    pub meta: Metadata,
    /// `region/zone/subzone` by its labels, without what is missing at the end.
    pub place: Arc<str>,
}

impl ClusterNode {
    pub(super) fn of(meta: &Metadata) -> Self {
        let [region, zone, subzone] = [REGION, ZONE, SUBZONE].map(|key| meta.label(key).unwrap_or_default());
        let place = canonical_place(&format!("{region}/{zone}/{subzone}"));
        Self { meta: Metadata::bare(meta.object.clone(), meta.at().cloned()), place }
    }
}
