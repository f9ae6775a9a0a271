//! The tables of `weir status`: one node's, and many nodes' put together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::NodeAnswer;
use crate::app::{Counters, EjectedStatus, ServiceStatus, Status};
use crate::cli::output::plain;
use crate::watch::kubernetes::SourceStatus;

/// So many nodes, or services of an endpoint, are named; of more the number is given.
const NAMED: usize = 3;

/// One agent's status. Writing to a String cannot fail, so its results are dropped.
pub(super) fn one(status: &Status) -> String {
    let mut rows =
        vec![["SERVICE", "ADDRESS", "VERDICT", "BALANCED", "PROXIED", "FALLBACK", "REFUSED", "WHY"].map(String::from)];
    rows.extend(status.services.iter().map(|s| service_row(s, s.counters)));
    let mut text = table(&rows);
    text.push('\n');
    let mut rows = vec![["POD", "ADDRESSES", "LISTENERS"].map(String::from)];
    for p in &status.pods {
        rows.push([p.pod.clone(), p.addresses.join(","), ports(p.listeners)]);
    }
    text.push_str(&table(&rows));
    if !status.ejected.is_empty() {
        let mut rows = vec![["EJECTED", "LEFT", "TIMES", "OF"].map(String::from)];
        rows.extend(status.ejected.iter().map(ejected_row));
        text.push('\n');
        text.push_str(&table(&rows));
    }
    if let Some(source) = &status.source {
        text.push('\n');
        text.push_str(&source_lines(source, SystemTime::now()));
    }
    list(&mut text, "Findings", &status.findings);
    list(&mut text, "Not carried out", &status.problems);
    let _ = writeln!(text, "\ngeneration {}, in force after {} us", status.generation, status.applied_in_us);
    text
}

/// Many agents' answers. A service port that is the same everywhere is one line, with the counters added up; where
/// nodes differ, each version has its line and says whose it is.
pub(super) fn render(answers: &[NodeAnswer]) -> String {
    let told: Vec<(&str, &Status)> =
        answers.iter().filter_map(|a| Some((a.node.as_str(), a.status.as_ref()?))).collect();
    let mut text = table(&services(&told));
    text.push('\n');
    let mut rows = vec![["POD", "NODE", "ADDRESSES", "LISTENERS"].map(String::from)];
    for (node, status) in &told {
        for p in &status.pods {
            rows.push([p.pod.clone(), (*node).to_owned(), p.addresses.join(","), ports(p.listeners)]);
        }
    }
    rows[1..].sort();
    text.push_str(&table(&rows));
    let mut rows = vec![["EJECTED", "NODE", "LEFT", "TIMES", "OF"].map(String::from)];
    for (node, status) in &told {
        for [endpoint, left, times, of] in status.ejected.iter().map(ejected_row) {
            rows.push([endpoint, (*node).to_owned(), left, times, of]);
        }
    }
    if rows.len() > 1 {
        text.push('\n');
        text.push_str(&table(&rows));
    }
    text.push('\n');
    text.push_str(&table(&nodes(answers)));
    // Every agent compiles the same objects: what they all find is said once.
    let findings: BTreeSet<&String> = told.iter().flat_map(|(_, s)| &s.findings).collect();
    list(&mut text, "Findings", findings);
    let problems = told.iter().flat_map(|(node, s)| s.problems.iter().map(move |p| format!("{node}: {p}")));
    list(&mut text, "Not carried out", &problems.collect::<Vec<_>>());
    text
}

/// How the API server fares.
fn source_lines(source: &SourceStatus, now: SystemTime) -> String {
    let mut text = format!("API server {}", source.server.trim_end_matches('/'));
    match source.away_since {
        Some(since) => {
            let ago = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().saturating_sub(since);
            let _ = write!(text, ": no answer for {ago} s; what it said last stays in force");
        }
        None if !source.complete => text.push_str(": being read for the first time"),
        None => {
            let objects: usize = source.kinds.iter().map(|kind| kind.objects).sum();
            let _ = write!(text, ": {objects} objects of {} kinds", source.kinds.len());
        }
    }
    text.push('\n');
    for problem in &source.problems {
        let _ = writeln!(text, "  {problem}");
    }
    text
}

