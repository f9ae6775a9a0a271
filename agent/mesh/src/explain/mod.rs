//! Why a request goes where it goes: the decision of [`crate::route::decide`] itself, watched, with who wrote each part
//! of it, what stands behind each destination, and what of it this version's data path does not do. Called by
//! `weir explain`, and by the agent for its admin endpoint.
//!
//! - `question`: what is asked
//! - `assume`: what a cluster adds to manifests
//! - `resolve`: from a URL to an address, as a pod's resolver
//! - `trace`: watches the decision
//! - `destinations`, `settings`: what it comes to
//! - `findings`: what is wrong with what bears on it
//! - `outcome`: what the client gets
//! - `model`: the answer

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::compile::describe::{self, Describer};
use crate::compile::{CompileOptions, ViewTable, whereabouts_of};
use crate::crd::Pod;
use crate::finding::Finding;
use crate::plan::{KernelPlan, PlanKey, PlannedService, Verdict};
use crate::program::{PortId, Program, Protocol, WeightedCluster, Whereabouts};
use crate::request::{RequestView, Source};
use crate::route::{self, RouteDecision};
use crate::snapshot::{Key, Snapshot};

pub mod assume;
mod destinations;
mod findings;
mod gateway;
pub mod model;
mod outcome;
mod question;
mod resolve;
mod settings;
#[cfg(test)]
mod tests;
mod trace;

pub use model::Explanation;

/// Settings in words, for `diff` and for those who show what is in force.
pub mod text {
    pub(crate) use super::outcome::percent;
    pub use super::settings::{of_cluster, of_route};
    pub(crate) use super::trace::of_item;
}
pub use question::{From, Question, Words, decoded};

use destinations::Toward;
use model::{Asked, Client, Kernel, LeftOut, NotEnforced, Origin, PolicyVerdict, RouteTaken};
use resolve::Resolved;
use trace::Trace;

/// What is in force, and what it was made of.
#[derive(Debug)]
pub struct Mesh<'a> {
    /// For the proxy.
    pub program: &'a Program,
    /// For the kernel.
    pub plan: &'a KernelPlan,
    /// Which view a client is of.
    pub views: &'a ViewTable,
    /// What they were compiled with.
    pub options: &'a CompileOptions,
    /// What is wrong.
    pub findings: &'a [Finding],
    /// Pods of this node whose sockets are steered, as `namespace/name`; `None` = nobody knows.
    pub enrolled: Option<BTreeSet<String>>,
    /// What was taken for granted when the snapshot was put together.
    pub assumptions: Vec<String>,
    snapshot: Cow<'a, Snapshot>,
}

impl<'a> Mesh<'a> {
    /// What is in force, and the snapshot that it was compiled from.
    pub fn new(
        snapshot: &'a Snapshot,
        options: &'a CompileOptions,
        program: &'a Program,
        plan: &'a KernelPlan,
        views: &'a ViewTable,
        findings: &'a [Finding],
    ) -> Self {
        let snapshot = describe::whole(snapshot, options);
        Self { program, plan, views, options, findings, enrolled: None, assumptions: Vec::new(), snapshot }
    }

    /// Where clients are that are no pod by name: on the node that this is for, if it is for one.
    fn own_place(&self) -> Whereabouts {
        let place = self.options.node.as_ref().map(|node| self.snapshot.place_of(node)).unwrap_or_default();
        Whereabouts { place, ..Whereabouts::default() }
    }
}

/// Answers questions about one mesh. Making it costs a pass over its objects; each answer, little.
pub struct Explainer<'m> {
    mesh: &'m Mesh<'m>,
    describer: Describer<'m>,
}

impl std::fmt::Debug for Explainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Explainer").finish_non_exhaustive()
    }
}

/// A client that is known.
struct Known {
    namespace: Arc<str>,
    shown: Client,
    whereabouts: Whereabouts,
}

impl<'m> Explainer<'m> {
    /// For this mesh.
    pub fn new(mesh: &'m Mesh<'m>) -> Self {
        Self { mesh, describer: Describer::new(&mesh.snapshot, mesh.options, mesh.views) }
    }

