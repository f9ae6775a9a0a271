//! What is wrong with the objects that bear on a request, and with those that may. Used by [`super`].

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Explainer, Explanation};
use crate::finding::{Finding, Severity, code};
use crate::snapshot::Key;
use crate::source::ObjectRef;

/// Findings of refused objects that are told of beside an answer: who has more has other worries than one request.
pub(super) const MAX_REFUSED: usize = 10;

impl Explainer<'_> {
    /// The first finding by which an object of this kind and name was refused.
    pub(super) fn why_refused(&self, kind: &str, (namespace, name): &Key) -> Option<String> {
        let is_own =
            |object: &ObjectRef| *object.kind == *kind && object.namespace == *namespace && object.name == *name;
        let mut refused = self.mesh.findings.iter().filter(|finding| finding.severity == Severity::Error);
        refused.find(|finding| finding.object.as_ref().is_some_and(is_own)).map(ToString::to_string)
    }

    /// What is wrong with the objects that were named.
    pub(super) fn findings(&mut self, explanation: &Explanation) -> Vec<String> {
        let mut named: BTreeSet<String> = BTreeSet::new();
        let rules = explanation.rules.iter().filter_map(|rule| rule.origin.as_ref());
        let left_out = explanation.left_out.iter().map(|one| &one.origin);
        let dialled = explanation.dialled.object.iter().chain(&explanation.policy.origin);
        named.extend(rules.chain(left_out).chain(dialled).map(|origin| origin.object.clone()));
        for destination in &explanation.destinations {
            let host = destination.name.split('|').nth(3).unwrap_or_default();
            let (rules, _) = self.describer.rules(explanation.client.view, host, "", 0);
            named.extend(rules.iter().map(ObjectRef::to_string));
        }
        let why = explanation.kernel.as_ref().and_then(|kernel| kernel.because.clone());
        named.extend(why);
        self.delegates(&mut named);
        let of_these = |finding: &&Finding| finding.object.as_ref().is_some_and(|one| named.contains(&one.to_string()));
        let mut told: Vec<String> = self.mesh.findings.iter().filter(of_these).map(ToString::to_string).collect();
        told.dedup();
        told.extend(self.refused(explanation, &named));
        told
    }

    /// Adds those who delegate to one that is named, and all that they delegate to: a rule that is left out is tried
    /// nowhere, and its VirtualService is named nowhere else.
    fn delegates(&self, named: &mut BTreeSet<String>) {
        for root in self.mesh.snapshot.virtual_services.values() {
            let own = &root.meta.object;
            let delegate = |(namespace, name): (&Arc<str>, &Arc<str>)| {
                let namespace = if namespace.is_empty() { &own.namespace } else { namespace };
                ObjectRef { namespace: Arc::clone(namespace), name: Arc::clone(name), ..own.clone() }.to_string()
            };
            let mut all: Vec<String> = root.delegates().map(|to| delegate((&to.namespace, &to.name))).collect();
            all.push(own.to_string());
            if all.len() > 1 && all.iter().any(|one| named.contains(one)) {
                named.extend(all);
            }
        }
    }

    /// Objects that were refused: nothing that is in force names them, and the missing rule may be theirs. Those of the
    /// namespaces of both ends come first.
    fn refused(&self, explanation: &Explanation, named: &BTreeSet<String>) -> Vec<String> {
        let of_destination = explanation.dialled.object.as_ref().and_then(|origin| {
            let (_, name) = origin.object.split_once(' ')?;
            Some(name.split_once('/')?.0)
        });
        let near = [Some(&*explanation.client.namespace), of_destination];
        let is_near = |finding: &Finding| {
            let namespace = finding.object.as_ref().map(|object| &*object.namespace);
            namespace.is_none_or(|namespace| near.contains(&Some(namespace)))
        };
        let mut refused: Vec<&Finding> = self
            .mesh
            .findings
            .iter()
            .filter(|finding| {
                finding.severity == Severity::Error && [code::INVALID, code::SYNTAX].contains(&finding.code)
            })
            .filter(|finding| finding.object.as_ref().is_none_or(|object| !named.contains(&object.to_string())))
            .collect();
        refused.sort_by_key(|finding| !is_near(finding));
        let more = refused.len().saturating_sub(MAX_REFUSED);
        let mut told: Vec<String> = refused.into_iter().take(MAX_REFUSED).map(ToString::to_string).collect();
        if more > 0 {
            told.push(format!("{more} more of objects that are refused"));
        }
        told
    }
}
