//! The files that a rule's `tls` names: read as PEM, and looked at again for changes. Used by `tls`; on the thread that
//! publishes programs, never on a worker.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, TrustAnchor};

/// A larger file is no certificate: the authorities of a whole system are some 250 KiB.
const MAX_FILE: u64 = 4 << 20;

/// Where systems keep the authorities that everybody may know.
const PUBLIC: [&str; 3] = ["/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted"];

/// Which files rules may name.
#[derive(Clone, Debug, Default)]
pub enum TlsFiles {
    /// Any: the rules are the operator's own words.
    #[default]
    Any,
    /// Those of this directory's subdirectory with the name of the rule's namespace, so that no tenant uses another's
    /// key; and authorities where systems keep them.
    Below(PathBuf),
}

impl TlsFiles {
    /// Reads a file for a rule of `namespace`.
    ///
    /// # Errors
    /// In a sentence's end: it is not there, too large, or not for the rule.
    pub(super) fn read(&self, path: &str, namespace: &str, authority: bool) -> Result<Vec<u8>, String> {
        let real = fs::canonicalize(path).map_err(|error| self.told(path, namespace, &error))?;
        if !self.allows(&real, namespace, authority) {
            return Err(self.not_allowed(path, namespace));
        }
        let described = fs::metadata(&real).map_err(|error| format!("{path} cannot be read: {error}"))?;
        if !described.is_file() || described.len() > MAX_FILE {
            return Err(format!("{path} is no file of at most {} MiB", MAX_FILE >> 20));
        }
        fs::read(&real).map_err(|error| format!("{path} cannot be read: {error}"))
    }

    fn allows(&self, real: &Path, namespace: &str, authority: bool) -> bool {
        let Self::Below(directory) = self else { return true };
        let own = fs::canonicalize(directory.join(namespace));
        // What a system trusts may be a link to any place of its own.
        own.is_ok_and(|own| real.starts_with(own)) || (authority && PUBLIC.iter().any(|known| real.starts_with(known)))
    }

    /// Whether another tenant's file is there is nobody's business.
    fn told(&self, path: &str, namespace: &str, error: &io::Error) -> String {
        match self {
            Self::Any => format!("{path} cannot be read: {error}"),
            Self::Below(directory)
                if Path::new(path).starts_with(directory.join(namespace))
                    && !Path::new(path).components().any(|part| part == Component::ParentDir) =>
            {
                format!("{path} cannot be read: {error}")
            }
            Self::Below(_) => self.not_allowed(path, namespace),
        }
    }

    fn not_allowed(&self, path: &str, namespace: &str) -> String {
        let below = match self {
            Self::Any => PathBuf::from("/"),
            Self::Below(directory) => directory.join(namespace),
        };
        format!("{path} is not below {}, where files for rules of this namespace are", below.display())
    }
}

/// What tells whether a file was replaced: device, inode, size, and the times of its content and of its entry.
pub(super) type Stamp = Option<[i64; 7]>;

/// `None` = it is not there.
pub(super) fn stamp(path: &str) -> Stamp {
    let of = |m: Metadata| {
        [m.dev() as i64, m.ino() as i64, m.size() as i64, m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()]
    };
    fs::metadata(path).ok().map(of)
}

/// The certificates of a file.
///
/// # Errors
/// When there is none, or what is there is no PEM.
pub(super) fn certificates(path: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    all(path, "certificate", text)
}

/// All sections of one sort; there must be one.
pub(super) fn all<T: PemObject>(path: &str, sort: &str, text: &[u8]) -> Result<Vec<T>, String> {
    let found: Result<Vec<T>, pem::Error> = T::pem_slice_iter(text).collect();
    let found = found.map_err(|error| format!("{path} is no PEM: {error}"))?;
    if found.is_empty() { Err(format!("{path} has no {sort}")) } else { Ok(found) }
}

/// As what authorities are looked up by.
pub(super) fn anchors(certificates: &[CertificateDer<'_>]) -> Result<Arc<[TrustAnchor<'static>]>, webpki::Error> {
    certificates.iter().map(|one| webpki::anchor_from_trusted_cert(one).map(|anchor| anchor.to_owned())).collect()
}

/// The authorities that the system trusts, read once: an image does not change while it runs. Mozilla's where it has
/// none, as the image of the agent is empty.
pub(super) fn of_system() -> Arc<[TrustAnchor<'static>]> {
    static SYSTEM: LazyLock<Arc<[TrustAnchor<'static>]>> = LazyLock::new(|| {
        let found = rustls_native_certs::load_native_certs();
        // One that is broken beside others is not worth to go without them all.
        let usable = found.certs.iter().filter_map(|one| anchors(std::slice::from_ref(one)).ok());
        let all: Vec<TrustAnchor<'static>> = usable.flat_map(|one| one.to_vec()).collect();
        if all.is_empty() { webpki_roots::TLS_SERVER_ROOTS.into() } else { all.into() }
    });
    Arc::clone(&SYSTEM)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn rules_of_a_namespace_read_its_own_files_and_no_others() {
        let all = tempfile::tempdir().unwrap();
        let path = |name: &str| all.path().join(name).to_str().unwrap().to_owned();
        for (file, text) in [("tls/shop/ca.pem", "own"), ("tls/other/ca.pem", "other"), ("secret", "secret")] {
            fs::create_dir_all(all.path().join(file).parent().unwrap()).unwrap();
            fs::write(path(file), text).unwrap();
        }
        symlink(path("secret"), path("tls/shop/link")).unwrap();
        // As a mounted Secret has it.
        symlink("ca.pem", path("tls/shop/current.pem")).unwrap();
        let files = TlsFiles::Below(path("tls").into());
        for own in ["tls/shop/ca.pem", "tls/shop/current.pem", "tls/shop/../shop/ca.pem"] {
            assert_eq!(files.read(&path(own), "shop", false), Ok(b"own".to_vec()), "{own}");
        }
        for foreign in ["tls/other/ca.pem", "tls/shop/link", "secret", "tls/shop/../other/ca.pem"] {
            let refused = files.read(&path(foreign), "shop", true).unwrap_err();
            // Of what is not there nothing else is said.
            let absent = path(&foreign.replace("other/ca", "other/no").replace("secret", "none"));
            assert!(refused.contains("is not below "), "{refused}");
            let told = files.read(&absent, "shop", true).unwrap_err();
            assert_eq!(told.replace(&absent, ""), refused.replace(&path(foreign), ""));
        }
        let missing = files.read(&path("tls/shop/none.pem"), "shop", false).unwrap_err();
        assert!(missing.contains("cannot be read"), "{missing}");
        assert_eq!(TlsFiles::Any.read(&path("secret"), "shop", false), Ok(b"secret".to_vec()));
    }

    #[test]
    fn a_file_that_is_none_or_too_large_is_not_read() {
        let all = tempfile::tempdir().unwrap();
        let large = all.path().join("large");
        fs::File::create(&large).unwrap().set_len(MAX_FILE + 1).unwrap();
        for path in [large.to_str().unwrap(), all.path().to_str().unwrap(), "/dev/zero"] {
            let refused = TlsFiles::Any.read(path, "shop", true).unwrap_err();
            assert!(refused.contains("is no file of at most"), "{refused}");
        }
    }
}
