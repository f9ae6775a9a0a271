//! The common changes — endpoints that come, go or change their readiness, and their pods; a VirtualService —
//! without compiling the whole mesh. Called by the agent; a change to anything else, or one whose reach is not plain, is left to [`super::compile`].
//!
//! What such a change reaches is cut out of the snapshot: the services whose endpoints it touches, those that send to
//! them, and all that bears on either. The cut is compiled by the same code as the whole, twice: with the objects as
//! they were, and as they are. Only when the first comes to exactly what is in force, entries and the endpoints of every
//! cluster that they can hang on, is the difference to the second used; so a cut that misses something costs a
//! compilation. Services and namespaces being the same, everything in the program stays as it is but for the endpoints of
//! some clusters, and for the rules of the hosts that a changed VirtualService is for (`reach`, `rules`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::compile::build::{Former, NO_HOSTS, PORT_OF_OTHER_HOSTS};
use crate::compile::destinations::{localities, members};
use crate::compile::registry::{Registry, SERVICE_NAME, has_labels};
use crate::compile::trace::{Trace, fqdn, service_of};
use crate::compile::{CompileOptions, Compiled, Findings, budget, build, clients, enrol, gateway_api, sort};
use crate::crd::{EndpointSlice, Object, Pod, Service, ServiceType};
use crate::finding::Finding;
use crate::plan::{EnrolledPod, KernelPlan, PlanKey, PlannedService};
use crate::program::{Cluster, ClusterId, Program};
use crate::snapshot::{Key, Snapshot};
use crate::store::Change;

/// A change that reaches more services than this is compiled with everything else: by then that is hardly dearer.
const MAX_REACH: usize = 256;

mod reach;
mod rules;

use reach::{Reach, is_rule, key_of, mentioned, nodes, parts, pod_table};
use rules::Patch;

/// Compiles, and remembers what later changes need to know.
#[derive(Debug, Default)]
pub struct Compiler {
    trace: Option<Trace>,
}

/// What is in force, as the last compilation and the updates since have left it.
#[derive(Clone, Copy, Debug)]
pub struct InForce<'a> {
    /// For the proxy.
    pub program: &'a Program,
    /// For the kernel.
    pub plan: &'a KernelPlan,
    /// The compiler's own, in their order.
    pub findings: &'a [Finding],
}

/// What a change comes to.
#[derive(Debug)]
pub struct Delta {
    /// Takes the place of the one in force, with which it shares what is the same.
    pub program: Program,
    /// Entries of the plan whose value is another; none comes or goes.
    pub services: Vec<(PlanKey, Arc<PlannedService>)>,
    /// Pods of the plan that come, change or, with `None`, go.
    pub pods: Vec<(Arc<str>, Option<EnrolledPod>)>,
    /// All of the compiler's findings, where they are others than before.
    pub findings: Option<Vec<Finding>>,
}

/// The service that an FQDN names.
fn named(fqdn: &str, domain: &str) -> Option<Key> {
    let (name, namespace) = fqdn.strip_suffix(domain)?.strip_suffix(".svc.")?.split_once('.')?;
    Some((namespace.into(), name.into()))
}

/// What a namespace holds of a kind.
fn within<'s, T>(
    objects: &'s BTreeMap<Key, Arc<T>>,
    namespace: &'s Arc<str>,
) -> impl Iterator<Item = (&'s Key, &'s Arc<T>)> {
    objects.range((Arc::clone(namespace), Arc::default())..).take_while(move |((own, _), _)| own == namespace)
}

/// A changed object as it was and as it is.
fn versions<'s, T>(before: Option<&'s Arc<T>>, now: Option<&'s Arc<T>>) -> impl Iterator<Item = &'s Arc<T>> {
    before.into_iter().chain(now)
}

impl Compiler {
    /// Compiles everything. What comes to the same as in the program and the plan in force is shared with them.
    pub fn compile(
        &mut self,
        snapshot: &Snapshot,
        options: &CompileOptions,
        program: &Program,
        plan: &KernelPlan,
    ) -> Compiled {
        // Should it not come to an end, nothing is known of what is in force.
        self.trace = None;
        let mut findings = Findings::default();
        let converted = gateway_api::convert(snapshot, options, &mut findings);
        let whole = converted.as_ref().unwrap_or(snapshot);
        let kept = budget::within(whole, &mut findings);
        let whole = kept.as_ref().unwrap_or(whole);
        let (compiled, mut trace) = crate::compile::compile_traced(whole, options, &Former { program, plan }, findings);
        trace.complete(whole, options);
        trace.left_out = kept.is_some();
        trace.converted = converted.map_or_else(BTreeMap::new, |converted| converted.virtual_services);
        trace.converted.retain(|key, _| !snapshot.virtual_services.contains_key(key));
        self.trace = Some(trace);
        compiled
    }

