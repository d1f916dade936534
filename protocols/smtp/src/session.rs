//! The session: a state machine over lines and message content.
//!
//! Invariant: while a call is outstanding nothing further is processed, so that every command is
//! judged in the state that its predecessors left.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use memchr::memchr_iter;
use zeroize::Zeroize;

use crate::address::HeloName;
use crate::call::{Call, Charset, Output, Refusal, Reply};
use crate::config::{Config, TlsInfo, TlsState};
use crate::limits::{
    AUTH_LINE_OCTETS_MAX, COMMAND_LINE_OCTETS_MAX, INPUT_CAPACITY_KEPT, INPUT_OCTETS_MAX,
    REPLIES_OCTETS_MAX,
};
use crate::response::{Response, Status};
use crate::timer::Timer;
use crate::trace::{Authentication, Dialect, Encryption, Protocol};

mod auth;
mod commands;
mod content;
mod outbox;
mod replies;

use content::{Chunk, Content, Transaction};
use outbox::Outbox;
use replies::Pending;

/// One connection's server side.
pub struct Session {
    config: Config,
    state: State,
    pending: Option<Pending>,
    ending: Option<Ending>,
    input: BytesMut,
    input_ended: bool,
    talked_early: bool,
    hello: Option<Hello>,
    authentication: Authentication,
    transaction: Option<Transaction>,
    tally: Tally,
    /// Commands that may still be of the flight of a refused MAIL.
    forgiven: usize,
    outbox: Outbox,
    timer: Timer,
}

/// What the input is read as.
#[derive(Debug)]
enum State {
    /// Not yet greeted.
    Connecting,
    Commands,
    /// The rest of an overlong line is read over.
    SkippingLine {
        after_cr: bool,
        line: LineKind,
    },
    /// The next line answers a challenge.
    Authenticating,
    /// Content of DATA.
    Content(Content),
    /// A chunk of BDAT.
    Chunk(Chunk),
    /// Between the reply to STARTTLS and the end of the handshake.
    Handshaking,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineKind {
    Command,
    AuthResponse,
}

/// Why the session will end as soon as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Between commands.
    Shutdown,
    /// When the outstanding call is answered.
    TimedOut,
}

#[derive(Clone, Debug)]
struct Hello {
    name: HeloName,
    dialect: Dialect,
}

/// What was held against the peer so far.
#[derive(Debug, Default)]
struct Tally {
    errors: u32,
    refusals: u32,
    auth_failures: u32,
    idle_commands: u32,
}

/// What a peer did that was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offences {
    /// Lines that were no commands, or in the wrong place.
    pub errors: u32,
    /// Senders, recipients and messages that were refused for good.
    pub refusals: u32,
    /// Logins that failed.
    pub auth_failures: u32,
}

impl Offences {
    /// All of them.
    pub fn all(self) -> u32 {
        self.errors.saturating_add(self.refusals).saturating_add(self.auth_failures)
    }
}

/// Whether a step found what it needs in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Done,
    Starved,
}

impl Session {
    /// A session that has just been connected; its first output is [`Call::Connect`].
    pub fn new(config: Config) -> Self {
        let mut session = Session {
            config,
            state: State::Connecting,
            pending: None,
            ending: None,
            input: BytesMut::new(),
            input_ended: false,
            talked_early: false,
            hello: None,
            authentication: Authentication::Anonymous,
            transaction: None,
            tally: Tally::default(),
            forgiven: 0,
            outbox: Outbox::default(),
            timer: Timer::default(),
        };
        session.call(Call::Connect, Pending::Connect);
        session.arm();
        session
    }

