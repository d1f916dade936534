//! AUTH (RFC 4954): an exchange that is opaque but for its base64.
//!
//! Invariant: nothing but an `Authenticated` reply authenticates, and only over TLS.

use super::{Pending, Session, State};
use crate::call::{Call, Refusal, Reply};
use crate::command;
use crate::config::{ChannelBinding, Mechanism, TlsState};
use crate::response::Response;
use crate::secret::Secret;
use crate::trace::{Authentication, Dialect};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

impl Session {
    /// What EHLO offers now.
    pub(super) fn offered(&self) -> impl Iterator<Item = Mechanism> {
        let binding = match &self.config.tls {
            TlsState::Active(info) => Some(info.channel_binding),
            TlsState::Absent | TlsState::Available => None,
        };
        self.config.mechanisms.iter().copied().filter(move |mechanism| match binding {
            None => false,
            Some(ChannelBinding::Available) => true,
            Some(ChannelBinding::Absent) => !mechanism.binds_channel(),
        })
    }

    pub(super) fn auth(&mut self, arguments: &str) {
        match self.auth_request(arguments) {
            Ok((mechanism, initial)) => {
                self.call(Call::Auth { mechanism, initial }, Pending::Auth);
            }
            Err(response) => self.respond(&response),
        }
    }

    fn auth_request(&self, arguments: &str) -> Result<(Mechanism, Option<Secret>), Response> {
        if self.config.mechanisms.is_empty() {
            return Err(Response::NotImplemented);
        }
        if self.hello.is_none() || self.dialect() == Dialect::Smtp {
            return Err(Response::BadSequence);
        }
        if !matches!(self.config.tls, TlsState::Active(_)) {
            return Err(Response::AuthNeedsTls);
        }
        // RFC 4954 §4: once only, and not within a transaction.
        if self.authentication == Authentication::Authenticated || self.transaction.is_some() {
            return Err(Response::BadSequence);
        }
        let (mechanism, initial) = command::auth(arguments)?;
        if !self.offered().any(|offered| offered == mechanism) {
            return Err(Response::UnknownMechanism);
        }
        Ok((mechanism, initial))
    }

    /// A line after a challenge.
    pub(super) fn auth_response(&mut self, line: &[u8]) {
        if line == b"*" {
            return self.abort_auth(Response::AuthAborted);
        }
        match std::str::from_utf8(line).ok().and_then(Secret::from_base64) {
            Some(secret) => {
                self.state = State::Commands;
                self.call(Call::AuthResponse(secret), Pending::Auth);
            }
            None => self.abort_auth(Response::AuthMalformed),
        }
    }

    /// Ends the exchange at the driver, then at the peer.
    pub(super) fn abort_auth(&mut self, response: Response) {
        self.state = State::Commands;
        self.call(Call::AuthAbort, Pending::AuthAbort(response));
    }

    pub(super) fn resolve_auth(&mut self, reply: Reply) {
        match reply {
            Reply::Challenge(octets) => {
                self.state = State::Authenticating;
                self.outbox.line(&format!("334 {}", STANDARD.encode(octets)));
            }
            Reply::Authenticated => {
                self.authentication = Authentication::Authenticated;
                self.respond(&Response::Authenticated);
            }
            Reply::Refused(refusal) => self.respond(&Response::Refused(refusal)),
            _ => self.respond(&Response::Refused(Refusal::AuthTemporary)),
        }
    }
}
