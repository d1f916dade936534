//! Commands between messages (RFC 5321 §4.1): each is judged by what came before it, then by
//! its arguments, then by the driver.

use super::replies::Pending;
use super::{Hello, Session, State};
use crate::address::HeloName;
use crate::call::{Body, Call, Charset, Output, Refusal};
use crate::command::{self, Offered, Verb};
use crate::config::{FutureRelease, Offer, Role, TlsState};
use crate::response::Response;
use crate::trace::{Authentication, Dialect};

impl Session {
    /// A line in command state, without its CRLF.
    pub(super) fn command(&mut self, line: &[u8]) {
        let (verb, arguments) = match command::split(line) {
            Ok(split) => split,
            Err(response) => return self.respond(&response),
        };
        if !matches!(verb, Verb::Rcpt | Verb::Data) {
            self.forgiven = 0;
        }
        match verb {
            Verb::Helo => self.greet(Dialect::Smtp, arguments),
            Verb::Ehlo => self.greet(Dialect::Esmtp, arguments),
            Verb::Lhlo => self.greet(Dialect::Lmtp, arguments),
            Verb::Mail => self.mail(arguments),
            Verb::Rcpt => self.rcpt(arguments),
            Verb::Data => self.data(arguments),
            Verb::Bdat => self.bdat(arguments),
            Verb::Auth => self.auth(arguments),
            Verb::StartTls => self.start_tls(arguments),
            Verb::Rset => self.rset(arguments),
            Verb::Noop => self.idle(&Response::Ok),
            Verb::Help => self.idle(&Response::Help),
            Verb::Vrfy if arguments.is_empty() => self.respond(&Response::BadArguments),
            Verb::Vrfy => self.idle(&Response::CannotVerify),
            Verb::Quit if arguments.is_empty() => self.farewell(&Response::Bye),
            Verb::Quit => self.respond(&Response::BadArguments),
            Verb::Absent => self.respond(&Response::NotImplemented),
            Verb::Unknown => self.respond(&Response::UnknownCommand),
        }
    }

    /// HELO, EHLO and LHLO; each also drops a transaction (RFC 5321 §4.1.4).
    fn greet(&mut self, dialect: Dialect, arguments: &str) {
        // RFC 2033 §4.1: neither protocol takes the other's greeting.
        if (dialect == Dialect::Lmtp) != (self.config.role == Role::Lmtp) {
            return self.respond(&Response::UnknownCommand);
        }
        let Some(name) = HeloName::parse(arguments) else {
            return self.respond(&Response::BadArguments);
        };
        self.hello = Some(Hello { name, dialect });
        if self.transaction.take().is_some() {
            self.call(Call::Reset, Pending::ResetByGreeting);
        } else {
            self.answer_greeting();
        }
    }

    pub(super) fn answer_greeting(&mut self) {
        let hostname = self.config.hostname.clone();
        if self.dialect() == Dialect::Smtp {
            self.outbox.line(&format!("250 {hostname}"));
        } else {
            self.outbox.line(&format!("250-{hostname}"));
            for extension in self.extensions() {
                self.outbox.line(&format!("250-{extension}"));
            }
            self.outbox.line("250 HELP");
        }
        self.count_idle();
    }

    fn extensions(&self) -> Vec<String> {
        let mut extensions = vec![
            "PIPELINING".to_owned(),
            format!("SIZE {}", self.config.limits.message_octets_max),
        ];
        let plain =
            ["8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"];
        extensions.extend(plain.map(str::to_owned));
        if self.config.tls == TlsState::Available {
            extensions.push("STARTTLS".to_owned());
        }
        let mechanisms: Vec<_> = self.offered().map(|mechanism| mechanism.name()).collect();
        if !mechanisms.is_empty() {
            extensions.push(format!("AUTH {}", mechanisms.join(" ")));
        }
        if self.offered_parameters().require_tls() {
            extensions.push("REQUIRETLS".to_owned());
        }
        let configured = &self.config.extensions;
        if configured.priority == Offer::Yes {
            extensions.push("MT-PRIORITY".to_owned());
        }
        if let Some(offer) = configured.deliver_by {
            extensions.push(format!("DELIVERBY {}", offer.seconds_min));
        }
        if let Some(FutureRelease { interval_max, until_max }) = configured.future_release {
            extensions.push(format!("FUTURERELEASE {interval_max} {until_max}"));
        }
        extensions
    }

