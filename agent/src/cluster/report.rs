//! Findings, told where users look for them: a condition in the status of Istio's objects, an Event on every object.
//! Run by `app` on the control runtime. What concerns the cluster is told by the agent that was elected, while the others
//! keep quiet; what only the agent of a node knows of its pods, by that agent.
//!
//! Written once for each finding and not again while it stands; at most [`BURST`] at once and then [`PACE`] each, so
//! that a thousand broken objects do not become a storm on the API server. What fails is tried again with the next
//! change or after [`AGAIN`]. Who is elected looks once through the conditions that its predecessors have left.

mod wording;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use weir_mesh::crd::{RESOURCES, Resource};
use weir_mesh::finding::{Finding, Severity};
use weir_mesh::source::ObjectRef;

use self::wording::{CONDITION, conditions, event, text_of};
use super::in_time;

/// Written at once: what a person edits in one go.
pub const BURST: u32 = 20;
/// Between two writes above the burst: two a second, from one agent of the cluster, are no load.
pub const PACE: Duration = Duration::from_millis(500);
/// What failed is tried again after this time, when nothing changes meanwhile.
pub const AGAIN: Duration = Duration::from_mins(1);
/// Objects whose findings are remembered as told. Those of more broken objects are told again after each change.
pub const MAX_TOLD: usize = 10_000;
/// After an election, and after the first configuration, until the conditions of predecessors are looked through: kinds
/// that only cause findings are not waited for, and their conditions must not be taken back for that.
const SETTLE: Duration = Duration::from_secs(30);
/// Objects in a page of that look.
const PAGE: u32 = 500;
/// The groups whose kinds all have conditions in a status that nobody else decides on. The Gateway API's conditions are
/// its controllers' word.
pub(super) const GROUPS_WITH_CONDITIONS: [&str; 4] =
    ["networking.istio.io", "security.istio.io", "telemetry.istio.io", "extensions.istio.io"];

/// What there is to tell; `None` until a first configuration is in force.
pub type Findings = Option<Arc<Vec<Finding>>>;

/// Tells of findings for as long as the agent runs.
pub struct Reporter {
    client: kube::Client,
    me: String,
    /// Whether this agent is the one to tell.
    speaks: watch::Receiver<bool>,
    told: BTreeMap<ObjectRef, BTreeSet<String>>,
    /// Objects into whose status a condition was written, by this agent or a former one.
    marked: BTreeSet<ObjectRef>,
    /// Since when this agent speaks and has something to say.
    since: Option<Instant>,
    settle: Duration,
    /// Whether it looks for what its predecessors have left.
    succeeds: bool,
    /// Kinds whose objects may have conditions of a predecessor, the next one last.
    unswept: Vec<&'static Resource>,
    bucket: Bucket,
}

impl Reporter {
    /// Writes as `me` while `speaks` is true.
    pub fn new(client: kube::Client, me: String, speaks: watch::Receiver<bool>) -> Self {
        Self {
            client,
            me,
            speaks,
            told: BTreeMap::new(),
            marked: BTreeSet::new(),
            since: None,
            settle: SETTLE,
            succeeds: true,
            unswept: Vec::new(),
            bucket: Bucket { left: BURST, filled: Instant::now() },
        }
    }

    /// Tells of what it alone knows, beside the elected one. Conditions are about what all agents know: here they are
    /// never taken for those of a predecessor.
    pub fn of_a_node(client: kube::Client, me: String, speaks: watch::Receiver<bool>) -> Self {
        Self { succeeds: false, ..Self::new(client, me, speaks) }
    }

    /// Looks through the conditions of predecessors after this time.
    #[cfg(test)]
    pub(super) fn settling(mut self, settle: Duration) -> Self {
        self.settle = settle;
        self
    }

    /// Follows the findings until their sender is gone.
    pub async fn run(mut self, mut findings: watch::Receiver<Findings>) {
        loop {
            let current = findings.borrow_and_update().clone();
            let speaks = *self.speaks.borrow_and_update();
            match current.filter(|_| speaks) {
                Some(current) => {
                    self.begin();
                    self.tell(&current, &findings).await;
                }
                None => self.end(),
            }
            let wait = if self.unswept.is_empty() { AGAIN } else { self.settle.min(AGAIN) };
            tokio::select! {
                changed = findings.changed() => if changed.is_err() { return },
                changed = self.speaks.changed() => if changed.is_err() { return },
                () = sleep(wait) => {}
            }
        }
    }

