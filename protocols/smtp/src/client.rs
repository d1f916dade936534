//! The client's side of SMTP (RFC 5321) and LMTP (RFC 2033): a state machine over replies.
//!
//! A [`Client`] takes octets, the caller's wishes and the time in, and gives [`Output`]s. Time is
//! the duration since the session began, i.e. since the connection stood (with
//! [`Encryption::Implicit`], since its handshake).
//!
//! The caller waits for [`Event::Ready`], calls [`begin`](Client::begin), waits for
//! [`Event::Content`], hands [`content`](Client::content) in while
//! [`wants_content`](Client::wants_content) holds, calls [`finish`](Client::finish) and waits for
//! [`Event::Answered`]; then it begins again, or calls [`quit`](Client::quit). Between the last
//! `content` and `finish` nothing sent lets the server take the message: there the caller makes
//! sure that it is still the one to send it.
//!
//! Architecture invariant: each transaction begun is answered by exactly one [`Outcome`], with one
//! result for each recipient. `Accepted` is said only after the server's own word for it;
//! `Unknown` only where the content's end was taken by the driver and its reply not seen. In all
//! other cases the server does not have the message.
//!
//! Architecture invariant: no IO, no clock, no randomness. Replies are matched to commands in
//! their order, and a reply to nothing ends the session. What is held of replies is bounded by
//! [`limits`](crate::limits), and by the recipients that the caller named; what is held of
//! content is what the caller handed in.
//!
//! Content for DATA is sent as it is, but that a dot at a line's start is doubled, and that a
//! last line without CRLF gets one. A bare CR or LF goes through: servers differ in what they
//! take it for, many refuse it, so whoever hands content in should have made its line endings
//! whole. So that no server sees an end where none is, a dot behind a bare CR or LF is doubled
//! like one at a line's start; a strict server then keeps the second dot. BDAT carries any
//! octets as they are.
//!
//! Standards: PIPELINING (RFC 2920), SIZE (RFC 1870), CHUNKING and BINARYMIME (RFC 3030),
//! STARTTLS (RFC 3207), DSN (RFC 3461), ENHANCEDSTATUSCODES (RFC 2034), AUTH (RFC 4954),
//! 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531), REQUIRETLS (RFC 8689), MT-PRIORITY (RFC 6710),
//! DELIVERBY (RFC 2852), LIMITS (RFC 9422).
//!
//! Deliberately absent: SCRAM (it needs randomness), FUTURERELEASE's parameters (a queue holds
//! messages itself), checking certificates (the driver's), counting RCPTDOMAINMAX (the caller's).

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::limits::{FLIGHT_COMMANDS_LOW, FLIGHT_COMMANDS_MAX};
use crate::timer::Timer;
use crate::trace;

mod capabilities;
mod content;
mod envelope;
mod failure;
mod login;
mod opening;
mod output;
mod reply;
mod settings;
mod transaction;

pub use capabilities::{Capabilities, Extension, HoldMax};
pub use failure::{Failure, Stage, Violation};
pub use output::{Event, Framing, Outcome, Output, RecipientOutcome, Transfer};
pub use reply::{EnhancedCode, Response};
pub use settings::{Chunking, Dialect, Encryption, Login, LoginInClear, Settings, Timeouts};
pub use transaction::{BeginError, Recipient, Transaction};

use envelope::{Next, Open};
use login::AuthStep;
use output::Outbox;
use reply::{Class, Reader, Reply};

/// One connection's client side.
pub struct Client {
    settings: Settings,
    state: State,
    tls: Tls,
    capabilities: Capabilities,
    reader: Reader,
    /// What the next replies answer, in their order.
    expected: VecDeque<Expected>,
    transaction: Option<Open>,
    /// Whether the server may hold a transaction that is over here.
    leftover: Leftover,
    /// MAIL commands so far.
    mails: u64,
    outbox: Outbox,
    timer: Timer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Up to `Ready`.
    Opening,
    /// Between the reply to STARTTLS and the end of the handshake.
    Handshaking,
    /// Transactions may begin.
    Open,
    Quitting,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    /// Perhaps later.
    No,
    /// Not any more: the server refused it.
    Declined,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leftover {
    Nothing,
    Transaction,
}

/// What a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Greeting,
    /// EHLO or LHLO.
    Hello,
    Helo,
    StartTls,
    Auth(AuthStep),
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    /// A chunk of BDAT that is not the last.
    Chunk,
    /// The content's end, for all recipients.
    End,
    /// LMTP: the content's end, for this recipient.
    EndFor(usize),
    /// What concerns nobody any more.
    Nothing,
    Quit,
}

