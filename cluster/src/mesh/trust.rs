//! Whom to trust: exactly the certificates in the roster, on both sides of every handshake.
//!
//! Invariant: a handshake ends well only with a peer that holds the key of a certificate which is
//! in the roster, byte for byte. Nothing in a certificate is read but its key: not its names, its
//! dates or its issuer.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use env::{Env, Monotonic};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, NamedGroup, PeerMisbehaved,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    version::TLS13,
};
use tokio::sync::{Notify, watch};

use super::{Identity, Peers};
use crate::limits::MESH_STRANGER_INTERVAL;

/// The protocol's name in the handshake (RFC 7301). Nodes that do not speak it do not connect.
const ALPN: &[u8] = b"rookery-mesh/1";

/// Makes both sides' TLS settings.
#[derive(Debug)]
pub(super) struct Trust {
    identity: Identity,
    provider: Arc<CryptoProvider>,
    roster: watch::Receiver<Arc<Peers>>,
    strangers: Arc<Strangers>,
    clock: Arc<WallClock>,
}

impl Trust {
    pub(super) fn new(
        env: &Env,
        identity: Identity,
        roster: watch::Receiver<Arc<Peers>>,
        strangers: Arc<Strangers>,
    ) -> Self {
        // What the process has chosen, as a simulation does, whose handshakes follow from its seed.
        let chosen = CryptoProvider::get_default().map(|chosen| CryptoProvider::clone(chosen));
        let chosen = chosen.unwrap_or_else(ring::default_provider);
        // One suite and one group: both ends are ours, and every handshake has the same size.
        let mut kx_groups = chosen.kx_groups;
        kx_groups.retain(|group| group.name() == NamedGroup::X25519);
        let provider = CryptoProvider {
            cipher_suites: vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups,
            ..chosen
        };
        let clock = Arc::new(WallClock(env.clone()));
        Self { identity, provider: Arc::new(provider), roster, strangers, clock }
    }

    /// Our own certificate.
    pub(super) fn certificate(&self) -> &[u8] {
        self.identity.certificate()
    }

    pub(super) fn clock(&self) -> Arc<WallClock> {
        Arc::clone(&self.clock)
    }

    /// For whoever connects to us.
    pub(super) fn server(&self) -> rustls::ServerConfig {
        let verifier = Roster {
            provider: Arc::clone(&self.provider),
            roster: self.roster.clone(),
            strangers: Arc::clone(&self.strangers),
        };
        let (provider, clock) = (Arc::clone(&self.provider), self.clock());
        let mut config = rustls::ServerConfig::builder_with_details(provider, clock)
            .with_protocol_versions(&[&TLS13])
            .expect("the suite is TLS 1.3's")
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(self.identity.chain(), self.identity.key())
            .expect("the key fits its certificate");
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would outlive the roster that it was made with.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config
    }

    /// For connecting to the one peer that has `certificate`.
    pub(super) fn client(&self, certificate: &[u8]) -> rustls::ClientConfig {
        let verifier =
            Expected { provider: Arc::clone(&self.provider), certificate: certificate.to_vec() };
        let (provider, clock) = (Arc::clone(&self.provider), self.clock());
        let mut config = rustls::ClientConfig::builder_with_details(provider, clock)
            .with_protocol_versions(&[&TLS13])
            .expect("the suite is TLS 1.3's")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.identity.chain(), self.identity.key())
            .expect("the key fits its certificate");
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config
    }
}

/// Accepts whom the roster has at the time of the handshake.
#[derive(Debug)]
struct Roster {
    provider: Arc<CryptoProvider>,
    roster: watch::Receiver<Arc<Peers>>,
    strangers: Arc<Strangers>,
}

impl ClientCertVerifier for Roster {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let known = self.roster.borrow().values().any(|peer| peer.certificate == **end_entity);
        if known {
            return Ok(ClientCertVerified::assertion());
        }
        self.strangers.met();
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(&self.provider, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Accepts the one peer that was called.
#[derive(Debug)]
struct Expected {
    provider: Arc<CryptoProvider>,
    certificate: Vec<u8>,
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.certificate == **end_entity {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(&self.provider, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

fn verify_signature(
    provider: &CryptoProvider,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    if signature.scheme != SignatureScheme::ED25519 {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    let algorithms = &provider.signature_verification_algorithms;
    verify_tls13_signature(message, certificate, signature, algorithms)
}

/// Tells that someone was met whom the roster lacks, no more often than somebody wants to hear it.
#[derive(Debug)]
pub(super) struct Strangers {
    env: Env,
    last: Mutex<Option<Monotonic>>,
    pub(super) notify: Notify,
}

impl Strangers {
    pub(super) fn new(env: Env) -> Self {
        Self { env, last: Mutex::new(None), notify: Notify::new() }
    }

    pub(super) fn met(&self) {
        let now = self.env.monotonic();
        let mut last = self.last.lock().expect("no code panics while it holds this");
        if last.is_none_or(|last| now - last >= MESH_STRANGER_INTERVAL) {
            *last = Some(now);
            self.notify.notify_one();
        }
    }
}

/// The environment's wall clock, for TLS and for the age of tokens.
#[derive(Debug)]
pub(super) struct WallClock(Env);

impl WallClock {
    fn since_epoch(&self) -> Duration {
        // A clock before 1970 is a machine without a clock.
        Duration::from_millis(u64::try_from(self.0.wall().unix_ms()).unwrap_or(0))
    }
}

impl rustls::time_provider::TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.since_epoch()))
    }
}

impl quinn::TimeSource for WallClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.since_epoch()
    }
}
