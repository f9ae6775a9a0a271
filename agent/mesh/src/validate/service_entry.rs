//! ServiceEntry, WorkloadEntry and WorkloadGroup: hosts, ports, and endpoints by the way their hosts are resolved.

use std::collections::BTreeSet;

use super::at::{At, Report};
use super::common::{self, Export, port};
use super::names::{Protocol, fqdn, is_header_name, is_ip, is_label, is_subnet, protocol, unix_path, wildcard_domain};

pub(super) fn service_entry(report: &mut Report<'_>, root: &At<'_>, spec: &At<'_>) {
    let resolution = match spec.text("resolution") {
        "" => "NONE",
        given => given,
    };
    common::selector(report, spec, "workloadSelector", "labels");
    if spec.has("workloadSelector") {
        if spec.has("endpoints") {
            report.error(spec, "only one of workloadSelector and endpoints may be given");
        }
        if resolution != "STATIC" {
            let at = spec.get("workloadSelector").expect("it is there");
            report.warn(&at, format!("selects nothing with `resolution: {resolution}`")).help =
                Some("write `resolution: STATIC`".to_owned());
        }
    }
    let hosts = spec.items("hosts");
    for host in &hosts {
        service_host(report, host);
    }
    addresses(report, spec, resolution);
    ports(report, spec, resolution);
    resolve(report, root, spec, resolution, &hosts);
    if resolution != "NONE" && hosts.len() > 1 {
        let ambiguous =
            |port: &At<'_>| !matches!(protocol(port.text("protocol")), Some(Protocol::Http | Protocol::Tls));
        if let Some(port) = spec.items("ports").iter().find(|port| ambiguous(port)) {
            report.error(port, "with several hosts, only HTTP and TLS tell which of them is meant").help =
                Some("write one ServiceEntry for each host".to_owned());
        }
    }
    common::export_to(report, spec, Export::OrNobody);
}

fn service_host(report: &mut Report<'_>, host: &At<'_>) {
    let name = host.str();
    if name == "*" {
        report.error(host, "`*` cannot be a service's host");
    } else if let Err(why) = wildcard_domain(name) {
        report.error(host, why);
    } else if name.contains('*') && !name.starts_with("*.") {
        report.warn(host, format!("`{name}`: `*` should be a whole label, as in `*.example.com`"));
    }
}

fn addresses(report: &mut Report<'_>, spec: &At<'_>, resolution: &str) {
    for address in spec.items("addresses") {
        if !is_subnet(address.str()) {
            report.error(&address, format!("`{}` must be an IP address or a range such as 10.0.0.0/8", address.str()));
        } else if address.str().contains('/') && !matches!(resolution, "NONE" | "STATIC") {
            report.error(&address, format!("a range is for NONE and STATIC only, not for {resolution}"));
        }
    }
}

fn ports(report: &mut Report<'_>, spec: &At<'_>, resolution: &str) {
    let ports = spec.items("ports");
    let no_address = spec.items("addresses").is_empty();
    let mut numbers = BTreeSet::new();
    for entry in &ports {
        port(report, entry, "number");
        port(report, entry, "targetPort");
        if let Some(number) = entry.int("number")
            && !numbers.insert(number)
        {
            report.field(entry, "number", format!("{number} is there twice"));
        }
        if entry.has("name") && !is_label(entry.text("name")) {
            report.field(
                entry,
                "name",
                format!("`{}` is no name of a port: letters, digits and `-`", entry.text("name")),
            );
        }
        let name = entry.text("protocol");
        if !name.is_empty() && protocol(name).is_none() {
            let message = format!("`{name}` must be one of HTTP, HTTPS, HTTP2, GRPC, MONGO, TCP, TLS and UDP");
            report.field(entry, "protocol", message);
        }
        if entry.has("targetPort") && resolution == "NONE" {
            let at = entry.get("targetPort").expect("it is there");
            report.warn(&at, "does nothing with `resolution: NONE`");
        }
        if no_address && matches!(name, "" | "TCP") {
            report.warn(entry, "without spec.addresses, TCP connections are told apart by their port alone");
        }
    }
}

fn resolve(report: &mut Report<'_>, root: &At<'_>, spec: &At<'_>, resolution: &str, hosts: &[At<'_>]) {
    let endpoints = spec.items("endpoints");
    let ports: BTreeSet<&str> = spec.items("ports").iter().map(|port| port.text("name")).collect();
    match resolution {
        "NONE" if !endpoints.is_empty() => {
            report.field(spec, "endpoints", "cannot be given with `resolution: NONE`").help =
                Some("write `resolution: STATIC`".to_owned());
        }
        "STATIC" => {
            for endpoint in &endpoints {
                workload(report, endpoint, Some(&ports), false);
            }
        }
        "DNS" | "DNS_ROUND_ROBIN" => {
            if endpoints.is_empty() {
                for host in hosts.iter().filter(|host| fqdn(host.str()).is_err() && wildcard_domain(host.str()).is_ok())
                {
                    report.error(host, format!("{resolution} cannot look up `{}` without endpoints", host.str()));
                }
            }
            if resolution == "DNS_ROUND_ROBIN" && endpoints.len() > 1 {
                report.field(spec, "endpoints", "DNS_ROUND_ROBIN takes one endpoint at most");
            }
            for endpoint in &endpoints {
                if endpoint.text("address").starts_with("unix://") {
                    report.field(endpoint, "address", format!("a Unix socket cannot be looked up by {resolution}"));
                } else {
                    workload(report, endpoint, Some(&ports), true);
                }
            }
            if hosts.len() > 1
                && !spec.items("addresses").is_empty()
                && spec.items("ports").iter().any(|port| protocol(port.text("protocol")) == Some(Protocol::Tcp))
            {
                report.warn(spec, "several hosts cannot share an address and a TCP port");
            }
        }
        "DYNAMIC_DNS" => dynamic(report, root, spec, hosts),
        _ => {}
    }
}