fn services(told: &[(&str, &Status)]) -> Vec<[String; 9]> {
    let mut merged: BTreeMap<_, (Counters, Vec<&str>, &ServiceStatus)> = BTreeMap::new();
    for (node, status) in told {
        for s in &status.services {
            let key = (&s.service, &s.address, s.view, &s.verdict, &s.why, &s.because);
            let (sum, nodes, _) = merged.entry(key).or_insert((Counters::default(), Vec::new(), s));
            sum.balanced += s.counters.balanced;
            sum.proxied += s.counters.proxied;
            sum.fallback += s.counters.fallback;
            sum.rejected += s.counters.rejected;
            nodes.push(node);
        }
    }
    let mut rows = vec![
        ["SERVICE", "ADDRESS", "VERDICT", "BALANCED", "PROXIED", "FALLBACK", "REFUSED", "NODES", "WHY"]
            .map(String::from),
    ];
    for (counters, nodes, s) in merged.values() {
        let [service, address, verdict, balanced, proxied, fallback, refused, why] = service_row(s, *counters);
        let nodes = if nodes.len() == told.len() {
            "all".to_owned()
        } else if nodes.len() <= NAMED {
            nodes.join(",")
        } else {
            format!("{} of {}", nodes.len(), told.len())
        };
        rows.push([service, address, verdict, balanced, proxied, fallback, refused, nodes, why]);
    }
    rows
}

fn nodes(answers: &[NodeAnswer]) -> Vec<[String; 5]> {
    let mut rows = vec![["NODE", "AGENT", "GENERATION", "PODS", "STATE"].map(String::from)];
    for answer in answers {
        let (generation, pods, state) = match (&answer.status, &answer.error) {
            (Some(s), _) => {
                let away = s.source.as_ref().is_some_and(|source| source.away_since.is_some());
                let state = match (s.generation, away) {
                    (0, false) => "nothing in force yet",
                    (0, true) => "nothing in force yet, no answer from the API server",
                    (_, false) => "in force",
                    (_, true) => "in force, no answer from the API server",
                };
                (s.generation.to_string(), s.pods.len().to_string(), state)
            }
            (None, error) => ("-".into(), "-".into(), error.as_deref().unwrap_or("no answer")),
        };
        rows.push([answer.node.clone(), answer.pod.clone(), generation, pods, state.to_owned()]);
    }
    rows
}

fn service_row(s: &ServiceStatus, c: Counters) -> [String; 8] {
    let why = if s.because.is_empty() { s.why.clone() } else { format!("{} ({})", s.why, s.because) };
    let address = if s.view == 0 { s.address.clone() } else { format!("{} (view {})", s.address, s.view) };
    [
        s.service.clone(),
        address,
        s.verdict.clone(),
        c.balanced.to_string(),
        c.proxied.to_string(),
        c.fallback.to_string(),
        c.rejected.to_string(),
        why,
    ]
}

/// The time that is left in whole seconds, never zero: then it would be back.
fn ejected_row(out: &EjectedStatus) -> [String; 4] {
    let mut of = out.services.iter().take(NAMED).cloned().collect::<Vec<_>>().join(",");
    if out.services.len() > NAMED {
        let _ = write!(of, " and {} more", out.services.len() - NAMED);
    }
    let of = if of.is_empty() { "-".to_owned() } else { of };
    [out.endpoint.clone(), format!("{}s", out.left_ms.div_ceil(1_000).max(1)), out.times.to_string(), of]
}

fn ports(listeners: [u16; 2]) -> String {
    listeners.map(|port| port.to_string()).join(",")
}

