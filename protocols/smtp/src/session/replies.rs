//! What becomes of the driver's replies.

use super::content::{Content, Receiver};
use super::{Session, State};
use crate::call::{Body, Charset, QueueId, Refusal, Reply};
use crate::command::Last;
use crate::config::{EarlyTalkers, Role};
use crate::response::Response;

/// The outstanding call, with what is to be done once it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    Connect,
    Auth,
    AuthAbort(Response),
    Mail { body: Body, charset: Charset },
    Rcpt,
    BeginData,
    BeginChunk { size: u64, last: Last },
    Data,
    EndData,
    AbortData,
    Reset,
    ResetByGreeting,
}

impl Session {
    pub(super) fn resolve(&mut self, pending: Pending, reply: Reply) {
        match pending {
            Pending::Connect => self.resolve_connect(&reply),
            Pending::Auth => self.resolve_auth(reply),
            Pending::AuthAbort(response) => self.respond(&response),
            Pending::Mail { body, charset } => match refusal(&reply) {
                None => self.resolve_mail(body, charset),
                Some(response) => self.refuse_mail(&response),
            },
            Pending::Rcpt => match refusal(&reply) {
                None => {
                    if let Some(transaction) = &mut self.transaction {
                        transaction.add_recipient();
                    }
                    self.respond(&Response::RecipientOk);
                }
                Some(response) => self.respond(&response),
            },
            Pending::BeginData => match refusal(&reply) {
                None => {
                    self.outbox.line("354 Start mail input; end with <CRLF>.<CRLF>");
                    self.state = State::Content(Content::new());
                }
                Some(response) => {
                    self.transaction = None;
                    self.respond(&response);
                }
            },
            Pending::BeginChunk { size, last } => {
                let receiver = match refusal(&reply) {
                    None => Receiver::open(),
                    Some(response) => Receiver::refused(response),
                };
                self.begin_chunk(size, last, receiver);
            }
            Pending::Data => {
                if let (Some(response), Some(receiver)) = (refusal(&reply), self.receiver()) {
                    receiver.refuse(response);
                }
            }
            Pending::EndData => self.resolve_end(reply),
            Pending::AbortData => {}
            Pending::Reset => self.idle(&Response::Ok),
            Pending::ResetByGreeting => self.answer_greeting(),
        }
    }

    fn resolve_connect(&mut self, reply: &Reply) {
        let early = self.talked_early && self.config.early_talkers == EarlyTalkers::Refuse;
        let response = match refusal(reply) {
            Some(response) => response,
            None if early => Response::TalkedEarly,
            None if self.ending.is_some() => Response::Refused(Refusal::ShuttingDown),
            None => {
                let protocol = if self.config.role == Role::Lmtp { "LMTP" } else { "ESMTP" };
                self.outbox.line(&format!("220 {} {protocol} ready", self.config.hostname));
                self.state = State::Commands;
                return;
            }
        };
        self.write(&response, response.status_at_connect());
        self.close();
    }

    fn resolve_end(&mut self, reply: Reply) {
        self.state = State::Commands;
        let recipients = self.transaction.take().map_or(0, |transaction| transaction.recipients());
        let accepted = |id: QueueId| Response::MessageAccepted(id);
        let lost = || Response::Refused(Refusal::TemporaryFailure);
        let mut responses: Vec<_> = match reply {
            Reply::MessageAccepted { id } => vec![accepted(id); recipients],
            Reply::Deliveries(results) if self.config.role == Role::Lmtp => results
                .into_iter()
                .map(|result| result.map_or_else(Response::Refused, accepted))
                .collect(),
            Reply::Refused(refusal) => vec![Response::Refused(refusal); recipients],
            _ => vec![lost(); recipients],
        };
        responses.resize_with(recipients, lost);
        if self.config.role != Role::Lmtp {
            responses.truncate(1);
        }
        if responses.iter().any(|response| matches!(response, Response::MessageAccepted(_))) {
            self.tally.refusals = 0;
            self.tally.idle_commands = 0;
        }
        self.respond_each(responses);
    }

    /// Ends a message that is refused: its own reply or, in LMTP, one for each recipient
    /// (RFC 2033 §4.2).
    pub(super) fn refuse_message(&mut self, response: Response) {
        let recipients = self.transaction.take().map_or(0, |transaction| transaction.recipients());
        let replies = if self.config.role == Role::Lmtp { recipients } else { 1 };
        self.respond_each(vec![response; replies]);
    }

    /// The replies to one message. They count as one, or many recipients would end the session.
    fn respond_each(&mut self, responses: Vec<Response>) {
        let worst = responses.iter().find(|response| response.status().is_permanent()).cloned();
        for response in &responses {
            let status = response.status();
            // A session that ends says so once.
            if status.closes() {
                return self.farewell(response);
            }
            self.write(response, status);
        }
        if let Some(response) = worst {
            self.hold_against(&response);
        }
        // Whoever never hears that a message was accepted sends it again: no waiting for more.
        self.outbox.flush();
    }

    /// The message whose content is being received.
    fn receiver(&mut self) -> Option<&mut Receiver> {
        match &mut self.state {
            State::Content(content) => Some(content.receiver()),
            State::Chunk(chunk) => Some(chunk.receiver()),
            _ => None,
        }
    }
}

/// What the peer is told unless the driver accepted. An answer to another question is a fault of
/// the driver's, for which the peer is to come back later.
fn refusal(reply: &Reply) -> Option<Response> {
    match reply {
        Reply::Accepted => None,
        Reply::Refused(refusal) => Some(Response::Refused(*refusal)),
        Reply::Challenge(_)
        | Reply::Authenticated
        | Reply::MessageAccepted { .. }
        | Reply::Deliveries(_) => Some(Response::Refused(Refusal::TemporaryFailure)),
    }
}
