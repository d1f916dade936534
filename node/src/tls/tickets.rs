//! Session tickets (RFC 5077, RFC 8446 §4.6.1) that every node with the same certificate resumes.
//!
//! A ticket is the number of its key, a nonce, and the session sealed under a key that is derived
//! from the shared one and the certificate: a session never resumes under another certificate.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use cluster::tickets::{SEALS_AFTER, TICKET_LIFE, TicketKey, age};
use env::Env;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;

/// Separates the derived keys from any other use of the shared ones.
const CONTEXT: &str = "rookery 2026-11-22 TLS session tickets";

/// Bytes of a key's number in front of the ticket.
const NUMBER_LEN: usize = 8;

/// The keys in use. Cloning is one reference count.
#[derive(Clone)]
pub(super) struct TicketKeys {
    env: Env,
    /// Oldest first.
    keys: Arc<RwLock<Arc<Vec<TicketKey>>>>,
}

impl TicketKeys {
    /// One key that nobody else knows.
    pub(super) fn own(env: &Env) -> Self {
        let secret = env.random_array::<32>().into();
        let own = TicketKey { number: 0, secret, made: env.wall() };
        Self { env: env.clone(), keys: Arc::new(RwLock::new(Arc::new(vec![own]))) }
    }

    /// Takes other keys from now on. None are not taken: they would end resumption.
    pub(super) fn set(&self, keys: Vec<TicketKey>) {
        if !keys.is_empty() {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        }
    }

    fn all(&self) -> Arc<Vec<TicketKey>> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Seals and opens the tickets of one certificate.
pub(super) struct Ticketer {
    keys: TicketKeys,
    /// Of the certificate.
    hash: [u8; 32],
}

impl Ticketer {
    /// For sessions under the certificate `leaf` (DER).
    pub(super) fn new(keys: TicketKeys, leaf: &[u8]) -> Self {
        Self { keys, hash: *blake3::hash(leaf).as_bytes() }
    }

    fn cipher(&self, key: &TicketKey) -> Option<LessSafeKey> {
        let material = [&key.secret[..], &self.hash].concat();
        let derived = blake3::derive_key(CONTEXT, &zeroize::Zeroizing::new(material));
        UnboundKey::new(&CHACHA20_POLY1305, &derived).ok().map(LessSafeKey::new)
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticketer")
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(TICKET_LIFE.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (keys, now) = (self.keys.all(), self.keys.env.wall());
        let known = keys.iter().rfind(|key| age(now, key.made) >= SEALS_AFTER);
        let key = known.or_else(|| keys.first())?;
        let nonce: [u8; NONCE_LEN] = self.keys.env.random_array();
        let number = key.number.to_be_bytes();
        let mut sealed = plain.to_vec();
        let sealing = Nonce::assume_unique_for_key(nonce);
        let cipher = self.cipher(key)?;
        cipher.seal_in_place_append_tag(sealing, Aad::from(number), &mut sealed).ok()?;
        Some([&number[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (number, rest) = ticket.split_first_chunk::<NUMBER_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys.all();
        let key = keys.iter().find(|key| key.number == u64::from_be_bytes(*number))?;
        let mut opened = sealed.to_vec();
        let opening = Nonce::assume_unique_for_key(*nonce);
        let cipher = self.cipher(key)?;
        let plain = cipher.open_in_place(opening, Aad::from(*number), &mut opened).ok()?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use env::Timestamp;

    use super::*;

    fn key(number: u64, made: Timestamp) -> TicketKey {
        TicketKey { number, secret: [u8::try_from(number).unwrap(); 32].into(), made }
    }

    fn ticketer(keys: &TicketKeys, leaf: &[u8]) -> Ticketer {
        Ticketer::new(keys.clone(), leaf)
    }

    #[test]
    fn a_ticket_is_opened_by_whoever_has_its_key_and_certificate() {
        let env = Env::system();
        let (here, there) = (TicketKeys::own(&env), TicketKeys::own(&env));
        let sealed = ticketer(&here, b"leaf").encrypt(b"session").unwrap();
        assert_eq!(ticketer(&here, b"leaf").decrypt(&sealed).unwrap(), b"session");
        assert_eq!(ticketer(&there, b"leaf").decrypt(&sealed), None, "another's own key");
        let shared = vec![key(5, Timestamp::from_unix_ms(0))];
        here.set(shared.clone());
        there.set(shared);
        let sealed = ticketer(&here, b"leaf").encrypt(b"session").unwrap();
        assert_eq!(ticketer(&there, b"leaf").decrypt(&sealed).unwrap(), b"session");
        assert_eq!(ticketer(&there, b"another leaf").decrypt(&sealed), None);
        for cut in 0..sealed.len() {
            assert_eq!(ticketer(&there, b"leaf").decrypt(&sealed[..cut]), None);
            let mut flipped = sealed.clone();
            flipped[cut] ^= 1;
            assert_eq!(ticketer(&there, b"leaf").decrypt(&flipped), None);
        }
    }

    #[test]
    fn a_key_seals_once_everybody_knows_it() {
        let env = Env::system();
        let keys = TicketKeys::own(&env);
        keys.set(vec![key(5, Timestamp::from_unix_ms(0)), key(6, env.wall())]);
        let sealed = ticketer(&keys, b"leaf").encrypt(b"session").unwrap();
        assert_eq!(sealed[..8], 5_u64.to_be_bytes());
        keys.set(vec![key(6, env.wall())]);
        let sealed = ticketer(&keys, b"leaf").encrypt(b"session").unwrap();
        assert_eq!(sealed[..8], 6_u64.to_be_bytes());
        keys.set(Vec::new());
        assert!(ticketer(&keys, b"leaf").decrypt(&sealed).is_some());
    }
}
