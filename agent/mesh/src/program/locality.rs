//! Where clients and endpoints are, as far as balancing asks. Made by [`crate::compile`]; [`crate::balance::locality`]
//! makes weights of it when the proxy takes a program over.

use std::collections::HashMap;
use std::sync::Arc;

use super::policy::Locality;
use crate::balance::locality::Place;
use crate::crd::Labels;
use crate::source::ObjectRef;

/// Label of a Node: its region.
pub const REGION: &str = "topology.kubernetes.io/region";
/// Label of a Node: its zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Label of a Node: a part of its zone.
pub const SUBZONE: &str = "topology.istio.io/subzone";
/// Label of a pod: the network that it is in.
pub const NETWORK: &str = "topology.istio.io/network";
/// Label of a Node, which its pods are taken to have too.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// A place as it is compared: `region/zone/subzone`, without what is missing at the end.
pub fn canonical_place(text: &str) -> Arc<str> {
    text.trim_end_matches('/').into()
}

/// A client or an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Whereabouts {
    /// `region/zone/subzone`; what is not known is left out, so that empty = nothing is.
    pub place: Arc<str>,
    /// Those of its labels that somebody asks for, by key.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
}

impl Whereabouts {
    /// Where it is, and of its labels the ones with these keys. `node` = empty for what is on none.
    pub fn new(place: Arc<str>, node: &Arc<str>, labels: &Labels, keys: &[Arc<str>]) -> Self {
        let label = |key: &Arc<str>| {
            let own = labels.get(key).or_else(|| Some(node).filter(|node| **key == *HOSTNAME && !node.is_empty()))?;
            Some((Arc::clone(key), Arc::clone(own)))
        };
        Self { place, labels: keys.iter().filter_map(label).collect() }
    }

    /// A label; those of the topology are of its place.
    pub fn label(&self, key: &str) -> Option<&str> {
        let place = Place::parse(&self.place);
        match key {
            REGION => Some(place.region),
            ZONE => Some(place.zone),
            SUBZONE => Some(place.subzone),
            _ => self.labels.iter().find(|(own, _)| **own == *key).map(|(_, value)| &**value),
        }
    }
}

/// `trafficDistribution` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrafficDistribution {
    /// `PreferClose`, or `PreferSameZone`: near endpoints first.
    SameZone,
    /// `PreferSameNode`: those on the client's own node before them.
    SameNode,
}

impl TrafficDistribution {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SameZone => "PreferSameZone",
            Self::SameNode => "PreferSameNode",
        }
    }

    /// The setting that comes to the same.
    pub(crate) fn setting(self) -> Locality {
        let near = [NETWORK, REGION, ZONE, SUBZONE];
        let own = matches!(self, Self::SameNode).then_some(HOSTNAME);
        Locality {
            enabled: Some(true),
            distribute: Box::default(),
            failover: Box::default(),
            failover_priority: near.into_iter().chain(own).map(Box::from).collect(),
        }
    }
}

impl Locality {
    /// What holds where failing endpoints are noticed and nothing else is said.
    pub(crate) fn mesh_default() -> Self {
        let failover_priority = Box::default();
        Self { enabled: None, distribute: Box::default(), failover: Box::default(), failover_priority }
    }

    /// The labels that endpoints and clients are compared by, but for those that are of their places.
    pub(crate) fn label_keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.failover_priority.iter().map(|label| label.split_once('=').map_or(&**label, |(key, _)| key));
        keys.filter(|key| ![REGION, ZONE, SUBZONE].contains(key))
    }
}

/// Balancing by locality of a cluster, where it is in force and makes a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Localities {
    /// What holds.
    pub setting: Arc<Locality>,
    /// Whether endpoints farther away are kept for the time when the near ones fail.
    pub fails_over: bool,
    /// What asks for it: a DestinationRule, or the Service.
    pub because: ObjectRef,
    /// The field that asks for it.
    pub field: &'static str,
    /// Where endpoints are, each once.
    pub found: Box<[Whereabouts]>,
    /// Of [`super::Cluster::endpoints4`], the one of `found`.
    pub of4: Box<[u32]>,
    /// Of [`super::Cluster::endpoints6`], likewise.
    pub of6: Box<[u32]>,
}

