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
