//! Logging in: PLAIN (RFC 4616) and SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's side.
//!
//! SCRAM is what a server offers that takes no password in clear. Its costly step is done once a
//! user and not once a session: thousands of sessions of a few users open quickly.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::{
    failure::Failure,
    limits::{SCRAM_ROUNDS_MAX, SECRETS_MAX},
};

/// `n,,` in base64: no channel binding.
const HEADER: &str = "biws";

type Key = [u8; 32];

/// What a salted password follows from, but for the password: user, salt, rounds.
type Salting = (String, Vec<u8>, u32);

/// Salted passwords, at most [`SECRETS_MAX`].
#[derive(Default)]
pub(crate) struct Secrets(Mutex<HashMap<Salting, Key>>);

impl Secrets {
    fn salted(&self, user: &str, password: &str, salt: &[u8], rounds: u32) -> Key {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (user.to_owned(), salt.to_owned(), rounds);
        if let Some(key) = known().get(&name) {
            return *key;
        }
        let key = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), salt, rounds);
        let mut known = known();
        if known.len() >= SECRETS_MAX {
            known.clear();
        }
        known.insert(name, key);
        key
    }
}

/// PLAIN's one message.
pub(crate) fn plain(user: &str, password: &str) -> String {
    BASE64_STANDARD.encode(format!("\0{user}\0{password}"))
}

/// A SCRAM exchange under way.
pub(crate) struct Scram<'a> {
    user: &'a str,
    password: &'a str,
    secrets: &'a Secrets,
    nonce: String,
    /// The server's proof that it knows the password too.
    signature: Option<Key>,
}

impl<'a> Scram<'a> {
    /// `random` must be new for each exchange.
    pub(crate) fn new(
        user: &'a str,
        password: &'a str,
        secrets: &'a Secrets,
        random: [u8; 18],
    ) -> Self {
        let nonce = BASE64_STANDARD.encode(random);
        Self { user, password, secrets, nonce, signature: None }
    }

    /// The first message, in base64.
    pub(crate) fn first(&self) -> String {
        BASE64_STANDARD.encode(format!("n,,{}", self.first_bare()))
    }

    fn first_bare(&self) -> String {
        let user = self.user.replace('=', "=3D").replace(',', "=2C");
        format!("n={user},r={}", self.nonce)
    }

    /// The answer to the server's first message, both in base64.
    ///
    /// # Errors
    /// Where the server's message is wrong.
    pub(crate) fn proof(&mut self, challenge: &[u8]) -> Result<String, Failure> {
        let wrong = || Failure::unexpected("a SCRAM challenge", challenge);
        let server_first = decoded(challenge).ok_or_else(wrong)?;
        let (nonce, salt, rounds) = parts(&server_first).ok_or_else(wrong)?;
        if !nonce.starts_with(&self.nonce) || rounds == 0 || rounds > SCRAM_ROUNDS_MAX {
            return Err(wrong());
        }
        let salted = self.secrets.salted(self.user, self.password, &salt, rounds);
        let without_proof = format!("c={HEADER},r={nonce}");
        let message = format!("{},{server_first},{without_proof}", self.first_bare());
        let client_key = keyed(&salted, b"Client Key");
        let signature = keyed(&Sha256::digest(client_key).into(), message.as_bytes());
        let mut proof = client_key;
        proof.iter_mut().zip(signature).for_each(|(proof, byte)| *proof ^= byte);
        self.signature = Some(keyed(&keyed(&salted, b"Server Key"), message.as_bytes()));
        let proof = BASE64_STANDARD.encode(proof);
        Ok(BASE64_STANDARD.encode(format!("{without_proof},p={proof}")))
    }

    /// Checks the server's last message, in base64.
    ///
    /// # Errors
    /// Where the server does not know the password.
    pub(crate) fn verify(&self, last: &[u8]) -> Result<(), Failure> {
        let told = decoded(last);
        let expected = self.signature.map(|key| format!("v={}", BASE64_STANDARD.encode(key)));
        if told.is_some() && told == expected {
            Ok(())
        } else {
            Err(Failure::unexpected("the server's SCRAM signature", last))
        }
    }
}

fn decoded(base64: &[u8]) -> Option<String> {
    String::from_utf8(BASE64_STANDARD.decode(base64.trim_ascii()).ok()?).ok()
}

/// Nonce, salt and rounds of a server's first message.
fn parts(message: &str) -> Option<(&str, Vec<u8>, u32)> {
    let mut fields = message.split(',');
    let nonce = fields.next()?.strip_prefix("r=")?;
    let salt = BASE64_STANDARD.decode(fields.next()?.strip_prefix("s=")?).ok()?;
    let rounds = fields.next()?.strip_prefix("i=")?.parse().ok()?;
    Some((nonce, salt, rounds))
}

fn keyed(key: &Key, message: &[u8]) -> Key {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("HMAC takes any key");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677 §3, whose nonce is no base64 of ours.
    #[test]
    fn the_standards_example_comes_out() {
        let secrets = Secrets::default();
        let mut scram = Scram::new("user", "pencil", &secrets, [0; 18]);
        scram.nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        assert_eq!(decoded(scram.first().as_bytes()).unwrap(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let first = format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let proof = scram.proof(BASE64_STANDARD.encode(first).as_bytes()).unwrap();
        assert_eq!(
            decoded(proof.as_bytes()).unwrap(),
            format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
        );
        let last = BASE64_STANDARD.encode("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(scram.verify(last.as_bytes()), Ok(()));
        assert!(scram.verify(BASE64_STANDARD.encode("v=AAAA").as_bytes()).is_err());
        assert!(scram.verify(b"").is_err());
    }

    #[test]
    fn a_wrong_challenge_is_refused() {
        let secrets = Secrets::default();
        let mut scram = Scram::new("user", "pencil", &secrets, [0; 18]);
        let ours = scram.nonce.clone();
        let mut check = |challenge: String| {
            let challenge = BASE64_STANDARD.encode(challenge);
            assert!(scram.proof(challenge.as_bytes()).is_err(), "{challenge}");
        };
        check("r=other,s=AAAA,i=4096".to_owned());
        check(format!("r={ours}x,s=AAAA,i=4000000000"));
        check(format!("r={ours}x,s=AAAA,i=0"));
        check(format!("r={ours}x,s=!,i=4096"));
        check(String::new());
        assert!(scram.proof(b"no base64").is_err());
    }

    #[test]
    fn plain_has_both() {
        assert_eq!(plain("tim", "tanstaaftanstaaf"), "AHRpbQB0YW5zdGFhZnRhbnN0YWFm");
    }
}
