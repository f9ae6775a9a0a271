//! TLS toward upstreams, as DestinationRules ask for it. Made where programs are published, one for all clusters that ask
//! for the same, shared by all workers; used by `connect` in each handshake.
//!
//! What cannot be read is a problem that `app` tells of, and connections are refused: none is ever plain text instead.
//! Files are looked at again; while new ones cannot be used, the last good ones stay in force.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use http::{HeaderMap, header};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, OtherError};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use weir_mesh::program::{ClientTls, ClientTlsFiles};

use self::files::Stamp;
pub use self::files::TlsFiles;
use self::verify::{Trusted, Verifier, Wanted};
use super::target::Target;

mod files;
mod verify;

/// Sessions that are kept for servers of one policy, by name: a full handshake costs the worker a millisecond.
const SESSIONS: usize = 256;
/// In the place of a file, as in Istio: the authorities that the system trusts.
const SYSTEM: &str = "system";

/// What is going to be spoken: what servers are told by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
    /// Nobody knows.
    Bytes,
}

/// See the module.
pub(crate) struct Originator {
    tls: ClientTls,
    /// Of the rule.
    namespace: Arc<str>,
    files: TlsFiles,
    /// `sni`, where it is given; an error where it is none.
    sni: Option<Result<ServerName<'static>, String>>,
    state: ArcSwap<State>,
    stamps: Mutex<Vec<Stamp>>,
}

impl fmt::Debug for Originator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Originator").field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// What was made of the files.
#[derive(Default)]
struct State {
    /// `None` = they never were good.
    ready: Option<Ready>,
    /// Why the latest cannot be used.
    problem: Option<String>,
}

/// One for each of [`Speaks`].
#[derive(Clone)]
struct Ready([Arc<ClientConfig>; 3]);

impl Originator {
    pub(crate) fn new(tls: ClientTls, namespace: Arc<str>, files: TlsFiles) -> Self {
        let sni = tls
            .sni()
            .map(|name| ServerName::try_from(name.to_owned()).map_err(|_| format!("sni {name} is no name of a host")));
        let stamps = Mutex::default();
        let originator = Self { tls, namespace, files, sni, state: ArcSwap::default(), stamps };
        originator.refresh();
        originator
    }

    /// Whether it does what `tls` of a rule of `namespace` asks for.
    pub(crate) fn is_for(&self, tls: &ClientTls, namespace: &str) -> bool {
        self.tls == *tls && *self.namespace == *namespace
    }

    /// Why connections are refused, or by what they are not: the latest files are no good.
    pub(crate) fn problem(&self) -> Option<String> {
        let state = self.state.load();
        let problem = state.problem.as_ref()?;
        Some(match &state.ready {
            Some(_) => format!("{problem}; what was read before stays in force"),
            None => format!("{problem}; connections that it is for are refused"),
        })
    }

    /// What a connection is made with.
    ///
    /// # Errors
    /// Why there can be none.
    pub(crate) fn config(&self, speaks: Speaks) -> Result<Arc<ClientConfig>, String> {
        let state = self.state.load();
        match (&state.ready, &state.problem) {
            (Some(Ready(configs)), _) => Ok(Arc::clone(&configs[speaks as usize])),
            (None, Some(problem)) => Err(problem.clone()),
            (None, None) => Err("nothing has been read yet".to_owned()),
        }
    }

