//! Dialogues: each is replayed whole, cut in two at every octet, and octet by octet.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::address::Domain;
use crate::call::{AuthFailure, Permanence, QueueId, RcptTo};
use crate::config::{ChannelBinding, EarlyTalkers, Extensions, Mechanism, Role};
use crate::dialogue::{self, Segments};
use crate::limits::Limits;

mod auth;
mod content;
mod envelope;
mod handling;
mod lmtp;
mod properties;
mod time;

/// A driver whose answers follow from what it is asked.
#[derive(Default)]
pub(super) struct Driver {
    sender: String,
    recipients: Vec<String>,
    pub(super) content: Vec<u8>,
}

impl Driver {
    pub(super) fn answer(&mut self, call: &Call) -> Reply {
        match call {
            Call::Auth { mechanism: Mechanism::Plain, initial: None } => {
                Reply::Challenge(Bytes::new())
            }
            Call::Auth { initial: None, .. } => Reply::Challenge(Bytes::from_static(b"User?")),
            Call::Auth { initial: Some(secret), .. } | Call::AuthResponse(secret) => {
                match secret.expose() {
                    b"\0user\0pass" | b"pass" => Reply::Authenticated,
                    b"user" => Reply::Challenge(Bytes::from_static(b"Password?")),
                    b"" => Reply::Challenge(Bytes::from_static(b"empty")),
                    b"busy" => Reply::Refused(Refusal::AuthTemporary),
                    b"mismatch" => Reply::Accepted,
                    _ => Reply::Refused(Refusal::AuthFailed(AuthFailure::Credentials)),
                }
            }
            Call::Mail(mail) => {
                *self = Driver { sender: local(mail.sender.address()), ..Driver::default() };
                verdict(&self.sender).unwrap_or(Reply::Accepted)
            }
            Call::Rcpt(RcptTo { recipient, .. }) => {
                let name = local(recipient.address());
                let reply = verdict(&name).unwrap_or(Reply::Accepted);
                if reply == Reply::Accepted {
                    self.recipients.push(name);
                }
                reply
            }
            Call::BeginData { .. } if self.sender == "begin" => {
                Reply::Refused(Refusal::InsufficientStorage)
            }
            Call::Data(_) if self.sender == "data" => Reply::Refused(Refusal::TemporaryFailure),
            Call::Data(content) => {
                self.content.extend_from_slice(content);
                Reply::Accepted
            }
            Call::EndData => self.end(),
            _ => Reply::Accepted,
        }
    }

    fn end(&self) -> Reply {
        let id = QueueId::new("q1").expect("valid");
        let result = |name: &String| match name.as_str() {
            "late" => Err(Refusal::MailboxFull(Permanence::Temporary)),
            _ => Ok(id.clone()),
        };
        match self.sender.as_str() {
            "spam" => Reply::Refused(Refusal::PolicyRejected),
            "confused" => Reply::Challenge(Bytes::new()),
            "each" => Reply::Deliveries(self.recipients.iter().map(result).collect()),
            "short" => Reply::Deliveries(vec![Ok(id)]),
            _ => Reply::MessageAccepted { id },
        }
    }
}

fn local(address: Option<&crate::Address>) -> String {
    address.map(|address| address.local().to_owned()).unwrap_or_default()
}

fn verdict(name: &str) -> Option<Reply> {
    let refusal = match name {
        "unknown" => Refusal::UnknownRecipient,
        "full" => Refusal::MailboxFull(Permanence::Temporary),
        "stuffed" => Refusal::MailboxFull(Permanence::Permanent),
        "relay" => Refusal::RelayDenied,
        "stranger" => Refusal::SenderNotOwned,
        "broken" => Refusal::TemporaryFailure,
        "down" => Refusal::ShuttingDown,
        _ => return None,
    };
    Some(Reply::Refused(refusal))
}

fn render(call: &Call) -> String {
    let text = |octets: &[u8]| octets.escape_ascii().to_string();
    match call {
        Call::Connect => "connect".to_owned(),
        Call::Auth { mechanism, initial: None } => format!("auth {mechanism}"),
        Call::Auth { mechanism, initial: Some(secret) } => {
            format!("auth {mechanism} '{}'", text(secret.expose()))
        }
        Call::AuthResponse(secret) => format!("auth response '{}'", text(secret.expose())),
        Call::AuthAbort => "auth abort".to_owned(),
        Call::Mail(mail) => format!("mail {}", mail.sender),
        Call::Rcpt(rcpt) => format!("rcpt {}", rcpt.recipient),
        Call::BeginData { protocol, helo } => format!("begin {} {helo}", protocol.keyword()),
        Call::Data(octets) => format!("data {}", text(octets)),
        Call::EndData => "end".to_owned(),
        Call::AbortData => "abort".to_owned(),
        Call::Reset => "reset".to_owned(),
    }
}

/// What a run of a dialogue came to.
#[derive(Default)]
pub(super) struct Run {
    pub(super) driver: Driver,
    pub(super) sent: Vec<u8>,
    pub(super) sends: usize,
    calls: Vec<String>,
    closed: bool,
    tls: bool,
}

