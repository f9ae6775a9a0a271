//! HTTP/2 is split by connection, as its requests are not told apart: by the HTTP rule that takes everything, and by no
//! other. Says so where that differs from what was asked for. Called by `build` for each port with HTTP rules.

use super::Findings;
use super::registry::{Registered, RegisteredPort};
use super::routes::HttpRules;
use crate::crd::VirtualService;
use crate::finding::{Severity, code};
use crate::program::Protocol;

/// Tells each VirtualService of a port which of its rules HTTP/2 does not follow.
pub(super) fn note(http: &HttpRules<'_>, service: &Registered<'_>, port: &RegisteredPort<'_>, findings: &mut Findings) {
    let (severity, speaks) = match port.protocol {
        Protocol::Http2 => (Severity::Warning, "carries HTTP/2, which"),
        // Most undeclared ports never see any.
        Protocol::Detect => (Severity::Info, "declares no protocol; should it carry HTTP/2, that"),
        Protocol::Http | Protocol::Tls | Protocol::Tcp => return,
    };
    let decides = http.catch_all().and(http.origins.last());
    // A single rule with a single destination is the same by connection and by request.
    if let (Some(_), [only]) = (decides, &*http.rules)
        && only.route.destinations.len() == 1
    {
        return;
    }
    let mut told: Vec<&VirtualService> = Vec::new();
    for (vs, _) in &http.origins {
        if told.iter().any(|other| std::ptr::eq(*other, *vs)) {
            continue;
        }
        told.push(vs);
        let skipped = skipped(http, vs, decides);
        let outcome = match decides {
            Some((owner, position)) if std::ptr::eq(*owner, *vs) => {
                format!("http[{position}] decides, as it takes everything{skipped}")
            }
            Some((owner, position)) => {
                format!("http[{position}] of {} decides, as it takes everything{skipped}", owner.meta.object)
            }
            None => format!("such connections are refused, as no rule takes everything{skipped}"),
        };
        findings.push(
            severity,
            code::NOT_SUPPORTED,
            &vs.meta,
            vs.http.first().map(|route| route.mark).unwrap_or_default(),
            format!(
                "port {} of {} {speaks} is split by connection and not by request: {outcome}",
                port.port.number, service.fqdn
            ),
        );
    }
}

/// `, and http[0], http[1] are not looked at`
fn skipped(http: &HttpRules<'_>, vs: &VirtualService, decides: Option<&(&VirtualService, usize)>) -> String {
    let is_decisive = |position| decides.is_some_and(|(owner, at)| std::ptr::eq(*owner, vs) && *at == position);
    let own = http.origins.iter().filter(|(owner, _)| std::ptr::eq(*owner, vs)).map(|(_, position)| *position);
    let mut positions: Vec<usize> = own.filter(|position| !is_decisive(*position)).collect();
    positions.dedup();
    let names: Vec<String> = positions.iter().map(|position| format!("http[{position}]")).collect();
    match &*names {
        [] => String::new(),
        [one] => format!(", and {one} is not looked at"),
        several => format!(", and {} are not looked at", several.join(", ")),
    }
}