impl Expected {
    fn stage(self) -> Stage {
        match self {
            Expected::Greeting => Stage::Greeting,
            Expected::Hello | Expected::Helo => Stage::Hello,
            Expected::StartTls => Stage::StartTls,
            Expected::Auth(_) => Stage::Auth,
            Expected::Reset => Stage::Reset,
            Expected::Mail => Stage::Mail,
            Expected::Rcpt(_) => Stage::Rcpt,
            Expected::Data => Stage::Data,
            Expected::Chunk => Stage::Content,
            Expected::End | Expected::EndFor(_) => Stage::End,
            Expected::Nothing => Stage::Idle,
            Expected::Quit => Stage::Quit,
        }
    }
}

impl Client {
    /// A session whose connection has just come to stand.
    pub fn new(settings: Settings) -> Self {
        let tls = match settings.encryption {
            Encryption::Implicit => Tls::Yes,
            Encryption::Never | Encryption::IfOffered | Encryption::Required => Tls::No,
        };
        let mut client = Client {
            settings,
            state: State::Opening,
            tls,
            capabilities: Capabilities::none(trace::Encryption::Clear),
            reader: Reader::default(),
            expected: VecDeque::from([Expected::Greeting]),
            transaction: None,
            leftover: Leftover::Nothing,
            mails: 0,
            outbox: Outbox::default(),
            timer: Timer::default(),
        };
        client.arm();
        client
    }

    /// Takes octets from the server, all of them. After `Close` they are dropped.
    pub fn handle_input(&mut self, now: Duration, input: &[u8]) {
        self.timer.observe(now);
        let mut rest = input;
        while !rest.is_empty() && !self.is_closed() {
            if self.state == State::Handshaking {
                self.violation(Violation::ClearBeforeTls);
                break;
            }
            match self.reader.read(&mut rest) {
                Ok(None) => break,
                Ok(Some(reply)) => {
                    self.timer.restart();
                    self.take_reply(&reply);
                }
                Err(violation) => self.violation(violation),
            }
        }
        self.pump();
    }

    /// The handshake that `StartTls` asked for is done.
    pub fn handle_tls_established(&mut self, now: Duration) {
        self.timer.observe(now);
        if self.state == State::Handshaking {
            self.state = State::Opening;
            self.tls = Tls::Yes;
            self.say_hello();
            self.arm();
        }
    }

    /// Every `Send` taken so far was written. Ends the time that writing content may take; a
    /// driver that never says so has [`Timeouts::block`] from one `content` to the next.
    pub fn handle_sent(&mut self, now: Duration) {
        self.timer.observe(now);
        if let Some(open) = self.transaction.as_mut().filter(|_| self.outbox.octets() == 0) {
            open.written();
        }
    }

