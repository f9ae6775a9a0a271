//! Objects as an API server tells of them: whole, broken, recreated, gone.

use std::sync::Arc;

use super::{ObjectId, ObjectStore, Pending, Reader, Reading, ResourceId, Store, Version};
use crate::compile::{CompileOptions, compile};
use crate::crd::{Action, HttpRoute};

fn kind(name: &str) -> ResourceId {
    ResourceId::all().find(|id| id.resource().kind == name).unwrap()
}

fn routes(subset: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"x","namespace":"shop","uid":"u","resourceVersion":"7","generation":3}},
        "spec":{{"hosts":["a"],"http":[{{"route":[{{"destination":{{"host":"a","subset":{subset}}}}}]}}]}}}}"#
    )
}

fn read(resource: &str, text: &str) -> Reading {
    Reader::default().read(kind(resource), "v1", text).unwrap()
}

fn push(pending: &mut Pending, text: &str) {
    let reading = read("VirtualService", text);
    pending.push(reading.id, reading.version);
}

fn id() -> ObjectId {
    read("VirtualService", &routes("\"v1\"")).id
}

fn recreated(reading: Reading) -> Version {
    match reading.version {
        Version::Bad { findings, stand_in, .. } => Version::Bad { findings, stand_in, recreated: true },
        other => other,
    }
}

#[test]
fn two_gateways_of_one_name_are_two_objects() {
    let mut pending = Pending::default();
    for resource in ResourceId::all().filter(|id| id.resource().kind == "Gateway") {
        let text = r#"{"metadata":{"name":"edge","namespace":"shop"}}"#;
        let reading = Reader::default().read(resource, resource.resource().versions[0], text).unwrap();
        pending.push(reading.id, reading.version);
    }
    let mut store = ObjectStore::new();
    store.apply(pending);
    let mut groups: Vec<String> =
        store.findings().iter().map(|f| f.object.as_ref().unwrap().group.to_string()).collect();
    groups.sort();
    assert_eq!(groups, ["gateway.networking.k8s.io", "networking.istio.io"]);
}

#[test]
fn a_nodes_sign_of_life_changes_nothing_and_its_labels_do() {
    let node = |version: u32, zone: &str, rest: &str| {
        format!(
            r#"{{"metadata":{{"name":"n1","uid":"u","resourceVersion":"{version}","annotations":{{"a":"{version}"}},
            "labels":{{"topology.kubernetes.io/region":"eu","topology.kubernetes.io/zone":"{zone}","seen":"{version}"}}}}{rest}}}"#
        )
    };
    let status = r#","status":{"conditions":[{"type":"Ready","status":"False"}]}"#;
    let mut store = ObjectStore::new();
    let mut changed = |text: &str| {
        let reading = read("Node", text);
        let mut pending = Pending::default();
        pending.push(reading.id, reading.version);
        let changed = !store.apply(pending).is_empty();
        (changed, store.snapshot().place_of(&"n1".into()).to_string())
    };
    assert_eq!(changed(&node(1, "a", "")), (true, "eu/a".to_owned()));
    assert_eq!(changed(&node(2, "a", status)), (false, "eu/a".to_owned()));
    assert_eq!(changed(&node(3, "b", status)), (true, "eu/b".to_owned()));
}

/// The subset that the route in force sends to.
fn subset(store: &ObjectStore) -> Option<String> {
    let vs = store.snapshot().virtual_services.get(&("shop".into(), "x".into()))?;
    let HttpRoute { action: Action::Forward(destinations), .. } = &vs.http[0] else { return None };
    Some(destinations[0].subset.to_string())
}

fn lines(store: &ObjectStore) -> Vec<String> {
    store.findings().iter().map(ToString::to_string).collect()
}

/// Applies each group of texts as one batch; `-` is a deletion.
fn after(batches: &[&[&str]]) -> ObjectStore {
    let mut store = ObjectStore::new();
    for batch in batches {
        let mut pending = Pending::default();
        for text in *batch {
            if *text == "-" {
                pending.push(id(), Version::Gone);
            } else {
                push(&mut pending, text);
            }
        }
        assert!(!store.apply(pending).is_empty());
    }
    store
}

