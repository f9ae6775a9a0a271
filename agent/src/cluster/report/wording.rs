//! What a finding looks like in the cluster: the condition in an object's status, the Event about it. Pure but for the
//! clock; [`super`] sends it.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, ObjectMeta};
use kube::core::ApiResource;
use serde_json::{Value, json};
use weir_mesh::finding::{Finding, Severity, code};

/// Kubernetes refuses longer notes of an Event.
const MAX_MESSAGE: usize = 1024;
/// Of an object's name in the name of its Event, which has 17 characters more: together below the 253 that a name may
/// have. Names are ASCII.
const MAX_NAME: usize = 200;
/// The condition's type, which nobody else writes.
pub(super) const CONDITION: &str = "weir.mesh/Accepted";
/// Who says so.
const CONTROLLER: &str = "weir.mesh/agent";

/// The conditions with ours in it, or `None` when it is there already. With nothing wrong, ours is only written where
/// it said otherwise before.
pub(super) fn conditions(now: &Value, findings: &[&Finding], generation: Option<i64>) -> Option<Vec<Value>> {
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

/// `[IST0101] message; help`
pub(super) fn text_of(finding: &Finding) -> String {
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
        code::UNKNOWN_FIELD => "UnknownField",
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

/// The Event about one finding. Its name is made of what it says and of what it says it about, so that another agent, or
/// this one after a restart, finds that it has been told, for as long as Kubernetes keeps Events (an hour).
pub(super) fn event(resource: &ApiResource, found: &DynamicObject, finding: &Finding, me: &str) -> Event {
    let meta = &found.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let note = clip(&text_of(finding));
    // Without keys: every agent must come to the same name.
    let mut hasher = DefaultHasher::new();
    (&resource.group, &resource.kind, &name, &meta.uid, meta.generation, &note).hash(&mut hasher);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:016x}", &name[..name.len().min(MAX_NAME)], hasher.finish())),
            // Events about objects without a namespace go to `default`, where kubectl looks for them.
            namespace: Some(meta.namespace.clone().unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        type_: Some("Warning".to_owned()),
        reason: Some(reason(finding.code).to_owned()),
        action: Some("Validate".to_owned()),
        note: Some(note),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(me.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(resource.api_version.clone()),
            kind: Some(resource.kind.clone()),
            name: Some(name),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::GroupVersionKind;

    fn finding(severity: Severity, code: &'static str, message: &str) -> Finding {
        Finding { severity, code, object: None, at: None, message: message.into(), help: None }
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
    fn the_same_event_has_the_same_name_and_another_one_has_not() {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Pod"), "pods");
        let pod = |name: &str, uid: &str| {
            let mut pod = DynamicObject::new(name, &resource).within("shop");
            pod.metadata.uid = Some(uid.to_owned());
            pod
        };
        let name_of = |pod: &DynamicObject, text: &str, me: &str| {
            let event = event(&resource, pod, &finding(Severity::Warning, code::NOT_ENROLLED, text), me);
            event.metadata.name.expect("a name")
        };
        let long = "x".repeat(253);
        let first = name_of(&pod(&long, "1"), "no", "a");
        assert_eq!(first, name_of(&pod(&long, "1"), "no", "b"), "whoever tells it");
        assert!(first.len() <= 253, "{first}");
        assert_ne!(first, name_of(&pod(&long, "2"), "no", "a"), "another pod of the name");
        assert_ne!(first, name_of(&pod(&long, "1"), "yes", "a"), "another finding");
    }
}
