//! Annotations of Istio's on Kubernetes' own objects: unknown ones, ones in the wrong place, with a value that they
//! cannot have, deprecated ones, and ones of features that are not settled.

use std::sync::Arc;

use super::annotation_table::{KNOWN, Known, Status};
use super::findings::Findings;
use super::input::Input;
use super::sources::Resource;
use super::tree::Tree;
use crate::crd::{self, Mark};
use crate::finding::code;

/// Kinds whose annotations are looked at.
const KINDS: [(&str, &str); 4] = [("", "Namespace"), ("", "Service"), ("", "Pod"), ("apps", "Deployment")];
/// The one annotation of another domain that Istio documents.
const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";
const INJECT: &str = "sidecar.istio.io/inject";
/// Written by Istio itself, so that nobody can be told to leave them out.
const WRITTEN_BY_ISTIO: [&str; 5] = [
    "sidecar.istio.io/status",
    "gateway.istio.io/controller-version",
    "istio.io/rev",
    "ambient.istio.io/redirection",
    // Ours to obey.
    "galley.istio.io/analyze-suppress",
];
/// Written by Istio's CNI plugin on pods without its init container.
const WRITTEN_BY_CNI: [&str; 4] = [
    "sidecar.istio.io/interceptionMode",
    "traffic.sidecar.istio.io/includeInboundPorts",
    "traffic.sidecar.istio.io/excludeInboundPorts",
    "traffic.sidecar.istio.io/includeOutboundIPRanges",
];

pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    for (group, kind) in KINDS {
        for resource in input.all(group, kind) {
            for (key, value) in resource.meta.annotations.iter().filter(|(key, _)| is_istios(key)) {
                annotation(resource, kind, key, value, findings);
            }
        }
    }
}

fn is_istios(key: &str) -> bool {
    key == INGRESS_CLASS || key.split('/').next().is_some_and(|domain| domain.ends_with("istio.io"))
}

fn annotation(resource: &Resource, kind: &str, key: &Arc<str>, value: &str, findings: &mut Findings) {
    let entries = resource.node.fields("metadata.annotations");
    let mark = entries.iter().find(|entry| *entry.key == **key).map_or(Mark::default(), |entry| entry.mark);
    let Some(known) = KNOWN.iter().find(|known| known.0 == &**key) else {
        let near = KNOWN.iter().find(|known| {
            let last = |name: &str| name.rsplit('/').next().map(str::to_ascii_lowercase);
            last(known.0) == last(key)
        });
        let help = near.map(|known| format!("did you mean {}?", known.0)).unwrap_or_default();
        let message = format!("{key} is no annotation that Istio or weir knows: it has no effect");
        findings.add(code::ANNOTATION_NAME, resource, mark, message, &help);
        return;
    };
    alpha(resource, kind, known, mark, findings);
    deprecated(resource, known, mark, findings);
    let Known(_, _, places) = known;
    if places.contains(&"Any") {
        return;
    }
    if !places.contains(&kind) {
        let help = match (places.contains(&"Pod"), kind) {
            (true, "Deployment") => "write it under spec.template.metadata.annotations".to_owned(),
            _ => String::new(),
        };
        let message = format!("{key} is an annotation of {}: on a {kind} it has no effect", places.join(", "));
        findings.add(code::ANNOTATION_PLACE, resource, mark, message, &help);
        return;
    }
    if let Err(why) = check(key, value) {
        findings.add(code::ANNOTATION_VALUE, resource, mark, format!("{key} cannot be `{value}`: {why}"), "");
    }
}

fn alpha(resource: &Resource, kind: &str, known: &Known, mark: Mark, findings: &mut Findings) {
    let Known(key, status, _) = known;
    let inits = resource.node.items("spec.initContainers");
    let by_cni = kind == "Pod" && !inits.iter().any(|container| container.text_at("name") == "istio-init");
    let written = WRITTEN_BY_ISTIO.contains(key) || (by_cni && WRITTEN_BY_CNI.contains(key));
    if matches!(status, Status::Alpha | Status::AlphaDeprecated) && !written {
        findings.add(
            code::ANNOTATION_ALPHA,
            resource,
            mark,
            format!("{key} belongs to a feature that Istio calls alpha: it may change or go"),
            "",
        );
    }
}

