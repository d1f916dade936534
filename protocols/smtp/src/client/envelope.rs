//! A transaction from MAIL to the content, and how its end is settled.
//!
//! Invariant: an [`Open`] transaction leaves by `conclude` only, which tells its outcome.

use std::time::Duration;

use super::content::Content;
use super::failure::{Failure, Stage};
use super::output::{Event, Framing, Outcome, RecipientOutcome, Transfer};
use super::reply::{Class, Response};
use super::settings::{Chunking, Dialect};
use super::transaction::Transaction;
use super::{Client, Expected, Extension, Leftover};
use crate::call::Body;

/// A transaction being carried out.
#[derive(Debug)]
pub(super) struct Open {
    envelope: Transaction,
    pub(super) framing: Framing,
    standings: Vec<Standing>,
    next: Next,
    /// Why no recipient will be accepted any more.
    doom: Option<Doom>,
    pub(super) content: Option<Content>,
}

/// What is to be sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    Nothing,
}

/// How a recipient stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// RCPT is not answered.
    Pending,
    /// RCPT was accepted.
    Taken,
    Settled(RecipientOutcome),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Doom {
    at: Stage,
    response: Response,
}

impl Open {
    pub(super) fn new(envelope: Transaction, framing: Framing, next: Next) -> Self {
        let standings = vec![Standing::Pending; envelope.recipients.len()];
        Open { envelope, framing, standings, next, doom: None, content: None }
    }

    /// The recipients taken so far.
    pub(super) fn taken(&self) -> impl Iterator<Item = usize> {
        let standings = self.standings.iter().enumerate();
        standings.filter_map(|(index, standing)| (*standing == Standing::Taken).then_some(index))
    }

    pub(super) fn is_doomed(&self) -> bool {
        self.doom.is_some()
    }

    /// No recipient will be accepted any more. The first reason stands.
    pub(super) fn doom(&mut self, at: Stage, response: Response) {
        self.next = Next::Nothing;
        self.doom.get_or_insert(Doom { at, response });
    }

    pub(super) fn settle(&mut self, index: usize, outcome: RecipientOutcome) {
        self.standings[index] = Standing::Settled(outcome);
    }

    pub(super) fn written(&mut self) {
        if let Some(content) = &mut self.content {
            content.unwritten_since = None;
        }
    }

    pub(super) fn unwritten_since(&self) -> Option<Duration> {
        self.content.as_ref().and_then(|content| content.unwritten_since)
    }

    pub(super) fn wants_content(&self, unsent: usize) -> bool {
        self.content.as_ref().is_some_and(|content| content.wants_more(unsent))
    }

    pub(super) fn buffered(&self) -> usize {
        self.content.as_ref().map_or(0, Content::buffered)
    }
}

impl Client {
    pub(super) fn framing(&self, transaction: &Transaction) -> Framing {
        let offered = self.capabilities.offers(Extension::Chunking);
        match (transaction.body, self.settings.chunking) {
            (Body::BinaryMime, _) => Framing::Chunks,
            (_, Chunking::IfOffered) if offered => Framing::Chunks,
            _ => Framing::Data,
        }
    }

    /// The next command of the envelope, if there is one.
    pub(super) fn next_command(&mut self) -> Option<(String, Expected)> {
        let open = self.transaction.as_mut()?;
        let (line, expected, next) = match open.next {
            Next::Reset => ("RSET\r\n".to_owned(), Expected::Reset, Next::Mail),
            Next::Mail => {
                (open.envelope.mail_line(&self.capabilities), Expected::Mail, Next::Rcpt(0))
            }
            Next::Rcpt(index) => {
                let line = open.envelope.rcpt_line(index, &self.capabilities);
                let next = match (index + 1 < open.standings.len(), open.framing) {
                    (true, _) => Next::Rcpt(index + 1),
                    (false, Framing::Data) => Next::Data,
                    (false, Framing::Chunks) => Next::Nothing,
                };
                (line, Expected::Rcpt(index), next)
            }
            Next::Data => ("DATA\r\n".to_owned(), Expected::Data, Next::Nothing),
            Next::Nothing => return None,
        };
        open.next = next;
        Some((line, expected))
    }

    pub(super) fn answered_reset(&mut self, response: Response) {
        match response.class() {
            Class::Success => self.leftover = Leftover::Nothing,
            Class::Refusal => self.give_up(Failure::Refused { at: Stage::Reset, response }),
            Class::Intermediate => self.unexpected(Stage::Reset, &response),
        }
    }

    pub(super) fn answered_mail(&mut self, response: Response) {
        let Some(open) = &mut self.transaction else { return };
        match response.class() {
            Class::Success => self.leftover = Leftover::Transaction,
            Class::Refusal => open.doom(Stage::Mail, response),
            Class::Intermediate => return self.unexpected(Stage::Mail, &response),
        }
        self.envelope_answered();
    }

