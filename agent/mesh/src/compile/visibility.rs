//! Who sees a rule or a host (`exportTo`, `sourceLabels`, `sourceNamespace`, `workloadSelector`), and the views that follow:
//! classes of clients who find something that not everybody does. Every other client is of view 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::registry::{Registry, exported_to, has_labels};
use super::{CompileOptions, Findings};
use crate::crd::{DestinationRule, Labels, Mark, Metadata, Pod, SourceMatch, VirtualService};
use crate::finding::{Severity, code};
use crate::snapshot::Snapshot;

/// Classes of clients that are told apart by labels, on one node. Each costs entries of the kernel's map for every
/// service that it finds otherwise; a node has some hundred pods, and few rules name labels.
pub(super) const MAX_CLASSES: usize = 256;

/// Clients that see the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// Their namespace; `None` where it makes no difference.
    pub namespace: Option<Arc<str>>,
    /// Of their labels, those that some rule names.
    pub labels: Labels,
}

impl Client {
    /// Whether a condition on clients holds for them.
    pub(super) fn fits(&self, source: &SourceMatch) -> bool {
        source.namespace.as_ref().is_none_or(|wanted| Some(wanted) == self.namespace.as_ref())
            && has_labels(&self.labels, &source.labels)
    }
}

/// A label and its value.
type Pair = (Arc<str>, Arc<str>);

/// What tells classes of clients apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Marks {
    /// Namespaces with rules of their own.
    namespaces: BTreeSet<Arc<str>>,
    /// Labels that rules for everybody name.
    common: BTreeSet<Pair>,
    /// Labels that rules name which the clients of a namespace alone see.
    of: BTreeMap<Arc<str>, BTreeSet<Pair>>,
    /// There are more classes than [`MAX_CLASSES`].
    overflowed: bool,
}

impl Marks {
    fn class(&self, namespace: &Arc<str>, labels: &Labels) -> Client {
        let own = self.of.get(namespace);
        let named = |key: &Arc<str>, value: &Arc<str>| {
            let pair = (Arc::clone(key), Arc::clone(value));
            self.common.contains(&pair) || own.is_some_and(|own| own.contains(&pair))
        };
        let nothing_named = self.common.is_empty() && own.is_none();
        let kept = labels.iter().filter(|(key, value)| !nothing_named && named(key, value));
        Client {
            namespace: self.namespaces.contains(namespace).then(|| Arc::clone(namespace)),
            labels: kept.map(|(key, value)| (Arc::clone(key), Arc::clone(value))).collect(),
        }
    }

    fn name(&mut self, labels: &Labels, for_whom: Option<&Arc<str>>) {
        let pairs = labels.iter().map(|(key, value)| (Arc::clone(key), Arc::clone(value)));
        match for_whom {
            None => self.common.extend(pairs),
            Some(_) if labels.is_empty() => {}
            Some(namespace) => self.of.entry(Arc::clone(namespace)).or_default().extend(pairs),
        }
    }

    /// What a VirtualService tells apart.
    fn virtual_service(&mut self, vs: &VirtualService) {
        let mut seen_by = BTreeSet::new();
        narrow(&vs.meta, &vs.export_to, &mut seen_by);
        for source in vs.sources() {
            if let Some(namespace) = &source.namespace {
                self.namespaces.insert(Arc::clone(namespace));
                self.name(&source.labels, Some(namespace));
            } else if is_public(&vs.export_to) {
                self.name(&source.labels, None);
            } else {
                for namespace in &seen_by {
                    self.name(&source.labels, Some(namespace));
                }
            }
        }
        self.namespaces.extend(seen_by);
    }
}

/// Whether two versions of a VirtualService tell the same clients apart.
pub(super) fn tell_alike(one: Option<&VirtualService>, other: Option<&VirtualService>) -> bool {
    let marks = |vs: Option<&VirtualService>| {
        let mut marks = Marks::default();
        vs.into_iter().filter(|vs| vs.in_mesh()).for_each(|vs| marks.virtual_service(vs));
        marks
    };
    marks(one) == marks(other)
}

/// Which view each class of clients is of, for those that have one: each compilation is given the table of the one
/// before, and returns its own.
///
/// Between the writing of the kernel's map and the pods' change of view, a pod has the number that it had before. So a
/// number never goes to another class in the very compilation that takes it from one: a pod finds its own rules under
/// it, or none, and then everybody's, which are what it is about to get. Later it may, as the pods have changed by then;
/// that it does is unlikely, since a number is made from the class itself. For the same reason an agent that starts
/// without a table, in front of pods that its predecessor enrolled, gives the same numbers. The table holds only what
/// one compilation uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewTable {
    pub(super) ids: Arc<BTreeMap<Client, u32>>,
    marks: Arc<Marks>,
}

impl ViewTable {
    pub(super) fn next(&self, classes: BTreeSet<Client>) -> Self {
        let mut taken: BTreeSet<u32> = self.ids.values().copied().collect();
        let ids = classes.into_iter().map(|class| {
            let id = self.ids.get(&class).copied().unwrap_or_else(|| {
                let mut id = number(&class);
                while id == 0 || taken.contains(&id) {
                    id = id.wrapping_add(1);
                }
                id
            });
            taken.insert(id);
            (class, id)
        });
        Self { ids: Arc::new(ids.collect()), marks: Arc::default() }
    }

