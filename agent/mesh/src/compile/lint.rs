//! Findings that need no traffic: what was written and does not do what it seems to.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::build::PORT_OF_OTHER_HOSTS;
use super::destinations::host_help;
use super::registry::{LOCALITY, Registered, Registry, has_labels, protocol_of};
use super::visibility::expand;
use super::{CompileOptions, EXCLUDED_NAMESPACES, Findings, client_tls, enforced, entries};
use crate::crd::rate_limit::{Limits, RATE_LIMIT};
use crate::crd::{
    DestinationRule, HttpMatchItem, HttpRoute, Labels, Mark, ServiceType, Sidecar, Subset, VirtualService,
};
use crate::finding::{Severity, code};
use crate::program::{Protocol, REGION};
use crate::snapshot::Snapshot;

/// Label that tells the ReplicaSets of a Deployment apart: noise in a message.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Different label sets that a message lists before it stops.
const MAX_LISTED: usize = 4;

/// Looks at every object.
pub(super) fn lint(snapshot: &Snapshot, registry: &Registry<'_>, options: &CompileOptions, findings: &mut Findings) {
    entries::lint(snapshot, registry, findings);
    for service in registry.services.iter().filter(|service| service.entry.is_none()) {
        port_names(service, findings);
        addresses(service, findings);
    }
    for sidecar in snapshot.sidecars.values() {
        self::sidecar(sidecar, registry, findings);
    }
    for vs in snapshot.virtual_services.values() {
        // Of a route of the Gateway API its own conditions tell.
        if *vs.meta.object.kind == *"VirtualService" {
            virtual_service(vs, registry, options, findings);
            rate_limits(vs, findings);
        }
    }
    for rule in snapshot.destination_rules.values() {
        enforced::destination_rule(rule, findings);
        places(rule, snapshot, findings);
        client_tls::plain_ports(rule, findings);
        destination_rule(rule, snapshot, registry, options, findings);
    }
}

/// A rule that names places, where no pod is at any. Files without a Node say nothing of where pods will be.
fn places(rule: &DestinationRule, snapshot: &Snapshot, findings: &mut Findings) {
    let policies = rule.policy.as_deref().into_iter().chain(rule.subsets.iter().filter_map(|s| s.policy.as_deref()));
    let blocks =
        policies.flat_map(|policy| std::iter::once(&policy.blocks).chain(policy.ports.iter().map(|port| &port.blocks)));
    let balancers = blocks.filter_map(|blocks| blocks.load_balancer.as_ref());
    let mut naming = balancers.filter(|balancer| {
        let setting = balancer.locality.as_ref().filter(|setting| setting.enabled != Some(false));
        setting.is_some_and(|setting| !setting.distribute.is_empty() || !setting.failover.is_empty())
    });
    if let Some(balancer) = naming.next()
        && !snapshot.nodes.is_empty()
        && snapshot.nodes.values().all(|node| node.place.is_empty())
        && !snapshot.pods.values().any(|pod| pod.meta.label(LOCALITY).is_some())
    {
        let message = format!("no Node has the label {REGION}: the places of `localityLbSetting` are those of no pod");
        findings.push(Severity::Warning, code::NO_EFFECT, &rule.meta, balancer.mark, message);
    }
}

/// What the annotation says that no rule can follow.
fn rate_limits(vs: &VirtualService, findings: &mut Findings) {
    let Some(text) = vs.meta.annotation(RATE_LIMIT) else { return };
    let at = Mark::default();
    let limits = match Limits::parse(text) {
        Ok(limits) => limits,
        Err(why) => {
            let message = format!("{RATE_LIMIT}: {why}; nothing is limited");
            let help = Some("write [RULE:] COUNT/UNIT [burst COUNT] [per source], entries separated by `;`".to_owned());
            findings.with_help(Severity::Error, code::BAD_SETTING, &vs.meta, at, message, help);
            return;
        }
    };
    for name in limits.names().filter(|name| vs.http.iter().all(|route| *route.name != **name)) {
        let message = format!("{RATE_LIMIT}: no rule of this object is called `{name}`: that limit is of none");
        findings.push(Severity::Error, code::BAD_SETTING, &vs.meta, at, message);
    }
}

/// To hide a host from some clients takes an entry for each of its ports and each class of them: what Sidecars hide of a
/// large mesh is most of it, so it stays visible.
fn sidecar(sidecar: &Sidecar, registry: &Registry<'_>, findings: &mut Findings) {
    let mut hidden = registry.services.iter().filter(|one| !sidecar.shows(one.namespace(), &one.fqdn));
    let Some(first) = hidden.next() else { return };
    let others = match hidden.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let host = &first.fqdn;
    findings.with_help(
        Severity::Warning,
        code::NOT_SUPPORTED,
        &sidecar.meta,
        Mark::default(),
        format!(
            "spec.egress hides {host}{others}, and visibility is not narrowed by it: its clients reach them, and the rules for them apply"
        ),
        Some("let exportTo of the rules and services say who sees them".to_owned()),
    );
}

