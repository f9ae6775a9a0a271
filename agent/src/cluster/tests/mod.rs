//! The parts of the installation against an API server of a few lines: rights, definitions and the election here, the
//! question at the end and the telling of findings in files of their own.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

use self::fake::{Shared, asked, run, start};
use super::Access;
use super::crds::{self, Outcome};
use super::leader;
use super::report::GROUPS_WITH_CONDITIONS;

mod end;
pub(crate) mod fake;
mod report;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/weir-system/leases";

/// The rights of the DaemonSet's account: a kind that is read and not granted would never be seen, and a definition that
/// is created and not read would promise what nobody does.
#[test]
fn every_kind_that_is_read_is_granted_and_every_definition_is_read() {
    let text = include_str!("../../../../deploy/daemonset/base/rbac.yaml");
    let objects: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
    let role = objects.iter().find(|o| o["kind"] == "ClusterRole").expect("a ClusterRole");
    let rules = role["rules"].as_array().expect("rules");
    let has = |list: &Value, what: &str| list.as_array().is_some_and(|l| l.iter().any(|v| v == what));
    for resource in weir_mesh::crd::RESOURCES {
        let granted = rules.iter().any(|rule| {
            has(&rule["apiGroups"], resource.group)
                && has(&rule["resources"], resource.plural)
                && ["get", "list", "watch"].iter().all(|verb| has(&rule["verbs"], verb))
        });
        assert!(granted, "{}.{}", resource.plural, resource.group);
        let status = format!("{}/status", resource.plural);
        let may_patch =
            rules.iter().any(|rule| has(&rule["apiGroups"], resource.group) && has(&rule["resources"], &status));
        assert_eq!(may_patch, GROUPS_WITH_CONDITIONS.contains(&resource.group), "{status} of {}", resource.group);
    }
    for definition in crds::definitions() {
        let (group, plural) = (&definition.spec.group, &definition.spec.names.plural);
        let read = weir_mesh::crd::RESOURCES.iter().find(|r| r.group == group && r.plural == plural);
        let read = read.unwrap_or_else(|| panic!("{plural}.{group} is not read"));
        let served: Vec<&str> = definition.spec.versions.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(served, read.versions, "{plural}.{group}");
    }
}

#[test]
fn what_is_there_is_neither_written_nor_deleted() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        let theirs = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "virtualservices.networking.istio.io", "labels": {"release": "istio"}},
        });
        let path = format!("{CRDS}/virtualservices.networking.istio.io");
        let before = fake.lock().expect("no panic").put(path.clone(), theirs);
        let outcomes = crds::create_absent(&client).await.expect("it answers");
        let present: Vec<&str> =
            outcomes.iter().filter(|(_, o)| *o == Outcome::Present).map(|(name, _)| name.as_str()).collect();
        assert_eq!(present, ["virtualservices.networking.istio.io"]);
        assert_eq!(fake.lock().expect("no panic").objects[&path], before);
        assert!(asked(&fake).iter().all(|a| a.starts_with("GET ") || a.starts_with("POST ")));
        let again = crds::create_absent(&client).await.expect("it answers");
        assert!(again.iter().all(|(_, outcome)| *outcome == Outcome::Present));
        assert!(asked(&fake).iter().all(|a| a.starts_with("GET ")), "the second time nothing is created");
    });
}

#[test]
fn a_refused_definition_is_an_error_and_a_repetition_goes_on() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        fake.lock().expect("no panic").refusals = vec![StatusCode::NOT_FOUND, StatusCode::FORBIDDEN];
        crds::create_absent(&client).await.expect_err("creating is forbidden");
        let outcomes = crds::create_absent(&client).await.expect("it answers");
        assert!(outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Created));
    });
}

#[test]
fn one_leads_and_frees_the_lease_for_the_next() {
    run(async {
        let fake = Shared::default();
        let client = start(&fake).await;
        let candidate = |me: &'static str| {
            let (client, (tell, told), (stop, mut stopped)) =
                (client.clone(), watch::channel(false), watch::channel(false));
            let campaign = tokio::spawn(async move {
                leader::campaign(client, "weir-system", me, &tell, async {
                    let _told = stopped.wait_for(|stop| *stop).await;
                })
                .await;
            });
            (told, stop, campaign)
        };
        let (mut first, stop_first, first_ends) = candidate("a-1");
        first.wait_for(|leads| *leads).await.expect("it leads");
        let (second, stop_second, second_ends) = candidate("b-2");
        let looks = || fake.lock().expect("no panic").asked.iter().filter(|a| a.starts_with("GET")).count();
        while looks() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!*second.borrow(), "the Lease is held");
        let path = format!("{LEASES}/weir-leader");
        let holder = || fake.lock().expect("no panic").objects[&path]["spec"]["holderIdentity"].clone();
        assert_eq!(holder(), "a-1");
        stop_second.send_replace(true);
        second_ends.await.expect("it ends");
        assert_eq!(holder(), "a-1", "who does not hold it does not free it");
        stop_first.send_replace(true);
        first_ends.await.expect("it ends");
        assert_eq!(holder(), "");
        let (mut third, _stop_third, _third_ends) = candidate("c-3");
        let started = Instant::now();
        third.wait_for(|leads| *leads).await.expect("it leads");
        assert!(started.elapsed() < Duration::from_secs(5), "a free Lease is not waited for");
        assert_eq!(fake.lock().expect("no panic").objects[&path]["spec"]["leaseTransitions"], 2, "freed and taken");
    });
}

#[test]
fn a_missing_kubeconfig_is_told_once() {
    run(async {
        let access = Access { kubeconfig: Some("/nowhere/config".into()), context: None };
        let error = anyhow::Error::new(access.config().await.map(drop).expect_err("there is none"));
        let said = format!("{error:#}");
        assert!(said.starts_with("kubeconfig: ") && said.matches("No such file").count() == 1, "{said}");
    });
}
