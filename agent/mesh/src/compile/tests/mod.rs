//! The compiler, from YAML to verdicts, routes and findings.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::{HeaderMap, Method};

use super::*;
use crate::plan::{OnFailure, PlanKey, PlannedService, Verdict};
use crate::program::PortId;
use crate::request::{RequestView, Source};
use crate::route::{RouteDecision, decide};
use crate::store::Store;

mod actions;
mod budget;
mod canary;
mod clients;
mod decided;
mod delegates;
mod encryption;
mod enforced;
mod enrolment;
mod entries;
mod fields;
mod findings;
mod gateway_api;
mod gateways;
mod gateways_any;
mod headless;
mod http2;
mod incremental;
mod locality;
mod order;
mod policy;
mod protocols;
mod rate_limits;
mod routing;
mod verdicts;
mod views;

/// `pod("shop", "a-1", "10.0.0.1", "app: a, version: v1")`
fn pod(namespace: &str, name: &str, ip: &str, labels: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\nspec: {{nodeName: n1}}\nstatus: {{phase: Running, podIPs: [{{ip: \"{ip}\"}}]}}\n"
    )
}

/// `service("shop", "a", "10.96.0.1", "{name: http, port: 80, targetPort: 8080}")`, selecting `app: NAME`.
fn service(namespace: &str, name: &str, ip: &str, ports: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{clusterIP: \"{ip}\", selector: {{app: {name}}}, ports: [{ports}]}}\n"
    )
}

/// A VirtualService or DestinationRule with this spec, in flow style.
fn rule(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn vs(namespace: &str, name: &str, spec: &str) -> String {
    rule("VirtualService", namespace, name, spec)
}

fn dr(namespace: &str, name: &str, spec: &str) -> String {
    rule("DestinationRule", namespace, name, spec)
}

/// Service `b` in `shop` on 10.96.0.2:80 with two pods v1 and one v2, and a DestinationRule with subsets v1 and v2.
fn shop(ports: &str) -> String {
    [
        service("shop", "b", "10.96.0.2", ports),
        pod("shop", "b-1", "10.0.0.1", "app: b, version: v1"),
        pod("shop", "b-2", "10.0.0.2", "app: b, version: v1"),
        pod("shop", "b-3", "10.0.0.3", "app: b, version: v2"),
        dr("shop", "b", "{host: b, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}"),
    ]
    .concat()
}

const HTTP: &str = "{name: http, port: 80, targetPort: 8080}";

/// Compiles one text and demands that the store has nothing to say about it.
fn compiled(text: &str) -> Compiled {
    let (compiled, findings) = with_store(&[("test.yaml", text)], &CompileOptions::default());
    assert_eq!(findings, [], "the store's own findings");
    compiled
}

fn with_store(files: &[(&str, &str)], options: &CompileOptions) -> (Compiled, Vec<Finding>) {
    let mut store = Store::new();
    for (name, text) in files {
        store.set_file(name, text);
    }
    let (snapshot, findings) = store.assemble();
    (compile(&snapshot, options), findings)
}

fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

impl Compiled {
    fn entry(&self, view: u32, address: &str, port: u16) -> Option<&PlannedService> {
        self.plan.services.get(&PlanKey { view, address: Some(ip(address)), port, udp: false }).map(|entry| &**entry)
    }

    fn verdict(&self, address: &str) -> (Verdict, &str) {
        let entry = self.entry(0, address, 80).expect("the entry exists");
        (entry.verdict, &entry.why)
    }

    /// `subset:weight:endpoint,endpoint …`
    fn groups(&self, view: u32, address: &str, port: u16) -> Vec<String> {
        let entry = self.entry(view, address, port).expect("the entry exists");
        let groups = if entry.verdict == Verdict::Balance { &entry.slots } else { &entry.fallback };
        groups
            .iter()
            .map(|group| {
                let endpoints: Vec<String> = group.endpoints.iter().map(ToString::to_string).collect();
                format!("{}:{}:{}", group.subset, group.weight, endpoints.join(","))
            })
            .collect()
    }

    fn port(&self, view: u32, address: &str, port: u16) -> Option<PortId> {
        self.program.port_of(view, (ip(address), port).into())
    }

    /// Where a request of a client in `namespace` goes, by subset or host and weight, or why it goes nowhere.
    fn ask(&self, view: u32, namespace: &str, address: &str, authority: &str, request: &str) -> String {
        self.ask_with(view, namespace, address, authority, request, &[])
    }

    fn ask_with(
        &self,
        view: u32,
        namespace: &str,
        address: &str,
        authority: &str,
        request: &str,
        headers: &[(&'static str, &'static str)],
    ) -> String {
        let (method, path) = request.split_once(' ').unwrap_or(("GET", request));
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let headers: HeaderMap =
            headers.iter().map(|(k, v)| (k.parse().expect("a name"), v.parse().expect("a value"))).collect();
        let request = RequestView { method: &method, scheme: "http", authority, path, query: None, headers: &headers };
        let port = self.port(view, address, 80).expect("the address is a service");
        match decide(&self.program, port, &Source { namespace, view }, &request, 0) {
            RouteDecision::NoRoute => "404".to_owned(),
            RouteDecision::Redirect { route, redirect, matched } => {
                format!("{}: {} {}", route.name, redirect.code, redirect.location(&request, matched, 80))
            }
            RouteDecision::Respond { route, response } => {
                format!("{}: {} {}", route.name, response.status, String::from_utf8_lossy(&response.body))
            }
            RouteDecision::Forward { route: None, .. } => "unknown host".to_owned(),
            RouteDecision::Forward { route: Some(route), .. } => {
                let shares: Vec<String> = route
                    .destinations
                    .iter()
                    .map(|d| match d.cluster.map(|id| self.program.cluster(id)) {
                        Some(cluster) => format!(
                            "{}{}/{}={}",
                            cluster.host.split('.').next().unwrap_or_default(),
                            if cluster.subset.is_empty() { String::new() } else { format!("-{}", cluster.subset) },
                            cluster.endpoints4.len() + cluster.endpoints6.len(),
                            d.weight
                        ),
                        None => format!("503={}", d.weight),
                    })
                    .collect();
                format!("{}: {}", route.name, shares.join(" "))
            }
        }
    }

    /// Findings of a code, as `Severity object line: message; help`.
    fn found(&self, code: &str) -> Vec<String> {
        self.findings
            .iter()
            .filter(|f| f.code == code)
            .map(|f| {
                let object = f.object.as_ref().map(ToString::to_string).unwrap_or_default();
                let line = f.at.as_ref().map_or(0, |at| at.line);
                let help = f.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
                format!("{} {object} {line}: {}{help}", f.severity, f.message)
            })
            .collect()
    }

    fn codes(&self) -> BTreeMap<&'static str, usize> {
        self.findings.iter().fold(BTreeMap::new(), |mut codes, finding| {
            *codes.entry(finding.code).or_default() += 1;
            codes
        })
    }
}
