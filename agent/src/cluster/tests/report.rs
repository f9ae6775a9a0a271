//! Where findings arrive: conditions of Istio's kinds, Events of all, and what becomes of those of a former leader.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;
use weir_mesh::finding::{Finding, Severity, code};
use weir_mesh::source::ObjectRef;

use super::fake::{Shared, asked, run, start};
use crate::cluster::report::{Findings, Reporter};

const ISTIO: &str = "/apis/networking.istio.io/v1";
const GATEWAY_API: &str = "/apis/gateway.networking.k8s.io/v1";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";
/// Generous for a machine of two busy cores.
const SOON: Duration = Duration::from_secs(10);

fn finding(group: &str, kind: &str, name: &str, severity: Severity) -> Finding {
    let object = ObjectRef { kind: kind.into(), group: group.into(), namespace: "shop".into(), name: name.into() };
    let message = format!("{kind} of {group}");
    Finding { severity, code: code::NOT_SUPPORTED, object: Some(object), at: None, message, help: None }
}

fn put(fake: &Shared, at: &str, kind: &str, name: &str, status: &Value) {
    let api_version = at.strip_prefix("/apis/").unwrap_or("v1");
    let plural = match kind {
        "Gateway" => "gateways",
        "VirtualService" => "virtualservices",
        "EnvoyFilter" => "envoyfilters",
        "HTTPRoute" => "httproutes",
        _ => "pods",
    };
    let object = json!({
        "apiVersion": api_version, "kind": kind, "status": status,
        "metadata": {"name": name, "namespace": "shop", "uid": format!("{kind}-{name}"), "generation": 1},
    });
    fake.lock().expect("no panic").put(format!("{at}/namespaces/shop/{plural}/{name}"), object);
}

fn condition(fake: &Shared, path: &str) -> Value {
    let fake = fake.lock().expect("no panic");
    let object = fake.objects.get(path).unwrap_or_else(|| panic!("{path}"));
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|c| c["type"] == "weir.mesh/Accepted").unwrap_or_default()
}

/// The Events' objects and notes.
fn events(fake: &Shared) -> Vec<(String, String)> {
    let fake = fake.lock().expect("no panic");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = fake.objects.iter().filter(|(path, _)| path.starts_with(EVENTS));
    all.map(|(_, event)| {
        let about = &event["regarding"];
        (
            format!("{} {} {}", text(&about["apiVersion"]), text(&about["kind"]), text(&about["name"])),
            text(&event["note"]),
        )
    })
    .collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let looks = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, looks).await.unwrap_or_else(|_| panic!("{what}"));
}

#[test]
fn each_finding_reaches_its_own_object() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        put(&fake, ISTIO, "Gateway", "edge", &json!({}));
        put(&fake, GATEWAY_API, "Gateway", "edge", &json!({}));
        put(&fake, GATEWAY_API, "HTTPRoute", "web", &json!({}));
        put(&fake, &ISTIO.replace("v1", "v1alpha3"), "EnvoyFilter", "patch", &json!({}));
        put(&fake, "/api/v1", "Pod", "sandboxed", &json!({}));
        let all = [
            finding("gateway.networking.k8s.io", "Gateway", "edge", Severity::Warning),
            finding("gateway.networking.k8s.io", "HTTPRoute", "web", Severity::Warning),
            finding("networking.istio.io", "EnvoyFilter", "patch", Severity::Error),
            finding("", "Pod", "sandboxed", Severity::Warning),
        ];
        let (_find, findings) = watch::channel(Some(Arc::new(all.to_vec())));
        let (_lead, leading) = watch::channel(true);
        let telling = tokio::spawn(Reporter::new(client.clone(), "a".into(), leading.clone()).run(findings.clone()));
        until("four Events", || events(&fake).len() == 4).await;
        telling.abort();
        let mut told = events(&fake);
        told.sort();
        let about: Vec<&str> = told.iter().map(|(about, _)| about.as_str()).collect();
        assert_eq!(
            about,
            [
                "gateway.networking.k8s.io/v1 Gateway edge",
                "gateway.networking.k8s.io/v1 HTTPRoute web",
                "networking.istio.io/v1alpha3 EnvoyFilter patch",
                "v1 Pod sandboxed",
            ]
        );
        assert!(told[0].1.contains("Gateway of gateway.networking.k8s.io"), "{told:?}");
        let alpha = ISTIO.replace("v1", "v1alpha3");
        assert_eq!(condition(&fake, &format!("{alpha}/namespaces/shop/envoyfilters/patch"))["status"], "False");
        for untouched in [ISTIO, GATEWAY_API] {
            assert_eq!(condition(&fake, &format!("{untouched}/namespaces/shop/gateways/edge")), Value::Null);
        }
        // Another agent that is elected, or this one after a restart, finds that it is told.
        asked(&fake);
        let again = tokio::spawn(Reporter::new(client, "b".into(), leading).run(findings));
        let created = || fake.lock().expect("no panic").asked.iter().filter(|a| a.starts_with("POST ")).count();
        until("it tries", || created() == 3).await;
        again.abort();
        assert_eq!(events(&fake).len(), 4);
    });
}