    pub(super) fn answered_rcpt(&mut self, index: usize, response: Response) {
        let Some(open) = &mut self.transaction else { return };
        match response.class() {
            Class::Success => {
                open.standings[index] = Standing::Taken;
                // A server that refused MAIL has no business here, but may have a transaction.
                self.leftover = Leftover::Transaction;
            }
            Class::Refusal => {
                open.settle(index, RecipientOutcome::Refused { at: Stage::Rcpt, response });
            }
            Class::Intermediate => return self.unexpected(Stage::Rcpt, &response),
        }
        self.envelope_answered();
    }

    /// Once the recipients are answered, what becomes of the transaction.
    fn envelope_answered(&mut self) {
        let waits = |expected: &Expected| {
            matches!(expected, Expected::Mail | Expected::Rcpt(_) | Expected::Data)
        };
        let Some(open) = &self.transaction else { return };
        if self.expected.iter().any(waits) {
            return;
        }
        let has_recipients = open.taken().next().is_some() && !open.is_doomed();
        match (open.next, open.framing) {
            (Next::Reset | Next::Mail | Next::Rcpt(_), _) => {}
            (Next::Data, _) if has_recipients => {}
            (Next::Nothing, Framing::Chunks) if has_recipients => self.begin_content(),
            _ => self.conclude(),
        }
    }

    pub(super) fn answered_data(&mut self, response: Response) {
        let Some(open) = &mut self.transaction else { return };
        let has_recipients = open.taken().next().is_some();
        match response.class() {
            Class::Intermediate if has_recipients && !open.is_doomed() => self.begin_content(),
            // A server that refused MAIL but has recipients would take a dot for their message;
            // one of LMTP would not answer it, so that nothing could be told apart.
            Class::Intermediate if has_recipients || self.settings.dialect == Dialect::Lmtp => {
                self.unexpected(Stage::Data, &response);
            }
            Class::Intermediate => {
                // RFC 2920 §3.1: the server waits for content all the same; it gets none.
                self.outbox.send(bytes::Bytes::from_static(b".\r\n"));
                self.expect(Expected::Nothing);
                self.leftover = Leftover::Nothing;
                self.conclude();
            }
            Class::Refusal => {
                open.doom(Stage::Data, response);
                self.conclude();
            }
            Class::Success => self.unexpected(Stage::Data, &response),
        }
    }

    fn begin_content(&mut self) {
        let Some(open) = &mut self.transaction else { return };
        open.content = Some(Content::default());
        let transfer = Transfer { accepted: open.taken().collect(), framing: open.framing };
        self.outbox.event(Event::Content(transfer));
    }

    /// Tells the outcome. What is not settled is refused where the transaction is doomed, and
    /// was not sent where it is not.
    pub(super) fn conclude(&mut self) {
        let Some(open) = self.transaction.take() else { return };
        let doom = open.doom;
        let refused = |doom: &Doom| RecipientOutcome::Refused {
            at: doom.at,
            response: doom.response.clone(),
        };
        let outcome = |standing| match (standing, &doom) {
            // Where MAIL fails RCPT fails, too; the reason is MAIL's.
            (_, Some(doom)) if doom.at == Stage::Mail => refused(doom),
            (Standing::Settled(outcome), _) => outcome,
            (Standing::Pending | Standing::Taken, Some(doom)) => refused(doom),
            (Standing::Pending | Standing::Taken, None) => RecipientOutcome::NotSent,
        };
        let recipients = open.standings.into_iter().map(outcome).collect();
        self.outbox.event(Event::Answered(Outcome { recipients }));
    }

    /// The session ends and the server says no more: what was taken is unknown where the end is
    /// on its way, unless the message was refused before.
    pub(super) fn settle_unanswered(&mut self) {
        let end_sent = self.end_was_sent();
        if let Some(open) = &mut self.transaction {
            if end_sent && !open.is_doomed() {
                let taken: Vec<_> = open.taken().collect();
                for index in taken {
                    open.settle(index, RecipientOutcome::Unknown);
                }
            }
            self.conclude();
        }
    }

    /// The server refuses to go on, at a command or unasked. Unless another recipient's verdict
    /// is on its way, that refuses the message.
    pub(super) fn settle_closing(&mut self, expected: Option<Expected>, response: &Response) {
        let at = expected.map_or(Stage::Content, Expected::stage);
        let Some(open) = &mut self.transaction else { return };
        let refused = || RecipientOutcome::Refused { at, response: response.clone() };
        match expected {
            Some(Expected::EndFor(index)) => {
                open.settle(index, refused());
                self.settle_unanswered();
            }
            _ => {
                open.doom(at, response.clone());
                self.conclude();
            }
        }
    }

    /// Whether the driver took the content's end.
    fn end_was_sent(&self) -> bool {
        let ended = |open: &Open| open.content.as_ref().is_some_and(Content::is_ended);
        self.transaction.as_ref().is_some_and(ended) && !self.outbox.holds_end()
    }
}
