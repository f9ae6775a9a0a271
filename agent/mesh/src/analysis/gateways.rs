//! Istio's Gateways: the pods that they select, the ports that those are reached at, and certificates. What several of
//! them want is in [`super::gateway_rivals`].

use std::collections::{BTreeMap, BTreeSet};

use super::certificate;
use super::findings::Findings;
use super::gateway_rivals;
use super::input::{Gateway, Input};
use super::sources::Resource;
use super::tree::{Tree, shown};
use crate::crd::Labels;
use crate::finding::code;

/// The label of weir's own gateway, which the agents serve, as that of Istio's default installation.
const OWN: (&str, &str) = ("istio", "ingressgateway");
/// The ports of its Service.
const OWN_PORTS: [i64; 2] = [80, 443];
/// Where it is installed.
pub(super) const OWN_NAMESPACE: &str = "weir-system";

pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    let ports = Ports::new(input);
    for gateway in &input.gateways {
        let selected = input.workloads.select(None, &gateway.selector);
        let is_own = selects_own(&gateway.selector);
        if selected.is_empty() && !is_own {
            if input.sources.is_read("Pod") {
                findings.add(
                    code::REFERENCE,
                    gateway.resource,
                    gateway.resource.node.mark_of("spec.selector"),
                    format!("selector not found: \"{}\"; no pod serves this Gateway", shown(&gateway.selector)),
                    "weir's own gateway has the label istio=ingressgateway",
                );
            }
            continue;
        }
        let mut known: BTreeSet<i64> = selected.iter().flat_map(|w| ports.of(w.resource)).collect();
        if is_own {
            known.extend(OWN_PORTS);
        }
        exposed(gateway, &known, findings);
        let mut namespaces: BTreeSet<&str> = selected.iter().map(|w| &**w.resource.namespace()).collect();
        if is_own {
            namespaces.extend([input.root_namespace(), OWN_NAMESPACE]);
        }
        credentials(gateway, &namespaces, input, findings);
    }
    gateway_rivals::analyze(input, findings);
}

/// Whether a selector means weir's own gateway, which no manifest shows.
pub(super) fn selects_own(selector: &Labels) -> bool {
    selector.iter().all(|(key, value)| (&**key, &**value) == OWN)
}

/// Where the Services of each workload lead to.
struct Ports<'s>(BTreeMap<*const Resource, BTreeSet<i64>>, std::marker::PhantomData<&'s ()>);

impl<'s> Ports<'s> {
    fn new(input: &Input<'s>) -> Self {
        let mut found: BTreeMap<*const Resource, BTreeSet<i64>> = BTreeMap::new();
        for service in input.services.iter().filter(|service| !service.selector.is_empty()) {
            let ports = service.ports.iter().filter(|port| matches!(port.text_at("protocol"), "" | "TCP"));
            let ports: BTreeSet<i64> = ports
                .filter_map(|port| port.int_at("targetPort").filter(|port| *port != 0).or(port.int_at("port")))
                .collect();
            for workload in input.workloads.select(Some(service.resource.namespace()), &service.selector) {
                found.entry(std::ptr::from_ref(workload.resource)).or_default().extend(&ports);
            }
        }
        Self(found, std::marker::PhantomData)
    }

    fn of(&self, workload: &Resource) -> impl Iterator<Item = i64> {
        self.0.get(&std::ptr::from_ref(workload)).into_iter().flatten().copied()
    }
}

fn exposed(gateway: &Gateway<'_>, known: &BTreeSet<i64>, findings: &mut Findings) {
    for (i, server) in gateway.servers.iter().enumerate() {
        let Some(port) = server.at("port").map(|port| port.int_at("number").unwrap_or(0)) else { continue };
        if !known.contains(&port) {
            let listed = known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            findings.add(
                code::PORT_NOT_EXPOSED,
                gateway.resource,
                server.mark_of("port.number"),
                format!(
                    "servers[{i}] is on port {port}, which no Service leads to for pods with {}: nobody reaches it from outside",
                    shown(&gateway.selector)
                ),
                &if listed.is_empty() { String::new() } else { format!("the ports that lead there are {listed}") },
            );
        }
    }
}

/// That the Secrets are there and can be used.
fn credentials(gateway: &Gateway<'_>, namespaces: &BTreeSet<&str>, input: &Input<'_>, findings: &mut Findings) {
    if !input.sources.is_read("Secret") {
        return;
    }
    for (i, server) in gateway.servers.iter().enumerate() {
        let name = server.text_at("tls.credentialName");
        if name.is_empty() {
            continue;
        }
        let mark = server.mark_of("tls.credentialName");
        let (named, bare) = name.split_once('/').map_or((None, name), |(namespace, name)| (Some(namespace), name));
        let mut places: Vec<&str> = named.map_or_else(|| namespaces.iter().copied().collect(), |one| vec![one]);
        // Several namespaces have gateway pods: it is enough that one of them has it.
        let found = places.iter().find_map(|namespace| input.find("", "Secret", namespace, bare));
        let Some(secret) = found else {
            places.sort_unstable();
            findings.add(
                code::REFERENCE,
                gateway.resource,
                mark,
                format!("credentialName not found: \"{name}\"; servers[{i}] has no certificate, and refuses"),
                &format!("it is a Secret in the namespace of the gateway's pods ({})", places.join(" or ")),
            );
            continue;
        };
        if let Err(why) = certificate::check(&secret.node, input.sources.options().now) {
            findings.add(
                code::BAD_CERTIFICATE,
                gateway.resource,
                mark,
                format!("Secret {} of servers[{i}] cannot be used: {why}", secret.meta.object),
                "it needs a certificate in tls.crt and its key in tls.key, both as PEM",
            );
        }
    }
}
