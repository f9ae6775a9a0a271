//! What a rule's `tls` does not reach, though it may seem to. Called by `lint`, once a rule.

use super::Findings;
use super::registry::Registered;
use crate::crd::{DestinationRule, Mark, TrafficPolicy};
use crate::finding::{Severity, code};

/// Ports whose own settings leave `tls` out: they stand for all blocks of their level, so connections to these are plain
/// text while the others are encrypted.
pub(super) fn plain_ports(rule: &DestinationRule, findings: &mut Findings) {
    let encrypts = |policy: &TrafficPolicy| policy.blocks.tls.as_ref().is_some_and(|tls| tls.encrypts());
    let common = rule.policy.as_deref();
    let of_rule = common.is_some_and(encrypts);
    let subsets = rule.subsets.iter().enumerate().filter_map(|(position, subset)| {
        Some((format!("spec.subsets[{position}].trafficPolicy"), subset.policy.as_deref()?))
    });
    let levels = common.map(|policy| ("spec.trafficPolicy".to_owned(), policy)).into_iter().chain(subsets);
    for (path, policy) in levels.filter(|(_, policy)| !rule.broken && (of_rule || encrypts(policy))) {
        for (position, settings) in policy.ports.iter().enumerate().filter(|(_, s)| s.blocks.tls.is_none()) {
            findings.with_help(
                Severity::Warning,
                code::PORT_DROPS,
                &rule.meta,
                settings.mark,
                format!(
                    "{path}.portLevelSettings[{position}] has no `tls`: connections to port {} are plain text, whatever \
                     is asked for above it",
                    settings.port
                ),
                Some("repeat `tls` there, or write `tls: {mode: DISABLE}` if that is meant".to_owned()),
            );
        }
    }
}

/// A host of which no endpoint is known here, so that its clients' connections are not the proxy's.
pub(super) fn out_of_reach(rule: &DestinationRule, service: &Registered<'_>, findings: &mut Findings) {
    let Some(tls) = rule.encryption().filter(|_| !service.is_asked_for()) else { return };
    let becomes = if service.addresses().next().is_some() {
        "connections to its `addresses` are refused on the ports that this is for, and to any other address they pass as \
         without weir: nothing is encrypted for them"
    } else {
        "connections to it pass as without weir, and nothing is encrypted for them"
    };
    findings.with_help(
        Severity::Error,
        code::NOT_SUPPORTED,
        &rule.meta,
        rule.policy.as_ref().map_or_else(Mark::default, |policy| policy.mark),
        format!(
            "`tls` ({}) is not in force for {}, whose endpoints are not known here: {becomes}",
            if tls.mode.is_empty() { "no mode" } else { &tls.mode },
            service.fqdn
        ),
        service.entry.map(|_| "write `resolution: STATIC` with `addresses` and `endpoints`".to_owned()),
    );
}
