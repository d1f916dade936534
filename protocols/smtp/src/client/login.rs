//! AUTH (RFC 4954) with PLAIN (RFC 4616) and the obsolete LOGIN.
//!
//! Invariant: a password is sent over TLS, or where the settings allow it otherwise; the buffers
//! that hold it are zeroed when dropped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use zeroize::Zeroizing;

use super::failure::{Failure, Stage};
use super::reply::{Class, Response};
use super::settings::{Login, LoginInClear};
use super::{Client, Expected, Tls};
use crate::config::Mechanism;
use crate::limits::AUTH_COMMAND_OCTETS_MAX;

/// What the server answers within AUTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthStep {
    /// Asks for PLAIN's message.
    Plain,
    /// Asks for LOGIN's name.
    Name,
    /// Asks for LOGIN's password.
    Password,
    /// Says whether it was right.
    Verdict,
}

impl Client {
    /// Logs in if the settings say so; then the session is ready.
    pub(super) fn log_in(&mut self) {
        let Some(login) = &self.settings.login else { return self.ready() };
        if self.tls != Tls::Yes && self.settings.login_in_clear == LoginInClear::Never {
            return self.give_up(Failure::LoginNeedsTls);
        }
        let mechanisms = self.capabilities.mechanisms();
        if mechanisms.contains(&Mechanism::Plain) {
            let whole = encode(b"AUTH PLAIN ", &plain(login));
            if whole.len() <= AUTH_COMMAND_OCTETS_MAX {
                self.command(whole, Expected::Auth(AuthStep::Verdict));
            } else {
                let line = Bytes::from_static(b"AUTH PLAIN\r\n");
                self.command(line, Expected::Auth(AuthStep::Plain));
            }
        } else if mechanisms.contains(&Mechanism::Login) {
            let line = Bytes::from_static(b"AUTH LOGIN\r\n");
            self.command(line, Expected::Auth(AuthStep::Name));
        } else {
            self.give_up(Failure::LoginNotOffered);
        }
    }

    pub(super) fn answered_auth(&mut self, step: AuthStep, response: Response) {
        let login = self.settings.login.as_ref();
        match (step, response.class(), login) {
            (AuthStep::Verdict, Class::Success, _) => self.ready(),
            (_, Class::Refusal, _) => self.refused(Stage::Auth, response),
            (AuthStep::Plain, Class::Intermediate, Some(login)) => {
                let line = encode(b"", &plain(login));
                self.command(line, Expected::Auth(AuthStep::Verdict));
            }
            (AuthStep::Name, Class::Intermediate, Some(login)) => {
                let line = encode(b"", login.identity().as_bytes());
                self.command(line, Expected::Auth(AuthStep::Password));
            }
            (AuthStep::Password, Class::Intermediate, Some(login)) => {
                let line = encode(b"", login.password());
                self.command(line, Expected::Auth(AuthStep::Verdict));
            }
            _ => self.unexpected(Stage::Auth, &response),
        }
    }
}

/// RFC 4616 §2: no authorization identity, then who, then the password.
fn plain(login: &Login) -> Zeroizing<Vec<u8>> {
    let (identity, password) = (login.identity().as_bytes(), login.password());
    let mut message = Zeroizing::new(Vec::with_capacity(identity.len() + password.len() + 2));
    message.push(0);
    message.extend_from_slice(identity);
    message.push(0);
    message.extend_from_slice(password);
    message
}

/// A line with a secret in base64.
fn encode(command: &[u8], secret: &[u8]) -> Bytes {
    // Sized for the whole beforehand: a vector that grows leaves copies behind.
    let length = secret.len().div_ceil(3) * 4;
    let mut line = Zeroizing::new(vec![0; command.len() + length + 2]);
    line[..command.len()].copy_from_slice(command);
    STANDARD
        .encode_slice(secret, &mut line[command.len()..command.len() + length])
        .expect("base64 turns three octets into four");
    line[command.len() + length..].copy_from_slice(b"\r\n");
    Bytes::from_owner(line)
}
