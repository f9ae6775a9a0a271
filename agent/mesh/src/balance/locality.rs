//! Weights of endpoints by where they are: localities of their own first, others when these fail, or shares that the user
//! gave. Priorities are as Istio makes them, their load as Envoy spreads it. [`Plan`] is made when endpoints or policy
//! change, [`Plan::weights`] when health does; a request sees neither, only [`super::Candidates`] made of them.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use twox_hash::XxHash64;

use super::affinity::wait_for;
use crate::program::{Localities, Locality as Setting, Whereabouts};

/// Of a locality or priority, so much more than its share is believed to be borne: with 100/1.4 percent of it healthy it
/// still takes all of its load. Envoy's overprovisioning factor.
const OVERPROVISIONING: f64 = 1.4;
/// The sum of all weights is about this: shares are exact to some billionths, and sums fit in 32 bits.
const SCALE: f64 = (1_u32 << 30) as f64;

/// `region/zone/subzone`; what is not known is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each field is its name")]
pub struct Place<'a> {
    pub region: &'a str,
    pub zone: &'a str,
    pub subzone: &'a str,
}

impl<'a> Place<'a> {
    /// From `region/zone/subzone` or less.
    pub fn parse(text: &'a str) -> Self {
        let mut parts = text.splitn(3, '/');
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), subzone: next() }
    }

    /// A hash of its name.
    fn salt(&self) -> u64 {
        let parts = [self.region, self.zone, self.subzone];
        parts.iter().fold(0, |seed, part| XxHash64::oneshot(seed, part.as_bytes()))
    }

    /// Whether it is within what a rule names: `*`, `region`, `region/*`, `region/zone`, …
    fn is_within(&self, named: &str) -> bool {
        let named = Place::parse(named);
        let mut parts =
            [(named.region, self.region), (named.zone, self.zone), (named.subzone, self.subzone)].into_iter();
        // What follows a `*`, or nothing, may be anything.
        parts.find(|(named, own)| named != own).is_none_or(|(named, _)| named == "*" || named.is_empty())
    }

    /// How far it is from the client: 0 = the same subzone, 1 zone, 2 region, 3 elsewhere.
    fn distance(&self, client: &Self) -> u32 {
        match () {
            () if self.region != client.region => 3,
            () if self.zone != client.zone => 2,
            () => u32::from(self.subzone != client.subzone),
        }
    }
}

/// An endpoint, or the client.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a, L> {
    /// Where it is.
    pub place: Place<'a>,
    /// Of an endpoint, against the others of its place; of a client, nothing.
    pub weight: u32,
    /// Its labels, where the topology's are among them.
    pub labels: L,
}

/// What weights come to, but for health.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    endpoints: Box<[Planned]>,
    localities: Box<[Share]>,
    priorities: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Planned {
    /// Into [`Plan::localities`]; `None` = the client shall not use it.
    locality: Option<u32>,
    weight: u32,
}

/// Endpoints of one place and priority.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Share {
    priority: u32,
    /// What the user gave to the place; `None` = as much as its endpoints weigh.
    given: Option<f64>,
    /// Of the place's name, the same on every node: what clients that stick are spread by.
    salt: u64,
}

/// Endpoints' weights, together and of those that are healthy.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    all: f64,
    healthy: f64,
}

impl Sum {
    fn add(&mut self, weight: f64, healthy: bool) {
        self.all += weight;
        self.healthy += if healthy { weight } else { 0.0 };
    }

    /// How much of its load it bears.
    fn availability(&self) -> f64 {
        if self.all > 0.0 { (OVERPROVISIONING * self.healthy / self.all).min(1.0) } else { 0.0 }
    }
}

/// Memory that [`Plan::weights`] works in, so that it asks for none after the first time.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    localities: Vec<Sum>,
    /// Of a priority: its endpoints, by their number; the weight that its localities have in it; the part of all load.
    priorities: Vec<(Sum, f64, f64)>,
}