    /// What becomes of a request, and why.
    ///
    /// # Errors
    /// In words, when there is no such client or gateway.
    pub fn explain(&mut self, question: &Question) -> Result<Explanation, String> {
        let mut explanation = match &question.from {
            From::Gateway { namespace, name, port } => self.through_gateway(question, namespace, name, *port)?,
            _ => self.of_client(question)?,
        };
        explanation.request = Asked {
            method: question.method.to_string(),
            url: question.url.clone(),
            authority: question.authority.clone(),
            headers: question
                .headers
                .iter()
                .filter(|(name, _)| *name != http::header::HOST)
                .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
                .collect(),
            roll: question.roll,
        };
        explanation.assumptions.clone_from(&self.mesh.assumptions);
        explanation.not_enforced = not_enforced(&explanation);
        explanation.findings = self.findings(&explanation);
        Ok(explanation)
    }

    fn client(&self, from: &From) -> Result<Known, String> {
        let keys = &self.mesh.program.clients.keys;
        let (namespace, name, labels, why_not, whereabouts) = match from {
            From::Pod { namespace, name } => {
                let key = (Arc::clone(namespace), Arc::clone(name));
                let Some(pod) = self.mesh.snapshot.pods.get(&key).or_else(|| self.pod_of(&key)) else {
                    let refused = self.why_refused("Pod", &key).map(|why| format!(": {why}")).unwrap_or_default();
                    return Err(format!("there is no pod {namespace}/{name}, and no Deployment with one{refused}"));
                };
                let name = pod.meta.name();
                if let Some(own) = self.mesh.options.node.as_ref().filter(|own| **own != pod.node) {
                    return Err(format!("pod {namespace}/{name} is on node {}, and this is {own}", pod.node));
                }
                let unknown = |enrolled: &BTreeSet<String>| !enrolled.contains(&format!("{namespace}/{name}"));
                let why_not = describe::why_not(pod, &self.mesh.snapshot, self.mesh.options).or_else(|| {
                    let unknown = self.mesh.enrolled.as_ref().is_some_and(unknown);
                    unknown.then(|| "its node does not steer its sockets; `weir status` may say why".to_owned())
                });
                let whereabouts = whereabouts_of(pod, &self.mesh.snapshot, keys);
                (namespace, format!("pod {namespace}/{name}"), (*pod.meta.labels).clone(), why_not, whereabouts)
            }
            From::Labels { namespace, labels } if labels.is_empty() => {
                (namespace, format!("any pod in {namespace}"), labels.clone(), None, self.mesh.own_place())
            }
            From::Labels { namespace, labels } => {
                let shown: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let whereabouts = Whereabouts::new(self.mesh.own_place().place, &Arc::default(), labels, keys);
                (namespace, format!("a pod in {namespace} with {}", shown.join(",")), labels.clone(), None, whereabouts)
            }
            From::Gateway { .. } => return Err("a gateway is no client".to_owned()),
        };
        if matches!(from, From::Labels { .. }) && !self.is_namespace(namespace) {
            return Err(format!("there is no namespace {namespace}"));
        }
        let view = self.mesh.views.of(namespace, &labels);
        let shown = Client { name, namespace: namespace.to_string(), view, takes_part: why_not.is_none(), why_not };
        Ok(Known { namespace: Arc::clone(namespace), shown, whereabouts })
    }

    /// Manifests need not hold the Namespace of their objects.
    fn is_namespace(&self, namespace: &Arc<str>) -> bool {
        let snapshot = &self.mesh.snapshot;
        snapshot.namespace(namespace).is_some()
            || snapshot.services.keys().any(|(own, _)| own == namespace)
            || snapshot.virtual_services.keys().any(|(own, _)| own == namespace)
            || snapshot.pods.keys().any(|(own, name)| own == namespace && **name != *assume::CLIENT)
    }

