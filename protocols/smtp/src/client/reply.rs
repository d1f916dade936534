//! Replies of a server (RFC 5321 §4.2), read with bounded memory.
//!
//! Invariant: what is kept of a reply is printable, whatever the peer sent, and at most
//! [`REPLY_OCTETS_MAX`] octets of it are held; a longer reply is a violation.

use std::fmt;
use std::sync::Arc;

use memchr::memchr;

use super::failure::Violation;
use crate::call::Permanence;
use crate::limits::{
    REPLY_LINE_OCTETS_MAX, REPLY_LINES_MAX, REPLY_OCTETS_MAX, REPLY_TEXT_OCTETS_MAX,
};

/// What a server said, once and for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The reply code, 200 to 599.
    pub code: u16,
    /// The enhanced status code (RFC 2034, RFC 3463), if there was one of the code's class.
    pub enhanced: Option<EnhancedCode>,
    /// The text: printable, its lines separated by `\n`, cut to [`REPLY_TEXT_OCTETS_MAX`].
    pub text: Arc<str>,
}

/// An enhanced status code (RFC 3463 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedCode {
    /// 2, 4 or 5.
    pub class: u8,
    /// 0 to 999.
    pub subject: u16,
    /// 0 to 999.
    pub detail: u16,
}

impl Response {
    /// Whether the server did what it was asked: a code of 200 to 299.
    pub fn is_success(&self) -> bool {
        self.class() == Class::Success
    }

    /// Whether a refusal is worth another try; `None` for what is no refusal.
    pub fn permanence(&self) -> Option<Permanence> {
        match self.code {
            400..=499 => Some(Permanence::Temporary),
            500.. => Some(Permanence::Permanent),
            _ => None,
        }
    }

    pub(super) fn class(&self) -> Class {
        match self.code {
            200..=299 => Class::Success,
            300..=399 => Class::Intermediate,
            _ => Class::Refusal,
        }
    }
}

impl fmt::Display for Response {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(formatter, " {enhanced}")?;
        }
        let separator = if self.text.is_empty() { "" } else { " " };
        write!(formatter, "{separator}{}", self.text.replace('\n', " "))
    }
}

impl EnhancedCode {
    /// Parses `class.subject.detail`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let class = match parts.next()? {
            "2" => 2,
            "4" => 4,
            "5" => 5,
            _ => return None,
        };
        let (subject, detail) = (status_part(parts.next()?)?, status_part(parts.next()?)?);
        parts.next().is_none().then_some(EnhancedCode { class, subject, detail })
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// RFC 3463 §2: 1 to 3 digits.
fn status_part(text: &str) -> Option<u16> {
    let digits = (1..=3).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// What a reply's first digit means (RFC 5321 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Success,
    Intermediate,
    Refusal,
}

/// A whole reply: its code, and the text of each line.
#[derive(Debug)]
pub(super) struct Reply {
    code: u16,
    lines: Vec<String>,
}

impl Reply {
    /// The text of each line, as EHLO's answer needs it.
    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The reply as it is told to the caller.
    pub(super) fn response(&self) -> Response {
        let mut enhanced = None;
        let mut text = String::new();
        for (index, line) in self.lines.iter().enumerate() {
            let (code, rest) = self.split_enhanced(line);
            enhanced = enhanced.or(code);
            if index > 0 {
                text.push('\n');
            }
            text.push_str(rest);
        }
        text.truncate(text.floor_char_boundary(REPLY_TEXT_OCTETS_MAX));
        Response { code: self.code, enhanced, text: text.into() }
    }

    /// RFC 2034 §4: the enhanced code is the first word of a line, and of the code's class.
    fn split_enhanced<'a>(&self, line: &'a str) -> (Option<EnhancedCode>, &'a str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match EnhancedCode::parse(word) {
            Some(code) if u16::from(code.class) == self.code / 100 => (Some(code), rest),
            _ => (None, line),
        }
    }
}

/// Reads replies from octets cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The beginning of a line.
    line: Vec<u8>,
    /// The lines so far of the reply being read.
    begun: Option<Reply>,
    octets: usize,
}

