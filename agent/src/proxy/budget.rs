//! How many requests to a cluster may be repeated at a time: `retryBudget`, or `connectionPool.http.maxRetries`. Counted
//! only where one of them is given, by each worker for itself. Used by `retry`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;
use weir_mesh::program::ClusterPolicy;

use super::upstream::target::Target;

/// The requests of one worker, by cluster.
#[derive(Debug, Default)]
pub(crate) struct Budgets(RefCell<HashMap<Arc<str>, Rc<Counts>, RandomState>>);

#[derive(Debug, Default)]
struct Counts {
    requests: Cell<u32>,
    retries: Cell<u32>,
}

/// A request under way to a cluster that has a limit.
#[derive(Debug)]
pub(crate) struct Load {
    counts: Rc<Counts>,
    policy: Arc<ClusterPolicy>,
}

/// A repetition under way.
#[derive(Debug)]
pub(crate) struct Retrying(Rc<Counts>);

impl Budgets {
    /// Counts a request until the guard is dropped; `None` where there is no limit.
    pub(crate) fn begin(&self, target: &Target) -> Option<Load> {
        let cluster = target.cluster()?;
        max_retries(&cluster.policy, 0)?;
        let mut clusters = self.0.borrow_mut();
        if !clusters.contains_key(&*cluster.name) {
            // A cluster to which nothing is under way has nothing to be remembered.
            clusters.retain(|_, counts| Rc::strong_count(counts) > 1);
        }
        let counts = Rc::clone(clusters.entry(Arc::clone(&cluster.name)).or_default());
        counts.requests.set(counts.requests.get() + 1);
        Some(Load { counts, policy: Arc::clone(&cluster.policy) })
    }
}

impl Load {
    /// Counts a repetition; `None` when there are enough.
    pub(crate) fn retry(&self) -> Option<Retrying> {
        let Counts { requests, retries } = &*self.counts;
        let max = max_retries(&self.policy, requests.get()).unwrap_or(u32::MAX);
        (retries.get() < max).then(|| {
            retries.set(retries.get() + 1);
            Retrying(Rc::clone(&self.counts))
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.counts.requests.set(self.counts.requests.get() - 1);
    }
}

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.retries.set(self.0.retries.get() - 1);
    }
}

/// With so many requests under way; a budget comes before a plain number.
fn max_retries(policy: &ClusterPolicy, requests: u32) -> Option<u32> {
    if let Some(budget) = &policy.retry_budget {
        let share = u64::from(requests) * u64::from(budget.value.share.millionths()) / 1_000_000;
        return Some(budget.value.min_retry_concurrency.max(share as u32));
    }
    policy.connection_pool.as_ref()?.value.http.as_ref()?.max_retries
}
