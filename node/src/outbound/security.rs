//! TLS to other servers: what one has to show ([`Demand`]), and whether it did.
//!
//! Where nothing says what a server's certificate has to be, any will do: encryption that stops
//! whoever only listens is better than none (RFC 7435), and mail goes in clear to servers that
//! offer none. What a server's domain demands of it is found in `terms.rs`.
//!
//! Invariants: sessions are resumed only where nothing is demanded, because a certificate is not
//! shown again then; time is [`Env`]'s.

pub(super) mod dane;
mod verify;

use std::{io, path::PathBuf, sync::Arc};

use env::{Env, Stream};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, ring},
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use self::verify::Verifier;
pub(super) use self::{
    dane::Dane,
    verify::{Sight, Unproven},
};

/// What a server's TLS has to show before mail goes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Demand {
    /// Nothing: there is TLS if it comes about.
    Nothing,
    /// TLS, with any certificate: the domain promises TLS, and says nothing of certificates that
    /// we understand (RFC 7672 §2.2).
    Encryption,
    /// A certificate that authorities vouch for, for the host's name (RFC 8461 §4.1, RFC 6125).
    Authority(Otherwise),
    /// A certificate that the DNS vouches for (RFC 7672).
    Dane(Arc<Dane>),
}

/// What comes of a certificate that is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// Nothing goes there.
    Refused,
    /// It is told in reports, and mail goes there all the same (RFC 8461 §5, `testing`).
    Told,
}

impl Demand {
    /// Whether mail must not go without.
    pub(super) fn is_strict(&self) -> bool {
        !matches!(self, Self::Nothing | Self::Authority(Otherwise::Told))
    }
}

/// What a connection is known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Assurance {
    /// Whoever stands in between reads and changes it.
    Clear,
    /// Whoever only listens does not read it.
    Encrypted,
    /// The server is the one that was meant.
    Verified,
}

/// What a handshake has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) assurance: Assurance,
    /// A certificate that is not as it should be, where that is no hindrance.
    pub(super) unproven: Option<Unproven>,
}

/// Why a handshake came to nothing; the connection is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The certificate is not what is demanded.
    #[error("{0}")]
    Unproven(Unproven),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// The client's side of TLS.
pub(super) struct Security {
    env: Env,
    provider: Arc<CryptoProvider>,
    any: Arc<ClientConfig>,
    /// PEM file; empty for the machine's own.
    roots_file: PathBuf,
    roots: OnceCell<Arc<RootCertStore>>,
}

impl Security {
    /// `roots_file` has the authorities; empty for the machine's own.
    pub(super) fn new(env: &Env, roots_file: PathBuf) -> Self {
        let provider = CryptoProvider::get_default().cloned();
        let provider = provider.unwrap_or_else(|| Arc::new(ring::default_provider()));
        let verifier = Verifier::new(env, &provider, Demand::Nothing, None);
        let any = Arc::new(config(&provider, Arc::new(verifier)));
        Self { env: env.clone(), provider, any, roots_file, roots: OnceCell::new() }
    }

    /// The client's side of a handshake with a server of this name.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub(super) async fn handshake(
        &self,
        stream: Stream,
        host: &str,
        demand: &Demand,
    ) -> Result<(Stream, Shown), HandshakeError> {
        let name = match demand {
            // RFC 7672 §2.2.3: the name that has the records.
            Demand::Dane(dane) => dane.base.as_str(),
            _ => host.trim_start_matches('[').trim_end_matches([']', '.']),
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| HandshakeError::Failed(error.to_string()))?;
        if *demand == Demand::Nothing {
            let connector = TlsConnector::from(Arc::clone(&self.any));
            let stream = connector.connect(name, stream).await;
            let stream = stream.map_err(|error| HandshakeError::Failed(error.to_string()))?;
            let shown = Shown { assurance: Assurance::Encrypted, unproven: None };
            return Ok((Box::new(stream), shown));
        }
        let roots = match demand {
            Demand::Authority(_) => Some(self.roots().await.map_err(HandshakeError::Failed)?),
            _ => None,
        };
        let verifier = Arc::new(Verifier::new(&self.env, &self.provider, demand.clone(), roots));
        let mut config = config(&self.provider, Arc::clone(&verifier));
        config.resumption = Resumption::disabled();
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        match (shaken, verifier.sight()) {
            (Ok(stream), sight) => Ok((Box::new(stream), shown(sight))),
            (Err(_), Some(Sight::Unproven(unproven))) => Err(HandshakeError::Unproven(unproven)),
            (Err(error), _) => Err(HandshakeError::Failed(error.to_string())),
        }
    }

    /// The authorities. They are read when they are first needed.
    async fn roots(&self) -> Result<Arc<RootCertStore>, String> {
        let read = || async {
            let file = self.roots_file.clone();
            let read = self.env.run_blocking(move || read_roots(&file)).await;
            read.unwrap_or_else(|_| Err("reading was broken off".to_owned()))
        };
        let roots = self.roots.get_or_try_init(read).await;
        roots
            .cloned()
            .map_err(|reason| format!("no authorities to check certificates by: {reason}"))
    }
}

fn shown(sight: Option<Sight>) -> Shown {
    match sight {
        Some(Sight::Proven) => Shown { assurance: Assurance::Verified, unproven: None },
        Some(Sight::Unproven(unproven)) => {
            Shown { assurance: Assurance::Encrypted, unproven: Some(unproven) }
        }
        Some(Sight::Anything) | None => Shown { assurance: Assurance::Encrypted, unproven: None },
    }
}

fn config(provider: &Arc<CryptoProvider>, verifier: Arc<Verifier>) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

fn read_roots(file: &std::path::Path) -> Result<Arc<RootCertStore>, String> {
    let certificates = if file.as_os_str().is_empty() {
        let loaded = rustls_native_certs::load_native_certs();
        if let Some(error) = loaded.errors.first() {
            tracing::warn!(%error, "some of the machine's authorities cannot be read");
        }
        loaded.certs
    } else {
        let read = std::fs::read(file).map_err(|error: io::Error| error.to_string());
        let pem = read.map_err(|error| format!("{}: {error}", file.display()))?;
        CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("{}: {error}", file.display()))?
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err("there are none".to_owned()) } else { Ok(Arc::new(roots)) }
}

#[cfg(test)]
mod tests;