    /// The view of a client in this namespace with these labels.
    pub fn of(&self, namespace: &Arc<str>, labels: &Labels) -> u32 {
        let mut class = self.marks.class(namespace, labels);
        let found = self.ids.get(&class).copied();
        found.unwrap_or_else(|| {
            // Of the classes beyond the limit: nothing that names labels is for it.
            class.labels = Labels::new();
            self.ids.get(&class).copied().unwrap_or(0)
        })
    }

    /// Whether the views stay as they are when a pod that was so is so now.
    pub(super) fn outlast(
        &self,
        before: Option<&Pod>,
        now: Option<&Pod>,
        snapshot: &Snapshot,
        options: &CompileOptions,
    ) -> bool {
        let class = |pod: &Pod| {
            let class = self.marks.class(pod.meta.namespace(), &pod.meta.labels);
            (is_planned(pod, options) && !class.labels.is_empty()).then_some(class)
        };
        let (was, is) = (before.and_then(class), now.and_then(class));
        if was == is {
            return true;
        }
        // Who was beyond the limit is not known any more.
        let known = is.is_none_or(|class| self.ids.contains_key(&class)) && !self.marks.overflowed;
        known && was.is_none_or(|was| snapshot.pods.values().any(|pod| class(pod).as_ref() == Some(&was)))
    }

    /// Whether some clients cannot be told apart by their labels.
    pub(super) fn overflowed(&self) -> bool {
        self.marks.overflowed
    }

    /// The position in [`Self::iter`] of the view of a client in this namespace without labels.
    pub(super) fn position(&self, namespace: &Arc<str>) -> usize {
        let class = self.marks.class(namespace, &Labels::new());
        self.ids.keys().position(|own| *own == class).map_or(0, |position| position + 1)
    }

    /// View 0, which is nobody's own, then the others.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Client)> {
        std::iter::once((0, Client::default())).chain(self.ids.iter().map(|(class, view)| (*view, class.clone())))
    }

    /// The views of this snapshot.
    pub(super) fn of_snapshot(
        snapshot: &Snapshot,
        registry: &Registry<'_>,
        options: &CompileOptions,
        findings: &mut Findings,
    ) -> Self {
        let mut marks = Marks::default();
        for vs in snapshot.virtual_services.values().filter(|vs| vs.in_mesh()) {
            marks.virtual_service(vs);
        }
        for entry in snapshot.service_entries.values() {
            narrow(&entry.meta, &entry.export_to, &mut marks.namespaces);
        }
        for service in snapshot.services.values() {
            narrow(&service.meta, &exported_to(service), &mut marks.namespaces);
        }
        for rule in snapshot.destination_rules.values() {
            let own = rule.meta.namespace();
            if let Some(selector) = &rule.selector {
                marks.namespaces.insert(Arc::clone(own));
                marks.name(selector, Some(own));
                continue;
            }
            narrow(&rule.meta, &rule.export_to, &mut marks.namespaces);
            // A public rule of the root namespace is everybody's last resort, not its own clients' first.
            if sees(Some(own), &rule.meta, &rule.export_to)
                && *own != options.root_namespace
                && is_foreign(rule, registry, options)
            {
                marks.namespaces.insert(Arc::clone(own));
            }
        }
        let by_namespace =
            |namespace: &Arc<str>| Client { namespace: Some(Arc::clone(namespace)), ..Client::default() };
        let mut classes: BTreeSet<Client> = marks.namespaces.iter().map(by_namespace).collect();
        let told_by_labels = !(marks.common.is_empty() && marks.of.is_empty());
        let mut by_labels = BTreeSet::new();
        for pod in snapshot.pods.values().filter(|pod| told_by_labels && is_planned(pod, options)) {
            let class = marks.class(pod.meta.namespace(), &pod.meta.labels);
            if class.labels.is_empty() || by_labels.contains(&class) {
                continue;
            }
            if by_labels.len() < MAX_CLASSES {
                by_labels.insert(class);
            } else if !marks.overflowed {
                marks.overflowed = true;
                let message = format!(
                    "more than {MAX_CLASSES} classes of clients on a node are told apart by labels: no rule with sourceLabels or workloadSelector is for this pod and others after it"
                );
                findings.push(Severity::Error, code::NOT_SUPPORTED, &pod.meta, Mark::default(), message);
            }
        }
        classes.extend(by_labels);
        Self { marks: Arc::new(marks), ..options.views.next(classes) }
    }
}

/// Only pods of this node are planned for.
fn is_planned(pod: &Pod, options: &CompileOptions) -> bool {
    !pod.finished && options.node.as_ref().is_none_or(|node| pod.node == *node)
}

/// FNV-1a, which stays the same from build to build, folded to 32 bits.
fn number(class: &Client) -> u32 {
    let labels = class.labels.iter().flat_map(|(key, value)| ["?", key, "=", value]);
    let text = class.namespace.as_deref().into_iter().chain(labels);
    let hash = text
        .flat_map(str::bytes)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ (hash >> 32)) as u32
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
