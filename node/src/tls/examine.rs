//! Looking at a certificate before all nodes show it.

use env::Timestamp;
use rustls::{Error as RustlsError, InconsistentKeys};
use zeroize::Zeroizing;

use super::{
    Making,
    facts::Facts,
    material::{self, Flaw},
};
use crate::date;

/// What is wrong with a certificate or its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The certificate's file is not PEM.
    #[error("the certificate's file is not PEM: {0}")]
    NotPem(&'static str),
    /// The key's file is not PEM.
    #[error("the key's file is not PEM: {0}")]
    KeyNotPem(&'static str),
    /// No `CERTIFICATE` section.
    #[error("the certificate's file holds no certificate")]
    NoCertificate,
    /// No `PRIVATE KEY` section; one under a passphrase counts as none.
    #[error("the key's file holds no private key that is readable without a passphrase")]
    NoKey,
    /// One of the chain cannot be read.
    #[error("certificate {0} of the chain cannot be read")]
    Unreadable(usize),
    /// RFC 5246 §7.4.2: each certificate is followed by its issuer's.
    #[error(
        "certificate {0} of the chain is not followed by its issuer's: the server's own comes first, \
         then the one that issued it, and so on"
    )]
    Order(usize),
    /// The first certificate is of another key.
    #[error("the key does not belong to the first certificate")]
    KeyMismatch,
    /// The certificate or key is of a kind that cannot be used.
    #[error("this certificate cannot be used with this key: {0}")]
    Unusable(String),
    /// It is good no more.
    #[error("certificate {number} of the chain has expired: {at}")]
    Expired {
        /// Its place in the chain, from 1.
        number: usize,
        /// When, for people.
        at: String,
    },
    /// It is not good yet.
    #[error("the certificate is good only from {0} on")]
    NotYet(String),
    /// No client asks for it.
    #[error("the certificate names no host (subjectAltName with a DNS name)")]
    NoHost,
    /// More hosts than [`HOSTS_MAX`].
    #[error("the certificate names more than {HOSTS_MAX} hosts")]
    ManyHosts,
    /// More bytes than the store takes.
    #[error("chain and key together have {0} bytes; the store takes {max}", max = BYTES_MAX)]
    TooLarge(usize),
}

/// Hosts of one certificate: more than any public authority puts into one.
pub const HOSTS_MAX: usize = 256;

const BYTES_MAX: usize = cluster::limits::CERTIFICATE_RECORD_BYTES_MAX;

/// A certificate that is good, with its key.
pub struct Examined {
    /// DER; the server's own first.
    pub chain: Vec<Vec<u8>>,
    /// The private key, DER.
    pub key: Zeroizing<Vec<u8>>,
    /// What the first says of itself.
    pub facts: Facts,
}

impl std::fmt::Debug for Examined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Examined").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// Looks at a chain and a key, both PEM, at this time.
///
/// # Errors
/// [`CertificateError`]; it holds nothing of the key.
pub fn examine(env: &env::Env, chain: &[u8], key: &[u8]) -> Result<Examined, CertificateError> {
    let chain = material::chain(chain).map_err(|flaw| match flaw {
        Flaw::Nothing => CertificateError::NoCertificate,
        Flaw::NotPem(reason) => CertificateError::NotPem(reason),
    })?;
    let key = material::private_key(key).map_err(|flaw| match flaw {
        Flaw::Nothing => CertificateError::NoKey,
        Flaw::NotPem(reason) => CertificateError::KeyNotPem(reason),
    })?;
    let bytes = chain.iter().map(|it| it.len()).sum::<usize>() + key.secret_der().len();
    if bytes > BYTES_MAX {
        return Err(CertificateError::TooLarge(bytes));
    }
    let facts = chain
        .iter()
        .enumerate()
        .map(|(at, der)| Facts::read(der).ok_or(CertificateError::Unreadable(at + 1)))
        .collect::<Result<Vec<_>, _>>()?;
    check_chain(&facts, env.wall())?;
    let kept = Zeroizing::new(key.secret_der().to_vec());
    let plain = chain.iter().map(|der| der.to_vec()).collect();
    let served = Making::new(env).serve(chain, key).map_err(|error| match error {
        RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            CertificateError::KeyMismatch
        }
        error => CertificateError::Unusable(error.to_string()),
    })?;
    Ok(Examined { chain: plain, key: kept, facts: served.facts })
}