fn deprecated(resource: &Resource, known: &Known, mark: Mark, findings: &mut Findings) {
    let Known(key, status, _) = known;
    // Who has the label, too, knows, and keeps both.
    let knows = *key == INJECT && resource.meta.label(INJECT).is_some();
    if matches!(status, Status::Deprecated | Status::AlphaDeprecated) && !knows {
        let help = if *key == INJECT { "use the label sidecar.istio.io/inject" } else { "remove it" };
        let message = format!("{key} is deprecated, and may stop to work");
        findings.add(code::ANNOTATION_DEPRECATED, resource, mark, message, help);
    }
}

fn check(key: &str, value: &str) -> Result<(), String> {
    let number = |text: &str| text.parse::<u32>().map(drop).map_err(|_| "it must be a whole number".to_owned());
    match key {
        "sidecar.istio.io/interceptionMode" => match value {
            "REDIRECT" | "TPROXY" | "NONE" => Ok(()),
            _ => Err("it must be REDIRECT, TPROXY or NONE".to_owned()),
        },
        "status.sidecar.istio.io/port" => {
            ports(value).and(if value.contains(',') { Err("it must be one port".to_owned()) } else { Ok(()) })
        }
        "readiness.status.sidecar.istio.io/initialDelaySeconds"
        | "readiness.status.sidecar.istio.io/periodSeconds"
        | "readiness.status.sidecar.istio.io/failureThreshold" => number(value),
        "traffic.sidecar.istio.io/includeOutboundIPRanges" | "traffic.sidecar.istio.io/includeInboundPorts"
            if value == "*" =>
        {
            Ok(())
        }
        "traffic.sidecar.istio.io/includeOutboundIPRanges" | "traffic.sidecar.istio.io/excludeOutboundIPRanges" => {
            ranges(value)
        }
        "traffic.sidecar.istio.io/includeInboundPorts"
        | "traffic.sidecar.istio.io/excludeInboundPorts"
        | "traffic.sidecar.istio.io/excludeOutboundPorts" => ports(value),
        "prometheus.istio.io/merge-metrics" => match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(()),
            _ => Err("it must be true or false".to_owned()),
        },
        "proxy.istio.io/config" => match crd::parse(value, 0) {
            Ok(None | Some(crd::Node { value: crd::Value::Map(_), .. })) => Ok(()),
            Ok(Some(_)) => Err("it must be a map".to_owned()),
            Err(error) => Err(format!("it is no YAML ({error})")),
        },
        _ => Ok(()),
    }
}

fn ports(value: &str) -> Result<(), String> {
    let value = value.trim();
    if value.is_empty() {
        return Ok(());
    }
    match value.split(',').find(|port| port.trim().parse::<u16>().is_err()) {
        Some(port) => Err(format!("`{port}` is no port")),
        None => Ok(()),
    }
}

fn ranges(value: &str) -> Result<(), String> {
    let is_range = |range: &str| {
        let Some((address, bits)) = range.split_once('/') else { return false };
        let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
        bits.parse::<u8>().is_ok_and(|bits| bits <= if address.is_ipv4() { 32 } else { 128 })
    };
    match value.split(',').find(|range| !value.is_empty() && !is_range(range)) {
        Some(range) => Err(format!("`{range}` is no range of addresses, such as 10.0.0.0/8")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_as_istio_checks_them() {
        let at = |key: &str, value: &str| check(key, value).is_ok();
        assert!(at("traffic.sidecar.istio.io/includeInboundPorts", "*"));
        assert!(at("traffic.sidecar.istio.io/excludeInboundPorts", "80, 443"));
        assert!(!at("traffic.sidecar.istio.io/excludeInboundPorts", "*"));
        assert!(at("traffic.sidecar.istio.io/excludeOutboundIPRanges", ""));
        assert!(!at("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.0.0.0/33"));
        assert!(!at("status.sidecar.istio.io/port", "80,81"));
        assert!(at("proxy.istio.io/config", "concurrency: 2") && !at("proxy.istio.io/config", "- a"));
    }
}
