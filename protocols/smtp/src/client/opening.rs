//! From the greeting to `Ready`: EHLO, STARTTLS, EHLO again, AUTH.
//!
//! Invariant: nothing the server said in clear is believed once there is TLS (RFC 3207 §4.2), and
//! no octet of what it sent in clear is read as if it came through TLS.

use bytes::Bytes;

use super::capabilities::{Capabilities, Extension};
use super::failure::{Failure, Stage};
use super::output::{Event, Output};
use super::reply::{Class, Reply, Response};
use super::settings::{Dialect, Encryption};
use super::{Client, Expected, State, Tls};
use crate::trace;

impl Client {
    pub(super) fn greeted(&mut self, response: Response) {
        match response.class() {
            Class::Success if response.code == 220 => self.say_hello(),
            Class::Refusal => self.refused(Stage::Greeting, response),
            _ => self.unexpected(Stage::Greeting, &response),
        }
    }

    pub(super) fn say_hello(&mut self) {
        let verb = match self.settings.dialect {
            Dialect::Smtp => "EHLO",
            Dialect::Lmtp => "LHLO",
        };
        let line = format!("{verb} {}\r\n", self.settings.helo);
        self.command(Bytes::from(line), Expected::Hello);
    }

    pub(super) fn answered_hello(&mut self, reply: &Reply, response: Response) {
        match response.class() {
            Class::Success => {
                self.capabilities = Capabilities::parse(reply.lines(), self.trace_encryption());
                self.go_on();
            }
            // RFC 5321 §3.2: an old server knows HELO only.
            Class::Refusal if response.code >= 500 && self.settings.dialect == Dialect::Smtp => {
                let line = format!("HELO {}\r\n", self.settings.helo);
                self.command(Bytes::from(line), Expected::Helo);
            }
            Class::Refusal => self.refused(Stage::Hello, response),
            Class::Intermediate => self.unexpected(Stage::Hello, &response),
        }
    }

    pub(super) fn answered_helo(&mut self, response: Response) {
        match response.class() {
            Class::Success => {
                self.capabilities = Capabilities::none(self.trace_encryption());
                self.go_on();
            }
            Class::Refusal => self.refused(Stage::Hello, response),
            Class::Intermediate => self.unexpected(Stage::Hello, &response),
        }
    }

    fn trace_encryption(&self) -> trace::Encryption {
        match self.tls {
            Tls::Yes => trace::Encryption::Tls,
            Tls::No | Tls::Declined => trace::Encryption::Clear,
        }
    }

    /// TLS first, then the login, then the caller.
    fn go_on(&mut self) {
        let offered = self.capabilities.offers(Extension::StartTls);
        match (self.tls, self.settings.encryption) {
            (Tls::No, Encryption::IfOffered | Encryption::Required) if offered => {
                self.command(Bytes::from_static(b"STARTTLS\r\n"), Expected::StartTls);
            }
            (Tls::No | Tls::Declined, Encryption::Required) => {
                self.give_up(Failure::TlsNotOffered);
            }
            _ => self.log_in(),
        }
    }

    pub(super) fn answered_start_tls(&mut self, response: Response) {
        match response.class() {
            Class::Success if response.code == 220 => {
                self.state = State::Handshaking;
                self.outbox.push(Output::StartTls);
            }
            Class::Refusal if self.settings.encryption == Encryption::Required => {
                self.refused(Stage::StartTls, response);
            }
            Class::Refusal => {
                self.tls = Tls::Declined;
                self.go_on();
            }
            _ => self.unexpected(Stage::StartTls, &response),
        }
    }

    pub(super) fn ready(&mut self) {
        self.state = State::Open;
        self.settings.login = None;
        self.outbox.event(Event::Ready(self.capabilities.clone()));
    }

    /// A refusal that ends the session.
    pub(super) fn refused(&mut self, at: Stage, response: Response) {
        self.give_up(Failure::Refused { at, response });
    }
}