    /// What the server is asked by, as it is written: the rule's name, else that of the request, else the service's.
    fn asked<'a>(&'a self, request: Option<&'a HeaderMap>, target: &'a Target) -> &'a str {
        if let Some(sni) = self.tls.sni() {
            return sni;
        }
        match request.and_then(|headers| headers.get(header::HOST)) {
            Some(authority) => authority.to_str().map_or("", host_of),
            None => target.cluster().map_or("", |cluster| &cluster.host),
        }
    }

    /// The files that are named.
    fn paths(&self) -> impl Iterator<Item = &str> {
        let more = self.tls.more.as_deref();
        let all = more.map(|more| [&*more.ca_certificates, &more.ca_crl, &more.client_certificate, &more.private_key]);
        all.into_iter().flatten().filter(|path| !path.is_empty() && *path != SYSTEM)
    }

    /// Reads what has changed; true when that changed anything.
    pub(crate) fn refresh(&self) -> bool {
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        // Before reading: what changes from here on is found the next time.
        let latest: Vec<Stamp> = self.paths().map(files::stamp).collect();
        let former = self.state.load_full();
        if *stamps == latest && (former.ready.is_some() || former.problem.is_some()) {
            return false;
        }
        *stamps = latest;
        let made = self.make();
        let ready = made.as_ref().ok().cloned().or_else(|| former.ready.clone());
        self.state.store(Arc::new(State { ready, problem: made.err() }));
        true
    }

    fn make(&self) -> Result<Ready, String> {
        if let Some(Err(error)) = &self.sni {
            return Err(error.clone());
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Verifier { wanted: self.wanted()?, algorithms: provider.signature_verification_algorithms };
        let config = self.config_of(provider, verifier)?;
        let speaking = |alpn: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            Arc::new(config)
        };
        Ok(Ready([speaking(&[b"http/1.1"]), speaking(&[b"h2"]), speaking(&[])]))
    }

    fn config_of(&self, provider: Arc<CryptoProvider>, verifier: Verifier) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        if &*self.tls.mode != "MUTUAL" {
            return Ok(builder.with_no_client_auth());
        }
        let more = self.tls.more.as_deref().ok_or("MUTUAL names no clientCertificate")?;
        let (certificate, key) = (&*more.client_certificate, &*more.private_key);
        if certificate.is_empty() || key.is_empty() {
            return Err("MUTUAL needs clientCertificate and privateKey".to_owned());
        }
        let chain = files::certificates(certificate, &self.read(certificate, false)?)?;
        let own: Vec<PrivateKeyDer<'static>> = files::all(key, "private key", &self.read(key, false)?)?;
        let own = own.into_iter().next().ok_or("there is no private key")?;
        builder
            .with_client_auth_cert(chain, own)
            .map_err(|error| format!("{certificate} and {key} cannot be used: {error}"))
    }

    fn wanted(&self) -> Result<Wanted, String> {
        if self.tls.skips_verification() {
            return Ok(Wanted::Nothing);
        }
        let none = ClientTlsFiles::default();
        let more = self.tls.more.as_deref().unwrap_or(&none);
        let (anchors, pinned) = match &*more.ca_certificates {
            "" | SYSTEM => (files::of_system(), Vec::new()),
            path => {
                let found = files::certificates(path, &self.read(path, true)?)?;
                let anchors = files::anchors(&found).map_err(|error| format!("{path} cannot be used: {error}"))?;
                (anchors, found)
            }
        };
        let revoked = match &*more.ca_crl {
            "" => Vec::new(),
            path => {
                let lists: Vec<CertificateRevocationListDer<'static>> =
                    files::all(path, "revocation list", &self.read(path, true)?)?;
                let read = |list: &CertificateRevocationListDer<'_>| OwnedCertRevocationList::from_der(list);
                let lists: Result<Vec<_>, _> =
                    lists.iter().map(|list| read(list).map(CertRevocationList::from)).collect();
                lists.map_err(|error| format!("{path} cannot be used: {error}"))?
            }
        };
        Ok(Wanted::Trusted(Trusted { anchors, pinned, revoked, names: self.tls.subject_alt_names().into() }))
    }

    fn read(&self, path: &str, authority: bool) -> Result<Vec<u8>, String> {
        self.files.read(path, &self.namespace, authority)
    }
}

/// Without the port.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// What a handshake came to, as people read it: what is wrong with a certificate, without the shells around it.
pub(crate) fn told(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(what)))) => {
            format!("invalid peer certificate: {what}")
        }
        _ => error.to_string(),
    }
}

/// How one connection is encrypted.
#[derive(Debug)]
pub(crate) struct Sealing {
    pub(crate) originator: Arc<Originator>,
    pub(crate) name: ServerName<'static>,
    pub(crate) speaks: Speaks,
}

