//! Series as Prometheus' text, with Istio's names and labels, piece by piece: the whole of it is never in memory.

use std::fmt::Write as _;
use std::sync::Arc;

use weir_mesh::program::Workload;

use super::series::{DOUBLED_BOUNDS, Distribution, Labels, Series, Service, Totals};

/// What stands where something is not known; never nothing.
const UNKNOWN: &str = "unknown";
/// Istio's name of a cluster that has none.
const CLUSTER: &str = "Kubernetes";
/// Envoy's name for destinations that no service describes.
const PASSTHROUGH: &str = "PassthroughCluster";
/// The part before the namespace in the identities of a mesh that has no other.
const TRUST_DOMAIN: &str = "cluster.local";
/// A piece is handed out once it has this size.
const PIECE: usize = 64 << 10;

type Write = fn(&mut String, &str, &str, &Totals);

/// Name, type, what it counts, whether it is of TCP, and how a series of it is written.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    tcp: bool,
    write: Write,
}

const FAMILIES: [Family; 8] = [
    Family {
        name: "istio_requests_total",
        kind: "counter",
        help: "Requests.",
        tcp: false,
        write: |out, name, labels, totals| line(out, name, labels, totals.duration.count()),
    },
    Family {
        name: "istio_request_duration_milliseconds",
        kind: "histogram",
        help: "From the head of the request to the end of the response.",
        tcp: false,
        write: |out, name, labels, totals| {
            let micros = totals.duration.sum;
            let sum = format!("{}.{:03}", micros / 1000, micros % 1000);
            histogram(out, name, labels, &totals.duration, &sum);
        },
    },
    Family {
        name: "istio_request_bytes",
        kind: "histogram",
        help: "Sizes of the bodies of requests.",
        tcp: false,
        write: |out, name, labels, totals| {
            histogram(out, name, labels, &totals.request_bytes, &totals.request_bytes.sum.to_string());
        },
    },
    Family {
        name: "istio_response_bytes",
        kind: "histogram",
        help: "Sizes of the bodies of responses.",
        tcp: false,
        write: |out, name, labels, totals| {
            histogram(out, name, labels, &totals.response_bytes, &totals.response_bytes.sum.to_string());
        },
    },
    Family {
        name: "istio_tcp_sent_bytes_total",
        kind: "counter",
        help: "Bytes to clients.",
        tcp: true,
        write: |out, name, labels, totals| line(out, name, labels, totals.sent),
    },
    Family {
        name: "istio_tcp_received_bytes_total",
        kind: "counter",
        help: "Bytes from clients.",
        tcp: true,
        write: |out, name, labels, totals| line(out, name, labels, totals.received),
    },
    Family {
        name: "istio_tcp_connections_opened_total",
        kind: "counter",
        help: "Connections to an endpoint.",
        tcp: true,
        write: |out, name, labels, totals| line(out, name, labels, totals.opened),
    },
    Family {
        name: "istio_tcp_connections_closed_total",
        kind: "counter",
        help: "Connections that have ended.",
        tcp: true,
        write: |out, name, labels, totals| line(out, name, labels, totals.closed),
    },
];

/// The text of all series, piece by piece.
#[derive(Debug)]
pub struct Pieces {
    all: Vec<Arc<Series>>,
    family: usize,
    next: usize,
}

impl Pieces {
    pub(crate) fn new(all: Vec<Arc<Series>>) -> Self {
        Self { all, family: 0, next: 0 }
    }
}

impl Iterator for Pieces {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut piece = String::new();
        while let Some(family) = FAMILIES.get(self.family) {
            if self.next == 0 {
                // Writing to a String cannot fail, here and below.
                let _ = writeln!(piece, "# HELP {0} {1}\n# TYPE {0} {2}", family.name, family.help, family.kind);
            }
            while let Some(series) = self.all.get(self.next) {
                self.next += 1;
                if series.labels().tcp == family.tcp {
                    let totals = series.totals();
                    for reporter in reporters(series.labels()) {
                        (family.write)(&mut piece, family.name, &text(series.labels(), reporter), &totals);
                    }
                }
                if piece.len() >= PIECE {
                    return Some(piece);
                }
            }
            self.family += 1;
            self.next = 0;
        }
        (!piece.is_empty()).then_some(piece)
    }
}

/// Who tells: the client's side always, the destination's where its pod takes part on this node.
fn reporters(labels: &Labels) -> &'static [&'static str] {
    if labels.both_sides { &["source", "destination"] } else { &["source"] }
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "{name}{{{labels}}} {value}");
}

fn histogram(out: &mut String, name: &str, labels: &str, values: &Distribution, sum: &str) {
    let mut below = 0;
    for (doubled, count) in DOUBLED_BOUNDS.iter().zip(values.buckets) {
        below += count;
        let half = if doubled % 2 == 1 { ".5" } else { "" };
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{}{half}\"}} {below}", doubled / 2);
    }
    let count = values.count();
    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
}

/// The labels of a series, without their braces.
fn text(labels: &Labels, reporter: &str) -> String {
    let mut out = format!("reporter=\"{reporter}\"");
    peer(&mut out, "source", Some(&labels.source));
    peer(&mut out, "destination", labels.destination.as_deref());
    let (service, name, namespace) = service(labels);
    label(&mut out, "destination_service", service);
    label(&mut out, "destination_service_name", name);
    label(&mut out, "destination_service_namespace", namespace);
    label(&mut out, "request_protocol", if labels.tcp { "tcp" } else { "http" });
    if !labels.tcp {
        let _ = write!(out, ",response_code=\"{}\"", labels.status);
    }
    label(&mut out, "response_flags", &labels.flags.to_string());
    label(&mut out, "connection_security_policy", "none");
    out
}

/// Everything about one side.
fn peer(out: &mut String, side: &str, workload: Option<&Workload>) {
    let unknown = Workload::default();
    let known = workload.unwrap_or(&unknown);
    let mut one = |name: &str, value: &str| label(out, &format!("{side}_{name}"), value);
    one("workload", &known.name);
    one("workload_namespace", &known.namespace);
    if known.service_account.is_empty() {
        one("principal", UNKNOWN);
    } else {
        one("principal", &format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/{}", known.namespace, known.service_account));
    }
    one("app", &known.app);
    one("version", &known.version);
    one("canonical_service", &known.canonical_service);
    one("canonical_revision", &known.canonical_revision);
    one("cluster", if workload.is_some() { CLUSTER } else { UNKNOWN });
}

/// FQDN, name and namespace.
fn service(labels: &Labels) -> (&str, &str, &str) {
    let host = match &labels.service {
        Service::Host(host) => &**host,
        Service::Passthrough => return (UNKNOWN, PASSTHROUGH, UNKNOWN),
        Service::Unknown => return (UNKNOWN, UNKNOWN, UNKNOWN),
    };
    let of_kubernetes = host.split_once(".svc.").and_then(|(service, _)| service.split_once('.'));
    let (name, namespace) = of_kubernetes.unwrap_or((host, UNKNOWN));
    (host, name, namespace)
}

/// What a label's value may hold is Kubernetes' business; here it must only not end the value.
fn label(out: &mut String, name: &str, value: &str) {
    let value = if value.is_empty() { UNKNOWN } else { value };
    let _ = write!(out, ",{name}=\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}
