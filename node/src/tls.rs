//! TLS for every listener: certificates, session tickets, the server's handshake.
//!
//! [`Tls`] holds the configuration in force. [`Tls::reload`] reads the files again and swaps it in
//! one step: handshakes under way end with the old one, and a failed reload changes nothing.
//!
//! Standards: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2; nothing older is spoken, RFC 8996), RFC 5077
//! and RFC 8446 §4.6.1 (tickets), RFC 9266 and RFC 5929 §4 (channel bindings).
//!
//! Invariants:
//! - Resumption is by stateless tickets alone; no session is kept in memory.
//! - Tickets of one certificate are never resumed under another, so that both sides mean the same
//!   certificate by `tls-server-end-point`.
//! - A private key is in no error, log or `Debug`.
//!
//! The ticket keys come from the store ([`cluster::tickets`]), so that a client resumes on any node
//! that shows the same certificate; until they are there, they are this process's. `ring` draws
//! its own randomness, so a handshake is the one thing here that [`env::Env`] does not make
//! repeatable.
//!
//! Deliberately absent: ACME, client certificates, OCSP stapling, several certificates by SNI.

mod binding;
mod handshake;
mod material;
#[cfg(test)]
mod tests;
mod tickets;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use env::Env;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    version::{TLS12, TLS13},
};

pub use handshake::{AcceptError, TlsInfo, TlsStream};

use cluster::tickets::TicketKey;
use material::Material;
use tickets::{TicketKeys, Ticketer};

/// A client that has not ended the handshake by now has no use for the connection, and holds a
/// socket.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(15);

/// The largest certificate or key file: a long chain has some tens of kilobytes.
pub const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is larger than [`PEM_BYTES_MAX`].
    #[error("{} is too large for a certificate or key", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file is not PEM.
    #[error("{} is not PEM: {reason}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No `CERTIFICATE` section.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// No `PRIVATE KEY` section.
    #[error("{} holds no private key", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The first certificate is of another key.
    #[error("the key in {} does not belong to the first certificate in {}", key.display(), certificate.display())]
    KeyMismatch {
        /// The certificates' file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate or key is of a kind that cannot be used.
    #[error("cannot use {} with {}: {reason}", certificate.display(), key.display())]
    Unusable {
        /// The certificates' file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The TLS library's own words.
        reason: String,
    },
    /// The TLS library could not be set up.
    #[error("cannot set TLS up: {0}")]
    Setup(rustls::Error),
    /// No self-signed certificate could be made for these names.
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(String),
    /// A self-signed certificate could not be kept.
    #[error("cannot write {}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Files { certificate: PathBuf, key: PathBuf },
    SelfSigned { directory: PathBuf, names: Vec<String> },
}

impl Source {
    fn load(&self) -> Result<Material, TlsError> {
        match self {
            Self::Files { certificate, key } => Material::read(certificate, key),
            Self::SelfSigned { directory, names } => Material::self_signed(directory, names),
        }
    }
}

/// TLS as a server. Clones share the configuration.
#[derive(Clone)]
pub struct Tls {
    env: Env,
    source: Arc<Source>,
    current: Arc<RwLock<Arc<Current>>>,
    ticket_keys: TicketKeys,
}

/// A configuration, and what is derived from its certificate.
struct Current {
    config: Arc<ServerConfig>,
    end_point: Option<Vec<u8>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Tls {
    /// From PEM files: the certificate chain, our own first, and its private key (PKCS #8, PKCS #1
    /// or SEC 1).
    ///
    /// # Errors
    /// [`TlsError`], which names the file and what is wrong with it.
    pub fn from_files(env: &Env, certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Self::new(env, Source::Files { certificate: certificate.into(), key: key.into() })
    }

    /// With a self-signed certificate for these DNS names and IP addresses, for a first try on
    /// one's own machine. It is kept in `directory` as `dev-cert.pem` and `dev-key.pem`, and made
    /// anew where it is for other names.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn self_signed(env: &Env, directory: &Path, names: &[String]) -> Result<Self, TlsError> {
        Self::new(env, Source::SelfSigned { directory: directory.into(), names: names.to_vec() })
    }

    fn new(env: &Env, source: Source) -> Result<Self, TlsError> {
        let ticket_keys = TicketKeys::own(env);
        let current = configure(source.load()?, &ticket_keys)?;
        Ok(Self {
            ticket_keys,
            env: env.clone(),
            source: Arc::new(source),
            current: Arc::new(RwLock::new(Arc::new(current))),
        })
    }

    /// Reads the files again; new handshakes use what is in them. Reads small files, so a signal
    /// handler's task may call it.
    ///
    /// # Errors
    /// [`TlsError`]; what was in force stays in force.
    pub fn reload(&self) -> Result<(), TlsError> {
        let new = Arc::new(configure(self.source.load()?, &self.ticket_keys)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Seals and opens tickets with the keys that all nodes share.
    pub(crate) fn share_tickets(&self, keys: Vec<TicketKey>) {
        self.ticket_keys.set(keys);
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn configure(material: Material, ticket_keys: &TicketKeys) -> Result<Current, TlsError> {
    let end_point = material.chain.first().and_then(|leaf| binding::server_end_point(leaf));
    let leaf = material.chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default();
    // What the process has chosen, as a simulation does, whose handshakes follow from its seed.
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(ring::default_provider()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_single_cert(material.chain, material.key)
        .map_err(|error| material::refused(error, material.certificate_path, material.key_path))?;
    config.ticketer = Arc::new(Ticketer::new(ticket_keys.clone(), &leaf));
    // SMTP and IMAP say by their port what they are: no ALPN. `session_storage` stays the
    // builder's: none, so that tickets are the only way to resume.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Current { config: Arc::new(config), end_point })
}
