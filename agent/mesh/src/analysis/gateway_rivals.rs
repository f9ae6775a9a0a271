//! Istio's Gateways of the same pods that want the same: a host on a port, or one certificate. Called by
//! [`super::gateways`].

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::findings::{Findings, MAX_NAMED, few};
use super::gateways::selects_own;
use super::input::{Gateway, Input};
use super::tree::{Tree, selects, shown};
use crate::crd::{Labels, Node};
use crate::finding::code;

pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    hosts(input, findings);
    certificates(input, findings);
}

/// Who wants what, grouped so that thousands of Gateways for one thing are compared by their selectors, not in pairs.
struct Claims<'i, 's, K> {
    gateways: &'i [Gateway<'s>],
    by_key: BTreeMap<K, Claim<'i>>,
    unions: BTreeMap<Vec<*const [usize]>, Rc<Vec<usize>>>,
}

/// Those that want one thing, by selector, and for a selector those that are in its way.
#[derive(Default)]
struct Claim<'i> {
    by_selector: BTreeMap<&'i Labels, Vec<usize>>,
    rivals: BTreeMap<&'i Labels, Rc<[usize]>>,
}

impl<'i, 's, K: Ord> Claims<'i, 's, K> {
    fn new(gateways: &'i [Gateway<'s>]) -> Self {
        Self { gateways, by_key: BTreeMap::new(), unions: BTreeMap::new() }
    }

    fn add(&mut self, key: K, gateway: usize) {
        let of_selector = self.by_key.entry(key).or_default().by_selector.entry(&self.gateways[gateway].selector);
        let list = of_selector.or_default();
        if list.last() != Some(&gateway) {
            list.push(gateway);
        }
    }

    /// The Gateways that want this as well and meet `gateway`, itself included.
    fn rivals(&mut self, key: &K, gateway: usize, meets: impl Fn(&Labels, &Labels) -> bool) -> Option<Rc<[usize]>> {
        let own = &self.gateways[gateway].selector;
        let claim = self.by_key.get_mut(key)?;
        let found = claim.rivals.entry(own).or_insert_with(|| {
            let met = claim.by_selector.iter().filter(|(other, _)| own == **other || meets(own, other));
            met.flat_map(|(_, list)| list).copied().collect()
        });
        (found.len() > 1).then(|| Rc::clone(found))
    }

    /// All of these lists, the oldest Gateway first.
    fn union(&mut self, lists: &[Rc<[usize]>]) -> Rc<Vec<usize>> {
        let mut key: Vec<*const [usize]> = lists.iter().map(Rc::as_ptr).collect();
        key.sort_by_key(|list| list.addr());
        key.dedup_by_key(|list| list.addr());
        let gateways = self.gateways;
        let made = self.unions.entry(key).or_insert_with(|| {
            let all: BTreeSet<usize> = lists.iter().flat_map(|list| list.iter().copied()).collect();
            let mut all = Vec::from_iter(all);
            all.sort_by(|a, b| gateways[*a].resource.meta.seniority().cmp(&gateways[*b].resource.meta.seniority()));
            Rc::new(all)
        });
        Rc::clone(made)
    }
}

/// Gateways that want the same host on the same port of the same pods.
fn hosts(input: &Input<'_>, findings: &mut Findings) {
    let port = |server: &Node| server.int_at("port.number").unwrap_or(0);
    let mut claims: Claims<'_, '_, (i64, &str, &str)> = Claims::new(&input.gateways);
    let in_force = |(_, gateway): &(usize, &Gateway<'_>)| !input.is_refused(gateway.resource);
    for (index, gateway) in input.gateways.iter().enumerate().filter(in_force) {
        for server in gateway.servers {
            for host in server.texts("hosts").filter_map(Node::text) {
                claims.add((port(server), host, server.text_at("bind")), index);
            }
        }
    }
    for (index, gateway) in input.gateways.iter().enumerate().filter(in_force) {
        for (i, server) in gateway.servers.iter().enumerate() {
            let mut shared: BTreeSet<&str> = BTreeSet::new();
            let mut lists = Vec::new();
            for host in server.texts("hosts").filter_map(Node::text) {
                let key = (port(server), host, server.text_at("bind"));
                if let Some(rivals) = claims.rivals(&key, index, |a, b| same_pods(a, b, input)) {
                    shared.insert(host);
                    lists.push(rivals);
                }
            }
            if lists.is_empty() {
                continue;
            }
            let all = claims.union(&lists);
            let name = |other: usize| &input.gateways[other].resource.meta.object;
            let others = all.iter().filter(|other| **other != index).map(|other| name(*other));
            findings.add(
                code::RIVAL_GATEWAYS,
                gateway.resource,
                server.mark,
                format!(
                    "servers[{i}] wants {} on port {} of the pods with {}, and so does {}: the oldest, {}, gets it",
                    few(&shared, shared.len(), ", "),
                    port(server),
                    shown(&gateway.selector),
                    few(others, all.len() - 1, ", "),
                    name(all[0])
                ),
                "give each host on a port to one Gateway",
            );
        }
    }
}

/// Whether the selectors of two Gateways have a pod in common.
fn same_pods(x: &Labels, y: &Labels, input: &Input<'_>) -> bool {
    let both = || input.workloads.select(None, x).iter().any(|workload| selects(y, &workload.labels));
    (selects(x, y) || selects(y, x)) && ((selects_own(x) && selects_own(y)) || both())
}

/// One certificate in several Gateways of the same pods.
fn certificates(input: &Input<'_>, findings: &mut Findings) {
    let key = |server: &Node| {
        let tls = server.at("tls")?;
        let parts = ["credentialName", "serverCertificate", "privateKey"].map(|field| tls.text_at(field).to_owned());
        (!parts[0].is_empty() || (!parts[1].is_empty() && !parts[2].is_empty())).then_some(parts)
    };
    let mut claims: Claims<'_, '_, [String; 3]> = Claims::new(&input.gateways);
    let in_force = |(_, gateway): &(usize, &Gateway<'_>)| !input.is_refused(gateway.resource);
    for (index, gateway) in input.gateways.iter().enumerate().filter(in_force) {
        for certificate in gateway.servers.iter().filter_map(key) {
            claims.add(certificate, index);
        }
    }
    for (index, gateway) in input.gateways.iter().enumerate().filter(in_force) {
        let mut users = Vec::new();
        for server in gateway.servers {
            let rivals = key(server).and_then(|certificate| claims.rivals(&certificate, index, selects));
            users.extend(rivals.map(|rivals| (server, rivals)));
        }
        let lists: Vec<Rc<[usize]>> = users.iter().map(|(_, list)| Rc::clone(list)).collect();
        let Some((first, _)) = users.first() else { continue };
        let all = claims.union(&lists);
        let others = all.iter().copied().filter(|other| *other != index);
        let mut tell = |server: &Node, whose: String| {
            findings.add(
                code::SAME_CERTIFICATE,
                gateway.resource,
                server.mark_of("tls"),
                format!(
                    "the certificate is that of {whose}, too: a client that uses one HTTP/2 connection for hosts of both gets 404 for those of the other"
                ),
                "put the hosts of a certificate into one Gateway, or give each its own certificate",
            );
        };
        let name = |other: usize| &input.gateways[other].resource.meta.object;
        if all.len() > MAX_NAMED + 1 {
            tell(first, few(others.map(name), all.len() - 1, ", "));
            continue;
        }
        for other in others {
            let server = users.iter().find(|(_, list)| list.contains(&other)).map_or(*first, |(server, _)| *server);
            tell(server, name(other).to_string());
        }
    }
}
