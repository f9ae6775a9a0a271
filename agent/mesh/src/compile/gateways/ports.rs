//! The ports that the gateway's pods listen on for a server: what its number is in the Services in front of them.

use std::collections::BTreeSet;

use super::super::registry::{Registered, RegisteredPort, Registry, has_labels};
use super::GatewayIdentity;
use crate::crd::{Gateway, Labels, Server, TargetPort};

/// Names the Services in front of a Gateway, instead of whatever selects its pods.
const GATEWAY_SERVICE: &str = "internal.istio.io/gateway-service";
/// On a Service: numbers of Gateways are not those of its ports.
const NO_TRANSLATION: &str = "experimental.istio.io/disable-gateway-port-translation";

/// All ports that a server is for; none when the Services that its Gateway names do not have it.
pub(in crate::compile) fn opened(
    gateway: &Gateway,
    server: &Server,
    registry: &Registry<'_>,
    identity: &GatewayIdentity,
) -> BTreeSet<u16> {
    if let Some(named) = gateway.meta.annotation(GATEWAY_SERVICE) {
        let in_front = |service: &&Registered<'_>| {
            service.namespace() == gateway.meta.namespace()
                && named.split(',').any(|name| *name.trim() == *service.fqdn)
        };
        return targets(registry.services.iter().filter(in_front), server.port, |_, _| true, registry);
    }
    let wanted = if gateway.selector.is_empty() { &identity.labels } else { &gateway.selector };
    let translated = |service: &&Registered<'_>| service.object.meta.label(NO_TRANSLATION).is_none();
    let of_gateway = |service: &Registered<'_>, port: &RegisteredPort<'_>| {
        let selects = !service.object.selector.is_empty() && has_labels(&service.object.selector, wanted);
        selects || port.endpoints.iter().any(|endpoint| is_own(endpoint, wanted, identity, registry))
    };
    let found = targets(registry.services.iter().filter(translated), server.port, of_gateway, registry);
    if found.is_empty() { BTreeSet::from([server.port]) } else { found }
}

fn is_own(
    endpoint: &super::super::registry::Backend,
    wanted: &Labels,
    identity: &GatewayIdentity,
    registry: &Registry<'_>,
) -> bool {
    identity.addresses.contains(&endpoint.address.ip()) || endpoint.carries(wanted, &registry.pods)
}

/// Where the port of this number leads, in all services that are the gateway's.
fn targets<'r, 's: 'r>(
    services: impl Iterator<Item = &'r Registered<'s>>,
    number: u16,
    is_own: impl Fn(&Registered<'_>, &RegisteredPort<'_>) -> bool,
    registry: &Registry<'_>,
) -> BTreeSet<u16> {
    let mut found = BTreeSet::new();
    for service in services {
        for port in service.ports.iter().filter(|port| port.port.number == number && is_own(service, port)) {
            match &port.port.target {
                TargetPort::Number(target) => drop(found.insert(*target)),
                // Each pod says for itself what the name stands for.
                TargetPort::Name(name) => {
                    let pods = port.endpoints.iter().filter_map(|endpoint| endpoint.pod);
                    found.extend(pods.filter_map(|pod| registry.pods.get(pod).port_named(name)));
                }
            }
        }
    }
    found
}
