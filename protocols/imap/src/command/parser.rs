//! The reader of command syntax (RFC 9051 §9) over one whole command, its literals included.

use std::borrow::Cow;

use crate::call::Outcome;
use crate::flag::Flag;
use crate::limits::FLAGS_MAX;
use crate::mailbox::MailboxName;
use crate::mutf7;
use crate::response::ResponseCode;
use crate::sequence::{MessageSet, SequenceSet};
use crate::wire::{Dialect, is_atom_char};

/// Why a command was not understood, in words for whoever debugs the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SyntaxError {
    pub(crate) text: Cow<'static, str>,
    pub(crate) outcome: Outcome,
    pub(crate) code: Option<ResponseCode>,
}

impl SyntaxError {
    /// Wrong syntax: BAD.
    pub(crate) fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), outcome: Outcome::Bad, code: None }
    }

    /// Right syntax that we cannot serve: NO.
    pub(crate) fn no(code: ResponseCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), outcome: Outcome::No, code: Some(code) }
    }
}

pub(crate) type Parsed<T> = Result<T, SyntaxError>;

/// A cursor over a command. `input` ends before the line end.
pub(crate) struct Parser<'a> {
    input: &'a [u8],
    at: usize,
    dialect: Dialect,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(input: &'a [u8], dialect: Dialect) -> Self {
        Self { input, at: 0, dialect }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.input[self.at..]
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    /// Takes this text, in any case, or nothing.
    pub(crate) fn take(&mut self, text: &str) -> bool {
        let found = self
            .rest()
            .get(..text.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes()));
        if found {
            self.at += text.len();
        }
        found
    }

    pub(crate) fn expect(&mut self, text: &str, what: &'static str) -> Parsed<()> {
        if self.take(text) { Ok(()) } else { Err(SyntaxError::bad(format!("expected {what}"))) }
    }

    pub(crate) fn space(&mut self) -> Parsed<()> {
        self.expect(" ", "a space and further arguments")
    }

    pub(crate) fn end(&self) -> Parsed<()> {
        match self.rest() {
            [] => Ok(()),
            _ => Err(SyntaxError::bad("unexpected text behind the command's arguments")),
        }
    }

    pub(crate) fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let length = rest.iter().position(|&byte| !wanted(byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// An atom; all its octets are ASCII.
    pub(crate) fn atom(&mut self, what: &'static str) -> Parsed<&'a str> {
        self.word(what, |byte| is_atom_char(byte) && byte != b']')
    }

    /// A run of wanted ASCII characters, at least one.
    pub(crate) fn word(
        &mut self,
        what: &'static str,
        wanted: impl Fn(u8) -> bool,
    ) -> Parsed<&'a str> {
        let word = self.take_while(|byte| byte.is_ascii() && wanted(byte));
        match std::str::from_utf8(word) {
            Ok(word) if !word.is_empty() => Ok(word),
            _ => Err(SyntaxError::bad(format!("expected {what}"))),
        }
    }

    /// Digits up to 63 bits (RFC 9051 §9 `number64`).
    pub(crate) fn number(&mut self, what: &'static str) -> Parsed<u64> {
        let digits = self.word(what, |byte| byte.is_ascii_digit())?;
        match digits.parse::<u64>() {
            Ok(number) if number <= i64::MAX as u64 => Ok(number),
            _ => Err(SyntaxError::bad(format!("{what} is out of range"))),
        }
    }

    /// Whether a quoted string or a literal comes next; `~` alone may begin an atom.
    pub(crate) fn at_string(&self) -> bool {
        matches!(self.rest(), [b'"' | b'{', ..] | [b'~', b'{', ..])
    }

    /// `astring` as octets.
    pub(crate) fn astring_bytes(&mut self, what: &'static str) -> Parsed<Cow<'a, [u8]>> {
        match self.at_string() {
            true => self.string_bytes(what),
            false => Ok(Cow::Borrowed(self.word(what, is_atom_char)?.as_bytes())),
        }
    }

    /// `astring` as text.
    pub(crate) fn astring(&mut self, what: &'static str) -> Parsed<String> {
        let bytes = self.astring_bytes(what)?;
        utf8(bytes, what)
    }

    /// `string` as octets: quoted or literal.
    pub(crate) fn string_bytes(&mut self, what: &'static str) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(_) if self.at_string() => self.literal().map(Cow::Borrowed),
            _ => Err(SyntaxError::bad(format!("expected {what}"))),
        }
    }

    pub(crate) fn string(&mut self, what: &'static str) -> Parsed<String> {
        let bytes = self.string_bytes(what)?;
        utf8(bytes, what)
    }

    fn quoted(&mut self) -> Parsed<Cow<'a, [u8]>> {
        let body = &self.rest()[1..];
        let mut unescaped = Vec::new();
        let mut copied = 0;
        let mut at = 0;
        loop {
            match body.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    if !matches!(body.get(at + 1), Some(b'"' | b'\\')) {
                        return Err(SyntaxError::bad("only \" and \\ can be escaped by \\"));
                    }
                    unescaped.extend_from_slice(&body[copied..at]);
                    copied = at + 1;
                    at += 2;
                }
                Some(b'\r' | b'\n' | 0) | None => {
                    return Err(SyntaxError::bad("a quoted string is not closed"));
                }
                Some(_) => at += 1,
            }
        }
        self.at += at + 2;
        if copied == 0 {
            return Ok(Cow::Borrowed(&body[..at]));
        }
        unescaped.extend_from_slice(&body[copied..at]);
        Ok(Cow::Owned(unescaped))
    }

    fn literal(&mut self) -> Parsed<&'a [u8]> {
        self.take("~");
        let length = self.literal_header()?.size;
        let length = usize::try_from(length).ok().filter(|length| *length <= self.rest().len());
        let Some(length) = length else {
            return Err(SyntaxError::bad("a literal is shorter than announced"));
        };
        let (bytes, _) = self.rest().split_at(length);
        self.at += length;
        Ok(bytes)
    }

    /// `{n}` or `{n+}` with its line end, the `~` before it taken already.
    pub(crate) fn literal_header(&mut self) -> Parsed<LiteralHeader> {
        self.expect("{", "a literal")?;
        let size = self.number("the length of a literal")?;
        let form = if self.take("+") { LiteralSync::NonSync } else { LiteralSync::Sync };
        self.expect("}", "the end of a literal's length")?;
        self.take("\r");
        self.expect("\n", "the line end behind a literal's length")?;
        Ok(LiteralHeader { size, sync: form })
    }

    /// A mailbox name in the encoding of the session.
    pub(crate) fn mailbox(&mut self) -> Parsed<MailboxName> {
        let name = self.name("a mailbox name")?;
        MailboxName::new(name).ok_or_else(|| {
            SyntaxError::no(
                ResponseCode::Cannot,
                "a mailbox name is 1 to 1024 octets without control characters",
            )
        })
    }

    /// A name, or part of one, that may be empty.
    pub(crate) fn name(&mut self, what: &'static str) -> Parsed<String> {
        let name = self.astring(what)?;
        self.decode_name(name)
    }

    pub(crate) fn decode_name(&self, name: String) -> Parsed<String> {
        match self.dialect {
            Dialect::Utf8 => Ok(name),
            Dialect::Ascii => mutf7::decode(&name)
                .ok_or_else(|| SyntaxError::bad("a mailbox name is not valid modified UTF-7")),
        }
    }

    pub(crate) fn message_set(&mut self) -> Parsed<MessageSet> {
        if self.take("$") {
            return Ok(MessageSet::Saved);
        }
        let text = self.take_while(|b| b.is_ascii_digit() || matches!(b, b'*' | b':' | b','));
        match SequenceSet::parse(text) {
            Some(set) => Ok(MessageSet::Set(set)),
            None => Err(SyntaxError::bad("expected a set of message numbers such as 1,3:5,9:*")),
        }
    }

    pub(crate) fn flag(&mut self) -> Parsed<Flag> {
        let text = self.word("a flag", |byte| is_atom_char(byte) || byte == b'\\')?;
        Flag::parse(text).ok_or_else(|| {
            SyntaxError::bad(match text.starts_with('\\') {
                true => "a system flag that cannot be set",
                false => "a keyword that is no atom, or too long",
            })
        })
    }

    /// `flag-list`, with its parentheses.
    pub(crate) fn flag_list(&mut self) -> Parsed<Vec<Flag>> {
        self.expect("(", "a list of flags in parentheses")?;
        let mut flags = Vec::new();
        while !self.take(")") {
            if !flags.is_empty() {
                self.space()?;
            }
            self.push_flag(&mut flags)?;
        }
        Ok(flags)
    }

    /// A flag that may already be there, in which case it is not added.
    pub(crate) fn push_flag(&mut self, flags: &mut Vec<Flag>) -> Parsed<()> {
        let flag = self.flag()?;
        if flags.contains(&flag) {
            return Ok(());
        }
        if flags.len() == FLAGS_MAX {
            return Err(SyntaxError::no(ResponseCode::Limit, "too many flags"));
        }
        flags.push(flag);
        Ok(())
    }

    /// What stands in parentheses, at least one, with spaces between.
    pub(crate) fn list(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        self.expect("(", "a list in parentheses")?;
        loop {
            item(self)?;
            if self.take(")") {
                return Ok(());
            }
            self.expect(" ", "a space or )")?;
        }
    }

    /// As [`Parser::list`], but `()` is allowed too.
    pub(crate) fn list_or_empty(
        &mut self,
        item: impl FnMut(&mut Self) -> Parsed<()>,
    ) -> Parsed<()> {
        if self.take("()") { Ok(()) } else { self.list(item) }
    }
}

/// Header of a literal in a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiteralHeader {
    pub(crate) size: u64,
    pub(crate) sync: LiteralSync,
}

/// Whether the client waits for a continuation request before the literal (RFC 7888).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LiteralSync {
    Sync,
    NonSync,
}

pub(crate) fn utf8(bytes: Cow<'_, [u8]>, what: &'static str) -> Parsed<String> {
    let valid = match bytes.contains(&0) {
        true => None,
        false => String::from_utf8(bytes.into_owned()).ok(),
    };
    valid.ok_or_else(|| SyntaxError::bad(format!("{what} is not valid UTF-8")))
}
