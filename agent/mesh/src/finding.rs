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