fn list<'a>(text: &mut String, title: &str, lines: impl IntoIterator<Item = &'a String>) {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_some() {
        let _ = writeln!(text, "\n{title}:");
        for line in lines {
            let _ = writeln!(text, "  {}", plain(line));
        }
    }
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| plain(cell).into_owned())).collect();
    let width: Vec<usize> =
        (0..N).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&width).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::PodStatus;

    fn words(line: &str) -> String {
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn service(verdict: &str, proxied: u64) -> ServiceStatus {
        ServiceStatus {
            service: "default/service-b:80".into(),
            address: "10.96.0.2:80".into(),
            verdict: verdict.into(),
            why: "HTTP rules".into(),
            because: "VirtualService default/b".into(),
            counters: Counters { proxied, ..Counters::default() },
            ..ServiceStatus::default()
        }
    }

    fn answer(node: &str, services: Vec<ServiceStatus>) -> NodeAnswer {
        let pods = vec![PodStatus { pod: format!("default/on-{node}"), ..PodStatus::default() }];
        let findings = vec!["Error [IST0101] nothing there".to_owned()];
        let status = Status { generation: 4, services, pods, findings, ..Status::default() };
        NodeAnswer { node: node.into(), pod: format!("weir-{node}"), status: Some(status), error: None }
    }

    #[test]
    fn the_table_shows_verdict_and_reason() {
        let status = answer("a", vec![service("proxy", 0)]).status.expect("it answers");
        let text = one(&status);
        assert_eq!(
            words(text.lines().nth(1).expect("a row")),
            "default/service-b:80 10.96.0.2:80 proxy 0 0 0 0 HTTP rules (VirtualService default/b)"
        );
        assert!(text.contains("Findings:\n  Error [IST0101] nothing there"));
    }

    #[test]
    fn nodes_that_agree_are_one_line_and_a_silent_one_is_a_line_too() {
        let silent = NodeAnswer { node: "c".into(), pod: "weir-c".into(), status: None, error: Some("gone".into()) };
        let same = [answer("a", vec![service("proxy", 3)]), answer("b", vec![service("proxy", 4)]), silent];
        let text = render(&same);
        assert_eq!(
            words(text.lines().nth(1).expect("a row")),
            "default/service-b:80 10.96.0.2:80 proxy 0 7 0 0 all HTTP rules (VirtualService default/b)"
        );
        assert_eq!(text.matches("IST0101").count(), 1, "said once: {text}");
        let lines: Vec<String> = text.lines().map(words).collect();
        assert!(lines.contains(&"c weir-c - - gone".to_owned()), "{text}");
        assert!(lines.contains(&"a weir-a 4 1 in force".to_owned()), "{text}");
        assert!(lines.contains(&"default/on-b b 0,0".to_owned()), "{text}");
    }

    #[test]
    fn ejected_endpoints_are_told_with_the_time_left() {
        let services: Vec<String> = ["a", "b", "c", "d"].map(|name| format!("shop/{name}:80")).into();
        let out = |services: &[String]| EjectedStatus {
            endpoint: "10.0.0.2:80".into(),
            services: services.to_vec(),
            left_ms: 28_001,
            times: 2,
        };
        let mut told = answer("a", vec![]);
        assert!(!one(told.status.as_ref().expect("it answers")).contains("EJECTED"), "nothing of nothing");
        assert!(!render(&[answer("b", vec![])]).contains("EJECTED"), "nothing of nothing");
        told.status.as_mut().expect("it answers").ejected = vec![out(&services[..1]), out(&services), out(&[])];
        let lines: Vec<String> = one(told.status.as_ref().expect("it answers")).lines().map(words).collect();
        let at = lines.iter().position(|line| line == "EJECTED LEFT TIMES OF").expect("a table");
        let of = ["shop/a:80", "shop/a:80,shop/b:80,shop/c:80 and 1 more", "-"];
        assert_eq!(lines[at + 1..at + 4], of.map(|of| format!("10.0.0.2:80 29s 2 {of}")));
        let text = render(&[told, answer("b", vec![])]);
        assert!(text.lines().map(words).any(|line| line == "10.0.0.2:80 a 29s 2 shop/a:80"), "{text}");
    }

    #[test]
    fn nodes_that_differ_are_named() {
        let differ = [answer("a", vec![service("proxy", 1)]), answer("b", vec![service("balance", 0)])];
        let text = render(&differ);
        let rows: Vec<String> = text.lines().skip(1).take(2).map(words).collect();
        assert!(rows[0].contains("balance 0 0 0 0 b HTTP"), "{text}");
        assert!(rows[1].contains("proxy 0 1 0 0 a HTTP"), "{text}");
    }

    #[test]
    fn an_api_server_that_is_away_is_told_with_the_time() {
        let source = SourceStatus {
            server: "https://10.96.0.1/".into(),
            complete: true,
            away_since: Some(1_000_000),
            problems: vec!["pods: connection refused".into()],
            ..SourceStatus::default()
        };
        assert_eq!(
            source_lines(&source, UNIX_EPOCH + std::time::Duration::from_secs(1_000_042)),
            "API server https://10.96.0.1: no answer for 42 s; what it said last stays in force\n  pods: connection refused\n"
        );
    }
}
