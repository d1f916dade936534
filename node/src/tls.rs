//! TLS for every listener: certificates, session tickets, the server's handshake.
//!
//! [`Tls`] holds the certificates in force: that of the node's own files, where it has any, and those
//! of the store ([`cluster::certificates`]); `tls/shelf.rs` says which one a client is shown. Each has
//! a configuration of its own. [`Tls::reload`] reads the files again and swaps it in one step:
//! handshakes under way end with the old one, and a failed reload changes nothing.
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
//! Deliberately absent: ACME, client certificates, OCSP stapling, two kinds of keys for one name.

mod binding;
mod der;
mod examine;
mod facts;
mod handshake;
mod material;
mod shared;
mod shelf;
#[cfg(test)]
mod tests;
mod tickets;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use env::{Env, Timestamp};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use examine::{CertificateError, Examined, HOSTS_MAX, examine};
pub use facts::Facts;
pub(crate) use facts::public_key_info;
pub use handshake::{AcceptError, TlsInfo, TlsStream};
pub(crate) use shared::follow;
pub(crate) use shelf::chosen;

use cluster::tickets::TicketKey;
use material::Material;
use shelf::{Served, Shelf};
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

/// Where the node's own certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
    SelfSigned {
        directory: PathBuf,
        names: Vec<String>,
    },
    /// It has none: there are those of the store.
    Nowhere {
        hostname: String,
    },
}

impl Source {
    fn load(&self, making: &Making) -> Result<Option<Arc<Served>>, TlsError> {
        let material = match self {
            Self::Files { certificate, key } => Material::read(certificate, key)?,
            Self::SelfSigned { directory, names } => Material::self_signed(directory, names)?,
            Self::Nowhere { .. } => return Ok(None),
        };
        let Material { chain, key, certificate_path, key_path } = material;
        let served = making.serve(chain, key);
        let served =
            served.map_err(|error| material::refused(error, certificate_path, key_path))?;
        Ok(Some(Arc::new(served)))
    }

    /// Whose certificate is shown to whoever names nobody, where there is no own one.
    fn hostname(&self) -> &str {
        match self {
            Self::Nowhere { hostname } => hostname,
            Self::Files { .. } | Self::SelfSigned { .. } => "",
        }
    }
}

/// TLS as a server. Clones share the certificates.
#[derive(Clone)]
pub struct Tls {
    env: Env,
    source: Arc<Source>,
    shelf: Arc<RwLock<Arc<Shelf>>>,
    making: Making,
}

/// What makes a configuration of a certificate.
#[derive(Clone)]
struct Making {
    provider: Arc<CryptoProvider>,
    ticket_keys: TicketKeys,
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

    /// Without a certificate of its own, with those that [`Tls::share`] brings. To clients that
    /// ask for no name it shows the one for `hostname`.
    pub fn without_files(env: &Env, hostname: &str) -> Self {
        let source = Source::Nowhere { hostname: hostname.to_owned() };
        Self::with(env, source, Making::new(env), None)
    }

    fn new(env: &Env, source: Source) -> Result<Self, TlsError> {
        let making = Making::new(env);
        let own = source.load(&making)?;
        Ok(Self::with(env, source, making, own))
    }

    fn with(env: &Env, source: Source, making: Making, own: Option<Arc<Served>>) -> Self {
        let shelf = Shelf::new(own, BTreeMap::new(), source.hostname());
        let (env, source) = (env.clone(), Arc::new(source));
        Self { env, source, shelf: Arc::new(RwLock::new(Arc::new(shelf))), making }
    }

    /// Reads the files again, where there are any; new handshakes use what is in them. Reads small
    /// files, so a signal handler's task may call it.
    ///
    /// # Errors
    /// [`TlsError`]; what was in force stays in force.
    pub fn reload(&self) -> Result<(), TlsError> {
        let own = self.source.load(&self.making)?;
        self.replace(|held| Shelf::new(own, held.stored.clone(), self.source.hostname()));
        Ok(())
    }

    /// Whether there is no certificate at all.
    pub fn is_empty(&self) -> bool {
        self.shelf().is_empty()
    }

    /// Until when the certificate of the node's own files is good.
    pub(crate) fn own_until(&self) -> Option<Timestamp> {
        self.shelf().own.as_ref().map(|own| own.facts.not_after)
    }

    /// When the first of the store's certificates that are in use expires.
    pub(crate) fn stored_until(&self) -> Option<Timestamp> {
        self.shelf().stored_until()
    }

    /// Seals and opens tickets with the keys that all nodes share.
    pub(crate) fn share_tickets(&self, keys: Vec<TicketKey>) {
        self.making.ticket_keys.set(keys);
    }

    fn shelf(&self) -> Arc<Shelf> {
        Arc::clone(&self.shelf.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another shelf up; one after the other where several want to.
    fn replace(&self, with: impl FnOnce(&Shelf) -> Shelf) {
        let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
        let new = with(&shelf);
        *shelf = Arc::new(new);
    }
}

/// What a certificate (DER) says of itself.
pub(crate) fn facts(certificate: &[u8]) -> Option<Facts> {
    Facts::read(certificate)
}

impl Making {
    fn new(env: &Env) -> Self {
        // What the process has chosen, as a simulation does, whose handshakes follow from its seed.
        let provider = CryptoProvider::get_default().cloned();
        let provider = provider.unwrap_or_else(|| Arc::new(ring::default_provider()));
        Self { provider, ticket_keys: TicketKeys::own(env) }
    }

    fn serve(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Served, rustls::Error> {
        let unreadable = rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding);
        let leaf = chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default();
        let facts = Facts::read(&leaf).ok_or(unreadable)?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.ticketer = Arc::new(Ticketer::new(self.ticket_keys.clone(), &leaf));
        // SMTP and IMAP say by their port what they are: no ALPN. `session_storage` stays the
        // builder's: none, so that tickets are the only way to resume.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let end_point = binding::server_end_point(&leaf);
        Ok(Served { config: Arc::new(config), end_point, facts })
    }
}
