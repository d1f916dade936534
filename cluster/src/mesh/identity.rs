//! Who a node is to its peers: a key and a self-signed certificate.

use env::Env;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ED25519, SerialNumber};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// The name in every certificate. Peers compare whole certificates, so it tells nothing; a name
/// under `.invalid` (RFC 6761 §6.4) cannot be mistaken for a host's.
pub(super) const NAME: &str = "node.rookery.invalid";

/// What comes before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410 §7).
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// What a node shows to its peers: a self-signed certificate, made anew for each life of a node.
pub struct Identity {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    /// A new key and its certificate. All of them have the same length.
    pub fn generate(env: &Env) -> Self {
        let mut key = Zeroizing::new(PKCS8_ED25519.to_vec());
        key.extend_from_slice(Zeroizing::new(env.random_array::<32>()).as_slice());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(key.as_slice()),
            &PKCS_ED25519,
        )
        .expect("any 32 bytes are an Ed25519 key");
        let mut serial = env.random_array::<16>();
        // DER writes numbers as short as they go: neither a leading zero nor a sign byte.
        serial[0] = serial[0] & 0x7f | 0x40;
        let mut params = CertificateParams::new([NAME.to_owned()]).expect("the name is ASCII");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, NAME);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params.self_signed(&pair).expect("the key can sign");
        Self { certificate: certificate.der().to_vec(), key }
    }

    /// The certificate in DER, as peers have to find it in their roster.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from(self.certificate.clone())]
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.to_vec()).into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn identities_differ_and_have_one_length() {
        let env = Env::system();
        let made: BTreeSet<_> =
            (0..64).map(|_| Identity::generate(&env).certificate().to_vec()).collect();
        assert_eq!(made.len(), 64);
        let lengths: BTreeSet<_> = made.iter().map(Vec::len).collect();
        assert_eq!(lengths.len(), 1, "{lengths:?}");
    }
}
