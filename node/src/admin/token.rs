//! The token that opens the admin API: `DATA/admin-token`.
//!
//! Invariant: the file is readable by its owner alone, from its first byte on.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use env::Env;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::endpoint::write_whole;

/// The file's name in the data folder.
const FILE: &str = "admin-token";

/// The token's length: 32 random bytes in hex.
const TOKEN_BYTES: usize = 64;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read the file.
    #[error("{} can be read by others (mode {mode:03o}): run chmod 600, or remove it and restart", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no token.
    #[error("{} does not hold a token: remove it and restart", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// What an administrator shows to the HTTP API. Zeroed when dropped; `Debug` does not show it.
#[derive(Clone)]
pub struct AdminToken(Zeroizing<String>);

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken")
    }
}

impl AdminToken {
    /// Draws a new token.
    pub fn random(env: &Env) -> Self {
        let bytes = Zeroizing::new(env.random_array::<32>());
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let hex = |digit| char::from_digit(u32::from(digit), 16).expect("a nibble is below 16");
        Self(Zeroizing::new(digits.map(hex).collect()))
    }

    /// The data folder's token, made where there is none. Touches the disk.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn load_or_create(data: &Path, env: &Env) -> Result<Self, TokenError> {
        match Self::load(data) {
            Err(TokenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let token = Self::random(env);
        token.save(data)?;
        Ok(token)
    }

    /// Makes this the data folder's token. Touches the disk.
    ///
    /// # Errors
    /// [`TokenError::Io`].
    pub fn save(&self, data: &Path) -> Result<(), TokenError> {
        let path = data.join(FILE);
        let text = Zeroizing::new(format!("{}\n", *self.0));
        write_whole(&path, 0o600, &text).map_err(|source| TokenError::Io { path, source })
    }

    /// The data folder's token. Touches the disk.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn load(data: &Path) -> Result<Self, TokenError> {
        let path = data.join(FILE);
        let read = || {
            let file = fs::File::open(&path)?;
            let mode = file.metadata()?.permissions().mode() & 0o777;
            Ok((mode, Zeroizing::new(io::read_to_string(io::Read::take(file, 1024))?)))
        };
        let (mode, text) =
            read().map_err(|source| TokenError::Io { path: path.clone(), source })?;
        if mode & 0o077 != 0 {
            return Err(TokenError::Exposed { path, mode });
        }
        let token = text.trim_end();
        if token.len() != TOKEN_BYTES || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(TokenError::Malformed { path });
        }
        Ok(Self(Zeroizing::new(token.to_owned())))
    }

    /// Whether `presented` is the token, in time that does not tell how much of it is right.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }

    /// The token itself, for the request that shows it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_its_owners_alone_and_stays_the_same() {
        let data = tempfile::tempdir().unwrap();
        let env = Env::system();
        let token = AdminToken::load_or_create(data.path(), &env).unwrap();
        let path = data.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let again = AdminToken::load_or_create(data.path(), &env).unwrap();
        assert!(again.matches(token.reveal().as_bytes()));
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1, "no temporary file is left");
        assert_eq!(format!("{token:?}"), "AdminToken");
    }

    #[test]
    fn only_the_whole_token_matches() {
        let token = AdminToken::random(&Env::system());
        let text = token.reveal();
        assert_eq!(text.len(), TOKEN_BYTES);
        assert!(token.matches(text.as_bytes()));
        for wrong in ["", &text[1..], &format!("{text} "), &text.replace(&text[..1], "x")] {
            assert!(!token.matches(wrong.as_bytes()), "{wrong}");
        }
        assert!(!token.matches(AdminToken::random(&Env::system()).reveal().as_bytes()));
    }

    #[test]
    fn a_token_that_others_can_read_or_that_is_none_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(FILE);
        AdminToken::load_or_create(data.path(), &Env::system()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let exposed = AdminToken::load(data.path()).unwrap_err();
        assert!(exposed.to_string().contains("mode 640"), "{exposed}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "").unwrap();
        let empty = AdminToken::load_or_create(data.path(), &Env::system());
        assert!(matches!(empty, Err(TokenError::Malformed { .. })));
    }
}
