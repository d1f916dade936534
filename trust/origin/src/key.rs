//! Keys that signatures are checked with, as DNS has them (RFC 6376 §3.6.1, RFC 8463).

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::signature::{self, UnparsedPublicKey};

use crate::{
    dkim::DkimError,
    limits::{RSA_BITS_MAX, RSA_BITS_MIN},
    tags::Tags,
};

/// How something is signed. All of them hash with SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA (PKCS#1 v1.5) over SHA-256.
    RsaSha256,
    /// Ed25519 over SHA-256 (RFC 8463).
    Ed25519Sha256,
}

impl Algorithm {
    /// As it is written in `a=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, DkimError> {
        match text.to_ascii_lowercase().as_str() {
            "rsa-sha256" => Ok(Self::RsaSha256),
            "ed25519-sha256" => Ok(Self::Ed25519Sha256),
            // RFC 8301 §3.1: it must not be taken.
            "rsa-sha1" => Err(DkimError::WeakAlgorithm),
            _ => Err(DkimError::UnknownAlgorithm),
        }
    }
}

/// A domain's key.
#[derive(Debug)]
pub(crate) struct PublicKey {
    algorithm: Algorithm,
    /// RSA: an `RSAPublicKey` (RFC 8017 §A.1.1). Ed25519: the 32 bytes.
    bytes: Vec<u8>,
    pub(crate) bits: usize,
    /// `t=y`: the domain is only trying.
    pub(crate) testing: Testing,
    /// `t=s`: the identity's domain is the signature's.
    pub(crate) identity: Identity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Testing {
    Yes,
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    SameDomain,
    Subdomains,
}

impl PublicKey {
    /// The first of the texts that is a key record.
    pub(crate) fn find(texts: &[Vec<u8>]) -> Result<Self, DkimError> {
        let mut first_error = None;
        for text in texts {
            match Self::parse(text) {
                Ok(key) => return Ok(key),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or(DkimError::NoKey))
    }

    fn parse(text: &[u8]) -> Result<Self, DkimError> {
        let tags = Tags::parse(text).map_err(|_| DkimError::BadKey)?;
        // RFC 6376 §3.6.1: v= comes first or not at all.
        match (tags.get("v"), tags.first()) {
            (Some("DKIM1"), Some(("v", _))) | (None, _) => {}
            _ => return Err(DkimError::BadKey),
        }
        let lists = |name: &str, wanted: &[&str]| {
            tags.get(name).is_none_or(|list| {
                list.split(':').any(|word| {
                    wanted.iter().any(|wanted| word.trim_ascii().eq_ignore_ascii_case(wanted))
                })
            })
        };
        if !lists("h", &["sha256"]) || !lists("s", &["*", "email"]) {
            return Err(DkimError::KeyNotForThis);
        }
        let flag = |flag: &str| tags.get("t").is_some() && lists("t", &[flag]);
        let data = tags.compact("p").ok_or(DkimError::BadKey)?;
        if data.is_empty() {
            return Err(DkimError::KeyRevoked);
        }
        let data = STANDARD.decode(data).map_err(|_| DkimError::BadKey)?;
        let (algorithm, bytes, bits) =
            match tags.get("k").unwrap_or("rsa").to_ascii_lowercase().as_str() {
                "rsa" => {
                    let key = der::rsa_public_key(&data).ok_or(DkimError::BadKey)?;
                    let bits = der::rsa_bits(key).ok_or(DkimError::BadKey)?;
                    (Algorithm::RsaSha256, key.to_vec(), bits)
                }
                "ed25519" if data.len() == 32 => (Algorithm::Ed25519Sha256, data, 256),
                "ed25519" => return Err(DkimError::BadKey),
                _ => return Err(DkimError::UnknownAlgorithm),
            };
        let testing = if flag("y") { Testing::Yes } else { Testing::No };
        let identity = if flag("s") { Identity::SameDomain } else { Identity::Subdomains };
        Ok(Self { algorithm, bytes, bits, testing, identity })
    }

    /// Checks the signature of `data`, by the algorithm that the signature names.
    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        data: &[u8],
        signature: &[u8],
    ) -> Result<(), DkimError> {
        if algorithm != self.algorithm {
            return Err(DkimError::KeyNotForThis);
        }
        let verified = match algorithm {
            Algorithm::RsaSha256 => {
                if self.bits < RSA_BITS_MIN || self.bits > RSA_BITS_MAX {
                    return Err(DkimError::WeakKey);
                }
                let by = &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY;
                UnparsedPublicKey::new(by, &self.bytes).verify(data, signature)
            }
            // RFC 8463 §3: what is signed is the hash.
            Algorithm::Ed25519Sha256 => {
                let hash = ring::digest::digest(&ring::digest::SHA256, data);
                UnparsedPublicKey::new(&signature::ED25519, &self.bytes)
                    .verify(hash.as_ref(), signature)
            }
        };
        verified.map_err(|_| DkimError::BadSignature)
    }
}

/// As much DER (X.690) as keys take.
pub(crate) mod der {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const BIT_STRING: u8 = 0x03;
    /// rsaEncryption with its NULL (RFC 8017 §A.1).
    const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

    /// The contents of the element of that kind at the beginning, and what follows it.
    fn take(kind: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let (&found, rest) = bytes.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
            0x82 => {
                (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?)
            }
            _ => return None,
        };
        (found == kind).then_some(())?;
        rest.split_at_checked(length)
    }

    fn put(kind: u8, contents: &[u8]) -> Vec<u8> {
        let mut out = vec![kind];
        match contents.len() {
            length @ 0..=0x7f => out.push(length as u8),
            length @ 0x80..=0xff => out.extend([0x81, length as u8]),
            length => {
                out.push(0x82);
                out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
            }
        }
        out.extend(contents);
        out
    }

    /// The `RSAPublicKey` of a `SubjectPublicKeyInfo`, or the bytes if they are one themselves, as
    /// some records have it.
    pub(crate) fn rsa_public_key(bytes: &[u8]) -> Option<&[u8]> {
        let (contents, _) = take(SEQUENCE, bytes)?;
        if take(INTEGER, contents).is_some() {
            return Some(bytes);
        }
        let (_, rest) = take(SEQUENCE, contents)?;
        let (string, _) = take(BIT_STRING, rest)?;
        string.strip_prefix(&[0])
    }

    /// The modulus' size.
    pub(crate) fn rsa_bits(key: &[u8]) -> Option<usize> {
        let (contents, _) = take(SEQUENCE, key)?;
        let (modulus, rest) = take(INTEGER, contents)?;
        take(INTEGER, rest)?;
        let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
        let modulus = &modulus[zeros..];
        Some(modulus.len() * 8 - modulus.first()?.leading_zeros() as usize)
    }

    /// A `SubjectPublicKeyInfo` over an `RSAPublicKey`.
    pub(crate) fn rsa_info(key: &[u8]) -> Vec<u8> {
        let string = [&[0][..], key].concat();
        put(SEQUENCE, &[put(SEQUENCE, RSA), put(BIT_STRING, &string)].concat())
    }
}
