//! Login: LOGIN, the SASL exchange, STARTTLS (RFC 9051 §6.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::reply::CallKind;
use super::{Output, Phase, Session, State, Step};
use crate::call::{Call, Completion, Outcome};
use crate::command::Tag;
use crate::command::auth::sasl_decode;
use crate::config::{ChannelBinding, PlaintextPolicy, TlsState};
use crate::limits::{AUTH_FAILURES_MAX, COMMAND_BYTES_PREAUTH_MAX};
use crate::response::ResponseCode;
use crate::text::{Secret, Text};

/// Mechanisms that show the password or token to whoever reads along.
const PLAINTEXT: [&str; 4] = ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"];

impl Session {
    pub(super) fn plaintext_allowed(&self) -> bool {
        matches!(self.config.tls, TlsState::Active(_))
            || self.config.plaintext == PlaintextPolicy::Always
    }

    pub(super) fn offered_mechanisms(&self) -> impl Iterator<Item = &str> {
        let binding = match self.config.tls {
            TlsState::Active(info) => info.channel_binding == ChannelBinding::Available,
            _ => false,
        };
        let plaintext = self.plaintext_allowed();
        let offered = move |name: &&str| {
            (binding || !name.ends_with("-PLUS")) && (plaintext || !PLAINTEXT.contains(name))
        };
        self.config.mechanisms.iter().map(String::as_str).filter(offered)
    }

    pub(super) fn start_tls(&mut self, tag: &Tag) {
        match self.config.tls {
            TlsState::Available => {
                let go_ahead = Completion::ok().with_text("Begin TLS negotiation now");
                self.complete(tag, "STARTTLS", &go_ahead);
                self.output.push(Output::StartTls);
                self.input.clear();
                self.state = State::Handshake;
            }
            TlsState::Active(_) => self.bad(tag, "TLS is active already"),
            TlsState::Unavailable => self.bad(tag, "STARTTLS is not available"),
        }
    }

    pub(super) fn login(&mut self, tag: Tag, user: String, password: Secret) {
        if !self.plaintext_allowed() {
            return self.privacy_required(&tag, "LOGIN");
        }
        self.call(tag, "LOGIN", CallKind::Login, Call::Login { user, password });
    }

    pub(super) fn authenticate(&mut self, tag: Tag, mechanism: String, initial: Option<Secret>) {
        if !self.offered_mechanisms().any(|offered| offered == mechanism) {
            if !self.plaintext_allowed() && PLAINTEXT.contains(&mechanism.as_str()) {
                return self.privacy_required(&tag, "AUTHENTICATE");
            }
            let unknown = Completion::no("This SASL mechanism is not available")
                .with_code(ResponseCode::Cannot);
            return self.complete(&tag, "AUTHENTICATE", &unknown);
        }
        let call = Call::Authenticate { mechanism, initial };
        self.call(tag, "AUTHENTICATE", CallKind::Login, call);
    }

    fn privacy_required(&mut self, tag: &Tag, name: &str) {
        let refusal = Completion::no("Passwords are taken only over TLS")
            .with_code(ResponseCode::PrivacyRequired);
        self.complete(tag, name, &refusal);
    }

    pub(super) fn challenge(&mut self, tag: Tag, challenge: &Bytes) {
        let mut w = self.output.writer(self.dialect());
        w.raw("+ ");
        w.raw(&STANDARD.encode(challenge));
        w.raw("\r\n");
        self.output.flush();
        self.state = State::Sasl { tag };
    }

    pub(super) fn read_sasl(&mut self) -> Step {
        let State::Sasl { tag } = &self.state else {
            return Step::Wait;
        };
        let tag = tag.clone();
        let (response, length) = match self.input.line(COMMAND_BYTES_PREAUTH_MAX) {
            None => return Step::Wait,
            Some(Err(_)) => {
                self.bye(None, "The SASL response is too long");
                return Step::Wait;
            }
            // RFC 9051 §6.2.2: `*` cancels.
            Some(Ok((b"*", length))) => (Err("The client gave up".into()), length),
            Some(Ok((line, length))) => (sasl_decode(line).map_err(|error| error.text), length),
        };
        self.input.drop_head(length);
        match response {
            Ok(response) => {
                self.call(tag, "AUTHENTICATE", CallKind::Login, Call::AuthResponse(response));
            }
            Err(text) => {
                self.state = State::Ready;
                self.output.push(Output::Call(Call::AuthAbort));
                self.complete_refused(&tag, &Completion::bad(Text::new(text)));
            }
        }
        Step::Again
    }

    /// RFC 9051 §6.2.2, §6.2.3: a login's OK tells the capabilities, unless the driver's code is
    /// more important.
    pub(super) fn login_done(&mut self, tag: &Tag, name: &str, mut completion: Completion) {
        if completion.outcome == Outcome::Ok {
            self.phase = Phase::Authenticated;
            self.bad_commands = 0;
            if completion.code.is_none() {
                completion.code = Some(ResponseCode::Capability(self.capability_list()));
            }
            return self.complete(tag, name, &completion);
        }
        self.complete(tag, name, &completion);
        self.auth_failures += 1;
        if self.auth_failures >= AUTH_FAILURES_MAX {
            self.bye(None, "Too many failed logins");
        }
    }
}