    /// Some pod of a Deployment.
    fn pod_of(&self, deployment: &Key) -> Option<&Arc<Pod>> {
        let labels = &self.mesh.snapshot.deployments.get(deployment)?.pod_labels;
        let of_namespace = self.mesh.snapshot.pods.values().filter(|pod| *pod.meta.namespace() == deployment.0);
        let carries = |pod: &Pod| labels.iter().all(|(key, value)| pod.meta.labels.get(key) == Some(value));
        let begins = |pod: &Pod| pod.meta.name().strip_prefix(&*deployment.1).is_some_and(|rest| rest.starts_with('-'));
        of_namespace.filter(|pod| !pod.finished && !labels.is_empty()).find(|pod| carries(pod) && begins(pod))
    }

    fn of_client(&mut self, question: &Question) -> Result<Explanation, String> {
        let client = self.client(&question.from)?;
        let view = client.shown.view;
        let domain = &self.mesh.options.cluster_domain;
        let mut resolved = resolve::resolve(&self.describer, &client.namespace, domain, &question.host, question.port);
        let port = resolved.address.and_then(|address| self.mesh.program.port_of(view, address));
        let entry = self.entry(view, &resolved);
        let mut explanation = Explanation { client: client.shown, ..Explanation::default() };
        if let Some(port) = port {
            let protocol = self.mesh.program.port(port).protocol;
            resolved.shown.protocol = Some(name_of(protocol).to_owned());
        }
        explanation.kernel = entry.map(|entry| Kernel {
            verdict: entry.verdict.as_str().to_owned(),
            why: entry.why.clone(),
            because: entry.because.as_ref().map(ToString::to_string),
            on_failure: (entry.verdict == Verdict::Proxy).then(|| match entry.on_failure {
                crate::plan::OnFailure::Balance => "balance".to_owned(),
                crate::plan::OnFailure::Refuse => "refuse".to_owned(),
            }),
        });
        let verdict = entry.map_or(Verdict::Pass, |entry| entry.verdict);
        let mut answer = None;
        if let (Some(port), Some(address)) = (port, resolved.address) {
            let at = &client.whereabouts;
            let way = Way { port, view, namespace: &client.namespace, at, address, verdict };
            answer = self.route(question, &way, &mut explanation);
        }
        if let Some(host) = resolved.host.as_deref() {
            let absent = self.describer.absent(view, host, question.port).into_iter();
            explanation.left_out =
                absent.map(|one| LeftOut { origin: Origin::new(&one.rule, one.at.as_ref()), why: one.why }).collect();
        }
        explanation.policy = self.policy(view, &resolved, question.port, verdict, &explanation);
        explanation.dialled = resolved.shown.clone();
        explanation.outcome = outcome::of_client(&explanation, verdict, &resolved, answer, question.roll.is_some());
        Ok(explanation)
    }

