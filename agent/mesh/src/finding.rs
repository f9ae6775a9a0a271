//! What is wrong with the input, said so that the user can mend it.

use std::fmt;

use crate::source::{Location, ObjectRef};

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Probably not what was meant.
    Warning,
    /// Refused, or not in force.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Error => "Error",
        })
    }
}

/// One thing that the user should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Stable code: Istio's `ISTnnnn` where Istio has one, else `WEIRnnnn`.
    pub code: &'static str,
    /// The object, where one could be made out.
    pub object: Option<ObjectRef>,
    /// The place in the input, where there is one.
    pub at: Option<Location>,
    /// What is wrong, and what happens because of it.
    pub message: String,
    /// What to write instead, when that can be said.
    pub help: Option<String>,
}

impl fmt::Display for Finding {
    /// `Error [IST0101] file.yaml:12:5 (VirtualService default/x): message; help`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.severity, self.code)?;
        if let Some(at) = &self.at {
            write!(f, " {at}")?;
        }
        if let Some(object) = &self.object {
            write!(f, " ({object})")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}

/// The stable codes: Istio's where Istio has one.
pub mod code {
    /// The text is no YAML, or too large.
    pub const SYNTAX: &str = "WEIR0001";
    /// A kind or field that this version does not do.
    pub const NOT_SUPPORTED: &str = "WEIR0002";
    /// A policy that protects something is not enforced, so what it protects refuses.
    pub const NOT_ENFORCED: &str = "WEIR0003";
    /// A kind that is none of weir's business.
    pub const IGNORED_KIND: &str = "WEIR0004";
    /// A pod that was asked to take part and cannot.
    pub const NOT_ENROLLED: &str = "WEIR0005";
    /// The same object twice.
    pub const DUPLICATE: &str = "WEIR0006";
    /// A label or annotation under `weir.mesh/` with a value that it cannot have.
    pub const BAD_SETTING: &str = "WEIR0007";
    /// Something written that changes nothing.
    pub const NO_EFFECT: &str = "WEIR0008";
    /// A service port is left to kube-proxy.
    pub const LEFT_ALONE: &str = "WEIR0009";
    /// A host that names no service.
    pub const UNKNOWN_HOST: &str = "WEIR0010";
    /// A file or directory that cannot be read; what it said before stays.
    pub const UNREADABLE: &str = "WEIR0011";
    /// A fault of weir itself; what was in force stays.
    pub const INTERNAL: &str = "WEIR0012";
    /// A field that does not exist, in an object that is in force without it.
    pub const UNKNOWN_FIELD: &str = "WEIR0013";
    /// A field's name in a spelling that files may have and an API server does not take.
    pub const SNAKE_CASE: &str = "WEIR0014";
    /// A weight that is not 100 beside a destination that is alone.
    pub const LONE_WEIGHT: &str = "WEIR0015";
    /// A destination without a weight beside others that have one.
    pub const WEIGHT_MISSING: &str = "WEIR0016";
    /// A match that an earlier rule takes everything of.
    pub const SHADOWED: &str = "WEIR0017";
    /// Several DestinationRules for one host.
    pub const RIVAL_RULES: &str = "WEIR0018";
    /// Settings of a port that drop what the level above says.
    pub const PORT_DROPS: &str = "WEIR0019";
    /// A rewrite that joins paths wrongly.
    pub const REWRITE_JOINT: &str = "WEIR0020";
    /// A prefix that takes more than the path segment that it names.
    pub const GREEDY_PREFIX: &str = "WEIR0021";
    /// Retries without attempts.
    pub const NO_ATTEMPTS: &str = "WEIR0022";
    /// A fault that never happens.
    pub const NO_FAULT: &str = "WEIR0023";
    /// A fault that retries and timeouts of the same rule do not see.
    pub const FAULT_FIRST: &str = "WEIR0024";
    /// Outlier detection that ejects nothing, or nothing in Istio.
    pub const NO_EJECTION: &str = "WEIR0025";
    /// A consistent hash behind weights.
    pub const HASH_AND_WEIGHTS: &str = "WEIR0026";
    /// A hash by a cookie that nobody sets.
    pub const COOKIE_WITHOUT_TTL: &str = "WEIR0027";
    /// Rules for clients that do not take part.
    pub const NO_CLIENTS: &str = "WEIR0028";
    /// An ALLOW policy refuses all that it does not name.
    pub const ALLOW_DENIES: &str = "WEIR0029";
    /// A DestinationRule of the client's namespace that hides those of a host's owner.
    pub const HIDDEN_RULE: &str = "WEIR0030";
    /// A condition on identities that clients without one meet.
    pub const PLAIN_TEXT_MATCHES: &str = "WEIR0031";
    /// A principal that is spelled as in a certificate.
    pub const SPIFFE_SCHEME: &str = "WEIR0032";
    /// A policy that names the port of a Service, not of its pods.
    pub const SERVICE_PORT_IN_POLICY: &str = "WEIR0033";
    /// TLS that is asked for around TLS.
    pub const TLS_TWICE: &str = "WEIR0034";
    /// A field or kind that is deprecated.
    pub const DEPRECATED: &str = "IST0002";
    /// Something that is referred to does not exist.
    pub const REFERENCE: &str = "IST0101";
    /// A namespace whose pods do not take part.
    pub const NOT_OPTED_IN: &str = "IST0102";
    /// The object is not valid.
    pub const INVALID: &str = "IST0106";
    /// An annotation on a kind that it is not for.
    pub const ANNOTATION_PLACE: &str = "IST0107";
    /// An annotation that does not exist.
    pub const ANNOTATION_NAME: &str = "IST0108";
    /// Several VirtualServices for one mesh host.
    pub const CONFLICTING_HOSTS: &str = "IST0109";
    /// Sidecars that select the same pod.
    pub const SIDECARS_OVERLAP: &str = "IST0110";
    /// Several Sidecars of a namespace without a selector.
    pub const SIDECARS_DEFAULT: &str = "IST0111";
    /// A destination that has several ports, and none is named.
    pub const PORT_MISSING: &str = "IST0112";
    /// Services of one workload with a port of different transports.
    pub const PORT_TRANSPORTS: &str = "IST0116";
    /// A port name that declares no protocol.
    pub const PORT_NAME: &str = "IST0118";
    /// Labels of a namespace that ask for several ways of taking part.
    pub const OPT_IN_LABELS: &str = "IST0123";
    /// An annotation with a value that it cannot have.
    pub const ANNOTATION_VALUE: &str = "IST0125";
    /// A policy that selects no workload.
    pub const NO_WORKLOAD: &str = "IST0127";
    /// TLS to a host whose certificate is checked against no given authority.
    pub const NO_CA: &str = "IST0128";
    /// The same, at a port.
    pub const NO_CA_PORT: &str = "IST0129";
    /// A rule that no request can reach.
    pub const UNREACHABLE: &str = "IST0130";
    /// A match that repeats an earlier one, or is covered by one.
    pub const REPEATED_MATCH: &str = "IST0131";
    /// A VirtualService whose hosts its Gateway does not serve.
    pub const HOST_NOT_IN_GATEWAY: &str = "IST0132";
    /// The object is valid, and probably not what was meant.
    pub const WARNING: &str = "IST0133";
    /// A ServiceEntry for TCP without addresses.
    pub const ADDRESSES_MISSING: &str = "IST0134";
    /// An annotation that is deprecated.
    pub const ANNOTATION_DEPRECATED: &str = "IST0135";
    /// An annotation of a feature that is not settled.
    pub const ANNOTATION_ALPHA: &str = "IST0136";
    /// Services of one workload that call one of its ports by different numbers.
    pub const PORT_NUMBERS: &str = "IST0137";
    /// One certificate in several Gateways.
    pub const SAME_CERTIFICATE: &str = "IST0138";
    /// Subsets that do not hold for requests from a gateway.
    pub const NOT_FROM_GATEWAY: &str = "IST0140";
    /// A kind that one may not list, so that nothing is said of it.
    pub const MAY_NOT_LIST: &str = "IST0141";
    /// A version of Kubernetes that is too old.
    pub const OLD_KUBERNETES: &str = "IST0142";
    /// Gateways that want the same host on the same port.
    pub const RIVAL_GATEWAYS: &str = "IST0145";
    /// Routing by JWT claims that nobody checks.
    pub const CLAIMS_UNCHECKED: &str = "IST0149";
    /// A port of an ExternalName Service that carries TCP.
    pub const EXTERNAL_NAME_PORT: &str = "IST0150";
    /// A definition of the Gateway API without a version that is read.
    pub const UNREAD_GATEWAY_API: &str = "IST0156";
    /// Access logging without a provider.
    pub const NO_PROVIDER: &str = "IST0157";
    /// Telemetry objects that select the same pod.
    pub const TELEMETRY_OVERLAP: &str = "IST0159";
    /// Several Telemetry objects of a namespace without a selector.
    pub const TELEMETRY_DEFAULT: &str = "IST0160";
    /// A Gateway's certificate that cannot be used.
    pub const BAD_CERTIFICATE: &str = "IST0161";
    /// A Gateway's port that its Service does not have.
    pub const PORT_NOT_EXPOSED: &str = "IST0162";
    /// A reference to a Gateway that Istio makes for itself.
    pub const INTERNAL_GATEWAY: &str = "IST0165";
    /// A selector that has no effect on a Gateway of the Gateway API.
    pub const SELECTOR_ON_GATEWAY: &str = "IST0166";
    /// A policy without effect.
    pub const NO_IMPACT: &str = "IST0167";
    /// A condition of an object's status that is not met.
    pub const CONDITION: &str = "IST0171";
    /// A definition of the Gateway API of before its first release.
    pub const ENDING_GATEWAY_API: &str = "IST0172";
    /// A subset that selects no pod.
    pub const EMPTY_SUBSET: &str = "IST0173";
    /// A DestinationRule for a host that does not exist.
    pub const RULE_WITHOUT_HOST: &str = "IST0174";
    /// A CustomResourceDefinition of the Gateway API that is too old.
    pub const OLD_GATEWAY_API: &str = "IST0176";
    /// ServiceEntries that call a port by different protocols.
    pub const RIVAL_PROTOCOLS: &str = "IST0177";
}
