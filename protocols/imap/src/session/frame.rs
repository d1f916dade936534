//! Cuts the client's octets into commands with their literals.
//!
//! Architecture invariant: an octet of a command is scanned once, however small the pieces in which
//! input comes; only the short lines of SASL and IDLE are looked at again.

use bytes::{Buf, Bytes, BytesMut};

use crate::command::parser::{LiteralHeader, LiteralSync};

/// Input that has not been consumed, with the command at its start scanned as far as it is there.
#[derive(Default)]
pub(super) struct Framer {
    buffer: BytesMut,
    /// Before this there is no line end that has not been looked at.
    scanned: usize,
    /// Start of the last line of the command: behind its last literal.
    segment: usize,
}

/// What the input begins with.
pub(super) enum Frame {
    /// Nothing whole yet.
    Incomplete,
    /// A command, with its line end.
    Command(BytesMut),
    /// A command as far as a literal's header; the session says what becomes of it.
    Literal { header: LiteralHeader, end: usize },
    /// A line that exceeds the limit.
    TooLong,
}

impl Framer {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn next(&mut self, max: usize) -> Frame {
        if self.buffer.len() <= self.scanned {
            return Frame::Incomplete;
        }
        let Some(length) = self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n')
        else {
            self.scanned = self.buffer.len();
            return if self.scanned > max { Frame::TooLong } else { Frame::Incomplete };
        };
        let end = self.scanned + length + 1;
        if end > max {
            return Frame::TooLong;
        }
        match literal_at_end(&self.buffer[self.segment..end]) {
            Some(header) => Frame::Literal { header, end },
            None => {
                let command = self.buffer.split_to(end);
                (self.scanned, self.segment) = (0, 0);
                Frame::Command(command)
            }
        }
    }

    /// The octets up to `end`, as far as a [`Frame::Literal`].
    pub(super) fn head(&self, end: usize) -> &[u8] {
        &self.buffer[..end]
    }

    /// Makes a literal part of the command.
    pub(super) fn accept_literal(&mut self, end: usize, size: usize) {
        self.segment = end + size;
        self.scanned = end + size;
    }

    /// Forgets the command up to `end`.
    pub(super) fn drop_head(&mut self, end: usize) {
        self.buffer.advance(end);
        (self.scanned, self.segment) = (0, 0);
    }

    /// Forgets all of the command but its last line. Returns the command as far as it was there.
    pub(super) fn drop_to_segment(&mut self) -> BytesMut {
        let segment = self.segment.min(self.buffer.len());
        let command = self.buffer.clone();
        self.drop_head(segment);
        command
    }

    /// The line at the start of the input, without its line end, and how long it is with it. A line
    /// that exceeds `max` is an error.
    pub(super) fn line(&self, max: usize) -> Option<Result<(&[u8], usize), TooLong>> {
        match self.buffer.iter().take(max).position(|&byte| byte == b'\n') {
            Some(at) => {
                let line = &self.buffer[..at];
                Some(Ok((line.strip_suffix(b"\r").unwrap_or(line), at + 1)))
            }
            None if self.buffer.len() >= max => Some(Err(TooLong)),
            None => None,
        }
    }

    /// Takes up to `max` octets as they are.
    pub(super) fn take(&mut self, max: usize) -> Bytes {
        let length = max.min(self.buffer.len());
        self.buffer.split_to(length).freeze()
    }
}

/// A line exceeds its limit.
pub(super) struct TooLong;

/// The literal's header at the end of a line, line end included.
fn literal_at_end(line: &[u8]) -> Option<LiteralHeader> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line).strip_suffix(b"}")?;
    let (line, sync) = match line.strip_suffix(b"+") {
        Some(line) => (line, LiteralSync::NonSync),
        None => (line, LiteralSync::Sync),
    };
    let digits = line.rsplit(|&byte| byte == b'{').next()?;
    let opened = line.len() > digits.len();
    if !opened || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // A length that no number holds exceeds every limit.
    let size = std::str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX);
    Some(LiteralHeader { size, sync })
}

/// Longest end of a line in which a literal's header can hide.
const TAIL_BYTES: usize = 64;

/// Throws away the rest of a command that was refused, its non-synchronizing literals included:
/// left in the input they would be read as commands.
pub(super) struct Skip {
    literal_left: u64,
    tail: Vec<u8>,
    budget: u64,
}

/// How far skipping went.
pub(super) enum Skipped {
    /// More has to come.
    Partly,
    /// The command ended.
    Wholly,
    /// The client sends more than is reasonable.
    OverBudget,
}

impl Skip {
    /// Begins at the start of a literal of this length, or at the start of a line for 0.
    pub(super) fn new(literal: u64, budget: u64) -> Self {
        Self { literal_left: literal, tail: Vec::new(), budget }
    }

    pub(super) fn step(&mut self, framer: &mut Framer) -> Skipped {
        let buffer = &mut framer.buffer;
        loop {
            if self.literal_left > self.budget {
                return Skipped::OverBudget;
            }
            if buffer.is_empty() {
                return Skipped::Partly;
            }
            if self.literal_left > 0 {
                let length =
                    buffer.len().min(usize::try_from(self.literal_left).unwrap_or(usize::MAX));
                self.spend(length);
                self.literal_left -= length as u64;
                buffer.advance(length);
                continue;
            }
            let line_end = buffer.iter().position(|&byte| byte == b'\n');
            let length = line_end.map_or(buffer.len(), |at| at + 1);
            if length as u64 > self.budget {
                return Skipped::OverBudget;
            }
            self.spend(length);
            self.tail.extend_from_slice(&buffer[length.saturating_sub(TAIL_BYTES)..length]);
            let excess = self.tail.len().saturating_sub(TAIL_BYTES);
            self.tail.drain(..excess);
            buffer.advance(length);
            if line_end.is_some() {
                match literal_at_end(&self.tail) {
                    Some(LiteralHeader { size, sync: LiteralSync::NonSync }) => {
                        self.literal_left = size;
                        self.tail.clear();
                    }
                    _ => return Skipped::Wholly,
                }
            }
        }
    }

    fn spend(&mut self, length: usize) {
        self.budget = self.budget.saturating_sub(length as u64);
    }
}