fn port_names(service: &Registered<'_>, findings: &mut Findings) {
    let meta = &service.object.meta;
    if service.object.kind == ServiceType::ExternalName || EXCLUDED_NAMESPACES.contains(&&**meta.namespace()) {
        return;
    }
    for port in service.ports.iter().map(|p| p.port).filter(|port| !protocol_of(port).1) {
        let named = if port.name.is_empty() { "has no name".to_owned() } else { format!("is named {}", port.name) };
        findings.with_help(
            Severity::Info,
            code::PORT_NAME,
            meta,
            port.mark,
            format!("port {} {named}, which declares no protocol: it is detected from the first bytes", port.number),
            Some("name it http, or http-SOMETHING, or give appProtocol".to_owned()),
        );
    }
}

/// Manifests as people write them have no address yet: the API server gives it.
fn addresses(service: &Registered<'_>, findings: &mut Findings) {
    let object = service.object;
    if object.kind == ServiceType::ClusterIp && object.addresses.is_empty() && !object.ports.is_empty() {
        findings.push(
            Severity::Info,
            code::NO_EFFECT,
            &object.meta,
            Mark::default(),
            "it has no clusterIP, so there is no address by which clients could ask for it".to_owned(),
        );
    }
}

fn virtual_service(vs: &VirtualService, registry: &Registry<'_>, options: &CompileOptions, findings: &mut Findings) {
    unreachable(vs, findings);
    for route in &vs.http {
        if let [only] = route.forwards_to()
            && let Some(weight) = only.weight.filter(|weight| *weight != 100)
        {
            findings.push(
                Severity::Info,
                code::NO_EFFECT,
                &vs.meta,
                only.mark,
                format!("weight {weight} has no effect: the only destination gets everything"),
            );
        }
    }
    if !vs.in_mesh() {
        let gateways: Vec<&str> = vs.gateways.iter().map(|gateway| &**gateway).collect();
        findings.push(
            Severity::Warning,
            code::NOT_SUPPORTED,
            &vs.meta,
            Mark::default(),
            format!(
                "it is for gateways only ({}), which are not supported yet: it has no effect, and never has any on clients in the mesh",
                gateways.join(", ")
            ),
        );
        return;
    }
    for (host, mark) in &vs.hosts {
        if let Some(suffix) = host.strip_prefix('*') {
            if !suffix.is_empty() && !registry.services.iter().any(|service| service.fqdn.ends_with(suffix)) {
                by_host_alone(vs, *mark, &format!("no service has a name that {host} covers"), None, findings);
            }
            continue;
        }
        let full = expand(host, vs.meta.namespace(), &options.cluster_domain);
        match registry.find(&full).map(|service| &registry.services[service]) {
            Some(service) if service.object.kind == ServiceType::ExternalName => {
                let why = format!("{full} is an alias (type ExternalName) without an address of its own");
                let help = "write the rules for the host that it stands for".to_owned();
                by_host_alone(vs, *mark, &why, Some(help), findings);
            }
            Some(service) => {
                protocols(vs, service, *mark, findings);
                headless(vs, service, options, findings);
            }
            None => {
                let help = host_help(registry, host, &options.cluster_domain);
                by_host_alone(vs, *mark, &format!("{full} is no service here"), help, findings);
            }
        }
    }
}

/// Rules for a host without an address that connections are steered by. Istio looks at the Host of whatever is sent to
/// a port 80, weir at that of what dials a service with rules.
fn by_host_alone(vs: &VirtualService, mark: Mark, why: &str, help: Option<String>, findings: &mut Findings) {
    let message = format!(
        "{why}: connections to the address that DNS gives for it pass as without weir, and the rules do not hold for them, as they would in Istio; they hold for requests of this Host that dial port {PORT_OF_OTHER_HOSTS} of a service with rules of its own"
    );
    let help = help.or_else(|| Some("make a ServiceEntry with addresses and endpoints for the host".to_owned()));
    findings.with_help(Severity::Warning, code::UNKNOWN_HOST, &vs.meta, mark, message, help);
}

/// Rules of a kind that no port of the host can follow.
fn protocols(vs: &VirtualService, service: &Registered<'_>, mark: Mark, findings: &mut Findings) {
    let any = |wanted: &[Protocol]| service.ports.iter().any(|port| wanted.contains(&port.protocol));
    let carries_http = any(&[Protocol::Http, Protocol::Http2, Protocol::Detect]);
    let carries_bytes = any(&[Protocol::Tcp, Protocol::Tls, Protocol::Detect]);
    for (field, unused, what) in [
        ("http", !vs.http.is_empty() && !carries_http, "HTTP"),
        ("tcp", !vs.tcp.is_empty() && !carries_bytes, "anything but HTTP"),
    ] {
        if unused {
            let message = format!("`spec.{field}` has no effect on {}: none of its ports carries {what}", service.fqdn);
            findings.push(Severity::Warning, code::NO_EFFECT, &vs.meta, mark, message);
        }
    }
}