#[test]
fn a_version_that_does_not_decode_leaves_the_last_good_one_in_force() {
    let (v1, v2, bad) = (routes("\"v1\""), routes("\"v2\""), routes("7"));
    for batches in [&[&[&*v1][..], &[&*bad]][..], &[&[&*v1, &*bad]], &[&[&*v2, &*v1, &*bad, &*bad]]] {
        let store = after(batches);
        assert_eq!(subset(&store).as_deref(), Some("v1"), "{batches:?}");
        let found = lines(&store);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("Error [IST0106] (VirtualService shop/x): `spec.http[0]"), "{found:?}");
        assert!(found[0].ends_with("its last good version stays in force"), "{found:?}");
    }
    let mended = after(&[&[&v1], &[&bad], &[&v2]]);
    assert_eq!((subset(&mended).as_deref(), lines(&mended).len()), (Some("v2"), 0));
}

#[test]
fn what_was_deleted_is_no_last_good_version() {
    let (v1, bad) = (routes("\"v1\""), routes("7"));
    for batches in [&[&[&*v1][..], &["-"], &[&*bad]][..], &[&[&*v1, "-", &*bad]], &[&[&*v1][..], &["-", &*bad, &*bad]]]
    {
        let store = after(batches);
        assert_eq!(subset(&store), None, "{batches:?}");
        assert!(lines(&store)[0].ends_with("it is not in force"), "{:?}", lines(&store));
    }
    let store = after(&[&[&v1], &[&bad, "-"]]);
    assert_eq!((subset(&store), lines(&store).len()), (None, 0));
}

#[test]
fn a_bad_object_in_the_place_of_another_takes_nothing_over() {
    let (v1, bad) = (routes("\"v1\""), routes("7"));
    let mut pending = Pending::default();
    push(&mut pending, &v1);
    let mut store = ObjectStore::new();
    store.apply(pending);
    let mut pending = Pending::default();
    push(&mut pending, &routes("\"v2\""));
    pending.push(id(), recreated(read("VirtualService", &bad)));
    push(&mut pending, &bad);
    store.apply(pending);
    assert_eq!(subset(&store), None);
}

#[test]
fn a_thousand_versions_of_an_object_are_kept_as_two() {
    let mut pending = Pending::default();
    for n in 0..1000 {
        push(&mut pending, &routes(&format!("\"v{n}\"")));
    }
    push(&mut pending, &routes("7"));
    assert_eq!(pending.len(), 1);
    let mut store = ObjectStore::new();
    store.apply(pending);
    assert_eq!(subset(&store).as_deref(), Some("v999"));
    assert!(store.apply(Pending::default()).is_empty());
}

#[test]
fn a_policy_that_was_never_good_protects_as_far_as_it_can_be_made_out() {
    let policy = |action: &str| {
        format!(
            r#"{{"metadata":{{"name":"p","namespace":"shop","uid":"u","resourceVersion":"7"}},"spec":{{"action":{action},
            "selector":{{"matchLabels":{{"app":"a"}}}},"rules":[{{"to":[{{"operation":{{"ports":["80"]}}}}]}}]}}}}"#
        )
    };
    let mut store = ObjectStore::new();
    let mut apply = |text: &str| {
        let mut pending = Pending::default();
        let reading = read("AuthorizationPolicy", text);
        pending.push(reading.id, reading.version);
        store.apply(pending);
        let protection =
            store.snapshot().protections.values().next().map(|p| (p.broken, p.restricts, p.selector.iter().count()));
        (protection, lines(&store))
    };
    let (protection, found) = apply(&policy("7"));
    assert_eq!(protection, Some((true, true, 1)));
    assert!(found[0].ends_with("what it could protect refuses until it is mended"), "{found:?}");
    assert_eq!(apply(&policy("7")).0, Some((true, true, 1)), "what stands in is no good version");
    assert_eq!(apply(&policy("\"DENY\"")), (Some((false, true, 1)), vec![]));
    let (protection, found) = apply(&policy("7"));
    assert_eq!(protection, Some((false, true, 1)));
    assert!(found[0].ends_with("its last good version stays in force"), "{found:?}");
}

