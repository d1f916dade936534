//! Octets of an authentication exchange.
//!
//! Invariant: they reach neither a log nor freed memory.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// What a peer sent within AUTH, decoded. Zeroed when dropped; `Debug` shows nothing of it.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `octets`.
    pub fn new(octets: Vec<u8>) -> Self {
        Secret(Zeroizing::new(octets))
    }

    /// The octets themselves, for the mechanism alone.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Decodes base64 as RFC 4648 §4 writes it, padding required.
    pub(crate) fn from_base64(text: &str) -> Option<Self> {
        // Sized for the whole result beforehand: a vector that grows leaves copies behind.
        let mut octets = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
        let length = STANDARD.decode_slice(text, &mut octets).ok()?;
        octets.truncate(length);
        Some(Secret(octets))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "Secret");
    }

    #[test]
    fn base64_is_strict() {
        let decoded = |text| Secret::from_base64(text).map(|secret| secret.expose().to_vec());
        assert_eq!(decoded("AGEAYg=="), Some(b"\0a\0b".to_vec()));
        assert_eq!(decoded(""), Some(Vec::new()));
        for text in ["AGEAYg", "AGEAYg=", "AGEA Yg==", "A", "====", "AGEAYh==", "\u{e9}"] {
            assert_eq!(decoded(text), None, "{text:?}");
        }
    }
}
