//! Certificates and keys, from files or made here.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use rustls::{Error as RustlsError, InconsistentKeys};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error as PemError, PemObject},
};
use zeroize::Zeroizing;

use super::{PEM_BYTES_MAX, TlsError};

/// A certificate chain and its key, and where they came from.
pub(super) struct Material {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) certificate_path: PathBuf,
    pub(super) key_path: PathBuf,
}

impl Material {
    /// Reads a chain and a key.
    pub(super) fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = chain(&read(certificate)?).map_err(|flaw| match flaw {
            Flaw::Nothing => TlsError::NoCertificate { path: certificate.into() },
            Flaw::NotPem(reason) => not_pem(certificate, reason),
        })?;
        let private = private_key(&read(key)?).map_err(|flaw| match flaw {
            Flaw::Nothing => TlsError::NoKey { path: key.into() },
            Flaw::NotPem(reason) => not_pem(key, reason),
        })?;
        let (certificate_path, key_path) = (certificate.into(), key.into());
        Ok(Self { chain, key: private, certificate_path, key_path })
    }

    /// Reads the self-signed certificate in `directory`; makes one where there is none, or one
    /// for other names.
    pub(super) fn self_signed(directory: &Path, names: &[String]) -> Result<Self, TlsError> {
        let (certificate, key) = (directory.join("dev-cert.pem"), directory.join("dev-key.pem"));
        // PEM readers skip what stands before a section, so the file itself tells its names.
        let title = format!("Self-signed for: {}\n", names.join(" "));
        let kept = is_file(&certificate)?
            && is_file(&key)?
            && read(&certificate)?.starts_with(title.as_bytes());
        if !kept {
            let made = rcgen::generate_simple_self_signed(names)
                .map_err(|error| TlsError::SelfSigned(error.to_string()))?;
            fs::create_dir_all(directory)
                .map_err(|source| TlsError::Unwritable { path: directory.into(), source })?;
            // The key first: a crash between the two leaves no certificate that names its
            // owners, and the next start makes both anew.
            remove(&certificate)?;
            let private = Zeroizing::new(made.signing_key.serialize_pem());
            write_private(&key, private.as_bytes())?;
            write_private(&certificate, format!("{title}{}", made.cert.pem()).as_bytes())?;
        }
        Self::read(&certificate, &key)
    }
}

/// What is wrong with a PEM text.
pub(super) enum Flaw {
    /// It has no section of the kind.
    Nothing,
    /// It is no PEM.
    NotPem(&'static str),
}

/// The certificates of a PEM text: at least one.
pub(super) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| Flaw::NotPem(reason(&error)))?;
    if chain.is_empty() { Err(Flaw::Nothing) } else { Ok(chain) }
}

/// The first private key of a PEM text.
pub(super) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Flaw> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        PemError::NoItemsFound => Flaw::Nothing,
        error => Flaw::NotPem(reason(&error)),
    })
}

/// What the TLS library says against a certificate with a key.
pub(super) fn refused(error: RustlsError, certificate: PathBuf, key: PathBuf) -> TlsError {
    match error {
        RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::KeyMismatch { certificate, key }
        }
        error => TlsError::Unusable { certificate, key, reason: error.to_string() },
    }
}

/// Zeroed when dropped: it may be a key.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: path.into(), source };
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    // Sized beforehand: a vector that grows leaves copies behind.
    let capacity = usize::try_from(length.min(PEM_BYTES_MAX)).unwrap_or(0) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(TlsError::TooLarge { path: path.into() });
    }
    Ok(bytes)
}

fn not_pem(path: &Path, reason: &str) -> TlsError {
    TlsError::NotPem { path: path.into(), reason: reason.to_owned() }
}

/// The library's words can quote the section's text; for a key that would be the key.
fn reason(error: &PemError) -> &'static str {
    match error {
        PemError::MissingSectionEnd { .. } => "a section does not end",
        PemError::IllegalSectionStart { .. } => "a section does not begin properly",
        PemError::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be read as sections",
    }
}

fn is_file(path: &Path) -> Result<bool, TlsError> {
    path.try_exists().map_err(|source| TlsError::Unreadable { path: path.into(), source })
}

fn remove(path: &Path) -> Result<(), TlsError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(TlsError::Unwritable { path: path.into(), source })
        }
        _ => Ok(()),
    }
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
    let unwritable = |source| TlsError::Unwritable { path: path.into(), source };
    let part = path.with_extension("part");
    remove(&part)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&part).map_err(unwritable)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(unwritable)?;
    fs::rename(&part, path).map_err(unwritable)
}
