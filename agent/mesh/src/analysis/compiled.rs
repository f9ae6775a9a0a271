//! What decoding and compiling find: fields and kinds that this version does not do, policies that it does not enforce,
//! pods that cannot take part. The same code as in the agent, so that both say the same.

use std::collections::BTreeSet;

use super::findings::Findings;
use super::sources::Sources;
use crate::compile::compile;
use crate::crd::{self, Kind};
use crate::finding::{Finding, Severity, code};
use crate::snapshot::Snapshot;
use crate::source::ObjectRef;
use crate::store::STAND_IN;

/// Codes of the compiler that the analyzers do not have themselves.
const CODES: [&str; 8] = [
    code::INVALID,
    code::NOT_SUPPORTED,
    code::NOT_ENFORCED,
    code::NOT_ENROLLED,
    code::BAD_SETTING,
    code::UNKNOWN_HOST,
    code::NO_EFFECT,
    code::TLS_TWICE,
];

/// `refused` are those whose faults have been told of by validation.
pub(super) fn analyze(sources: &Sources, refused: &BTreeSet<&ObjectRef>, findings: &mut Findings) {
    let mut snapshot = Snapshot::default();
    for resource in sources.resources() {
        let place = resource.meta.at().cloned();
        match resource.header.kind {
            // The agent refuses it too, and puts this in its place.
            Kind::Known if refused.contains(&resource.meta.object) && crd::protects(resource.kind()) => {
                if let Some(stand_in) = crd::stand_in(Some(&resource.node), &resource.meta.object, place.clone()) {
                    snapshot.insert(stand_in);
                }
                findings.extend([Finding {
                    severity: Severity::Error,
                    code: code::NOT_ENFORCED,
                    object: Some(resource.meta.object.clone()),
                    at: place,
                    message: format!("{} cannot be read: {STAND_IN}", resource.kind()),
                    help: None,
                }]);
            }
            // None of it is compiled, and validation has said why.
            Kind::Known if refused.contains(&resource.meta.object) => {}
            Kind::Known => match crd::decode(&resource.node, &resource.header, resource.file.as_ref()) {
                Ok(decoded) => {
                    findings.extend(decoded.findings);
                    snapshot.insert(decoded.object);
                }
                Err(fault) => {
                    let object = &resource.meta.object;
                    if let Some(stand_in) = crd::stand_in(Some(&resource.node), object, place) {
                        snapshot.insert(stand_in);
                    }
                    findings.extend([invalid(resource, &fault)]);
                }
            },
            Kind::NotServed(instead) => {
                findings.extend([crd::not_served(resource.meta.object.clone(), place, instead)]);
            }
            Kind::List | Kind::Foreign => {}
        }
    }
    let compiled = compile(&snapshot, &sources.options().compile);
    // At Info the compiler tells of what an API server adds to manifests.
    let ours = |finding: &Finding| finding.severity > Severity::Info && CODES.contains(&finding.code);
    findings.extend(compiled.findings.into_iter().filter(ours));
}

fn invalid(resource: &super::sources::Resource, fault: &crd::Fault) -> Finding {
    Finding {
        severity: Severity::Error,
        code: code::INVALID,
        object: Some(resource.meta.object.clone()),
        at: resource.meta.place(fault.mark),
        message: format!("{fault}; the object is refused"),
        help: None,
    }
}