    fn mail(&mut self, arguments: &str) {
        if self.hello.is_none() || self.transaction.is_some() {
            return self.respond(&Response::BadSequence);
        }
        // RFC 6409 §4.3.
        let anonymous = self.authentication == Authentication::Anonymous;
        if self.config.role == Role::Submission && anonymous {
            let required = match self.config.tls {
                TlsState::Available => Refusal::EncryptionRequired,
                TlsState::Absent | TlsState::Active(_) => Refusal::AuthenticationRequired,
            };
            return self.refuse_mail(&Response::Refused(required));
        }
        match command::mail(arguments, self.dialect(), &self.offered_parameters()) {
            Err(response) => self.refuse_mail(&response),
            Ok(mail) if !self.config.extensions.allow(&mail) => {
                self.refuse_mail(&Response::BeyondOffer);
            }
            Ok(mail) if mail.size.is_some_and(|size| size > self.message_octets_max()) => {
                self.refuse_mail(&Response::Refused(Refusal::MessageTooLarge));
            }
            Ok(mail) => {
                let pending = Pending::Mail { body: mail.body, charset: mail.charset };
                self.call(Call::Mail(mail), pending);
            }
        }
    }

    /// RFC 2920 §3.1: a peer sends RCPT and DATA before it sees the reply to MAIL. What it could
    /// not know is not held against it.
    pub(super) fn refuse_mail(&mut self, response: &Response) {
        self.forgiven = self.config.limits.recipients_max.saturating_add(1);
        self.respond(response);
    }

    /// RCPT or DATA without MAIL.
    fn refuse_without_mail(&mut self) {
        let response = Response::BadSequence;
        match self.forgiven.checked_sub(1) {
            Some(left) => {
                self.forgiven = left;
                self.write(&response, response.status());
            }
            None => self.respond(&response),
        }
    }

    fn offered_parameters(&self) -> Offered<'_> {
        Offered { extensions: &self.config.extensions, encryption: self.protocol().encryption }
    }

    fn rcpt(&mut self, arguments: &str) {
        let transaction = match &self.transaction {
            None => return self.refuse_without_mail(),
            Some(open) if open.has_content() => return self.respond(&Response::BadSequence),
            Some(open) => open,
        };
        match command::rcpt(arguments, self.dialect(), transaction.charset()) {
            Err(response) => self.respond(&response),
            Ok(_) if transaction.recipients() >= self.config.limits.recipients_max => {
                self.respond(&Response::Refused(Refusal::TooManyRecipients));
            }
            Ok(rcpt) => self.call(Call::Rcpt(rcpt), Pending::Rcpt),
        }
    }

    fn data(&mut self, arguments: &str) {
        if !arguments.is_empty() {
            return self.respond(&Response::BadArguments);
        }
        match &self.transaction {
            None => self.refuse_without_mail(),
            // RFC 3030 §2 and §3: DATA neither follows BDAT nor carries BINARYMIME.
            Some(open) if open.has_content() || open.body() == Body::BinaryMime => {
                self.respond(&Response::BadSequence);
            }
            Some(open) if open.recipients() == 0 => self.respond(&Response::NoRecipients),
            Some(_) => self.begin_data(Pending::BeginData),
        }
    }

    /// Asks the driver to take content in. There is a greeting, since there is a transaction.
    pub(super) fn begin_data(&mut self, pending: Pending) {
        let protocol = self.protocol();
        match &self.hello {
            Some(hello) => {
                let helo = hello.name.clone();
                self.call(Call::BeginData { protocol, helo }, pending);
            }
            None => self.respond(&Response::BadSequence),
        }
    }

    fn start_tls(&mut self, arguments: &str) {
        let response = match self.config.tls {
            _ if !arguments.is_empty() => Response::BadArguments,
            TlsState::Absent => Response::NotImplemented,
            // RFC 3207 §4.2: there is no second layer.
            TlsState::Active(_) => Response::BadSequence,
            TlsState::Available if self.transaction.is_some() || self.hello.is_none() => {
                Response::BadSequence
            }
            TlsState::Available => Response::StartTls,
        };
        if response == Response::StartTls {
            self.state = State::Handshaking;
            self.respond(&response);
            self.outbox.push_after_replies(Output::StartTls);
            // RFC 3207 §4.2: what was sent along in clear must not seem to come through TLS.
            self.input.clear();
        } else {
            self.respond(&response);
        }
    }

    fn rset(&mut self, arguments: &str) {
        if !arguments.is_empty() {
            self.respond(&Response::BadArguments);
        } else if self.transaction.take().is_some() {
            self.call(Call::Reset, Pending::Reset);
        } else {
            self.idle(&Response::Ok);
        }
    }

    /// Answers a command that carries no mail.
    pub(super) fn idle(&mut self, response: &Response) {
        self.respond(response);
        self.count_idle();
    }

    fn count_idle(&mut self) {
        self.tally.idle_commands += 1;
        if self.tally.idle_commands >= self.config.limits.idle_commands_max && !self.is_closed() {
            self.farewell(&Response::TooManyErrors);
        }
    }

    pub(super) fn message_octets_max(&self) -> u64 {
        self.config.limits.message_octets_max
    }

    pub(super) fn resolve_mail(&mut self, body: Body, charset: Charset) {
        self.forgiven = 0;
        self.transaction = Some(super::Transaction::new(body, charset));
        self.respond(&Response::SenderOk);
    }
}
