//! VirtualServices that leave rules to others.

use super::*;
use crate::finding::code;

fn delegated(root: &str, delegate: &str) -> Compiled {
    let root = format!("{{hosts: [b], http: [{root}]}}");
    compiled(&[shop(HTTP), vs("shop", "root", &root), vs("team", "part", &format!("{{http: [{delegate}]}}"))].concat())
}

const PART: &str = "delegate: {name: part, namespace: team}";
/// A destination of the delegate's, whose short names would be in its own namespace.
const TO_V2: &str = "route: [{destination: {host: b.shop.svc.cluster.local, subset: v2}}]";

fn ask(compiled: &Compiled, path: &str) -> String {
    compiled.ask(0, "shop", "10.96.0.2", "b", path)
}

#[test]
fn rules_of_a_delegate_stand_where_the_root_delegates() {
    let compiled = delegated(
        &format!(
            "{{name: outer, match: [{{uri: {{prefix: /a}}}}], {PART}}}, {{route: [{{destination: {{host: b}}}}]}}"
        ),
        &format!("{{name: one, match: [{{uri: {{exact: /a/1}}}}], {TO_V2}}}, {{name: rest, {TO_V2}}}"),
    );
    assert_eq!(ask(&compiled, "/a/1"), "outer-one: b-v2/1=1");
    assert_eq!(ask(&compiled, "/a/2"), "outer-rest: b-v2/1=1", "within the root's match");
    assert_eq!(ask(&compiled, "/b"), "default: b/3=1");
    assert!(compiled.findings.iter().all(|f| f.severity < Severity::Error), "{:?}", compiled.findings);
}

#[test]
fn a_match_that_is_not_within_the_roots_drops_its_rule() {
    for (outer, inner, kept) in [
        ("uri: {prefix: /a}", "uri: {prefix: /a/b}", true),
        ("uri: {prefix: /a}", "uri: {exact: /ab}", true),
        ("uri: {prefix: /a/b}", "uri: {prefix: /a}", false),
        ("uri: {exact: /a}", "uri: {prefix: /a}", false),
        ("uri: {exact: /a}", "uri: {exact: /a}", true),
        ("uri: {regex: \"/a.*\"}", "uri: {exact: /a}", false),
        ("uri: {prefix: /a}", "uri: {regex: \"/a.*\"}", false),
        ("uri: {regex: \"/a.*\"}", "headers: {x: {exact: a}}", true),
        ("headers: {x: {exact: a}}", "headers: {x: {exact: b}}", false),
        ("headers: {x: {prefix: a}}", "headers: {x: {exact: ab}, y: {}}", true),
        ("method: {exact: GET}", "method: {exact: POST}", false),
        ("port: 80", "port: 81", false),
        ("sourceLabels: {app: a}", "sourceLabels: {app: b}", false),
    ] {
        let compiled = delegated(
            &format!("{{match: [{{{outer}}}], {PART}}}, {{name: last, route: [{{destination: {{host: b}}}}]}}"),
            &format!("{{match: [{{{inner}}}], {TO_V2}}}"),
        );
        let dropped = compiled.found(code::NO_EFFECT).iter().any(|line| line.contains("not within the root's"));
        assert_eq!(dropped, !kept, "{outer} / {inner}: {:?}", compiled.findings);
    }
}

#[test]
fn conditions_of_both_hold() {
    let compiled = delegated(
        &format!("{{match: [{{uri: {{prefix: /a}}, headers: {{x: {{exact: \"1\"}}}}}}], {PART}}}"),
        &format!("{{match: [{{headers: {{y: {{exact: \"2\"}}}}}}], {TO_V2}}}"),
    );
    let ask = |path, headers: &[_]| compiled.ask_with(0, "shop", "10.96.0.2", "b", path, headers);
    assert_eq!(ask("/a", &[("x", "1"), ("y", "2")]), "default: b-v2/1=1");
    assert_eq!([ask("/a", &[("y", "2")]), ask("/a", &[("x", "1")]), ask("/", &[("x", "1"), ("y", "2")])], ["404"; 3]);
}

#[test]
fn what_the_delegate_does_not_set_is_as_the_root_sets_it() {
    let compiled = delegated(
        &format!("{{timeout: 5s, retries: {{attempts: 7}}, mirror: {{host: b}}, {PART}}}"),
        &format!("{{match: [{{uri: {{exact: /own}}}}], timeout: 1s, {TO_V2}}}, {{{TO_V2}}}"),
    );
    let settings = |rule: usize| {
        let port = compiled.port(0, "10.96.0.2", 80).expect("known");
        let source = Source { namespace: "shop", view: 0 };
        let host = crate::route::host(&compiled.program, port, &source, "b").expect("known");
        host.rules[rule].route.settings.clone().expect("given")
    };
    let (own, inherited) = (settings(0), settings(1));
    assert_eq!((own.timeout.map(|t| t.as_secs()), inherited.timeout.map(|t| t.as_secs())), (Some(1), Some(5)));
    assert_eq!(own.retries.as_ref().map(|retries| retries.attempts), Some(7));
    assert!(own.mirrors[0].destination.cluster.is_some(), "a short name of the root's is in its namespace");
}

#[test]
fn a_delegate_that_is_not_there_or_not_seen_leaves_its_rule_out_and_says_so() {
    let root = format!(
        "{{hosts: [b], http: [{{match: [{{uri: {{prefix: /a}}}}], {PART}}}, {{route: [{{destination: {{host: b, subset: v1}}}}]}}]}}"
    );
    let hidden = vs("team", "part", &format!("{{exportTo: [\".\"], http: [{{{TO_V2}}}]}}"));
    for part in [String::new(), hidden] {
        let compiled = compiled(&[shop(HTTP), vs("shop", "root", &root), part].concat());
        assert_eq!(ask(&compiled, "/a"), "default: b-v1/2=1");
        let found = compiled.found(code::REFERENCE);
        assert!(found[0].contains("delegate not found: \"team/part\"; the rule is left out"), "{found:?}");
    }
}
