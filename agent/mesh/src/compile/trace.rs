//! What a compilation leaves behind for [`super::incremental`]: which services send to which, how the endpoints of each
//! cluster were chosen, and which rules name which host. Filled by `build` and [`Trace::complete`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::CompileOptions;
use super::registry::{Map, SERVICE_NAME, Set};
use super::visibility::expand;
use crate::crd::{EndpointSlice, ServiceType, VirtualService};
use crate::program::ClusterId;
use crate::snapshot::{Key, Snapshot};

/// Clusters that may come before everything is compiled again, beside a share of all: a small mesh need not do so for a
/// few edits.
const MAX_LITTER: usize = 256;

/// What a compilation leaves behind. Holds until something else than endpoints and pods changes.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// In the order of their names. Elsewhere here a service is its place among them.
    pub(super) services: Vec<Key>,
    /// How many of them are Kubernetes'; hosts of ServiceEntries follow, in no order.
    pub(super) of_kubernetes: usize,
    /// By [`ClusterId`].
    pub(super) clusters: Vec<Selection>,
    /// In order.
    by_service: Vec<(u32, ClusterId)>,
    /// The services whose rules send to a service.
    pub(super) dependents: Map<u32, BTreeSet<u32>>,
    /// Rules were left out, as the regular expressions of their namespace or the mesh are too large.
    pub(super) left_out: bool,
    /// Two services claim one address and port, so that an entry hangs on both.
    pub(super) contended: bool,
    /// As many clusters as the last compilation of everything made.
    compiled: usize,
    pub(super) virtual_services: ByHost,
    /// What routes of the Gateway API come to, by names that no VirtualService has.
    pub(super) converted: BTreeMap<Key, Arc<VirtualService>>,
    pub(super) destination_rules: ByHost,
    /// Addresses by which endpoints find their pods, or pods their services, whatever their names.
    pub(super) watched: Set<IpAddr>,
}

/// How the endpoints of a cluster are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) service: u32,
    /// Among the TCP ports of the service.
    pub(super) position: u32,
    /// The DestinationRule whose subset, of the cluster's name, selects them; `None` = all.
    pub(super) rule: Option<Key>,
    /// Nobody is sent to it.
    pub(super) closed: bool,
}

/// Rules by the hosts that they name.
#[derive(Debug, Default)]
pub(super) struct ByHost {
    /// In order, once sorted.
    exact: Vec<(Arc<str>, Key)>,
    /// `*.example.com` as `.example.com`.
    suffixes: Vec<(Box<str>, Key)>,
}

impl ByHost {
    fn add(&mut self, host: &str, key: &Key, domain: &str) {
        match host.strip_prefix('*') {
            Some(suffix) => self.suffixes.push((suffix.into(), key.clone())),
            None => self.exact.push((expand(host, &key.0, domain), key.clone())),
        }
    }

    /// Brings the hosts of a changed VirtualService up to date.
    pub(super) fn replace(&mut self, key: &Key, now: Option<&VirtualService>, domain: &str) {
        self.exact.retain(|(_, own)| own != key);
        self.suffixes.retain(|(_, own)| own != key);
        for (host, _) in now.iter().filter(|vs| vs.in_mesh()).flat_map(|vs| &vs.hosts) {
            self.add(host, key, domain);
        }
        self.exact.sort_unstable();
    }

    fn sort(&mut self) {
        self.exact.sort_unstable();
        self.exact.shrink_to_fit();
    }

    /// The suffixes that end so, itself among them.
    pub(super) fn suffixes_ending<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = &'a Box<str>> {
        self.suffixes.iter().map(|(own, _)| own).filter(move |own| own.ends_with(suffix))
    }

    /// The exact hosts that end so.
    pub(super) fn ending<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = &'a Arc<str>> {
        self.exact.iter().map(|(host, _)| host).filter(move |host| host.ends_with(suffix))
    }

    pub(super) fn of<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Key> {
        let suffixes = self.suffixes.iter().filter(move |(suffix, _)| host.ends_with(&**suffix)).map(|(_, key)| key);
        let from = self.exact.partition_point(|(other, _)| **other < *host);
        let exact = self.exact[from..].iter().take_while(move |(other, _)| **other == *host).map(|(_, key)| key);
        exact.chain(suffixes)
    }
}

