//! `Snapshot → (Program, KernelPlan, findings)`: pure and deterministic. Called by the agent for every change, and by
//! the commands that check manifests.
//!
//! - `registry`: services, their ports and endpoints, indexed
//! - `entries`: hosts of ServiceEntries as services
//! - `visibility`: who sees what, and the classes of clients (views) that follow from it
//! - `policy`: the DestinationRule in force for a service
//! - `hosts`: the VirtualServices in force for a host
//! - `delegate`: the rules of VirtualServices that delegate to others
//! - `routes`: HTTP rules
//! - `layer4`: TLS and TCP rules
//! - `destinations`: weights and clusters
//! - `enforced`: what of all that the data path does
//! - `http2`: rules that HTTP/2 connections cannot follow
//! - `verdict`: what the kernel does with each service port
//! - `gateway_api`: its objects in Istio's words
//! - `gateways`: what comes in from outside
//! - `guard`: policies that this version does not enforce, so that what they protect refuses
//! - `enrol`: the pods that take part
//! - `clients`: where they are
//! - `lint`: findings that need no traffic
//! - `budget`: what regular expressions may come to
//! - `build`: drives them, view by view
//! - `describe`: what a program does not carry, and `explain` shows
//! - `trace`: what a compilation leaves behind for the next change
//! - `incremental`: changed endpoints, pods and VirtualServices, without compiling everything

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::crd::{Mark, Metadata};
use crate::finding::{Finding, Severity};
use crate::plan::KernelPlan;
use crate::program::{Origin, PodTable, Program};
use crate::snapshot::Snapshot;

mod budget;
mod build;
mod client_tls;
mod clients;
mod delegate;
pub(crate) mod describe;
mod destinations;
pub(crate) mod enforced;
mod enrol;
mod entries;
mod gateway_api;
mod gateways;
mod guard;
mod hosts;
mod http2;
mod incremental;
mod layer4;
mod lint;
mod policy;
mod registry;
mod routes;
mod table;
mod trace;
pub(crate) mod verdict;
mod visibility;

pub use gateway_api::{
    Condition, GatewayStatus, ListenerStatus, ParentStatus, RouteStatus, Statuses, statuses as gateway_api_statuses,
};
pub use gateways::GatewayIdentity;
pub use incremental::{Compiler, Delta, InForce};
pub(crate) use registry::{protocol_of, whereabouts_of};
pub use visibility::{Client, ViewTable};
pub(crate) use visibility::{expand, is_public};

#[cfg(test)]
mod tests;

/// Namespaces that never take part: what the cluster itself needs to run, and weir.
const EXCLUDED_NAMESPACES: [&str; 2] = ["kube-system", "weir-system"];

/// What the compiler has to be told.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// The last part of service names.
    pub cluster_domain: Arc<str>,
    /// The node whose pods are planned; `None` = every pod with an annotation `weir.mesh/netns` is one of them.
    pub node: Option<Arc<str>>,
    /// The namespace whose rules are for the whole mesh.
    pub root_namespace: Arc<str>,
    /// Whether Istio's opt-in labels count too, while Istio's control plane is absent.
    pub accept_istio_labels: bool,
    /// Which pods are the gateway's.
    pub gateway: GatewayIdentity,
    /// Becomes [`Program::generation`].
    pub generation: u64,
    /// [`Compiled::views`] of the compilation that is in force; empty when none is.
    pub views: ViewTable,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".into(),
            node: None,
            root_namespace: "istio-system".into(),
            accept_istio_labels: true,
            gateway: GatewayIdentity::default(),
            generation: 0,
            views: ViewTable::default(),
        }
    }
}

/// What a snapshot comes to.
#[derive(Debug)]
pub struct Compiled {
    /// For the proxy.
    pub program: Program,
    /// For the kernel.
    pub plan: KernelPlan,
    /// For the next compilation.
    pub views: ViewTable,
    /// By place, the worst first at each. Those of the files themselves are [`crate::store::Store::findings`].
    pub findings: Vec<Finding>,
}

/// Compiles. One object's fault is one finding, and nothing else suffers from it.
pub fn compile(snapshot: &Snapshot, options: &CompileOptions) -> Compiled {
    let former = build::Former { program: &Program::default(), plan: &KernelPlan::default() };
    let mut findings = Findings::default();
    let converted = gateway_api::convert(snapshot, options, &mut findings);
    let whole = converted.as_ref().unwrap_or(snapshot);
    let kept = budget::within(whole, &mut findings);
    compile_traced(kept.as_ref().unwrap_or(whole), options, &former, findings).0
}

/// `snapshot` has what its Gateway API objects come to; `findings` are those of that.
fn compile_traced(
    snapshot: &Snapshot,
    options: &CompileOptions,
    former: &build::Former<'_>,
    mut findings: Findings,
) -> (Compiled, trace::Trace) {
    let (mut program, mut plan, views, trace) =
        build::build(snapshot, options, former, build::Seen::Own, &mut findings);
    program.pods = PodTable::new(snapshot.pods.values());
    let istio = enrol::IstioLabels::of(snapshot, options);
    plan.pods = enrol::enrol(snapshot, options, &istio, &views, &mut findings);
    // Made from what is sorted, every node is full; and so are those of its copies.
    plan.services = plan.services.into_iter().collect();
    program.clients = clients::of(snapshot, plan.pods.keys(), former.program);
    (Compiled { program, plan, views, findings: sort(findings.0) }, trace)
}

/// Whether a pod takes part by its own labels and annotations and those of its namespace.
pub(crate) fn is_opted_in(pod: &Metadata, namespace: Option<&Metadata>, options: &CompileOptions) -> bool {
    enrol::wants(pod, namespace, options.accept_istio_labels, &mut Findings::default())
}

/// Each finding once, however many ports and views meet its reason.
#[derive(Debug, Default)]
struct Findings(BTreeSet<Finding>);

impl Findings {
    fn push(&mut self, severity: Severity, code: &'static str, meta: &Metadata, mark: Mark, message: String) {
        self.with_help(severity, code, meta, mark, message, None);
    }

    /// About what stands where a block of a policy is from.
    fn at_origin(&mut self, severity: Severity, code: &'static str, origin: &Origin, message: String) {
        let (object, at) = (Some(origin.object.clone()), origin.at.clone());
        self.0.insert(Finding { severity, code, object, at, message, help: None });
    }

    fn with_help(
        &mut self,
        severity: Severity,
        code: &'static str,
        meta: &Metadata,
        mark: Mark,
        message: String,
        help: Option<String>,
    ) {
        let object = Some(meta.object.clone());
        self.0.insert(Finding { severity, code, object, at: meta.place(mark), message, help });
    }
}

fn sort(findings: BTreeSet<Finding>) -> Vec<Finding> {
    let mut all: Vec<Finding> = findings.into_iter().collect();
    all.sort_by(|a, b| (&a.at, Reverse(a.severity), a.code).cmp(&(&b.at, Reverse(b.severity), b.code)));
    all
}
