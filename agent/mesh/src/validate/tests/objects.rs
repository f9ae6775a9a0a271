//! Whole texts: fields that do not exist, spellings, versions, lists, and what a broken part leaves of the rest.

use super::{lines, table};
use crate::finding::{Severity, code};
use crate::store::Store;
use crate::validate::{has_error, text};

const RULE: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: x}\n";

#[test]
fn a_field_that_does_not_exist_is_told_with_where_it_belongs() {
    for (spec, wanted) in [
        ("{host: a, trafficPolcy: {}}", "!spec.trafficPolcy: there is no such field; did you mean spec.trafficPolicy?"),
        (
            "{host: a, outlierDetection: {}}",
            "!spec.outlierDetection: there is no such field; did you mean spec.trafficPolicy.outlierDetection?",
        ),
        (
            "{host: a, trafficPolicy: {tls: {mode: DISABLE}, subsets: []}}",
            "!spec.trafficPolicy.subsets: there is no such field; did you mean spec.subsets?",
        ),
        (
            "{host: a, trafficPolicy: {loadBalancer: {consecutive5xxErrors: 1}}}",
            "!spec.trafficPolicy.loadBalancer.consecutive5xxErrors: there is no such field; did you mean spec.trafficPolicy.outlierDetection.consecutive5xxErrors?",
        ),
        ("{host: a, nothing-like-it: 1}", "!spec.nothing-like-it: there is no such field"),
    ] {
        table("networking.istio.io/v1", "DestinationRule", &[(spec, wanted)]);
    }
    let routes =
        "{hosts: [a], http: [{route: [{destination: {host: a}}]}, {route: [{destination: {host: a}, timeout: 1s}]}]}";
    let wanted = "!spec.http[1].route[0].timeout: there is no such field; did you mean spec.http[1].timeout?";
    table("networking.istio.io/v1", "VirtualService", &[(routes, wanted)]);
    let gateway = "{servers: [{port: {number: 80, name: http, protocol: HTTP}}], hosts: [a.b]}";
    let found = super::said("networking.istio.io/v1", "Gateway", gateway);
    assert!(
        found.iter().any(|l| l.contains("!spec.hosts: there is no such field; did you mean spec.servers[0].hosts?")),
        "{found:?}"
    );
    assert!(found.iter().any(|l| l.starts_with("!spec.servers[0].hosts: must be given")), "{found:?}");
}

#[test]
fn snake_case_is_read_and_told() {
    let spec = "{host: a, traffic_policy: {load_balancer: {simple: RANDOM}}}";
    let found = super::said("networking.istio.io/v1", "DestinationRule", spec);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("?spec.traffic_policy: an API server does not know it"), "{found:?}");
    let mut store = Store::new();
    store.set_file("f.yaml", &format!("{RULE}spec: {spec}\n"));
    let snapshot = store.snapshot();
    let rule = snapshot.destination_rules.values().next().expect("it is in force");
    let balancer = rule.policy.as_ref().and_then(|p| p.blocks.load_balancer.as_ref());
    assert_eq!(balancer.map(|balancer| balancer.simple), Some(crate::program::LoadBalancer::Random));
    // Keys of the user's own stay as they are.
    table(
        "networking.istio.io/v1",
        "DestinationRule",
        &[("{host: a, subsets: [{name: v1, labels: {my_label: a}}]}", "")],
    );
}

#[test]
fn what_is_in_force_goes_on_without_a_field_that_does_not_exist() {
    let mut store = Store::new();
    store.set_file("f.yaml", &format!("{RULE}spec: {{host: a, trafficPolcy: {{}}, subsets: [{{name: v1}}]}}\n"));
    assert_eq!(store.snapshot().destination_rules.len(), 1);
    let findings = store.findings();
    assert_eq!((findings[0].severity, findings[0].code), (Severity::Warning, code::UNKNOWN_FIELD));
    assert_eq!(findings[0].help.as_deref(), Some("did you mean spec.trafficPolicy?"));
    let policy = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: x}\nspec: {mlts: {mode: STRICT}}\n";
    store.set_file("f.yaml", policy);
    assert!(has_error(&store.findings()), "{:?}", store.findings());
    assert!(store.snapshot().protections.values().all(|p| p.broken && p.restricts), "it protects all the same");
}

