//! Message content: DATA (RFC 5321 §4.1.1.4) and BDAT (RFC 3030).
//!
//! Invariant: octets of a message, refused or not, are never read as commands. DATA is read to
//! its genuine CRLF.CRLF, BDAT for exactly the octets it declares; a message that exceeds the
//! limit many times over ends the session instead.

use bytes::{Buf, Bytes, BytesMut};

use super::replies::Pending;
use super::{Session, State, Step};
use crate::call::{Body, Call, Charset, Refusal};
use crate::command::{self, Last};
use crate::dots::{Dots, LineEndings, Sink, Stop};
use crate::limits::{CONTENT_CHUNK_OCTETS, OVERSIZE_FACTOR};
use crate::response::Response;

/// A mail transaction, from MAIL to its end.
#[derive(Debug)]
pub(super) struct Transaction {
    body: Body,
    charset: Charset,
    recipients: usize,
    /// The message between two chunks of BDAT.
    chunked: Option<Receiver>,
}

/// A message on its way to the driver.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Content not yet handed over; at most a chunk of calls.
    kept: BytesMut,
    /// Content octets so far.
    size: u64,
    /// Octets read from the peer, refused ones included.
    read: u64,
    line_endings: LineEndings,
    /// Why the message will be refused at its end. Nothing is kept from then on.
    fault: Option<Response>,
    /// Whether the driver holds the beginning of the message.
    at_driver: AtDriver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtDriver {
    Begun,
    Nothing,
}

/// DATA's content.
#[derive(Debug)]
pub(super) struct Content {
    dots: Dots,
    progress: Progress,
    receiver: Receiver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Reading,
    Ended,
}

/// A chunk of BDAT.
#[derive(Debug)]
pub(super) struct Chunk {
    left: u64,
    last: Last,
    kind: ChunkKind,
    receiver: Receiver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkKind {
    /// Part of the transaction's message.
    Message,
    /// Out of sequence: read over, for its octets are on their way.
    Stray,
}

impl Transaction {
    pub(super) fn new(body: Body, charset: Charset) -> Self {
        Transaction { body, charset, recipients: 0, chunked: None }
    }

    pub(super) fn body(&self) -> Body {
        self.body
    }

    pub(super) fn charset(&self) -> Charset {
        self.charset
    }

    pub(super) fn recipients(&self) -> usize {
        self.recipients
    }

    pub(super) fn add_recipient(&mut self) {
        self.recipients += 1;
    }

    /// Whether BDAT has begun.
    pub(super) fn has_content(&self) -> bool {
        self.chunked.is_some()
    }

    pub(super) fn buffered(&self) -> usize {
        self.chunked.as_ref().map_or(0, |receiver| receiver.kept.len())
    }
}

impl Receiver {
    /// A message that the driver takes in.
    pub(super) fn open() -> Self {
        Receiver {
            kept: BytesMut::new(),
            size: 0,
            read: 0,
            line_endings: LineEndings::default(),
            fault: None,
            at_driver: AtDriver::Begun,
        }
    }

    /// A message of which the driver knows nothing.
    pub(super) fn refused(fault: Response) -> Self {
        Receiver { fault: Some(fault), at_driver: AtDriver::Nothing, ..Receiver::open() }
    }

    /// The driver wants no more of it.
    pub(super) fn refuse(&mut self, response: Response) {
        self.kept = BytesMut::new();
        self.fault = Some(response);
        self.at_driver = AtDriver::Nothing;
    }

    /// The session refuses it. Whether the driver must be told.
    fn fail(&mut self, response: Response) -> AtDriver {
        let at_driver = self.at_driver;
        self.refuse(response);
        at_driver
    }

    /// How much may be read next: what fits the content chunk and the bound on refused octets.
    fn room(&self, bound: u64) -> usize {
        let allowed = usize::try_from(bound.saturating_sub(self.read)).unwrap_or(usize::MAX);
        match self.fault {
            None => allowed.min(CONTENT_CHUNK_OCTETS - self.kept.len()),
            Some(_) => allowed,
        }
    }