    /// Takes octets from the peer and tells how many of them: the rest must be offered again
    /// once [`wants_input`](Self::wants_input) holds. During a handshake and after `Close`
    /// everything is taken and dropped.
    #[must_use = "what was not taken must be offered again"]
    pub fn handle_input(&mut self, now: Duration, input: &[u8]) -> usize {
        self.timer.observe(now);
        match self.state {
            State::Closed | State::Handshaking => return input.len(),
            State::Connecting => self.talked_early |= !input.is_empty(),
            State::Content(_) | State::Chunk(_) => self.timer.restart(),
            State::Commands | State::SkippingLine { .. } | State::Authenticating => {}
        }
        let taken = input.len().min(INPUT_OCTETS_MAX - self.input.len());
        self.input.extend_from_slice(&input[..taken]);
        self.advance();
        taken
    }

    /// Whether the driver should read from the peer: not while a call is outstanding, nor during
    /// a handshake. Before the greeting it should, to notice who talks early.
    pub fn wants_input(&self) -> bool {
        match self.state {
            State::Closed | State::Handshaking => false,
            State::Connecting => !self.talked_early,
            _ => {
                self.pending.is_none()
                    && !self.outbox_is_full()
                    && self.input.len() < INPUT_OCTETS_MAX
            }
        }
    }

    /// The peer sends no more. What it sent is still processed; an unfinished message is dropped.
    pub fn handle_eof(&mut self, now: Duration) {
        self.timer.observe(now);
        self.input_ended = true;
        if matches!(self.state, State::Handshaking) {
            self.close();
        }
        self.advance();
    }