    /// The kernel's entry, in its order: the view's own address, everybody's, any address of the view, of everybody.
    fn entry(&self, view: u32, resolved: &Resolved) -> Option<&'m PlannedService> {
        let address = resolved.address?;
        let own = Some(address.ip().to_canonical());
        let keys = [(view, own), (0, own), (view, None), (0, None)];
        keys.into_iter().find_map(|(view, ip)| {
            let key = PlanKey { view, address: ip, port: address.port(), udp: false };
            self.mesh.plan.services.get(&key).map(|entry| &**entry)
        })
    }

    /// Watches the decision, or says where the connection goes as a whole. An answer is the proxy's own.
    fn route(&mut self, question: &Question, way: &Way<'_>, explanation: &mut Explanation) -> Option<outcome::Answer> {
        let program = self.mesh.program;
        let service = program.port(way.port);
        let roll = question.roll.unwrap_or(0);
        let by_request = match service.protocol {
            Protocol::Http => true,
            Protocol::Detect => !question.tls && !question.http2,
            Protocol::Http2 | Protocol::Tls | Protocol::Tcp => false,
        };
        let by_kernel = way.verdict == Verdict::Balance;
        let toward = Toward {
            mesh: self.mesh,
            view: way.view,
            client: way.at,
            dialled: Some((way.port, way.address)),
            by_kernel,
            by_proxy: way.verdict == Verdict::Proxy,
        };
        let by_proxy = way.verdict == Verdict::Proxy;
        if by_proxy && service.protocol == Protocol::Http && (question.tls || question.http2) {
            let spoken = if question.tls { "TLS" } else { "HTTP/2" };
            return Some(outcome::Answer::bad_request(spoken));
        }
        if !by_request || by_kernel || way.verdict == Verdict::Pass {
            let http2 = service.protocol == Protocol::Http2 || (question.http2 && !question.tls && by_proxy);
            let destinations: &[WeightedCluster] = if http2 {
                &service.http2
            } else {
                let dialled = way.address.ip();
                let by_name = service.tls.iter().filter(|_| question.tls && !by_kernel);
                let by_name = by_name.into_iter().find(|rule| rule.takes(&question.host, dialled));
                let by_address = || service.tcp.iter().find(|rule| rule.takes(dialled));
                let found = by_name.map(|rule| &rule.destinations);
                found.or_else(|| by_address().map(|rule| &rule.destinations)).map(|found| &**found).unwrap_or_default()
            };
            let chosen = route::choose(destinations, roll).filter(|_| question.roll.is_some() && !by_kernel);
            explanation.destinations = toward.all(&mut self.describer, destinations, chosen);
            return None;
        }
        let source = Source { namespace: way.namespace, view: way.view };
        let request = view_of(question, "http");
        let mut trace = Trace::default();
        let decision = route::decide_observed(program, way.port, &source, &request, roll, &mut trace);
        let plain = WeightedCluster::new(Some(service.plain), 1, Arc::clone(&program.cluster(service.plain).name));
        let answer = self.decided(&decision, &toward, &plain, question, &request, explanation);
        explanation.hosts = trace.hosts;
        explanation.rules = trace.rules;
        explanation.rules_not_reached = trace.not_reached;
        answer
    }

    /// Writes down a decision.
    fn decided(
        &mut self,
        decision: &RouteDecision<'_>,
        toward: &Toward<'_>,
        plain: &WeightedCluster,
        question: &Question,
        request: &RequestView<'_>,
        explanation: &mut Explanation,
    ) -> Option<outcome::Answer> {
        let by_roll = question.roll.is_some();
        match decision {
            RouteDecision::NoRoute => Some(outcome::Answer::no_route()),
            RouteDecision::Forward { route: None, .. } => {
                explanation.route = Some(RouteTaken {
                    name: "default".to_owned(),
                    action: "forward".to_owned(),
                    settings: settings::of_route(&crate::program::Route::default()),
                    ..RouteTaken::default()
                });
                explanation.destinations = toward.all(&mut self.describer, std::slice::from_ref(plain), Some(plain));
                None
            }
            RouteDecision::Forward { route: Some(route), destination, matched } => {
                let rewrite = route.settings.as_ref().and_then(|settings| settings.rewrite.as_ref());
                let rewrite = rewrite.filter(|rewrite| rewrite.uri.is_some());
                let rewritten = rewrite.map(|rewrite| rewrite.path(*matched, request.path).into_owned());
                explanation.route = Some(RouteTaken { rewritten, ..taken(route, "forward") });
                let chosen = destination.filter(|_| by_roll);
                explanation.destinations = toward.all(&mut self.describer, &route.destinations, chosen);
                outcome::Answer::fault(route, question.roll)
            }
            RouteDecision::Redirect { route, redirect, matched } => {
                explanation.route = Some(taken(route, "redirect"));
                let dialled = toward.dialled.map_or(question.port, |(_, address)| address.port());
                Some(outcome::Answer::redirect(redirect, &redirect.location(request, *matched, dialled)))
            }
            RouteDecision::Respond { route, response } => {
                explanation.route = Some(taken(route, "respond"));
                Some(outcome::Answer::respond(response.status))
            }
        }
    }

    fn policy(
        &mut self,
        view: u32,
        resolved: &Resolved,
        port: u16,
        verdict: Verdict,
        explanation: &Explanation,
    ) -> PolicyVerdict {
        let plain = "plain text: mutual TLS is not done by this version".to_owned();
        let allowed =
            |why: &str| PolicyVerdict { allowed: true, why: why.to_owned(), origin: None, encryption: plain.clone() };
        if !explanation.client.takes_part {
            return PolicyVerdict {
                encryption: "as the client does".to_owned(),
                ..allowed("weir does not look at it")
            };
        }
        let mut hosts: Vec<(String, u16)> = resolved.host.iter().map(|host| (host.clone(), port)).collect();
        for destination in &explanation.destinations {
            let mut parts = destination.name.split('|');
            let port = parts.nth(1).and_then(|port| port.parse().ok()).unwrap_or_default();
            let host = (parts.nth(1).unwrap_or_default().to_owned(), port);
            if destination.share > 0.0 && !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        for (host, port) in &hosts {
            let Some(guard) = self.describer.guard(host, *port) else { continue };
            let object = &guard.meta.object;
            return PolicyVerdict {
                // A destination beside others is refused by itself.
                allowed: verdict != Verdict::Reject && resolved.host.as_ref().is_none_or(|own| own != host),
                why: format!("{}: {host} refuses", guard.why_refused(host)),
                origin: Some(Origin::new(object, guard.meta.at())),
                encryption: plain,
            };
        }
        for destination in &explanation.destinations {
            let mut parts = destination.name.split('|').skip(1);
            let (port, subset, host) = (parts.next(), parts.next(), parts.next());
            let (Some(port), Some(subset), Some(host)) = (port.and_then(|port| port.parse().ok()), subset, host) else {
                continue;
            };
            if let (_, Some((rule, mode))) = self.describer.rules(view, host, subset, port) {
                return PolicyVerdict {
                    allowed: explanation.destinations.len() > 1,
                    why: format!("{rule} asks for TLS ({mode}), which this version does not do: {host} refuses"),
                    origin: Some(Origin::new(&rule, self.describer.place(&rule).as_ref())),
                    encryption: plain,
                };
            }
        }
        let sealed = explanation.destinations.iter().filter_map(|destination| {
            let tls = destination
                .settings
                .iter()
                .find(|one| one.field == "tls" && one.instead.is_none() && one.value != "DISABLE")?;
            Some(format!("TLS toward {}: {}", destination.name, tls.value))
        });
        let sealed: Vec<String> = sealed.collect();
        let encryption = if sealed.is_empty() { plain.clone() } else { sealed.join("; ") };
        PolicyVerdict { encryption, ..allowed("no policy protects it") }
    }
}