fn check_chain(facts: &[Facts], now: Timestamp) -> Result<(), CertificateError> {
    let own = facts.first().ok_or(CertificateError::NoCertificate)?;
    for (at, pair) in facts.windows(2).enumerate() {
        if pair[0].issuer != pair[1].subject {
            return Err(CertificateError::Order(at + 1));
        }
    }
    if let Some(at) = facts.iter().position(|facts| facts.not_after < now) {
        let expired = date::rfc5322(facts[at].not_after);
        return Err(CertificateError::Expired { number: at + 1, at: expired });
    }
    if own.not_before > now {
        return Err(CertificateError::NotYet(date::rfc5322(own.not_before)));
    }
    match own.hosts.len() {
        0 => Err(CertificateError::NoHost),
        1..=HOSTS_MAX => Ok(()),
        _ => Err(CertificateError::ManyHosts),
    }
}

#[cfg(test)]
mod tests {
    use env::Env;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    fn params(names: &[&str]) -> CertificateParams {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        CertificateParams::new(names).unwrap()
    }

    /// PEM of a self-signed certificate and its key.
    fn made(params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[track_caller]
    fn refused(chain: &str, key: &str, expected: &str) {
        let told = examine(&Env::system(), chain.as_bytes(), key.as_bytes());
        assert_eq!(told.unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_good_one_is_taken_and_its_key_not_shown() {
        let (chain, key) = made(&params(&["mx.example.org", "*.example.org"]));
        let taken = examine(&Env::system(), chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(taken.facts.hosts, ["mx.example.org", "*.example.org"]);
        assert_eq!((taken.chain.len(), taken.key.is_empty()), (1, false));
        assert!(!format!("{taken:?}").contains("key"), "{taken:?}");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let (chain, key) = made(&params(&["mx.example.org"]));
        let mut others = params(&["mx.example.net"]);
        others.distinguished_name.push(rcgen::DnType::CommonName, "other");
        let (other, other_key) = made(&others);
        refused("", &key, "the certificate's file holds no certificate");
        refused(&key, &key, "the certificate's file holds no certificate");
        refused(
            &chain,
            &chain,
            "the key's file holds no private key that is readable without a passphrase",
        );
        refused(&chain, &other_key, "the key does not belong to the first certificate");
        let cut = &chain[..chain.len() / 2];
        refused(cut, &key, "the certificate's file is not PEM: a section does not end");
        refused(
            &chain,
            &key.replacen("\nM", "\n!", 1),
            "the key's file is not PEM: a section is not base64",
        );
        let hollow = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        refused(hollow, &key, "certificate 1 of the chain cannot be read");
        refused(&format!("{chain}{hollow}"), &key, "certificate 2 of the chain cannot be read");
        refused(
            &format!("{chain}{other}"),
            &key,
            "certificate 1 of the chain is not followed by its issuer's: the server's own comes \
             first, then the one that issued it, and so on",
        );
        let (nameless, nameless_key) = made(&params(&["192.0.2.1"]));
        refused(
            &nameless,
            &nameless_key,
            "the certificate names no host (subjectAltName with a DNS name)",
        );
        let long = chain.repeat(300);
        let told = examine(&Env::system(), long.as_bytes(), key.as_bytes()).unwrap_err();
        assert!(matches!(told, CertificateError::TooLarge(_)), "{told}");
    }

    #[test]
    fn dates_are_looked_at() {
        let mut past = params(&["mx.example.org"]);
        past.not_after = rcgen::date_time_ymd(2020, 1, 2);
        let (chain, key) = made(&past);
        let expected = "certificate 1 of the chain has expired: Thu, 2 Jan 2020 00:00:00 +0000";
        refused(&chain, &key, expected);
        let mut future = params(&["mx.example.org"]);
        future.not_before = rcgen::date_time_ymd(3000, 1, 1);
        let (chain, key) = made(&future);
        refused(
            &chain,
            &key,
            "the certificate is good only from Wed, 1 Jan 3000 00:00:00 +0000 on",
        );
    }

    #[test]
    fn a_chain_in_its_order_is_taken() {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut own = params(&["mx.example.org"]);
        own.distinguished_name.push(rcgen::DnType::CommonName, "mx.example.org");
        let own = own.signed_by(&key, &authority).unwrap();
        let (own, authority, key) = (own.pem(), authority.pem(), key.serialize_pem());
        let taken = |chain: String| examine(&Env::system(), chain.as_bytes(), key.as_bytes());
        assert_eq!(taken(format!("{own}{authority}")).unwrap().chain.len(), 2);
        assert!(taken(format!("{authority}{own}")).is_err());
    }
}
