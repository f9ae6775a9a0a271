//! What is wrong with an object by itself, whatever else there is: the fields that it may have, and the rules of its
//! kind. All of it is told, one fault hides no other. [`object`] is for what somebody is about to apply (`weir
//! validate`), [`decode`] for what is there already ([`crate::store`]).

use std::borrow::Cow;
use std::sync::Arc;

use crate::crd::{self, Decoded, Header, Node};
use crate::finding::{Finding, Severity, code};
use crate::schema::{self, Problem};
use crate::source::ObjectRef;

mod at;
mod authorization_policy;
mod common;
mod destination_rule;
mod gateway;
mod gateway_api;
mod http_route;
mod locality;
mod metadata;
mod names;
mod peer_authentication;
mod request_authentication;
mod service_entry;
mod sidecar;
mod telemetry;
#[cfg(test)]
mod tests;
mod text;
mod virtual_service;

pub use text::{Checked, text};

use at::{At, Report};

/// Who asks: it decides what a field that does not exist is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// Somebody before applying it: an API server would refuse the object.
    Author,
    /// The agent: the object is there, and the rest of it can be in force.
    Agent,
}

/// Everything that is wrong with an object that is to be applied. It is refused when one of the findings is an
/// [`Severity::Error`]. `file` is what places are told of; `None` for an object that came from none.
pub fn object(node: &Node, header: &Header, file: Option<&Arc<str>>) -> Vec<Finding> {
    let mut findings = check(node, header, file, Caller::Author);
    if header.kind == crd::Kind::Known && !has_error(&findings) {
        // What the data path could not read either is refused here, not later.
        if let Err(fault) = crd::decode(&canonical(node, header, &findings), header, file) {
            findings.push(of_fault(&fault, Some(&header.object), file));
        }
    }
    findings
}

/// Checks and decodes an object that is there already.
///
/// # Errors
/// With everything that is wrong with it, at least one [`Severity::Error`] among it.
pub fn decode(node: &Node, header: &Header, file: Option<&Arc<str>>) -> Result<Decoded, Vec<Finding>> {
    let mut findings = check(node, header, file, Caller::Agent);
    if has_error(&findings) {
        return Err(findings);
    }
    match crd::decode(&canonical(node, header, &findings), header, file) {
        Ok(mut decoded) => {
            findings.append(&mut decoded.findings);
            Ok(Decoded { findings, ..decoded })
        }
        Err(fault) => {
            findings.push(of_fault(&fault, Some(&header.object), file));
            Err(findings)
        }
    }
}

/// What is wrong with an object of a kind that is not decoded, and that is there already.
pub fn unserved(node: &Node, header: &Header, file: Option<&Arc<str>>) -> Vec<Finding> {
    check(node, header, file, Caller::Agent)
}

/// What else is wrong with an object whose name cannot be told because of `fault`.
fn unnamed(node: &Node, fault: &crd::Fault, file: &Arc<str>) -> Vec<Finding> {
    let Some(header) = crd::unnamed(node) else { return Vec::new() };
    let told = format!("`{}`:", fault.path);
    let mut findings = check(node, &header, Some(file), Caller::Author);
    findings.retain(|finding| !finding.message.starts_with(&told));
    for finding in &mut findings {
        finding.object = None;
    }
    findings
}