    /// What `changes`, which `snapshot` has in it, come to. `None`: only [`Compiler::compile`] can tell. The options are
    /// those of the last compilation, with its views and the next generation.
    pub fn update(
        &mut self,
        snapshot: &Snapshot,
        changes: &[Change],
        in_force: InForce<'_>,
        options: &CompileOptions,
    ) -> Option<Delta> {
        let trace = self.trace.as_mut().filter(|trace| !trace.contended && !trace.left_out && !trace.is_littered())?;
        let domain = &options.cluster_domain;
        let touched = trace.touched(snapshot, changes)?;
        let reach = Reach::of(changes, snapshot, trace, domain)?;
        let pods_by_address = pod_table(changes, snapshot, in_force.program, options)?;
        let mut affected = touched.clone();
        affected.extend(reach.services.iter().cloned());
        affected.extend(touched.iter().flat_map(|key| trace.dependents(key)).cloned());
        let guarded = |namespace: &Arc<str>| {
            *namespace == options.root_namespace || touched.iter().any(|(own, _)| own == namespace)
        };
        if affected.len() + reach.entries.len() + reach.others.len() > MAX_REACH
            || affected.iter().any(|key| snapshot.services.get(key).is_none_or(|s| s.kind != ServiceType::ClusterIp))
            || snapshot.protections.values().any(|p| p.restricts && guarded(p.meta.namespace()))
        {
            return None;
        }
        let after = trace.cut(snapshot, changes, &affected, &reach, in_force.program, options)?;
        let mut before = after.clone();
        for change in changes {
            before.remove(&change.object);
            if let Some(object) = &change.before {
                before.insert(object.clone());
            }
        }
        // Services are the same before and after: so is what they say of Istio.
        let istio = enrol::IstioLabels::of(snapshot, options);
        let (was, is) = (Part::of(&before, options, &istio), Part::of(&after, options, &istio));
        let registry = Registry::new(&after, options);
        let services = is.services(&was, &affected, &reach, &registry, in_force.plan, options)?;
        let pods = is.pods(&was, changes, in_force.plan)?;
        let findings = is.findings(&was, changes, &reach, in_force.findings)?;
        let mut program = Program { pods: pods_by_address, generation: options.generation, ..in_force.program.clone() };
        program.clients = clients::after(changes, &pods, snapshot, &in_force);
        for (id, cluster) in trace.members(&touched, &before, &after, &registry, in_force.program, options)? {
            *program.clusters.get_mut(id.index()) = Arc::new(cluster);
        }
        if !reach.is_empty() {
            let patch = Patch::of(&reach, trace, [&was, &is], in_force.program, &program, &registry, options)?;
            patch.apply(&mut program, trace);
        }
        for change in changes.iter().filter(|change| is_rule(change)) {
            let key = key_of(change);
            let now = snapshot.virtual_services.get(&key).map(|vs| &**vs);
            trace.virtual_services.replace(&key, now, domain);
        }
        Some(Delta { program, services, pods, findings })
    }
}

impl Trace {
    /// The services whose endpoints the changes are about.
    fn touched(&self, snapshot: &Snapshot, changes: &[Change]) -> Option<BTreeSet<Key>> {
        let mut touched = BTreeSet::new();
        for change in changes {
            let key = key_of(change);
            match (&*change.object.kind, &change.before) {
                ("VirtualService", _) if is_rule(change) => {}
                ("EndpointSlice", None) => touch(None, snapshot.endpoint_slices.get(&key), &mut touched)?,
                ("EndpointSlice", Some(Object::EndpointSlice(before))) => {
                    touch(Some(before), snapshot.endpoint_slices.get(&key), &mut touched)?;
                }
                ("Pod", None) => self.pod(None, snapshot.pods.get(&key), snapshot, &mut touched)?,
                ("Pod", Some(Object::Pod(before))) => {
                    self.pod(Some(before), snapshot.pods.get(&key), snapshot, &mut touched)?;
                }
                _ => return None,
            }
        }
        touched.retain(|key| snapshot.services.get(key).is_some_and(|s| s.kind != ServiceType::ExternalName));
        Some(touched)
    }

