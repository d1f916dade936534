//! The content of DATA (RFC 5321 §4.5.2) and the line endings of content in general.
//!
//! Invariant: only CRLF ends a line and only CRLF.CRLF ends the content, wherever the input is
//! cut; a bare CR or LF is reported, never taken for a line's end.

use bytes::{Bytes, BytesMut};
use memchr::{memchr_iter, memchr2};

/// Takes the dot-stuffing off.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dots {
    at: Position,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Position {
    /// After CRLF. The CRLF of the DATA command counts: RFC 5321 §4.1.1.4.
    #[default]
    LineStart,
    InLine,
    /// After CR.
    Cr,
    /// After the dot at a line's start.
    Dot,
    /// After the dot at a line's start, and CR.
    DotCr,
}

/// Why decoding stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The input is used up.
    Starved,
    /// A CR without LF, or an LF without CR. Decoding can go on behind it.
    BareLineEnding,
    /// The content is complete.
    End,
}

/// Where decoded content goes.
#[derive(Debug)]
pub(crate) enum Sink<'a> {
    Keep(&'a mut BytesMut),
    Discard,
}

impl Sink<'_> {
    fn put(&mut self, octets: &[u8]) {
        if let Sink::Keep(kept) = self {
            kept.extend_from_slice(octets);
        }
    }
}

impl Dots {
    /// Decodes `input`: how much of it was used, and why no more. The output is never longer
    /// than what was used. What is put out after a bare line ending is no content.
    pub(crate) fn decode(&mut self, input: &[u8], mut sink: Sink<'_>) -> (usize, Stop) {
        let mut used = 0;
        while let Some(&octet) = input.get(used) {
            if self.at == Position::InLine {
                let plain = plain_length(&input[used..]);
                if plain > 0 {
                    let piece = &input[used..used + plain];
                    sink.put(piece);
                    used += plain;
                    let whole_line = piece.ends_with(b"\r\n");
                    self.at = if whole_line { Position::LineStart } else { Position::InLine };
                    continue;
                }
            }
            used += 1;
            if self.at.keeps(octet) {
                sink.put(&[octet]);
            }
            let (next, stop) = self.at.after(octet);
            self.at = next;
            if let Some(stop) = stop {
                return (used, stop);
            }
        }
        (used, Stop::Starved)
    }
}

/// The length of the longest start of `input`, read within a line, that holds whole CRLFs and
/// no dot at a line's start: what can be copied as it is.
fn plain_length(input: &[u8]) -> usize {
    let mut length = 0;
    while let Some(index) = memchr2(b'\r', b'\n', &input[length..]) {
        let at = length + index;
        if !input[at..].starts_with(b"\r\n") {
            return at;
        }
        length = at + 2;
        if input.get(length) == Some(&b'.') {
            return length;
        }
    }
    input.len()
}

impl Position {
    /// Whether an octet here is content. A CR is put out before its LF is seen: without one
    /// the content is refused in any case.
    fn keeps(self, octet: u8) -> bool {
        match self {
            Position::LineStart => octet != b'.',
            Position::Dot => octet != b'\r',
            Position::DotCr => false,
            Position::InLine | Position::Cr => true,
        }
    }

    fn after(self, octet: u8) -> (Position, Option<Stop>) {
        match (self, octet) {
            (Position::Cr, b'\n') => (Position::LineStart, None),
            (Position::DotCr, b'\n') => (Position::LineStart, Some(Stop::End)),
            (Position::Cr | Position::DotCr, b'\r') => (Position::Cr, Some(Stop::BareLineEnding)),
            (Position::Cr | Position::DotCr, _) => (Position::InLine, Some(Stop::BareLineEnding)),
            (_, b'\n') => (Position::InLine, Some(Stop::BareLineEnding)),
            (Position::Dot, b'\r') => (Position::DotCr, None),
            (_, b'\r') => (Position::Cr, None),
            (Position::LineStart, b'.') => (Position::Dot, None),
            (_, _) => (Position::InLine, None),
        }
    }
}

/// Puts the dot-stuffing on.
///
/// A dot is doubled behind a bare CR or LF, too: a server that takes those for a line's end must
/// not see the end of the content in it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stuffing {
    at: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// At the beginning, or after CRLF.
    #[default]
    LineStart,
    InLine,
    /// After CR.
    Cr,
    /// After a bare LF.
    Lf,
}

impl Stuffing {
    /// Encodes a piece; it is copied only where it has dots to double.
    pub(crate) fn encode(&mut self, piece: Bytes) -> Bytes {
        let mut stuffed = BytesMut::new();
        let mut copied = 0;
        for dot in memchr_iter(b'.', &piece) {
            let begins_line = match dot.checked_sub(1) {
                Some(before) => matches!(piece[before], b'\r' | b'\n'),
                None => self.at != Place::InLine,
            };
            if begins_line {
                stuffed.extend_from_slice(&piece[copied..=dot]);
                copied = dot;
            }
        }
        self.at = self.after(&piece);
        if copied == 0 && stuffed.is_empty() {
            return piece;
        }
        stuffed.extend_from_slice(&piece[copied..]);
        stuffed.freeze()
    }

    /// What ends the content: a final line gets the CRLF it lacks.
    pub(crate) fn end(self) -> Bytes {
        Bytes::from_static(match self.at {
            Place::LineStart => b".\r\n",
            Place::InLine | Place::Cr | Place::Lf => b"\r\n.\r\n",
        })
    }

    fn after(self, piece: &[u8]) -> Place {
        match piece {
            [] => self.at,
            [.., b'\r', b'\n'] => Place::LineStart,
            [b'\n'] if self.at == Place::Cr => Place::LineStart,
            [.., b'\n'] => Place::Lf,
            [.., b'\r'] => Place::Cr,
            _ => Place::InLine,
        }
    }
}

/// Looks for bare line endings in content that is not dot-stuffed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LineEndings {
    after_cr: bool,
}

impl LineEndings {
    /// Reads on; false once a CR without LF or an LF without CR was seen.
    pub(crate) fn are_whole(&mut self, input: &[u8]) -> bool {
        let mut rest = input;
        if self.after_cr && !rest.is_empty() {
            match rest.strip_prefix(b"\n") {
                Some(after) => rest = after,
                None => return false,
            }
            self.after_cr = false;
        }
        while let Some(index) = memchr2(b'\r', b'\n', rest) {
            match &rest[index..] {
                [b'\r', b'\n', after @ ..] => rest = after,
                [b'\r'] => {
                    self.after_cr = true;
                    break;
                }
                _ => return false,
            }
        }
        true
    }

    /// Whether content may end here.
    pub(crate) fn may_end(self) -> bool {
        !self.after_cr
    }
}

#[cfg(test)]
mod tests;
