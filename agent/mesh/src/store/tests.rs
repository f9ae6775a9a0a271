//! Files, broken and whole.

use super::*;
use crate::crd::{Action, HttpRoute};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  ports:\n  - port: 80\n";

fn routes(name: &str, subset: &str, weight: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: {name}\nspec:\n  hosts: [a]\n  http:\n  - route:\n    - destination:\n        host: a\n        subset: {subset}\n      weight: {weight}\n    - destination:\n        host: a\n      weight: 1\n"
    )
}

fn file(documents: &[&str]) -> String {
    documents.join("---\n")
}

fn loaded(text: &str) -> Store {
    let mut store = Store::new();
    store.set_file("f.yaml", text);
    store
}

/// The subset that the VirtualService of this name sends to first.
fn subset(store: &Store, name: &str) -> Option<String> {
    let snapshot = store.snapshot();
    let vs = snapshot.virtual_services.get(&("default".into(), name.into()))?;
    let HttpRoute { action: Action::Forward(destinations), .. } = &vs.http[0] else { return None };
    Some(destinations[0].subset.to_string())
}

fn lines(store: &Store) -> Vec<String> {
    store.findings().iter().map(ToString::to_string).collect()
}

#[test]
fn several_documents_lists_and_json_are_read() {
    let json = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"List\",\n\t\"items\": [{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"n\"}}]\n}";
    let mut store = loaded(&file(&[SERVICE, &routes("x", "v1", "9")]));
    store.set_file("list.json", json);
    assert_eq!(lines(&store), [""; 0]);
    let snapshot = store.snapshot();
    assert_eq!((snapshot.services.len(), snapshot.virtual_services.len(), snapshot.namespaces.len()), (1, 1, 1));
    let vs = &snapshot.virtual_services[&("default".into(), "x".into())];
    assert_eq!(vs.meta.at().map(|at| (at.line, at.column)), Some((9, 1)));
    store.remove_file("f.yaml");
    assert_eq!((store.snapshot().services.len(), store.snapshot().namespaces.len()), (0, 1));
}

#[test]
fn a_broken_document_keeps_its_last_good_version_and_hides_no_other() {
    let mut store = loaded(&file(&[&routes("x", "v1", "9"), &routes("z", "v1", "9")]));
    let broken = routes("x", "v2", "9").replace("    - destination:", "    - destination: b\n     x: 1");
    store.set_file("f.yaml", &file(&[&broken, &routes("z", "v2", "9")]));
    assert_eq!((subset(&store, "x").as_deref(), subset(&store, "z").as_deref()), (Some("v1"), Some("v2")));
    let found = lines(&store);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("Error [WEIR0001] f.yaml:10:"), "{found:?}");
    assert!(found[0].contains("the last good version of VirtualService default/x stays"), "{found:?}");
    store.set_file("f.yaml", &file(&[&routes("x", "v3", "9"), &routes("z", "v2", "9")]));
    assert_eq!((subset(&store, "x").as_deref(), lines(&store).len()), (Some("v3"), 0));
}

#[test]
fn items_of_a_typed_list_need_not_say_what_they_are() {
    let store = loaded(
        "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a, namespace: shop}\n  spec: {ports: [{port: 80}]}\n",
    );
    assert_eq!(lines(&store), [""; 0]);
    assert!(store.snapshot().services.contains_key(&("shop".into(), "a".into())));
    let untyped = loaded("apiVersion: v1\nkind: List\nitems:\n- metadata: {name: a}\n");
    assert!(lines(&untyped)[0].contains("`apiVersion`: must be given"), "{:?}", lines(&untyped));
}

#[test]
fn a_broken_document_that_tells_nothing_keeps_everything_that_is_not_there_anew() {
    let mut store = loaded(&file(&[&routes("x", "v1", "9"), &routes("z", "v1", "9")]));
    store.set_file("f.yaml", &file(&["a: [1\n", &routes("z", "v2", "9")]));
    assert_eq!((subset(&store, "x").as_deref(), subset(&store, "z").as_deref()), (Some("v1"), Some("v2")));
    store.set_file("f.yaml", &routes("z", "v2", "9"));
    assert_eq!(subset(&store, "x"), None, "gone from a file that can be read is gone");
}

