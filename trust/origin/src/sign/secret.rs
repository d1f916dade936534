//! Private keys. They are never shown, and our copy of their documents is wiped when it is let go; what
//! `ring` makes of them is not.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use env::Env;
use ring::{
    digest,
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use rsa::{pkcs8::EncodePrivateKey, rand_core};
use zeroize::Zeroizing;

use crate::{
    key::{Algorithm, der},
    limits::RSA_BITS,
};

/// PKCS#8 (RFC 8410 §7) up to the 32 bytes of an Ed25519 key.
const ED25519_PREFIX: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// A private key. Cloning is a reference count.
#[derive(Clone)]
pub struct SigningKey {
    inner: Arc<Inner>,
}

struct Inner {
    pair: Pair,
    pkcs8: Zeroizing<Vec<u8>>,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

/// A key cannot be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are no PKCS#8 document of an RSA key of 2048 to 4096 bits or of an Ed25519 key.
    #[error("not a private key that can be used")]
    NotAKey,
    /// The key could not be made.
    #[error("the key could not be made")]
    NotMade,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.algorithm().as_str()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Makes an RSA key of [`RSA_BITS`] bits. It takes a good part of a second, on a thread that may
    /// block.
    ///
    /// # Errors
    /// [`KeyError::NotMade`].
    pub async fn generate_rsa(env: &Env) -> Result<Self, KeyError> {
        let mut random = Random(env.clone());
        let made = env.run_blocking(move || {
            let key = rsa::RsaPrivateKey::new(&mut random, RSA_BITS).ok()?;
            Some(Zeroizing::new(key.to_pkcs8_der().ok()?.as_bytes().to_vec()))
        });
        let pkcs8 = made.await.ok().flatten().ok_or(KeyError::NotMade)?;
        Self::from_pkcs8(&pkcs8)
    }

    /// Makes an Ed25519 key.
    pub fn generate_ed25519(env: &Env) -> Self {
        let mut pkcs8 = Zeroizing::new(ED25519_PREFIX.to_vec());
        let seed = Zeroizing::new(env.random_array::<32>());
        pkcs8.extend_from_slice(&*seed);
        Self::from_pkcs8(&pkcs8).expect("any 32 bytes are an Ed25519 key (RFC 8032 §5.1.5)")
    }

    /// Reads a PKCS#8 document (DER).
    ///
    /// # Errors
    /// [`KeyError::NotAKey`].
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = match Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8) {
            Ok(pair) => Pair::Ed25519(pair),
            Err(_) => {
                let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| KeyError::NotAKey)?;
                Pair::Rsa(Box::new(pair))
            }
        };
        let pkcs8 = Zeroizing::new(pkcs8.to_vec());
        Ok(Self { inner: Arc::new(Inner { pair, pkcs8 }) })
    }

    /// The key as a PKCS#8 document (DER), to be kept where secrets are.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        self.inner.pkcs8.clone()
    }

    /// What it signs by.
    pub fn algorithm(&self) -> Algorithm {
        match self.inner.pair {
            Pair::Rsa(_) => Algorithm::RsaSha256,
            Pair::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    pub(crate) fn is_rsa(&self) -> bool {
        self.algorithm() == Algorithm::RsaSha256
    }

    /// The text of the record that publishes the other half (RFC 6376 §3.6.1, RFC 8463 §4). One of an RSA
    /// key does not fit into one string of 255 bytes; DNS joins strings.
    pub fn record(&self) -> String {
        let (kind, bytes) = match &self.inner.pair {
            Pair::Rsa(pair) => ("rsa", der::rsa_info(pair.public().as_ref())),
            Pair::Ed25519(pair) => ("ed25519", pair.public_key().as_ref().to_vec()),
        };
        format!("v=DKIM1; k={kind}; p={}", STANDARD.encode(bytes))
    }

    pub(crate) fn sign(&self, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.inner.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                // The randomness blinds the computation; the signature does not depend on it.
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), data, &mut signature)
                    .map_err(|_| KeyError::NotMade)?;
                Ok(signature)
            }
            Pair::Ed25519(pair) => {
                let hash = digest::digest(&digest::SHA256, data);
                Ok(pair.sign(hash.as_ref()).as_ref().to_vec())
            }
        }
    }
}

/// The environment's randomness, as the key's maker takes it.
struct Random(Env);

impl rand_core::RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes(self.0.random_array())
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(self.0.random_array())
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_random(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl rand_core::CryptoRng for Random {}