    fn is_full(&self) -> bool {
        self.kept.len() == CONTENT_CHUNK_OCTETS
    }

    fn take(&mut self) -> Bytes {
        self.kept.split().freeze()
    }
}

impl Content {
    pub(super) fn new() -> Self {
        Content { dots: Dots::default(), progress: Progress::Reading, receiver: Receiver::open() }
    }

    pub(super) fn receiver(&mut self) -> &mut Receiver {
        &mut self.receiver
    }

    pub(super) fn buffered(&self) -> usize {
        self.receiver.kept.len()
    }
}

impl Chunk {
    pub(super) fn receiver(&mut self) -> &mut Receiver {
        &mut self.receiver
    }

    pub(super) fn buffered(&self) -> usize {
        self.receiver.kept.len()
    }
}

impl Session {
    fn read_max(&self) -> u64 {
        self.message_octets_max().saturating_mul(OVERSIZE_FACTOR)
    }

    pub(super) fn step_content(&mut self, mut content: Content) -> Step {
        if content.progress == Progress::Ended {
            self.end_message(State::Content, content);
            return Step::Done;
        }
        let receiver = &mut content.receiver;
        let room = receiver.room(self.read_max());
        if room == 0 {
            self.farewell(&Response::MessageEndless);
            return Step::Done;
        }
        if self.input.is_empty() {
            self.state = State::Content(content);
            return Step::Starved;
        }
        let piece = &self.input[..self.input.len().min(room)];
        let kept_before = receiver.kept.len();
        let sink = match receiver.fault {
            None => Sink::Keep(&mut receiver.kept),
            Some(_) => Sink::Discard,
        };
        let (used, stop) = content.dots.decode(piece, sink);
        self.input.advance(used);
        receiver.read += used as u64;
        receiver.size += (receiver.kept.len() - kept_before) as u64;
        let too_large = receiver.size > self.message_octets_max();
        // A bare line ending is the stronger reason: it says that the peer may be lying about
        // where its message ends.
        let fault = match stop {
            Stop::BareLineEnding => Some(Response::BareLineEnding),
            _ if too_large && receiver.fault.is_none() => {
                Some(Response::Refused(Refusal::MessageTooLarge))
            }
            _ => None,
        };
        if stop == Stop::End {
            content.progress = Progress::Ended;
        }
        match fault {
            Some(response) => {
                let at_driver = content.receiver.fail(response);
                self.state = State::Content(content);
                self.abort_at(at_driver);
            }
            None => {
                let full = content.receiver.is_full().then(|| content.receiver.take());
                self.state = State::Content(content);
                self.hand_over(full);
            }
        }
        Step::Done
    }

    pub(super) fn bdat(&mut self, arguments: &str) {
        let Some((size, last)) = command::bdat(arguments) else {
            // Nobody knows how many octets follow, so nothing after this can be a command.
            self.respond(&Response::BadArguments);
            return self.close();
        };
        let (receiver, kind) = match &mut self.transaction {
            None => (Receiver::refused(Response::BadSequence), ChunkKind::Stray),
            Some(open) if open.recipients == 0 => {
                (Receiver::refused(Response::NoRecipients), ChunkKind::Stray)
            }
            Some(open) => match open.chunked.take() {
                Some(receiver) => (receiver, ChunkKind::Message),
                None if size > self.config.limits.message_octets_max => {
                    let fault = Response::Refused(Refusal::MessageTooLarge);
                    (Receiver::refused(fault), ChunkKind::Message)
                }
                None => return self.begin_data(Pending::BeginChunk { size, last }),
            },
        };
        match kind {
            ChunkKind::Message => self.begin_chunk(size, last, receiver),
            ChunkKind::Stray => {
                self.state = State::Chunk(Chunk { left: size, last, kind, receiver });
            }
        }
    }

    pub(super) fn begin_chunk(&mut self, size: u64, last: Last, mut receiver: Receiver) {
        let too_large = receiver.size.saturating_add(size) > self.message_octets_max();
        let at_driver = if too_large && receiver.fault.is_none() {
            receiver.fail(Response::Refused(Refusal::MessageTooLarge))
        } else {
            AtDriver::Nothing
        };
        let kind = ChunkKind::Message;
        self.state = State::Chunk(Chunk { left: size, last, kind, receiver });
        self.abort_at(at_driver);
    }

