//! Passwords to credentials and back: Argon2id, SCRAM keys, preparation.
//!
//! Standards: RFC 9106 (Argon2), RFC 5802 §3 and RFC 7677 (SCRAM keys), RFC 4013 (SASLprep).
//!
//! A credential holds both an Argon2id hash and SCRAM keys, because SCRAM cannot be spoken from
//! an Argon2id hash. Whoever steals the store tries passwords against the cheaper of the two.

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version,
    password_hash::SaltString,
};
use env::{Env, TaskEnded};
use hmac::{Hmac, Mac};
use mail::keys::account::{Credential, ScramCredential};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{limits, verdicts::Verdict};

/// Octets that prove something. Zeroed when dropped; shown by nothing.
pub(super) type Secret = Zeroizing<Vec<u8>>;

/// Why a password was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Nothing is left of it.
    #[error("the password is empty")]
    Empty,
    /// It is longer than [`limits::PASSWORD_BYTES_MAX`].
    #[error("the password is longer than {max} bytes", max = limits::PASSWORD_BYTES_MAX)]
    TooLong,
    /// RFC 4013 §2.3: it holds characters that cannot be typed alike everywhere.
    #[error("the password holds control or other characters that are not allowed")]
    Prohibited,
    /// Hashing was cut off: the node is ending.
    #[error("hashing was interrupted")]
    Interrupted,
}

impl From<TaskEnded> for CredentialError {
    fn from(_: TaskEnded) -> Self {
        Self::Interrupted
    }
}

/// Makes what the store keeps of a password.
///
/// Blocks no async thread. Takes some tens of milliseconds and 19 MiB.
///
/// # Errors
/// [`CredentialError`].
pub async fn new_credential(env: &Env, password: &str) -> Result<Credential, CredentialError> {
    let password = prepare(password)?;
    let argon2_salt = env.random_array::<{ limits::SALT_BYTES }>();
    let scram_salt = env.random_array::<{ limits::SALT_BYTES }>();
    let hash = move || Credential {
        argon2: argon2_hash(&password, &argon2_salt),
        scram_sha256: Some(scram_keys(&password, &scram_salt, limits::SCRAM_ITERATIONS)),
    };
    Ok(env.run_blocking(hash).await?)
}

/// RFC 4013, as for a stored string.
fn prepare(password: &str) -> Result<Secret, CredentialError> {
    if password.len() > limits::PASSWORD_BYTES_MAX {
        return Err(CredentialError::TooLong);
    }
    let prepared = stringprep::saslprep(password).map_err(|_| CredentialError::Prohibited)?;
    let prepared = Zeroizing::new(prepared.into_owned().into_bytes());
    match prepared.len() {
        0 => Err(CredentialError::Empty),
        1..=limits::PASSWORD_BYTES_MAX => Ok(prepared),
        _ => Err(CredentialError::TooLong),
    }
}

/// The octets to verify. What cannot be prepared is taken as it is: no stored password equals it.
pub(super) fn prepare_attempt(password: &[u8]) -> Secret {
    std::str::from_utf8(password)
        .ok()
        .and_then(|text| prepare(text).ok())
        .unwrap_or_else(|| Zeroizing::new(password.to_vec()))
}

fn argon2() -> Argon2<'static> {
    let params =
        Params::new(limits::ARGON2_MEMORY_KIB, limits::ARGON2_PASSES, limits::ARGON2_LANES, None)
            .expect("the constants are within Argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn argon2_hash(password: &[u8], salt: &[u8; limits::SALT_BYTES]) -> String {
    let salt = SaltString::encode_b64(salt).expect("16 bytes are a salt");
    let hash = argon2().hash_password(password, &salt);
    hash.expect("the salt and the password are within Argon2's limits").to_string()
}

