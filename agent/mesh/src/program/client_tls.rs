//! `tls` of a traffic policy: how connections to a destination are encrypted. Decoded by `crd`, resolved by `compile`
//! as a block of [`super::ClusterPolicy`]; the proxy reads the files that are named.

use std::fmt;
use std::sync::Arc;

/// `tls`: how connections to the host are to be encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// `tls.mode` as written; empty when it is not given.
    pub mode: Arc<str>,
    /// From a rule that is not valid: whatever it says, nothing is sent by it.
    pub broken: bool,
    /// Everything else; absent where nothing else is given.
    pub more: Option<Box<ClientTlsFiles>>,
}

/// The rarer fields of a [`ClientTls`]; empty = not given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each field is Istio's")]
pub struct ClientTlsFiles {
    pub client_certificate: Box<str>,
    pub private_key: Box<str>,
    pub ca_certificates: Box<str>,
    pub ca_crl: Box<str>,
    pub credential_name: Box<str>,
    pub subject_alt_names: Box<[Box<str>]>,
    pub sni: Box<str>,
    pub insecure_skip_verify: bool,
}

impl ClientTls {
    /// False for `DISABLE` alone: whatever else is written, plain text is not what was asked for.
    pub fn encrypts(&self) -> bool {
        &*self.mode != "DISABLE"
    }

    /// True for what the proxy encrypts as it is asked to: SIMPLE and MUTUAL, with files or with what is in the system.
    pub fn is_originated(&self) -> bool {
        !self.broken && matches!(&*self.mode, "SIMPLE" | "MUTUAL") && !self.has_credential()
    }

    /// True for what is neither plain text nor [`Self::is_originated`]: connections that it is for are refused.
    pub fn is_refused(&self) -> bool {
        self.encrypts() && !self.is_originated()
    }

    /// Whether a Secret is named.
    pub fn has_credential(&self) -> bool {
        self.more.as_ref().is_some_and(|more| !more.credential_name.is_empty())
    }

    /// The names of which the server's certificate must have one; empty = the name that it is asked by.
    pub fn subject_alt_names(&self) -> &[Box<str>] {
        self.more.as_ref().map(|more| &*more.subject_alt_names).unwrap_or_default()
    }

    /// Whether names that others give are those that are looked for.
    pub(crate) fn takes_names(&self) -> bool {
        self.subject_alt_names().is_empty() && !self.skips_verification()
    }

    /// The name that servers are asked for, where it is given.
    pub fn sni(&self) -> Option<&str> {
        self.more.as_ref().map(|more| &*more.sni).filter(|sni| !sni.is_empty())
    }

    /// Whether any certificate will do.
    pub fn skips_verification(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.insecure_skip_verify)
    }
}

/// The mode, the name that servers are asked for, and what their certificate must prove.
impl fmt::Display for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, SNI {}, ", self.mode, self.sni().unwrap_or("by the request's Host"))?;
        if self.skips_verification() {
            return f.write_str("any certificate is accepted");
        }
        let authority = self.more.as_ref().map(|more| &*more.ca_certificates).filter(|path| !path.is_empty());
        match self.subject_alt_names() {
            [] => f.write_str("the certificate is for that name")?,
            names => write!(f, "the certificate is for {}", names.join(" or "))?,
        }
        match authority {
            Some(path) => write!(f, " and signed by an authority in {path}"),
            None => f.write_str(" and signed by an authority that the node trusts"),
        }
    }
}
