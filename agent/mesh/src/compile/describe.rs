//! What a program does not carry, and `explain` shows: which pods are behind addresses, the labels of subsets, and rules
//! that are for other clients. Asks the registry, the policies and the hosts that the compiler asks.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use super::budget;
use super::delegate::Delegations;
use super::enrol;
use super::gateway_api;
use super::gateways::{self, full_name};
use super::guard::{self, Guards};
use super::hosts::{Hosts, Layer};
use super::layer4;
use super::policy::Policies;
use super::registry::{Registered, Registry};
use super::routes::{self, comes_through};
use super::visibility::{Client, ViewTable, expand, sees};
use super::{CompileOptions, Findings};
use crate::crd::{HttpMatchItem, Labels, Mark, Pod, Protection, Service, ServiceEntry, VirtualService, is_for_mesh};
use crate::snapshot::Snapshot;
use crate::source::{Location, ObjectRef};

/// The snapshot with what its Gateway API objects come to.
pub(crate) fn whole<'s>(snapshot: &'s Snapshot, options: &CompileOptions) -> Cow<'s, Snapshot> {
    let converted = gateway_api::convert(snapshot, options, &mut Findings::default());
    let whole = converted.map_or(Cow::Borrowed(snapshot), Cow::Owned);
    budget::within(&whole, &mut Findings::default()).map_or(whole, Cow::Owned)
}

/// Why a pod does not take part; `None` = it does.
pub(crate) fn why_not(pod: &Pod, snapshot: &Snapshot, options: &CompileOptions) -> Option<String> {
    let namespace = snapshot.namespace(pod.meta.namespace()).map(|namespace| &namespace.meta);
    if pod.finished {
        return Some("it has ended".to_owned());
    }
    let istio = enrol::IstioLabels::of(snapshot, options);
    if !enrol::wants(&pod.meta, namespace, istio.count, &mut Findings::default()) {
        return istio
            .why_not(&pod.meta, namespace)
            .or(Some("neither it nor its namespace asks for it (label weir.mesh/mode=enabled)".to_owned()));
    }
    enrol::obstacle(pod)
}

/// Who is of each view, in words; of view 0 nothing, as that is everybody.
pub(crate) fn clients(views: &ViewTable) -> Vec<(u32, String)> {
    let named = views.iter().filter(|(view, _)| *view != 0).map(|(view, client)| {
        let labels: Vec<String> = client.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let namespace = client.namespace.map(|namespace| format!(" in {namespace}")).unwrap_or_default();
        let labels = if labels.is_empty() { String::new() } else { format!(" with {}", labels.join(",")) };
        (view, format!("clients{namespace}{labels}"))
    });
    named.collect()
}

/// An endpoint of a service port, ready or not.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) address: SocketAddr,
    /// `namespace/name`
    pub(crate) pod: Option<String>,
    pub(crate) labels: Labels,
    pub(crate) ready: bool,
}

/// A subset as a class of clients has it.
#[derive(Clone, Debug)]
pub(crate) struct SubsetOf {
    pub(crate) labels: Labels,
    pub(crate) rule: ObjectRef,
    pub(crate) at: Option<Location>,
}

/// A DestinationRule that comes before others.
#[derive(Clone, Debug)]
pub(crate) struct Hiding {
    pub(crate) rule: ObjectRef,
    pub(crate) at: Option<Location>,
    /// As written.
    pub(crate) host: Arc<str>,
    /// It is for clients with labels that it names.
    pub(crate) selects: bool,
}

/// A rule, or an alternative of one, that some clients do not have.
#[derive(Clone, Debug)]
pub(crate) struct Absent {
    pub(crate) rule: ObjectRef,
    pub(crate) at: Option<Location>,
    pub(crate) why: String,
}

/// Looks things up in a whole snapshot. Making one costs a pass over it.
pub(crate) struct Describer<'s> {
    snapshot: &'s Snapshot,
    options: &'s CompileOptions,
    views: Vec<(u32, Client)>,
    registry: Registry<'s>,
    hosts: Hosts<'s>,
    delegations: Delegations<'s>,
    policies: Policies<'s>,
    guards: Guards<'s>,
}