#[test]
fn wrong_indentation_is_told_with_its_place_and_what_to_do() {
    let store = loaded(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n  host: a\n    outlierDetection:\n      interval: 5m\n",
    );
    let found = lines(&store);
    assert!(found[0].starts_with("Error [WEIR0001] f.yaml:6:"), "{found:?}");
    assert!(found[0].contains("mapping values are not allowed"), "{found:?}");
    assert!(
        found[0].ends_with(
            "`outlierDetection` is indented under `host`, which already has a value: move it out to spec.trafficPolicy.outlierDetection"
        ),
        "{found:?}"
    );
}

#[test]
fn a_key_that_is_there_twice_is_an_error() {
    let store = loaded(&SERVICE.replace("kind: Service\n", "kind: Service\nkind: Service\n"));
    assert!(lines(&store)[0].contains("f.yaml:3:1"), "{:?}", lines(&store));
    assert!(store.snapshot().services.is_empty());
}

#[test]
fn an_object_that_is_not_valid_keeps_its_last_good_version_and_its_line_is_told() {
    let good = routes("x", "v1", "9");
    for (from, to, line, message) in [
        ("weight: 9", "weight: -1", 12, "`spec.http[0].route[0].weight`: must not be negative, is -1"),
        ("weight: 9", "weight: nine", 12, "`spec.http[0].route[0].weight`: must be an integer, is a string"),
        ("weight: 9", "weight: 0", 8, "`spec.http[0].route`: the weights add up to 0"),
        ("hosts: [a]", "hosts: [\"*\"]", 6, "`spec.hosts[0]`: `*` is for gateways only"),
        ("hosts: [a]", "hosts: [a, a]", 6, "`a` is there twice"),
        ("hosts: [a]", "hosts: [a b]", 6, "`a b` is no host name"),
        (
            "        host: a\n        subset: v1",
            "        subset: v1",
            9,
            "`spec.http[0].route[0].destination.host`: must be given",
        ),
        (
            "subset: v1",
            "port: {number: 70000}",
            11,
            "`spec.http[0].route[0].destination.port.number`: must be between 1 and 65535",
        ),
        ("  - route:", "  - match: [{uri: {regex: \"(\"}}]\n    route:", 8, "is no regular expression: unclosed group"),
        ("  - route:", "  - match: [{uri: {regex: \"a)(b\"}}]\n    route:", 8, "is no regular expression"),
        (
            "  - route:",
            "  - match: [{uri: {exact: a, prefix: b}}]\n    route:",
            8,
            "`spec.http[0].match[0].uri`: only one of exact and prefix may be given",
        ),
        ("  - route:", "  - match: [{headers: {x: {prefix: \"\"}}}]\n    route:", 8, "must not be empty"),
        ("  - route:", "  - match: [{headers: {\"x y\": {exact: a}}}]\n    route:", 8, "`x y` is no name of a header"),
        ("  - route:", "  - redirect: {uri: /x}\n    route:", 8, "only one of route and redirect may be given"),
        ("spec:\n", "specs:\n", 1, "`spec`: must be given"),
        ("name: x\n", "name: x\n  labels: {version: 1}\n", 5, "must be a string, is a number: put it in quotes"),
    ] {
        let mut store = loaded(&good);
        let bad = good
            .replace(from, to)
            .replace("weight: 1\n", if to == "weight: 0" { "weight: 0\n" } else { "weight: 1\n" });
        assert_ne!(bad, good, "{from}");
        store.set_file("f.yaml", &file(&[&bad, SERVICE]));
        assert_eq!(subset(&store, "x").as_deref(), Some("v1"), "{to}");
        assert_eq!(store.snapshot().services.len(), 1, "everything else applies");
        let mut found = lines(&store);
        found.retain(|line| line.starts_with("Error"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains(message) && found[0].contains("its last good version stays in force"),
            "{to}: {found:?}"
        );
        assert!(found[0].starts_with(&format!("Error [IST0106] f.yaml:{line}:")), "{to}: line {line}: {found:?}");
    }
}

#[test]
fn an_object_that_was_never_valid_is_not_in_force() {
    let store = loaded(&routes("x", "v1", "-1"));
    assert!(store.snapshot().virtual_services.is_empty());
    assert!(lines(&store)[0].ends_with("it is not in force"), "{:?}", lines(&store));
}

#[test]
fn a_document_without_a_name_keeps_what_the_file_held() {
    let mut store = loaded(&routes("x", "v1", "9"));
    store.set_file("f.yaml", &routes("x", "v1", "9").replace("  name: x\n", "  nam: x\n"));
    assert_eq!(subset(&store, "x").as_deref(), Some("v1"));
    assert!(lines(&store)[0].contains("`metadata.name`: must be given"), "{:?}", lines(&store));
}

#[test]
fn the_same_object_in_two_files_is_the_first_files() {
    let mut store = Store::new();
    store.set_file("b.yaml", &routes("x", "v2", "9"));
    store.set_file("a.yaml", &routes("x", "v1", "9"));
    assert_eq!(subset(&store, "x").as_deref(), Some("v1"));
    let found = lines(&store);
    assert!(found[0].starts_with("Error [WEIR0006] b.yaml:1:1") && found[0].contains("a.yaml:1:1"), "{found:?}");
    store.remove_file("a.yaml");
    assert_eq!((subset(&store, "x").as_deref(), lines(&store).len()), (Some("v2"), 0));
}

#[test]
fn unknown_kinds_are_told_once_and_unserved_ones_each() {
    let map = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
    let filter = "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: g}\nspec: {}\n";
    let mut store = loaded(&file(&[&map("a"), &map("b"), filter]));
    store.set_file("g.yaml", &file(&[&map("c"), &filter.replace("name: g", "name: h")]));
    let codes: Vec<_> = store.findings().iter().map(|f| (f.code, f.severity)).collect();
    let count = |wanted| codes.iter().filter(|found| **found == wanted).count();
    assert_eq!(count((code::IGNORED_KIND, Severity::Info)), 1, "{codes:?}");
    assert_eq!(count((code::NOT_SUPPORTED, Severity::Warning)), 2, "{codes:?}");
}

#[test]
fn a_kind_of_another_group_is_not_mistaken_for_istios() {
    let store = loaded(&routes("x", "v1", "9").replace("networking.istio.io/v1", "example.com/v1"));
    assert!(store.snapshot().virtual_services.is_empty());
    assert_eq!(store.findings()[0].code, code::IGNORED_KIND);
}

#[test]
fn a_file_beyond_the_limit_changes_nothing() {
    let mut store = loaded(SERVICE);
    store.set_file("f.yaml", &"#".repeat(MAX_FILE_BYTES + 1));
    assert_eq!(store.snapshot().services.len(), 1);
    assert!(lines(&store)[0].contains("more than the 8388608 bytes that are read"), "{:?}", lines(&store));
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        bomb = format!("{bomb}a{level}: &a{level} [{}]\n", before.trim_end_matches(", "));
    }
    let store = loaded(&bomb);
    assert_eq!(store.findings().len(), 1);
    assert_eq!(store.findings()[0].code, code::SYNTAX);
}

