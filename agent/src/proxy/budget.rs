//! How many requests to a cluster may be under way, and how many of them repeated: `connectionPool.http.http2MaxRequests`;
//! `retryBudget`, or `connectionPool.http.maxRetries`. Counted only where one of them is given, for all workers of the
//! node. Used by `retry`.

use std::sync::Arc;

use weir_mesh::program::{ClusterPolicy, HttpPool};

use super::error::{Kind, ProxyError};
use super::upstream::breakers::{Breakers, Of, Permit};
use super::upstream::target::Target;

/// A request under way to a cluster that has a limit.
#[derive(Debug)]
pub(crate) struct Load {
    breakers: Arc<Breakers>,
    policy: Arc<ClusterPolicy>,
    _request: Permit,
}

impl Load {
    /// Counts a request until the guard is dropped; `None` where there is no limit.
    pub(crate) fn begin(target: &Target) -> Result<Option<Box<Self>>, ProxyError> {
        let (Some(breakers), Some(cluster)) = (target.breakers(), target.cluster()) else {
            return Ok(None);
        };
        let policy = &cluster.policy;
        let max_requests = http(policy).and_then(|http| http.max_requests);
        if max_requests.is_none() && max_retries(policy, 0).is_none() {
            return Ok(None);
        }
        let request = breakers.take(Of::Requests, max_requests).ok_or(Kind::Overflow)?;
        Ok(Some(Box::new(Self { breakers: Arc::clone(breakers), policy: Arc::clone(policy), _request: request })))
    }

    /// Counts a repetition; `None` when there are enough.
    pub(crate) fn retry(&self) -> Option<Permit> {
        let max = max_retries(&self.policy, self.breakers.count(Of::Requests));
        self.breakers.take(Of::Retries, max)
    }
}

fn http(policy: &ClusterPolicy) -> Option<&HttpPool> {
    policy.connection_pool.as_ref()?.value.http.as_ref()
}

/// With so many requests under way; a budget comes before a plain number.
fn max_retries(policy: &ClusterPolicy, requests: u32) -> Option<u32> {
    if let Some(budget) = &policy.retry_budget {
        let share = u64::from(requests) * u64::from(budget.value.share.millionths()) / 1_000_000;
        return Some(budget.value.min_retry_concurrency.max(share as u32));
    }
    http(policy)?.max_retries
}
