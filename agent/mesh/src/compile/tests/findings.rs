//! What the compiler has to say, and how it says it.

use super::*;
use crate::finding::code;

#[test]
fn a_finding_points_at_its_line_and_is_there_once() {
    let ports = "{name: http, port: 80}, {name: http-2, port: 81}";
    let text =
        [shop(ports), vs("shop", "b", "{hosts: [b],\n  http: [{route: [\n    {destination: {host: nobody}}]}]}")]
            .concat();
    let compiled = compiled(&text);
    let line = text.lines().position(|line| line.contains("nobody")).expect("there") as u32 + 1;
    let found: Vec<_> = compiled.findings.iter().filter(|f| f.code == code::REFERENCE).collect();
    assert_eq!(found.len(), 1, "two ports meet it: {found:?}");
    assert_eq!(found[0].at.as_ref().map(ToString::to_string), Some(format!("test.yaml:{line}:19")));
}

#[test]
fn a_rule_for_a_host_that_does_not_exist_says_so() {
    let compiled =
        compiled(&[shop(HTTP), dr("other", "b", "{host: b, subsets: [{name: v1, labels: {x: z}}]}")].concat());
    let found = compiled.found(code::RULE_WITHOUT_HOST);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("b.other.svc.cluster.local is no service here"), "{found:?}");
    assert_eq!(compiled.found(code::EMPTY_SUBSET).len(), 0);
}

#[test]
fn rules_that_no_port_can_follow_say_so() {
    let spec = "{hosts: [b], http: [{route: [{destination: {host: b}}]}], tcp: [{route: [{destination: {host: b}}]}]}";
    for (port, message) in [
        ("{name: tcp, port: 80}", "Warning VirtualService shop/b 33: `spec.http` has no effect"),
        (HTTP, "Warning VirtualService shop/b 33: `spec.tcp` has no effect"),
    ] {
        let found = compiled(&[shop(port), vs("shop", "b", spec)].concat()).found(code::NO_EFFECT);
        assert!(found.len() == 1 && found[0].starts_with(message), "{found:?}");
    }
    let both = compiled(&[shop("{name: web, port: 80}"), vs("shop", "b", spec)].concat());
    assert_eq!(both.found(code::NO_EFFECT), [""; 0]);
}

#[test]
fn a_service_without_an_address_cannot_be_asked_for() {
    let compiled = compiled(&service("a", "a", "", HTTP));
    assert!(compiled.plan.services.is_empty());
    assert!(compiled.found(code::NO_EFFECT)[0].contains("no clusterIP"));
}

#[test]
fn findings_come_by_place_and_the_worst_first() {
    let compiled = compiled(
        &[
            shop("{name: web, port: 80}"),
            vs("shop", "b", "{hosts: [b], http: [{route: [{destination: {host: b, subset: v9}}]}]}"),
        ]
        .concat(),
    );
    let lines: Vec<u32> = compiled.findings.iter().filter_map(|f| f.at.as_ref()).map(|at| at.line).collect();
    assert!(lines.len() >= 2 && lines.is_sorted(), "{:?}", compiled.findings);
}

#[test]
fn an_object_that_came_from_no_file_has_no_place() {
    let node = crate::crd::Node::from(serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "x"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}
    }));
    let header = crate::crd::header(&node, None).expect("complete");
    let decoded = crate::crd::decode(&node, &header, None).expect("valid");
    let mut snapshot = Snapshot::default();
    assert!(snapshot.insert(decoded.object.clone()) && !snapshot.insert(decoded.object));
    let compiled = compile(&snapshot, &CompileOptions { generation: 7, ..CompileOptions::default() });
    assert_eq!(compiled.program.generation, 7);
    assert_eq!(compiled.verdict("10.96.0.1").0, Verdict::Reject);
    assert!(compiled.findings.iter().all(|f| f.at.is_none()));
}

#[test]
fn what_a_sidecar_hides_and_is_seen_all_the_same_is_told() {
    let told = |egress: &str| {
        let text = [
            shop(HTTP),
            service("other", "x", "10.96.0.8", HTTP),
            service("other", "z", "10.96.0.9", HTTP),
            rule("Sidecar", "shop", "default", &format!("{{egress: [{{hosts: [{egress}]}}]}}")),
        ];
        let (compiled, _) = with_store(&[("test.yaml", &text.concat())], &CompileOptions::default());
        compiled
            .found(code::NOT_SUPPORTED)
            .into_iter()
            .filter(|one| one.contains("Sidecar shop/default"))
            .collect::<Vec<_>>()
    };
    let own = told("./*");
    assert!(own.len() == 1 && own[0].contains("hides x.other.svc.cluster.local and 1 more"), "{own:?}");
    assert!(own[0].contains("visibility is not narrowed"), "{own:?}");
    assert_eq!(told("'*/*'"), Vec::<String>::new());
}