    fn pod(
        &self,
        before: Option<&Arc<Pod>>,
        now: Option<&Arc<Pod>>,
        snapshot: &Snapshot,
        touched: &mut BTreeSet<Key>,
    ) -> Option<()> {
        for pod in versions(before, now) {
            // Endpoints of a ServiceEntry are no part of a cut.
            let own = within(&snapshot.service_entries, pod.meta.namespace());
            let mut selectors = own.filter_map(|(_, entry)| entry.selector.as_ref());
            if selectors.any(|selector| has_labels(&pod.meta.labels, selector)) {
                return None;
            }
            if pod.addresses.iter().any(|address| self.watched.contains(address)) {
                return None;
            }
            let namespace = pod.meta.namespace();
            let selects =
                |service: &Service| !service.selector.is_empty() && has_labels(&pod.meta.labels, &service.selector);
            let selected = within(&snapshot.services, namespace).filter(|(_, service)| selects(service));
            touched.extend(selected.map(|(key, _)| key.clone()));
            let named = |slice: &EndpointSlice| slice.endpoints.iter().any(|e| e.pod.as_ref() == Some(pod.meta.name()));
            let slices = within(&snapshot.endpoint_slices, namespace).filter(|(_, slice)| named(slice));
            touched.extend(slices.filter_map(|(_, slice)| service_of(slice)));
        }
        Some(())
    }

    /// Everything that bears on these services. `None` when an endpoint of theirs names no pod: it may be any pod of any
    /// namespace.
    fn cut(
        &self,
        snapshot: &Snapshot,
        changes: &[Change],
        affected: &BTreeSet<Key>,
        reach: &Reach,
        program: &Program,
        options: &CompileOptions,
    ) -> Option<Snapshot> {
        let domain = &options.cluster_domain;
        let mut cut = Snapshot {
            service_entries: snapshot.service_entries.clone(),
            workload_entries: snapshot.workload_entries.clone(),
            ..Snapshot::default()
        };
        let mut services = affected.clone();
        let mut rules: BTreeSet<Key> = changes.iter().filter(|change| is_rule(change)).map(key_of).collect();
        for key in affected {
            rules.extend(self.virtual_services.of(&fqdn(key, domain)).cloned());
        }
        let others = reach.entries.iter().chain(&reach.others).map(|host| &**host);
        for host in others.chain(reach.suffixes.iter().map(|suffix| &**suffix)) {
            rules.extend(self.virtual_services.of(host).cloned());
        }
        if !(reach.others.is_empty() && reach.suffixes.is_empty()) {
            // Hosts that no service has are answered for where some service has their port.
            let ports = program.ports.iter().filter(|port| port.number == PORT_OF_OTHER_HOSTS);
            services.extend(ports.filter(|port| port.hosts != NO_HOSTS).find_map(|port| named(&port.host, domain)));
        }
        for key in rules {
            let converted = || self.converted.get(&key);
            let Some(vs) = snapshot.virtual_services.get(&key).or_else(converted) else { continue };
            for key in parts(vs) {
                let Some(part) = snapshot.virtual_services.get(&key) else { continue };
                mentioned(part, domain, &mut services);
                cut.virtual_services.insert(key, Arc::clone(part));
            }
            mentioned(vs, domain, &mut services);
            cut.virtual_services.insert(key, Arc::clone(vs));
        }
        for change in changes {
            if let Some(Object::VirtualService(before)) = &change.before {
                mentioned(before, domain, &mut services);
                for key in parts(before) {
                    let Some(part) = snapshot.virtual_services.get(&key) else { continue };
                    mentioned(part, domain, &mut services);
                    cut.virtual_services.insert(key, Arc::clone(part));
                }
            }
        }
        let mut pods: BTreeSet<Key> = BTreeSet::new();
        for change in changes.iter().filter(|change| !is_rule(change)) {
            let key = key_of(change);
            if &*change.object.kind == "EndpointSlice" {
                cut.endpoint_slices.extend(snapshot.endpoint_slices.get_key_value(&key).map(pair));
            } else {
                pods.insert(key);
            }
            if let Some(Object::EndpointSlice(before)) = &change.before {
                pods.extend(named_pods(before));
            }
        }
        let mut by_namespace: BTreeMap<Arc<str>, Vec<(&Key, &Arc<Service>)>> = BTreeMap::new();
        for (key, service) in services.iter().filter_map(|key| snapshot.services.get_key_value(key)) {
            for rule in self.destination_rules.of(&fqdn(key, domain)) {
                cut.destination_rules.extend(snapshot.destination_rules.get_key_value(rule).map(pair));
            }
            cut.services.insert(key.clone(), Arc::clone(service));
            by_namespace.entry(Arc::clone(&key.0)).or_default().push((key, service));
        }
        for (namespace, services) in &by_namespace {
            let of_these = |slice: &EndpointSlice| {
                slice.meta.label(SERVICE_NAME).is_some_and(|name| services.iter().any(|(key, _)| *key.1 == *name))
            };
            for (key, slice) in within(&snapshot.endpoint_slices, namespace).filter(|(_, slice)| of_these(slice)) {
                if has_unnamed(slice) {
                    return None;
                }
                pods.extend(named_pods(slice));
                cut.endpoint_slices.insert(key.clone(), Arc::clone(slice));
            }
            let selected = |pod: &Pod| {
                let mut selectors = services.iter().map(|(_, service)| &service.selector);
                selectors.any(|selector| !selector.is_empty() && has_labels(&pod.meta.labels, selector))
            };
            cut.pods.extend(within(&snapshot.pods, namespace).filter(|(_, pod)| selected(pod)).map(pair));
            cut.deployments.extend(within(&snapshot.deployments, namespace).map(pair));
        }
        cut.pods.extend(pods.iter().filter_map(|key| snapshot.pods.get_key_value(key)).map(pair));
        let nodes = nodes(&cut, changes, snapshot);
        cut.nodes = nodes;
        let namespaces: BTreeSet<&Arc<str>> = by_namespace.keys().chain(pods.iter().map(|(own, _)| own)).collect();
        for namespace in namespaces {
            let key = (Arc::default(), Arc::clone(namespace));
            cut.namespaces.extend(snapshot.namespaces.get_key_value(&key).map(pair));
        }
        let bearing =
            |namespace: &Arc<str>| *namespace == options.root_namespace || by_namespace.contains_key(namespace);
        let protections = snapshot.protections.iter().filter(|(name, _)| bearing(&name.namespace));
        cut.protections.extend(protections.map(pair));
        Some(cut)
    }

