//! How the source fares: whether the API server answers, since when it does not, and what is known of each kind. Said
//! once in the log when it goes and once when it is back; shown by `weir status` at any time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use weir_mesh::store::ResourceId;

use super::client::Error;

/// What `weir status` shows of the source.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Where the API server is.
    pub server: String,
    /// Every kind that is served has been read once.
    pub complete: bool,
    /// Since when the API server does not answer, in seconds since 1970; what it said last stays in force.
    pub away_since: Option<u64>,
    /// What keeps it, or a kind, from being read.
    pub problems: Vec<String>,
    /// The kinds that are watched, in order.
    pub kinds: Vec<KindStatus>,
    /// Bytes read since the start.
    pub received_bytes: u64,
}

/// A kind that is watched.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct KindStatus {
    /// `VirtualService`
    pub kind: String,
    /// `networking.istio.io/v1`
    pub api_version: String,
    /// Objects that there are, broken ones included.
    pub objects: usize,
    /// How often all of them were read. More than once means that the watch had lost its place.
    pub lists: u64,
    /// How often a watch was begun.
    pub watches: u64,
}

/// Who asked the API server: the watch of a kind, or the look at what is served (`None`).
pub(super) type Asker = Option<ResourceId>;

/// How the source fares.
#[derive(Debug)]
pub(super) struct Health {
    server: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those who got no answer, and why.
    unanswered: BTreeMap<Asker, String>,
    /// Those who were refused, and why.
    refused: BTreeMap<Asker, String>,
    away: Option<(Instant, SystemTime)>,
    kinds: BTreeMap<ResourceId, KindStatus>,
}

impl Health {
    pub(super) fn new(server: String) -> Self {
        Self { server, state: Mutex::default() }
    }

    /// What there is to show; `complete` and the bytes are the caller's to fill in.
    pub(super) fn status(&self) -> SourceStatus {
        let state = self.lock();
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut problems: Vec<String> =
            state.refused.iter().map(|(asker, why)| format!("{}: {why}", name(*asker))).collect();
        // They all say the same.
        problems.extend(state.unanswered.iter().next().map(|(asker, why)| format!("{}: {why}", name(*asker))));
        SourceStatus {
            server: self.server.clone(),
            away_since: state.away.map(|(_, at)| seconds(at)),
            problems,
            kinds: state.kinds.values().cloned().collect(),
            ..SourceStatus::default()
        }
    }

    /// The API server gave an answer to work with. True when this asker had none before.
    pub(super) fn reached(&self, asker: Asker) -> bool {
        let mut state = self.lock();
        let back = state.unanswered.remove(&asker).is_some();
        if state.refused.remove(&asker).is_some() {
            tracing::info!("{} can be read again", name(asker));
        }
        if state.unanswered.is_empty()
            && let Some((since, _)) = state.away.take()
        {
            tracing::info!(away_s = since.elapsed().as_secs(), "the API server answers again");
        }
        back
    }

    /// It did not.
    pub(super) fn failed(&self, asker: Asker, error: &Error) {
        let mut state = self.lock();
        if error.is_an_answer() {
            state.unanswered.remove(&asker);
            let why = error.to_string();
            if state.refused.get(&asker) != Some(&why) {
                tracing::error!("{} cannot be read, and is tried again: {why}", name(asker));
                state.refused.insert(asker, why);
            }
            return;
        }
        state.unanswered.insert(asker, error.to_string());
        if state.away.is_none() {
            state.away = Some((Instant::now(), SystemTime::now()));
            tracing::warn!(
                server = %self.server,
                reason = %error,
                "the API server does not answer; what it said last stays in force, and it is asked again"
            );
        }
    }

    /// A kind is watched from now on, at this version.
    pub(super) fn watched(&self, resource: ResourceId, version: &str) {
        let row = resource.resource();
        let mut state = self.lock();
        let kind = state.kinds.entry(resource).or_default();
        row.kind.clone_into(&mut kind.kind);
        kind.api_version = row.api_version(version);
    }

    /// A kind is not served any more.
    pub(super) fn unwatched(&self, resource: ResourceId) {
        let mut state = self.lock();
        state.kinds.remove(&resource);
        state.unanswered.remove(&Some(resource));
        state.refused.remove(&Some(resource));
    }

    pub(super) fn update(&self, resource: ResourceId, with: impl FnOnce(&mut KindStatus)) {
        if let Some(kind) = self.lock().kinds.get_mut(&resource) {
            with(kind);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(asker: Asker) -> &'static str {
    asker.map_or("the list of what is served", |resource| resource.resource().plural)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16) -> Error {
        Error::Status { code, message: "no".into(), retry_after: None }
    }

    #[test]
    fn it_is_away_until_everybody_has_an_answer_again() {
        let health = Health::new("https://x".into());
        let kinds: Vec<ResourceId> = ResourceId::all().take(2).collect();
        for kind in &kinds {
            health.failed(Some(*kind), &Error::Transport("connection refused".into()));
        }
        health.failed(None, &refused(503));
        let status = health.status();
        assert!(status.away_since.is_some_and(|at| at > 1_600_000_000));
        assert_eq!(status.problems, ["the list of what is served: 503: no"]);
        assert!(health.reached(None) && health.reached(Some(kinds[0])) && !health.reached(Some(kinds[0])));
        assert!(health.status().away_since.is_some());
        assert!(health.reached(Some(kinds[1])));
        assert!(health.status().away_since.is_none() && health.status().problems.is_empty());
    }

    #[test]
    fn a_refusal_is_a_problem_of_its_kind_alone() {
        let health = Health::new("https://x".into());
        let kind = ResourceId::all().next().expect("there are kinds");
        health.failed(Some(kind), &refused(403));
        assert_eq!(
            (health.status().away_since, health.status().problems),
            (None, vec!["namespaces: 403: no".to_owned()])
        );
        assert!(!health.reached(Some(kind)), "a refusal is an answer");
        assert!(health.status().problems.is_empty());
    }
}
