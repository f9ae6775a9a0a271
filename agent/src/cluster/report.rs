//! Findings, told where users look for them: a condition in the object's status where it has one, an Event on every
//! object. Run by `app` on the control runtime of the agent that was elected; the others keep quiet.
//!
//! Written once for each finding and not again while it stands; at most [`BURST`] at once and then [`PACE`] each, so
//! that a thousand broken objects do not become a storm on the API server. What fails is tried again with the next
//! change or after [`AGAIN`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use weir_mesh::finding::{Finding, Severity, code};
use weir_mesh::source::ObjectRef;

/// Written at once: what a person edits in one go.
pub const BURST: u32 = 20;
/// Between two writes above the burst: two a second, from one agent of the cluster, are no load.
pub const PACE: Duration = Duration::from_millis(500);
/// What failed is tried again after this time, when nothing changes meanwhile.
pub const AGAIN: Duration = Duration::from_mins(1);
/// Findings that are remembered as told. More broken objects than this are told of again after each change.
pub const MAX_TOLD: usize = 10_000;
/// Kubernetes refuses longer notes of an Event.
const MAX_MESSAGE: usize = 1024;
/// Of an object's name in the name of its Event: below the 63 characters that every kind may have. Names are ASCII.
const MAX_NAME: usize = 50;
/// The condition's type, which nobody else writes.
const CONDITION: &str = "weir.mesh/Accepted";
/// Who says so.
const CONTROLLER: &str = "weir.mesh/agent";

/// The kinds that a finding can be about: group, versions (the newest first), plural, and whether we may write a
/// condition into the status.
const KINDS: &[(&str, &str, &[&str], &str, bool)] = &[
    ("Pod", "", &["v1"], "pods", false),
    ("Service", "", &["v1"], "services", false),
    ("Namespace", "", &["v1"], "namespaces", false),
    ("VirtualService", "networking.istio.io", NETWORKING, "virtualservices", true),
    ("DestinationRule", "networking.istio.io", NETWORKING, "destinationrules", true),
    ("Gateway", "networking.istio.io", NETWORKING, "gateways", true),
    ("ServiceEntry", "networking.istio.io", NETWORKING, "serviceentries", true),
    ("Sidecar", "networking.istio.io", NETWORKING, "sidecars", true),
    ("AuthorizationPolicy", "security.istio.io", SECURITY, "authorizationpolicies", true),
    ("PeerAuthentication", "security.istio.io", SECURITY, "peerauthentications", true),
    ("RequestAuthentication", "security.istio.io", SECURITY, "requestauthentications", true),
];
const NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY: &[&str] = &["v1", "v1beta1"];

/// One finding, as far as telling it is concerned.
type Told = (ObjectRef, String);

/// Tells of findings for as long as the agent runs.
pub struct Reporter {
    client: kube::Client,
    me: String,
    elected: watch::Receiver<bool>,
    told: BTreeSet<Told>,
    /// Objects into whose status a failed condition was written.
    marked: BTreeSet<ObjectRef>,
    bucket: Bucket,
}

impl Reporter {
    /// Writes as `me` while `elected` is true.
    pub fn new(client: kube::Client, me: String, elected: watch::Receiver<bool>) -> Self {
        let bucket = Bucket { left: BURST, filled: Instant::now() };
        Self { client, me, elected, told: BTreeSet::new(), marked: BTreeSet::new(), bucket }
    }

    /// Follows the findings until their sender is gone.
    pub async fn run(mut self, mut findings: watch::Receiver<Arc<Vec<Finding>>>) {
        loop {
            let current = Arc::clone(&findings.borrow_and_update());
            let elected = *self.elected.borrow_and_update();
            if elected {
                self.tell(&current, &findings).await;
            } else {
                // Whoever is elected next tells what stands then.
                self.told.clear();
            }
            tokio::select! {
                changed = findings.changed() => if changed.is_err() { return },
                changed = self.elected.changed() => if changed.is_err() { return },
                () = sleep(AGAIN) => {}
            }
        }
    }