/// Hosts with a `*` that are looked up as clients ask for them: by what HTTP or TLS says.
fn dynamic(report: &mut Report<'_>, root: &At<'_>, spec: &At<'_>, hosts: &[At<'_>]) {
    for host in hosts {
        if !host.str().starts_with("*.") {
            report.error(host, "DYNAMIC_DNS is for hosts such as `*.example.com`").help =
                Some("write `resolution: DNS`".to_owned());
        }
    }
    if !spec.items("endpoints").is_empty() {
        report.field(spec, "endpoints", "cannot be given with DYNAMIC_DNS");
    }
    for port in spec.items("ports") {
        if !matches!(protocol(port.text("protocol")), Some(Protocol::Http | Protocol::Tls)) {
            report.field(&port, "protocol", "DYNAMIC_DNS needs HTTP or TLS, which tell the host");
        }
    }
    let labels = root.get("metadata").map(|metadata| metadata.entries("labels")).unwrap_or_default();
    if spec.text("location") == "MESH_INTERNAL" && labels.iter().any(|(key, _)| *key == "istio.io/use-waypoint") {
        report.field(spec, "location", "DYNAMIC_DNS at a waypoint is for hosts outside the mesh only");
    }
}

pub(super) fn workload_entry(report: &mut Report<'_>, spec: &At<'_>) {
    workload(report, spec, None, true);
}

/// An endpoint. `ports` are the names that the service has, `names` whether the address may be a host name.
fn workload(report: &mut Report<'_>, entry: &At<'_>, ports: Option<&BTreeSet<&str>>, names: bool) {
    let address = entry.text("address");
    if address.is_empty() {
        if entry.text("network").is_empty() {
            report.field(entry, "address", "must be given");
        } else {
            report.warn(entry, format!("has no address in the network `{}`", entry.text("network")));
        }
    } else if let Some(path) = address.strip_prefix("unix://") {
        if let Err(why) = unix_path(path) {
            report.field(entry, "address", why);
        }
        if entry.get("ports").is_some_and(|ports| !ports.is_empty()) {
            report.field(entry, "ports", "a Unix socket has no ports");
        }
        if ports.is_some_and(|ports| ports.len() != 1) {
            report.field(entry, "address", "a Unix socket serves exactly one port of the service");
        }
    } else if !is_ip(address) && !names {
        report.field(entry, "address", format!("`{address}` must be an IP address or unix://PATH")).help =
            Some("write `resolution: DNS` for host names".to_owned());
    } else if !is_ip(address)
        && let Err(why) = fqdn(address)
    {
        report.field(entry, "address", why);
    }
    let map = entry.get("ports");
    for (name, at) in entry.entries("ports") {
        if ports.is_some_and(|ports| !ports.contains(name)) {
            report.error(&at, format!("the service has no port of the name `{name}`"));
        }
        if !is_label(name) {
            report.error(&at, format!("`{name}` is no name of a port: letters, digits and `-`"));
        }
        if let Some(map) = &map {
            port(report, map, name);
        }
    }
    common::labels(report, entry, "labels");
}

pub(super) fn workload_group(report: &mut Report<'_>, spec: &At<'_>) {
    if let Some(metadata) = spec.get("metadata") {
        common::labels(report, &metadata, "labels");
    }
    let Some(probe) = spec.get("probe") else {
        return;
    };
    let methods = ["httpGet", "tcpSocket", "exec", "grpc"];
    if probe.given(&methods).is_empty() {
        report.error(&probe, format!("one of {} must be given", methods.join(", ")));
    }
    if let Some(get) = probe.get("httpGet") {
        for header in get.items("httpHeaders") {
            if !is_header_name(header.text("name")) {
                report.field(&header, "name", format!("`{}` is no name of a header", header.text("name")));
            }
        }
        if !matches!(get.text("scheme"), "" | "HTTP" | "HTTPS") {
            report.field(&get, "scheme", "must be HTTP or HTTPS");
        }
    }
    if let Some(exec) = probe.get("exec")
        && exec.has("command")
        && exec.items("command").is_empty()
    {
        report.field(&exec, "command", "must not be empty");
    }
}