/// How a connection comes.
struct Way<'a> {
    port: PortId,
    view: u32,
    namespace: &'a str,
    /// Where the client is.
    at: &'a Whereabouts,
    address: std::net::SocketAddr,
    verdict: Verdict,
}

fn view_of<'a>(question: &'a Question, scheme: &'a str) -> RequestView<'a> {
    RequestView {
        method: &question.method,
        scheme,
        authority: &question.authority,
        path: &question.path,
        query: question.query.as_deref(),
        headers: &question.headers,
    }
}

fn taken(route: &crate::program::Route, action: &str) -> RouteTaken {
    RouteTaken {
        name: route.name.to_string(),
        origin: route.object.as_ref().map(|object| Origin::new(object, route.at.as_ref())),
        action: action.to_owned(),
        rewritten: None,
        settings: settings::of_route(route),
    }
}

fn name_of(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP",
        Protocol::Http2 => "HTTP/2",
        Protocol::Tls => "TLS",
        Protocol::Tcp => "TCP",
        Protocol::Detect => "detected",
    }
}

fn not_enforced(explanation: &Explanation) -> Vec<NotEnforced> {
    let of_route = explanation.route.iter().flat_map(|route| &route.settings);
    let of_destinations = explanation.destinations.iter().flat_map(|destination| &destination.settings);
    let all: BTreeSet<NotEnforced> = of_route
        .chain(of_destinations)
        .filter_map(|setting| {
            let instead = setting.instead.clone()?;
            Some(NotEnforced { field: setting.field.clone(), instead, origin: setting.origin.clone() })
        })
        .collect();
    all.into_iter().collect()
}