#[test]
fn garbage_is_named_as_far_as_it_can_be() {
    let mut store = ObjectStore::new();
    for (resource, text, told) in [
        ("Pod", "17", "Error [IST0106]: `object`: must be a map, is a number of something that was served as a Pod"),
        (
            "Service",
            r#"{"metadata":[]}"#,
            "`metadata`: must be a map, is a list of something that was served as a Service",
        ),
        ("Pod", r#"{"metadata":{"name":"p","labels":5}}"#, "(Pod default/p): `metadata.labels`: must be a map"),
        (
            "Namespace",
            r#"{"metadata":{"name":"n","labels":{"a":[]}}}"#,
            "(Namespace n): `metadata.labels.a`: must be a string",
        ),
        ("EndpointSlice", r#"{"metadata":{"name":"e"},"endpoints":[{"addresses":["x"]}]}"#, "`x` is no IP address"),
    ] {
        let mut pending = Pending::default();
        let reading = read(resource, text);
        let id = reading.id.clone();
        pending.push(reading.id, reading.version);
        store.apply(pending);
        assert!(lines(&store).iter().any(|line| line.contains(told)), "{told:?} in {:?}", lines(&store));
        let mut pending = Pending::default();
        pending.push(id, Version::Gone);
        store.apply(pending);
        assert!(lines(&store).is_empty());
    }
}

#[test]
fn a_kind_that_nothing_is_done_with_is_told_of() {
    let mut store = ObjectStore::new();
    let mut pending = Pending::default();
    for resource in ["EnvoyFilter", "Telemetry"] {
        let reading = read(resource, r#"{"metadata":{"name":"x","namespace":"shop"},"spec":{"hosts":5}}"#);
        pending.push(reading.id, reading.version);
    }
    store.apply(pending);
    let found = lines(&store);
    assert_eq!(found.len(), 2);
    assert_eq!(
        found[0],
        "Warning [WEIR0002] (EnvoyFilter shop/x): EnvoyFilter is not supported yet: there is no Envoy to patch"
    );
}

#[test]
fn of_another_nodes_pod_only_what_routing_reads_is_kept() {
    let pod = |node: &str| {
        let text = format!(
            r#"{{"metadata":{{"name":"p","namespace":"shop","uid":"u-1","resourceVersion":"5","labels":{{"app":"a"}},
            "annotations":{{"weir.mesh/x":"1","example.com/y":"2"}},"managedFields":[{{}}]}},
            "spec":{{"nodeName":"{node}","serviceAccountName":"sa","containers":[{{"name":"c","image":"i",
            "ports":[{{"name":"http","containerPort":80}}]}}]}},
            "status":{{"phase":"Running","podIPs":[{{"ip":"10.0.0.1"}}],"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
        );
        let mut reader = Reader::new(Some("here".into()));
        let reading = reader.read(kind("Pod"), "v1", &text).unwrap();
        assert_eq!((&*reading.uid, &*reading.resource_version), ("u-1", "5"));
        let Version::Good(decoded) = reading.version else { panic!("{reading:?}") };
        let crate::crd::Object::Pod(pod) = decoded.object else { panic!("not a pod") };
        Arc::try_unwrap(pod).unwrap()
    };
    for (node, containers, uid) in [("here", 1, "u-1"), ("there", 0, "")] {
        let pod = pod(node);
        assert_eq!((pod.spec.containers.len(), &*pod.meta.uid(), &*pod.node), (containers, uid, node));
        assert_eq!((&*pod.spec.service_account, pod.port_named("http"), pod.ready), ("sa", Some(80), true));
        assert_eq!((pod.meta.label("app"), pod.meta.annotations.iter().count()), (Some("a"), 1));
        assert_eq!(pod.addresses.len(), 1);
    }
}

#[test]
fn a_static_pod_has_the_uid_that_its_node_knows() {
    let hash = "f3c29a5b7e1d48c0a9be6d2f01c3a4b5";
    let foreign = "d4daf794-e023-45e0-b7f0-82ef2939b9fb";
    for (node, mirror, expected, annotations) in [
        ("here", hash, hash, 2),
        ("there", hash, "", 1),
        // Another pod's UID, and what is none.
        ("here", foreign, "u-1", 2),
        ("here", "", "u-1", 2),
        ("here", &hash[1..], "u-1", 2),
        ("here", &hash.to_uppercase(), "u-1", 2),
    ] {
        let text = format!(
            r#"{{"metadata":{{"name":"p","namespace":"kube-system","uid":"u-1","annotations":{{"weir.mesh/x":"1",
            "kubernetes.io/config.hash":"{hash}","kubernetes.io/config.mirror":"{mirror}"}}}},
            "spec":{{"nodeName":"{node}"}}}}"#
        );
        let reading = Reader::new(Some("here".into())).read(kind("Pod"), "v1", &text).unwrap();
        let Version::Good(decoded) = reading.version else { panic!("{reading:?}") };
        let crate::crd::Object::Pod(pod) = decoded.object else { panic!("not a pod") };
        let kept = pod.meta.annotations.iter().count();
        assert_eq!((&*pod.meta.uid(), kept), (expected, annotations), "{node} {mirror}");
    }
}

