//! `tls-server-end-point` (RFC 5929 §4): a hash of the server's certificate.
//!
//! Only the certificate's outermost structure is read (RFC 5280 §4.1), to learn with which hash
//! it was signed.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::der::{CONTEXT_0, OBJECT_IDENTIFIER, SEQUENCE, element};

/// The hash of a DER certificate. RFC 5929 §4.1: with the hash of its signature algorithm, with
/// SHA-256 in place of MD5 and SHA-1; undefined (`None`) where that has no single hash, as
/// Ed25519 has not.
pub(super) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(match signature_hash(certificate)? {
        Hash::Sha224 => Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// 1.2.840.113549.1.1: PKCS #1.
const PKCS1: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// 1.2.840.10045.4: ECDSA.
const ECDSA: [u8; 6] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
/// 2.16.840.1.101.3.4.2: NIST's hashes.
const HASHES: [u8; 8] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

/// `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue }`
fn signature_hash(certificate: &[u8]) -> Option<Hash> {
    let (fields, _) = element(certificate, SEQUENCE)?;
    let (_, fields) = element(fields, SEQUENCE)?;
    let (algorithm, _) = element(fields, SEQUENCE)?;
    let (identifier, parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
    if let Some(last) = identifier.strip_prefix(&PKCS1) {
        // RFC 8017 Appendix A.2.4: of RSASSA-PKCS1-v1_5, MD5 is 4 and SHA-1 is 5.
        return match last {
            [0x04 | 0x05 | 0x0b] => Some(Hash::Sha256),
            [0x0c] => Some(Hash::Sha384),
            [0x0d] => Some(Hash::Sha512),
            [0x0e] => Some(Hash::Sha224),
            [0x0a] => pss_hash(parameters),
            _ => None,
        };
    }
    // RFC 5758 §3.2; 4.1 is ECDSA with SHA-1.
    match identifier.strip_prefix(&ECDSA)? {
        [0x01] | [0x03, 0x02] => Some(Hash::Sha256),
        [0x03, 0x01] => Some(Hash::Sha224),
        [0x03, 0x03] => Some(Hash::Sha384),
        [0x03, 0x04] => Some(Hash::Sha512),
        _ => None,
    }
}

/// RFC 4055 §3.1: the hash is the first parameter, SHA-1 where it is not there.
fn pss_hash(parameters: &[u8]) -> Option<Hash> {
    let (parameters, _) = element(parameters, SEQUENCE)?;
    let Some((hash, _)) = element(parameters, CONTEXT_0) else { return Some(Hash::Sha256) };
    let (hash, _) = element(hash, SEQUENCE)?;
    let (identifier, _) = element(hash, OBJECT_IDENTIFIER)?;
    match identifier.strip_prefix(&HASHES) {
        Some([0x01]) | None => Some(Hash::Sha256),
        Some([0x02]) => Some(Hash::Sha384),
        Some([0x03]) => Some(Hash::Sha512),
        Some([0x04]) => Some(Hash::Sha224),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 0x80, "short form is enough here");
        [&[tag, length], content].concat()
    }

    /// A certificate's outermost structure around a signature algorithm.
    fn certificate(algorithm: &[u8], parameters: &[u8]) -> Vec<u8> {
        let identifier = der(OBJECT_IDENTIFIER, algorithm);
        let algorithm = der(SEQUENCE, &[&identifier, parameters].concat());
        der(SEQUENCE, &[der(SEQUENCE, b"to be signed"), algorithm, der(3, &[0, 1])].concat())
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let check = |algorithm: &[&[u8]], parameters: &[u8], expected| {
            let certificate = certificate(&algorithm.concat(), parameters);
            assert_eq!(signature_hash(&certificate), expected, "{algorithm:x?}");
        };
        check(&[&PKCS1, &[4]], &[5, 0], Some(Hash::Sha256));
        check(&[&PKCS1, &[5]], &[5, 0], Some(Hash::Sha256));
        check(&[&PKCS1, &[11]], &[5, 0], Some(Hash::Sha256));
        check(&[&PKCS1, &[12]], &[5, 0], Some(Hash::Sha384));
        check(&[&PKCS1, &[13]], &[5, 0], Some(Hash::Sha512));
        check(&[&PKCS1, &[14]], &[5, 0], Some(Hash::Sha224));
        check(&[&PKCS1, &[99]], &[5, 0], None);
        check(&[&ECDSA, &[1]], &[], Some(Hash::Sha256));
        check(&[&ECDSA, &[3, 1]], &[], Some(Hash::Sha224));
        check(&[&ECDSA, &[3, 2]], &[], Some(Hash::Sha256));
        check(&[&ECDSA, &[3, 3]], &[], Some(Hash::Sha384));
        check(&[&ECDSA, &[3, 4]], &[], Some(Hash::Sha512));
        // Ed25519 is 1.3.101.112.
        check(&[&[0x2b, 0x65, 0x70]], &[], None);
        let pss = |hash: &[u8]| {
            let identifier = der(OBJECT_IDENTIFIER, &[&HASHES, hash].concat());
            der(SEQUENCE, &der(CONTEXT_0, &der(SEQUENCE, &identifier)))
        };
        check(&[&PKCS1, &[10]], &pss(&[2]), Some(Hash::Sha384));
        check(&[&PKCS1, &[10]], &pss(&[3]), Some(Hash::Sha512));
        check(&[&PKCS1, &[10]], &der(SEQUENCE, &[]), Some(Hash::Sha256));
    }

    #[test]
    fn no_prefix_of_a_certificate_panics() {
        let whole = certificate(&[&PKCS1[..], &[11]].concat(), &[5, 0]);
        for end in 0..whole.len() {
            assert_eq!(signature_hash(&whole[..end]), None, "{end}");
        }
        for length in [[0x30, 0x80], [0x30, 0x85], [0x30, 0xff], [0x31, 0x00]] {
            assert_eq!(signature_hash(&length), None);
        }
        assert_eq!(element(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 1], SEQUENCE), None);
        assert_eq!(element(&[0x30, 0x81, 1, 7, 8], SEQUENCE), Some((&[7][..], &[8][..])));
    }
}