impl Localities {
    /// All that a client is compared by: those that have it in common are balanced alike.
    pub fn compared<'c>(&self, client: &'c Whereabouts) -> (&'c str, Box<[Option<&'c str>]>) {
        (&client.place, self.setting.label_keys().map(|key| client.label(key)).collect())
    }

    /// Where the endpoints of a family are, in their order.
    pub fn endpoints(&self, ipv6: bool) -> impl Iterator<Item = &Whereabouts> {
        let of = if ipv6 { &self.of6 } else { &self.of4 };
        of.iter().map(|index| &self.found[*index as usize])
    }
}

/// The pods of this node, as they differ for balancing by locality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// The labels that somebody asks for.
    pub keys: Box<[Arc<str>]>,
    /// What there is; the first stands for clients of whom nothing is known.
    pub kinds: Box<[Whereabouts]>,
    by_pod: HashMap<Arc<str>, u32, foldhash::fast::RandomState>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { keys: Box::default(), kinds: [Whereabouts::default()].into(), by_pod: HashMap::default() }
    }
}

impl Clients {
    /// Kinds that are told apart: twice as many as a node has pods by default. Each may cost a cluster a table of its own.
    pub const MAX_KINDS: usize = 256;

    /// Clients by `namespace/name`. Of more kinds than the limit, the last by name are as if nothing were known of them.
    pub fn new(keys: Box<[Arc<str>]>, pods: impl IntoIterator<Item = (Arc<str>, Whereabouts)>) -> Self {
        let mut kinds = vec![Whereabouts::default()];
        let mut known: HashMap<Whereabouts, u32, foldhash::fast::RandomState> = HashMap::default();
        known.insert(Whereabouts::default(), 0);
        let mut by_pod = HashMap::default();
        for (name, whereabouts) in pods {
            let kind = match known.get(&whereabouts) {
                Some(kind) => *kind,
                None if kinds.len() >= Self::MAX_KINDS => 0,
                None => {
                    let kind = kinds.len() as u32;
                    kinds.push(whereabouts.clone());
                    known.insert(whereabouts, kind);
                    kind
                }
            };
            if kind > 0 {
                by_pod.insert(name, kind);
            }
        }
        Self { keys, kinds: kinds.into(), by_pod }
    }

    /// Into `kinds`, for a pod by `namespace/name`.
    pub fn kind_of(&self, pod: &str) -> usize {
        self.by_pod.get(pod).map_or(0, |kind| *kind as usize)
    }

    /// What is known of a pod.
    pub fn of(&self, pod: &str) -> &Whereabouts {
        &self.kinds[self.kind_of(pod)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: &str) -> Whereabouts {
        Whereabouts { place: place.into(), ..Whereabouts::default() }
    }

    #[test]
    fn labels_of_the_topology_are_of_the_place_and_the_host_is_the_node() {
        let labels: Labels = [("app".into(), "x".into()), ("other".into(), "y".into())].into_iter().collect();
        let keys = ["app".into(), HOSTNAME.into(), "absent".into()];
        let one = Whereabouts::new(canonical_place("eu/a/"), &"n1".into(), &labels, &keys);
        assert_eq!((&*one.place, one.labels.len()), ("eu/a", 2));
        let known = [REGION, ZONE, SUBZONE, HOSTNAME, "app", "other", "absent"].map(|key| one.label(key));
        assert_eq!(known, [Some("eu"), Some("a"), Some(""), Some("n1"), Some("x"), None, None]);
        assert_eq!(&*canonical_place("//"), "", "nothing is known");
        assert_eq!(&*canonical_place("/b/"), "/b", "a zone without a region");
    }

    #[test]
    fn kinds_of_clients_are_bounded() {
        let pods = (0..1_000).map(|n| (Arc::from(format!("shop/{n:04}")), at(&format!("r{}", n % 700))));
        let clients = Clients::new(Box::default(), pods);
        assert_eq!(clients.kinds.len(), Clients::MAX_KINDS);
        assert_eq!(&*clients.of("shop/0007").place, "r7");
        assert_eq!(clients.of("shop/0707"), clients.of("shop/0007"), "of one kind");
        assert_eq!(*clients.of("shop/0600"), Whereabouts::default(), "beyond the limit");
        assert_eq!(clients.kind_of("shop/nobody"), 0);
    }
}
