//! Matches, weights, hosts and destinations.

use super::*;
use crate::finding::code;

fn routes(http: &str) -> Compiled {
    compiled(&[shop(HTTP), vs("shop", "b", &format!("{{hosts: [b], http: [{http}]}}"))].concat())
}

/// A rule named by what it matches, to subset v2.
fn matching(items: &str) -> Compiled {
    routes(&format!("{{name: hit, match: [{items}], route: [{{destination: {{host: b, subset: v2}}}}]}}"))
}

#[test]
fn paths_match_as_in_istio() {
    for (uri, hits, misses) in [
        ("uri: {exact: /a}", &["/a"][..], &["/a/", "/A", "/"][..]),
        ("uri: {prefix: /v2}", &["/v2", "/v2/x", "/v2foo"], &["/v1", "/V2"]),
        ("uri: {regex: \"/v[0-9]+\"}", &["/v1", "/v22"], &["/v", "/v1/", "x/v1"]),
        ("uri: {regex: \"/a|/b\"}", &["/a", "/b"], &["/ab", "/b/x"]),
        ("uri: {prefix: /v2}, ignoreUriCase: true", &["/V2/x", "/v2"], &["/v1"]),
        ("uri: {exact: /Ab}, ignoreUriCase: true", &["/aB"], &["/abc"]),
        ("method: {exact: POST}", &["POST /"], &["GET /"]),
        ("method: {regex: \"P.*\"}, uri: {prefix: /x}", &["POST /x", "PUT /x"], &["GET /x", "POST /"]),
    ] {
        let compiled = matching(&format!("{{{uri}}}"));
        for path in hits {
            assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", path), "hit: b-v2/1=1", "{uri} {path}");
        }
        for path in misses {
            assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", path), "404", "{uri} {path}");
        }
    }
}

#[test]
fn headers_match_as_in_istio() {
    for (header, hits, misses) in [
        ("x-user: {exact: premium}", &[("x-user", "premium")][..], &[("x-user", "Premium"), ("y", "premium")][..]),
        ("X-User: {prefix: pre}", &[("x-user", "premium")], &[("x-user", "spre")]),
        (
            "cookie: {regex: \"^(.*?;)?(user=jason)(;.*)?$\"}",
            &[("cookie", "a=b;user=jason;c=d")],
            &[("cookie", "user=jasonx")],
        ),
        ("x-user: {}", &[("x-user", "")], &[("y", "1")]),
        ("x-user: {regex: \"*\"}", &[("x-user", "any")], &[("y", "1")]),
        ("uri: {exact: /never}, x-user: {}", &[("x-user", "1")], &[("y", "1")]),
    ] {
        let compiled = matching(&format!("{{headers: {{{header}}}}}"));
        for sent in hits {
            let got = compiled.ask_with(0, "shop", "10.96.0.2", "b", "/", &[*sent]);
            assert_eq!(got, "hit: b-v2/1=1", "{header} {sent:?}");
        }
        for sent in misses {
            assert_eq!(compiled.ask_with(0, "shop", "10.96.0.2", "b", "/", &[*sent]), "404", "{header} {sent:?}");
        }
    }
}

#[test]
fn items_are_alternatives_and_name_the_route() {
    let compiled = matching("{name: one, uri: {exact: /1}}, {uri: {exact: /2}}");
    let ask = |path| compiled.ask(0, "shop", "10.96.0.2", "b", path);
    assert_eq!([ask("/1"), ask("/2"), ask("/3")], ["hit.one: b-v2/1=1", "hit: b-v2/1=1", "404"]);
}

#[test]
fn the_first_rule_that_matches_wins_and_weights_need_no_hundred() {
    let compiled = routes(
        "{match: [{uri: {prefix: /v2}}], route: [{destination: {host: b, subset: v2}}]},
         {route: [{destination: {host: b, subset: v1}, weight: 3}, {destination: {host: b, subset: v2}, weight: 1}, {destination: {host: b}}]}",
    );
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/v2"), "default: b-v2/1=1");
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/"), "default: b-v1/2=3 b-v2/1=1 b/3=0");
    assert_eq!(
        compiled.groups(0, "10.96.0.2", 80),
        ["v1:3:10.0.0.1:8080,10.0.0.2:8080", "v2:1:10.0.0.3:8080", ":0:10.0.0.1:8080,10.0.0.2:8080,10.0.0.3:8080"]
    );
}

#[test]
fn a_match_that_cannot_be_evaluated_takes_nothing() {
    let http = "{match: [{sourceIp: 10.0.0.1}, {uri: {exact: /x}}], route: [{destination: {host: b, subset: v2}}]},
                {match: [{uri: {prefix: /}}], route: [{destination: {host: b, subset: v1}}]}";
    let text = [shop(HTTP), vs("shop", "b", &format!("{{hosts: [b], http: [{http}]}}"))].concat();
    let (compiled, findings) = with_store(&[("t", &text)], &CompileOptions::default());
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/x"), "default: b-v2/1=1", "the other alternative holds");
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/"), "default: b-v1/2=1");
    let errors: Vec<&str> = findings.iter().filter(|f| f.severity == Severity::Error).map(|f| &*f.message).collect();
    assert_eq!(errors.len(), 1, "{findings:?}");
    assert!(errors[0].starts_with("`spec.http[0].match[0].sourceIp` is not supported yet"), "{errors:?}");
}

