//! The hosts that the mesh knows, of Services and of ServiceEntries, and who sees them. Part of [`super::input`].

use std::collections::HashMap;
use std::sync::Arc;

use super::input::{Service, scopes};
use super::sources::Resource;
use super::tree::Tree;
use crate::compile::expand;
use crate::crd::{Labels, Node};

/// Annotation of a Service that says who sees it.
const EXPORT_TO: &str = "networking.istio.io/exportTo";
/// A host that only mistakes the spelling of another shares at least half of its letters: beyond, a guess is noise.
const MAX_EDITS: usize = 3;

/// All hosts.
pub(super) struct Hosts<'s> {
    exact: HashMap<Arc<str>, Vec<Host<'s>>>,
    /// `*.example.com` as `.example.com`.
    suffixes: Vec<(Box<str>, Host<'s>)>,
}

/// What is behind a host.
#[derive(Clone)]
pub(super) struct Host<'s> {
    /// The Service or ServiceEntry.
    pub(super) resource: &'s Resource,
    /// Namespaces that see it; empty = all.
    seen_in: Vec<Box<str>>,
    /// Of the ports.
    pub(super) ports: Vec<i64>,
    /// The pods behind it; `None` = it does not select pods by label.
    pub(super) selector: Option<Labels>,
    pub(super) is_service: bool,
}

impl Host<'_> {
    fn is_seen_in(&self, namespace: &str) -> bool {
        self.seen_in.is_empty() || self.seen_in.iter().any(|other| **other == *namespace)
    }
}

impl<'s> Hosts<'s> {
    pub(super) fn new(services: &[Service<'s>], entries: &[&'s Resource], domain: &str) -> Self {
        let mut hosts = Self { exact: HashMap::new(), suffixes: Vec::new() };
        for service in services {
            let resource = service.resource;
            let named = resource.meta.annotation(EXPORT_TO).unwrap_or_default();
            let named: Vec<Arc<str>> =
                named.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Arc::from).collect();
            let host = Host {
                resource,
                seen_in: scopes(&named, resource.namespace()).into_iter().map(Box::from).collect(),
                ports: service.ports.iter().filter_map(|port| port.int_at("port")).collect(),
                selector: (!service.selector.is_empty()).then(|| service.selector.clone()),
                is_service: true,
            };
            hosts.exact.entry(expand(resource.name(), resource.namespace(), domain)).or_default().push(host);
        }
        for entry in entries {
            let node = &entry.node;
            let named: Vec<Arc<str>> = node.texts("spec.exportTo").filter_map(Node::text).map(Arc::from).collect();
            let host = Host {
                resource: entry,
                seen_in: scopes(&named, entry.namespace()).into_iter().map(Box::from).collect(),
                ports: node.items("spec.ports").iter().filter_map(|port| port.int_at("number")).collect(),
                selector: node.at("spec.workloadSelector").map(|_| node.labels("spec.workloadSelector.labels")),
                is_service: false,
            };
            for name in node.texts("spec.hosts").filter_map(Node::text) {
                let name = name.to_ascii_lowercase();
                match name.strip_prefix('*') {
                    Some(suffix) => hosts.suffixes.push((suffix.into(), host.clone())),
                    None => hosts.exact.entry(expand(&name, entry.namespace(), domain)).or_default().push(host.clone()),
                }
            }
        }
        hosts
    }

    /// What an object in `namespace`, itself seen in the namespaces `seen_in` (empty = all), finds under a host.
    pub(super) fn find(&self, fqdn: &str, namespace: &str, seen_in: &[&str]) -> Option<&Host<'s>> {
        let fqdn = fqdn.to_ascii_lowercase();
        let known = self.exact.get(&*fqdn).map_or(&[][..], Vec::as_slice);
        let public = known.iter().find(|host| host.seen_in.is_empty());
        let from = if seen_in.is_empty() { &[namespace][..] } else { seen_in };
        public
            .or_else(|| known.iter().find(|host| from.iter().any(|name| host.is_seen_in(name))))
            .or_else(|| self.find_wildcard(&fqdn, namespace))
    }

    fn find_wildcard(&self, fqdn: &str, namespace: &str) -> Option<&Host<'s>> {
        let bare = fqdn.strip_prefix('*').unwrap_or(fqdn);
        let fits = |(suffix, host): &&(Box<str>, Host<'_>)| host.is_seen_in(namespace) && bare.ends_with(&**suffix);
        self.suffixes.iter().filter(fits).max_by_key(|(suffix, _)| suffix.len()).map(|(_, host)| host)
    }

    /// Every host under this name, whoever sees it.
    pub(super) fn exact(&self, fqdn: &str) -> &[Host<'s>] {
        self.exact.get(fqdn).map_or(&[], Vec::as_slice)
    }

    /// Those that `*SUFFIX` covers.
    pub(super) fn covered(&self, suffix: &str) -> impl Iterator<Item = &Host<'s>> {
        let exact = self.exact.iter().filter(move |(name, _)| name.ends_with(suffix)).flat_map(|(_, hosts)| hosts);
        exact.chain(self.suffixes.iter().filter(move |(other, _)| other.ends_with(suffix)).map(|(_, host)| host))
    }

    /// A host that was probably meant.
    pub(super) fn suggestion(&self, host: &str, namespace: &str, domain: &str) -> Option<String> {
        let completed = [format!("{host}.svc.{domain}"), format!("{host}.{domain}")];
        if let Some(full) = completed.into_iter().find(|full| host.contains('.') && self.exact.contains_key(&**full)) {
            return Some(format!("a host with a dot is taken as it is: write {full}"));
        }
        let full = expand(host, namespace, domain);
        let (short, rest) = full.split_once('.').unwrap_or((&full, ""));
        let mut elsewhere: Option<&str> = None;
        let mut close: Option<(usize, &str)> = None;
        for name in self.exact.keys() {
            let (other, other_rest) = name.split_once('.').unwrap_or((name, ""));
            if other == short {
                elsewhere = Some(elsewhere.map_or(&**name, |found| found.min(name)));
            } else if other_rest == rest
                && let Some(edits) = distance(other, short, MAX_EDITS)
                && edits * 2 < short.len()
            {
                close = Some(close.map_or((edits, &**name), |found| found.min((edits, name))));
            }
        }
        if let Some((_, name)) = close {
            return Some(format!("did you mean {name}?"));
        }
        elsewhere.map(|name| {
            if host.contains('.') {
                format!("there is {name}")
            } else {
                format!("a short name is one of the object's own namespace: write {name}")
            }
        })
    }
}

/// The edits that turn one text into the other, if they are at most `limit`.
fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = row[j + 1];
            row[j + 1] = cost;
        }
    }
    row.last().copied().filter(|edits| *edits <= limit)
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn edits_are_counted_up_to_a_limit() {
        assert_eq!(distance("reviews", "reviews", 3), Some(0));
        assert_eq!(distance("reviwes", "reviews", 3), Some(2));
        assert_eq!(distance("reviews", "ratings", 3), None);
        assert_eq!(distance("", "abcd", 3), None);
    }
}