    /// The time announced by `WakeAt` has come. Too early or too often does no harm.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.timer.observe(now);
        if matches!(self.state, State::Closed) {
            return;
        }
        if self.timer.reached(self.deadline()) {
            if matches!(self.state, State::Handshaking) {
                // Between the two protocols nothing can be said.
                return self.close();
            }
            // A call's outcome is told first: who never hears of an accepted message sends it
            // again.
            self.ending = Some(Ending::TimedOut);
            self.advance();
        } else {
            self.arm();
        }
    }

    /// The server stops: the session ends with 421 at the next place between commands. A message
    /// that is being received is finished first; a driver that cannot wait drops the connection.
    pub fn handle_shutdown(&mut self, now: Duration) {
        self.timer.observe(now);
        if matches!(self.state, State::Handshaking) {
            self.close();
        }
        self.ending.get_or_insert(Ending::Shutdown);
        self.advance();
    }

    /// Answers the outstanding call. Without one it does nothing. An answer that does not fit
    /// the call counts as a temporary failure.
    pub fn handle_reply(&mut self, now: Duration, reply: Reply) {
        self.timer.observe(now);
        self.timer.restart();
        if let Some(pending) = self.pending.take()
            && !matches!(self.state, State::Closed)
        {
            self.resolve(pending, reply);
            self.advance();
        }
    }

    /// The handshake that `StartTls` asked for is done.
    ///
    /// RFC 3207 §4.2: nothing known from before the handshake is kept, nor any octet.
    pub fn handle_tls_established(&mut self, now: Duration, info: TlsInfo) {
        self.timer.observe(now);
        if !matches!(self.state, State::Handshaking) {
            return;
        }
        self.timer.restart();
        self.input.clear();
        self.hello = None;
        self.authentication = Authentication::Anonymous;
        self.config.tls = TlsState::Active(info);
        self.state = State::Commands;
        self.advance();
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        let was_full = self.outbox_is_full();
        let output = self.outbox.pop();
        if was_full && !self.outbox_is_full() {
            self.advance();
        }
        output
    }

    /// Octets the session holds: at most [`BUFFERED_OCTETS_MAX`](crate::limits::BUFFERED_OCTETS_MAX).
    pub fn buffered_len(&self) -> usize {
        let state = match &self.state {
            State::Content(content) => content.buffered(),
            State::Chunk(chunk) => chunk.buffered(),
            _ => 0,
        };
        let transaction = self.transaction.as_ref().map_or(0, Transaction::buffered);
        let outbox = self.outbox.reply_octets() + self.outbox.content_octets();
        self.input.len() + state + transaction + outbox
    }

    /// Whether the peer talked before it was greeted.
    pub fn talked_early(&self) -> bool {
        self.talked_early
    }

    /// Whether `Close` was put out.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// The name the peer greeted with, since the last handshake.
    pub fn helo(&self) -> Option<&HeloName> {
        self.hello.as_ref().map(|hello| &hello.name)
    }

    /// What was held against the peer so far.
    pub fn offences(&self) -> Offences {
        let Tally { errors, refusals, auth_failures, idle_commands: _ } = self.tally;
        Offences { errors, refusals, auth_failures }
    }

    /// How a message would arrive now.
    pub fn protocol(&self) -> Protocol {
        Protocol {
            dialect: self.dialect(),
            charset: self.transaction.as_ref().map_or(Charset::Ascii, Transaction::charset),
            encryption: match self.config.tls {
                TlsState::Active(_) => Encryption::Tls,
                TlsState::Absent | TlsState::Available => Encryption::Clear,
            },
            authentication: self.authentication,
        }
    }

    fn dialect(&self) -> Dialect {
        self.hello.as_ref().map_or(Dialect::Smtp, |hello| hello.dialect)
    }

    /// Whether replies must be taken away before more are earned.
    fn outbox_is_full(&self) -> bool {
        self.outbox.reply_octets() >= REPLIES_OCTETS_MAX
    }

    /// Goes on as far as the input allows, then waits for more.
    fn advance(&mut self) {
        while self.pending.is_none() && !self.outbox_is_full() && !self.is_closed() {
            match (self.ending, &self.state) {
                (Some(Ending::TimedOut), _) => return self.farewell(&Response::TimedOut),
                (
                    Some(Ending::Shutdown),
                    State::Commands | State::SkippingLine { .. } | State::Authenticating,
                ) => {
                    return self.farewell(&Response::Refused(Refusal::ShuttingDown));
                }
                _ => {}
            }
            if self.step() == Step::Starved {
                self.outbox.flush();
                if self.input_ended {
                    self.close();
                } else if self.input.is_empty()
                    && self.input.capacity() > INPUT_CAPACITY_KEPT
                    && matches!(self.state, State::Commands)
                {
                    self.input = BytesMut::new();
                }
                break;
            }
        }
        self.arm();
    }

    fn step(&mut self) -> Step {
        match std::mem::replace(&mut self.state, State::Commands) {
            State::Commands => self.step_line(LineKind::Command),
            State::Authenticating => {
                self.state = State::Authenticating;
                self.step_line(LineKind::AuthResponse)
            }
            State::SkippingLine { after_cr, line } => self.step_skip(after_cr, line),
            State::Content(content) => self.step_content(content),
            State::Chunk(chunk) => self.step_chunk(chunk),
            state @ (State::Connecting | State::Handshaking | State::Closed) => {
                self.state = state;
                Step::Starved
            }
        }
    }

    fn step_line(&mut self, kind: LineKind) -> Step {
        let is_auth = self.input.get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"AUTH "));
        let limit = match kind {
            LineKind::Command if !is_auth => COMMAND_LINE_OCTETS_MAX,
            LineKind::Command | LineKind::AuthResponse => AUTH_LINE_OCTETS_MAX,
        };
        let window = &self.input[..self.input.len().min(limit)];
        let Some(length) = line_length(window, false) else {
            if window.len() < limit {
                return Step::Starved;
            }
            self.state = State::SkippingLine { after_cr: false, line: kind };
            return Step::Done;
        };
        let mut line = self.input.split_to(length);
        self.timer.restart();
        match kind {
            LineKind::Command => self.command(&line[..length - 2]),
            LineKind::AuthResponse => self.auth_response(&line[..length - 2]),
        }
        // It may hold a password.
        line.zeroize();
        Step::Done
    }

    /// An overlong line is dropped as it comes, so that it needs no memory.
    fn step_skip(&mut self, after_cr: bool, line: LineKind) -> Step {
        let Some(length) = line_length(&self.input, after_cr) else {
            let after_cr = self.input.last().map_or(after_cr, |octet| *octet == b'\r');
            self.input.zeroize();
            self.input.clear();
            self.state = State::SkippingLine { after_cr, line };
            return Step::Starved;
        };
        self.input[..length].zeroize();
        self.input.advance(length);
        self.timer.restart();
        match line {
            LineKind::Command => self.respond(&Response::LineTooLong),
            LineKind::AuthResponse => self.abort_auth(Response::AuthLineTooLong),
        }
        Step::Done
    }

    fn call(&mut self, call: Call, pending: Pending) {
        self.outbox.push(Output::Call(call));
        self.pending = Some(pending);
    }

    /// Writes a reply and holds it against the peer where it deserves that; one that announces
    /// the session's end ends it. What follows from the reply must be done before.
    fn respond(&mut self, response: &Response) {
        let status = response.status();
        self.write(response, status);
        if status.closes() {
            return self.close();
        }
        self.hold_against(response);
    }

    /// Counts a refusal; one too many ends the session.
    fn hold_against(&mut self, response: &Response) {
        let limits = &self.config.limits;
        let (count, most) = match response {
            Response::Refused(Refusal::AuthFailed(_)) => {
                (&mut self.tally.auth_failures, limits.auth_failures_max)
            }
            Response::Refused(_) => (&mut self.tally.refusals, limits.refusals_max),
            _ => (&mut self.tally.errors, limits.errors_max),
        };
        if response.status().is_permanent() {
            *count += 1;
            if *count >= most {
                self.farewell(&Response::TooManyErrors);
            }
        }
    }

    fn write(&mut self, response: &Response, status: Status) {
        let Status { code, enhanced, text } = status;
        let line = match response {
            Response::MessageAccepted(id) => format!("{code} {enhanced} {text} {id}"),
            _ if status.names_server() => {
                // RFC 5321 §4.2.2 puts the name first; RFC 2034 §4 the enhanced code.
                format!("{code} {enhanced} {} {text}", self.config.hostname)
            }
            _ => format!("{code} {enhanced} {text}"),
        };
        self.outbox.line(&line);
    }

    fn farewell(&mut self, response: &Response) {
        self.write(response, response.status());
        self.close();
    }

    fn close(&mut self) {
        if !self.is_closed() {
            self.outbox.push_after_replies(Output::Close);
        }
        self.state = State::Closed;
        self.transaction = None;
        self.input.zeroize();
        self.input = BytesMut::new();
    }

    fn deadline(&self) -> Duration {
        let limits = &self.config.limits;
        let end = limits.session_duration_max;
        if self.pending.is_some() {
            return end;
        }
        match self.state {
            State::Content(_) | State::Chunk(_) => {
                end.min(self.timer.after(limits.content_timeout))
            }
            _ => end.min(self.timer.after(limits.command_timeout)),
        }
    }

    fn arm(&mut self) {
        if self.is_closed() || self.ending == Some(Ending::TimedOut) {
            return;
        }
        if let Some(deadline) = self.timer.announce(self.deadline()) {
            self.outbox.push(Output::WakeAt(deadline));
        }
    }
}

/// Without the input, which may hold a password, and without content.
impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("role", &self.config.role)
            .field("hello", &self.hello)
            .field("pending", &self.pending)
            .field("buffered", &self.buffered_len())
            .finish_non_exhaustive()
    }
}

/// The length of the first line with its CRLF. A bare LF ends no line (RFC 5321 §2.3.8).
fn line_length(input: &[u8], after_cr: bool) -> Option<usize> {
    memchr_iter(b'\n', input)
        .find(|&index| match index.checked_sub(1) {
            Some(before) => input[before] == b'\r',
            None => after_cr,
        })
        .map(|index| index + 1)
}

#[cfg(test)]
mod tests;
