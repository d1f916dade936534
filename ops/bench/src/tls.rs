//! TLS as a client, and whom it trusts.

use std::{net::SocketAddr, path::Path, sync::Arc};

use env::Stream;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use crate::{
    BenchError,
    failure::{Failure, Kind},
};

/// When a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TlsMode {
    /// Never.
    None,
    /// After STARTTLS.
    Starttls,
    /// From the start.
    Implicit,
}

/// How to shake hands.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// Whom to trust.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trust<'a> {
    /// The certificates of this PEM file, and whom they vouch for.
    File(&'a Path),
    /// Anyone on this machine.
    Anyone,
}

impl Tls {
    /// # Errors
    /// Where the name or the file is of no use, or anyone is to be trusted elsewhere than on this
    /// machine.
    pub(crate) fn new(
        host: &str,
        address: SocketAddr,
        trust: Trust<'_>,
    ) -> Result<Self, BenchError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions");
        let config = match trust {
            Trust::File(path) => builder.with_root_certificates(roots(path)?).with_no_client_auth(),
            Trust::Anyone if address.ip().is_loopback() => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unchecked { provider }))
                .with_no_client_auth(),
            Trust::Anyone => {
                return Err(BenchError::Usage(format!(
                    "--insecure is for servers on this machine; {address} is not: give --ca FILE"
                )));
            }
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| BenchError::Usage(format!("{host} cannot stand in a certificate")))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// As rustls says.
    pub(crate) async fn connect(&self, stream: Stream) -> Result<Stream, Failure> {
        match self.connector.connect(self.name.clone(), stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(Failure::lost(Kind::Connect, format_args!("TLS: {error}"))),
        }
    }
}

fn roots(path: &Path) -> Result<RootCertStore, BenchError> {
    let shown = path.display().to_string();
    let pem =
        std::fs::read(path).map_err(|source| BenchError::File { path: shown.clone(), source })?;
    let unfit = |reason: String| BenchError::Usage(format!("{shown}: {reason}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unfit(error.to_string()))?;
        roots.add(certificate).map_err(|error| unfit(error.to_string()))?;
    }
    if roots.is_empty() { Err(unfit("no certificate in it".to_owned())) } else { Ok(roots) }
}

/// Takes any certificate, and checks that the server has its key.
#[derive(Debug)]
struct Unchecked {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_trusted_on_this_machine_alone() {
        let at = |address: &str| {
            Tls::new("mx.example.org", address.parse().unwrap(), Trust::Anyone).map(|_| ())
        };
        assert!(at("127.0.0.1:993").is_ok());
        assert!(at("[::1]:993").is_ok());
        assert!(matches!(at("192.0.2.1:993"), Err(BenchError::Usage(_))));
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let address = "127.0.0.1:993".parse().unwrap();
        let made = Tls::new("localhost", address, Trust::File(file.path()));
        assert!(
            matches!(made.map(|_| ()), Err(BenchError::Usage(text)) if text.contains("no cert"))
        );
    }
}
