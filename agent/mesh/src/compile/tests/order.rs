//! The order of files and objects must not show.

use std::fmt::Write as _;

use super::*;

/// Everything of a program that a hash map does not shuffle by itself, whatever the numbers of its clusters.
pub(super) fn shape(compiled: &Compiled) -> String {
    let mut destinations: Vec<_> = compiled.program.destinations.iter().collect();
    destinations.sort();
    let tables: Vec<_> = compiled
        .program
        .host_tables
        .iter()
        .map(|table| {
            let mut names: Vec<_> = table.names.iter().collect();
            names.sort();
            (&table.hosts, names, &table.suffixes)
        })
        .collect();
    let program = &compiled.program;
    let mut overlays: Vec<_> = program.overlays.iter().collect();
    overlays.sort();
    let mut pods: Vec<_> =
        program.pods.iter().map(|pod| (&pod.meta.object, &pod.addresses, &pod.meta.labels)).collect();
    pods.sort_by(|a, b| a.0.cmp(b.0));
    pods.dedup_by(|a, b| a.0 == b.0);
    let text = format!("{destinations:?} {:?} {overlays:?} {tables:?} {pods:?}", program.ports);
    // Clusters that nobody is sent to may be there or not.
    let mut parts = text.split("ClusterId(");
    let mut shape = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_once(')').expect("an id ends");
        let cluster = &program.clusters[number.parse::<usize>().expect("a number")];
        let _ = write!(shape, "{cluster:?}{rest}");
    }
    shape
}

#[test]
fn files_in_any_order_compile_to_the_same() {
    let canary = "{hosts: [b, \"*.example.com\"], http: [{match: [{uri: {prefix: /x}}], route: [{destination: {host: b, subset: v1}, weight: 3}, {destination: {host: b, subset: v2}, weight: 1}]}, {route: [{destination: {host: a}}]}]}";
    let own = "{host: b.shop.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: RANDOM}}}";
    let texts = [
        shop(HTTP),
        vs("shop", "b", canary),
        vs("shop", "b-2", "{hosts: [b], http: [{match: [{port: 81}], route: [{destination: {host: b}}]}]}"),
        service("shop", "a", "10.96.0.1", "{name: tcp-x, port: 81}, {name: http, port: 80}"),
        pod("shop", "a-1", "10.0.1.1", "app: a"),
        dr("clients", "b", own),
        pod("clients", "c", "10.0.2.1", "weir.mesh/mode: enabled"),
    ];
    let mut seen = Vec::new();
    for shift in 0..texts.len() {
        let mut files: Vec<(String, &str)> = texts
            .iter()
            .enumerate()
            .map(|(i, text)| (format!("{}.yaml", (i + shift) % texts.len()), &**text))
            .collect();
        if shift % 2 == 1 {
            files.reverse();
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, *text)).collect();
        let node = CompileOptions { node: Some("n1".into()), ..CompileOptions::default() };
        let (compiled, findings) = with_store(&files, &node);
        assert_eq!(findings, []);
        // Places in files differ by design; everything else must not.
        let shape: String = shape(&compiled)
            .split("at: Some(Location")
            .map(|part| part.split_once(')').map_or(part, |(_, rest)| rest))
            .collect();
        seen.push((compiled.plan, shape));
    }
    assert!(!seen[0].0.pods.is_empty() && seen[0].0.services.keys().any(|key| key.view > 0));
    for (plan, shape) in &seen[1..] {
        assert_eq!(plan, &seen[0].0);
        assert_eq!(shape, &seen[0].1);
    }
}
