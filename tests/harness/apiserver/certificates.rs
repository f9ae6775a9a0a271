//! A certificate authority for one server, and the server's certificate. Called when TLS is asked for.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

/// Names under which clients inside a cluster know the API server.
const NAMES: &[&str] = &["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];

/// What TLS needs.
pub(super) struct Issued {
    /// The authority's certificate, PEM.
    pub(super) ca: String,
    pub(super) acceptor: TlsAcceptor,
}

/// Makes an authority and has it sign a certificate for `address`.
///
/// # Errors
/// When the cryptography fails.
pub(super) fn issue(address: IpAddr) -> Result<Issued> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "test API server authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?).context("making an authority")?;
    let names: Vec<String> = NAMES.iter().map(|n| (*n).to_owned()).collect();
    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, "test API server");
    server.subject_alt_names.push(SanType::IpAddress(address));
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority).context("signing the server's certificate")?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Issued { ca: authority.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) })
}