impl<'s> Describer<'s> {
    pub(crate) fn new(snapshot: &'s Snapshot, options: &'s CompileOptions, views: &ViewTable) -> Self {
        let mut said = Findings::default();
        let registry = Registry::new(snapshot, options);
        Self {
            snapshot,
            options,
            views: views.iter().collect(),
            hosts: Hosts::new(snapshot, options),
            delegations: Delegations::new(snapshot, &options.cluster_domain, &mut said),
            policies: Policies::new(snapshot, options, views.overflowed()),
            guards: guard::guards(snapshot, &registry, options, &mut said),
            registry,
        }
    }

    fn client(&self, view: u32) -> Client {
        self.views.iter().find(|(own, _)| *own == view).map(|(_, client)| client.clone()).unwrap_or_default()
    }

    fn registered(&self, host: &str) -> Option<&Registered<'s>> {
        self.registry.find(host).map(|index| &self.registry.services[index])
    }

    /// The Service of an FQDN, or what stands for a host of a ServiceEntry, and that entry.
    pub(crate) fn service(&self, host: &str) -> Option<(&'s Service, Option<&'s ServiceEntry>)> {
        self.registered(host).map(|service| (service.object, service.entry))
    }

    /// The host that has an address.
    pub(crate) fn host_at(&self, address: std::net::IpAddr) -> Option<&Arc<str>> {
        let mut services = self.registry.services.iter();
        services.find(|service| service.object.addresses.contains(&address)).map(|service| &service.fqdn)
    }

    /// The policy that a port of a service must refuse for.
    pub(crate) fn guard(&self, host: &str, port: u16) -> Option<&'s Protection> {
        let index = self.registry.find(host)?;
        self.guards[index][self.registry.services[index].position(port)?]
    }

    /// All endpoints of a service port.
    pub(crate) fn members(&self, host: &str, port: u16) -> Vec<Member> {
        let Some(service) = self.registered(host) else { return Vec::new() };
        let Some(position) = service.position(port) else { return Vec::new() };
        let name = |pod: &Pod| format!("{}/{}", pod.meta.namespace(), pod.meta.name());
        let pods = &self.registry.pods;
        let known = service.ports[position].endpoints.iter().map(|backend| {
            let pod = backend.pod.map(|index| pods.get(index));
            let own = pod.map(|pod| &pod.meta.labels).or(backend.labels.as_ref());
            Member {
                address: backend.address,
                pod: pod.map(name),
                labels: own.map(|labels| (**labels).clone()).unwrap_or_default(),
                ready: backend.ready,
            }
        });
        let mut members: Vec<Member> = known.collect();
        let wanted = service.ports[position].port;
        if service.entry.is_none() && !service.object.selector.is_empty() {
            let selected = pods.select(service.namespace(), &service.object.selector).map(|index| pods.get(index));
            for pod in selected.filter(|pod| !pod.ready) {
                let number = match &wanted.target {
                    crate::crd::TargetPort::Number(number) => Some(*number),
                    crate::crd::TargetPort::Name(name) => pod.port_named(name),
                };
                for address in pod.addresses.iter().map(|ip| SocketAddr::new(*ip, number.unwrap_or(0))) {
                    if !members.iter().any(|known| known.address == address) {
                        let labels = (*pod.meta.labels).clone();
                        members.push(Member { address, pod: Some(name(pod)), labels, ready: false });
                    }
                }
            }
        }
        members
    }

    /// A subset of a service as the clients of a view have it.
    pub(crate) fn subset(&mut self, view: u32, host: &str, name: &str) -> Option<SubsetOf> {
        let client = self.client(view);
        let index = self.registry.find(host)?;
        let service = &self.registry.services[index];
        let id = self.policies.resolve(&client, service, &mut Findings::default())?;
        let policy = self.policies.get(id);
        let subset = policy.subset(name)?;
        let rule = policy.definition(subset)?;
        Some(SubsetOf {
            labels: subset.labels.clone(),
            rule: rule.meta.object.clone(),
            at: rule.meta.place(subset.mark),
        })
    }

    /// The DestinationRules in force for a service, and the one that asks for encryption that is not done, toward a port of
    /// a subset.
    pub(crate) fn rules(
        &mut self,
        view: u32,
        host: &str,
        subset: &str,
        port: u16,
    ) -> (Vec<ObjectRef>, Option<(ObjectRef, Arc<str>)>) {
        let client = self.client(view);
        let Some(index) = self.registry.find(host) else { return Default::default() };
        let service = &self.registry.services[index];
        let Some(id) = self.policies.resolve(&client, service, &mut Findings::default()) else {
            return Default::default();
        };
        let policy = self.policies.get(id);
        let encryption = policy.closing(&policy.settings(policy.subset(subset), port));
        (policy.rules.iter().map(|rule| rule.meta.object.clone()).collect(), encryption)
    }

    /// Where a rule defines a subset that clients of the view do not have, as other rules come before it: that
    /// definition, and those rules.
    pub(crate) fn hidden(&mut self, view: u32, host: &str, name: &str) -> Option<(SubsetOf, Vec<Hiding>)> {
        let client = self.client(view);
        let service = &self.registry.services[self.registry.find(host)?];
        let id = self.policies.resolve(&client, service, &mut Findings::default())?;
        let in_force = &self.policies.get(id).rules;
        let domain = &self.options.cluster_domain;
        let defining = self.snapshot.destination_rules.values().filter_map(|rule| {
            let subset = rule.subsets.iter().find(|subset| *subset.name == *name)?;
            let named = match rule.host.strip_prefix('*') {
                Some(suffix) => host.ends_with(suffix),
                None => *expand(&rule.host, rule.meta.namespace(), domain) == *host,
            };
            let seen = rule.selector.is_none() && sees(client.namespace.as_ref(), &rule.meta, &rule.export_to);
            let own = rule.meta.namespace();
            let near = own == service.namespace() || *own == self.options.root_namespace;
            (named && seen && near).then_some((rule, subset))
        });
        let (rule, subset) = defining.min_by_key(|(rule, _)| rule.meta.namespace() != service.namespace())?;
        let hidden = SubsetOf {
            labels: subset.labels.clone(),
            rule: rule.meta.object.clone(),
            at: rule.meta.place(subset.mark),
        };
        let hiding = in_force.iter().map(|rule| Hiding {
            rule: rule.meta.object.clone(),
            at: rule.meta.place(rule.host_mark),
            host: Arc::clone(&rule.host),
            selects: rule.selector.is_some(),
        });
        Some((hidden, hiding.collect()))
    }

    /// The VirtualServices for a host that this client does not have, and the rules of those that it has which are for
    /// others.
    pub(crate) fn absent(&self, view: u32, host: &str, port: u16) -> Vec<Absent> {
        let client = self.client(view);
        let layers = self.hosts.resolve(&client, host, &mut Findings::default());
        let http = |layer: &Layer<'_>| routes::any_for(&layer.rules, &self.delegations, &client, port);
        let in_force = layers.iter().position(http);
        let in_force =
            in_force.or_else(|| layers.iter().position(|layer| layer4::any_for(&layer.rules, &client, port)));
        // Those before it are for others, rule by rule.
        let asked = in_force.map_or(&layers[..], |position| &layers[..=position]);
        let asked = || asked.iter().flat_map(|layer| &layer.rules);
        let mut absent = Vec::new();
        for vs in asked() {
            for entry in self.delegations.entries(vs) {
                for item in &entry.route.items {
                    if let Some(why) = not_for(item, entry.vs, port, &client) {
                        let at = entry.vs.meta.place(item.mark);
                        absent.push(Absent { rule: entry.vs.meta.object.clone(), at, why });
                    }
                }
            }
        }
        let named =
            |vs: &VirtualService| vs.hosts.iter().find(|(name, _)| self.is_named(name, vs, host)).map(|(_, m)| *m);
        for vs in self.snapshot.virtual_services.values().filter(|vs| !vs.is_delegate()) {
            let Some(mark) = named(vs) else { continue };
            let is_own = |other: &VirtualService| std::ptr::eq(other, &raw const **vs);
            if asked().any(|other| is_own(other)) {
                continue;
            }
            let layer = layers.iter().find(|layer| layer.rules.iter().any(|other| is_own(other)));
            let before = in_force.map(|position| &layers[position]);
            let why = match (layer, before) {
                (Some(layer), Some(before)) if layer.named == before.named => {
                    format!(
                        "what {} keeps to itself (`exportTo`) comes before it",
                        client.namespace.as_deref().unwrap_or_default()
                    )
                }
                (Some(_), _) => "rules for a more specific host come before it".to_owned(),
                (None, _) if !is_for_mesh(&vs.gateways) => {
                    format!("it is for {} alone, and not for clients in the mesh", list(&vs.gateways))
                }
                (None, _) => format!("it is exported to {} alone", list(&vs.export_to)),
            };
            absent.push(Absent { rule: vs.meta.object.clone(), at: vs.meta.place(mark), why });
        }
        absent
    }

    fn is_named(&self, name: &str, vs: &VirtualService, host: &str) -> bool {
        match name.strip_prefix('*') {
            // `*` alone is for gateways.
            Some(suffix) => !suffix.is_empty() && host.ends_with(suffix),
            None => *super::expand(name, vs.meta.namespace(), &self.options.cluster_domain) == *host,
        }
    }

    /// The ports of a Gateway: the number of its server, the one that is listened on, and where the server stands.
    pub(crate) fn gateway_ports(&self, gateway: &ObjectRef) -> Option<Vec<(u16, u16, Option<Location>)>> {
        let key = (Arc::clone(&gateway.namespace), Arc::clone(&gateway.name));
        let found = self.snapshot.gateways.get(&key)?;
        let mut ports = Vec::new();
        for server in &found.servers {
            for port in gateways::opened(found, server, &self.registry, &self.options.gateway) {
                ports.push((server.port, port, found.meta.place(server.mark)));
            }
        }
        Some(ports)
    }

    /// Where an object stands.
    pub(crate) fn place(&self, object: &ObjectRef) -> Option<Location> {
        self.snapshot.get(object)?.meta().place(Mark::default())
    }

    /// The VirtualServices of a Gateway, by `namespace/name`, which it does not serve.
    pub(crate) fn bound_to(&self, gateway: &str) -> Vec<ObjectRef> {
        let bound = |vs: &VirtualService| vs.gateways.iter().any(|name| full_name(name, &vs.meta) == gateway);
        let all = self.snapshot.virtual_services.values().filter(|vs| bound(vs));
        all.map(|vs| vs.meta.object.clone()).collect()
    }
}

/// Why an alternative of a rule is not for clients in the mesh who dial this port.
fn not_for(item: &HttpMatchItem, vs: &VirtualService, port: u16, client: &Client) -> Option<String> {
    if !comes_through(&item.gateways, None, vs) {
        return Some(format!("`gateways`: it is for {} alone", list(&item.gateways)));
    }
    if let Some(wanted) = item.port.filter(|wanted| *wanted != port) {
        return Some(format!("`port`: it is for port {wanted}, and the client dials {port}"));
    }
    let source = item.source_in_force().filter(|source| !client.fits(source))?;
    let labels = source.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ");
    Some(match &source.namespace {
        Some(namespace) if labels.is_empty() => format!("`sourceNamespace`: it is for clients in {namespace}"),
        Some(namespace) => format!("`sourceLabels`: it is for clients in {namespace} with {labels}"),
        None => format!("`sourceLabels`: it is for clients with {labels}"),
    })
}

fn list(names: &[Arc<str>]) -> String {
    names.iter().map(|name| &**name).collect::<Vec<_>>().join(", ")
}