#[test]
fn a_new_leader_takes_back_what_its_predecessor_left() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        let ours = |status: &str, message: &str| {
            json!({"conditions": [
                {"type": "Reconciled", "status": "True"},
                {"type": "weir.mesh/Accepted", "status": status, "reason": "Invalid", "message": message,
                 "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ]})
        };
        put(&fake, ISTIO, "VirtualService", "mended", &ours("False", "wrong"));
        put(&fake, ISTIO, "VirtualService", "odd", &ours("True", "strange"));
        put(&fake, ISTIO, "VirtualService", "stands", &ours("False", "wrong"));
        put(&fake, ISTIO, "VirtualService", "well", &ours("True", ""));
        put(&fake, ISTIO, "VirtualService", "untouched", &json!({}));
        fake.lock().expect("no panic").lists = vec!["/apis/networking.istio.io/v1/virtualservices"];
        let of = |name: &str| condition(&fake, &format!("{ISTIO}/namespaces/shop/virtualservices/{name}"));
        let before = (of("well"), of("untouched"));
        let stands = finding("networking.istio.io", "VirtualService", "stands", Severity::Error);
        let (find, findings) = watch::channel::<Findings>(None);
        let (lead, leading) = watch::channel(true);
        let reporter = Reporter::new(client, "a".into(), leading).settling(Duration::from_millis(20));
        tokio::spawn(reporter.run(findings));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(asked(&fake), [""; 0], "before a first configuration is in force nothing is known to be well");
        find.send_replace(Some(Arc::new(vec![stands])));
        until("both are taken back", || of("mended")["status"] == "True" && of("odd")["message"] == "").await;
        assert_eq!(of("mended")["reason"], "Accepted");
        assert_eq!(of("stands")["status"], "False");
        assert_eq!((of("well"), of("untouched")), before);
        let patched = |asked: &[String]| {
            asked.iter().filter(|a| a.starts_with("PATCH ")).map(|a| a.rsplit('/').nth(1).unwrap().to_owned()).collect()
        };
        let mut all: Vec<String> = patched(&asked(&fake));
        all.sort();
        assert_eq!(all, ["mended", "odd", "stands"], "nothing else is written");
        // Once a term: another election looks again.
        lead.send_replace(false);
        tokio::time::sleep(Duration::from_millis(50)).await;
        put(&fake, ISTIO, "VirtualService", "late", &ours("False", "wrong"));
        lead.send_replace(true);
        until("the next term looks again", || of("late")["status"] == "True").await;
    });
}

#[test]
fn the_agent_of_a_node_leaves_the_conditions_of_the_elected_one_alone() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        put(&fake, "/api/v1", "Pod", "sandboxed", &json!({}));
        let status = json!({"conditions": [{"type": "weir.mesh/Accepted", "status": "False", "message": "wrong"}]});
        put(&fake, ISTIO, "VirtualService", "broken", &status);
        fake.lock().expect("no panic").lists = vec!["/apis/networking.istio.io/v1/virtualservices"];
        let refused = finding("", "Pod", "sandboxed", Severity::Warning);
        let (_find, findings) = watch::channel(Some(Arc::new(vec![refused])));
        let (_lead, leading) = watch::channel(true);
        let reporter = Reporter::of_a_node(client, "a".into(), leading).settling(Duration::from_millis(20));
        tokio::spawn(reporter.run(findings));
        until("it tells what it knows", || asked(&fake).iter().any(|asked| asked.starts_with("POST "))).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let about_rules: Vec<String> = asked(&fake).into_iter().filter(|asked| asked.contains(".istio.io")).collect();
        assert_eq!(about_rules, [""; 0]);
    });
}

#[test]
fn a_condition_says_what_is_still_wrong_and_no_more() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        put(&fake, ISTIO, "VirtualService", "web", &json!({}));
        let one = finding("networking.istio.io", "VirtualService", "web", Severity::Error);
        let two = Finding { message: "another".into(), ..one.clone() };
        let (find, findings) = watch::channel(Some(Arc::new(vec![one.clone(), two])));
        let (_lead, leading) = watch::channel(true);
        tokio::spawn(Reporter::new(client, "a".into(), leading).run(findings));
        let message =
            || condition(&fake, &format!("{ISTIO}/namespaces/shop/virtualservices/web"))["message"].to_string();
        until("both are told", || message().contains("another")).await;
        until("both have Events", || events(&fake).len() == 2).await;
        find.send_replace(Some(Arc::new(vec![one])));
        until("the one that is mended is taken out", || !message().contains("another")).await;
        assert!(message().contains("VirtualService of"), "{}", message());
        assert_eq!(events(&fake).len(), 2);
    });
}

#[test]
fn an_api_server_that_errs_is_asked_again_and_not_at_once() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        put(&fake, "/api/v1", "Pod", "sandboxed", &json!({}));
        fake.lock().expect("no panic").refusals = vec![StatusCode::INTERNAL_SERVER_ERROR];
        let finding = finding("", "Pod", "sandboxed", Severity::Warning);
        let (find, findings) = watch::channel(Some(Arc::new(vec![finding.clone()])));
        let (_lead, leading) = watch::channel(true);
        tokio::spawn(Reporter::new(client, "a".into(), leading).run(findings));
        until("it asks", || !fake.lock().expect("no panic").asked.is_empty()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!((asked(&fake).len(), events(&fake).len()), (1, 0), "it waits");
        find.send_replace(Some(Arc::new(vec![finding])));
        until("the next change tells it", || events(&fake).len() == 1).await;
    });
}
