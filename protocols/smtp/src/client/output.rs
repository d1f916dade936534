//! What a client wants done, and what it has to tell.
//!
//! Invariant: outputs are taken in their order. A session that fails takes back what was not
//! yet taken of its sends: whoever did not take the content's end has not sent it.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::capabilities::Capabilities;
use super::failure::{Failure, Stage};
use super::reply::Response;
use crate::call::Permanence;

/// What a client wants done, in this order.
pub enum Output {
    /// Write these octets to the server, at once: a driver disables Nagle's algorithm.
    Send(Bytes),
    /// The same, and with the last of them the server may take the message. Whoever must not send
    /// it any more by then calls [`abort`](super::Client::abort) and drops the connection: a server
    /// that lacks one of them has no message.
    SendEnd(Bytes),
    /// All sends before this are for clear text. Start the client's TLS handshake, then call
    /// [`handle_tls_established`](super::Client::handle_tls_established); where it fails, drop
    /// the connection.
    StartTls,
    /// Call [`handle_timeout`](super::Client::handle_timeout) at this time since the session
    /// began. Replaces earlier ones.
    WakeAt(Duration),
    /// For the caller.
    Event(Event),
    /// Write what was sent, as far as the server takes it, then close the connection.
    Close,
}

/// Without the octets, which may be a password or a message.
impl fmt::Debug for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Send(octets) => write!(formatter, "Send({} octets)", octets.len()),
            Output::SendEnd(octets) => write!(formatter, "SendEnd({} octets)", octets.len()),
            Output::StartTls => formatter.write_str("StartTls"),
            Output::WakeAt(at) => write!(formatter, "WakeAt({at:?})"),
            Output::Event(event) => event.fmt(formatter),
            Output::Close => formatter.write_str("Close"),
        }
    }
}

/// What a caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Greeted, encrypted and logged in as the settings say: a transaction can begin. Once a
    /// session.
    Ready(Capabilities),
    /// The server waits for the content.
    Content(Transfer),
    /// A transaction is over; each is answered once, even where the session fails. The next can
    /// begin at once unless [`Failed`](Event::Failed) follows.
    Answered(Outcome),
    /// The session is over, and not by the caller's wish.
    Failed(Failure),
}

/// How content is sent, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The recipients taken so far, by their place in the transaction; at least one.
    pub accepted: Vec<usize>,
    /// How it is sent.
    pub framing: Framing,
}

/// How content is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// DATA: lines, ended by a dot.
    Data,
    /// BDAT: chunks of any octets.
    Chunks,
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// One for each recipient, in the transaction's order.
    pub recipients: Vec<RecipientOutcome>,
}

/// What became of the message for a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipientOutcome {
    /// The server answers for it now.
    Accepted(Response),
    /// The server does not take it: the reply has 4xx or 5xx.
    Refused {
        /// To what it said so: `Mail` and `Data` say it of all recipients, `Rcpt` of one.
        at: Stage,
        /// Its words.
        response: Response,
    },
    /// The content's end was sent and its reply was not seen: the server may have the message,
    /// or not. Another try may make a duplicate.
    Unknown,
    /// The session ended before the content's end was sent: the server does not have the
    /// message.
    NotSent,
}

impl RecipientOutcome {
    /// Whether a refusal is worth another try; `None` for what is no refusal.
    pub fn permanence(&self) -> Option<Permanence> {
        let RecipientOutcome::Refused { at, response } = self else { return None };
        // RFC 5321 §4.5.3.1.10: an old code for too many recipients, not for a bad one.
        let crowded = response.code == 552
            && response.enhanced.is_none_or(|code| (code.subject, code.detail) == (5, 3));
        match at {
            Stage::Rcpt if crowded => Some(Permanence::Temporary),
            _ => response.permanence(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Output>,
    octets: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, output: Output) {
        self.octets += octets_of(&output);
        self.queue.push_back(output);
    }

    pub(super) fn send(&mut self, octets: Bytes) {
        if !octets.is_empty() {
            self.push(Output::Send(octets));
        }
    }

    /// Sends what ends the content.
    pub(super) fn send_end(&mut self, octets: Bytes) {
        self.push(Output::SendEnd(octets));
    }

    pub(super) fn event(&mut self, event: Event) {
        self.push(Output::Event(event));
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        let output = self.queue.pop_front()?;
        self.octets -= octets_of(&output);
        Some(output)
    }

    /// Whether the content's end waits here.
    pub(super) fn holds_end(&self) -> bool {
        self.queue.iter().any(|output| matches!(output, Output::SendEnd(_)))
    }

    /// Octets that wait to be sent.
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// Takes back all but what the caller is to be told.
    pub(super) fn take_back(&mut self) {
        self.queue.retain(|output| matches!(output, Output::Event(_)));
        self.octets = 0;
    }
}

fn octets_of(output: &Output) -> usize {
    match output {
        Output::Send(octets) | Output::SendEnd(octets) => octets.len(),
        Output::StartTls | Output::WakeAt(_) | Output::Event(_) | Output::Close => 0,
    }
}
