//! The session: state machine and entry points (RFC 9051 §3).
//!
//! `handle_*` take in, [`Session::poll_output`] gives out. While a call waits for its
//! [`Reply::Done`], input is kept and not parsed. A driver that breaks the protocol between them,
//! a wrong literal length for one, closes the connection: the client must never read garbage.

mod append;
mod auth;
mod dispatch;
mod frame;
mod output;
mod reply;
mod timer;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use crate::call::{Call, Completion, Outcome};
use crate::capability::{Capability, CapabilityList};
use crate::command::parser::{LiteralHeader, LiteralSync, SyntaxError};
use crate::command::{IdFields, Tag, TaggedCommand, tag_of};
use crate::config::{Config, TlsInfo, TlsState};
use crate::ids::ModSeq;
use crate::limits::{
    AUTOLOGOUT, BAD_COMMANDS_MAX, COMMAND_BYTES_MAX, COMMAND_BYTES_PREAUTH_MAX, DRAIN_BYTES_MAX,
    INPUT_BYTES_HIGH, OUTPUT_BYTES_HIGH, PREAUTH_TIMEOUT,
};
use crate::response::{Response, ResponseCode, write_text};
use crate::text::Text;
use crate::wire::Dialect;
use append::Appending;
use frame::{Frame, Framer, Skip, Skipped};
use output::OutputQueue;
use reply::Calling;
use timer::{Busy, Fired, Timer};

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Write these octets.
    Send(Bytes),
    /// Execute this.
    Call(Call),
    /// Having written everything before, drop what was read but not given to the session, start the
    /// TLS handshake, and call [`Session::handle_tls_established`].
    StartTls,
    /// Call [`Session::handle_timeout`] at this time; replaces an earlier wake-up.
    WakeAt(Duration),
    /// Having written everything before, close the connection, and stop what may still be running.
    Close,
}

/// State of the session in the RFC's words (RFC 9051 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nobody is logged in.
    NotAuthenticated,
    /// Somebody is.
    Authenticated,
    /// A mailbox is selected.
    Selected(Access),
    /// The connection ends.
    Logout,
}

/// How a mailbox is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Messages can be changed.
    ReadWrite,
    /// They cannot, and reading does not mark as seen.
    ReadOnly,
}

/// Responses that must not be sent now: none of them was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("these responses must not be sent now")]
pub struct EventRefused(pub Vec<Response>);

/// A session of one client.
pub struct Session {
    config: Config,
    phase: Phase,
    state: State,
    enabled: BTreeSet<Capability>,
    input: Framer,
    output: OutputQueue,
    timer: Timer,
    client_id: IdFields,
    bad_commands: u32,
    auth_failures: u32,
    /// Of the selected mailbox, as far as the client was told.
    highest_modseq: Option<ModSeq>,
    /// The goodbye that waits for the outstanding call.
    shutdown: Option<Text>,
}

/// What the session waits for.
enum State {
    /// A command.
    Ready,
    /// The end of a command that was refused.
    Skipping { skip: Skip, tag: Tag, completion: Completion },
    /// The driver's `Done`.
    Calling(Calling),
    /// The client's answer to a SASL challenge.
    Sasl { tag: Tag },
    /// The message of APPEND, or the driver's leave to read on.
    Appending(Appending),
    /// `DONE`
    Idle { tag: Tag },
    /// The TLS handshake.
    Handshake,
    /// Nothing any more.
    Closed,
}

/// Whether a step of work may be followed by another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Again,
    Wait,
}

impl Session {
    /// A session that begins at `now`, a monotonic time from any origin. The greeting is queued.
    pub fn new(config: Config, now: Duration) -> Self {
        let mut session = Self {
            config,
            phase: Phase::NotAuthenticated,
            state: State::Ready,
            enabled: BTreeSet::new(),
            input: Framer::default(),
            output: OutputQueue::default(),
            timer: Timer::new(now + PREAUTH_TIMEOUT),
            client_id: Vec::new(),
            bad_commands: 0,
            auth_failures: 0,
            highest_modseq: None,
            shutdown: None,
        };
        let greeting = Text::new(session.config.greeting.clone());
        let code = ResponseCode::Capability(session.capability_list());
        session.untagged_ok(Some(code), greeting);
        session.handle_timeout(now);
        session
    }