    /// The clusters whose endpoints are others now, of all that the cut has in it: `None` unless each of them was in force
    /// as the cut had it, whether an entry shows it or not.
    fn members(
        &self,
        touched: &BTreeSet<Key>,
        before: &Snapshot,
        after: &Snapshot,
        is: &Registry<'_>,
        program: &Program,
        options: &CompileOptions,
    ) -> Option<Vec<(ClusterId, Cluster)>> {
        let was = Registry::new(before, options);
        let mut changed = Vec::new();
        for key in after.services.keys() {
            let host = fqdn(key, &options.cluster_domain);
            for id in self.clusters_of(key) {
                let cluster = program.clusters.get(id.index())?;
                let selection = self.clusters.get(id.index()).filter(|selection| !selection.closed);
                let Some(selection) = selection else { continue };
                let labels = match &selection.rule {
                    None => None,
                    Some(rule) => {
                        let mut subsets = after.destination_rules.get(rule)?.subsets.iter();
                        Some(&subsets.find(|subset| subset.name == cluster.subset)?.labels)
                    }
                };
                let mut found = Vec::new();
                for registry in [&was, is] {
                    let service = &registry.services[registry.find(&host)?];
                    let members = members(registry, service.ports.get(selection.position as usize)?, labels);
                    let localities = localities(registry, service, &cluster.policy, &members);
                    let (endpoints4, endpoints6) = members.addresses();
                    found.push((endpoints4, endpoints6, localities));
                }
                let (is, was) = (found.pop()?, found.pop()?);
                if was.0 != cluster.endpoints4 || was.1 != cluster.endpoints6 || was.2 != cluster.localities {
                    return None;
                }
                if is != was {
                    if !touched.contains(key) {
                        return None;
                    }
                    let (endpoints4, endpoints6, localities) = is;
                    let cluster = Cluster { endpoints4, endpoints6, localities, ..Cluster::clone(cluster) };
                    changed.push((id, cluster));
                }
            }
        }
        Some(changed)
    }
}

/// Adds the service of a slice. `None` when a service cannot be told from it.
fn touch(
    before: Option<&Arc<EndpointSlice>>,
    now: Option<&Arc<EndpointSlice>>,
    touched: &mut BTreeSet<Key>,
) -> Option<()> {
    for slice in versions(before, now) {
        if has_unnamed(slice) {
            return None;
        }
        touched.extend(service_of(slice));
    }
    Some(())
}

