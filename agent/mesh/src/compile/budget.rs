//! What the regular expressions of a namespace and of the mesh may come to: one tenant must not take the memory and the
//! time of every agent. What is beyond is left out, the youngest first. An object's own limit is looked at where it is
//! read.

use std::sync::Arc;

use super::Findings;
use super::registry::{Map, Set};
use crate::crd::{Mark, VirtualService};
use crate::finding::{Severity, code};
use crate::matching::{Expression, Pattern};
use crate::snapshot::Snapshot;

/// States of all the regexes of a namespace, of some 20 bytes each once they are compiled: 10 MB, or 8,000 usual regexes.
pub(super) const MAX_STATES_OF_NAMESPACE: u64 = 500_000;
/// The same of the mesh: 80 MB, or 60,000 usual regexes.
const MAX_STATES_OF_MESH: u64 = 4_000_000;

/// The VirtualServices that are beyond a limit, each with what is exhausted.
fn beyond<'s>(all: impl Iterator<Item = &'s Arc<VirtualService>>) -> Vec<(&'s VirtualService, &'static str)> {
    let mut having: Vec<&VirtualService> = all.map(|vs| &**vs).filter(|vs| !vs.regexes.is_empty()).collect();
    having.sort_by(|a, b| a.meta.seniority().cmp(&b.meta.seniority()));
    let (mut of_mesh, mut of_namespaces): (Held, Map<&str, Held>) = Default::default();
    let mut beyond = Vec::new();
    for vs in having {
        let of_namespace = of_namespaces.entry(vs.meta.namespace()).or_default();
        if of_namespace.with(vs) > MAX_STATES_OF_NAMESPACE {
            beyond.push((vs, "its namespace"));
        } else if of_mesh.with(vs) > MAX_STATES_OF_MESH {
            beyond.push((vs, "the mesh"));
        } else {
            of_namespace.add(vs);
            of_mesh.add(vs);
        }
    }
    beyond
}

/// The regexes of several VirtualServices: those that are copies of each other are one, as they are in memory.
#[derive(Default)]
struct Held {
    known: Set<*const Expression>,
    states: u64,
}

impl Held {
    /// How many states there would be with those of another one.
    fn with(&self, vs: &VirtualService) -> u64 {
        let new = vs.regexes.iter().filter(|regex| !self.known.contains(&regex.identity()));
        self.states + new.map(Pattern::states).sum::<u64>()
    }

    fn add(&mut self, vs: &VirtualService) {
        for regex in &vs.regexes {
            if self.known.insert(regex.identity()) {
                self.states += regex.states();
            }
        }
    }
}

/// Whether something would be left out.
pub(super) fn is_exceeded<'s>(all: impl Iterator<Item = &'s Arc<VirtualService>>) -> bool {
    !beyond(all).is_empty()
}

/// The snapshot without what is beyond a limit; `None` when nothing is.
pub(super) fn within(snapshot: &Snapshot, findings: &mut Findings) -> Option<Snapshot> {
    let beyond = beyond(snapshot.virtual_services.values());
    let mut left_out: Set<*const VirtualService> = Set::default();
    for (vs, whose) in beyond {
        findings.with_help(
            Severity::Error,
            code::INVALID,
            &vs.meta,
            Mark::default(),
            format!("left out: the regular expressions of {whose} come to more than all agents have room for"),
            Some("write exact or prefix in the place of regex, and repeat large classes less often".to_owned()),
        );
        left_out.insert(std::ptr::from_ref(vs));
    }
    if left_out.is_empty() {
        return None;
    }
    let mut kept = snapshot.clone();
    kept.virtual_services.retain(|_, vs| !left_out.contains(&Arc::as_ptr(vs)));
    Some(kept)
}
