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
    /// Something that is referred to does not exist.
    pub const REFERENCE: &str = "IST0101";
    /// The object is not valid.
    pub const INVALID: &str = "IST0106";
    /// Several VirtualServices for one mesh host.
    pub const CONFLICTING_HOSTS: &str = "IST0109";
    /// A destination that has several ports, and none is named.
    pub const PORT_MISSING: &str = "IST0112";
    /// A port name that declares no protocol.
    pub const PORT_NAME: &str = "IST0118";
    /// A rule that no request can reach.
    pub const UNREACHABLE: &str = "IST0130";
    /// The object is valid, and probably not what was meant.
    pub const WARNING: &str = "IST0133";
    /// A subset that selects no pod.
    pub const EMPTY_SUBSET: &str = "IST0173";
    /// A DestinationRule for a host that does not exist.
    pub const RULE_WITHOUT_HOST: &str = "IST0174";
}