impl Reader {
    /// Reads from the start of `input` up to a reply's end, or everything. `input` becomes what
    /// was not used.
    ///
    /// A bare LF ends a line, too: old servers send it, and no more hangs on it than the reading
    /// of a text.
    pub(super) fn read(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, Violation> {
        while !input.is_empty() {
            let end = memchr(b'\n', input).map(|index| index + 1);
            let (piece, rest) = input.split_at(end.unwrap_or(input.len()));
            self.octets += piece.len();
            if self.line.len() + piece.len() > REPLY_LINE_OCTETS_MAX {
                return Err(Violation::LineTooLong);
            }
            if self.octets > REPLY_OCTETS_MAX {
                return Err(Violation::ReplyTooLong);
            }
            self.line.extend_from_slice(piece);
            *input = rest;
            if end.is_some() && self.end_line()? == Position::Last {
                self.octets = 0;
                return Ok(self.begun.take());
            }
        }
        Ok(None)
    }

    /// Octets held.
    pub(super) fn buffered(&self) -> usize {
        let lines = self.begun.iter().flat_map(|reply| &reply.lines);
        self.line.len() + lines.map(String::len).sum::<usize>()
    }

    fn end_line(&mut self) -> Result<Position, Violation> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, position, text) = parse_line(line).ok_or(Violation::Malformed)?;
        let reply = self.begun.get_or_insert(Reply { code, lines: Vec::new() });
        // RFC 5321 §4.2.1: the code is the same on every line.
        if reply.code != code {
            return Err(Violation::Malformed);
        }
        if reply.lines.len() >= REPLY_LINES_MAX {
            return Err(Violation::ReplyTooLong);
        }
        reply.lines.push(printable(text));
        Ok(position)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Last,
    More,
}

/// Code, whether the reply goes on, and text of a line.
fn parse_line(line: &[u8]) -> Option<(u16, Position, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !matches!(digits[0], b'2'..=b'5') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest {
        // RFC 5321 §4.2: a client takes the code alone for a whole line.
        [] => Some((code, Position::Last, rest)),
        [b' ', text @ ..] => Some((code, Position::Last, text)),
        [b'-', text @ ..] => Some((code, Position::More, text)),
        _ => None,
    }
}

/// No control character reaches a log or a notification.
fn printable(text: &[u8]) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    String::from_utf8_lossy(text).chars().map(shown).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(input: &[u8]) -> Result<Vec<Response>, Violation> {
        let (mut reader, mut rest, mut replies) = (Reader::default(), input, Vec::new());
        while let Some(reply) = reader.read(&mut rest)? {
            replies.push(reply.response());
        }
        Ok(replies)
    }

    fn check(input: &str, expected: Result<&[&str], Violation>) {
        let shown =
            |replies: Vec<Response>| replies.iter().map(Response::to_string).collect::<Vec<_>>();
        let expected = expected.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect());
        assert_eq!(read_all(input.as_bytes()).map(shown), expected, "{input:?}");
    }

    #[test]
    fn replies() {
        check("250 2.0.0 OK\r\n", Ok(&["250 2.0.0 OK"]));
        check("250\r\n354 \r\n", Ok(&["250", "354"]));
        check("550-5.1.1 No\r\n550 5.1.1 such\r\n", Ok(&["550 5.1.1 No such"]));
        check("250 OK\n221", Ok(&["250 OK"]));
        check("250 5.1.1 OK\r\n", Ok(&["250 5.1.1 OK"]));
        check("550 5.1 x\r\n", Ok(&["550 5.1 x"]));
        check("550 \u{7}\u{e4}\r\n", Ok(&["550  \u{e4}"]));
        for bad in ["25\r\n", "150 x\r\n", "650 x\r\n", "2x0 y\r\n", "250x\r\n", "\r\n"] {
            check(bad, Err(Violation::Malformed));
        }
        check("250-a\r\n251 b\r\n", Err(Violation::Malformed));
    }

    #[test]
    fn an_enhanced_code_is_of_the_codes_class() {
        let of = |line: &str| read_all(line.as_bytes()).expect("valid")[0].enhanced;
        let code = |class, subject, detail| Some(EnhancedCode { class, subject, detail });
        assert_eq!(of("550 5.7.509 x\r\n"), code(5, 7, 509));
        assert_eq!(of("250-2.1.5 a\r\n250 2.1.5 b\r\n"), code(2, 1, 5));
        for line in ["250 5.1.1 x", "450 4.1 x", "450 4.1.1234 x", "450 4..1 x", "450 3.1.1 x"] {
            assert_eq!(of(&format!("{line}\r\n")), None, "{line}");
        }
    }

    #[test]
    fn replies_are_bounded() {
        let long_line = format!("250 {}", "x".repeat(REPLY_LINE_OCTETS_MAX));
        check(&long_line, Err(Violation::LineTooLong));
        check(&"250-x\r\n".repeat(REPLY_LINES_MAX + 1), Err(Violation::ReplyTooLong));
        let line = format!("250-{}\r\n", "x".repeat(1000));
        check(&line.repeat(REPLY_OCTETS_MAX / 1000 + 1), Err(Violation::ReplyTooLong));
        let text = format!("250-{}\r\n250 x\r\n", "\u{e4}".repeat(REPLY_TEXT_OCTETS_MAX));
        let replies = read_all(text.as_bytes()).expect("valid");
        assert!(replies[0].text.len() <= REPLY_TEXT_OCTETS_MAX);
    }
}