impl Sealing {
    /// For a target that asks for it; `request` = the headers of the request that it is for, if it is for one. What is no
    /// name of a host is not sent: then the certificate has to be for the endpoint's address.
    pub(crate) fn of(
        target: &Target,
        request: Option<&HeaderMap>,
        endpoint: SocketAddr,
        speaks: Speaks,
    ) -> Option<Self> {
        let originator = target.originator()?;
        let asked = ServerName::try_from(originator.asked(request, target));
        let name =
            asked.map_or_else(|_| ServerName::IpAddress(endpoint.ip().to_canonical().into()), |name| name.to_owned());
        Some(Self { originator: Arc::clone(originator), name, speaks })
    }
}

/// Tells a worker's connections apart by the name that the server was asked by: a connection that was verified for one
/// name is never taken for another.
#[derive(Debug)]
pub(crate) struct Names {
    known: RefCell<HashMap<u64, OfPod, RandomState>>,
    next: Cell<u64>,
}

/// Of one pod, by class.
#[derive(Debug, Default)]
struct OfPod {
    classes: HashMap<u32, HashMap<Box<str>, u64, RandomState>, RandomState>,
    count: usize,
}

impl Default for Names {
    fn default() -> Self {
        // Above the classes of connections without a name, which are 32 bits wide.
        Self { known: RefCell::default(), next: Cell::new(1 << 32) }
    }
}

impl Names {
    /// Names that are remembered of a pod, which chooses them by its Host; 64 KiB at 256 bytes each. Beyond it all of its own
    /// are forgotten: their idle connections are not used again, and close when their time is over.
    const MOST: usize = 256;

    /// See [`Target::class`]; connections to a target that is encrypted are told apart by the name too. Connections of one
    /// pod, class and name have the same number, and no others have it.
    pub(crate) fn class_of(&self, pod: u64, target: &Target, request: &HeaderMap) -> u64 {
        match target.originator() {
            None => u64::from(target.class()),
            Some(originator) => self.class(pod, target.class(), originator.asked(Some(request), target)),
        }
    }

    fn class(&self, pod: u64, class: u32, name: &str) -> u64 {
        let mut known = self.known.borrow_mut();
        let own = known.entry(pod).or_default();
        if let Some(found) = own.classes.get(&class).and_then(|names| names.get(name)) {
            return *found;
        }
        if own.count >= Self::MOST {
            *own = OfPod::default();
        }
        let number = self.next.get();
        self.next.set(number + 1);
        own.count += 1;
        own.classes.entry(class).or_default().insert(name.into(), number);
        number
    }

    /// Forgets those of a pod that is gone.
    pub(crate) fn forget_pod(&self, pod: u64) {
        self.known.borrow_mut().remove(&pod);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_numbers_of_their_own_and_do_not_gather() {
        let names = Names::default();
        let name = |n: usize| format!("h{n}.example.com");
        let first = names.class(1, 1, &name(0));
        assert!(first > u64::from(u32::MAX));
        assert_eq!(names.class(1, 1, &name(0)), first);
        assert_ne!(names.class(1, 2, &name(0)), first);
        let of_other = names.class(2, 1, &name(0));
        assert_ne!(of_other, first);
        let mut given: Vec<u64> = (0..3 * Names::MOST).map(|n| names.class(1, 1, &name(n))).collect();
        assert!(names.known.borrow()[&1].count <= Names::MOST);
        assert_eq!(names.class(2, 1, &name(0)), of_other, "no pod makes another's be forgotten");
        given.push(names.class(1, 1, &name(0)));
        let mut once = given.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), given.len(), "a number that was given to one name is never given to another");
        names.forget_pod(1);
        assert_eq!(names.known.borrow().len(), 1);
    }

    #[test]
    fn the_host_is_what_stands_before_the_port() {
        for (authority, host) in
            [("a", "a"), ("a:80", "a"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("10.0.0.1:1", "10.0.0.1")]
        {
            assert_eq!(host_of(authority), host);
        }
    }
}