/// Subsets of a headless service choose only for those who come to it through another one.
fn headless(vs: &VirtualService, service: &Registered<'_>, options: &CompileOptions, findings: &mut Findings) {
    if !service.is_headless() {
        return;
    }
    let is_own = |host: &str| expand(host, vs.meta.namespace(), &options.cluster_domain) == service.fqdn;
    for destination in vs.destinations().filter(|one| !one.subset.is_empty() && is_own(&one.host)) {
        findings.push(
            Severity::Warning,
            code::NO_EFFECT,
            &vs.meta,
            destination.mark,
            format!(
                "subset {} does not choose: clients of the headless service {} dial a pod, and get that pod",
                destination.subset, service.fqdn
            ),
        );
    }
}

/// Rules below one that takes everything.
fn unreachable(vs: &VirtualService, findings: &mut Findings) {
    let Some(first) = vs.http.iter().position(takes_everything) else {
        return;
    };
    for (index, route) in vs.http.iter().enumerate().skip(first + 1) {
        findings.with_help(
            Severity::Warning,
            code::UNREACHABLE,
            &vs.meta,
            route.mark,
            format!("http[{index}] is never used: http[{first}] before it takes every request"),
            Some(if takes_everything(route) {
                "only the last rule can be without matches: to split traffic, list the destinations with their weights under one `route`".to_owned()
            } else {
                format!("move http[{first}] to the end")
            }),
        );
    }
}

fn takes_everything(route: &HttpRoute) -> bool {
    route.items.is_empty() || route.items.iter().any(HttpMatchItem::takes_everything)
}

fn destination_rule(
    rule: &DestinationRule,
    snapshot: &Snapshot,
    registry: &Registry<'_>,
    options: &CompileOptions,
    findings: &mut Findings,
) {
    if rule.host.starts_with('*') {
        return;
    }
    let host = expand(&rule.host, rule.meta.namespace(), &options.cluster_domain);
    let Some(service) = registry.find(&host) else {
        findings.with_help(
            Severity::Warning,
            code::RULE_WITHOUT_HOST,
            &rule.meta,
            rule.host_mark,
            format!("{host} is no service here: the rule has no effect"),
            host_help(registry, &rule.host, &options.cluster_domain),
        );
        return;
    };
    let service = &registry.services[service];
    client_tls::out_of_reach(rule, service, findings);
    if rule.subsets.iter().all(|subset| subset.labels.is_empty()) {
        return;
    }
    let (pods, templates) = label_sets(service, snapshot, registry);
    for subset in &rule.subsets {
        if !pods.iter().chain(&templates).any(|labels| has_labels(labels, &subset.labels)) {
            findings.with_help(
                Severity::Error,
                code::EMPTY_SUBSET,
                &rule.meta,
                subset.mark,
                empty_subset(subset, service, &pods, &templates),
                Some(format!("label the pods of the subset with {}, or mend its labels", shown(&subset.labels))),
            );
        }
    }
}

/// The labels of the service's pods, and of the pods that Deployments will make for it.
fn label_sets<'a>(
    service: &Registered<'_>,
    snapshot: &'a Snapshot,
    registry: &'a Registry<'_>,
) -> (BTreeSet<&'a Labels>, BTreeSet<&'a Labels>) {
    let namespace = service.namespace();
    let selector = &service.object.selector;
    let by_selector = registry.pods.select(namespace, selector);
    let by_endpoint = service.ports.iter().flat_map(|port| port.endpoints.iter().filter_map(|e| e.pod));
    let pods = by_selector.chain(by_endpoint).map(|index| &*registry.pods.get(index).meta.labels).collect();
    let templates = snapshot
        .deployments
        .range((Arc::clone(namespace), Arc::default())..)
        .take_while(|((owner, _), _)| owner == namespace)
        .map(|(_, deployment)| &deployment.pod_labels)
        .filter(|labels| !selector.is_empty() && has_labels(labels, selector))
        .collect();
    (pods, templates)
}

fn empty_subset(
    subset: &Subset,
    service: &Registered<'_>,
    pods: &BTreeSet<&Labels>,
    templates: &BTreeSet<&Labels>,
) -> String {
    let all = || pods.iter().chain(templates);
    let missing: Vec<String> = subset
        .labels
        .iter()
        .filter(|(key, value)| !all().any(|labels| labels.get(key) == Some(*value)))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let missing = if missing.is_empty() {
        "all of its labels together".to_owned()
    } else {
        format!("label {}", missing.join(","))
    };
    let have: BTreeSet<String> = all().map(|labels| shown(labels)).collect();
    let have = match have.len() {
        0 => "there is none".to_owned(),
        n if n <= MAX_LISTED => format!("they have {}", Vec::from_iter(have).join(" and ")),
        n => format!(
            "they have {} and {} more",
            have.into_iter().take(MAX_LISTED).collect::<Vec<_>>().join(" and "),
            n - MAX_LISTED
        ),
    };
    format!(
        "subset {} selects no pod: no pod of {} has {missing} ({have}); its share of the traffic is refused",
        subset.name,
        service.name()
    )
}

fn shown(labels: &Labels) -> String {
    let shown: Vec<String> = labels
        .iter()
        .filter(|(key, _)| &***key != TEMPLATE_HASH)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if shown.is_empty() { "no label".to_owned() } else { shown.join(",") }
}
