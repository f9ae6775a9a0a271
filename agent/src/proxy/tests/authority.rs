//! An authority with its certificates in a directory, and servers that speak TLS by them.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ::http::Response;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::harness::serve;

/// The serial number of every certificate that [`Authority::list`] revokes.
const REVOKED: u64 = 13;

pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

/// What a certificate is for.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted<'n> {
    /// DNS names; with `://` URIs, and addresses.
    pub(super) names: &'n [&'n str],
    pub(super) expired: bool,
    pub(super) revoked: bool,
}

/// A certificate and its key.
pub(super) struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// What a server saw of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saw {
    pub(super) sni: Option<String>,
    pub(super) alpn: Option<String>,
    pub(super) certificate: bool,
    pub(super) resumed: bool,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        let directory = tempfile::tempdir().unwrap();
        // Two of one name would be told apart by their keys alone.
        params.distinguished_name.push(DnType::CommonName, directory.path().to_str().unwrap());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, directory };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    /// Its own certificate.
    pub(super) fn ca(&self) -> String {
        self.path("ca.pem")
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        // As Kubernetes' volumes do: the new file is whole when it takes the place of the old one.
        let new: PathBuf = self.path(&format!(".{name}")).into();
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(super) fn issue(&self, wanted: Wanted<'_>) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "of the tests");
        params.subject_alt_names = wanted
            .names
            .iter()
            .map(|name| match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) if name.contains("://") => SanType::URI((*name).try_into().unwrap()),
                Err(_) => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(if wanted.expired { 2021 } else { 2120 }, 1, 1);
        params.serial_number = wanted.revoked.then(|| SerialNumber::from(REVOKED));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { certificate, key }
    }

    /// Writes a certificate and its key as `NAME.crt` and `NAME.key`, and returns the paths.
    pub(super) fn put(&self, name: &str, issued: &Issued) -> (String, String) {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        self.write(&certificate, &issued.certificate.pem());
        self.write(&key, &issued.key.serialize_pem());
        (self.path(&certificate), self.path(&key))
    }

    /// Writes a list of what was revoked.
    pub(super) fn list(&self) -> String {
        self.list_until("crl.pem", 2119)
    }

    /// The same in a file of this name, in force until this year.
    pub(super) fn list_until(&self, name: &str, year: i32) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(REVOKED),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2022, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.write(name, &list.signed_by(&self.issuer).unwrap().pem().unwrap());
        self.path(name)
    }

    fn acceptor(&self, issued: &Issued, asks: bool) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(vec![issued.certificate.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// A server with this certificate, which asks for the client's if `asks`; what it saw of each client.
    pub(super) async fn server<F>(
        &self,
        issued: &Issued,
        asks: bool,
        connection: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
    ) -> (SocketAddr, Arc<Mutex<Vec<Saw>>>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let acceptor = self.acceptor(issued, asks);
        let saw = Arc::new(Mutex::new(Vec::new()));
        let sees = Arc::clone(&saw);
        let address = serve(move |stream, _| {
            let (acceptor, connection, sees) = (acceptor.clone(), connection.clone(), Arc::clone(&sees));
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                {
                    let session = stream.get_ref().1;
                    sees.lock().unwrap().push(Saw {
                        sni: session.server_name().map(str::to_owned),
                        alpn: session.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap()),
                        certificate: session.peer_certificates().is_some(),
                        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
                    });
                }
                connection(stream).await;
            }
        })
        .await;
        (address, saw)
    }

    /// One of HTTP, which says `text`.
    pub(super) async fn http(
        &self,
        wanted: Wanted<'_>,
        asks: bool,
        text: &'static str,
    ) -> (SocketAddr, Arc<Mutex<Vec<Saw>>>) {
        self.server(&self.issue(wanted), asks, move |stream| async move {
            let service = service_fn(move |_| async move {
                Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(text)))
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        })
        .await
    }
}