/// Verifies against the stored hash; without one, does the same work for nothing. Blocks for
/// tens of milliseconds.
pub(super) fn verify(hash: Option<&str>, password: &[u8]) -> Verdict {
    let hash = hash.and_then(|hash| PasswordHash::new(hash).ok()).filter(is_affordable);
    let Some(hash) = hash else {
        // The work is what counts: an unknown name takes as long as a wrong password.
        let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
        let done = argon2().hash_password_into(password, &[0; limits::SALT_BYTES], &mut output);
        std::hint::black_box((done.is_ok(), output));
        return Verdict::Wrong;
    };
    match argon2().verify_password(password, &hash) {
        Ok(()) => Verdict::Right,
        Err(_) => Verdict::Wrong,
    }
}

/// Whether a stored hash asks for no more than we are willing to spend.
fn is_affordable(hash: &PasswordHash<'_>) -> bool {
    Params::try_from(hash).is_ok_and(|params| {
        params.m_cost() <= limits::ARGON2_MEMORY_KIB_MAX
            && params.t_cost() <= limits::ARGON2_PASSES_MAX
    })
}

/// RFC 5802 §3: what a server keeps of a password.
pub(super) fn scram_keys(password: &[u8], salt: &[u8], iterations: u32) -> ScramCredential {
    let salted: Zeroizing<[u8; 32]> =
        Zeroizing::new(pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations));
    let client_key = Zeroizing::new(hmac_sha256(&*salted, b"Client Key"));
    ScramCredential {
        salt: salt.to_vec(),
        iterations,
        stored_key: Sha256::digest(client_key.as_slice()).to_vec(),
        server_key: hmac_sha256(&*salted, b"Server Key").to_vec(),
    }
}

pub(super) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preparation_takes_what_can_be_typed_alike() {
        let check = |password: &str, expected: Result<&str, CredentialError>| {
            let prepared = prepare(password).map(|secret| secret.to_vec());
            assert_eq!(prepared, expected.map(|text| text.as_bytes().to_vec()), "{password:?}");
        };
        // RFC 4013 §3.
        check("I\u{ad}X", Ok("IX"));
        check("user", Ok("user"));
        check("\u{aa}", Ok("a"));
        check("\u{2168}", Ok("IX"));
        check("\u{7}", Err(CredentialError::Prohibited));
        check("\u{627}1", Err(CredentialError::Prohibited));
        check("", Err(CredentialError::Empty));
        check("\u{ad}", Err(CredentialError::Empty));
        check(&"x".repeat(limits::PASSWORD_BYTES_MAX), Ok(&"x".repeat(1024)));
        check(&"x".repeat(limits::PASSWORD_BYTES_MAX + 1), Err(CredentialError::TooLong));
        // U+FDFA grows elevenfold.
        check(&"\u{fdfa}".repeat(300), Err(CredentialError::TooLong));
    }

    #[tokio::test]
    async fn a_credential_verifies_its_password_alone() {
        let credential = new_credential(&Env::system(), "pass\u{a0}word").await.unwrap();
        assert!(credential.argon2.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        let hash = Some(credential.argon2.as_str());
        assert_eq!(verify(hash, &prepare_attempt(b"pass word")), Verdict::Right);
        assert_eq!(verify(hash, &prepare_attempt(b"pass word2")), Verdict::Wrong);
        assert_eq!(verify(None, &prepare_attempt(b"pass word")), Verdict::Wrong);
        let again = new_credential(&Env::system(), "pass word").await.unwrap();
        assert_ne!(credential.argon2, again.argon2, "salts differ");
        let scram = credential.scram_sha256.unwrap();
        assert_eq!(scram, scram_keys(b"pass word", &scram.salt, limits::SCRAM_ITERATIONS));
    }

    #[test]
    fn a_damaged_hash_costs_no_more_than_a_good_one() {
        let hash = argon2_hash(b"x", &[1; 16]);
        let greedy = hash.replace("m=19456", "m=4194304");
        assert_eq!(verify(Some(&greedy), b"x"), Verdict::Wrong);
        assert_eq!(verify(Some("nonsense"), b"x"), Verdict::Wrong);
        assert_eq!(verify(Some(""), b""), Verdict::Wrong);
    }
}
