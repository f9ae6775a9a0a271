//! Whether a server's certificate is what a rule asks for: signed by an authority that it trusts, within its time, not
//! revoked, and for one of the names. Asked by rustls in each handshake that resumes no session.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationOptionsBuilder, UnknownStatusPolicy,
};

/// What a certificate has to prove.
pub(super) enum Wanted {
    /// Nothing: whoever answers is taken for the server.
    Nothing,
    Trusted(Trusted),
}

/// See the module.
pub(super) struct Trusted {
    /// The authorities,
    pub(super) anchors: Arc<[TrustAnchor<'static>]>,
    /// and their certificates where they are a rule's own: a server may present one of them itself.
    pub(super) pinned: Vec<CertificateDer<'static>>,
    pub(super) revoked: Vec<CertRevocationList<'static>>,
    /// One of these; empty = the name that the server is asked by.
    pub(super) names: Box<[Box<str>]>,
}

/// See the module.
pub(super) struct Verifier {
    pub(super) wanted: Wanted,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Trusted {
    fn verify(
        &self,
        der: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        let certificate = EndEntityCert::try_from(der).map_err(refusal)?;
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        // As Envoy does: each authority of the chain has a list, and it is in force. Without, who keeps a list from being
        // renewed would undo it.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            let strict = options.with_status_policy(UnknownStatusPolicy::Deny);
            strict.with_expiration_policy(ExpirationPolicy::Enforce).build()
        });
        let chain = certificate.verify_for_usage(
            algorithms.all,
            &self.anchors,
            intermediates,
            now,
            KeyUsage::server_auth(),
            revocation,
            None,
        );
        match chain {
            Ok(_) => {}
            // Its time has been looked at before this is found; that it signs itself is what the rule says of it.
            Err(webpki::Error::CaUsedAsEndEntity) if self.pinned.iter().any(|own| own == der) => {}
            Err(error) => return Err(refusal(error)),
        }
        let is_for = |name: &str| {
            if name.contains("://") {
                return certificate.valid_uri_names().any(|uri| uri == name);
            }
            ServerName::try_from(name).is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        };
        if self.names.is_empty() {
            certificate.verify_is_valid_for_subject_name(asked).map_err(|_| not_for(&asked.to_str()))
        } else if self.names.iter().any(|name| is_for(name)) {
            Ok(())
        } else {
            Err(not_for(&self.names.join(", ")))
        }
    }
}

/// As rustls has it, so that the server is told by the right alert.
fn refusal(error: webpki::Error) -> Error {
    use webpki::Error as E;
    Error::InvalidCertificate(match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::CertExpired { .. } | E::InvalidCertValidity => CertificateError::Expired,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::CertRevoked => CertificateError::Revoked,
        E::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        E::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}

/// Names that a certificate does not have.
#[derive(Debug)]
struct NotFor(String);

impl fmt::Display for NotFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate is not for {}", self.0)
    }
}

impl std::error::Error for NotFor {}

fn not_for(names: &str) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NotFor(names.to_owned())))))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Wanted::Trusted(trusted) = &self.wanted {
            trusted.verify(certificate, intermediates, asked, now, &self.algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // Whoever presents a certificate has its key, whether anybody looks at the certificate or not.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