fn pair<K: Clone, T>((key, object): (&K, &Arc<T>)) -> (K, Arc<T>) {
    (key.clone(), Arc::clone(object))
}

/// True when an endpoint says of no pod that it is that one.
fn has_unnamed(slice: &EndpointSlice) -> bool {
    slice.endpoints.iter().any(|endpoint| endpoint.pod.is_none())
}

fn named_pods(slice: &EndpointSlice) -> impl Iterator<Item = Key> {
    let names = slice.endpoints.iter().filter_map(|endpoint| endpoint.pod.as_ref());
    names.map(|name| (Arc::clone(slice.meta.namespace()), Arc::clone(name)))
}

/// What a cut comes to.
struct Part {
    program: Program,
    trace: Trace,
    plan: KernelPlan,
    findings: BTreeSet<Finding>,
}

impl Part {
    fn of(cut: &Snapshot, options: &CompileOptions, istio: &enrol::IstioLabels) -> Self {
        let mut findings = Findings::default();
        let former = Former { program: &Program::default(), plan: &KernelPlan::default() };
        let seen = build::Seen::As(&options.views);
        let (program, mut plan, views, trace) = build::build(cut, options, &former, seen, &mut findings);
        plan.pods = enrol::enrol(cut, options, istio, &views, &mut findings);
        Self { program, trace, plan, findings: findings.0 }
    }

    fn services(
        &self,
        was: &Self,
        affected: &BTreeSet<Key>,
        reach: &Reach,
        registry: &Registry<'_>,
        in_force: &KernelPlan,
        options: &CompileOptions,
    ) -> Option<Vec<(PlanKey, Arc<PlannedService>)>> {
        let mut changed = Vec::new();
        let views = || std::iter::once(0).chain(options.views.ids.values().copied());
        let named = affected.iter().map(|key| Arc::from(fqdn(key, &options.cluster_domain)));
        for host in named.chain(reach.entries.iter().cloned()) {
            let service = &registry.services[registry.find(&host)?];
            for port in &service.ports {
                for (address, view) in service.addresses().flat_map(|address| views().map(move |view| (address, view)))
                {
                    let key = PlanKey { view, address: Some(address), port: port.port.number, udp: false };
                    let of = |plan: &'_ KernelPlan| plan.services.get(&key).cloned();
                    let (before, now) = (of(&was.plan), of(&self.plan));
                    if of(in_force) != before || before.is_some() != now.is_some() {
                        return None;
                    }
                    changed.extend(now.filter(|now| before.as_ref() != Some(now)).map(|now| (key, now)));
                }
            }
        }
        Some(changed)
    }

    fn pods(
        &self,
        was: &Self,
        changes: &[Change],
        in_force: &KernelPlan,
    ) -> Option<Vec<(Arc<str>, Option<EnrolledPod>)>> {
        let mut changed = Vec::new();
        for change in changes.iter().filter(|change| &*change.object.kind == "Pod") {
            let name: Arc<str> = format!("{}/{}", change.object.namespace, change.object.name).into();
            let (before, now) = (was.plan.pods.get(&name), self.plan.pods.get(&name));
            if in_force.pods.get(&name) != before {
                return None;
            }
            if before != now {
                changed.push((name, now.cloned()));
            }
        }
        Some(changed)
    }

    /// `Some(None)` when they are the same. One that goes may have another reason elsewhere, unless it is about a pod, or
    /// about a rule that has changed: all that bears on that is in the cut.
    #[expect(clippy::option_option, reason = "not to be told, and nothing to tell, are two things")]
    fn findings(
        &self,
        was: &Self,
        changes: &[Change],
        reach: &Reach,
        in_force: &[Finding],
    ) -> Option<Option<Vec<Finding>>> {
        if self.findings == was.findings {
            return Some(None);
        }
        let mut all: BTreeSet<Finding> = in_force.iter().cloned().collect();
        for gone in was.findings.difference(&self.findings) {
            let object = gone.object.as_ref()?;
            let is_changed = changes.iter().any(|change| is_rule(change) && change.object == *object)
                || (&*object.kind == "VirtualService"
                    && reach.roots.contains(&(Arc::clone(&object.namespace), Arc::clone(&object.name))));
            if !(is_changed || &*object.kind == "Pod") || !all.remove(gone) {
                return None;
            }
        }
        all.extend(self.findings.difference(&was.findings).cloned());
        Some(Some(sort(all)))
    }
}