/// True when one of them refuses the object.
pub fn has_error(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

/// A fault of decoding as a finding.
pub(crate) fn of_fault(fault: &crd::Fault, object: Option<&ObjectRef>, file: Option<&Arc<str>>) -> Finding {
    Finding {
        severity: Severity::Error,
        code: code::INVALID,
        object: object.cloned(),
        at: file.map(|file| fault.mark.in_file(file)),
        message: fault.to_string(),
        help: None,
    }
}

fn check(node: &Node, header: &Header, file: Option<&Arc<str>>, caller: Caller) -> Vec<Finding> {
    let mut report = Report::new(&header.object, file);
    let Some(message) = schema::message_of(&header.api_version, &header.object.kind) else {
        version(&mut report, node, header);
        return report.findings;
    };
    let lenient = caller == Caller::Agent && !crd::protects(&header.object.kind);
    for fault in schema::check(node, message) {
        let (severity, code) = match fault.problem {
            Problem::UnknownField if lenient => (Severity::Warning, code::UNKNOWN_FIELD),
            Problem::Value | Problem::UnknownField => (Severity::Error, code::INVALID),
            Problem::SnakeCase => (Severity::Warning, code::SNAKE_CASE),
        };
        report.schema(severity, code, fault);
    }
    rules(&mut report, node, header);
    if let Some(file) = file {
        // In the order of the text, whichever check found it.
        report
            .findings
            .sort_by_key(|finding| finding.at.as_ref().filter(|at| at.file == *file).map(|at| (at.line, at.column)));
    }
    report.findings
}

/// A kind that is known, in a version that it has not; a kind that its group does not have.
fn version(report: &mut Report<'_>, node: &Node, header: &Header) {
    let (api_version, kind) = (&*header.api_version, &*header.object.kind);
    if let Some([newest, ..]) = schema::versions_of(api_version, kind) {
        let group = api_version.split('/').next().unwrap_or_default();
        report.field(&At::root(node), "apiVersion", format!("{kind} has no version `{api_version}`")).help =
            Some(format!("write `{group}/{newest}`"));
    } else if !schema::group_has_kind(api_version, kind) && header.kind == crd::Kind::Foreign {
        let finding = report.field(&At::root(node), "kind", format!("`{api_version}` has no kind `{kind}`"));
        finding.help =
            schema::nearest_kind(kind).map(|(api_version, kind)| format!("did you mean {kind} of {api_version}?"));
    }
}

fn rules(report: &mut Report<'_>, node: &Node, header: &Header) {
    let root = At::root(node);
    let gateway_api = header.api_version.starts_with("gateway.networking.k8s.io/");
    let kind = &*header.object.kind;
    metadata::rules(report, &root);
    let spec = root.get("spec");
    if kind == "AuthorizationPolicy" {
        return authorization_policy::rules(report, &root, spec.as_ref());
    }
    if !gateway_api {
        authorization_policy::no_dry_run(report, &root);
    }
    let Some(spec) = spec else {
        // Where the definition of the kind does not ask for it, its rules do.
        if matches!(kind, "VirtualService" | "DestinationRule" | "Sidecar") || kind == "Gateway" && !gateway_api {
            report.field(&root, "spec", "must be given");
        }
        return;
    };
    match kind {
        "VirtualService" => virtual_service::rules(report, &spec),
        "DestinationRule" => destination_rule::rules(report, &spec),
        "Gateway" if gateway_api => gateway_api::gateway(report, &spec),
        "Gateway" => gateway::rules(report, &root, &spec),
        "ServiceEntry" => service_entry::service_entry(report, &root, &spec),
        "WorkloadEntry" => service_entry::workload_entry(report, &spec),
        "WorkloadGroup" => service_entry::workload_group(report, &spec),
        "Sidecar" => sidecar::rules(report, &spec),
        "PeerAuthentication" => peer_authentication::rules(report, &spec),
        "RequestAuthentication" => request_authentication::rules(report, &spec),
        "Telemetry" => telemetry::rules(report, &spec),
        "HTTPRoute" => gateway_api::http_route(report, &spec),
        "GRPCRoute" => gateway_api::grpc_route(report, &spec),
        "TLSRoute" | "TCPRoute" => gateway_api::stream_route(report, &spec),
        "ReferenceGrant" => gateway_api::reference_grant(report, &spec),
        _ => {}
    }
}

/// The object as decoding reads it: with the names of fields as an API server writes them.
fn canonical<'n>(node: &'n Node, header: &Header, findings: &[Finding]) -> Cow<'n, Node> {
    match schema::message_of(&header.api_version, &header.object.kind) {
        Some(message) if findings.iter().any(|finding| finding.code == code::SNAKE_CASE) => {
            Cow::Owned(schema::canonical(node, message))
        }
        _ => Cow::Borrowed(node),
    }
}
