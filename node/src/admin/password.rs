//! Passwords on their way from an administrator to a hash.

use env::Env;
use mail::keys::account::Credential;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::AdminError;
use crate::{auth, limits::PASSWORD_BYTES_MIN};

/// A password. Zeroed when dropped; its `Debug` does not show it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes over a password.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// A random password that is easy to read out: 100 bits as 20 letters and digits.
    pub fn random(env: &Env) -> Self {
        // 32 characters, without those that look alike.
        const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let bytes = Zeroizing::new(env.random_array::<20>());
        Self::new(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
    }

    /// The password itself, for the one place that must show it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the store keeps of it. Takes tens of milliseconds, on a thread that may block.
    pub(super) async fn credential(&self, env: &Env) -> Result<Credential, AdminError> {
        if self.0.len() < PASSWORD_BYTES_MIN {
            return Err(AdminError::PasswordShort);
        }
        Ok(auth::new_credential(env, &self.0).await?)
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_passwords_differ_and_are_long_enough() {
        let env = Env::system();
        let (one, two) = (Password::random(&env), Password::random(&env));
        assert_eq!(one.reveal().len(), 20);
        assert!(
            one.reveal().bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        );
        assert_ne!(one.reveal(), two.reveal());
        assert_eq!(format!("{one:?}"), "Password");
    }
}