#[test]
fn every_fault_of_an_object_is_told_at_its_place() {
    let text = format!(
        "{RULE}spec:\n  host: a_b\n  trafficPolicy:\n    loadBalancer:\n      simple: RANDOMLY\n  subsets:\n  - labels: {{}}\n"
    );
    let checked = text_of(&text);
    let places: Vec<(u32, u32)> = checked.iter().filter_map(|f| f.at.as_ref()).map(|at| (at.line, at.column)).collect();
    assert_eq!(places, [(5, 9), (8, 15), (10, 5)], "{checked:#?}");
}

fn text_of(yaml: &str) -> Vec<crate::finding::Finding> {
    text(&"f.yaml".into(), yaml).findings
}

#[test]
fn documents_lists_and_json_hide_nothing_of_each_other() {
    let bad = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: x}\nspec: {}\n";
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}\n- {{kind: 5}}\n",
        bad.replace('\n', ", ").replace("apiVersion", "{apiVersion").trim_end_matches(", ").to_owned() + "}"
    );
    let json = "{\n\t\"apiVersion\": \"networking.istio.io/v1\",\n\t\"kind\": \"DestinationRule\",\n\t\"metadata\": {\"name\": \"j\"},\n\t\"spec\": {\"host\": \"\"}\n}\n";
    let text = ["# only a comment\n", "a: [\n", bad, &list, json].join("---\n");
    let checked = crate::validate::text(&"f.yaml".into(), &text);
    let found: Vec<String> = checked.findings.iter().map(|f| format!("{} {}", f.code, f.message)).collect();
    assert_eq!(found.len(), 5, "{found:#?}");
    assert!(found[0].starts_with("WEIR0001 no YAML"), "{found:#?}");
    assert_eq!(found[1], "IST0106 `spec.host`: must be given");
    assert_eq!(found[2], "IST0106 `spec.host`: must be given");
    assert!(found[3].contains("must be given") || found[3].contains("must be a string"), "{found:#?}");
    assert_eq!(found[4], "IST0106 `spec.host`: must not be empty");
    assert_eq!(checked.objects, 4);
}

#[test]
fn versions_and_kinds_that_do_not_exist() {
    for (version, kind, wanted) in [
        (
            "networking.istio.io/v2",
            "VirtualService",
            "!apiVersion: VirtualService has no version networking.istio.io/v2; write networking.istio.io/v1",
        ),
        (
            "networking.istio.io/v1",
            "VirtualServise",
            "!kind: networking.istio.io/v1 has no kind VirtualServise; did you mean VirtualService of networking.istio.io/v1?",
        ),
        ("networking.istio.io/v1", "EnvoyFilter", ""),
        ("networking.istio.io/v1alpha3", "Sidecar", "!spec: must be given"),
        ("example.com/v1", "VirtualService", ""),
        ("batch/v1", "Job", ""),
    ] {
        let found = lines(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n"));
        assert_eq!(found.first().map_or("", String::as_str), wanted, "{found:?}");
    }
}

#[test]
fn names_and_labels_of_the_object_itself() {
    let with = |metadata: &str| {
        lines(&format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{{metadata}}}\nspec: {{host: a}}\n"
        ))
    };
    assert_eq!(with("name: a.b, labels: {app: a}, annotations: {a: 'b c'}"), [""; 0]);
    for (metadata, wanted) in [
        ("name: A_b", "!metadata.name: A_b is no name"),
        ("name: a, labels: {app: 'a b'}", "!metadata.labels.app: a b is no value of a label"),
        ("name: a, labels: {app: 1}", "!metadata.labels.app: must be a string, is a number: put it in quotes"),
        ("name: a, lables: {app: a}", "!metadata.lables: there is no such field; did you mean metadata.labels?"),
        ("name: a, namespace: '../x y'", "!metadata.namespace: ../x y is no namespace"),
        ("name: a, namespace: a.b", "!metadata.namespace: a.b is no namespace"),
        ("labels: {app: a}", "!metadata.name: must be given"),
    ] {
        let found = with(metadata);
        assert!(found.len() == 1 && found[0].starts_with(wanted), "{metadata}: {found:?}");
    }
}

