//! Sidecar: read for visibility only, so its hosts are checked, and what makes it meaningless.

use super::at::{At, Report};
use super::common;
use super::names::{is_label, protocol, wildcard_domain};

pub(super) fn rules(report: &mut Report<'_>, spec: &At<'_>) {
    common::selector(report, spec, "workloadSelector", "labels");
    if spec.given(&["egress", "ingress", "outboundTrafficPolicy", "inboundConnectionPool"]).is_empty() {
        report.error(spec, "must have one of egress, ingress, outboundTrafficPolicy and inboundConnectionPool");
    }
    let egress = spec.items("egress");
    for (index, listener) in egress.iter().enumerate() {
        if !listener.has("port") && index + 1 < egress.len() {
            report.error(listener, "a listener without a port takes the rest: it must be the last");
        }
        if listener.items("hosts").is_empty() {
            report.field(listener, "hosts", "must name a host");
        }
        for host in listener.items("hosts") {
            self::host(report, &host);
        }
    }
    for listener in egress.iter().chain(&spec.items("ingress")) {
        let Some(port) = listener.get("port") else {
            continue;
        };
        let name = port.text("protocol");
        if !name.is_empty() && protocol(name).is_none() {
            report.field(&port, "protocol", format!("`{name}` is no protocol"));
        }
        if !listener.text("bind").starts_with("unix://") {
            common::port(report, &port, "number");
        }
    }
    for listener in spec.items("ingress") {
        if !listener.has("port") {
            report.field(&listener, "port", "must be given");
        }
    }
}

/// `namespace/host`, where the namespace may be `.`, `*` or `~` and the host `*`.
fn host(report: &mut Report<'_>, at: &At<'_>) {
    let Some((namespace, name)) = at.str().split_once('/') else {
        report.error(at, format!("`{}` must be namespace/host", at.str())).help =
            Some(format!("write `./{}` for a host of the own namespace", at.str()));
        return;
    };
    if !matches!(namespace, "*" | "." | "~") && !is_label(namespace) {
        report.error(at, format!("`{namespace}` must be a namespace, `.`, `*` or `~`"));
    }
    if let Err(why) = wildcard_domain(name) {
        report.error(at, why);
    } else if name != "*" && !name.contains('.') {
        report.error(at, format!("`{name}` is a short name: write the full one"));
    } else if name.contains('*') && name != "*" && !name.starts_with("*.") {
        report.error(at, format!("`{name}`: `*` must be a whole label"));
    }
}