    /// Takes octets of the client, in pieces of any size.
    pub fn handle_input(&mut self, now: Duration, bytes: &[u8]) {
        // RFC 9051 §6.2.1: nothing sent before the handshake counts after it.
        if matches!(self.state, State::Handshake | State::Closed) {
            return;
        }
        // Before login the time is limited for good, or drops of input would keep a stranger on.
        if self.phase != Phase::NotAuthenticated {
            self.timer.set(now + AUTOLOGOUT);
        }
        self.input.push(bytes);
        self.advance();
    }

    /// Whether the driver should read on: the bound on input holds if it heeds this.
    pub fn wants_input(&self) -> bool {
        !matches!(self.state, State::Handshake | State::Closed)
            && self.input.len() < INPUT_BYTES_HIGH
            && self.output.len() < OUTPUT_BYTES_HIGH
    }

    /// Takes unsolicited responses, in IDLE or between commands. While a call is outstanding, send
    /// them as replies. On success they go out at once.
    pub fn handle_event(&mut self, events: Vec<Response>) -> Result<(), EventRefused> {
        let expunges = events.iter().any(|event| matches!(event, Response::Expunge(_)));
        if !self.may_send_event() || (expunges && !self.may_expunge()) {
            return Err(EventRefused(events));
        }
        for event in events {
            self.untagged(event);
        }
        self.output.flush();
        Ok(())
    }

    /// Takes the time; due at every [`Output::WakeAt`].
    pub fn handle_timeout(&mut self, now: Duration) {
        if matches!(self.state, State::Closed) {
            return;
        }
        let (period, busy) = (self.period(), if self.has_call() { Busy::Yes } else { Busy::No });
        match self.timer.fire(now, period, busy) {
            Fired::Nothing => {}
            Fired::WakeAt(deadline) => self.output.push(Output::WakeAt(deadline)),
            Fired::Expired => self.bye(None, "Autologout; the client was silent for too long"),
        }
    }

    /// The client has closed the connection.
    pub fn handle_eof(&mut self) {
        self.close();
    }

    /// The server goes down, or the account is locked: says BYE now, or once the outstanding call
    /// is done.
    pub fn handle_shutdown(&mut self, text: impl Into<Text>) {
        let text = text.into();
        match (&self.state, self.has_call()) {
            (State::Closed, _) => {}
            // In a handshake nothing can be said.
            (State::Handshake, _) => self.close(),
            (_, true) => self.shutdown = Some(text),
            (_, false) => self.bye(None, text),
        }
    }

    /// The handshake that [`Output::StartTls`] asked for is done.
    pub fn handle_tls_established(&mut self, now: Duration, info: TlsInfo) {
        if matches!(self.state, State::Handshake) {
            self.config.tls = TlsState::Active(info);
            self.client_id.clear();
            self.state = State::Ready;
            self.timer.set(now + PREAUTH_TIMEOUT);
        }
    }

    /// The next thing to do. To be called until `None` after every `handle_*`.
    pub fn poll_output(&mut self) -> Option<Output> {
        loop {
            if !self.has_call() {
                self.output.flush();
            }
            if let Some(output) = self.output.pop() {
                return Some(output);
            }
            if self.step() == Step::Wait {
                // The step may have written something before it had to wait.
                if !self.has_call() {
                    self.output.flush();
                }
                return self.output.pop();
            }
        }
    }