const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  selector: {matchLabels: {app: b}}\n  action: ALLOW\n";

/// Selector and targets of the policy that stands in, with whether it restricts.
fn stand_in(store: &Store) -> Option<(String, Vec<String>, bool)> {
    let snapshot = store.snapshot();
    let found = snapshot.protections.values().find(|policy| policy.broken)?;
    let selector: Vec<String> = found.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Some((selector.join(","), found.services.iter().map(|one| one.name.to_string()).collect(), found.restricts))
}

#[test]
fn a_policy_that_was_never_good_refuses_what_it_could_protect() {
    for (from, to, selector) in [
        ("action: ALLOW", "action: [ALLOW]", "app=b"),
        ("action: ALLOW", "action: AUDIT\n  rules: 1", "app=b"),
        ("{app: b}", "{app: 1}", ""),
        ("{matchLabels: {app: b}}", "[]", ""),
        ("  action: ALLOW", "  a: {", ""),
        ("  action: ALLOW", "  a: b: c", ""),
        ("spec:\n  selector: {matchLabels: {app: b}}\n  action: ALLOW\n", "spec: 7\n", ""),
    ] {
        let bad = POLICY.replace(from, to);
        assert_ne!(bad, POLICY);
        let mut store = loaded(&file(&[&bad, SERVICE]));
        assert_eq!(stand_in(&store), Some((selector.to_owned(), Vec::new(), true)), "{to}");
        assert_eq!(store.snapshot().services.len(), 1);
        let found = lines(&store);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("Error ") && found[0].contains("what it could protect refuses until it is mended"),
            "{found:?}"
        );
        // Still broken, but by now its selector can be read.
        store.set_file("f.yaml", &POLICY.replace("ALLOW", "[X]"));
        assert_eq!(stand_in(&store).map(|found| found.0).as_deref(), Some("app=b"), "{to}");
        store.set_file("f.yaml", POLICY);
        assert_eq!((stand_in(&store), store.snapshot().protections.len(), lines(&store).len()), (None, 1, 0));
        // From now on there is a good version.
        store.set_file("f.yaml", &bad);
        assert_eq!((stand_in(&store), store.snapshot().protections.len()), (None, 1), "{to}");
        assert!(lines(&store)[0].contains("last good version"), "{:?}", lines(&store));
    }
}

