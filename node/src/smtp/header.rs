//! A message's header on its way in: held back until it is known what to add.
//!
//! - A `Return-Path` of the client's is removed (RFC 5321 §4.4: the final delivery adds the only
//!   one), and so is a [`FIELD`]: what it says is ours to say.
//! - Where asked, a missing `Date` and `Message-ID` are added after the last field (RFC 6409
//!   §8.2, §8.3), so that the trace fields stay on top.
//! - A line that is neither field nor continuation ends the header, as if a blank line stood
//!   before it; that blank line is added. So a message without a header keeps its text.
//! - An mbox `From ` line at the front is dropped.
//!
//! A CR without its LF is refused. All else, 8-bit octets included, is left as it is. Memory is bounded by
//! [`limits::HEADER_BYTES_MAX`] and one piece of input; a longer header is refused, since it
//! cannot be told apart from what is no message at all.

use crate::{guard::score::FIELD, limits};

/// What becomes of a header that is not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    /// No end within [`limits::HEADER_BYTES_MAX`].
    #[error("the header is too large")]
    TooLarge,
    /// More than [`limits::RECEIVED_FIELDS_MAX`] servers had it before (RFC 5321 §6.3).
    #[error("the message goes round in circles")]
    Loop,
    /// A CR without LF (RFC 5322 §2.2): others would see a field begin where we see none. Only BINARYMIME
    /// lets one come so far.
    #[error("a bare CR in the header")]
    BareCr,
}

/// Fields to add where they are missing: whole lines with CRLF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Additions {
    /// The message stays as it is.
    Nothing,
    /// A submission is completed.
    Missing {
        /// The `Date` field.
        date: String,
        /// The `Message-ID` field.
        message_id: String,
    },
}

/// What is passed on of a message up to its body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// The fields.
    pub(super) fields: Vec<u8>,
    /// The blank line, if any, and what came after it.
    pub(super) rest: Vec<u8>,
}

/// Holds a header back.
#[derive(Debug, Default)]
pub(super) struct Gate {
    held: Vec<u8>,
    /// Where the first line begins that was not looked at.
    judged: usize,
}

/// What a line is to a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Field(&'a [u8]),
    Continuation,
    /// mbox's separator.
    From,
    Blank,
    Text,
}

impl Gate {
    /// Takes a piece of the message; gives everything back once the header is whole.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        additions: &Additions,
    ) -> Result<Option<Opening>, HeaderError> {
        self.held.extend_from_slice(bytes);
        while let Some(length) = self.held[self.judged..].iter().position(|byte| *byte == b'\n') {
            // The bound holds for the blank line too, so that the pieces' sizes do not matter.
            if self.judged + length >= limits::HEADER_BYTES_MAX {
                return Err(HeaderError::TooLarge);
            }
            let line = &self.held[self.judged..=self.judged + length];
            match Line::of(line, self.judged) {
                Line::Blank => {
                    let rest = self.held.split_off(self.judged);
                    return compose(&self.held, rest, additions).map(Some);
                }
                Line::Text => {
                    let mut rest = b"\r\n".to_vec();
                    rest.extend_from_slice(&self.held[self.judged..]);
                    self.held.truncate(self.judged);
                    return compose(&self.held, rest, additions).map(Some);
                }
                Line::Field(_) | Line::Continuation | Line::From => self.judged += length + 1,
            }
        }
        if self.held.len() > limits::HEADER_BYTES_MAX {
            return Err(HeaderError::TooLarge);
        }
        Ok(None)
    }

    /// The message has ended within its header.
    pub(super) fn finish(mut self, additions: &Additions) -> Result<Opening, HeaderError> {
        let last = self.held.split_off(self.judged);
        match Line::of(&last, self.judged) {
            Line::Text if !last.is_empty() => {
                let mut rest = b"\r\n".to_vec();
                rest.extend_from_slice(&last);
                compose(&self.held, rest, additions)
            }
            _ => {
                self.held.extend_from_slice(&last);
                if !last.is_empty() {
                    self.held.extend_from_slice(b"\r\n");
                }
                compose(&self.held, Vec::new(), additions)
            }
        }
    }
}