impl Plan {
    /// With `detects` failing endpoints are noticed, and only then does a client keep to its own locality: from there,
    /// nothing would lead on. `label` reads a label of a member.
    pub fn new<'a, L>(
        setting: Option<&Setting>,
        detects: bool,
        client: &Member<'_, L>,
        endpoints: impl IntoIterator<Item = Member<'a, L>>,
        label: impl for<'l> Fn(&'l L, &str) -> Option<&'l str>,
    ) -> Self {
        let disabled = setting.and_then(|setting| setting.enabled) == Some(false);
        let distribute = setting.filter(|_| !disabled).map_or(&[][..], |setting| &setting.distribute);
        let fails_over = distribute.is_empty() && detects && !disabled;
        let shares = distribute.iter().find(|(from, _)| client.place.is_within(from)).map(|(_, to)| &**to);
        let ranked = |endpoint: &Member<'a, L>| {
            if fails_over { rank(setting, client, endpoint, &label) } else { (0, 0) }
        };
        let mut keys: Vec<((u32, u32), Place<'a>)> = Vec::new();
        let mut planned: Vec<Planned> = Vec::new();
        let mut index: HashMap<((u32, u32), Place<'a>), u32, RandomState> = HashMap::default();
        for endpoint in endpoints {
            let wanted = shares.is_none_or(|to| to.iter().any(|(name, _)| endpoint.place.is_within(name)));
            let locality = (wanted && endpoint.weight > 0).then(|| {
                let key = (ranked(&endpoint), endpoint.place);
                *index.entry(key).or_insert_with(|| {
                    keys.push(key);
                    keys.len() as u32 - 1
                })
            });
            planned.push(Planned { locality, weight: endpoint.weight });
        }
        // Without gaps: a priority without endpoints is none.
        let mut ranks: Vec<(u32, u32)> = keys.iter().map(|(rank, _)| *rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let mut localities: Vec<Share> = keys
            .iter()
            .map(|(rank, place)| Share {
                priority: ranks.partition_point(|one| one < rank) as u32,
                given: None,
                salt: place.salt(),
            })
            .collect();
        if let Some(shares) = shares {
            give(shares, &keys, &planned, &mut localities);
        }
        debug_assert!(localities.windows(2).all(|pair| pair[0].given.is_some() == pair[1].given.is_some()));
        Self { endpoints: planned.into(), localities: localities.into(), priorities: ranks.len() as u32 }
    }

    /// The plan of a cluster's endpoints of a family, for a client.
    pub fn of(localities: &Localities, client: &Whereabouts, ipv6: bool) -> Self {
        let endpoints =
            localities.endpoints(ipv6).map(|one| Member { place: Place::parse(&one.place), weight: 1, labels: one });
        let client = Member { place: Place::parse(&client.place), weight: 1, labels: client };
        Self::new(Some(&localities.setting), localities.fails_over, &client, endpoints, |one, key| one.label(key))
    }

    /// The priority of an endpoint, 0 first; `None` = the client does not use it.
    pub fn priority(&self, position: usize) -> Option<u32> {
        let locality = self.endpoints.get(position)?.locality?;
        Some(self.localities[locality as usize].priority)
    }

    /// Which locality an endpoint is counted to; `None` = the client does not use it.
    pub fn locality(&self, position: usize) -> Option<usize> {
        Some(self.endpoints.get(position)?.locality? as usize)
    }

    /// Endpoints that may take load from one another have the same number, below [`Self::groups`]: those of a locality
    /// that a rule gives a share to, else those of a priority. What a group gets is a share of what is asked, however
    /// long answers take. With shares it is as in Envoy, which picks the locality first; without any, Envoy does so for
    /// some settings of failover too, where we let the less busy locality of a priority help out. `None` = the client does
    /// not use it.
    pub fn group(&self, position: usize) -> Option<usize> {
        let locality = self.locality(position)?;
        let share = &self.localities[locality];
        Some(if share.given.is_some() { locality } else { share.priority as usize })
    }

    /// How many groups there are. A rule gives a share to all localities in use, or to none.
    pub fn groups(&self) -> usize {
        let given = self.localities.first().is_some_and(|locality| locality.given.is_some());
        if given { self.localities.len() } else { self.priorities as usize }
    }

    /// The locality that a client with this hash stays in, by the weights that localities have together. Where those
    /// change, only as many clients move as must.
    pub fn stay(&self, weights: &[u64], hash: u64) -> Option<usize> {
        let weighted = self.localities.iter().zip(weights).enumerate().filter(|(_, (_, weight))| **weight > 0);
        let waits = weighted.map(|(position, (share, weight))| (wait_for(hash, share.salt, *weight as f64), position));
        waits.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, position)| position)
    }

    /// What the endpoints of each locality weigh together.
    pub fn sums(&self, weights: &[u32]) -> Box<[u64]> {
        let mut sums = vec![0; self.localities.len()];
        for (endpoint, weight) in self.endpoints.iter().zip(weights) {
            if let Some(locality) = endpoint.locality {
                sums[locality as usize] += u64::from(*weight);
            }
        }
        sums.into()
    }

    /// Whether health does not change who is used, but by leaving out who is not healthy.
    pub fn is_flat(&self) -> bool {
        self.priorities < 2 && self.localities.iter().all(|locality| locality.given.is_none())
    }

    /// The weights of the endpoints, in their order, by their health. Below `min_health_percent` of them in use, all of a
    /// priority are used. All weights are 0 when there is nobody to use.
    pub fn weights(
        &self,
        min_health_percent: u8,
        healthy: impl Fn(usize) -> bool,
        scratch: &mut Scratch,
        weights: &mut Vec<u32>,
    ) {
        let Scratch { localities, priorities } = scratch;
        localities.clear();
        localities.resize(self.localities.len(), Sum::default());
        priorities.clear();
        priorities.resize(self.priorities as usize, (Sum::default(), 0.0, 0.0));
        for (position, endpoint) in self.endpoints.iter().enumerate() {
            if let Some(locality) = endpoint.locality {
                let (locality, healthy) = (locality as usize, healthy(position));
                localities[locality].add(f64::from(endpoint.weight), healthy);
                priorities[self.localities[locality].priority as usize].0.add(1.0, healthy);
            }
        }
        let total: f64 = priorities.iter().map(|(sum, ..)| sum.availability()).sum();
        // Where all priorities together bear the load, none is in need.
        let panics = |sum: &Sum| total < 1.0 && sum.healthy * 100.0 < f64::from(min_health_percent) * sum.all;
        spread(priorities, total, &panics);
        for (share, sum) in self.localities.iter().zip(&*localities) {
            let (of_priority, weight, _) = &mut priorities[share.priority as usize];
            *weight += effective(share, sum, panics(of_priority));
        }
        weights.clear();
        weights.extend(self.endpoints.iter().enumerate().map(|(position, endpoint)| {
            let Some(locality) = endpoint.locality.map(|locality| locality as usize) else {
                return 0;
            };
            let (share, sum) = (&self.localities[locality], &localities[locality]);
            let (of_priority, of_all, load) = &priorities[share.priority as usize];
            let panics = panics(of_priority);
            let usable = if panics { sum.all } else { sum.healthy };
            if *load <= 0.0 || usable <= 0.0 || *of_all <= 0.0 || !(panics || healthy(position)) {
                return 0;
            }
            let part = load * effective(share, sum, panics) / of_all * f64::from(endpoint.weight) / usable;
            if part > 0.0 { ((part * SCALE).round() as u32).max(1) } else { 0 }
        }));
    }
}