#[test]
fn targets_narrow_a_broken_policy_only_when_all_of_them_can_be_read() {
    let with = |refs: &str| {
        let bad =
            POLICY.replace("selector: {matchLabels: {app: b}}", &format!("targetRefs: {refs}")).replace("ALLOW", "[]");
        stand_in(&loaded(&bad)).expect("it stands in").1
    };
    assert_eq!(with("[{kind: Service, name: a}, {kind: Service, name: b}]"), ["a", "b"]);
    assert_eq!(with("[{kind: Service, name: a}, {kind: Service}]"), [""; 0]);
    assert_eq!(with("[{kind: Service, name: a}, {kind: Waypoint, name: b}]"), [""; 0]);
}

#[test]
fn a_good_version_in_another_file_comes_before_what_stands_in() {
    let mut store = loaded(&POLICY.replace("ALLOW", "[]"));
    store.set_file("z.yaml", POLICY);
    assert_eq!((stand_in(&store), store.snapshot().protections.len()), (None, 1));
    store.remove_file("z.yaml");
    assert!(stand_in(&store).is_some());
}

#[test]
fn a_broken_policy_of_another_mesh_is_not_ours() {
    let theirs = POLICY.replace("security.istio.io/v1", "policy.example.io/v1").replace("action: ALLOW", "a: {");
    let store = loaded(&theirs);
    assert!(store.snapshot().protections.is_empty() && lines(&store).len() == 1);
}

#[test]
fn a_policy_that_is_not_enforced_is_an_error_and_a_wrong_kind_too() {
    let policy = |kind: &str| {
        format!("apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n")
    };
    let said = lines(&loaded(&policy("BackendTLSPolicy")));
    assert!(said[0].starts_with("Error [IST0106]") && said[0].contains("`spec.targetRefs`: must be given"), "{said:?}");
    assert!(said[0].contains(STAND_IN), "{said:?}");
    let said = lines(&loaded(&policy("HTTPRout")));
    assert!(
        said[0].starts_with("Error [IST0106]")
            && said[0].ends_with("did you mean HTTPRoute of gateway.networking.k8s.io/v1?"),
        "{said:?}"
    );
}