#[test]
fn a_key_that_is_indented_too_far_is_told_with_its_place() {
    for (text, wanted) in [
        (
            format!("{RULE}spec:\n  host: a\n    outlierDetection:\n      interval: 5m\n"),
            "move it out to spec.trafficPolicy.outlierDetection",
        ),
        (format!("{RULE}spec:\n  host: a\n    subsets:\n    - name: v1\n"), "move it out to spec.subsets"),
    ] {
        let found = text_of(&text);
        assert_eq!(found[0].at.as_ref().map(|at| at.line), Some(6), "{found:?}");
        assert!(found[0].help.as_ref().is_some_and(|help| help.ends_with(wanted)), "{found:?}");
    }
}

#[test]
fn a_bracket_that_is_left_open_is_told_with_the_key_whose_value_it_begins() {
    let left_open = Some("close the `[` of `hosts`");
    let indented = Some("`http` is indented under `hosts`, which already has a value: move it out to spec.http");
    for (spec, wanted) in [
        ("  hosts: [a, b\n  http: []\n", left_open),
        ("  hosts: [a, b\n\n  http: []\n", left_open),
        ("  hosts: [a, b # ]\n  http: []\n", left_open),
        ("  hosts: ['a]', \"b\\\"]\"\n  http: []\n", left_open),
        ("  hosts: [\"a[b\"]\n    http: []\n", indented),
        ("  hosts: [a] # see [1\n    http: []\n", indented),
        // A bracket that is closed in a later line is not what is wrong.
        ("  http: [\n  {name: x} {name: y}]\n", None),
        ("  hosts: [\"a\", # and\n  \"b\" \"c\"]\n", None),
    ] {
        let found = text_of(&format!("{}spec:\n{spec}", RULE.replace("DestinationRule", "VirtualService")));
        assert!(found[0].message.starts_with("no YAML"), "{spec}: {found:?}");
        assert_eq!(found[0].help.as_deref(), wanted, "{spec}: {found:?}");
    }
}

#[test]
fn a_list_with_a_fault_of_yaml_hides_none_of_its_objects() {
    let item = "- apiVersion: networking.istio.io/v1\n  kind: DestinationRule\n  metadata: {name: x}\n  spec: SPEC\n";
    let items =
        ["{host: a, hots: b}", "{host: a, host: b}", "{host: 1}"].map(|spec| item.replace("SPEC", spec)).concat();
    let found = lines(&format!("apiVersion: v1\nkind: List\nitems:\n{items}"));
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("!spec.hots: there is no such field"), "{found:?}");
    assert_eq!(found[1], "!no YAML: the key host is there twice");
    assert!(found[2].starts_with("!spec.host: must be a string"), "{found:?}");
}

#[test]
fn plain_scalars_are_what_kubectl_makes_of_them() {
    for word in ["yes", "No", "on", "OFF", "y", "N"] {
        let found = super::said("networking.istio.io/v1", "DestinationRule", &format!("{{host: {word}}}"));
        assert_eq!(found, ["!spec.host: must be a string, is a boolean: put it in quotes"], "{word}");
        let quoted = super::said("networking.istio.io/v1", "DestinationRule", &format!("{{host: '{word}'}}"));
        assert!(!quoted.iter().any(|line| line.contains("boolean")), "{word}: {quoted:?}");
    }
    let port = |number: &str| {
        let spec = format!("{{host: a, trafficPolicy: {{portLevelSettings: [{{port: {{number: {number}}}}}]}}}}");
        super::said("networking.istio.io/v1", "DestinationRule", &spec).concat()
    };
    assert_eq!(port("0120"), port("80"));
    // 65537, one too many.
    assert!(port("0200001").contains("65537"), "{}", port("0200001"));
}