    fn begin(&mut self) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            let all = RESOURCES.iter().filter(|row| GROUPS_WITH_CONDITIONS.contains(&row.group));
            self.unswept = all.filter(|_| self.succeeds).collect();
        }
    }

    /// Whoever speaks next tells what stands then.
    fn end(&mut self) {
        self.since = None;
        self.told.clear();
        self.marked.clear();
    }

    async fn tell(&mut self, findings: &[Finding], newer: &watch::Receiver<Findings>) {
        let by_object = by_object(findings);
        self.told.retain(|object, _| by_object.contains_key(object));
        for (object, findings) in &by_object {
            if self.is_over(newer) {
                return;
            }
            let texts: BTreeSet<String> = findings.iter().map(|finding| text_of(finding)).collect();
            if self.told.get(object) == Some(&texts) {
                continue;
            }
            match self.write(object, findings).await {
                Ok(()) if self.told.len() < MAX_TOLD => drop(self.told.insert(object.clone(), texts)),
                Ok(()) => {}
                Err(error) => tracing::warn!(%object, %error, "cannot tell of a finding"),
            }
        }
        if self.since.is_some_and(|since| since.elapsed() >= self.settle) {
            self.sweep().await;
        }
        let mended: Vec<ObjectRef> =
            self.marked.iter().filter(|object| !by_object.contains_key(*object)).cloned().collect();
        for object in mended {
            if self.is_over(newer) {
                return;
            }
            self.bucket.take().await;
            match self.mend(&object).await {
                Ok(()) => drop(self.marked.remove(&object)),
                Err(error) => tracing::warn!(%object, %error, "cannot write that it is accepted"),
            }
        }
    }

    /// A newer state has other findings, and comes next; or another agent has been elected.
    fn is_over(&self, newer: &watch::Receiver<Findings>) -> bool {
        newer.has_changed().unwrap_or(true) || !*self.speaks.borrow()
    }

    /// Looks for conditions that predecessors have left, kind by kind. What fails is left for the next time.
    async fn sweep(&mut self) {
        while let Some(row) = self.unswept.last().copied() {
            if let Err(error) = self.sweep_kind(row).await {
                tracing::debug!(kind = row.kind, %error, "conditions of a former leader");
                return;
            }
            self.unswept.pop();
        }
    }

    async fn sweep_kind(&mut self, row: &'static Resource) -> kube::Result<()> {
        for version in row.versions {
            let resource = resource(row, version);
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            let mut wanted = ListParams::default().limit(PAGE);
            loop {
                let page = match in_time(api.list(&wanted)).await {
                    // This version is not served, or the kind is not.
                    Err(kube::Error::Api(status)) if status.code == 404 => break,
                    page => page?,
                };
                for found in page.items {
                    if self.marked.len() < MAX_TOLD && is_marked(&found) {
                        self.marked.insert(reference(row, found));
                    }
                }
                match page.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => wanted = wanted.continue_token(&token),
                    None => return Ok(()),
                }
            }
        }
        Ok(())
    }

    async fn write(&mut self, object: &ObjectRef, findings: &[&Finding]) -> kube::Result<()> {
        self.bucket.take().await;
        let Some((resource, found)) = self.find(object).await? else { return Ok(()) };
        if GROUPS_WITH_CONDITIONS.contains(&&*object.group) {
            if self.marked.len() < MAX_TOLD {
                self.marked.insert(object.clone());
            }
            // The agent that was elected before has told already.
            if !self.condition(&resource, &found, findings).await? {
                return Ok(());
            }
        }
        let told = self.told.get(object).cloned().unwrap_or_default();
        for finding in findings.iter().filter(|finding| !told.contains(&text_of(finding))) {
            self.bucket.take().await;
            let event = event(&resource, &found, finding, &self.me);
            let namespace = event.metadata.namespace.clone().unwrap_or_default();
            let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
            match in_time(events.create(&PostParams::default(), &event)).await {
                // It is told already.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    async fn mend(&self, object: &ObjectRef) -> kube::Result<()> {
        if let Some((resource, found)) = self.find(object).await? {
            self.condition(&resource, &found, &[]).await?;
        }
        Ok(())
    }

    /// The object, by the first version that is served. `None` = it is gone.
    async fn find(&self, object: &ObjectRef) -> kube::Result<Option<(ApiResource, DynamicObject)>> {
        let row = RESOURCES.iter().find(|row| row.kind == &*object.kind && row.group == &*object.group);
        let Some(row) = row else { return Ok(None) };
        for version in row.versions {
            let resource = resource(row, version);
            if let Some(found) = in_time(self.api(object, &resource).get_opt(&object.name)).await? {
                return Ok(Some((resource, found)));
            }
        }
        Ok(None)
    }

    fn api(&self, object: &ObjectRef, resource: &ApiResource) -> Api<DynamicObject> {
        if object.namespace.is_empty() {
            Api::all_with(self.client.clone(), resource)
        } else {
            Api::namespaced_with(self.client.clone(), &object.namespace, resource)
        }
    }

    /// Replaces our condition among those of others; false, and nothing is written, when it says so already.
    async fn condition(
        &self,
        resource: &ApiResource,
        found: &DynamicObject,
        findings: &[&Finding],
    ) -> kube::Result<bool> {
        let meta = &found.metadata;
        let Some(conditions) = conditions(&found.data["status"]["conditions"], findings, meta.generation) else {
            return Ok(false);
        };
        // The version makes it a conflict, not a loss, when another controller writes at the same time.
        let patch = json!({
            "metadata": {"resourceVersion": meta.resource_version},
            "status": {"conditions": conditions},
        });
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, resource);
        let name = meta.name.as_deref().unwrap_or_default();
        match in_time(api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))).await {
            // A CRD without the status subresource: the Event alone has to do.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            other => other.map(|_| true),
        }
    }
}

