//! Holds a server's certificate against what is demanded.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use env::Env;
use rustls::{
    CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Dane, Demand, Otherwise};

/// Why a certificate is not what is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::outbound) enum Unproven {
    /// It is another server's.
    #[error("the certificate is not for this name")]
    OtherName,
    /// It is over, or not good yet.
    #[error("the certificate has expired, or is not valid yet")]
    Expired,
    /// Nobody whom we know vouches for it.
    #[error("no authority that is known here vouches for the certificate")]
    Untrusted,
    /// The domain's records say otherwise.
    #[error("the certificate does not match the domain's TLSA records")]
    OtherThanTlsa,
    /// Its form or its signatures.
    #[error("the certificate is not valid")]
    Invalid,
}

impl Unproven {
    /// RFC 8460 §4.3.
    pub(in crate::outbound) fn result_type(self) -> &'static str {
        match self {
            Self::OtherName => "certificate-host-mismatch",
            Self::Expired => "certificate-expired",
            Self::Untrusted => "certificate-not-trusted",
            Self::OtherThanTlsa | Self::Invalid => "validation-failure",
        }
    }

    fn of(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(error) = error else { return Self::Invalid };
        match error {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::OtherName
            }
            CertificateError::UnknownIssuer => Self::Untrusted,
            _ => Self::Invalid,
        }
    }
}

/// What was seen of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::outbound) enum Sight {
    /// Nobody looked.
    Anything,
    /// It is what was demanded.
    Proven,
    /// It is not.
    Unproven(Unproven),
}

/// One handshake's verifier; where nothing is demanded, that of many.
#[derive(Debug)]
pub(super) struct Verifier {
    env: Env,
    provider: Arc<CryptoProvider>,
    demand: Demand,
    roots: Option<Arc<RootCertStore>>,
    sight: Mutex<Option<Sight>>,
}

impl Verifier {
    pub(super) fn new(
        env: &Env,
        provider: &Arc<CryptoProvider>,
        demand: Demand,
        roots: Option<Arc<RootCertStore>>,
    ) -> Self {
        let (env, provider) = (env.clone(), Arc::clone(provider));
        Self { env, provider, demand, roots, sight: Mutex::new(None) }
    }

    /// What was seen; `None` where the handshake did not come so far.
    pub(super) fn sight(&self) -> Option<Sight> {
        *self.sight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> UnixTime {
        let seconds = u64::try_from(self.env.wall().unix_seconds()).unwrap_or(0);
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn look(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Sight {
        let proven = match &self.demand {
            Demand::Nothing | Demand::Encryption => return Sight::Anything,
            Demand::Authority(_) => self.by_authority(certificate, others, name),
            Demand::Dane(dane) => self.by_records(certificate, others, dane),
        };
        proven.map_or_else(Sight::Unproven, |()| Sight::Proven)
    }

    fn by_authority(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Result<(), Unproven> {
        let roots = self.roots.as_ref().ok_or(Unproven::Untrusted)?;
        let parsed = ParsedCertificate::try_from(certificate).map_err(|it| Unproven::of(&it))?;
        self.chain(&parsed, others, roots)?;
        verify_server_name(&parsed, name).map_err(|it| Unproven::of(&it))
    }

    fn chain(
        &self,
        certificate: &ParsedCertificate<'_>,
        others: &[CertificateDer<'_>],
        roots: &RootCertStore,
    ) -> Result<(), Unproven> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            certificate,
            roots,
            others,
            self.now(),
            algorithms,
        )
        .map_err(|error| Unproven::of(&error))
    }

    /// RFC 7671 §5.1: the server's own certificate needs no name, no date and no issuer. §5.2: a trust
    /// anchor vouches for one that has both.
    fn by_records(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        dane: &Dane,
    ) -> Result<(), Unproven> {
        if dane.is_end_entity(certificate) {
            return Ok(());
        }
        let sent = others.iter().filter(|it| dane.is_anchor(it)).cloned();
        let told = dane.anchors().map(|it| CertificateDer::from(it.to_vec()));
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(sent.map(CertificateDer::into_owned).chain(told));
        if roots.is_empty() {
            return Err(Unproven::OtherThanTlsa);
        }
        let parsed = ParsedCertificate::try_from(certificate).map_err(|it| Unproven::of(&it))?;
        self.chain(&parsed, others, &roots).map_err(|unproven| match unproven {
            Unproven::Untrusted => Unproven::OtherThanTlsa,
            unproven => unproven,
        })?;
        let is_named = |name: &String| {
            let name = ServerName::try_from(name.as_str());
            name.is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
        };
        if dane.names.iter().any(is_named) { Ok(()) } else { Err(Unproven::OtherName) }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let sight = self.look(certificate, others, name);
        *self.sight.lock().unwrap_or_else(PoisonError::into_inner) = Some(sight);
        match (sight, &self.demand) {
            (Sight::Anything | Sight::Proven, _)
            | (Sight::Unproven(_), Demand::Authority(Otherwise::Told)) => {
                Ok(ServerCertVerified::assertion())
            }
            (Sight::Unproven(_), _) => {
                let failure = CertificateError::ApplicationVerificationFailure;
                Err(rustls::Error::InvalidCertificate(failure))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
