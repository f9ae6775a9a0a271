//! weir's own numbers in Prometheus' text format. (Istio's names follow with the telemetry of requests.)

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::proxy::{Flag, ProxyCounters};

/// The proxy's numbers that go down, too.
const GAUGES: [&str; 2] = ["connections_active", "upstream_idle"];

/// Renders which configuration is in force, the kernel's verdict counters and the proxy's.
pub(super) fn render(generation: u64, kernel: &BTreeMap<&'static str, u64>, proxy: &ProxyCounters) -> String {
    let mut text = String::new();
    family(&mut text, "weir_config_generation", "gauge", "Configurations that have been put in force; the last is.");
    line(&mut text, "weir_config_generation", "", generation);
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

    #[test]
    fn every_sample_has_a_type_and_a_number() {
        let text = render(3, &BTreeMap::from([("balance", 7)]), &ProxyCounters::default());
        assert!(text.contains("weir_config_generation 3\n"));
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
        let text = render(3, &BTreeMap::from([("balance", 7)]), &ProxyCounters::default());
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
