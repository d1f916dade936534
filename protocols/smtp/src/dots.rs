//! The content of DATA (RFC 5321 §4.5.2) and the line endings of content in general.
//!
//! Invariant: only CRLF ends a line and only CRLF.CRLF ends the content, wherever the input is
//! cut; a bare CR or LF is reported, never taken for a line's end.

use bytes::BytesMut;
use memchr::memchr2;

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