    async fn tell(&mut self, findings: &[Finding], newer: &watch::Receiver<Arc<Vec<Finding>>>) {
        let by_object = by_object(findings);
        let standing: BTreeSet<Told> = by_object.iter().flat_map(|(object, all)| told(object, all)).collect();
        self.told.retain(|told| standing.contains(told));
        for (object, findings) in &by_object {
            // A newer state has other findings, and comes next; another agent may have been elected meanwhile.
            if newer.has_changed().unwrap_or(true) || !*self.elected.borrow() {
                return;
            }
            let new: Vec<Told> = told(object, findings).filter(|t| !self.told.contains(t)).collect();
            if new.is_empty() {
                continue;
            }
            match self.write(object, findings, &new).await {
                Ok(()) if self.told.len() < MAX_TOLD => self.told.extend(new),
                Ok(()) => {}
                Err(error) => tracing::warn!(%object, %error, "cannot tell of a finding"),
            }
        }
        let mended: Vec<ObjectRef> =
            self.marked.iter().filter(|object| !by_object.contains_key(*object)).cloned().collect();
        for object in mended {
            self.bucket.take().await;
            match self.condition(&object, &[]).await {
                Ok(_) => drop(self.marked.remove(&object)),
                Err(error) => tracing::warn!(%object, %error, "cannot write that it is accepted"),
            }
        }
    }

    async fn write(&mut self, object: &ObjectRef, all: &[&Finding], new: &[Told]) -> kube::Result<()> {
        self.bucket.take().await;
        let Some((resource, found)) = self.find(object).await? else { return Ok(()) };
        if resource.1 {
            if self.marked.len() < MAX_TOLD {
                self.marked.insert(object.clone());
            }
            // The agent that was elected before has told already.
            if !self.condition(object, all).await? {
                return Ok(());
            }
        }
        for finding in all.iter().filter(|f| new.iter().any(|(_, text)| *text == text_of(f))) {
            self.bucket.take().await;
            let event = event(object, &resource.0, &found, finding, &self.me);
            let namespace = event.metadata.namespace.clone().unwrap_or_default();
            Api::<Event>::namespaced(self.client.clone(), &namespace).create(&PostParams::default(), &event).await?;
        }
        Ok(())
    }