impl<'a> Line<'a> {
    /// The line that begins at `offset` of the message.
    fn of(line: &'a [u8], offset: usize) -> Self {
        let at_front = offset == 0;
        match line {
            [b'\n'] | [b'\r', b'\n'] => Line::Blank,
            [b' ' | b'\t', ..] if !at_front => Line::Continuation,
            _ => match field_name(line) {
                Some(name) => Line::Field(name),
                None if at_front && (line.starts_with(b"From ") || line.starts_with(b">From ")) => {
                    Line::From
                }
                None => Line::Text,
            },
        }
    }
}

/// RFC 5322 §3.6.8; §4.5 allows blanks before the colon.
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = line[..colon].trim_ascii_end();
    let valid = !name.is_empty() && name.iter().all(|byte| matches!(byte, 33..=126));
    valid.then_some(name)
}

/// The fields as they are passed on.
fn compose(held: &[u8], rest: Vec<u8>, additions: &Additions) -> Result<Opening, HeaderError> {
    let mut carriage_returns = held.iter().enumerate().filter(|(_, byte)| **byte == b'\r');
    if carriage_returns.any(|(at, _)| held.get(at + 1) != Some(&b'\n')) {
        return Err(HeaderError::BareCr);
    }
    let mut fields = Vec::with_capacity(held.len() + 256);
    let (mut hops, mut has_date, mut has_message_id, mut keeps) = (0_usize, false, false, true);
    let mut offset = 0;
    for line in held.split_inclusive(|byte| *byte == b'\n') {
        match Line::of(line, offset) {
            Line::Field(name) => {
                let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
                hops += usize::from(is("Received"));
                has_date |= is("Date");
                has_message_id |= is("Message-ID");
                keeps = !is("Return-Path") && !is(FIELD);
            }
            Line::From => keeps = false,
            Line::Continuation | Line::Blank | Line::Text => {}
        }
        if keeps {
            fields.extend_from_slice(line);
        }
        offset += line.len();
    }
    if hops > limits::RECEIVED_FIELDS_MAX {
        return Err(HeaderError::Loop);
    }
    if let Additions::Missing { date, message_id } = additions {
        if !has_date {
            fields.extend_from_slice(date.as_bytes());
        }
        if !has_message_id {
            fields.extend_from_slice(message_id.as_bytes());
        }
    }
    Ok(Opening { fields, rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message as it is passed on, split at every boundary.
    fn check(message: &str, additions: &Additions, expected: Result<&str, HeaderError>) {
        for at in 0..=message.len() {
            let (first, second) = message.as_bytes().split_at(at);
            assert_eq!(
                pass([first, second], additions).as_deref(),
                expected.as_ref().map(|text| text.as_bytes()),
                "split at {at}"
            );
        }
    }

    fn pass(pieces: [&[u8]; 2], additions: &Additions) -> Result<Vec<u8>, HeaderError> {
        let mut gate = Some(Gate::default());
        let mut passed = Vec::new();
        let emit = |opening: Opening, passed: &mut Vec<u8>| {
            passed.extend(opening.fields);
            passed.extend(opening.rest);
        };
        for piece in pieces {
            let Some(held) = &mut gate else {
                passed.extend_from_slice(piece);
                continue;
            };
            if let Some(opening) = held.push(piece, additions)? {
                emit(opening, &mut passed);
                gate = None;
            }
        }
        if let Some(gate) = gate {
            emit(gate.finish(additions)?, &mut passed);
        }
        Ok(passed)
    }

    fn missing() -> Additions {
        Additions::Missing {
            date: "Date: D\r\n".to_owned(),
            message_id: "Message-ID: <M>\r\n".to_owned(),
        }
    }

    #[test]
    fn what_is_missing_is_added_after_the_fields() {
        check(
            "A: b\r\n c\r\n\r\nx\r\n",
            &missing(),
            Ok("A: b\r\n c\r\nDate: D\r\nMessage-ID: <M>\r\n\r\nx\r\n"),
        );
        check(
            "date: b\r\nMESSAGE-Id : c\r\n\r\nx",
            &missing(),
            Ok("date: b\r\nMESSAGE-Id : c\r\n\r\nx"),
        );
        check("A: b\r\n\r\nDate: x\r\n", &Additions::Nothing, Ok("A: b\r\n\r\nDate: x\r\n"));
        check("\r\nx\r\n", &missing(), Ok("Date: D\r\nMessage-ID: <M>\r\n\r\nx\r\n"));
        check("", &missing(), Ok("Date: D\r\nMessage-ID: <M>\r\n"));
    }

    #[test]
    fn a_foreign_return_path_goes() {
        check(
            "Return-path: <a>\r\n\tb\r\nA: b\r\n\r\nReturn-Path: x\r\n",
            &Additions::Nothing,
            Ok("A: b\r\n\r\nReturn-Path: x\r\n"),
        );
    }

    #[test]
    fn a_forged_verdict_goes() {
        check(
            "A: b\r\nrookery-filter: pass;\r\n\tx=1\r\nC: d\r\n\r\n",
            &Additions::Nothing,
            Ok("A: b\r\nC: d\r\n\r\n"),
        );
    }

    #[test]
    fn text_without_a_header_is_a_body() {
        check("Hello\r\nA: b\r\n", &Additions::Nothing, Ok("\r\nHello\r\nA: b\r\n"));
        check(
            "A: b\r\nHello\r\n",
            &missing(),
            Ok("A: b\r\nDate: D\r\nMessage-ID: <M>\r\n\r\nHello\r\n"),
        );
        check("Hello", &Additions::Nothing, Ok("\r\nHello"));
        check(" A: b\r\n", &Additions::Nothing, Ok("\r\n A: b\r\n"));
        check("From a@b Mon 10:00:00\r\nA: b\r\n\r\n", &Additions::Nothing, Ok("A: b\r\n\r\n"));
        check("A: b", &missing(), Ok("A: b\r\nDate: D\r\nMessage-ID: <M>\r\n"));
    }

    #[test]
    fn a_loop_is_noticed() {
        let hops = |count: usize| format!("{}A: b\r\n\r\n", "received: x\r\n".repeat(count));
        let most = hops(limits::RECEIVED_FIELDS_MAX);
        assert_eq!(
            pass([most.as_bytes(), b""], &Additions::Nothing).as_deref(),
            Ok(most.as_bytes())
        );
        let more = hops(limits::RECEIVED_FIELDS_MAX + 1);
        assert_eq!(pass([more.as_bytes(), b""], &Additions::Nothing), Err(HeaderError::Loop));
    }

    #[test]
    fn nobody_hides_a_field_behind_a_bare_cr() {
        let refused = Err(HeaderError::BareCr);
        check("A: b\rFrom: c\r\n\r\nx\r\n", &Additions::Nothing, refused);
        check("A: b\r\r\n\r\nx\r\n", &Additions::Nothing, refused);
        check("A: b\r\n c\rd", &Additions::Nothing, refused);
        check("A: b\n\nx\ry\r\n", &Additions::Nothing, Ok("A: b\n\nx\ry\r\n"));
    }

    #[test]
    fn a_header_has_a_bound() {
        let line = vec![b'x'; limits::HEADER_BYTES_MAX + 1];
        assert_eq!(pass([&line, b""], &Additions::Nothing), Err(HeaderError::TooLarge));
        assert_eq!(pass([&line, b"\r\n"], &Additions::Nothing), Err(HeaderError::TooLarge));
        for (over, fits) in [(0, true), (1, false)] {
            let value = "x".repeat(limits::HEADER_BYTES_MAX - "A:\r\n\r\n".len() + over);
            let message = format!("A:{value}\r\n\r\nbody");
            for at in [0, 1, message.len() - 5, message.len()] {
                let (first, second) = message.as_bytes().split_at(at);
                let passed = pass([first, second], &Additions::Nothing);
                assert_eq!(passed.is_ok(), fits, "{over} over, split at {at}");
            }
        }
    }
}
