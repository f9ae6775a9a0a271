//! What is in force at the moment, and how its clusters fare: for whoever looks at the proxy. Read from what workers share,
//! without a lock and without asking them. Used by `app`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use weir_mesh::program::{ClusterId, Program};

use super::programs::Running;
use super::upstream::breakers::{Breakers, Of};
use super::upstream::hosts::ClusterState;

/// A look at what is in force. It keeps that alive: not to be kept for long.
#[derive(Debug)]
pub struct Inspection {
    running: Arc<Running>,
    /// CLOCK_MONOTONIC, ns.
    now: u64,
}

/// How a cluster fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterNow {
    /// Endpoints that are out of use.
    pub ejected: HashMap<SocketAddr, Out, RandomState>,
    /// What is counted of it, by Istio's name of its limit; empty where no limit is given.
    pub in_use: Vec<(&'static str, InUse)>,
    /// Why TLS toward it is not as it is asked for.
    pub tls_problem: Option<String>,
}

/// An endpoint that is out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out {
    /// Until it is back.
    pub left: Duration,
    /// By how many times the base time it was ejected.
    pub times: u32,
}

/// How many are under way on this node, and how many may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// How many there are.
    pub active: u32,
    /// How many there may be; `None` = no limit, or one that moves with the requests.
    pub limit: Option<u32>,
}

impl Inspection {
    pub(super) fn of(running: Arc<Running>, now: u64) -> Self {
        Self { running, now }
    }

    /// The program in force.
    pub fn program(&self) -> &Program {
        &self.running
    }

    /// How a cluster of it fares.
    pub fn cluster(&self, id: ClusterId) -> ClusterNow {
        let Some(state) = self.running.state(id) else {
            return ClusterNow::default();
        };
        ClusterNow {
            ejected: self.ejected(state).collect(),
            in_use: state.breakers().map(|breakers| in_use(state, breakers)).unwrap_or_default(),
            tls_problem: state.originator().and_then(|originator| originator.problem()),
        }
    }

    /// How many endpoints of it are out of use.
    pub fn ejected_count(&self, id: ClusterId) -> usize {
        self.running.state(id).map_or(0, |state| self.ejected(state).count())
    }

    fn ejected(&self, state: &ClusterState) -> impl Iterator<Item = (SocketAddr, Out)> {
        state.ejected(self.now).map(|(endpoint, until, times)| {
            let left = Duration::from_nanos(until.saturating_sub(self.now));
            (endpoint, Out { left, times })
        })
    }
}

/// Connections are counted only where they are limited; a budget counts requests and retries too.
fn in_use(state: &ClusterState, breakers: &Breakers) -> Vec<(&'static str, InUse)> {
    let pool = state.cluster().policy.connection_pool.as_ref().map(|block| &*block.value);
    let http = pool.and_then(|pool| pool.http.as_ref());
    let counted = |of, limit| InUse { active: breakers.count(of), limit };
    let connections = pool.and_then(|pool| pool.max_connections);
    let connections = connections.map(|limit| ("maxConnections", counted(Of::Connections, Some(limit))));
    let others = [
        ("http2MaxRequests", counted(Of::Requests, http.and_then(|http| http.max_requests))),
        ("http1MaxPendingRequests", counted(Of::Pending, http.and_then(|http| http.max_pending_requests))),
        ("maxRetries", counted(Of::Retries, http.and_then(|http| http.max_retries))),
    ];
    connections.into_iter().chain(others).collect()
}
