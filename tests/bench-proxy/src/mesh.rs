//! The routes that every subject has, as users would write them for weir: ten services, each with rules that match a
//! path and a header and split 90/10, with outlier detection on. Used by `subject`, `cases` and `peers`.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Result, bail};
use weir_mesh::compile::{CompileOptions, compile};
use weir_mesh::finding::Severity;
use weir_mesh::program::Program;
use weir_mesh::store::Store;

/// Where the services are.
pub const NAMESPACE: &str = "bench";
/// Virtual hosts; requests are for the last.
pub const HOSTS: usize = 10;
/// Rules of every host but the last.
pub const FEW_ROUTES: usize = 10;
/// The header that tells rules apart.
pub const HEADER: &str = "x-route";
/// The path that all rules want.
pub const PREFIX: &str = "/api/";
/// Percent of v1 and of v2.
pub const SPLIT: [u32; 2] = [90, 10];
/// Where v1 and v2 of everything listen.
pub const VERSIONS: [[u8; 4]; 2] = [[127, 0, 0, 2], [127, 0, 0, 3]];
/// The port that is HTTP, and the one that is bytes.
const PORTS: [(&str, u16); 2] = [("http", 80), ("tcp-bulk", 81)];

/// The name of a host.
pub fn host(number: usize) -> String {
    format!("app-{number}")
}

/// The Host header of requests.
pub fn last_host() -> String {
    host(HOSTS - 1)
}

/// The value of [`HEADER`] for a rule.
pub fn route(number: usize) -> String {
    format!("r{number}")
}

/// What clients dial: the HTTP port, or the one for bytes, of the last service.
pub fn destination(bytes: bool) -> SocketAddr {
    destination_of(HOSTS - 1, bytes)
}

/// The same, of any host.
pub(crate) fn destination_of(number: usize, bytes: bool) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, number as u8 + 1], PORTS[usize::from(bytes)].1))
}

/// What a host's rules and policy say beside what all have: pieces of YAML, as they stand within braces.
#[derive(Clone, Copy, Debug)]
pub struct Extras {
    /// Annotations of the VirtualService.
    pub annotations: &'static str,
    /// Headers that each rule wants, after a comma.
    pub headers: &'static str,
    /// Lines of each rule, with their indentation of four.
    pub rule: &'static str,
    /// The load balancer.
    pub balancer: &'static str,
    /// Other fields of the traffic policy, after a comma.
    pub policy: &'static str,
}

impl Extras {
    /// Nothing.
    pub const NONE: Self =
        Self { annotations: "", headers: "", rule: "", balancer: "{simple: ROUND_ROBIN}", policy: "" };
}

/// Manifests whose last host has `routes` rules; endpoints are [`VERSIONS`] at `origin_port`.
pub fn manifests(routes: usize, origin_port: u16) -> String {
    manifests_with(routes, origin_port, &Extras::NONE)
}

/// The same, where the last host has something more.
pub fn manifests_with(routes: usize, origin_port: u16, extras: &Extras) -> String {
    let mut text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n");
    for number in 0..HOSTS {
        let (rules, extras) = if number + 1 == HOSTS { (routes, extras) } else { (FEW_ROUTES, &Extras::NONE) };
        service(&mut text, number, origin_port).expect("a String takes everything");
        rules_of(&mut text, number, rules, extras).expect("a String takes everything");
    }
    text
}

/// The service of a host, and its pods: [`VERSIONS`] at `origin_port`.
pub(crate) fn service(text: &mut String, number: usize, origin_port: u16) -> std::fmt::Result {
    let host = host(number);
    let ports: Vec<String> =
        PORTS.iter().map(|(name, port)| format!("{{name: {name}, port: {port}, targetPort: {origin_port}}}")).collect();
    write!(
        text,
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {host}, namespace: {NAMESPACE}}}\n\
         spec: {{clusterIP: 10.96.0.{}, selector: {{app: {host}}}, ports: [{}]}}\n",
        number + 1,
        ports.join(", ")
    )?;
    let mut endpoints = Vec::new();
    for (version, address) in ["v1", "v2"].iter().zip(VERSIONS) {
        let ip = std::net::Ipv4Addr::from(address);
        write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {host}-{version}, namespace: {NAMESPACE}, \
             labels: {{app: {host}, version: {version}}}}}\nspec: {{nodeName: node, containers: [{{name: c, image: i}}]}}\n\
             status: {{podIP: {ip}, podIPs: [{{ip: {ip}}}], phase: Running}}\n"
        )?;
        endpoints.push(format!(
            "{{addresses: [{ip}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {host}-{version}, namespace: {NAMESPACE}}}}}"
        ));
    }
    let ports: Vec<String> = PORTS.iter().map(|(name, _)| format!("{{name: {name}, port: {origin_port}}}")).collect();
    write!(
        text,
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {host}-1, namespace: {NAMESPACE}, \
         labels: {{kubernetes.io/service-name: {host}}}}}\naddressType: IPv4\nports: [{}]\nendpoints: [{}]\n",
        ports.join(", "),
        endpoints.join(", ")
    )
}

fn rules_of(text: &mut String, number: usize, rules: usize, extras: &Extras) -> std::fmt::Result {
    let host = host(number);
    let Extras { annotations, headers, rule: more, balancer, policy } = extras;
    write!(
        text,
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}, namespace: {NAMESPACE}}}\n\
         spec:\n  host: {host}\n  trafficPolicy: {{loadBalancer: {balancer}, \
         outlierDetection: {{consecutive5xxErrors: 5, interval: 10s, baseEjectionTime: 30s}}{policy}}}\n  \
         subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]\n\
         ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}, namespace: {NAMESPACE}, annotations: {{{annotations}}}}}\n\
         spec:\n  hosts: [{host}]\n  http:\n"
    )?;
    let destination =
        |port: u16, subset: &str| format!("destination: {{host: {host}, subset: {subset}, port: {{number: {port}}}}}");
    let [(_, http), (_, bytes)] = PORTS;
    let [v1, v2] = SPLIT;
    let split = |port| {
        format!("route: [{{{}, weight: {v1}}}, {{{}, weight: {v2}}}]", destination(port, "v1"), destination(port, "v2"))
    };
    for rule in 0..rules {
        let (name, split) = (route(rule), split(http));
        write!(
            text,
            "  - name: {name}\n    match: [{{uri: {{prefix: {PREFIX}}}, headers: {{{HEADER}: {{exact: {name}}}{headers}}}}}]\n{more}    {split}\n"
        )?;
    }
    // Nobody comes here unless a rule was not found, and then the split says so.
    writeln!(text, "  - route: [{{{}}}]", destination(http, "v1"))?;
    writeln!(text, "  tcp:\n  - match: [{{port: {bytes}}}]\n    {}", split(bytes))
}

/// Compiles manifests.
///
/// # Errors
/// When the compiler finds anything that keeps it from carrying them out; a bench of other rules would be none.
pub fn program(text: &str) -> Result<Program> {
    let mut store = Store::new();
    store.set_file("bench.yaml", text);
    let (snapshot, findings) = store.assemble();
    let compiled = compile(&snapshot, &CompileOptions::default());
    let error = findings.iter().chain(&compiled.findings).find(|finding| finding.severity == Severity::Error);
    if let Some(error) = error {
        bail!("the manifests cannot be carried out: {error}");
    }
    Ok(compiled.program)
}
