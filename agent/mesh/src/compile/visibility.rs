//! Who sees a rule (`exportTo`), and the views that follow: namespaces whose clients see something that not everybody
//! does. Every other client is of view 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::CompileOptions;
use super::registry::Registry;
use crate::crd::{DestinationRule, Metadata};
use crate::snapshot::Snapshot;

/// Which view the clients of a namespace are of, for namespaces that have one: each compilation is given the table of
/// the one before, and returns its own.
///
/// Between the writing of the kernel's map and the pods' change of view, a pod has the number that it had before. So a
/// number never goes to another namespace in the very compilation that takes it from one: a pod finds its own rules
/// under it, or none, and then everybody's, which are what it is about to get. Later it may, as the pods have changed
/// by then; that it does is unlikely, since a number is made from the namespace's name. For the same reason an agent
/// that starts without a table, in front of pods that its predecessor enrolled, gives the same numbers. The table holds
/// only what one compilation uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewTable(pub(super) Arc<BTreeMap<Arc<str>, u32>>);

impl ViewTable {
    pub(super) fn next(&self, namespaces: BTreeSet<Arc<str>>) -> Self {
        let mut taken: BTreeSet<u32> = self.0.values().copied().collect();
        let ids = namespaces.into_iter().map(|namespace| {
            let id = self.0.get(&namespace).copied().unwrap_or_else(|| {
                let mut id = number(&namespace);
                while id == 0 || taken.contains(&id) {
                    id = id.wrapping_add(1);
                }
                id
            });
            taken.insert(id);
            (namespace, id)
        });
        Self(Arc::new(ids.collect()))
    }
}

/// FNV-1a, which stays the same from build to build, folded to 32 bits.
fn number(namespace: &str) -> u32 {
    let hash = namespace
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ (hash >> 32)) as u32
}

/// The namespaces with a view of their own, in the order of their names.
#[derive(Debug, Default)]
pub(super) struct Views(pub(super) ViewTable);

impl Views {
    pub(super) fn new(snapshot: &Snapshot, registry: &Registry<'_>, options: &CompileOptions) -> Self {
        let mut found = BTreeSet::new();
        for rule in snapshot.virtual_services.values().filter(|vs| vs.in_mesh()) {
            narrow(&rule.meta, &rule.export_to, &mut found);
        }
        for rule in snapshot.destination_rules.values() {
            if !rule.applies {
                // It is for some clients of its namespace alone; what it closes it closes for all of them.
                if rule.encryption().is_some() {
                    found.insert(Arc::clone(rule.meta.namespace()));
                }
                continue;
            }
            narrow(&rule.meta, &rule.export_to, &mut found);
            let own = rule.meta.namespace();
            // A public rule of the root namespace is everybody's last resort, not its own clients' first.
            if sees(Some(own), &rule.meta, &rule.export_to)
                && *own != options.root_namespace
                && is_foreign(rule, registry, options)
            {
                found.insert(Arc::clone(own));
            }
        }
        Self(options.views.next(found))
    }

    /// The view of a client in this namespace.
    pub(super) fn of(&self, namespace: &Arc<str>) -> u32 {
        self.0.0.get(namespace).copied().unwrap_or(0)
    }

    /// The position in [`Views::iter`] of the view of a client in this namespace.
    pub(super) fn position(&self, namespace: &Arc<str>) -> usize {
        self.0.0.keys().position(|own| own == namespace).map_or(0, |position| position + 1)
    }

    /// View 0, which is nobody's own, then the others.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Option<&Arc<str>>)> {
        std::iter::once((0, None)).chain(self.0.0.iter().map(|(namespace, view)| (*view, Some(namespace))))
    }
}

/// The namespaces that a rule which is not for everybody is for.
fn narrow(meta: &Metadata, export_to: &[Arc<str>], found: &mut BTreeSet<Arc<str>>) {
    if is_public(export_to) {
        return;
    }
    for name in export_to {
        match &**name {
            "." => found.insert(Arc::clone(meta.namespace())),
            "~" => false,
            _ => found.insert(Arc::clone(name)),
        };
    }
}

/// True when the rule is about a service of another namespace.
fn is_foreign(rule: &DestinationRule, registry: &Registry<'_>, options: &CompileOptions) -> bool {
    let own = rule.meta.namespace();
    if let Some(suffix) = rule.host.strip_prefix('*') {
        let within = format!(".{own}.svc.{}", options.cluster_domain);
        return !suffix.ends_with(&within);
    }
    let host = expand(&rule.host, own, &options.cluster_domain);
    registry.find(&host).is_some_and(|index| registry.services[index].namespace() != own)
}

/// True when everybody sees it.
pub(crate) fn is_public(export_to: &[Arc<str>]) -> bool {
    export_to.is_empty() || export_to.iter().any(|name| &**name == "*")
}

/// Whether clients of a namespace see a rule; `None` = everybody, who sees only what is public.
pub(super) fn sees(client: Option<&Arc<str>>, meta: &Metadata, export_to: &[Arc<str>]) -> bool {
    is_public(export_to)
        || client.is_some_and(|client| {
            export_to.iter().any(|name| name == client || (&**name == "." && meta.namespace() == client))
        })
}

/// A host of a rule in `namespace` as an FQDN: a name without a dot is a service of the rule's own namespace, and any
/// other is taken as it is.
pub(crate) fn expand(host: &str, namespace: &str, cluster_domain: &str) -> Arc<str> {
    if host.contains('.') || host.contains(':') || host == "*" {
        host.strip_suffix('.').unwrap_or(host).into()
    } else {
        format!("{host}.{namespace}.svc.{cluster_domain}").into()
    }
}
