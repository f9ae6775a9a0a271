//! Destinations of a rule: their shares, who is behind each, and why nobody is. Used by [`super`].

use std::net::SocketAddr;

use super::model::{Dead, Destination, Endpoint, EndpointLocality, Lacking, Origin, Setting, Subset};
use super::{Mesh, settings};
use crate::balance::locality::{Plan, Scratch};
use crate::compile::describe::{Describer, Member, SubsetOf};
use crate::crd::Labels;
use crate::program::{Cluster, Localities, PortId, WeightedCluster, Whereabouts};
use crate::source::Location;

/// Whose destinations, and how they are reached.
pub(super) struct Toward<'a> {
    pub(super) mesh: &'a Mesh<'a>,
    pub(super) view: u32,
    /// Where the client is.
    pub(super) client: &'a Whereabouts,
    /// The port that was dialled, and by which address; `None` through a gateway.
    pub(super) dialled: Option<(PortId, SocketAddr)>,
    /// The kernel connects, and no proxy is in between.
    pub(super) by_kernel: bool,
    /// The proxy tells clients why nobody answers; else their connection is refused.
    pub(super) by_proxy: bool,
}

impl Toward<'_> {
    /// All destinations of a rule; `chosen` is the one that the roll picked.
    pub(super) fn all(
        &self,
        describer: &mut Describer<'_>,
        destinations: &[WeightedCluster],
        chosen: Option<&WeightedCluster>,
    ) -> Vec<Destination> {
        let total: u64 = destinations.iter().map(|one| u64::from(one.weight)).sum();
        let single = destinations.len() == 1;
        let shown = destinations.iter().map(|one| {
            let share = match (single, total) {
                (true, _) => 100.0,
                (false, 0) => 0.0,
                (false, total) => f64::from(one.weight) * 100.0 / total as f64,
            };
            let chosen = single || chosen.is_some_and(|chosen| std::ptr::eq(chosen, one));
            Destination { share, chosen, ..self.one(describer, one) }
        });
        shown.collect()
    }

    fn one(&self, describer: &mut Describer<'_>, destination: &WeightedCluster) -> Destination {
        let mut shown =
            Destination { name: destination.name.to_string(), weight: destination.weight, ..Destination::default() };
        let Some(id) = destination.cluster else {
            shown.dead = Some(self.nowhere(describer, destination));
            return shown;
        };
        let cluster = self.mesh.program.cluster(id);
        let headless = self.dialled.is_some_and(|(port, _)| self.mesh.program.port(port).headless);
        shown.settings = settings::of_cluster(&cluster.policy, self.by_kernel, headless);
        for (field, changes) in destination
            .headers
            .iter()
            .flat_map(|one| [("headers.request", &one.request), ("headers.response", &one.response)])
        {
            shown.settings.extend(settings::changed(changes).into_iter().map(|value| Setting {
                field: field.to_owned(),
                value,
                origin: None,
                instead: None,
            }));
        }
        let members = describer.members(&cluster.host, cluster.port);
        let subset = describer.subset(self.view, &cluster.host, &cluster.subset);
        let dialled = self.dialled.filter(|(port, _)| self.mesh.program.is_dialled(*port, id)).map(|(_, to)| to);
        shown.endpoints = endpoints(cluster, &members, subset.as_ref(), dialled);
        if let Some(localities) = cluster.localities.as_deref().filter(|_| dialled.is_none() && !self.by_kernel) {
            shown.settings.push(self.by_locality(localities));
            let places = [false, true].into_iter().flat_map(|ipv6| self.places(localities, ipv6));
            for (endpoint, place) in shown.endpoints.iter_mut().zip(places) {
                endpoint.locality = Some(place);
            }
        }
        let ipv6 = self.dialled.is_some_and(|(_, to)| to.is_ipv6());
        // The kernel keeps to the family that was dialled.
        let alive = match (dialled, self.by_kernel) {
            (Some(_), _) => true,
            (None, true) if ipv6 => !cluster.endpoints6.is_empty(),
            (None, true) => !cluster.endpoints4.is_empty(),
            (None, false) => !cluster.endpoints_for(ipv6).is_empty(),
        };
        shown.subset = (!cluster.subset.is_empty()).then(|| Subset {
            name: cluster.subset.to_string(),
            selector: subset
                .iter()
                .flat_map(|subset| subset.labels.iter())
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect(),
            origin: subset.as_ref().map(|subset| Origin::new(&subset.rule, subset.at.as_ref())),
            lacking: match &subset {
                Some(subset) if !alive => lacking(&members, &subset.labels),
                _ => Vec::new(),
            },
        });
        if !alive {
            shown.dead = Some(self.nobody(describer, cluster, &members, subset.as_ref()));
        }
        shown
    }

    fn by_locality(&self, localities: &Localities) -> Setting {
        let place = match &*self.client.place {
            "" => "at a place that is not known".to_owned(),
            place => format!("in {place}"),
        };
        let how = match () {
            () if !localities.setting.distribute.is_empty() => "shares of the localities",
            () if localities.setting.failover_priority.is_empty() => {
                "near endpoints first, the next nearest as they fail"
            }
            () => "those with the same labels first, the others as they fail",
        };
        Setting {
            field: "locality".to_owned(),
            value: format!("{how}; the client is {place}"),
            origin: Some(Origin::new(&localities.because, None)),
            instead: None,
        }
    }

    /// What becomes of the endpoints of a family, in their order.
    fn places(&self, localities: &Localities, ipv6: bool) -> Vec<EndpointLocality> {
        let plan = Plan::of(localities, self.client, ipv6);
        let mut weights = Vec::new();
        plan.weights(0, |_| true, &mut Scratch::default(), &mut weights);
        let total = weights.iter().map(|weight| f64::from(*weight)).sum::<f64>().max(1.0);
        let of = |(position, one): (usize, &Whereabouts)| EndpointLocality {
            place: one.place.to_string(),
            priority: plan.priority(position),
            percent: (f64::from(weights[position]) * 100.0 / total).round() as u32,
        };
        localities.endpoints(ipv6).enumerate().map(of).collect()
    }

    fn dead(&self, flag: &str, status: u16, why: String) -> Dead {
        Dead { status: self.by_proxy.then_some(status), flag: self.by_proxy.then(|| flag.to_owned()), why }
    }

    /// A destination that there is not.
    fn nowhere(&self, describer: &mut Describer<'_>, destination: &WeightedCluster) -> Dead {
        if destination.is_invalid_backend() {
            return self.dead("NC", 500, "the route has no backend that may be sent to: none is named, all weights are 0, or it is not permitted".to_owned());
        }
        let mut parts = destination.name.split('|').skip(1);
        let (port, subset, host) = (parts.next(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let port = port.unwrap_or_default();
        let why = match describer.service(host) {
            None => format!("no Service or ServiceEntry has the host {host}"),
            Some((service, _)) if !service.ports.iter().any(|own| own.number.to_string() == port) => {
                format!("{} has no port {port}", service.meta.object)
            }
            Some(_) if !subset.is_empty() => self.without_subset(describer, host, subset),
            Some((service, _)) => format!("{} cannot be a destination", service.meta.object),
        };
        self.dead("NC", 503, why)
    }

    /// Why there is no such subset: nobody defines it, or who does is not asked.
    fn without_subset(&self, describer: &mut Describer<'_>, host: &str, subset: &str) -> String {
        let Some((hidden, hiding)) = describer.hidden(self.view, host, subset) else {
            return format!("no DestinationRule defines subset {subset} of {host}");
        };
        let at = |at: Option<&Location>| at.map(|at| format!(" at {at}")).unwrap_or_default();
        let first: Vec<String> =
            hiding.iter().map(|one| format!("{}{} (host {})", one.rule, at(one.at.as_ref()), one.host)).collect();
        let order = if hiding.iter().any(|one| one.selects) {
            "a rule whose workloadSelector selects the client comes before those without one, and is not merged with them"
        } else {
            "rules of the client's namespace come before those of the service's, the most specific host first, and are not merged with others"
        };
        format!(
            "{}{} defines subset {subset} of {host}, and {} hides it from this client: {order}",
            hidden.rule,
            at(hidden.at.as_ref()),
            first.join(" and ")
        )
    }

    /// A destination without an endpoint.
    fn nobody(
        &self,
        describer: &mut Describer<'_>,
        cluster: &Cluster,
        members: &[Member],
        subset: Option<&SubsetOf>,
    ) -> Dead {
        let (_, encryption) = describer.rules(self.view, &cluster.host, &cluster.subset, cluster.port);
        let why = if let Some(guard) = describer.guard(&cluster.host, cluster.port) {
            format!("{}, so nobody gets there", guard.why_refused(&cluster.host))
        } else if let Some((rule, mode)) = encryption {
            format!("{rule} asks for TLS ({mode}), and this version would send plain text")
        } else if let Some(subset) = subset.filter(|_| members.iter().any(|member| member.ready)) {
            let labels: Vec<String> = subset.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("no ready endpoint of {} has the label {}", cluster.host, labels.join(", "))
        } else {
            format!("{} has no ready endpoint", cluster.host)
        };
        self.dead("UH", 503, why)
    }
}

/// Those of the cluster, then those of the same subset that are not ready.
fn endpoints(
    cluster: &Cluster,
    members: &[Member],
    subset: Option<&SubsetOf>,
    dialled: Option<SocketAddr>,
) -> Vec<Endpoint> {
    let name = |address: SocketAddr| {
        members.iter().find(|member| member.address == address).and_then(|member| member.pod.clone())
    };
    let ready = |address: SocketAddr| Endpoint {
        address: address.to_string(),
        pod: name(address),
        ready: true,
        locality: None,
    };
    if let Some(address) = dialled {
        return vec![ready(address)];
    }
    let in_force = cluster.endpoints4.iter().chain(&*cluster.endpoints6);
    let mut shown: Vec<Endpoint> = in_force.map(|address| ready(*address)).collect();
    let carries = |member: &&Member| subset.is_none_or(|subset| lacks(&member.labels, &subset.labels).next().is_none());
    let others = members.iter().filter(|member| !member.ready).filter(carries);
    shown.extend(others.map(|member| Endpoint {
        address: member.address.to_string(),
        pod: member.pod.clone(),
        ready: false,
        locality: None,
    }));
    shown
}

fn lacks<'l>(own: &'l Labels, wanted: &'l Labels) -> impl Iterator<Item = (String, Option<String>)> + 'l {
    let missing = wanted.iter().filter(|(key, value)| own.get(key) != Some(value));
    missing.map(|(key, _)| (key.to_string(), own.get(key).map(ToString::to_string)))
}

fn lacking(members: &[Member], wanted: &Labels) -> Vec<Lacking> {
    let named = members.iter().filter_map(|member| Some((member.pod.clone()?, member)));
    let mut shown: Vec<Lacking> =
        named.map(|(pod, member)| Lacking { pod, labels: lacks(&member.labels, wanted).collect() }).collect();
    shown.retain(|lacking| !lacking.labels.is_empty());
    shown
}
