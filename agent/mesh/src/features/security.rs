//! The fields of Istio's policies and of Telemetry. Read through [`super::KINDS`].

use super::{Feature, no, part, yes};

const AUTHORIZATION: &str = "protected::what_an_authorization_policy_protects_refuses_and_nothing_else_does";
const MUTUAL_TLS: &str = "protected::what_asks_for_strict_mutual_tls_refuses_by_pod_and_port";
const TOKENS: &str = "protected::what_asks_for_tokens_refuses_where_it_selects_or_targets";

/// What becomes of what a policy protects.
const CLOSED: &str =
    "not enforced: the service ports in front of what it protects refuse all clients that take part (Error)";

const SERVICES: &str = "Services are protected; gateways and waypoints are none of weir's";
const OWN_NAMESPACE: &str = "not looked at: Services of the policy's own namespace are meant";

pub(super) const AUTHORIZATION_POLICY: &[Feature] = &[
    yes("selector", AUTHORIZATION),
    yes("selector.matchLabels", AUTHORIZATION),
    part("targetRefs", AUTHORIZATION, SERVICES),
    yes("targetRefs[].{kind,name}", AUTHORIZATION),
    no("targetRefs[].{group,namespace}", OWN_NAMESPACE),
    no("targetRef", "read as an item of `targetRefs` is"),
    part(
        "action",
        AUTHORIZATION,
        "AUDIT, and ALLOW with a rule without conditions, forbid nothing; for everything else the \
         service ports in front of what it protects refuse all clients that take part (Error)",
    ),
    part(
        "rules",
        AUTHORIZATION,
        "whether there are rules, and one without conditions; what they say is not enforced (Error)",
    ),
    no("rules[].{from,to,when}", CLOSED),
    no("provider", CLOSED),
];

pub(super) const PEER_AUTHENTICATION: &[Feature] = &[
    yes("selector{,.matchLabels}", MUTUAL_TLS),
    yes("mtls", MUTUAL_TLS),
    part(
        "mtls.mode",
        MUTUAL_TLS,
        "DISABLE, PERMISSIVE and UNSET: plain text, as it is; STRICT: the service ports in front of what it protects \
         refuse all clients that take part (Error)",
    ),
    yes("portLevelMtls", MUTUAL_TLS),
    part(
        "portLevelMtls.*.mode",
        MUTUAL_TLS,
        "as `mtls.mode`, for service ports that lead to that port of the pods (Error)",
    ),
];

pub(super) const REQUEST_AUTHENTICATION: &[Feature] = &[
    yes("selector{,.matchLabels}", TOKENS),
    part("{targetRef,targetRefs}", TOKENS, SERVICES),
    yes("{targetRef,targetRefs[]}.{kind,name}", TOKENS),
    no("{targetRef,targetRefs[]}.{group,namespace}", OWN_NAMESPACE),
    no("jwtRules", CLOSED),
];

pub(super) const TELEMETRY: &[Feature] = &[no("", "it changes nothing (Warning)")];