impl Run {
    /// Serves the session until it waits.
    pub(super) fn serve(&mut self, session: &mut Session) {
        while let Some(output) = session.poll_output() {
            match output {
                Output::Send(octets) => {
                    self.sends += 1;
                    self.sent.extend_from_slice(&octets);
                }
                Output::Call(call) => {
                    self.calls.push(render(&call));
                    let reply = self.driver.answer(&call);
                    session.handle_reply(Duration::ZERO, reply);
                }
                Output::StartTls => self.tls = true,
                Output::WakeAt(_) => {}
                Output::Close => self.closed = true,
            }
        }
    }

    pub(super) fn feed(&mut self, session: &mut Session, mut input: &[u8]) {
        while !input.is_empty() {
            let taken = session.handle_input(Duration::ZERO, input);
            input = &input[taken..];
            self.serve(session);
            assert!(session.buffered_len() <= crate::limits::BUFFERED_OCTETS_MAX);
        }
    }
}

pub(super) fn tls_info() -> TlsInfo {
    TlsInfo {
        version: "TLSv1.3".to_owned(),
        cipher: "AES".to_owned(),
        channel_binding: ChannelBinding::Available,
    }
}

pub(super) fn config(role: Role) -> Config {
    Config {
        role,
        hostname: Domain::parse("mx.example").expect("valid"),
        tls: TlsState::Absent,
        mechanisms: Vec::new(),
        early_talkers: EarlyTalkers::Serve,
        extensions: Extensions::default(),
        limits: Limits { message_octets_max: 1000, ..Limits::default() },
    }
}

pub(super) fn exchange() -> Config {
    config(Role::Exchange)
}

pub(super) fn submission() -> Config {
    Config {
        tls: TlsState::Active(tls_info()),
        mechanisms: vec![Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256Plus],
        ..config(Role::Submission)
    }
}

/// Replays `script`. Its lines: `C:` the client's line, `c:` the client's octets with escapes,
/// `S:` the server's line, `>` a call, `T:` the handshake is done, `E:` the client's end,
/// `X:` the server closes. Replies and calls must come in this order each; a reply is not
/// tied to a place among calls, since pipelining may delay it.
pub(super) fn check(config: &Config, script: &str) {
    let steps = dialogue::steps(script);
    let length: usize = steps.iter().map(|step| client_octets(step).len()).sum();
    dialogue::at_every_cut(length, |cuts, label| replay(config, &steps, cuts, label));
}

fn client_octets((kind, text): &(&str, &str)) -> Vec<u8> {
    match *kind {
        "C:" => dialogue::line(text),
        "c:" => dialogue::unescape(text),
        _ => Vec::new(),
    }
}

fn replay(config: &Config, steps: &[(&str, &str)], cuts: &[usize], label: &str) {
    let mut session = Session::new(config.clone());
    let mut run = Run::default();
    run.serve(&mut session);
    let (mut expected, mut calls, mut closes) = (String::new(), Vec::new(), false);
    let mut segments = Segments::new(cuts);
    for step in steps {
        match step.0 {
            "C:" | "c:" => segments.push(&client_octets(step)),
            "S:" => expected.push_str(&format!("{}\r\n", step.1)),
            ">" => calls.push(step.1.to_owned()),
            "T:" => {
                segments.feed(|piece| run.feed(&mut session, piece));
                assert!(run.tls, "{label}: no handshake");
                session.handle_tls_established(Duration::ZERO, tls_info());
            }
            "E:" => {
                segments.feed(|piece| run.feed(&mut session, piece));
                session.handle_eof(Duration::ZERO);
            }
            "X:" => closes = true,
            kind => panic!("unknown step {kind:?}"),
        }
    }
    segments.feed(|piece| run.feed(&mut session, piece));
    run.serve(&mut session);
    assert_eq!(String::from_utf8_lossy(&run.sent), expected, "replies, {label}");
    assert_eq!(run.calls, calls, "calls, {label}");
    assert_eq!(run.closed, closes, "closed, {label}");
    assert_eq!(session.is_closed(), closes, "{label}");
}

/// [`check`] with the usual beginning up to an open transaction with one recipient.
pub(super) fn check_message(config: &Config, mail: &str, script: &str) {
    let beginning = format!(
        "> connect
         S: 220 mx.example ESMTP ready
         C: EHLO c
         S: 250-mx.example
         S: 250-PIPELINING
         S: 250-SIZE {}
         S: 250-8BITMIME
         S: 250-BINARYMIME
         S: 250-CHUNKING
         S: 250-SMTPUTF8
         S: 250-DSN
         S: 250-ENHANCEDSTATUSCODES
         S: 250 HELP
         C: MAIL FROM:{mail}
         > mail {}
         S: 250 2.1.0 Sender OK
         C: RCPT TO:<r@x>
         > rcpt <r@x>
         S: 250 2.1.5 Recipient OK
         {script}",
        config.limits.message_octets_max,
        mail.split(' ').next().expect("a path"),
    );
    check(config, &beginning);
}
