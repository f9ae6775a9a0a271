//! The fields of Istio's policies and of Telemetry. Read through [`super::KINDS`].

use super::{Feature, no, part, yes};

const CHOSEN: &str = "fields::policies_protect_what_they_select_or_target";
const REFUSES: &str = "verdicts::what_protects_and_is_not_enforced_refuses";

/// What becomes of what a policy protects.
const CLOSED: &str = "not enforced: the ports that it protects refuse everybody (Error)";

const SERVICES: &str = "Services are protected; gateways and waypoints are none of weir's";
const OWN_NAMESPACE: &str = "not looked at: Services of the policy's own namespace are meant";

pub(super) const AUTHORIZATION_POLICY: &[Feature] = &[
    yes("selector", REFUSES),
    yes("selector.matchLabels", REFUSES),
    part("targetRefs", REFUSES, SERVICES),
    yes("targetRefs[].{kind,name}", REFUSES),
    no("targetRefs[].{group,namespace}", OWN_NAMESPACE),
    no("targetRef", "read as an item of `targetRefs` is"),
    part(
        "action",
        REFUSES,
        "AUDIT, ALLOW with a rule without conditions, and DENY without rules forbid nothing; for \
                             everything else the ports that it protects refuse everybody (Error)",
    ),
    part(
        "rules",
        REFUSES,
        "whether there are rules, and one without conditions; what they say is not enforced (Error)",
    ),
    no("rules[].{from,to,when}", CLOSED),
    no("provider", CLOSED),
];

pub(super) const PEER_AUTHENTICATION: &[Feature] = &[
    yes("selector{,.matchLabels}", CHOSEN),
    yes("mtls", REFUSES),
    part(
        "mtls.mode",
        REFUSES,
        "DISABLE, PERMISSIVE and UNSET: plain text, as it is; STRICT: what it protects refuses everybody (Error)",
    ),
    yes("portLevelMtls", REFUSES),
    part(
        "portLevelMtls.*.mode",
        REFUSES,
        "as `mtls.mode`; STRICT for one port closes all ports of the pods that are selected (Error)",
    ),
];

pub(super) const REQUEST_AUTHENTICATION: &[Feature] = &[
    yes("selector{,.matchLabels}", CHOSEN),
    part("{targetRef,targetRefs}", CHOSEN, SERVICES),
    yes("{targetRef,targetRefs[]}.{kind,name}", CHOSEN),
    no("{targetRef,targetRefs[]}.{group,namespace}", OWN_NAMESPACE),
    no("jwtRules", CLOSED),
];

pub(super) const TELEMETRY: &[Feature] = &[no("", "it changes nothing (Warning)")];