    /// The time announced by `WakeAt` has come. Too early or too often does no harm.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.timer.observe(now);
        match self.deadline() {
            Some(deadline) if self.timer.reached(deadline) => {
                self.fail(Failure::TimedOut(self.stage()));
            }
            Some(_) => self.arm(),
            // What was announced has come, and nothing is waited for.
            None => {
                self.timer.reached(Duration::MAX);
            }
        }
    }

    /// The connection is gone, or the server sends no more.
    pub fn handle_closed(&mut self, now: Duration) {
        self.timer.observe(now);
        self.fail(Failure::Closed(self.stage()));
    }

    /// Begins a transaction. An error says why the server cannot take it; nothing was sent then.
    pub fn begin(&mut self, now: Duration, transaction: Transaction) -> Result<(), BeginError> {
        self.timer.observe(now);
        if !self.is_ready() {
            return Err(BeginError::NotReady);
        }
        if let Some(limit) = self.exhausted() {
            return Err(BeginError::Exhausted { limit });
        }
        self.capabilities.check(&transaction)?;
        let framing = self.framing(&transaction);
        let next = match self.leftover {
            Leftover::Transaction => Next::Reset,
            Leftover::Nothing => Next::Mail,
        };
        self.transaction = Some(Open::new(transaction, framing, next));
        self.mails += 1;
        self.pump();
        Ok(())
    }

    /// A piece of the content, after [`Event::Content`]; in pieces of any size, of which one
    /// should be written within [`Timeouts::block`]. Otherwise, also where the transaction has
    /// been answered meanwhile, it does nothing.
    pub fn content(&mut self, now: Duration, piece: Bytes) {
        self.timer.observe(now);
        self.add_content(now, piece);
        self.arm();
    }

    /// The content is complete: the server may take it from here on. Does nothing where
    /// [`content`](Self::content) would not.
    pub fn finish(&mut self, now: Duration) {
        self.timer.observe(now);
        self.finish_content();
        self.arm();
    }

    /// Whether content can be handed in, without its piling up here, or its end, which is then put out
    /// at once: what the caller knows at that moment is still so when the end leaves.
    pub fn wants_content(&self) -> bool {
        let wants = |open: &Open| open.wants_content(self.outbox.octets());
        self.transaction.as_ref().is_some_and(wants) && self.may_send_end()
    }

    /// Gives the transaction up and closes the connection without an end of the content: the
    /// server then has no message (RFC 5321 §4.1.1.4). The outcome says `Unknown` if the end was
    /// sent before.
    pub fn abort(&mut self) {
        if !self.is_closed() {
            self.settle_unanswered();
            self.close();
        }
    }

    /// Ends the session with QUIT, whose reply is waited for. In the middle of anything it is
    /// [`abort`](Self::abort).
    pub fn quit(&mut self, now: Duration) {
        self.timer.observe(now);
        match self.state {
            State::Closed | State::Quitting => {}
            State::Open if self.transaction.is_none() => {
                self.state = State::Quitting;
                self.command(Bytes::from_static(b"QUIT\r\n"), Expected::Quit);
                self.arm();
            }
            _ => self.abort(),
        }
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop()
    }

    /// Whether [`begin`](Self::begin) can be called.
    pub fn is_ready(&self) -> bool {
        self.state == State::Open && self.transaction.is_none()
    }

    /// Whether the server takes no more transactions in this session (RFC 9422 §4.1): whoever has
    /// more for it quits and connects again.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted().is_some()
    }

    fn exhausted(&self) -> Option<u64> {
        self.capabilities.mails_max().filter(|limit| self.mails >= *limit)
    }

    /// Whether `Close` was put out.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// What is being waited for.
    pub fn stage(&self) -> Stage {
        if let Some(expected) = self.expected.front() {
            return expected.stage();
        }
        match (self.state, &self.transaction) {
            (State::Handshaking, _) => Stage::Handshake,
            (_, Some(_)) => Stage::Content,
            _ => Stage::Idle,
        }
    }

    /// What the server offers; nothing before [`Event::Ready`].
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Octets held: of a reply being read, of content not yet sent.
    pub fn buffered_len(&self) -> usize {
        let content = self.transaction.as_ref().map_or(0, Open::buffered);
        self.reader.buffered() + self.outbox.octets() + content
    }

    fn take_reply(&mut self, reply: &Reply) {
        let response = reply.response();
        let Some(expected) = self.expected.pop_front() else {
            return self.unsolicited(response);
        };
        // RFC 5321 §3.8: 421 may answer any command. QUIT asks for just that.
        if response.code == 421 && expected != Expected::Quit {
            self.settle_closing(Some(expected), &response);
            return self.fail(Failure::Closing { at: expected.stage(), response });
        }
        match expected {
            Expected::Greeting => self.greeted(response),
            Expected::Hello => self.answered_hello(reply, response),
            Expected::Helo => self.answered_helo(response),
            Expected::StartTls => self.answered_start_tls(response),
            Expected::Auth(step) => self.answered_auth(step, response),
            Expected::Reset => self.answered_reset(response),
            Expected::Mail => self.answered_mail(response),
            Expected::Rcpt(index) => self.answered_rcpt(index, response),
            Expected::Data => self.answered_data(response),
            Expected::Chunk => self.answered_chunk(response),
            Expected::End => self.answered_end(response),
            Expected::EndFor(index) => self.answered_end_for(index, response),
            Expected::Nothing => {}
            Expected::Quit => self.close(),
        }
    }

    /// A reply to nothing. Amid content it may be the refusal of what has come so far, after
    /// which nobody knows what the server takes the rest for.
    fn unsolicited(&mut self, response: Response) {
        let at = self.stage();
        if response.class() == Class::Refusal {
            self.settle_closing(None, &response);
        }
        if response.code == 421 {
            self.fail(Failure::Closing { at, response });
        } else {
            self.fail(Failure::Protocol { at, violation: Violation::Unsolicited });
        }
    }

    /// Sends what may be sent now.
    fn pump(&mut self) {
        let mut flight = BytesMut::new();
        while self.state == State::Open && self.may_send(flight.is_empty()) {
            let Some((line, expected)) = self.next_command() else { break };
            flight.extend_from_slice(line.as_bytes());
            self.expect(expected);
        }
        self.outbox.send(flight.freeze());
        self.arm();
    }

    /// RFC 2920 §3.1: many commands at once where the server offers it, and no more of them
    /// than both sides have room for.
    fn may_send(&self, begins_flight: bool) -> bool {
        let most = match (self.capabilities.offers(Extension::Pipelining), begins_flight) {
            (false, _) => 1,
            (true, true) => FLIGHT_COMMANDS_LOW,
            (true, false) => FLIGHT_COMMANDS_MAX,
        };
        self.expected.len() < most
    }

    fn command(&mut self, line: Bytes, expected: Expected) {
        self.outbox.send(line);
        self.expect(expected);
    }

    fn expect(&mut self, expected: Expected) {
        if self.expected.is_empty() {
            self.timer.restart();
        }
        self.expected.push_back(expected);
    }

    /// A code that cannot answer what was asked.
    fn unexpected(&mut self, at: Stage, response: &Response) {
        let violation = Violation::UnexpectedCode(response.code);
        self.fail(Failure::Protocol { at, violation });
    }

    fn violation(&mut self, violation: Violation) {
        self.fail(Failure::Protocol { at: self.stage(), violation });
    }

    /// The server does not let this client do what it must. It is told good-bye, but its answer
    /// is not waited for.
    fn give_up(&mut self, failure: Failure) {
        if !self.is_closed() {
            self.settle_unanswered();
            self.outbox.take_back();
            self.outbox.event(Event::Failed(failure));
            self.outbox.send(Bytes::from_static(b"QUIT\r\n"));
            self.end();
        }
    }

    fn fail(&mut self, failure: Failure) {
        match self.state {
            State::Closed => {}
            // Everything has been told.
            State::Quitting => self.close(),
            State::Opening | State::Handshaking | State::Open => {
                self.settle_unanswered();
                self.outbox.take_back();
                self.outbox.event(Event::Failed(failure));
                self.end();
            }
        }
    }

    fn close(&mut self) {
        self.outbox.take_back();
        self.end();
    }

    fn end(&mut self) {
        self.outbox.push(Output::Close);
        self.state = State::Closed;
        self.expected.clear();
        self.reader = Reader::default();
        self.settings.login = None;
    }

    fn deadline(&self) -> Option<Duration> {
        let timeouts = &self.settings.timeouts;
        if self.state == State::Handshaking {
            return Some(self.timer.after(timeouts.handshake));
        }
        let Some(expected) = self.expected.front() else {
            let unwritten = self.transaction.as_ref().and_then(Open::unwritten_since);
            return unwritten.map(|since| since.saturating_add(timeouts.block));
        };
        let timeout = match expected.stage() {
            Stage::Greeting => timeouts.greeting,
            Stage::Mail => timeouts.mail,
            Stage::Rcpt => timeouts.rcpt,
            Stage::Data => timeouts.data,
            Stage::Content => timeouts.block,
            Stage::End => timeouts.end,
            Stage::Quit => timeouts.quit,
            Stage::Hello
            | Stage::StartTls
            | Stage::Handshake
            | Stage::Auth
            | Stage::Idle
            | Stage::Reset => timeouts.command,
        };
        Some(self.timer.after(timeout))
    }

    fn arm(&mut self) {
        if self.is_closed() {
            return;
        }
        if let Some(at) = self.deadline().and_then(|deadline| self.timer.announce(deadline)) {
            self.outbox.push(Output::WakeAt(at));
        }
    }
}

/// Without the login and without content.
impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("dialect", &self.settings.dialect)
            .field("state", &self.state)
            .field("stage", &self.stage())
            .field("buffered", &self.buffered_len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