    /// The object, by the first version that is served, and whether its status takes conditions. `None` = it is gone.
    async fn find(&self, object: &ObjectRef) -> kube::Result<Option<((ApiResource, bool), DynamicObject)>> {
        let Some((kind, group, versions, plural, condition)) = KINDS.iter().find(|k| k.0 == &*object.kind) else {
            return Ok(None);
        };
        for version in *versions {
            let gvk = GroupVersionKind::gvk(group, version, kind);
            let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
            if let Some(found) = self.api(object, &resource).get_opt(&object.name).await? {
                return Ok(Some(((resource, *condition), found)));
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
    async fn condition(&self, object: &ObjectRef, findings: &[&Finding]) -> kube::Result<bool> {
        let Some(((resource, true), found)) = self.find(object).await? else { return Ok(false) };
        let generation = found.metadata.generation;
        let Some(conditions) = conditions(&found.data["status"]["conditions"], findings, generation) else {
            return Ok(false);
        };
        // The version makes it a conflict, not a loss, when another controller writes at the same time.
        let patch = json!({
            "metadata": {"resourceVersion": found.metadata.resource_version},
            "status": {"conditions": conditions},
        });
        let api = self.api(object, &resource);
        match api.patch_status(&object.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            // A CRD without the status subresource: the Event alone has to do.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            other => other.map(|_| true),
        }
    }
}

/// The conditions with ours in it, or `None` when it is there already. With nothing wrong, ours is only written where
/// it said otherwise before.
fn conditions(now: &Value, findings: &[&Finding], generation: Option<i64>) -> Option<Vec<Value>> {
    let mut all = now.as_array().cloned().unwrap_or_default();
    let place = all.iter().position(|c| c["type"] == CONDITION);
    let worst = findings.iter().map(|f| f.severity).max();
    let status = if worst == Some(Severity::Error) { "False" } else { "True" };
    let reason = findings.iter().find(|f| Some(f.severity) == worst).map_or("Accepted", |f| reason(f.code));
    let message = clip(&findings.iter().map(|f| text_of(f)).collect::<Vec<_>>().join("\n"));
    let old = place.map(|at| &all[at]);
    let same = |key: &str, value: &str| old.is_some_and(|old| old[key] == value);
    let observed = old.is_some_and(|old| old["observedGeneration"].as_i64() == generation);
    if (same("status", status) && same("reason", reason) && same("message", &message) && observed)
        || (old.is_none() && findings.is_empty())
    {
        return None;
    }
    let since = if same("status", status) {
        old.map(|old| old["lastTransitionTime"].clone()).unwrap_or_default()
    } else {
        json!(Time(Timestamp::now()))
    };
    let ours = json!({
        "type": CONDITION, "status": status, "reason": reason, "message": message,
        "observedGeneration": generation, "lastTransitionTime": since,
    });
    match place {
        Some(at) => all[at] = ours,
        None => all.push(ours),
    }
    Some(all)
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

fn told<'a>(object: &'a ObjectRef, findings: &'a [&Finding]) -> impl Iterator<Item = Told> + 'a {
    findings.iter().map(|finding| (object.clone(), text_of(finding)))
}

/// `[IST0101] message; help`
fn text_of(finding: &Finding) -> String {
    let help = finding.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
    format!("[{}] {}{help}", finding.code, finding.message)
}

/// One word for `kubectl get events`.
fn reason(code: &str) -> &'static str {
    match code {
        code::NOT_ENROLLED => "NotEnrolled",
        code::NOT_SUPPORTED => "NotSupported",
        code::NOT_ENFORCED => "NotEnforced",
        code::INVALID | code::SYNTAX | code::BAD_SETTING => "Invalid",
        code::CONFLICTING_HOSTS | code::DUPLICATE => "Conflict",
        code::REFERENCE | code::UNKNOWN_HOST | code::RULE_WITHOUT_HOST => "ReferenceNotFound",
        _ => "Finding",
    }
}

fn clip(text: &str) -> String {
    let mut end = text.len().min(MAX_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn event(object: &ObjectRef, resource: &ApiResource, found: &DynamicObject, finding: &Finding, me: &str) -> Event {
    // Events about objects without a namespace go to `default`, where kubectl looks for them.
    let namespace = if object.namespace.is_empty() { "default" } else { &*object.namespace };
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", &object.name[..object.name.len().min(MAX_NAME)])),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        type_: Some("Warning".to_owned()),
        reason: Some(reason(finding.code).to_owned()),
        action: Some("Validate".to_owned()),
        note: Some(clip(&text_of(finding))),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(me.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(resource.api_version.clone()),
            kind: Some(resource.kind.clone()),
            name: Some(object.name.to_string()),
            namespace: found.metadata.namespace.clone(),
            uid: found.metadata.uid.clone(),
            resource_version: found.metadata.resource_version.clone(),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
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

    fn finding(severity: Severity, code: &'static str, message: &str) -> Finding {
        let object = ObjectRef { kind: "Pod".into(), namespace: "a".into(), name: "p".into() };
        Finding { severity, code, object: Some(object), at: None, message: message.into(), help: None }
    }

    #[test]
    fn what_is_merely_worth_knowing_is_not_told() {
        let all = [finding(Severity::Info, code::PORT_NAME, "i"), finding(Severity::Warning, code::NOT_ENROLLED, "w")];
        let by_object = by_object(&all);
        let texts: Vec<Told> = by_object.iter().flat_map(|(object, all)| told(object, all)).collect();
        assert_eq!(texts.len(), 1);
        assert_eq!(texts[0].1, "[WEIR0005] w");
    }

    #[test]
    fn our_condition_takes_its_place_among_those_of_others() {
        let error = finding(Severity::Error, code::INVALID, "wrong");
        let others = json!([{"type": "Reconciled", "status": "True"}]);
        assert_eq!(conditions(&others, &[], Some(1)), None, "nothing to say, nothing said before");
        let first = conditions(&others, &[&error], Some(1)).expect("it is new");
        assert_eq!((first.len(), &first[0]), (2, &others[0]));
        assert_eq!(first[1]["status"], "False");
        assert_eq!(conditions(&json!(first), &[&error], Some(1)), None, "it says so already");
        let warning = finding(Severity::Warning, code::REFERENCE, "odd");
        let second = conditions(&json!(first), &[&warning], Some(2)).expect("it differs");
        assert_eq!((&second[1]["status"], &second[1]["reason"]), (&json!("True"), &json!("ReferenceNotFound")));
        let mended = conditions(&json!(second), &[], Some(3)).expect("it differs");
        assert_eq!((&mended[1]["reason"], &mended[1]["message"]), (&json!("Accepted"), &json!("")));
        assert_eq!(mended[1]["lastTransitionTime"], second[1]["lastTransitionTime"], "the status is the same");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let long = "é".repeat(MAX_MESSAGE);
        assert_eq!(clip(&long).len(), MAX_MESSAGE);
        assert_eq!(clip(&format!("x{long}")).len(), MAX_MESSAGE - 1);
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
