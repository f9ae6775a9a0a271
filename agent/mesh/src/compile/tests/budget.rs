//! What regular expressions may come to, of an object, a namespace and the mesh.

use super::super::budget::MAX_STATES_OF_NAMESPACE;
use super::*;
use crate::finding::code;

/// A VirtualService for service `b` in `shop`, with so many regexes that are nearly as large as one may be.
fn heavy(namespace: &str, name: &str, regexes: usize) -> String {
    let items = (0..regexes).map(|n| format!(r"{{uri: {{regex: '/{n}{name}\pL{{18}}'}}}}")).collect::<Vec<_>>();
    let spec = format!(
        "{{hosts: [\"{name}.example.com\"], http: [{{match: [{}], route: [{{destination: {{host: b.shop.svc.cluster.local}}}}]}}]}}",
        items.join(", ")
    );
    vs(namespace, name, &spec)
}

#[test]
fn an_object_with_regexes_that_are_too_large_together_is_refused() {
    let found =
        |regexes| with_store(&[("test.yaml", &[shop(HTTP), heavy("shop", "a", regexes)].concat())], &<_>::default()).1;
    assert_eq!(found(4), []);
    let refused = found(20);
    assert!(refused.len() == 1 && refused[0].code == code::INVALID, "{refused:?}");
    assert!(refused[0].message.contains("`spec.http`: has regular expressions that are too large"), "{refused:?}");
}

/// An HTTPRoute for service `b`, with so many regexes of that size, all the same or all different.
fn route(regexes: usize, alike: bool) -> String {
    let path = |n: usize| {
        let n = if alike { 0 } else { n };
        format!(r"{{path: {{type: RegularExpression, value: '/{n}\pL{{18}}'}}}}")
    };
    let rules = (0..regexes)
        .map(|n| format!("{{matches: [{}], backendRefs: [{{name: b, port: 80}}]}}", path(n)))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec: {{parentRefs: [{{group: '', kind: Service, name: b}}], rules: [{rules}]}}\n"
    )
}

/// Of what somebody is about to apply.
fn validated(text: &str) -> Vec<String> {
    crate::validate::text(&"test.yaml".into(), text).findings.iter().map(ToString::to_string).collect()
}

#[test]
fn whoever_is_about_to_apply_it_is_told_so_too() {
    let refused = validated(&heavy("shop", "a", 20));
    assert!(
        refused.len() == 1 && refused[0].contains("`spec.http`: has regular expressions that are too"),
        "{refused:?}"
    );
    assert_eq!(validated(&heavy("shop", "a", 4)), [""; 0]);
}

#[test]
fn a_route_has_the_limit_of_an_object_too() {
    let refused = validated(&route(10, false));
    assert!(
        refused.len() == 1 && refused[0].contains("`spec.rules`: has regular expressions that are too"),
        "{refused:?}"
    );
    assert_eq!(validated(&route(4, false)), [""; 0]);
    let findings = with_store(&[("test.yaml", &[shop(HTTP), route(10, false)].concat())], &<_>::default()).1;
    assert!(findings.len() == 1 && findings[0].code == code::INVALID, "{findings:?}");
}

#[test]
fn equal_regexes_are_one() {
    assert_eq!(validated(&route(10, true)), [""; 0]);
    let item = r"{uri: {regex: '/\pL{18}'}, headers: {x: {regex: '/\pL{18}'}}}";
    let spec =
        format!("{{hosts: [b], http: [{{match: [{}], route: [{{destination: {{host: b}}}}]}}]}}", [item; 9].join(", "));
    let text = vs("shop", "a", &spec);
    assert_eq!(validated(&text), [""; 0]);
    let mut store = Store::new();
    store.set_file("test.yaml", &text);
    let (snapshot, findings) = store.assemble();
    assert_eq!(findings, []);
    let vs = snapshot.virtual_services.values().next().expect("it is valid");
    assert_eq!(vs.regexes.len(), 1);
}

#[test]
fn the_youngest_beyond_the_room_of_a_namespace_are_left_out_and_nobody_elses_are() {
    let one = 4 * crate::crd::full_regex(r"/0a\pL{18}").expect("valid").states();
    let fit = (MAX_STATES_OF_NAMESPACE / one) as usize;
    let of_tenant: String = (0..fit + 2).map(|n| heavy("tenant", &format!("v{n:03}"), 4)).collect();
    let compiled = compiled(&[shop(HTTP), of_tenant, heavy("other", "z", 4)].concat());
    let found = compiled.found(code::INVALID);
    assert_eq!(found.len(), 2, "{found:?}");
    for (n, finding) in (fit..).zip(&found) {
        let start = format!("Error VirtualService tenant/v{n:03}");
        assert!(finding.starts_with(&start) && finding.contains("left out"), "{finding}");
    }
    let ask = |host: &str| compiled.ask(0, "shop", "10.96.0.2", host, "/0");
    assert_eq!(ask(&format!("v{:03}.example.com", fit - 1)), "404", "its rules are in force");
    assert_eq!(ask(&format!("v{fit:03}.example.com")), "unknown host");
    assert_eq!(ask("z.example.com"), "404");
}