impl Trace {
    pub(super) fn complete(&mut self, snapshot: &Snapshot, options: &CompileOptions) {
        for (id, selection) in (0_u32..).zip(&self.clusters) {
            self.by_service.push((selection.service, ClusterId(id)));
        }
        self.by_service.sort_unstable();
        self.by_service.shrink_to_fit();
        self.compiled = self.clusters.len();
        let domain = &options.cluster_domain;
        for (key, vs) in &snapshot.virtual_services {
            for (host, _) in vs.hosts.iter().filter(|_| vs.in_mesh()) {
                self.virtual_services.add(host, key, domain);
            }
        }
        for (key, rule) in &snapshot.destination_rules {
            self.destination_rules.add(&rule.host, key, domain);
        }
        self.virtual_services.sort();
        self.destination_rules.sort();
        for slice in snapshot.endpoint_slices.values() {
            let service = service_of(slice).and_then(|key| snapshot.services.get(&key));
            let headless = service.is_some_and(|service| service.kind == ServiceType::Headless);
            let watched = slice.endpoints.iter().filter(|endpoint| headless || endpoint.pod.is_none());
            self.watched.extend(watched.flat_map(|endpoint| &endpoint.addresses));
        }
    }

    /// Where a service stands among all.
    pub(super) fn place(&self, service: &Key) -> Option<u32> {
        let (named, others) = self.services.split_at(self.of_kubernetes);
        let found = named.binary_search(service).ok();
        // Those of ServiceEntries are few beside Services, and rules for them fewer.
        let found = found.or_else(|| Some(self.of_kubernetes + others.iter().position(|other| other == service)?));
        found.map(|place| place as u32)
    }

    /// The services whose rules send to this one.
    pub(super) fn dependents(&self, service: &Key) -> impl Iterator<Item = &Key> {
        let places = self.place(service).and_then(|place| self.dependents.get(&place));
        places.into_iter().flatten().map(|place| &self.services[*place as usize])
    }

    /// Whether so many clusters have come since everything was compiled that it is time to do so, to be rid of those that
    /// nobody is sent to any more.
    pub(super) fn is_littered(&self) -> bool {
        self.clusters.len() > self.compiled + self.compiled / 4 + MAX_LITTER
    }

    /// A cluster that has come at the end.
    pub(super) fn add(&mut self, id: ClusterId, selection: Selection) {
        let entry = (selection.service, id);
        let at = self.by_service.partition_point(|own| *own < entry);
        self.by_service.insert(at, entry);
        self.clusters.push(selection);
    }

    /// Notes that the rules of `sender` send to `target`.
    pub(super) fn depend(&mut self, target: &Key, sender: &Key) {
        if let (Some(target), Some(sender)) = (self.place(target), self.place(sender)) {
            self.dependents.entry(target).or_default().insert(sender);
        }
    }

    /// The clusters of a service.
    pub(super) fn clusters_of(&self, service: &Key) -> impl Iterator<Item = ClusterId> {
        let place = self.place(service);
        let from =
            place.map_or(self.by_service.len(), |place| self.by_service.partition_point(|(own, _)| *own < place));
        self.by_service[from..].iter().take_while(move |(own, _)| Some(*own) == place).map(|(_, id)| *id)
    }
}

/// The service that a slice is a part of.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<Key> {
    Some((Arc::clone(slice.meta.namespace()), slice.meta.label(SERVICE_NAME)?.into()))
}

pub(super) fn fqdn(key: &Key, domain: &str) -> String {
    format!("{}.{}.svc.{domain}", key.1, key.0).to_ascii_lowercase()
}