#[test]
fn when_no_match_can_be_evaluated_the_host_answers_404_and_never_the_plain_service() {
    let spec = "{hosts: [b], http: [{match: [{sourceIp: 10.0.0.1}], route: [{destination: {host: b, subset: v2}}]}]}";
    let (compiled, _) = with_store(&[("t", &[shop(HTTP), vs("shop", "b", spec)].concat())], &CompileOptions::default());
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/"), "404");
    let entry = compiled.entry(0, "10.96.0.2", 80).expect("planned");
    assert_eq!((entry.on_failure, entry.fallback.len()), (crate::plan::OnFailure::Refuse, 0));
}

#[test]
fn rules_for_another_port_or_gateway_leave_the_plain_service() {
    let compiled = routes("{match: [{port: 81}, {gateways: [edge]}], route: [{destination: {host: b, subset: v2}}]}");
    assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Balance);
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/"), "default: b/3=1");
}

#[test]
fn every_form_of_a_host_is_known_and_short_names_are_the_clients_own() {
    let text =
        [shop(HTTP), service("other", "c", "10.96.0.3", HTTP), pod("other", "c-1", "10.0.1.1", "app: c")].concat();
    let compiled = compiled(&text);
    for authority in
        ["b", "B:80", "b.shop", "b.shop.svc", "b.shop.svc.cluster.local", "b.shop.svc.cluster.local.:80", "10.96.0.2"]
    {
        assert_eq!(compiled.ask(0, "shop", "10.96.0.3", authority, "/"), "default: b/3=1", "{authority}");
    }
    assert_eq!(compiled.ask(0, "other", "10.96.0.3", "b", "/"), "unknown host");
    assert_eq!(compiled.ask(0, "other", "10.96.0.3", "c", "/"), "default: c/1=1");
}

#[test]
fn a_host_with_a_dot_is_taken_as_it_is() {
    let spec = "{hosts: [b.shop], http: [{route: [{destination: {host: b.shop}}]}]}";
    let compiled = compiled(&[shop(HTTP), vs("shop", "b", spec)].concat());
    assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Balance, "the rule is for another host");
    let found = compiled.found(code::UNKNOWN_HOST);
    assert!(found[0].ends_with("write b.shop.svc.cluster.local"), "{found:?}");
    assert_eq!(compiled.found(code::REFERENCE).len(), 1);
}

#[test]
fn the_most_specific_host_wins_and_other_hosts_answer_on_port_80() {
    let text = [
        shop(HTTP),
        vs("shop", "all", "{hosts: [\"*.cluster.local\"], http: [{route: [{destination: {host: b, subset: v1}}]}]}"),
        vs(
            "shop",
            "ns",
            "{hosts: [\"*.shop.svc.cluster.local\"], http: [{route: [{destination: {host: b, subset: v2}}]}]}",
        ),
        vs("shop", "ext", "{hosts: [\"*.example.com\"], http: [{name: ext, route: [{destination: {host: b}}]}]}"),
        vs("shop", "api", "{hosts: [api.example.com], http: [{name: api, route: [{destination: {host: b}}]}]}"),
    ]
    .concat();
    let compiled = compiled(&text);
    let ask = |host| compiled.ask(0, "shop", "10.96.0.2", host, "/");
    assert_eq!(ask("b"), "default: b-v2/1=1");
    assert_eq!([ask("api.example.com"), ask("x.y.example.com")], ["api: b/3=1", "ext: b/3=1"]);
    assert_eq!(ask("example.com"), "unknown host");
    assert_eq!(ask("x.other.svc.cluster.local"), "default: b-v1/2=1");
}

#[test]
fn several_virtual_services_for_a_host_are_merged_by_age_with_catch_alls_last() {
    let young = vs(
        "shop",
        "a",
        "{hosts: [b], http: [{match: [{uri: {prefix: /y}}], route: [{destination: {host: b, subset: v2}}]}]}",
    )
    .replace("{name: a,", "{name: a, creationTimestamp: \"2026-02-01T00:00:00Z\",");
    let old = vs("shop", "z", "{hosts: [b], http: [{name: old, route: [{destination: {host: b, subset: v1}}]}]}")
        .replace("{name: z,", "{name: z, creationTimestamp: \"2026-01-01T00:00:00Z\",");
    let compiled = compiled(&[shop(HTTP), young, old].concat());
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/y"), "default: b-v2/1=1");
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/"), "old: b-v1/2=1");
    let found = compiled.found(code::CONFLICTING_HOSTS);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("VirtualService shop/z, then VirtualService shop/a"), "{found:?}");
}

#[test]
fn destinations_that_do_not_exist_keep_their_share() {
    let ports = "{name: http, port: 80, targetPort: 8080}, {name: http-admin, port: 81}";
    let http = "{route: [{destination: {host: nobody}, weight: 1}, {destination: {host: b, port: {number: 99}}, weight: 2}, {destination: {host: b}, weight: 3}]}";
    let compiled = compiled(&[shop(ports), vs("shop", "b", &format!("{{hosts: [b], http: [{http}]}}"))].concat());
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/"), "default: 503=1 503=2 b/3=3");
    let found = compiled.found(code::REFERENCE);
    assert!(found[0].contains("host not found: \"nobody.shop.svc.cluster.local\""), "{found:?}");
    assert!(found[1].contains("host:port not found: \"b.shop.svc.cluster.local:99\""), "{found:?}");
    assert!(compiled.found(code::PORT_MISSING)[0].ends_with("one of 80, 81"));
}
