//! weir's own numbers in Prometheus' text format; Istio's follow them, and are the proxy's (`proxy/metrics`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use weir_mesh::finding::{Finding, Severity};

use crate::proxy::{Flag, ProxyCounters};

/// The proxy's numbers that go down, too.
const GAUGES: [&str; 3] = ["connections_active", "upstream_idle", "mirrors_active"];

/// What is in force, and how well.
pub(super) struct State {
    pub(super) generation: u64,
    pub(super) findings: Arc<Vec<Finding>>,
    pub(super) problems: usize,
    pub(super) pods: usize,
    /// Seconds without an answer of the API server; `None` without one.
    pub(super) away: Option<u64>,
}

/// Renders which configuration is in force, the kernel's verdict counters and the proxy's.
pub(super) fn render(state: &State, kernel: &BTreeMap<&'static str, u64>, proxy: &ProxyCounters) -> String {
    let mut text = String::new();
    family(&mut text, "weir_config_generation", "gauge", "Configurations that have been put in force; the last is.");
    line(&mut text, "weir_config_generation", "", state.generation);
    if let Some(away) = state.away {
        let help = "Seconds since the API server answered; 0 while it does. What it said last is in force.";
        family(&mut text, "weir_source_away_seconds", "gauge", help);
        line(&mut text, "weir_source_away_seconds", "", away);
    }
    family(&mut text, "weir_findings", "gauge", "Findings about objects, by severity.");
    for (severity, label) in [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Info, "info")] {
        let count = state.findings.iter().filter(|finding| finding.severity == severity).count();
        line(&mut text, "weir_findings", &format!("{{severity=\"{label}\"}}"), count as u64);
    }
    family(&mut text, "weir_problems", "gauge", "What could not be carried out on this node, as weir status has it.");
    line(&mut text, "weir_problems", "", state.problems as u64);
    family(&mut text, "weir_pods_enrolled", "gauge", "Pods of this node that take part.");
    line(&mut text, "weir_pods_enrolled", "", state.pods as u64);
    family(
        &mut text,
        "weir_kernel_connects_total",
        "counter",
        "What the kernel programs did with connects, by verdict.",
    );
    for (verdict, count) in kernel {
        line(&mut text, "weir_kernel_connects_total", &format!("{{verdict=\"{verdict}\"}}"), *count);
    }
    family(
        &mut text,
        "weir_proxy_ended_total",
        "counter",
        "Requests and TCP connections that ended in the proxy, by response flag.",
    );
    for flag in Flag::ALL {
        line(&mut text, "weir_proxy_ended_total", &format!("{{flag=\"{}\"}}", flag.as_str()), proxy.flag(flag));
    }
    family(
        &mut text,
        "weir_proxy_requests_total",
        "counter",
        "HTTP requests by class of their status; 0 = the client went before there was one.",
    );
    for (class, count) in proxy.classes.iter().enumerate() {
        line(&mut text, "weir_proxy_requests_total", &format!("{{class=\"{class}\"}}"), *count);
    }
    for (name, help, value) in proxy.named() {
        let gauge = GAUGES.contains(&name);
        let (suffix, kind) = if gauge { ("", "gauge") } else { ("_total", "counter") };
        let name = format!("weir_proxy_{name}{suffix}");
        if name == "weir_proxy_requests_total" {
            // Has labels, above.
            continue;
        }
        family(&mut text, &name, kind, help.trim());
        line(&mut text, &name, "", value);
    }
    text
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(text, "{name}{labels} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State { generation: 3, findings: Arc::default(), problems: 2, pods: 5, away: Some(7) }
    }

    #[test]
    fn every_sample_has_a_type_and_a_number() {
        let text = render(&state(), &BTreeMap::from([("balance", 7)]), &ProxyCounters::default());
        assert!(text.contains("weir_config_generation 3\n"));
        assert!(text.contains("weir_source_away_seconds 7\n") && text.contains("weir_problems 2\n"));
        assert!(text.contains("weir_findings{severity=\"error\"} 0\n") && text.contains("weir_pods_enrolled 5\n"));
        assert!(text.contains("weir_kernel_connects_total{verdict=\"balance\"} 7\n"));
        assert!(text.contains("weir_proxy_ended_total{flag=\"NR\"} 0\n"));
        for sample in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = sample.rsplit_once(' ').expect("name and value");
            let family = name.split('{').next().expect("a name");
            assert!(text.contains(&format!("# TYPE {family} ")), "{family}");
            assert!(value.parse::<u64>().is_ok(), "{sample}");
        }
    }

    /// A panel over a metric that nobody counts would be empty for ever.
    #[test]
    fn the_dashboard_shows_what_is_counted() {
        let text = render(&state(), &BTreeMap::from([("balance", 7)]), &ProxyCounters::default());
        let dashboard = include_str!("../../../deploy/daemonset/components/grafana-dashboard/weir.json");
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let mut seen = 0;
        for (at, _) in dashboard.match_indices("weir_") {
            let name: String = dashboard[at..].chars().take_while(|c| is_name(*c)).collect();
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
            seen += 1;
        }
        assert!(seen > 15, "{seen}");
    }
}