#[test]
fn files_and_served_objects_compile_to_the_same() {
    let objects = [
        (
            "Namespace",
            r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","labels":{"weir.mesh/mode":"enabled"}}}"#,
        ),
        (
            "Service",
            r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a","namespace":"shop"},"spec":{"clusterIP":"10.96.0.9",
            "selector":{"app":"a"},"ports":[{"name":"http","port":80,"targetPort":"web"}]}}"#,
        ),
        (
            "Pod",
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a-1","namespace":"shop","labels":{"app":"a","version":"v1"}},
            "spec":{"nodeName":"n1","containers":[{"name":"c","ports":[{"name":"web","containerPort":8080}]}]},
            "status":{"phase":"Running","podIP":"10.0.0.1"}}"#,
        ),
        (
            "DestinationRule",
            r#"{"apiVersion":"networking.istio.io/v1","kind":"DestinationRule","metadata":{"name":"a","namespace":"shop"},
            "spec":{"host":"a","subsets":[{"name":"v1","labels":{"version":"v1"}}]}}"#,
        ),
        (
            "VirtualService",
            r#"{"apiVersion":"networking.istio.io/v1","kind":"VirtualService","metadata":{"name":"x","namespace":"shop"},
            "spec":{"hosts":["a"],"http":[{"route":[{"destination":{"host":"a","subset":"v9"}}]}]}}"#,
        ),
    ];
    let (mut files, mut served, mut pending) = (Store::new(), ObjectStore::new(), Pending::default());
    for (number, (resource, text)) in objects.iter().enumerate() {
        files.set_file(&format!("{number}.json"), text);
        let reading = Reader::new(Some("elsewhere".into())).read(kind(resource), "v1", text).unwrap();
        pending.push(reading.id, reading.version);
    }
    served.apply(pending);
    let options = CompileOptions::default();
    let (from_files, from_server) = (compile(&files.snapshot(), &options), compile(served.snapshot(), &options));
    assert_eq!(format!("{:?}", from_files.plan), format!("{:?}", from_server.plan));
    assert_eq!(from_server.plan.services.len(), 1);
    let told = |findings: &[crate::finding::Finding]| {
        let mut told: Vec<String> =
            findings.iter().map(|f| format!("{} {:?} {}", f.code, f.object, f.message)).collect();
        told.sort();
        told
    };
    assert_eq!(told(&files.findings()), told(&served.findings()));
    assert_eq!(told(&from_files.findings), told(&from_server.findings));
    assert!(told(&from_server.findings).iter().any(|line| line.contains("v9")), "{:?}", from_server.findings);
}

#[test]
fn an_object_that_is_nested_too_deep_is_bad_and_stops_nobody() {
    let deep = format!("{}{}", "{\"a\":".repeat(200), "1".to_owned() + &"}".repeat(200));
    for (kind, protects) in [("VirtualService", false), ("AuthorizationPolicy", true)] {
        let text = format!(r#"{{"metadata":{{"name":"x","namespace":"shop","resourceVersion":"7"}},"spec":{deep}}}"#);
        let reading = read(kind, &text);
        assert_eq!((&*reading.id.name, &*reading.resource_version), ("x", "7"));
        let Version::Bad { findings, stand_in, .. } = reading.version else { panic!("{kind} is good") };
        assert!(findings[0].to_string().contains("recursion limit"), "{findings:?}");
        assert_eq!(stand_in.is_some(), protects);
    }
}
