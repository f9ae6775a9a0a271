//! PeerAuthentication: modes of single ports need a selector, and name ports of workloads.

use super::at::{At, Report};
use super::common;

pub(super) fn rules(report: &mut Report<'_>, spec: &At<'_>) {
    common::selector(report, spec, "selector", "matchLabels");
    let Some(ports) = spec.get("portLevelMtls") else {
        return;
    };
    if spec.get("selector").is_none_or(|selector| selector.entries("matchLabels").is_empty()) {
        report.error(&ports, "needs a selector: a policy for a namespace, or for the mesh, has no ports");
    }
    if ports.is_empty() {
        report.error(&ports, "must not be empty");
    }
    for (port, at) in spec.entries("portLevelMtls") {
        if !port.parse::<u32>().is_ok_and(|port| (1..=65535).contains(&port)) {
            report.error(&at, format!("`{port}` must be a port between 1 and 65535"));
        }
    }
}