#[test]
fn what_the_parser_says_is_said_to_whoever_writes_manifests() {
    for (text, wanted) in [
        ("a: 1\na: 2\n", "the key `a` is there twice"),
        ("null: 1\n", "a key must be a string, is nothing"),
        ("[a]: 1\n", "a key must be a string"),
        ("a: &a [*a]\n", "an anchor refers to itself"),
        ("a: .inf\n", "`.inf` is no number that an API server takes"),
    ] {
        let error = crate::crd::parse(text, 0).expect_err("it is no YAML");
        assert_eq!(error.message, wanted, "{text}");
    }
    let found = super::said(
        "networking.istio.io/v1",
        "VirtualService",
        "{hosts: [a], http: [{route: [{destination: {host: a}, weight: 1.5}]}]}",
    );
    assert!(found[0].ends_with("must be an integer, is 1.5"), "{found:?}");
}

#[test]
fn an_object_without_a_name_is_read_to_its_end() {
    let found = lines(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x, namespace: [a]}\nspec: 7\n",
    );
    assert_eq!(found, ["!metadata.namespace: must be a string, is a list", "!spec: must be a map, is a number"]);
}

#[test]
fn what_is_meant_for_other_programs_is_passed_over_and_told() {
    let said = |file: &str, text: &str| -> Vec<String> {
        let findings = crate::validate::text(&file.into(), text).findings;
        findings.iter().map(|finding| format!("{} {}", finding.severity, finding.message)).collect()
    };
    for (file, text, told) in [
        (
            "a/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n",
            "Info a Kustomization, which kubectl makes objects of: it is passed over",
        ),
        (
            "kustomization.yaml",
            "resources: [a.yaml]\n",
            "Info a Kustomization, which kubectl makes objects of: it is passed over",
        ),
        (
            "Chart.yaml",
            "apiVersion: v2\nname: web\nversion: 1.0.0\n",
            "Info the description of a chart: it is passed over",
        ),
        ("values.yaml", "replicas: 3\n", "Info no object: it has neither apiVersion nor kind: it is passed over"),
        // What was meant to be an object is none of these.
        ("x.yaml", "metadata: {name: a}\n", "Error `apiVersion`: must be given"),
        ("x.yaml", "spec: {}\n", "Error `apiVersion`: must be given"),
        ("x.json", "[{}]", "Error a document holds one object, and this is a list: write `kind: List` with `items`"),
    ] {
        assert_eq!(said(file, text), [told], "{file} {text}");
        let mut store = crate::store::Store::new();
        store.set_file(file, text);
        let findings = store.findings();
        assert!(findings.len() == 1 && told.starts_with(&findings[0].severity.to_string()), "{findings:?}");
    }
}

#[test]
fn what_the_parser_says_is_said_in_words_for_people() {
    let deep = ["a: ", &"[".repeat(300), &"]".repeat(300)].concat();
    let mut laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (new, old) in ["b", "c", "d", "e", "f", "g"].into_iter().zip(["a", "b", "c", "d", "e", "f"]) {
        let old = vec![format!("*{old}"); 10].join(",");
        laughs = format!("{laughs}{new}: &{new} [{old}]\n");
    }
    for (text, said) in [
        (&*deep, "nested deeper than"),
        (&*laughs, "aliases repeat more"),
        ("kind: A\nspec:\n  a: 1\n\tb: 2\n", "a tab stands where the indentation is"),
    ] {
        let found = lines(text);
        assert!(found.len() == 1 && found[0].contains(said), "{found:?}");
    }
}

#[test]
fn a_kind_that_the_gateway_api_does_not_have_is_told() {
    let found = super::said("gateway.networking.k8s.io/v1", "HTTPRout", "{}");
    assert!(
        found[0].contains("has no kind HTTPRout; did you mean HTTPRoute of gateway.networking.k8s.io/v1?"),
        "{found:?}"
    );
    for kind in ["ListenerSet", "UDPRoute", "HTTPRouteList"] {
        let text =
            format!("apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: x}}\nitems: []\n");
        assert_eq!(lines(&text), [""; 0], "{kind}");
    }
}