    /// State in the RFC's words.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the client is in IDLE, so that changes are to be told as they come.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle { .. })
    }

    /// Whether [`Session::handle_event`] takes responses other than EXPUNGE now.
    pub fn may_send_event(&self) -> bool {
        let logged_in = matches!(self.phase, Phase::Authenticated | Phase::Selected(_));
        logged_in && matches!(self.state, State::Ready | State::Idle { .. })
    }

    /// Whether EXPUNGE may be sent now.
    ///
    /// RFC 9051 §7.5.1: not while no command is in progress, and not in answer to FETCH, STORE or
    /// SEARCH by sequence number.
    pub fn may_expunge(&self) -> bool {
        let selected = matches!(self.phase, Phase::Selected(_));
        selected
            && match &self.state {
                State::Idle { .. } => true,
                State::Calling(calling) => calling.kind.allows_expunge(),
                _ => false,
            }
    }

    /// Whether the driver owes a reply.
    pub fn has_call(&self) -> bool {
        match &self.state {
            State::Calling(_) => true,
            State::Appending(appending) => appending.waits_for_driver(),
            _ => false,
        }
    }

    /// Whether the client wants mod-sequences (RFC 7162 §3.1).
    pub fn condstore_enabled(&self) -> bool {
        self.enabled.contains(&Capability::CondStore)
    }

    /// Whether the client has enabled IMAP4rev2.
    pub fn rev2_enabled(&self) -> bool {
        self.enabled.contains(&Capability::Imap4Rev2)
    }

    /// What the client said of itself with ID.
    pub fn client_id(&self) -> &[(String, Option<String>)] {
        &self.client_id
    }

    /// Octets of input that wait.
    pub fn buffered_len(&self) -> usize {
        self.input.len()
    }

    /// Octets of output that wait.
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    fn dialect(&self) -> Dialect {
        match self.rev2_enabled() || self.enabled.contains(&Capability::Utf8Accept) {
            true => Dialect::Utf8,
            false => Dialect::Ascii,
        }
    }

    fn period(&self) -> Duration {
        match self.phase {
            Phase::NotAuthenticated => PREAUTH_TIMEOUT,
            _ => AUTOLOGOUT,
        }
    }

    fn command_max(&self) -> usize {
        match self.phase {
            Phase::NotAuthenticated => COMMAND_BYTES_PREAUTH_MAX,
            _ => COMMAND_BYTES_MAX,
        }
    }

    /// What may be thrown away behind a refused command.
    fn drain_max(&self) -> u64 {
        match self.phase {
            Phase::NotAuthenticated => DRAIN_BYTES_MAX,
            _ => DRAIN_BYTES_MAX + u64::from(self.config.append_limit),
        }
    }

    /// RFC 9051 §7.2.2: what is offered depends on the state and on TLS.
    fn capability_list(&self) -> CapabilityList {
        let before_login = self.phase == Phase::NotAuthenticated;
        let mut words: Vec<String> = self
            .config
            .capabilities
            .iter()
            .filter(|capability| !before_login || capability.before_login())
            .map(|capability| capability.as_str().to_owned())
            .collect();
        if before_login {
            words.push("SASL-IR".to_owned());
            if self.config.tls == TlsState::Available {
                words.push("STARTTLS".to_owned());
            }
            if !self.plaintext_allowed() {
                words.push("LOGINDISABLED".to_owned());
            }
            words.extend(self.offered_mechanisms().map(|name| format!("AUTH={name}")));
        } else {
            words.push(format!("APPENDLIMIT={}", self.config.append_limit));
        }
        CapabilityList::new(&words)
    }

    fn advance(&mut self) {
        while self.output.len() < OUTPUT_BYTES_HIGH && self.step() == Step::Again {}
    }

    fn step(&mut self) -> Step {
        match &self.state {
            State::Ready => self.read_command(),
            State::Skipping { .. } => self.skip(),
            State::Sasl { .. } => self.read_sasl(),
            State::Appending(_) => self.read_append(),
            State::Idle { .. } => self.read_idle(),
            State::Calling(_) | State::Handshake | State::Closed => Step::Wait,
        }
    }

    fn read_command(&mut self) -> Step {
        let max = self.command_max();
        match self.input.next(max) {
            Frame::Incomplete => return Step::Wait,
            Frame::Command(command) => {
                match TaggedCommand::parse(&command, self.dialect()) {
                    Ok(command) => self.dispatch(command),
                    Err(error) => self.refuse(error.tag, error.error),
                };
            }
            Frame::Literal { header, end } => {
                let append = match self.append_at(end) {
                    Some(append) => append,
                    None => return self.read_literal(header, end, max),
                };
                self.begin_append(append, header, end);
            }
            Frame::TooLong => {
                let command = self.input.drop_to_segment();
                let completion = Completion::bad("The command is too long");
                match tag_of(&command) {
                    Some(tag) => {
                        let skip = Skip::new(0, self.drain_max());
                        self.state = State::Skipping { skip, tag, completion };
                    }
                    None => self.bye(None, "The command is too long"),
                }
            }
        }
        Step::Again
    }

    /// A literal of any command but APPEND's message: it has to fit into the command.
    fn read_literal(&mut self, header: LiteralHeader, end: usize, max: usize) -> Step {
        match usize::try_from(header.size).ok().filter(|size| size.saturating_add(end) <= max) {
            Some(size) => {
                self.input.accept_literal(end, size);
                if header.sync == LiteralSync::Sync {
                    self.continuation();
                }
            }
            None => {
                let tag = tag_of(self.input.head(end));
                self.input.drop_head(end);
                let completion = Completion::bad("The literal is too long for this command");
                self.refuse_literal(tag, completion, header);
            }
        }
        Step::Again
    }

    /// Answers a command whose literal is not wanted, and throws away what comes all the same.
    fn refuse_literal(&mut self, tag: Option<Tag>, completion: Completion, header: LiteralHeader) {
        let Some(tag) = tag else {
            return self.bye(None, "A command has to begin with a tag");
        };
        match header.sync {
            LiteralSync::Sync => self.complete_refused(&tag, &completion),
            LiteralSync::NonSync => {
                let skip = Skip::new(header.size, self.drain_max());
                self.state = State::Skipping { skip, tag, completion };
            }
        }
    }

    fn skip(&mut self) -> Step {
        let State::Skipping { skip, .. } = &mut self.state else {
            return Step::Wait;
        };
        let skipped = skip.step(&mut self.input);
        if matches!(skipped, Skipped::Partly) {
            return Step::Wait;
        }
        let State::Skipping { tag, completion, .. } =
            std::mem::replace(&mut self.state, State::Ready)
        else {
            return Step::Wait;
        };
        self.complete_refused(&tag, &completion);
        if matches!(skipped, Skipped::OverBudget) {
            self.bye(None, "Too much data behind a refused command");
        }
        Step::Again
    }

    /// Answers a command that was refused before any call.
    fn complete_refused(&mut self, tag: &Tag, completion: &Completion) {
        self.complete(tag, "Command", completion);
        if completion.outcome == Outcome::Bad {
            self.count_bad_command();
        }
    }

    fn refuse(&mut self, tag: Option<Tag>, error: SyntaxError) {
        let text = Text::new(error.text);
        let completion = Completion { outcome: error.outcome, code: error.code, text: Some(text) };
        match tag {
            Some(tag) => self.complete_refused(&tag, &completion),
            None => {
                let text = completion.text.unwrap_or_else(|| "Bad command".into());
                self.untagged(Response::Bad(completion.code, text));
                self.count_bad_command();
            }
        }
    }

    fn count_bad_command(&mut self) {
        self.bad_commands += 1;
        if self.bad_commands >= BAD_COMMANDS_MAX {
            self.bye(None, "Too many bad commands");
        }
    }

    fn continuation(&mut self) {
        self.output.writer(self.dialect()).raw("+ Ready\r\n");
        self.output.flush();
    }

    fn untagged_ok(&mut self, code: Option<ResponseCode>, text: impl Into<Text>) {
        self.untagged(Response::Ok(code, text.into()));
    }

    /// The tagged response.
    fn complete(&mut self, tag: &Tag, name: &str, completion: &Completion) {
        let mut w = self.output.writer(self.dialect());
        w.raw(tag.as_str());
        let (word, usual) = match completion.outcome {
            Outcome::Ok => (" OK ", "completed"),
            Outcome::No => (" NO ", "failed"),
            Outcome::Bad => (" BAD ", "refused"),
        };
        w.raw(word);
        match &completion.text {
            Some(text) => write_text(&mut w, completion.code.as_ref(), text),
            None => {
                let text = Text::new(format!("{name} {usual}"));
                write_text(&mut w, completion.code.as_ref(), &text);
            }
        }
        w.raw("\r\n");
        self.output.flush();
        if self.phase != Phase::NotAuthenticated {
            self.timer.restart_lazily();
        }
    }

    /// RFC 9051 §7.1.5: the last response.
    fn bye(&mut self, code: Option<ResponseCode>, text: impl Into<Text>) {
        if matches!(self.state, State::Closed) {
            return;
        }
        let mut w = self.output.writer(self.dialect());
        w.raw("* BYE ");
        write_text(&mut w, code.as_ref(), &text.into());
        w.raw("\r\n");
        self.close();
    }

    fn close(&mut self) {
        if !matches!(self.state, State::Closed) {
            self.state = State::Closed;
            self.phase = Phase::Logout;
            self.input.clear();
            self.output.push(Output::Close);
        }
    }
}
