//! Content: DATA with dots (RFC 5321 §4.5.2), or BDAT in chunks (RFC 3030).
//!
//! Invariant: only `finish` leads to a final dot or a last chunk.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::failure::Stage;
use super::output::{Framing, RecipientOutcome};
use super::reply::{Class, Response};
use super::settings::{Dialect, Settings};
use super::{Capabilities, Client, Expected, Extension, Leftover};
use crate::dots::Stuffing;
use crate::limits::{CHUNKS_UNANSWERED_MAX, CONTENT_CHUNK_OCTETS};

/// A message's content on its way.
#[derive(Debug, Default)]
pub(super) struct Content {
    stuffing: Stuffing,
    /// What waits to become a chunk.
    held: BytesMut,
    progress: Progress,
    /// Since when a piece waits to be written.
    pub(super) unwritten_since: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    /// More may come.
    #[default]
    Open,
    /// No more comes, but chunks wait.
    Finished,
    /// The end was put out.
    Ended,
}

impl Content {
    pub(super) fn wants_more(&self, unsent: usize) -> bool {
        self.progress == Progress::Open && unsent == 0 && self.held.len() < CONTENT_CHUNK_OCTETS
    }

    pub(super) fn is_ended(&self) -> bool {
        self.progress == Progress::Ended
    }

    pub(super) fn buffered(&self) -> usize {
        self.held.len()
    }

    /// The next chunk, and whether it is the last. A full chunk waits until it is known which.
    fn next_chunk(&mut self) -> Option<(Bytes, Place)> {
        match (self.held.len(), self.progress) {
            (length, _) if length > CONTENT_CHUNK_OCTETS => {
                Some((self.held.split_to(CONTENT_CHUNK_OCTETS).freeze(), Place::Amid))
            }
            (CONTENT_CHUNK_OCTETS, Progress::Open) => {
                Some((self.held.split().freeze(), Place::Amid))
            }
            (_, Progress::Finished) => Some((self.held.split().freeze(), Place::Last)),
            _ => None,
        }
    }

    fn is_last(&self) -> bool {
        self.progress == Progress::Finished && self.held.len() <= CONTENT_CHUNK_OCTETS
    }
}

/// Where in the content a chunk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Amid,
    Last,
}

/// How many replies may be missing where a chunk is sent.
fn unanswered_max(settings: &Settings, capabilities: &Capabilities, place: Place) -> usize {
    if place == Place::Last && settings.dialect == Dialect::Lmtp {
        // After a refused chunk nobody can say how many replies the last has.
        1
    } else if capabilities.offers(Extension::Pipelining) {
        CHUNKS_UNANSWERED_MAX
    } else {
        1
    }
}

impl Client {
    pub(super) fn add_content(&mut self, now: Duration, piece: Bytes) {
        let Some(open) = &mut self.transaction else { return };
        let Some(content) = open.content.as_mut() else { return };
        if content.progress != Progress::Open || piece.is_empty() {
            return;
        }
        match open.framing {
            Framing::Data => {
                content.unwritten_since = Some(now);
                let stuffed = content.stuffing.encode(piece);
                self.outbox.send(stuffed);
            }
            Framing::Chunks => {
                content.held.extend_from_slice(&piece);
                self.send_chunks();
            }
        }
    }

    pub(super) fn finish_content(&mut self) {
        let Some(open) = &mut self.transaction else { return };
        let Some(content) = open.content.as_mut() else { return };
        if content.progress != Progress::Open {
            return;
        }
        match open.framing {
            Framing::Data => {
                content.progress = Progress::Ended;
                self.outbox.send_end(content.stuffing.end());
                self.expect_end();
            }
            Framing::Chunks => {
                content.progress = Progress::Finished;
                self.send_chunks();
            }
        }
    }

    /// Whether an end of the content would be put out at once.
    pub(super) fn may_send_end(&self) -> bool {
        let is_chunked =
            self.transaction.as_ref().is_some_and(|open| open.framing == Framing::Chunks);
        let most = unanswered_max(&self.settings, &self.capabilities, Place::Last);
        !is_chunked || self.expected.len() < most
    }

    /// Sends the chunks that are full, and the last once the content is complete.
    fn send_chunks(&mut self) {
        loop {
            let unanswered = self.expected.len();
            let Some(open) = &mut self.transaction else { return };
            let Some(content) = open.content.as_mut() else { return };
            let place = if content.is_last() { Place::Last } else { Place::Amid };
            if unanswered >= unanswered_max(&self.settings, &self.capabilities, place) {
                return;
            }
            let Some((chunk, place)) = content.next_chunk() else { return };
            let last = if place == Place::Last { " LAST" } else { "" };
            let command = format!("BDAT {}{last}\r\n", chunk.len());
            let mut octets = BytesMut::with_capacity(command.len() + chunk.len());
            octets.put_slice(command.as_bytes());
            octets.put_slice(&chunk);
            match place {
                Place::Amid => {
                    self.outbox.send(octets.freeze());
                    self.expect(Expected::Chunk);
                }
                Place::Last => {
                    content.progress = Progress::Ended;
                    self.outbox.send_end(octets.freeze());
                    return self.expect_end();
                }
            }
        }
    }

    /// SMTP has one reply to the end, LMTP one for each recipient taken (RFC 2033 §4.2).
    fn expect_end(&mut self) {
        let taken: Vec<_> = self.transaction.iter().flat_map(|open| open.taken()).collect();
        match self.settings.dialect {
            Dialect::Smtp => self.expect(Expected::End),
            Dialect::Lmtp => taken.into_iter().for_each(|index| {
                self.expect(Expected::EndFor(index));
            }),
        }
    }

    pub(super) fn answered_chunk(&mut self, response: Response) {
        let Some(open) = &mut self.transaction else { return };
        match response.class() {
            Class::Success => self.send_chunks(),
            Class::Refusal => {
                open.doom(Stage::Content, response);
                let ended = open.content.as_ref().is_some_and(Content::is_ended);
                // The last chunk's reply confirms that nothing was taken.
                if !ended {
                    for expected in &mut self.expected {
                        *expected = Expected::Nothing;
                    }
                    self.conclude();
                }
            }
            Class::Intermediate => self.unexpected(Stage::Content, &response),
        }
    }

    pub(super) fn answered_end(&mut self, response: Response) {
        let Some(open) = &mut self.transaction else { return };
        match response.class() {
            // A server that refuses a chunk and takes the message has some other message.
            Class::Success if open.is_doomed() => self.unexpected(Stage::End, &response),
            Class::Success => {
                let taken: Vec<_> = open.taken().collect();
                for index in taken {
                    open.settle(index, RecipientOutcome::Accepted(response.clone()));
                }
                self.ended();
            }
            Class::Refusal => {
                let refused_before = open.is_doomed();
                open.doom(Stage::End, response);
                self.ended();
                if refused_before {
                    self.leftover = Leftover::Transaction;
                }
            }
            Class::Intermediate => self.unexpected(Stage::End, &response),
        }
    }

    pub(super) fn answered_end_for(&mut self, index: usize, response: Response) {
        let Some(open) = &mut self.transaction else { return };
        let outcome = match response.class() {
            Class::Success => RecipientOutcome::Accepted(response),
            Class::Refusal => RecipientOutcome::Refused { at: Stage::End, response },
            Class::Intermediate => return self.unexpected(Stage::End, &response),
        };
        open.settle(index, outcome);
        if self.expected.is_empty() {
            self.ended();
        }
    }

    /// The end was answered: the transaction is over on both sides.
    fn ended(&mut self) {
        self.leftover = Leftover::Nothing;
        self.conclude();
    }
}