/// The weight of a locality within its priority.
fn effective(share: &Share, sum: &Sum, panics: bool) -> f64 {
    match share.given {
        Some(given) if panics => given,
        // A place that mostly fails gives a part of its share to the others.
        Some(given) => given * sum.availability(),
        None if panics => sum.all,
        None => sum.healthy,
    }
}

/// The first priority takes what it bears, the next what is left; when all together cannot bear it, each takes its part.
fn spread(priorities: &mut [(Sum, f64, f64)], total: f64, panics: &impl Fn(&Sum) -> bool) {
    if total > 0.0 {
        let mut left = 1.0_f64;
        for (sum, _, load) in priorities {
            *load = (sum.availability() / total.min(1.0)).min(left);
            left -= *load;
        }
        return;
    }
    // Nobody is healthy: those that are used all the same take it, by their number.
    let all: f64 = priorities.iter().filter(|(sum, ..)| panics(sum)).map(|(sum, ..)| sum.all).sum();
    for (sum, _, load) in priorities {
        *load = if panics(sum) { sum.all / all } else { 0.0 };
    }
}

/// The order in which endpoints take over: smaller ones first.
fn rank<L>(
    setting: Option<&Setting>,
    client: &Member<'_, L>,
    endpoint: &Member<'_, L>,
    label: &impl for<'l> Fn(&'l L, &str) -> Option<&'l str>,
) -> (u32, u32) {
    let by_labels = setting.map_or(&[][..], |setting| &setting.failover_priority);
    let regions = setting.map_or(&[][..], |setting| &setting.failover);
    // Of `n` labels, all that are like the client's up to the first that is not.
    let alike = by_labels.iter().take_while(|wanted| {
        let (key, value) = wanted.split_once('=').map_or((&***wanted, None), |(key, value)| (key, Some(value)));
        value.or_else(|| label(&client.labels, key)).unwrap_or_default()
            == label(&endpoint.labels, key).unwrap_or_default()
    });
    let first = (by_labels.len() - alike.count()) as u32;
    if !by_labels.is_empty() && regions.is_empty() {
        return (first, 0);
    }
    let distance = endpoint.place.distance(&client.place);
    let elsewhere = distance == 3
        && regions
            .iter()
            .find(|(from, _)| **from == *client.place.region)
            .is_some_and(|(_, to)| **to != *endpoint.place.region);
    (first, if elsewhere { 4 } else { distance })
}

/// Gives the shares of `distribute` to the localities that they name, each to the first that names it; where one names
/// several, by what their endpoints weigh.
fn give(shares: &[(Box<str>, u32)], keys: &[((u32, u32), Place<'_>)], planned: &[Planned], localities: &mut [Share]) {
    let mut weights = vec![0.0; localities.len()];
    for endpoint in planned {
        if let Some(locality) = endpoint.locality {
            weights[locality as usize] += f64::from(endpoint.weight);
        }
    }
    let named = |place: &Place<'_>| shares.iter().position(|(name, _)| place.is_within(name));
    let names: Vec<Option<usize>> = keys.iter().map(|(_, place)| named(place)).collect();
    for (position, (_, share)) in shares.iter().enumerate() {
        let mine = || (0..names.len()).filter(|locality| names[*locality] == Some(position));
        let all: f64 = mine().map(|locality| weights[locality]).sum();
        for locality in mine() {
            localities[locality].given = Some(f64::from(*share) * weights[locality] / all);
        }
    }
}

#[cfg(test)]
mod tests;