    pub(super) fn step_chunk(&mut self, mut chunk: Chunk) -> Step {
        if chunk.left == 0 {
            self.end_chunk(chunk);
            return Step::Done;
        }
        let receiver = &mut chunk.receiver;
        let room = receiver.room(self.read_max());
        if room == 0 {
            self.farewell(&Response::MessageEndless);
            return Step::Done;
        }
        if self.input.is_empty() {
            self.state = State::Chunk(chunk);
            return Step::Starved;
        }
        let left = usize::try_from(chunk.left).unwrap_or(usize::MAX);
        let used = self.input.len().min(room).min(left);
        let piece = &self.input[..used];
        let binary = self.transaction.as_ref().is_some_and(|open| open.body == Body::BinaryMime);
        let mut broken = false;
        if receiver.fault.is_none() {
            broken = !binary && !receiver.line_endings.are_whole(piece);
            receiver.kept.extend_from_slice(piece);
            receiver.size += used as u64;
        }
        self.input.advance(used);
        receiver.read += used as u64;
        chunk.left -= used as u64;
        if broken {
            let at_driver = chunk.receiver.fail(Response::BareLineEnding);
            self.state = State::Chunk(chunk);
            self.abort_at(at_driver);
        } else {
            let full = chunk.receiver.is_full().then(|| chunk.receiver.take());
            self.state = State::Chunk(chunk);
            self.hand_over(full);
        }
        Step::Done
    }

    /// All octets of a chunk were read.
    fn end_chunk(&mut self, mut chunk: Chunk) {
        match (&chunk.receiver.fault, chunk.kind, chunk.last) {
            (Some(fault), ChunkKind::Stray, _) => {
                let fault = fault.clone();
                self.respond(&fault);
            }
            // RFC 2033 §4.2 wants a reply for each recipient at the message's end only.
            (Some(fault), ChunkKind::Message, Last::No) => {
                let fault = fault.clone();
                self.transaction = None;
                self.respond(&fault);
            }
            (Some(_), ChunkKind::Message, Last::Yes) => self.end_message(State::Chunk, chunk),
            (None, _, Last::No) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.chunked = Some(chunk.receiver);
                }
                self.respond(&Response::ChunkOk);
            }
            (None, _, Last::Yes) => {
                if chunk.receiver.line_endings.may_end() {
                    return self.end_message(State::Chunk, chunk);
                }
                let at_driver = chunk.receiver.fail(Response::BareLineEnding);
                self.state = State::Chunk(chunk);
                self.abort_at(at_driver);
            }
        }
    }

    /// The message is complete: its fault is told, or its rest handed over and its end told.
    fn end_message<T: HasReceiver>(&mut self, state: fn(T) -> State, mut message: T) {
        let receiver = message.receiver_mut();
        if let Some(fault) = receiver.fault.take() {
            return self.refuse_message(fault);
        }
        let rest = (!receiver.kept.is_empty()).then(|| receiver.take());
        self.state = state(message);
        match rest {
            Some(rest) => self.hand_over(Some(rest)),
            None => self.call(Call::EndData, Pending::EndData),
        }
    }

    fn hand_over(&mut self, content: Option<Bytes>) {
        if let Some(content) = content {
            self.call(Call::Data(content), Pending::Data);
        }
    }

    fn abort_at(&mut self, at_driver: AtDriver) {
        if at_driver == AtDriver::Begun {
            self.call(Call::AbortData, Pending::AbortData);
        }
    }
}

/// What [`Session::end_message`] needs of both framings.
trait HasReceiver {
    fn receiver_mut(&mut self) -> &mut Receiver;
}

impl HasReceiver for Content {
    fn receiver_mut(&mut self) -> &mut Receiver {
        &mut self.receiver
    }
}

impl HasReceiver for Chunk {
    fn receiver_mut(&mut self) -> &mut Receiver {
        &mut self.receiver
    }
}