fn resource(row: &Resource, version: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(row.group, version, row.kind), row.plural)
}

/// Whether our condition in it says anything but that all is well.
fn is_marked(found: &DynamicObject) -> bool {
    let all = found.data["status"]["conditions"].as_array();
    let ours = all.into_iter().flatten().find(|condition| condition["type"] == CONDITION);
    ours.is_some_and(|condition| condition["status"] != "True" || condition["message"] != "")
}

fn reference(row: &Resource, found: DynamicObject) -> ObjectRef {
    ObjectRef {
        kind: row.kind.into(),
        group: row.group.into(),
        namespace: found.metadata.namespace.unwrap_or_default().into(),
        name: found.metadata.name.unwrap_or_default().into(),
    }
}

/// What is worth telling, object by object.
fn by_object(findings: &[Finding]) -> BTreeMap<ObjectRef, Vec<&Finding>> {
    let mut by_object: BTreeMap<ObjectRef, Vec<&Finding>> = BTreeMap::new();
    for finding in findings.iter().filter(|f| f.severity >= Severity::Warning) {
        if let Some(object) = &finding.object {
            by_object.entry(object.clone()).or_default().push(finding);
        }
    }
    by_object
}

/// [`BURST`] at once, then one each [`PACE`].
struct Bucket {
    left: u32,
    filled: Instant,
}

impl Bucket {
    async fn take(&mut self) {
        sleep(self.wait(Instant::now())).await;
    }

    /// How long the next write waits, and takes its place.
    fn wait(&mut self, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.filled).as_millis() / PACE.as_millis();
        let earned = u32::try_from(earned).unwrap_or(BURST).min(BURST);
        if earned > 0 {
            self.left = (self.left + earned).min(BURST);
            self.filled = now;
        }
        if self.left == 0 {
            self.filled = now + PACE;
            return PACE;
        }
        self.left -= 1;
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_mesh::finding::code;

    fn finding(severity: Severity, code: &'static str, message: &str) -> Finding {
        let object = ObjectRef { kind: "Pod".into(), group: "".into(), namespace: "a".into(), name: "p".into() };
        Finding { severity, code, object: Some(object), at: None, message: message.into(), help: None }
    }

    #[test]
    fn what_is_merely_worth_knowing_is_not_told() {
        let all = [finding(Severity::Info, code::PORT_NAME, "i"), finding(Severity::Warning, code::NOT_ENROLLED, "w")];
        let by_object = by_object(&all);
        let texts: Vec<String> = by_object.values().flatten().map(|finding| text_of(finding)).collect();
        assert_eq!(texts, ["[WEIR0005] w"]);
    }

    #[test]
    fn a_burst_is_written_at_once_and_the_rest_at_a_pace() {
        let started = Instant::now();
        let mut bucket = Bucket { left: BURST, filled: started };
        let mut now = started;
        for _ in 0..BURST {
            now += bucket.wait(now);
        }
        assert_eq!(now, started);
        for _ in 0..10 {
            now += bucket.wait(now);
        }
        assert_eq!(now - started, PACE * 10);
        assert_eq!(bucket.wait(now + PACE * 3), Duration::ZERO, "a quiet time earns some");
    }
}
